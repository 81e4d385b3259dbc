//! Which pages may ask from another origin, as browsers want to be told it (CORS, the Fetch standard, section 3.2).
//!
//! Invariant: only an origin that `routes.origins` names is allowed, by its exact name; a route without that key allows
//! pages of its own origin alone, which no browser asks about. A page that may ask does so with its user's cookies, as its
//! WebSocket handshakes do: routes and workers know clients by them.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::http::Body;
use crate::routes::Route;

/// Headers that a page may send.
const ALLOWED_HEADERS: &str = "authorization, content-type, holdline-pipe, last-event-id";

/// How long a browser may remember it, in seconds.
const MAX_AGE_SECONDS: &str = "600";

/// The origin of a request, if its route names it.
pub fn allowed(route: &Route, headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(ORIGIN)?;
    (route.has_origins() && route.allows_origin(headers)).then(|| origin.clone())
}

/// The answer to the question before the request.
pub fn preflight(origin: Option<HeaderValue>) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = if origin.is_some() { StatusCode::NO_CONTENT } else { StatusCode::FORBIDDEN };
    if origin.is_some() {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED_HEADERS));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE_SECONDS));
    }
    allow(response.headers_mut(), origin);
    response
}

/// Tells the browser that the page may read the answer.
pub fn allow(headers: &mut HeaderMap, origin: Option<HeaderValue>) {
    headers.append(VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("retry-after"));
    }
}
