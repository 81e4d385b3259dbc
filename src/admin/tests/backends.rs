//! Registering, renewing, draining and removing backends.

use axum::http::Method;
use serde_json::{Value, json};

use super::Fixture;

async fn put(fixture: &Fixture, id: &str, body: Value) -> (u16, Value) {
    let answer = fixture.json(Method::PUT, &format!("/v1/backends/{id}"), body).await;
    (answer.status.as_u16(), answer.json())
}

#[tokio::test]
async fn a_backend_registered_by_post_has_an_id_and_its_url_is_taken() {
    let fixture = Fixture::open();
    let said = json!({"url": "ws://127.0.0.1:7001", "pool": "default"});
    let answer = fixture.json(Method::POST, "/v1/backends", said.clone()).await;
    assert_eq!(answer.status.as_u16(), 201);
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("location"), format!("/v1/backends/{id}"));
    let again = fixture.json(Method::POST, "/v1/backends", said).await;
    assert_eq!((again.status.as_u16(), &*again.problem()), (409, "url-taken"));
    let body = fixture.get(&format!("/v1/backends/{id}")).await.json();
    assert_eq!(body["url"], "ws://127.0.0.1:7001");
    for (field, value) in [("state", "ready"), ("health", "unknown"), ("lease_state", "none"), ("pool", "default")] {
        assert_eq!(body[field], value, "{field}");
    }
    assert_eq!((&body["eligible"], &body["static"], &body["pipes"]), (&json!(true), &json!(false), &json!(0)));
}

#[tokio::test]
async fn a_put_is_idempotent_and_shows_what_was_said() {
    let fixture = Fixture::open();
    let said = json!({
        "url": "ws://127.0.0.1:7001/x", "weight": 3, "max_pipes": 5, "serves": {"udid": "session"},
        "labels": {"rack": "7"}, "instance": "i1", "lease": "15s",
        "health": {"type": "http", "path": "/ok", "interval": "1s", "timeout": "2s"}, "state": "ready",
    });
    assert_eq!(put(&fixture, "a", said.clone()).await.0, 201);
    let (status, body) = put(&fixture, "a", said.clone()).await;
    assert_eq!(status, 200);
    for field in ["url", "weight", "max_pipes", "serves", "labels", "instance", "lease", "state"] {
        assert_eq!(body[field], said[field], "{field}");
    }
    assert_eq!(body["lease_state"], "live");
    let other =
        fixture.json(Method::PUT, "/v1/backends/a", json!({"url": "ws://127.0.0.1:7002", "instance": "i2"})).await;
    assert_eq!((other.status.as_u16(), &*other.problem()), (409, "instance-conflict"));
}

#[tokio::test]
async fn a_registration_that_cannot_be_is_refused_with_its_place() {
    let fixture = Fixture::open();
    let url = "ws://127.0.0.1:7001";
    for (body, status, pointer) in [
        (json!({}), 422, "/url"),
        (json!({"url": "ftp://x"}), 422, "/url"),
        (json!({"url": url, "pool": "none"}), 422, "/pool"),
        (json!({"url": url, "weight": 0}), 422, "/weight"),
        (json!({"url": url, "weight": "1"}), 422, "/weight"),
        (json!({"url": url, "lease": "soon"}), 422, "/lease"),
        (json!({"url": url, "lease": "1ms"}), 422, "/lease"),
        (json!({"url": url, "serves": 5}), 422, "/serves"),
        (json!({"url": url, "state": "off"}), 422, "/state"),
        (json!({"url": url, "health": {"type": "ftp"}}), 422, "/health/type"),
        (json!({"url": url, "health": {"type": "http", "path": "x"}}), 422, "/health/path"),
        (json!({"url": url, "health": {"odd": 1}}), 422, "/health/odd"),
        (json!({"url": "ws://169.254.169.254/latest"}), 403, "/url"),
        (json!({"url": "ws://8.8.8.8:80"}), 403, "/url"),
    ] {
        let answer = fixture.json(Method::PUT, "/v1/backends/a", body.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {}", answer.text);
        answer.problem();
        let errors = answer.json()["errors"].clone();
        assert_eq!(errors[0]["pointer"], pointer, "{body}: {errors}");
    }
    assert_eq!(fixture.get("/v1/backends").await.json()["items"], json!([]));
}

#[tokio::test]
async fn a_lease_is_renewed_and_carries_directives() {
    let fixture = Fixture::open();
    let renew = async |id: &str| fixture.json(Method::PUT, &format!("/v1/backends/{id}/lease"), json!({})).await;
    assert_eq!(renew("a").await.problem(), "backend-not-found");
    put(&fixture, "a", json!({"url": "ws://127.0.0.1:7001", "lease": "15s"})).await;
    let body = renew("a").await.json();
    assert_eq!((&body["renew_after"], &body["directives"]), (&json!("5s"), &json!([])));
    assert!(body["expires_at"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    fixture.json(Method::PUT, "/v1/backends/a/state", json!({"state": "drain"})).await;
    assert_eq!(renew("a").await.json()["directives"], json!(["drain"]));
    put(&fixture, "b", json!({"url": "ws://127.0.0.1:7002"})).await;
    assert_eq!(renew("b").await.problem(), "no-lease");
}

#[tokio::test]
async fn states_change_and_events_tell_of_it() {
    let fixture = Fixture::open();
    put(&fixture, "a", json!({"url": "ws://127.0.0.1:7001"})).await;
    let set = async |body| fixture.json(Method::PUT, "/v1/backends/a/state", body).await;
    let answer = set(json!({"state": "drain", "pipes": "keep", "deadline": "1m"})).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["state"]), (200, &json!("drain")));
    assert_eq!(fixture.get("/health/ready").await.status.as_u16(), 503);
    assert_eq!(set(json!({"state": "ready"})).await.json()["eligible"], true);
    assert_eq!(set(json!({"state": "ready", "pipes": "eat"})).await.problem(), "invalid");
    assert_eq!(set(json!({})).await.json()["errors"][0]["pointer"], "/state");
    let gone = fixture.json(Method::DELETE, "/v1/backends/a", json!({})).await;
    assert_eq!(gone.status.as_u16(), 204);
    assert_eq!(fixture.json(Method::DELETE, "/v1/backends/a", json!({})).await.status.as_u16(), 204);
    assert_eq!(fixture.get("/v1/backends/a").await.problem(), "backend-not-found");
    let events = fixture.get("/v1/events").await.json();
    let kinds: Vec<&str> = events["items"].as_array().unwrap().iter().map(|e| e["type"].as_str().unwrap()).collect();
    assert_eq!(
        (kinds[0], kinds[kinds.len() - 2..].to_vec()),
        ("backend.registered", vec!["backend.removed", "pool.short"])
    );
    assert!(kinds.contains(&"backend.state_changed"), "{kinds:?}");
}

#[tokio::test]
async fn backends_are_listed_by_page_and_filter() {
    let fixture = Fixture::open();
    for (n, state) in [(1, "ready"), (2, "drain"), (3, "ready")] {
        let said = json!({"url": format!("ws://127.0.0.1:700{n}"), "state": state});
        put(&fixture, &format!("b{n}"), said).await;
    }
    let ids = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|b| b["id"].as_str().unwrap().to_owned()).collect()
    };
    let first = fixture.get("/v1/backends?limit=2").await.json();
    assert_eq!((ids(&first), &first["next_cursor"]), (vec!["b1".into(), "b2".into()], &json!("b2")));
    let rest = fixture.get("/v1/backends?limit=2&cursor=b2").await.json();
    assert_eq!((ids(&rest), &rest["next_cursor"]), (vec!["b3".into()], &Value::Null));
    assert_eq!(ids(&fixture.get("/v1/backends?state=drain").await.json()), ["b2"]);
    assert_eq!(ids(&fixture.get("/v1/backends?pool=other").await.json()), [""; 0]);
    let pool = fixture.get("/v1/pools/default").await.json();
    assert_eq!((&pool["backends"], &pool["eligible"]), (&json!(3), &json!(2)));
    assert_eq!(fixture.get("/v1/pools/other").await.problem(), "not-found");
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_can_only_make_what_could_be_registered() {
    let fixture = Fixture::open();
    let said = json!({"url": "ws://127.0.0.1:7001", "weight": 3, "serves": {"a": "x"}, "labels": {"rack": "7"}});
    put(&fixture, "a", said).await;
    let patch = async |body| fixture.json(Method::PATCH, "/v1/backends/a", body).await;
    let answer = patch(json!({"weight": 5, "serves": {"b": "y"}, "labels": {"rack": null}, "max_pipes": 2})).await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
    let body = answer.json();
    assert_eq!((&body["weight"], &body["max_pipes"], &body["labels"]), (&json!(5), &json!(2), &json!({})));
    assert_eq!((&body["serves"], &body["url"]), (&json!({"a": "x", "b": "y"}), &json!("ws://127.0.0.1:7001")));
    assert_eq!(patch(json!({"max_pipes": null})).await.json()["max_pipes"], Value::Null);
    for (body, pointer) in [
        (json!({"weight": 0}), "/weight"),
        (json!({"odd": 1}), "/odd"),
        (json!({"url": null}), "/url"),
        (json!({"serves": {"a": 1}}), "/serves"),
        (json!({"lease": "1ms"}), "/lease"),
    ] {
        let answer = patch(body.clone()).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["errors"][0]["pointer"]), (422, &json!(pointer)), "{body}");
    }
    let list =
        super::request(Method::PATCH, "/v1/backends/a", None).header("content-type", "application/merge-patch+json");
    assert_eq!(fixture.send(list.body("[]".into()).unwrap()).await.status.as_u16(), 422);
    let absent = fixture.json(Method::PATCH, "/v1/backends/b", json!({})).await;
    assert_eq!(absent.problem(), "backend-not-found");
}

#[tokio::test]
async fn writes_and_reads_obey_their_conditions() {
    let fixture = Fixture::open();
    let send = async |method: Method, name: &str, value: &str, body: Value| {
        let request = super::request(method, "/v1/backends/a", None).header("content-type", "application/json");
        fixture.send(request.header(name, value).body(body.to_string().into()).unwrap()).await
    };
    let said = json!({"url": "ws://127.0.0.1:7001"});
    for (name, value, status) in [
        ("if-match", "*", 412),
        ("if-match", "\"x-1\"", 412),
        ("if-none-match", "*", 201),
        ("if-none-match", "*", 412),
        ("if-match", "*", 200),
    ] {
        let answer = send(Method::PUT, name, value, said.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{name}: {value}");
    }
    let read = fixture.get("/v1/backends/a").await;
    let first = read.header("etag").to_owned();
    let known = send(Method::GET, "if-none-match", &first, json!({})).await;
    assert_eq!((known.status.as_u16(), known.header("etag"), &*known.text), (304, &*first, ""));
    let answer = send(Method::PATCH, "if-match", &first, json!({"weight": 2})).await;
    assert_eq!(answer.status.as_u16(), 200);
    let second = answer.header("etag").to_owned();
    assert_ne!(first, second);
    for method in [Method::PATCH, Method::PUT, Method::DELETE] {
        let body = if method == Method::PUT { said.clone() } else { json!({}) };
        let late = send(method.clone(), "if-match", &first, body).await;
        assert_eq!((late.status.as_u16(), &*late.problem()), (412, "precondition-failed"), "{method}");
    }
    assert_eq!(send(Method::GET, "if-none-match", &first, json!({})).await.status.as_u16(), 200);
    assert_eq!(send(Method::DELETE, "if-match", &second, json!({})).await.status.as_u16(), 204);
    assert_eq!(send(Method::DELETE, "if-match", &second, json!({})).await.status.as_u16(), 412);
}

#[tokio::test]
async fn a_list_waits_for_a_change_that_was_not_seen_yet() {
    let fixture = Fixture::open();
    for path in ["/v1/backends", "/v1/pools", "/v1/pipes"] {
        let list = fixture.get(path).await;
        let seen = list.header("x-holdline-index").to_owned();
        assert!(!list.header("etag").is_empty(), "{path}");
        let unchanged = fixture.get(&format!("{path}?index={seen}&wait=1ms")).await;
        assert_eq!(unchanged.header("x-holdline-index"), seen, "{path}");
        let blocked = format!("{path}?index={seen}&wait=60s");
        let (changed, _) = tokio::join!(fixture.get(&blocked), async {
            // Polled after the list, which waits by then.
            match path {
                "/v1/pipes" => drop(fixture.pipe(1, "k")),
                path => _ = put(&fixture, &path[4..], json!({"url": "ws://127.0.0.1:7001"})).await,
            }
        });
        assert_ne!(changed.header("x-holdline-index"), seen, "{path}");
        let late = fixture.get(&blocked).await;
        assert_eq!(late.status.as_u16(), 200, "a change that is over is answered at once");
    }
    let many = format!("/v1/backends?index={}&wait=1ms", u64::MAX);
    assert_eq!(fixture.get(&many).await.status.as_u16(), 200);
    assert_eq!(fixture.get("/v1/backends?index=1&wait=soon").await.problem(), "invalid");
}

#[tokio::test]
async fn only_so_many_wait_at_once() {
    let fixture = Fixture::open();
    let places: Vec<_> = (0..crate::admin::WAITERS_MAX).map(|_| fixture.admin.place_to_wait().unwrap()).collect();
    let seen = fixture.get("/v1/backends").await.header("x-holdline-index").to_owned();
    let path = format!("/v1/backends?index={seen}&wait=60s");
    assert_eq!(fixture.get(&path).await.problem(), "busy");
    assert_eq!(fixture.get("/v1/events?wait=60s").await.problem(), "busy");
    drop(places);
    assert_eq!(fixture.get(&format!("/v1/backends?index={seen}&wait=1ms")).await.status.as_u16(), 200);
}
