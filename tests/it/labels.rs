//! Groups of pipes: who is put into one, by whom, and that a message to a room reaches that room alone.

use serde_json::{Value, json};

use crate::harness::{Client, DemoWorker, Proxy, Reply, StepWorker, Wire, ask, eventually};

/// A route whose clients say which room they are in, and who they are.
const ROOMS: &str = "[limits]\nkey_connections = 0\nkey_rate = 0\n[[pools]]\nname = \"default\"\n[[routes]]\nname = \"chat\"\n\
                     path = \"/ws/{kind}/{verb}\"\npool = \"default\"\nclient_id = \"{query.client}\"\n\
                     labels = { room = \"{query.room}\", kind = \"{kind}\" }\n";

async fn broadcast(proxy: &Proxy, body: Value) -> Value {
    proxy.api("POST", "/v1/broadcast", Some(body)).await.expect(200).json()
}

async fn labelled(proxy: &Proxy, label: &str) -> Vec<Value> {
    proxy.get(&format!("/v1/pipes?label={label}")).await["items"].as_array().unwrap().clone()
}

async fn patch(proxy: &Proxy, pipe: &str, if_match: Option<&str>, body: Value) -> Reply {
    let mut headers = vec![("content-type", "application/merge-patch+json")];
    headers.extend(if_match.map(|tag| ("if-match", tag)));
    ask(proxy.admin, "PATCH", &format!("/v1/pipes/{pipe}"), &headers, body.to_string()).await
}

fn id(pipe: &Value) -> &str {
    pipe["id"].as_str().unwrap()
}

#[tokio::test]
async fn st_15_a_message_to_a_room_reaches_those_who_are_in_it_and_no_others() {
    let proxy = Proxy::start(ROOMS);
    let worker = DemoWorker::start("w", &[]);
    proxy.register("w", worker.address).await;
    let mut clients = Vec::new();
    for (number, room) in ["a", "b", "a", "c", ""].into_iter().enumerate() {
        let path = format!("/ws/chat/echo?room={room}&client=c{number}");
        clients.push(Client::connect(proxy.public, &path).await);
    }
    for (label, members) in
        [("room:a", vec![0, 2]), ("room:b", vec![1]), ("room", vec![0, 1, 2, 3]), ("room:d", vec![])]
    {
        let told = broadcast(&proxy, json!({ "text": label, "label": label })).await;
        assert_eq!((&told["matched"], &told["reached"]), (&json!(members.len()), &json!(members.len())), "{told}");
        for member in members {
            assert_eq!(clients[member].hear().await.text(), label, "client {member}");
        }
    }
    let told = broadcast(&proxy, json!({ "text": "not here", "label": "room:a", "route": "other" })).await;
    assert_eq!(told["matched"], 0, "the label is one condition of several: {told}");

    let of_b = labelled(&proxy, "room:b").await;
    assert_eq!((of_b.len(), &of_b[0]["labels"]), (1, &json!({ "room": "b", "kind": "chat" })));
    let moved = patch(&proxy, id(&of_b[0]), None, json!({ "labels": { "room": "a", "vip": "" } })).await.expect(200);
    assert_eq!(moved.json()["labels"], json!({ "room": "a", "vip": "", "kind": "chat" }));
    let told = broadcast(&proxy, json!({ "text": "welcome", "label": "room:a" })).await;
    assert_eq!(told["reached"], 3, "{told}");
    assert_eq!(labelled(&proxy, "room:b").await, Vec::<Value>::new());
    assert_eq!(clients[1].hear().await.text(), "welcome", "the client that was moved");

    clients[0].close(1000, "").await;
    clients[2].close(1000, "").await;
    eventually("one is left in the room", async || (labelled(&proxy, "room:a").await.len() == 1).then_some(())).await;
    for number in [1, 3, 4] {
        assert_eq!(clients[number].exchange("still relayed").await, "still relayed", "client {number}");
    }
}

#[tokio::test]
async fn a_worker_puts_its_pipe_into_groups_and_no_client_sees_it() {
    let proxy = Proxy::start(ROOMS);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let says = |lines: &'static str| async { worker.knock().await.upgrade_with(lines).await };
    let opening = Wire::connect(proxy.public, "/ws/chat/x?room=a&client=x", &[]);
    let (mut client, wire) =
        tokio::join!(opening, says("Holdline-Labels: user=7, team=r%2Cd\r\nholdline-labels: vip\r\n"));
    assert!(!client.head.has("holdline-labels"), "{:?}", client.head);
    let labels = json!({ "kind": "chat", "room": "a", "team": "r,d", "user": "7", "vip": "" });
    assert_eq!(proxy.pipes().await[0]["labels"], labels);

    let (again, ()) = tokio::join!(says("Holdline-Labels: room=b\r\n"), async { wire.reset() });
    let pipe = proxy.pipe_that("the next worker's room", |pipe| pipe["labels"]["room"] == "b").await;
    assert_eq!(pipe["labels"]["user"], "7", "what it does not name stays: {pipe}");

    let (mut last, ()) = tokio::join!(says("Holdline-Labels: room=c, no name=x\r\n"), async { again.reset() });
    client.text("goes on").await;
    assert_eq!(last.hear().await.text(), "goes on");
    assert_eq!(proxy.pipes().await[0]["labels"]["room"], "b", "labels are taken as a whole or not at all");
    assert_eq!(proxy.metrics().await.sum("labels_refused_total", &[("route", "chat")]), 1.0);
    let told = proxy.logged("pipe.labels_refused", 1).await;
    assert!(told[0]["why"].as_str().unwrap().contains("\"no name\""), "{told:?}");
}

#[tokio::test]
async fn labels_stay_with_the_pipe_when_its_client_comes_back_from_elsewhere() {
    let proxy = Proxy::start(ROOMS);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (client, _wire) = tokio::join!(Wire::connect(proxy.public, "/ws/chat/x?room=a&client=x", &[]), worker.accept());
    let pipe = proxy.pipes().await.remove(0);
    patch(&proxy, id(&pipe), None, json!({ "labels": { "seat": "12" } })).await.expect(200);
    client.reset();
    proxy.pipe_that("a client that is away", |pipe| pipe["state"] == "client_detached").await;
    assert_eq!(labelled(&proxy, "seat:12").await.len(), 1);
    let _client = Wire::connect(proxy.public, "/ws/chat/x?room=b&client=x", &[]).await;
    let pipe = proxy.pipe_that("the client that came back", |pipe| pipe["generation"] == 2).await;
    assert_eq!(pipe["labels"], json!({ "kind": "chat", "room": "a", "seat": "12" }));
}

#[tokio::test]
async fn a_write_of_labels_that_came_too_late_or_is_malformed_changes_nothing() {
    let proxy = Proxy::start(
        &format!("{ROOMS}[[routes]]\nname = \"other\"\n")
            .replace("key_rate = 0\n", "key_rate = 0\npipe_labels = 3\npipe_label_bytes = 64\n"),
    );
    let worker = DemoWorker::start("w", &[]);
    proxy.register("w", worker.address).await;
    let _client = Client::connect(proxy.public, "/ws/chat/echo?room=a").await;
    let pipe = proxy.pipes().await.remove(0);
    let path = format!("/v1/pipes/{}", id(&pipe));
    let before = proxy.api("GET", &path, None).await.expect(200).header("etag").to_owned();

    let written = patch(&proxy, id(&pipe), Some(&before), json!({ "labels": { "room": "b" } })).await.expect(200);
    let after = written.header("etag").to_owned();
    assert_ne!(before, after);
    let late = patch(&proxy, id(&pipe), Some(&before), json!({ "labels": { "room": "c" } })).await.expect(412).json();
    assert_eq!(late["type"], "urn:holdline:problem:precondition-failed");
    let same = patch(&proxy, id(&pipe), Some(&after), json!({ "labels": { "room": "b" } })).await.expect(200);
    assert_eq!(same.header("etag"), after, "what is so already is no change");

    for (body, pointer) in [
        (json!({}), "/labels"),
        (json!({ "labels": null }), "/labels"),
        (json!({ "labels": { "a b": "x" } }), "/labels/a b"),
        (json!({ "labels": { "a/b": null } }), "/labels/a~1b"),
        (json!({ "labels": { "room": "a\nb" } }), "/labels/room"),
        (json!({ "labels": { "room": 7 } }), "/labels/room"),
        (json!({ "labels": { "one": "", "more": "" } }), "/labels"),
        (json!({ "labels": { "room": "x".repeat(64) } }), "/labels"),
        (json!({ "route": "other" }), "/route"),
    ] {
        let refused = patch(&proxy, id(&pipe), None, body.clone()).await.expect(422).json();
        assert_eq!(refused["errors"][0]["pointer"], pointer, "{body}: {refused}");
    }
    for query in ["label=", "label=a%20b", "label=room:%0A"] {
        let refused = proxy.api("GET", &format!("/v1/pipes?{query}"), None).await.expect(422).json();
        assert_eq!(refused["errors"][0]["pointer"], "/query/label", "{query}");
    }
    let refused =
        proxy.api("POST", "/v1/broadcast", Some(json!({ "text": "", "label": ":" }))).await.expect(422).json();
    assert_eq!(refused["errors"][0]["pointer"], "/label");
    assert_eq!(proxy.get(&path).await["labels"], json!({ "kind": "chat", "room": "b" }));
}

#[tokio::test]
async fn a_client_that_would_be_in_too_many_groups_is_refused_before_a_worker_is_asked() {
    let proxy = Proxy::start(&ROOMS.replace("key_rate = 0\n", "key_rate = 0\npipe_label_bytes = 20\n"));
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let opened = |path: &'static str| Wire::open(proxy.public, path, &[]);
    for path in ["/ws/chat/x?room=012345678", "/ws/chat/x?room=a%00"] {
        let refused = opened(path).await.map(drop).expect_err(path);
        assert_eq!((refused.status, &refused.json()["type"]), (400, &json!("urn:holdline:problem:label")), "{path}");
    }
    let (_client, wire) = tokio::join!(Wire::connect(proxy.public, "/ws/chat/x?room=01234567", &[]), worker.accept());
    assert_eq!(wire.head.path(), "/ws/chat/x?room=01234567", "the first request that reached the worker");
}

#[tokio::test]
async fn all_viewers_of_a_shared_stream_are_in_the_groups_that_its_worker_names() {
    let share = "share = true\nkey = \"{kind}\"\nclient_id";
    let proxy = Proxy::start(&ROOMS.replace("client_id", share).replace("client_id = \"{query.client}\"\n", ""));
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let says = async { worker.knock().await.upgrade_with("Holdline-Labels: device=7\r\n").await };
    let (_first, _wire) = tokio::join!(Wire::connect(proxy.public, "/ws/cam/x?room=a", &[]), says);
    let _second = Wire::connect(proxy.public, "/ws/cam/x?room=b", &[]).await;
    let told = broadcast(&proxy, json!({ "text": "to all", "label": "device:7" })).await;
    assert_eq!(told["reached"], 2, "each viewer once, and the stream's own pipe not at all: {told}");
    let told = broadcast(&proxy, json!({ "text": "to one", "label": "room:b" })).await;
    assert_eq!(told["reached"], 1, "{told}");
}
