//! Who gets in: tokens, roles, browsers, bodies.

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use serde_json::json;

use super::{Fixture, request};
use crate::admin::Locality;
use crate::admin::body::BODY_BYTES_MAX;
use crate::tokens::{Access, Role};

/// A path that fits the pattern.
fn path(pattern: &str) -> String {
    pattern.replace("{id}", "x").replace("{name}", "x")
}

#[tokio::test]
async fn every_endpoint_refuses_whoever_has_no_right_to_it() {
    let fixture = Fixture::with_tokens();
    let tokens = [(Role::Viewer, "see"), (Role::Worker, "work"), (Role::Operator, "rule")];
    let mut walked = 0;
    for (method, pattern, access) in fixture.admin.access.iter() {
        let send = async |token| {
            let request =
                request(method.clone(), &path(pattern), token).header(header::CONTENT_TYPE, "application/json");
            fixture.send(request.body(Body::empty()).unwrap()).await
        };
        let closed = access != Access::Open;
        let unknown = send(None).await;
        assert_eq!(unknown.status == StatusCode::UNAUTHORIZED, closed, "{method} {pattern}");
        if closed {
            assert_eq!(unknown.problem(), "unauthorized");
            assert!(unknown.header("www-authenticate").starts_with("Bearer"));
            assert_eq!(send(Some("wrong")).await.status, StatusCode::UNAUTHORIZED, "{method} {pattern}");
        }
        for (role, token) in tokens {
            let refused = send(Some(token)).await.status == StatusCode::FORBIDDEN;
            assert_eq!(refused, !access.allows(role), "{method} {pattern} by {role:?}");
        }
        walked += 1;
    }
    assert!(walked > 20);
}

#[tokio::test]
async fn a_worker_registers_and_renews_and_does_nothing_else() {
    let fixture = Fixture::with_tokens();
    let send = async |method, path: &str, body: &str| {
        let request = request(method, path, Some("work")).header(header::CONTENT_TYPE, "application/json");
        fixture.send(request.body(body.to_owned().into()).unwrap()).await.status.as_u16()
    };
    let said = r#"{"url":"ws://127.0.0.1:7001","lease":"15s"}"#;
    assert_eq!(send(Method::PUT, "/v1/backends/a", said).await, 201);
    assert_eq!(send(Method::PUT, "/v1/backends/a/lease", "").await, 200);
    assert_eq!(send(Method::PUT, "/v1/backends/a/state", r#"{"state":"drain"}"#).await, 403);
    assert_eq!(send(Method::GET, "/v1/backends", "").await, 403);
    assert_eq!(send(Method::GET, "/v1/pipes", "").await, 403);
    assert_eq!(send(Method::DELETE, "/v1/backends/a", "").await, 204);
}

#[tokio::test]
async fn without_tokens_a_local_listener_is_open_and_any_other_is_closed() {
    for (locality, status) in [
        (Locality::Loopback, StatusCode::OK),
        (Locality::Unix, StatusCode::OK),
        (Locality::Network, StatusCode::UNAUTHORIZED),
    ] {
        assert_eq!(Fixture::new(locality, false).get("/v1/pipes").await.status, status, "{locality:?}");
    }
}

#[tokio::test]
async fn a_rebound_name_reaches_nothing_but_health() {
    let fixture = Fixture::open();
    for (path, status) in [("/v1/pipes", 403), ("/v1/events", 403), ("/stats", 403), ("/health/live", 200)] {
        for host in ["evil.example", "evil.example:9000", "192.168.1.2", ""] {
            let request = axum::http::Request::get(path).header(header::HOST, host).body(Body::empty()).unwrap();
            let answer = fixture.send(request).await;
            assert_eq!(answer.status.as_u16(), status, "{host:?} {path}");
        }
    }
    let bare = axum::http::Request::get("/v1/pipes").body(Body::empty()).unwrap();
    assert_eq!(fixture.send(bare).await.problem(), "host-forbidden");
    let absolute = request(Method::GET, "http://evil.example/v1/pipes", None).body(Body::empty()).unwrap();
    assert_eq!(fixture.send(absolute).await.problem(), "host-forbidden");
    for host in ["localhost:9000", "[::1]:9000", "127.0.0.1"] {
        let request = axum::http::Request::get("/v1/pipes").header(header::HOST, host).body(Body::empty()).unwrap();
        assert_eq!(fixture.send(request).await.status, StatusCode::OK, "{host}");
    }
}

#[tokio::test]
async fn a_page_of_another_origin_may_not_write() {
    let fixture = Fixture::open();
    let send = async |name: &str, value: &str| {
        let request = request(Method::PUT, "/v1/drain", None).header(header::CONTENT_TYPE, "application/json");
        fixture.send(request.header(name, value).body(Body::from("{}")).unwrap()).await
    };
    for origin in ["http://evil.example", "null", "http://127.0.0.1:9001", "https://127.0.0.1:9000.evil.example", ""] {
        assert_eq!(send("origin", origin).await.problem(), "origin-forbidden", "{origin}");
    }
    for site in ["cross-site", "same-site"] {
        assert_eq!(send("sec-fetch-site", site).await.problem(), "origin-forbidden", "{site}");
    }
    assert_eq!(send("origin", "http://127.0.0.1:9000").await.status, StatusCode::OK);
    assert_eq!(send("sec-fetch-site", "same-origin").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_body_must_be_json_small_and_of_the_right_shape() {
    let fixture = Fixture::open();
    let send = async |kind: &str, body: String| {
        let request = request(Method::POST, "/v1/backends", None).header(header::CONTENT_TYPE, kind);
        fixture.send(request.body(body.into()).unwrap()).await
    };
    let fine = json!({"url": "ws://127.0.0.1:7001"}).to_string();
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx"] {
        let answer = send(kind, fine.clone()).await;
        assert_eq!((answer.status.as_u16(), &*answer.problem()), (415, "media-type"));
    }
    let answer = send("application/json", "{\"url\": ".into()).await;
    assert_eq!((answer.status.as_u16(), &*answer.problem()), (400, "malformed-json"));
    let answer = send("application/json", format!("\"{}\"", "x".repeat(BODY_BYTES_MAX))).await;
    assert_eq!((answer.status.as_u16(), &*answer.problem()), (413, "body-too-large"));
    let answer = send("application/json", format!("\"{}\"", "x".repeat(BODY_BYTES_MAX - 2))).await;
    assert_eq!(answer.status.as_u16(), 422, "a body of exactly the limit is read");
    let answer = send("application/json", json!({"url": "ws://127.0.0.1:7001", "colour": 1}).to_string()).await;
    assert_eq!((answer.status.as_u16(), &*answer.problem()), (422, "invalid"));
    assert_eq!(answer.json()["errors"][0]["pointer"], "/colour");
    assert_eq!(send("application/json; charset=utf-8", fine).await.status.as_u16(), 201);
    let empty = request(Method::POST, "/v1/backends", None).body(Body::empty()).unwrap();
    assert_eq!(fixture.send(empty).await.problem(), "media-type");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_too() {
    let fixture = Fixture::open();
    let answer = fixture.get("/v1/nonsense").await;
    assert_eq!((answer.status.as_u16(), &*answer.problem()), (404, "not-found"));
    let answer = fixture.json(Method::DELETE, "/v1/events", json!({})).await;
    assert_eq!((answer.status.as_u16(), &*answer.problem()), (405, "method-not-allowed"));
    assert_eq!(answer.header("allow"), "GET,HEAD");
    assert_eq!(fixture.get("/v1/pipes/%ff").await.problem(), "not-found");
    for query in ["limit=0", "limit=1001", "limit=x", "state=odd", "colour=red", "cursor=x"] {
        assert_eq!(fixture.get(&format!("/v1/pipes?{query}")).await.problem(), "invalid", "{query}");
    }
}

#[tokio::test]
async fn requests_are_counted_by_pattern_and_keep_their_id() {
    let fixture = Fixture::open();
    for id in ["one", "two"] {
        fixture.get(&format!("/v1/pipes/{id}")).await;
    }
    let odd = request(Method::from_bytes(b"BREW").unwrap(), "/coffee", None);
    let odd = odd.header("x-request-id", "tea-1").body(Body::empty()).unwrap();
    assert_eq!(fixture.send(odd).await.header("x-request-id"), "tea-1");
    let text = fixture.get("/metrics").await.text;
    let series = "holdline_admin_requests_total{code=\"404\",method=\"GET\",route=\"/v1/pipes/{id}\"} 2\n";
    assert!(text.contains(series), "{text}");
    assert!(text.contains("method=\"other\",route=\"none\"") && !text.contains("coffee"));
}

#[tokio::test]
async fn a_tokens_file_can_be_changed_and_a_broken_one_changes_nothing() {
    let fixture = Fixture::with_tokens();
    let file = fixture.files.path().join("tokens");
    let status = async |token| {
        fixture.send(request(Method::GET, "/v1/pipes", Some(token)).body(Body::empty()).unwrap()).await.status.as_u16()
    };
    std::fs::write(&file, format!("viewer {}\n", super::digest("fresh"))).unwrap();
    assert_eq!(status("fresh").await, 401);
    fixture.admin.reload.reload(false).await.unwrap();
    assert_eq!((status("fresh").await, status("see").await), (200, 401));
    std::fs::write(&file, "nonsense\n").unwrap();
    assert!(fixture.admin.reload.reload(false).await.is_err());
    assert_eq!(status("fresh").await, 200);
}

#[tokio::test]
async fn resume_keys_are_swapped_by_a_reload_and_a_broken_file_changes_nothing() {
    let fixture = Fixture::open();
    let (process, keys) = (&fixture.admin.process, fixture.files.path().join("keys"));
    let own = format!("{:?}", process.resume_keys.load());
    let reload = || fixture.admin.reload.reload(true);
    reload().await.unwrap();
    assert_eq!(format!("{:?}", process.resume_keys.load()), own, "a ring of the process outlives a reload");
    let first = crate::resume::new_file(&keys).unwrap();
    let text = format!("[resume]\nkeys_file = {:?}\n", keys.to_str().unwrap());
    std::fs::write(fixture.files.path().join("proxy.toml"), text).unwrap();
    reload().await.unwrap();
    assert!(format!("{:?}", process.resume_keys.load()).contains(&first));
    let rotated = crate::resume::rotate_file(&keys).unwrap();
    reload().await.unwrap();
    let both = format!("{:?}", process.resume_keys.load());
    assert!(both.contains(&first) && both.contains(&rotated.signs), "{both}");
    std::fs::write(&keys, "").unwrap();
    let error = reload().await.unwrap_err().to_string();
    assert!(error.contains("resume.keys_file: the keys file: there is no key"), "{error}");
    std::fs::remove_file(&keys).unwrap();
    assert!(reload().await.is_err());
    assert_eq!(format!("{:?}", process.resume_keys.load()), both);
    std::fs::write(fixture.files.path().join("proxy.toml"), "").unwrap();
    reload().await.unwrap();
    let fresh = format!("{:?}", process.resume_keys.load());
    assert!(!fresh.contains(&first) && !fresh.contains(&rotated.signs), "{fresh}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_comes_is_not_waited_for_for_ever() {
    let fixture = Fixture::open();
    let request = request(Method::POST, "/v1/backends", None).header(header::CONTENT_TYPE, "application/json");
    let never = Body::from_stream(futures_util::stream::pending::<std::io::Result<bytes::Bytes>>());
    let began = tokio::time::Instant::now();
    let answer = fixture.send(request.body(never).unwrap()).await;
    assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::BAD_REQUEST, "incomplete-body"));
    assert_eq!(began.elapsed(), crate::admin::body::BODY_TIMEOUT);
}
