//! Compression that client and worker agree on through the proxy: what each is told, and that frames pass as they are.

use std::net::SocketAddr;

use serde_json::Value;

use crate::harness::http2::{Bridge, Http2};
use crate::harness::wire::{BINARY, Frame, PING, PONG, TEXT};
use crate::harness::{Proxy, Said, StepWorker, Wire, eventually};
use crate::http2;

/// What browsers offer.
const OFFER: [(&str, &str); 1] = [("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")];
const BOTH: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
const RSV1: u8 = 0x40;

fn agreed(parameters: &str) -> String {
    format!("Sec-WebSocket-Extensions: permessage-deflate{parameters}\r\n")
}

/// A client that makes this offer, and its worker, which gives this answer.
async fn pair(proxy: &Proxy, worker: &StepWorker, offer: &[(&str, &str)], answer: &str) -> (Wire, Wire) {
    pair_by(proxy.public, worker, offer, answer).await
}

/// The same for a client that comes by this address.
async fn pair_by(address: SocketAddr, worker: &StepWorker, offer: &[(&str, &str)], answer: &str) -> (Wire, Wire) {
    let worker = async { worker.knock().await.upgrade_with(answer).await };
    tokio::join!(Wire::connect(address, "/ws", offer), worker)
}

fn extensions(wire: &Wire) -> &str {
    wire.head.header("sec-websocket-extensions")
}

/// The next data frame; pings before it are answered.
async fn data(wire: &mut Wire) -> Frame {
    loop {
        let frame = wire.frame().await.unwrap();
        match frame.opcode {
            PING => wire.frame_out(true, PONG, &frame.payload).await,
            PONG => {}
            _ => return frame,
        }
    }
}

/// Sends one compressed message, and what the other end gets of it.
async fn passes(from: &mut Wire, to: &mut Wire, payload: &[u8]) -> bool {
    let frame = from.encode(0x80 | RSV1 | BINARY, payload);
    from.send_raw(&frame).await.unwrap();
    let heard = data(to).await;
    (heard.fin, heard.rsv, heard.opcode, &heard.payload[..]) == (true, 4, BINARY, payload)
}

/// What the view says of the one pipe there is.
async fn viewed(proxy: &Proxy) -> Value {
    eventually("a pipe", async || proxy.get("/v1/pipes").await["items"].get(0).cloned()).await["compression"].clone()
}

async fn started(config: &str) -> (Proxy, StepWorker) {
    let proxy = Proxy::start(config);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    (proxy, worker)
}

fn routed(keys: &str) -> String {
    format!(
        "[[pools]]\nname = \"default\"\n[[routes]]\nname = \"r\"\npath = \"/{{*path}}\"\npool = \"default\"\n{keys}\n"
    )
}

#[tokio::test]
async fn a_worker_that_agrees_and_its_client_are_both_told_of_no_context_takeover_and_frames_pass_as_they_are() {
    for (offer, asked, answer, told) in [
        ("permessage-deflate; client_max_window_bits", "", "; server_no_context_takeover", ""),
        (
            "permessage-deflate; server_max_window_bits=12",
            "; server_max_window_bits=12",
            "; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10",
            "; server_max_window_bits=10",
        ),
    ] {
        let (proxy, worker) = started("").await;
        let offer = [("Sec-WebSocket-Extensions", offer)];
        let (mut client, mut worker) = pair(&proxy, &worker, &offer, &agreed(answer)).await;
        assert_eq!(extensions(&worker), format!("{BOTH}{asked}"));
        assert_eq!(extensions(&client), format!("{BOTH}{told}"));
        assert!(passes(&mut client, &mut worker, b"anything at all").await);
        assert!(passes(&mut worker, &mut client, &[7; 70_000]).await);
        client.text("plain").await;
        assert_eq!(data(&mut worker).await.rsv, 0);
        assert_eq!(viewed(&proxy).await, "pass");
    }
}

#[tokio::test]
async fn a_worker_that_declines_or_would_keep_its_context_serves_its_client_without_compression() {
    let (proxy, worker) = started("").await;
    let (client, end) = pair(&proxy, &worker, &OFFER, "").await;
    assert_eq!((extensions(&end), extensions(&client)), (BOTH, ""));
    assert_eq!(viewed(&proxy).await, "worker");
    drop((client, end));
    let answers = async {
        let first = worker.knock().await.upgrade_with(&agreed("")).await;
        let second = worker.knock().await.upgrade_with("").await;
        (first, second)
    };
    let (mut client, (first, mut second)) = tokio::join!(Wire::connect(proxy.public, "/ws", &OFFER), answers);
    assert_eq!((extensions(&first), extensions(&second), extensions(&client)), (BOTH, "", ""));
    client.text("served").await;
    assert_eq!(second.hear().await.text(), "served");
}

#[tokio::test]
async fn workers_are_offered_no_compression_where_it_is_off_or_would_have_to_be_read_and_the_view_says_why() {
    for (keys, headers, path, why) in [
        ("compression = \"off\"", "", "/ws", "off"),
        ("check_utf8 = true", "", "/ws", "check_utf8"),
        ("share = true", "", "/ws", "share"),
        ("prologue.first = 1", "", "/ws", "conversation"),
        ("", "graphql-transport-ws", "/ws", "conversation"),
        ("", "", "/socket.io/?EIO=4&transport=websocket", "conversation"),
    ] {
        let (proxy, worker) = started(&routed(keys)).await;
        let offer = [OFFER[0], ("Sec-WebSocket-Protocol", headers)];
        let offer = if headers.is_empty() { &offer[..1] } else { &offer };
        let (client, worker) = tokio::join!(Wire::connect(proxy.public, path, offer), worker.accept());
        assert_eq!((extensions(&worker), extensions(&client)), ("", ""), "{keys}{path}");
        assert_eq!(viewed(&proxy).await, why);
    }
    let (proxy, worker) = started("").await;
    let (_client, worker) = pair(&proxy, &worker, &[], "").await;
    assert_eq!(extensions(&worker), "");
    assert_eq!(viewed(&proxy).await, "client");
}

#[tokio::test]
async fn a_route_whose_conversations_have_turned_out_to_be_read_offers_no_more_compression() {
    let (proxy, worker) = started("").await;
    let answer = agreed("; server_no_context_takeover");
    let (mut client, mut end) = pair(&proxy, &worker, &OFFER, &answer).await;
    let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"processId":1,"capabilities":{}}}"#;
    client.text(initialize).await;
    assert_eq!(data(&mut end).await.payload, initialize.as_bytes());
    let kind = eventually("it is decided", async || {
        let pipe = proxy.get("/v1/pipes").await["items"][0].clone();
        Some(pipe["conversation"].clone()).filter(|it| !it.is_null())
    });
    let kind = kind.await;
    assert_eq!((&kind["kind"], &kind["why"]), (&"stateful".into(), &"compressed".into()));
    let (client, end) = pair(&proxy, &worker, &OFFER, "").await;
    assert_eq!((extensions(&end), extensions(&client)), ("", ""));
}

#[tokio::test]
async fn the_next_worker_must_agree_to_as_much_and_one_that_does_not_is_passed_by() {
    let (proxy, first) = started("").await;
    let answer = agreed("; server_no_context_takeover; server_max_window_bits=12");
    let (mut client, mut end) = pair(&proxy, &first, &OFFER, &answer).await;
    assert!(passes(&mut client, &mut end, b"in doubt").await);
    let [second, third] = [StepWorker::start().await, StepWorker::start().await];
    proxy.register("second", second.address).await;
    proxy.register("third", third.address).await;
    end.reset();
    drop(first);
    let twelve = format!("{BOTH}; server_max_window_bits=12");
    // Whichever is asked first declines, and the other one agrees.
    let (knock, other) = tokio::select! {
        knock = second.knock() => (knock, &third),
        knock = third.knock() => (knock, &second),
    };
    assert_eq!(knock.head.header("sec-websocket-extensions"), twelve);
    let (_declined, knock) = tokio::join!(knock.upgrade_with(""), other.knock());
    let mut end = knock.upgrade_with(&agreed("; server_no_context_takeover; server_max_window_bits=9")).await;
    let again = data(&mut end).await;
    assert_eq!((again.rsv, &again.payload[..]), (4, &b"in doubt"[..]));
    assert!(passes(&mut end, &mut client, b"answer").await);
}

#[tokio::test]
async fn each_stream_of_http_2_agrees_for_itself_and_its_compressed_frames_outlive_their_worker() {
    let (proxy, _files) = http2::proxy("", "[[pools]]\nname = \"default\"\n");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let http2 = Http2::connect(proxy.tls).await;
    let bridge = Bridge::over(&http2).await;
    let answer = agreed("; server_no_context_takeover; server_max_window_bits=12");
    let (mut client, mut end) = pair_by(bridge.address, &worker, &OFFER, &answer).await;
    assert_eq!(extensions(&end), BOTH);
    let twelve = format!("{BOTH}; server_max_window_bits=12");
    assert_eq!(extensions(&client), twelve);
    let (mut plain, mut plain_end) = pair_by(bridge.address, &worker, &[], "").await;
    assert_eq!((extensions(&plain_end), extensions(&plain)), ("", ""));
    assert!(passes(&mut client, &mut end, &[7; 70_000]).await);
    end.pong_once().await;
    assert!(passes(&mut end, &mut client, &[9; 200_000]).await);
    plain.text("plain").await;
    assert_eq!(data(&mut plain_end).await.rsv, 0);
    assert!(passes(&mut client, &mut end, b"in doubt").await);
    end.reset();
    let knock = worker.knock().await;
    assert_eq!(knock.head.header("sec-websocket-extensions"), twelve);
    let mut end = knock.upgrade_with(&answer).await;
    let again = data(&mut end).await;
    assert_eq!((again.rsv, &again.payload[..]), (4, &b"in doubt"[..]));
    assert!(passes(&mut end, &mut client, b"answer").await);
    plain.text("still plain").await;
    assert_eq!(data(&mut plain_end).await.payload, b"still plain");
    assert_eq!(proxy.metrics().await.sum("http2_streams", &[("kind", "websocket")]), 2.0);
}

#[tokio::test]
async fn a_client_that_comes_back_must_offer_what_its_pipe_was_agreed_on() {
    let (proxy, worker) = started(&routed("client_id = \"{query.client}\"")).await;
    let answer = agreed("; server_no_context_takeover; server_max_window_bits=12");
    let connect = |offer| Wire::open(proxy.public, "/ws?client=a", offer);
    let accept = async { worker.knock().await.upgrade_with(&answer).await };
    let (client, mut end) = tokio::join!(connect(&OFFER), accept);
    client.unwrap().reset();
    let ten = [("Sec-WebSocket-Extensions", "permessage-deflate; server_max_window_bits=10")];
    for offer in [&[][..], &ten] {
        let refused = connect(offer).await.unwrap_err();
        assert_eq!(refused.status, 409, "{refused:?}");
    }
    let mut client = connect(&OFFER).await.unwrap();
    assert_eq!(extensions(&client), format!("{BOTH}; server_max_window_bits=12"));
    assert!(passes(&mut end, &mut client, b"still compressed").await);
}

#[tokio::test]
async fn only_the_first_frame_of_a_message_may_be_marked_and_only_after_an_agreement() {
    for (offer, answer, first) in [
        (&OFFER[..], agreed("; server_no_context_takeover"), 0x80 | RSV1 | PING),
        (&OFFER, agreed("; server_no_context_takeover"), 0x80 | RSV1),
        (&OFFER, String::new(), 0x80 | RSV1 | TEXT),
        (&[], String::new(), 0x80 | RSV1 | TEXT),
    ] {
        let (proxy, worker) = started("").await;
        let (mut client, _worker) = pair(&proxy, &worker, offer, &answer).await;
        if first & 0x0f == 0 {
            client.frame_out(false, TEXT, b"begun").await;
        }
        let frame = client.encode(first, b"?");
        client.send_raw(&frame).await.unwrap();
        assert!(matches!(client.hear().await, Said::Close(1002, _)), "{first:02x}");
    }
}
