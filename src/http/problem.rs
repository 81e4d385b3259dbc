//! What Holdline itself says over HTTP, as one short `application/problem+json` (RFC 9457).

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response};

use super::body::Body;
use crate::handshake::refusal::Refusal;

/// The answer that says `refusal`.
#[must_use]
pub fn problem(refusal: Refusal) -> Response<Body> {
    let title = refusal.status.canonical_reason().unwrap_or("Refused");
    let problem = serde_json::json!({
        "type": format!("urn:holdline:problem:{}", refusal.slug),
        "title": title,
        "status": refusal.status.as_u16(),
        "detail": refusal.detail,
    });
    let mut response = Response::new(Body::full(Bytes::from(format!("{problem}\n"))));
    *response.status_mut() = refusal.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in refusal.headers {
        headers.append(name, value);
    }
    response
}
