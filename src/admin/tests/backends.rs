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
    assert_eq!((kinds[0], *kinds.last().unwrap()), ("backend.registered", "backend.removed"));
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
