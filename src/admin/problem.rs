//! Errors as `application/problem+json` (RFC 9457), one stable `type` per kind of trouble.
//!
//! The `type` is `urn:holdline:problem:` and a slug: that of a [`Kind`], or of the part of the program that refused.
//! Programs compare it, people read `detail`.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

/// Every kind of trouble the admin API can report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The body is not JSON.
    MalformedJson,
    /// The body could not be read to its end.
    IncompleteBody,
    /// No token, or one that is not known.
    Unauthorized,
    /// The token's role does not allow this.
    RoleForbidden,
    /// The `Host` is not a loopback name although the listener is local.
    HostForbidden,
    /// The request comes from a page of another origin.
    OriginForbidden,
    /// There is nothing at this path, or nothing of this id.
    NotFound,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// It can't be done in the state that things are in.
    Conflict,
    /// What was asked for is no longer kept.
    Gone,
    /// The body is larger than `BODY_BYTES_MAX`.
    BodyTooLarge,
    /// The body is not declared as `application/json`.
    MediaType,
    /// Valid JSON, but not what this endpoint takes.
    Invalid,
    /// As many wait for a change as may.
    Busy,
    /// It should have worked.
    Broken,
}

impl Kind {
    const fn parts(self) -> (&'static str, &'static str, StatusCode) {
        match self {
            Self::MalformedJson => ("malformed-json", "The body is not JSON", StatusCode::BAD_REQUEST),
            Self::IncompleteBody => ("incomplete-body", "The body ended early", StatusCode::BAD_REQUEST),
            Self::Unauthorized => ("unauthorized", "A valid token is needed", StatusCode::UNAUTHORIZED),
            Self::RoleForbidden => ("role-forbidden", "The token's role does not allow this", StatusCode::FORBIDDEN),
            Self::HostForbidden => ("host-forbidden", "This Host is not served here", StatusCode::FORBIDDEN),
            Self::OriginForbidden => ("origin-forbidden", "Other origins may not do this", StatusCode::FORBIDDEN),
            Self::NotFound => ("not-found", "There is no such thing", StatusCode::NOT_FOUND),
            Self::MethodNotAllowed => {
                ("method-not-allowed", "The path has no such method", StatusCode::METHOD_NOT_ALLOWED)
            }
            Self::Conflict => ("conflict", "It can't be done now", StatusCode::CONFLICT),
            Self::Gone => ("gone", "It is no longer kept", StatusCode::GONE),
            Self::BodyTooLarge => ("body-too-large", "The body is too large", StatusCode::PAYLOAD_TOO_LARGE),
            Self::MediaType => ("media-type", "The body must be JSON", StatusCode::UNSUPPORTED_MEDIA_TYPE),
            Self::Invalid => ("invalid", "The request is not valid", StatusCode::UNPROCESSABLE_ENTITY),
            Self::Busy => ("busy", "Too many are waiting", StatusCode::SERVICE_UNAVAILABLE),
            Self::Broken => ("internal", "Something broke here", StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}

/// One thing that is wrong, and where.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Fault {
    /// RFC 6901 pointer into the body; for a query parameter `/query/` and its name.
    pub pointer: String,
    /// What is wrong there.
    pub message: String,
}

/// A problem as it is written (RFC 9457).
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(super) struct ProblemBody<'a> {
    /// A URN that stays the same for this kind of trouble.
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
    errors: &'a [Fault],
}

/// An error answer; the request id is filled in on its way out.
#[derive(Clone, Debug)]
pub struct Problem {
    slug: &'static str,
    title: &'static str,
    status: StatusCode,
    /// What to tell the caller; never contains secrets.
    pub detail: String,
    /// The places that are wrong.
    pub errors: Vec<Fault>,
}

impl Problem {
    /// A problem without particular places.
    #[must_use]
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let (slug, title, status) = kind.parts();
        Self { slug, title, status, detail: detail.into(), errors: Vec::new() }
    }

    /// A problem that another part of the program named; its slug must be as stable as those here.
    #[must_use]
    pub fn named(slug: &'static str, status: u16, detail: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let title = status.canonical_reason().unwrap_or("Refused");
        Self { slug, title, status, detail: detail.into(), errors: Vec::new() }
    }

    /// The same problem, found at `pointer`.
    #[must_use]
    pub fn at(mut self, pointer: impl Into<String>) -> Self {
        self.errors.push(Fault { pointer: pointer.into(), message: self.detail.clone() });
        self
    }

    /// A valid document with one wrong place.
    #[must_use]
    pub fn invalid(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message).at(pointer)
    }

    /// Nothing of this id.
    #[must_use]
    pub fn no_such(what: &str, id: &str) -> Self {
        Self::new(Kind::NotFound, format!("there is no {what} {id:?}"))
    }

    pub(super) fn body(&self, request_id: &str) -> String {
        let body = ProblemBody {
            kind: format!("urn:holdline:problem:{}", self.slug),
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
            request_id,
            errors: &self.errors,
        };
        serde_json::to_string(&body).unwrap_or_default()
    }
}

impl IntoResponse for Problem {
    /// The problem travels as an extension; the gate writes it out, because only it knows the request id.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"holdline\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response.extensions_mut().insert(self);
        response
    }
}
