//! Shared devices: many viewers, one worker connection, none of which can harm another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Client, DemoWorker, Proxy, Said, StepWorker, Wire, eventually, within};

/// A video frame as large as the seed's.
const FRAME_BYTES: usize = 226 * 1024;

fn shared(keys: &str) -> String {
    format!(
        "[reattach]\ndials_per_minute = 0\n[limits]\nkey_connections = 0\nkey_rate = 0\n[[pools]]\nname = \"default\"\n[[routes]]\nname = \"ws\"\n\
         path = \"/ws/{{device}}/{{kind}}\"\nkey = \"{{device}}\"\nshare = true\n{keys}\n"
    )
}

/// Frame `n`: its number, then bytes that only it has.
fn frame(n: u32, len: usize) -> Vec<u8> {
    let mut bytes = n.to_be_bytes().to_vec();
    bytes.resize(len, n as u8);
    bytes
}

fn number(said: Said) -> u32 {
    match said {
        Said::Binary(bytes) => {
            let n = u32::from_be_bytes(bytes[..4].try_into().unwrap());
            assert!(bytes[4..].iter().all(|&byte| byte == n as u8), "frame {n} is spliced");
            n
        }
        other => panic!("{other:?}"),
    }
}

async fn send_frame(wire: &mut Wire, n: u32, len: usize) {
    wire.frame_out(true, 2, &frame(n, len)).await;
}

/// A worker, its one socket, and `count` viewers of it.
async fn watched(proxy: &Proxy, count: usize) -> (StepWorker, Wire, Vec<Client>) {
    let worker = StepWorker::start().await;
    proxy.register("w0", worker.address).await;
    let path = "/ws/cam/video";
    let opening = async { join_all((0..count).map(|_| Client::connect(proxy.public, path))).await };
    let (viewers, wire) = tokio::join!(opening, worker.accept());
    (worker, wire, viewers)
}

async fn stats(proxy: &Proxy) -> Value {
    proxy.get("/v1/stats").await["shared_streams"].clone()
}

async fn stream_pipe(proxy: &Proxy) -> Value {
    proxy.pipe_that("the stream's own pipe", |pipe| pipe["shared"]["role"] == "stream").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ib_24_six_viewers_that_come_at_once_share_one_backend_connection_and_each_gets_every_frame() {
    let proxy = Proxy::start(&shared(""));
    let (worker, mut wire, mut viewers) = watched(&proxy, 6).await;
    for n in 1..=20 {
        send_frame(&mut wire, n, FRAME_BYTES).await;
        for viewer in &mut viewers {
            assert_eq!(number(viewer.hear().await), n);
        }
    }
    assert!(worker.is_left_alone_for(Duration::from_millis(200)).await, "a second connection for one key");
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("shared_streams", &[("route", "ws")]), 1.0);
    assert_eq!(metrics.sum("shared_stream_reuse_total", &[("route", "ws")]), 5.0);
    assert_eq!(metrics.sum("backend_pipes", &[("backend", "w0")]), 1.0);
    assert_eq!(metrics.sum("pipes", &[("route", "ws")]), 6.0, "viewers are pipes, their stream is not another");
    assert_eq!(metrics.sum("messages_total", &[("lane", "down")]), 120.0);
    let seen = stats(&proxy).await;
    assert_eq!((&seen["open"], &seen["idle"], &seen["viewers"]), (&json!(1), &json!(0), &json!(6)));
    assert_eq!((&seen["items"][0]["key"], &seen["items"][0]["backend"]), (&json!("cam"), &json!("w0")));
    assert!((seen["reuse_rate"].as_f64().unwrap() - 5.0 / 6.0).abs() < 1e-9, "{seen}");
    assert_eq!(proxy.get("/v1/stats").await["total_connections"], 6);
    let stream = stream_pipe(&proxy).await;
    assert_eq!(stream["shared"]["viewers"], 6);
    let pipes = proxy.pipes().await;
    let seated = pipes.iter().filter(|pipe| pipe["shared"]["role"] == "viewer" && pipe["backend"] == "w0");
    assert!(seated.clone().all(|pipe| pipe["shared"]["stream"] == stream["id"]));
    assert_eq!(seated.count(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ib_24_when_the_worker_dies_all_viewers_stay_and_the_stream_goes_on_whole() {
    let proxy = Proxy::start(&shared(""));
    let (worker, mut wire, mut viewers) = watched(&proxy, 5).await;
    for turn in 0..6 {
        for n in 0..5 {
            send_frame(&mut wire, turn * 10 + n, 100_000).await;
        }
        for viewer in &mut viewers {
            for n in 0..5 {
                assert_eq!(number(viewer.hear().await), turn * 10 + n);
            }
        }
        // half a frame, and then the worker is gone
        let half = wire.encode(0x82, &frame(99, 100_000));
        wire.send_raw(&half[..half.len() / 2]).await.unwrap();
        if turn % 2 == 0 {
            wire.reset();
        } else {
            wire.fin().await;
        }
        wire = worker.accept().await;
    }
    send_frame(&mut wire, 100, 1000).await;
    for viewer in &mut viewers {
        assert_eq!(number(viewer.hear().await), 100);
    }
    let stream = stream_pipe(&proxy).await;
    assert_eq!(stream["interruptions"], 6);
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("interruptions_total", &[]), 6.0, "one for the stream, none for its viewers");
    assert_eq!(metrics.sum("pipe_closes_total", &[]), 0.0);
    assert_eq!(metrics.sum("shared_streams", &[]), 1.0);
}

#[tokio::test]
async fn ib_24_a_stream_lingers_for_the_next_viewer_and_goes_after_its_linger() {
    let proxy = Proxy::start(&shared("share_linger = \"3s\""));
    let (worker, mut wire, viewers) = watched(&proxy, 2).await;
    for mut viewer in viewers {
        viewer.close(1000, "done").await;
    }
    eventually("it lingers", async || (stats(&proxy).await["idle"] == 1).then_some(())).await;
    assert!(stats(&proxy).await["items"][0]["linger_ms"].as_u64().unwrap() <= 3_000);
    let mut late = Client::connect(proxy.public, "/ws/cam/video").await;
    send_frame(&mut wire, 7, 1000).await;
    assert_eq!(number(late.hear().await), 7);
    late.close(1000, "").await;
    assert_eq!(wire.hear().await, Said::Close(1001, "nobody is watching".into()));
    wire.close(1001, "").await;
    proxy.event_of(0, "shared.closed").await;
    proxy.emptied().await;
    assert_eq!(proxy.metrics().await.sum("shared_streams", &[]), 0.0);
    assert_eq!(proxy.metrics().await.sum("shared_stream_reuse_total", &[]), 2.0);
    let (_again, _wire) = tokio::join!(Client::connect(proxy.public, "/ws/cam/video"), worker.accept());
}

#[tokio::test]
async fn ib_17_each_key_has_a_connection_of_its_own_and_a_stranger_does_not_join() {
    let proxy = Proxy::start(&shared(""));
    let (worker, mut cam, mut viewers) = watched(&proxy, 2).await;
    let (mut other, mut door) = tokio::join!(Client::connect(proxy.public, "/ws/door/video"), worker.accept());
    send_frame(&mut cam, 1, 100).await;
    send_frame(&mut door, 2, 100).await;
    assert_eq!(number(other.hear().await), 2);
    for viewer in &mut viewers {
        assert_eq!(number(viewer.hear().await), 1);
    }
    assert_eq!(proxy.metrics().await.sum("shared_streams", &[]), 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ib_16_a_slow_viewer_gets_the_newest_whole_frames_and_delays_nobody() {
    const FRAMES: u32 = 400;
    let proxy = Proxy::start(&shared("down = \"latest:3\""));
    let (_worker, mut wire, mut viewers) = watched(&proxy, 3).await;
    let mut slow = Wire::connect(proxy.public, "/ws/cam/video", &[]).await;
    eventually("it is seated", async || (stats(&proxy).await["viewers"] == 4).then_some(())).await;
    let mut highest = 0;
    for n in 1..=FRAMES {
        send_frame(&mut wire, n, FRAME_BYTES).await;
        for viewer in &mut viewers {
            assert_eq!(number(viewer.hear().await), n);
        }
        if n == FRAMES / 4 {
            highest = proxy.memory_kib("VmRSS");
        }
    }
    let grown = proxy.memory_kib("VmRSS").saturating_sub(highest);
    assert!(grown < 8 * 1024, "{grown} KiB for {} MB more", (FRAMES * 3 / 4) * 226 / 1024);
    let mut heard = Vec::new();
    while heard.last() != Some(&FRAMES) {
        heard.push(number(slow.hear().await));
    }
    assert!(heard.is_sorted() && heard.ends_with(&[FRAMES - 2, FRAMES - 1, FRAMES]), "{heard:?}");
    let metrics = proxy.metrics().await;
    let dropped = metrics.sum("dropped_messages_total", &[("lane", "down"), ("reason", "latest")]);
    assert_eq!(dropped as usize, FRAMES as usize - heard.len(), "each drop is counted: {heard:?}");
    assert_eq!(metrics.sum("lost_messages_total", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn st_11_under_keep_a_slow_viewer_is_closed_and_the_others_miss_and_wait_for_nothing() {
    let proxy = Proxy::start(&shared("share_bytes_max = \"1MiB\""));
    let (_worker, mut wire, mut viewers) = watched(&proxy, 3).await;
    let mut slow = Wire::connect(proxy.public, "/ws/cam/video", &[]).await;
    eventually("it is seated", async || (stats(&proxy).await["viewers"] == 4).then_some(())).await;
    let mut n = 0;
    let mut more = async |wire: &mut Wire, viewers: &mut Vec<Client>| {
        n += 1;
        send_frame(wire, n, FRAME_BYTES).await;
        for viewer in viewers {
            assert_eq!(number(viewer.hear().await), n);
        }
    };
    // more than a socket's buffers and the stream's hold
    for _ in 0..100 {
        more(&mut wire, &mut viewers).await;
    }
    // it reads on, and what comes next is no longer there
    let mut heard = Vec::new();
    let close = loop {
        match slow.hear().await {
            Said::Close(code, reason) => break (code, reason),
            said => heard.push(number(said)),
        }
    };
    assert_eq!(close, (1013, "client too slow".into()));
    assert!(heard.len() < 100 && heard.iter().copied().eq(1..=heard.len() as u32), "{heard:?}");
    for _ in 0..20 {
        more(&mut wire, &mut viewers).await;
    }
    let lost = proxy.event_of(0, "pipe.messages_lost").await;
    assert_eq!((&lost["lane"], &lost["reason"]), (&json!("down"), &json!("peer_gone")));
    eventually("its seat is free", async || (stats(&proxy).await["viewers"] == 3).then_some(())).await;
}

#[tokio::test]
async fn st_11_a_viewer_that_takes_nothing_at_all_is_closed_after_the_stall_limit() {
    let proxy = Proxy::start(&(shared("share_bytes_max = \"1MiB\"") + "[replay]\nstall_max = \"300ms\"\n"));
    let (_worker, mut wire, mut viewers) = watched(&proxy, 1).await;
    let _stuck = Wire::connect(proxy.public, "/ws/cam/video", &[]).await;
    eventually("it is seated", async || (stats(&proxy).await["viewers"] == 2).then_some(())).await;
    for n in 1..=100 {
        send_frame(&mut wire, n, FRAME_BYTES).await;
        assert_eq!(number(viewers[0].hear().await), n);
    }
    eventually("only the other is left", async || (stats(&proxy).await["viewers"] == 1).then_some(())).await;
    send_frame(&mut wire, 101, FRAME_BYTES).await;
    assert_eq!(number(viewers[0].hear().await), 101);
    let closed = async || (proxy.metrics().await.sum("pipe_closes_total", &[("code", "1013")]) == 1.0).then_some(());
    eventually("its end is counted", closed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ib_24_what_viewers_say_arrives_whole_in_each_viewers_order_and_none_is_starved() {
    const EACH: usize = 200;
    let proxy = Proxy::start(&shared(""));
    let (_worker, mut wire, viewers) = watched(&proxy, 3).await;
    let sending = viewers.into_iter().enumerate().map(|(viewer, mut client)| {
        tokio::spawn(async move {
            for n in 0..EACH {
                // now and then a big one, which must not be cut by another's
                let fill = "x".repeat(if n % 40 == 39 { 200_000 } else { 40 });
                client.text(json!({ "viewer": viewer, "n": n, "fill": fill }).to_string()).await;
            }
            client
        })
    });
    let sending: Vec<_> = sending.collect();
    let mut next = [0; 3];
    for _ in 0..3 * EACH {
        let said: Value = serde_json::from_str(&wire.hear().await.text()).unwrap();
        let viewer = said["viewer"].as_u64().unwrap() as usize;
        assert_eq!(said["n"], next[viewer], "of viewer {viewer}");
        next[viewer] += 1;
    }
    assert_eq!(next, [EACH; 3]);
    for client in sending {
        within("a sender", client).await.unwrap();
    }
    assert_eq!(proxy.metrics().await.sum("messages_total", &[("lane", "up")]), 3.0 * EACH as f64);
}

#[tokio::test]
async fn ib_24_taps_of_several_viewers_during_an_outage_reach_the_next_worker() {
    let proxy = Proxy::start(&shared(""));
    let (worker, wire, mut viewers) = watched(&proxy, 3).await;
    drop(worker);
    wire.reset();
    proxy.event_of(0, "pipe.interrupted").await;
    for n in 0..30 {
        viewers[n % 3].text(n.to_string()).await;
    }
    viewers[0].close(1000, "left early").await;
    let next = StepWorker::start().await;
    proxy.register("w1", next.address).await;
    let mut wire = next.accept().await;
    let mut heard = Vec::new();
    for _ in 0..30 {
        heard.push(wire.hear().await.text().parse::<usize>().unwrap());
    }
    for viewer in 0..3 {
        let own: Vec<_> = heard.iter().copied().filter(|n| n % 3 == viewer).collect();
        assert!(own.is_sorted() && own.len() == 10, "{own:?}");
    }
    assert_eq!(proxy.metrics().await.sum("lost_messages_total", &[]), 0.0);
}

#[tokio::test]
async fn ib_24_a_newcomer_is_given_the_last_messages_first_in_order_and_then_what_comes() {
    let proxy = Proxy::start(&shared("share_catch_up = 3"));
    let (_worker, mut wire, mut viewers) = watched(&proxy, 1).await;
    for n in 1..=10 {
        wire.text(&n.to_string()).await;
        assert_eq!(viewers[0].hear().await.text(), n.to_string());
    }
    let mut late = Client::connect(proxy.public, "/ws/cam/video").await;
    wire.text("11").await;
    for n in 8..=11 {
        assert_eq!(late.hear().await.text(), n.to_string());
    }
    assert_eq!(viewers[0].hear().await.text(), "11");
}

#[tokio::test]
async fn ib_24_what_the_worker_ends_with_is_what_every_viewer_is_told() {
    let proxy = Proxy::start(&shared(""));
    let (worker, mut wire, mut viewers) = watched(&proxy, 3).await;
    wire.text("last").await;
    wire.close(4004, "no such session").await;
    for viewer in &mut viewers {
        assert_eq!(viewer.hear().await.text(), "last");
        assert_eq!(viewer.hear().await, Said::Close(4004, "no such session".into()));
    }
    let (_fresh, _wire) = tokio::join!(Client::connect(proxy.public, "/ws/cam/video"), worker.accept());
}

#[tokio::test]
async fn ib_24_without_a_worker_within_grace_every_viewer_is_told_1013() {
    let proxy = Proxy::start(&shared("").replace("[reattach]\n", "[reattach]\ngrace = \"200ms\"\n"));
    let (worker, wire, mut viewers) = watched(&proxy, 3).await;
    drop(worker);
    wire.reset();
    for viewer in &mut viewers {
        assert_eq!(viewer.hear().await, Said::Close(1013, "no backend within grace".into()));
    }
}

#[tokio::test]
async fn ib_24_a_worker_that_refuses_answers_the_one_it_was_asked_for_and_the_next_may_try() {
    let proxy = Proxy::start(&shared(""));
    let worker = StepWorker::start().await;
    proxy.register("w0", worker.address).await;
    let (first, second) = (Client::open(proxy.public, "/ws/cam/video"), Client::open(proxy.public, "/ws/cam/video"));
    let answering = async {
        let mut knock = worker.knock().await;
        knock.answer("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
        worker.accept().await
    };
    let (first, second, _wire) = tokio::join!(first, second, answering);
    let statuses: Vec<_> = [first, second].into_iter().map(|client| client.map(|_| ())).collect();
    assert!(statuses.contains(&Err(403)) && statuses.contains(&Ok(())), "{statuses:?}");
}

#[tokio::test]
async fn ib_24_a_later_viewer_must_speak_what_the_stream_speaks() {
    let proxy = Proxy::start(&shared(""));
    let worker = StepWorker::start().await;
    proxy.register("w0", worker.address).await;
    let offer = [("Sec-WebSocket-Protocol", "v2, v1")];
    let opening = Wire::open(proxy.public, "/ws/cam/video", &offer);
    let answering = async { worker.knock().await.upgrade_with("Sec-WebSocket-Protocol: v1\r\n").await };
    let (first, _wire) = tokio::join!(opening, answering);
    assert_eq!(first.unwrap().head.header("sec-websocket-protocol"), "v1");
    let same = Wire::open(proxy.public, "/ws/cam/video", &[("Sec-WebSocket-Protocol", "v1")]).await.unwrap();
    assert_eq!(same.head.header("sec-websocket-protocol"), "v1");
    let other = Wire::open(proxy.public, "/ws/cam/video", &[("Sec-WebSocket-Protocol", "v3")]).await.unwrap_err();
    assert_eq!(other.expect(409).json()["type"], "urn:holdline:problem:subprotocol");
}

#[tokio::test]
async fn ib_24_an_operator_moves_the_stream_by_moving_one_of_its_viewers() {
    let proxy = Proxy::start(&shared(""));
    let (_worker, mut wire, mut viewers) = watched(&proxy, 2).await;
    let next = StepWorker::start().await;
    proxy.register("w1", next.address).await;
    let pipes = proxy.pipes().await;
    let viewer = pipes.iter().find(|pipe| pipe["shared"]["role"] == "viewer").unwrap();
    let path = format!("/v1/pipes/{}/reattach", viewer["id"].as_str().unwrap());
    proxy.api("POST", &path, Some(json!({}))).await.expect(202);
    let moved = async {
        wire.close(1001, "").await;
        next.accept().await
    };
    let mut wire = within("the move", moved).await;
    wire.text("from the next").await;
    for viewer in &mut viewers {
        assert_eq!(viewer.hear().await.text(), "from the next");
    }
    assert_eq!(stream_pipe(&proxy).await["backend"], "w1");
}

#[tokio::test]
async fn ib_24_shutdown_tells_each_viewer_1001_and_the_worker_too() {
    let mut proxy = Proxy::start(&(shared("") + "[server]\nclose_spread = \"0s\"\n"));
    let (_worker, mut wire, mut viewers) = watched(&proxy, 3).await;
    proxy.signal(rustix::process::Signal::TERM);
    for viewer in &mut viewers {
        assert!(matches!(viewer.hear().await, Said::Close(1001, _)));
    }
    assert!(matches!(wire.hear().await, Said::Close(1001, _)));
    wire.close(1001, "").await;
    drop(viewers);
    assert!(proxy.exited().await.success());
}

#[tokio::test]
async fn ib_17_what_asks_for_another_path_of_the_device_has_a_connection_of_its_own() {
    let proxy = Proxy::start(&shared(""));
    let (worker, mut video, mut viewers) = watched(&proxy, 2).await;
    let (mut tap, mut control) = tokio::join!(Client::connect(proxy.public, "/ws/cam/control"), worker.accept());
    assert_eq!(control.head.path(), "/ws/cam/control");
    // what differs in the query alone is the same video
    viewers.push(Client::connect(proxy.public, "/ws/cam/video?viewer=3").await);
    send_frame(&mut video, 1, 100).await;
    for viewer in &mut viewers {
        assert_eq!(number(viewer.hear().await), 1);
    }
    tap.text("tap").await;
    assert_eq!(control.hear().await.text(), "tap");
    assert_eq!(proxy.metrics().await.sum("shared_streams", &[]), 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn st_11_a_burst_waits_for_the_quickest_viewer_so_that_nothing_is_lost_to_speed_alone() {
    const FRAMES: u32 = 200;
    let proxy = Proxy::start(&shared("share_bytes_max = \"1MiB\""));
    let (_worker, mut wire, mut viewers) = watched(&proxy, 1).await;
    let sent = Arc::new(AtomicU32::new(0));
    let sending = tokio::spawn({
        let sent = sent.clone();
        async move {
            for n in 1..=FRAMES {
                send_frame(&mut wire, n, FRAME_BYTES).await;
                sent.store(n, Relaxed);
            }
            wire
        }
    });
    // the worker is held up once the sockets and the stream are full, and before it has said all
    let mut last = 0;
    eventually("the burst comes to a rest", async || {
        let now = sent.load(Relaxed);
        let rests = now > 0 && now == std::mem::replace(&mut last, now);
        rests.then_some(())
    })
    .await;
    for n in 1..=FRAMES {
        assert_eq!(number(viewers[0].hear().await), n);
    }
    let mut wire = within("the worker", sending).await.unwrap();
    viewers[0].text("still here").await;
    assert_eq!(wire.hear().await.text(), "still here");
    assert_eq!(proxy.metrics().await.sum("lost_messages_total", &[]), 0.0);
}

#[tokio::test]
async fn st_11_the_limits_of_a_pipe_are_each_viewers_own() {
    let limits = "[limits]\npipe_messages = \"40/min\"\non_exceed = \"close\"\n";
    let proxy = Proxy::start(&shared("").replace("[limits]\n", limits));
    let (_worker, mut wire, mut viewers) = watched(&proxy, 3).await;
    for viewer in &mut viewers {
        for n in 0..40 {
            viewer.text(n.to_string()).await;
        }
    }
    for _ in 0..3 * 40 {
        wire.hear().await.text();
    }
    viewers[0].text("one too many").await;
    assert!(matches!(viewers[0].hear().await, Said::Close(1008, _)));
    wire.text("to those who are left").await;
    for viewer in &mut viewers[1..] {
        assert_eq!(viewer.hear().await.text(), "to those who are left");
    }
    for n in 1..41 {
        wire.text(&n.to_string()).await;
    }
    for viewer in &mut viewers[1..] {
        let mut heard = 1;
        let close = loop {
            match viewer.hear().await {
                Said::Text(_) => heard += 1,
                said => break said,
            }
        };
        assert!(matches!(close, Said::Close(1008, _)), "{close:?}");
        assert!((40..=41).contains(&heard), "{heard}");
    }
}

#[tokio::test]
async fn ib_24_a_message_in_fragments_is_merged_whole_though_others_speak_between_them() {
    let proxy = Proxy::start(&shared(""));
    let worker = StepWorker::start().await;
    proxy.register("w0", worker.address).await;
    let opening = Wire::connect(proxy.public, "/ws/cam/video", &[]);
    let (mut slow, mut wire) = tokio::join!(opening, worker.accept());
    let mut other = Client::connect(proxy.public, "/ws/cam/video").await;
    slow.frame_out(false, 1, b"first half, ").await;
    other.text("between").await;
    assert_eq!(wire.hear().await.text(), "between");
    slow.frame_out(true, 0, b"second half").await;
    assert_eq!(wire.hear().await.text(), "first half, second half");
}

#[tokio::test]
async fn ib_24_a_draining_process_keeps_no_stream_warm() {
    let proxy = Proxy::start(&shared(""));
    let (_worker, mut wire, mut viewers) = watched(&proxy, 2).await;
    proxy.api("PUT", "/v1/drain", Some(json!({}))).await.expect(200);
    send_frame(&mut wire, 1, 100).await;
    for mut viewer in viewers.drain(..) {
        assert_eq!(number(viewer.hear().await), 1);
        viewer.close(1000, "done").await;
    }
    assert_eq!(wire.hear().await, Said::Close(1001, "nobody is watching".into()));
    wire.close(1001, "").await;
    proxy.emptied().await;
}

#[tokio::test]
async fn ib_22_the_statistics_name_the_sessions_the_services_and_their_clients() {
    let proxy = Proxy::start(&shared(""));
    let (worker, _video, _viewers) = watched(&proxy, 3).await;
    let (_tap, _control) = tokio::join!(Client::connect(proxy.public, "/ws/door/control"), worker.accept());
    for path in ["/stats", "/v1/stats"] {
        let seen = proxy.get(path).await;
        assert_eq!((&seen["total_sessions"], &seen["total_connections"]), (&json!(2), &json!(4)), "devices, pipes");
        assert_eq!(seen["connections"]["by_route"], json!({ "ws": 4 }));
        assert_eq!(seen["connections"]["by_key"], json!({ "cam": 3, "door": 1 }));
        let service = &seen["services"][0];
        assert_eq!(
            (&service["backend"], &service["clients"], &service["connections"]),
            (&json!("w0"), &json!(4), &json!(2))
        );
        let streams = seen["shared_streams"]["items"].as_array().unwrap();
        let watched: Vec<_> = streams.iter().map(|it| (&it["path"], &it["viewers"])).collect();
        assert_eq!(watched, [(&json!("/ws/cam/video"), &json!(3)), (&json!("/ws/door/control"), &json!(1))]);
        assert!(
            seen["memory"]["rss_bytes"].as_u64().unwrap() > 0 && seen["memory"]["limit_bytes"].as_u64().unwrap() > 0
        );
        assert!(seen["rate_limits"]["buckets"].is_u64() && seen["counters"]["connect_failures_total"].is_u64());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lp_05_two_users_of_one_camera_are_both_answered() {
    let proxy = Proxy::start(&shared(""));
    let worker = DemoWorker::start("camera", &["--fps", "20"]);
    proxy.register("camera", worker.address).await;
    let mut users =
        [Client::connect(proxy.public, "/ws/cam/video").await, Client::connect(proxy.public, "/ws/cam/video").await];
    let mut seen = [Vec::new(), Vec::new()];
    for (user, seen) in users.iter_mut().zip(&mut seen) {
        while seen.len() < 20 {
            seen.push(user.hear().await.text());
        }
    }
    let start = seen[0].iter().position(|frame| *frame == seen[1][0]).expect("both see the same picture");
    assert_eq!(seen[0][start..], seen[1][..20 - start]);
    assert_eq!(proxy.metrics().await.sum("backend_pipes", &[("backend", "camera")]), 1.0);
}
