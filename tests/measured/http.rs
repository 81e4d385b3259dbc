//! Plain HTTP: what an upload holds, and how soon an end on one side is one on the other.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::wire::read_head;
use crate::harness::{Proxy, StepWorker, ask, within};
use crate::measure::{alone, percentiles};

/// Sends `bytes` as the body of a POST while the worker counts them.
async fn upload(proxy: &Proxy, worker: &StepWorker, bytes: u64) {
    let sending = async {
        let mut stream = TcpStream::connect(proxy.public).await.unwrap();
        let head = format!("POST /up HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {bytes}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let chunk = vec![7; 256 << 10];
        let mut left = bytes;
        while left > 0 {
            let part = left.min(chunk.len() as u64);
            stream.write_all(&chunk[..part as usize]).await.unwrap();
            left -= part;
        }
        let mut buffer = BytesMut::new();
        let head = read_head(&mut stream, &mut buffer).await.unwrap();
        assert_eq!(head.line, "HTTP/1.1 200 OK");
    };
    let counting = async {
        let mut knock = worker.knock().await;
        assert_eq!(knock.head.header("content-length"), bytes.to_string());
        let mut came = knock.buffer.len() as u64;
        let mut chunk = vec![0; 256 << 10];
        while came < bytes {
            let read = knock.stream.read(&mut chunk).await.unwrap();
            assert!(read > 0, "the body broke off after {came} bytes");
            came += read as u64;
        }
        knock.answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    };
    within("an upload", async { tokio::join!(sending, counting) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ib_18_an_upload_of_300_mb_is_streamed_in_less_than_2_mib_of_memory() {
    let _alone = alone();
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    upload(&proxy, &worker, 30_000_000).await;
    let before = proxy.memory_kib("VmHWM");
    upload(&proxy, &worker, 300_000_000).await;
    let grown = proxy.memory_kib("VmHWM") - before;
    println!("IB-18: an upload of 300 MB made the peak of resident memory {grown} KiB higher");
    assert!(grown < 2 << 10, "{grown} KiB");
}

#[tokio::test]
async fn lp_03_a_client_that_gives_up_cancels_the_workers_request_within_100_ms() {
    let _alone = alone();
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let mut times = Vec::new();
    for _ in 0..15 {
        let mut client = TcpStream::connect(proxy.public).await.unwrap();
        client.write_all(b"GET /poll HTTP/1.1\r\nHost: cam\r\n\r\n").await.unwrap();
        let mut knock = worker.knock().await;
        let gone = Instant::now();
        drop(client);
        let read = within("the end of the request", knock.stream.read(&mut [0])).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
        times.push(gone.elapsed());
    }
    let [half, last] = percentiles(&mut times, [50, 99]);
    println!("LP-03: the worker's request ends {half:?} (p50), {last:?} (p99) after its client");
    assert!(half < Duration::from_millis(100), "{times:?}");
}

#[tokio::test]
async fn lp_04_a_worker_that_dies_while_it_holds_a_poll_is_502_at_once() {
    let _alone = alone();
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let dying = async {
        let knock = worker.knock().await;
        drop(knock);
        Instant::now()
    };
    let (reply, died) = tokio::join!(ask(proxy.public, "GET", "/poll", &[], ""), dying);
    assert_eq!(reply.status, 502, "{}", reply.text());
    assert_eq!(reply.header("content-type"), "application/problem+json");
    assert!(died.elapsed() < Duration::from_secs(1), "{:?}", died.elapsed());
}
