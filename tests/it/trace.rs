//! Traces: what goes through to workers, and what a collector is told.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::wire::{Head, read_head};
use crate::harness::{Proxy, Said, StepWorker, Wire, eventually};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{SPAN}-{flags}")
}

/// The two ids of the `traceparent` that a worker was told.
fn told(head: &Head) -> (&str, &str) {
    let fields: Vec<&str> = head.header("traceparent").split('-').collect();
    assert_eq!((fields.len(), fields[0], fields[3]), (4, "00", "01"), "{head:?}");
    (fields[1], fields[2])
}

/// A collector on a free port: it takes everything.
struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (address, spans) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let taken = spans.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(take(stream, taken.clone()));
            }
        });
        Self { address, spans }
    }

    fn config(&self) -> String {
        format!("[trace]\notlp_endpoint = \"http://{}\"\n", self.address)
    }

    fn all(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }

    /// The only span that fits, once it has come.
    async fn span(&self, what: &str, fits: impl Fn(&Span) -> bool) -> Span {
        let found = eventually(what, async || {
            let found: Vec<Span> = self.all().into_iter().filter(&fits).collect();
            (!found.is_empty()).then_some(found)
        })
        .await;
        assert_eq!(found.len(), 1, "{found:#?}");
        found[0].clone()
    }

    /// The only span with this name and parent.
    async fn child(&self, name: &str, parent: &str) -> Span {
        let span = self.span(name, |span| span.name == name && hex(&span.parent_span_id) == parent).await;
        assert_eq!(hex(&span.trace_id), TRACE, "{span:?}");
        assert!(0 < span.start_time_unix_nano && span.start_time_unix_nano <= span.end_time_unix_nano, "{span:?}");
        span
    }
}

async fn take(mut stream: TcpStream, spans: Arc<Mutex<Vec<Span>>>) {
    let mut buffer = BytesMut::new();
    while let Some(head) = read_head(&mut stream, &mut buffer).await {
        assert_eq!(
            (head.line.as_str(), head.header("content-type")),
            ("POST /v1/traces HTTP/1.1", "application/x-protobuf")
        );
        let length: usize = head.header("content-length").parse().unwrap();
        while buffer.len() < length {
            assert!(stream.read_buf(&mut buffer).await.unwrap() > 0, "half a body");
        }
        let request = ExportTraceServiceRequest::decode(buffer.split_to(length)).unwrap();
        for group in request.resource_spans {
            let name = &group.resource.as_ref().unwrap().attributes[0];
            assert_eq!(
                (name.key.as_str(), text(name.value.as_ref().unwrap().value.as_ref())),
                ("service.name", "holdline")
            );
            spans.lock().unwrap().extend(group.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    }
}

fn text(value: Option<&Value>) -> &str {
    match value {
        Some(Value::StringValue(text)) => text,
        other => panic!("wanted a text, got {other:?}"),
    }
}

fn attribute<'a>(span: &'a Span, name: &str) -> Option<&'a Value> {
    span.attributes.iter().find(|pair| pair.key == name)?.value.as_ref()?.value.as_ref()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_traceparent_goes_through_to_the_worker_and_to_the_next_one() {
    let proxy = Proxy::start("");
    let workers = [StepWorker::start().await, StepWorker::start().await];
    proxy.register("a", workers[0].address).await;
    // odd ones too: this test judges only what it reads
    for sent in [traceparent("01"), traceparent("00"), "cc-odd".to_owned()] {
        let headers = [("traceparent", sent.as_str()), ("tracestate", "vendor=1")];
        let (mut client, wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &headers), workers[0].accept());
        assert_eq!((wire.head.header("traceparent"), wire.head.header("tracestate")), (sent.as_str(), "vendor=1"));
        proxy.register("b", workers[1].address).await;
        proxy.api("PUT", "/v1/backends/a/state", Some(json!({"state": "maint", "pipes": "keep"}))).await;
        wire.reset();
        let mut second = workers[1].accept().await;
        assert_eq!((second.head.header("traceparent"), second.head.header("tracestate")), (sent.as_str(), "vendor=1"));
        client.close(1000, "").await;
        second.hear().await;
        second.close(1000, "").await;
        client.hear().await;
        proxy.emptied().await;
        proxy.api("DELETE", "/v1/backends/b", None).await;
        proxy.api("PUT", "/v1/backends/a/state", Some(json!({"state": "ready"}))).await;
    }
}

#[tokio::test]
async fn spans_of_a_handshake_its_attach_and_a_reattach_reach_the_collector() {
    let collector = Collector::start().await;
    let mut proxy = Proxy::start(&format!("[server]\nclose_spread = \"0s\"\n{}", collector.config()));
    let workers = [StepWorker::start().await, StepWorker::start().await];
    proxy.register("a", workers[0].address).await;
    let sent = traceparent("01");
    let headers = [("traceparent", sent.as_str()), ("tracestate", "vendor=1")];
    let (mut client, mut wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &headers), workers[0].accept());
    let first_head = wire.head.clone();
    // Read and not confirmed, so that it comes again.
    wire.pongs = false;
    client.text("hello").await;
    assert_eq!(wire.hear().await, Said::Text("hello".into()));
    proxy.register("b", workers[1].address).await;
    proxy.api("PUT", "/v1/backends/a/state", Some(json!({"state": "maint", "pipes": "keep"}))).await;
    wire.reset();
    let mut second = workers[1].accept().await;
    assert_eq!(second.hear().await, Said::Text("hello".into()));

    let handshake = collector.child("handshake", SPAN).await;
    assert_eq!(attribute(&handshake, "http.response.status_code"), Some(&Value::IntValue(101)));
    assert_eq!(text(attribute(&handshake, "holdline.pipe")), first_head.header("holdline-pipe"));
    let attach = collector.child("attach", &hex(&handshake.span_id)).await;
    assert_eq!(told(&first_head), (TRACE, hex(&attach.span_id).as_str()), "the worker is below its attach");
    assert_eq!(first_head.header("tracestate"), "vendor=1");
    assert_eq!(text(attribute(&attach, "holdline.backend")), "a");
    let reattach = collector.child("reattach", &hex(&handshake.span_id)).await;
    assert_eq!(text(attribute(&reattach, "holdline.reason")), "reset");
    assert_eq!(text(attribute(&reattach, "holdline.result")), "attached");
    assert_eq!(attribute(&reattach, "holdline.replayed"), Some(&Value::IntValue(1)));
    let again = collector.child("attach", &hex(&reattach.span_id)).await;
    assert_eq!(told(&second.head), (TRACE, hex(&again.span_id).as_str()));
    assert_eq!(text(attribute(&again, "holdline.backend")), "b");
    eventually("all four are counted", async || {
        let exported = proxy.metrics().await.sum("trace_spans_total", &[("result", "exported")]);
        (exported == 4.0).then_some(())
    })
    .await;

    // what is queued when the process is told to stop still goes
    proxy.api("PUT", "/v1/backends/b/state", Some(json!({"state": "maint", "pipes": "keep"}))).await;
    let first = proxy.event_of(0, "pipe.interrupted").await;
    second.reset();
    proxy.event_of(first["seq"].as_u64().unwrap(), "pipe.interrupted").await;
    proxy.signal(Signal::TERM);
    client.hear().await;
    client.close(1001, "").await;
    assert!(proxy.exited().await.success());
    let last = collector.all().into_iter().filter(|span| span.name == "reattach").count();
    assert_eq!(last, 2, "{:#?}", collector.all());
}

#[tokio::test]
async fn a_planned_move_is_a_span_from_its_dial_to_its_end_and_the_new_worker_hangs_below_its_attach() {
    let collector = Collector::start().await;
    let proxy = Proxy::start(&collector.config());
    let workers = [StepWorker::start().await, StepWorker::start().await];
    proxy.register("a", workers[0].address).await;
    let sent = traceparent("01");
    let headers = [("traceparent", sent.as_str())];
    let (mut client, mut old) = tokio::join!(Wire::connect(proxy.public, "/ws", &headers), workers[0].accept());
    let handshake = collector.child("handshake", SPAN).await;
    proxy.register("b", workers[1].address).await;
    proxy.api("PUT", "/v1/backends/a/state", Some(json!({"state": "drain"}))).await.expect(202);
    let mut new = workers[1].accept().await;
    assert!(matches!(old.hear().await, Said::Close(1001, _)));
    old.close(1001, "").await;
    client.text("hello").await;
    assert_eq!(new.hear().await, Said::Text("hello".into()));

    let moved = collector.child("reattach", &hex(&handshake.span_id)).await;
    assert_eq!(text(attribute(&moved, "holdline.reason")), "drain");
    assert_eq!(text(attribute(&moved, "holdline.result")), "attached");
    let attach = collector.child("attach", &hex(&moved.span_id)).await;
    assert_eq!(told(&new.head), (TRACE, hex(&attach.span_id).as_str()), "the worker is below its attach");
    assert_eq!(text(attribute(&attach, "holdline.backend")), "b");
    assert!(moved.start_time_unix_nano <= attach.start_time_unix_nano, "{moved:?} {attach:?}");
    assert!(attach.end_time_unix_nano <= moved.end_time_unix_nano, "{moved:?} {attach:?}");
}

#[tokio::test]
async fn a_move_that_comes_to_nothing_ends_its_span_where_the_pipe_stays() {
    let collector = Collector::start().await;
    let proxy =
        Proxy::start(&format!("[reattach]\nbackoff_min = \"30s\"\nbackoff_max = \"30s\"\n{}", collector.config()));
    let workers = [StepWorker::start().await, StepWorker::start().await];
    proxy.register("a", workers[0].address).await;
    let sent = traceparent("01");
    let headers = [("traceparent", sent.as_str())];
    let (_client, _old) = tokio::join!(Wire::connect(proxy.public, "/ws", &headers), workers[0].accept());
    let handshake = collector.child("handshake", SPAN).await;
    proxy.register("b", workers[1].address).await;
    proxy.api("PUT", "/v1/backends/a/state", Some(json!({"state": "drain"}))).await.expect(202);
    workers[1].knock().await.answer("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await;
    let stayed = collector.child("reattach", &hex(&handshake.span_id)).await;
    assert_eq!(text(attribute(&stayed, "holdline.result")), "stayed");
    collector.child("attach", &hex(&stayed.span_id)).await;
}

#[tokio::test]
async fn a_client_decides_whether_it_is_recorded_and_one_that_says_nothing_begins_a_trace() {
    let collector = Collector::start().await;
    let proxy = Proxy::start(&collector.config());
    let worker = StepWorker::start().await;
    proxy.register("a", worker.address).await;
    let unsampled = traceparent("00");
    let headers = [("traceparent", unsampled.as_str()), ("tracestate", "vendor=1")];
    let (_client, wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &headers), worker.accept());
    assert_eq!((wire.head.header("traceparent"), wire.head.header("tracestate")), (unsampled.as_str(), "vendor=1"));
    let (_silent, wire) =
        tokio::join!(Wire::connect(proxy.public, "/ws", &[("tracestate", "vendor=1")]), worker.accept());
    assert!(!wire.head.has("tracestate"), "it belongs to no trace: {:?}", wire.head);
    let (trace, span) = told(&wire.head);
    let attach = collector.span("attach", |span| span.name == "attach").await;
    assert_eq!((hex(&attach.trace_id).as_str(), hex(&attach.span_id).as_str()), (trace, span));
    let handshake = collector.span("handshake", |span| span.name == "handshake").await;
    assert_eq!((hex(&handshake.trace_id).as_str(), handshake.parent_span_id.len()), (trace, 0));
}

#[tokio::test]
async fn a_collector_that_hangs_up_costs_its_spans_and_nothing_else() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let proxy = Proxy::start(&format!("[trace]\notlp_endpoint = \"http://{}\"\n", listener.local_addr().unwrap()));
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let worker = StepWorker::start().await;
    proxy.register("a", worker.address).await;
    let mut live = Vec::new();
    for spans in [2.0, 4.0] {
        let (mut client, mut wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
        client.text("hello").await;
        assert_eq!(wire.hear().await, Said::Text("hello".into()));
        live.push((client, wire));
        eventually("both spans are counted", async || {
            let failed = proxy.metrics().await.sum("trace_spans_total", &[("result", "failed")]);
            (failed >= spans).then_some(())
        })
        .await;
    }
    assert_eq!(proxy.records("spans do not reach the collector").len(), 1, "{:?}", proxy.log());
}
