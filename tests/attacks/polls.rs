//! Plain requests that wait for their answers.

use futures_util::future::join_all;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::books::Books;
use crate::harness::{Proxy, StepWorker, eventually};
use crate::measure::alone;

const POLLS: usize = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parked_polls_are_charged_what_they_cost() {
    let _alone = alone();
    let proxy = Proxy::start("[[pools]]\nname = \"default\"\n");
    let books = Books::open(&proxy).await;
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let serving = tokio::spawn(async move {
        let mut parked = Vec::new();
        loop {
            parked.push(worker.knock_unbounded().await);
        }
    });
    let asking = (0..POLLS).map(|_| async {
        let mut stream = TcpStream::connect(proxy.public).await.unwrap();
        stream.write_all(b"GET /poll HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        stream
    });
    let _asked = join_all(asking).await;
    eventually("all of them are parked", async || {
        books.check("polls").await;
        (proxy.metrics().await.sum("polls_parked", &[]) == POLLS as f64).then_some(())
    })
    .await;
    let grown = books.check("polls").await;
    println!("{POLLS} polls: {:.1} MiB resident, {:.1} said", grown.resident / 1048576.0, grown.said / 1048576.0);
    serving.abort();
}
