//! What the roadmap of fastapi-websocket-stabilizer names and Holdline has; each in depth elsewhere.

use crate::harness::{Proxy, StepWorker, Wire};

const ONE_A_MINUTE: &str = "[limits]\nkey_rate = \"1/min\"\n[[pools]]\nname = \"default\"\n\
                            [[routes]]\nname = \"chat\"\npath = \"/ws/{room}\"\nkey = \"{room}\"\n";

#[tokio::test]
async fn st_17_prometheus_subprotocols_rate_limits_and_lifecycle_events_are_there() {
    let proxy = Proxy::start(ONE_A_MINUTE);
    let [first, second] = [StepWorker::start().await, StepWorker::start().await];
    proxy.register("first", first.address).await;
    let offer = [("Sec-WebSocket-Protocol", "chat.v2, chat.v1")];
    let agreed = "Sec-WebSocket-Protocol: chat.v1\r\n";
    let (client, wire) = tokio::join!(Wire::connect(proxy.public, "/ws/lobby", &offer), async {
        first.knock().await.upgrade_with(agreed).await
    });
    assert_eq!(client.head.header("sec-websocket-protocol"), "chat.v1");
    assert_eq!(Wire::open(proxy.public, "/ws/lobby", &offer).await.unwrap_err().status, 429);

    proxy.register("second", second.address).await;
    drop(first);
    wire.reset();
    let _wire = second.knock().await.upgrade_with(agreed).await;
    let lost = proxy.event_of(0, "pipe.interrupted").await;
    let found = proxy.event_of(lost["seq"].as_u64().unwrap(), "pipe.reattached").await;
    assert_eq!((&lost["route"], &found["backend"]), (&"chat".into(), &"second".into()));

    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("pipes_total", &[("route", "chat")]), 1.0);
    assert_eq!(metrics.sum("rate_limited_total", &[("route", "chat"), ("limit", "key_rate")]), 1.0);
}
