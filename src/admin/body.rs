//! What comes in: JSON bodies, query strings and path parameters, each refused with a problem that says where.

use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use http_body_util::{BodyExt, Limited};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::problem::{Kind, Problem};

/// Bytes of a request body.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// From the head of a request to the end of its body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A JSON body of the shape `T`; an absent body is an empty object.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let bytes = read(request).await?;
        let value: Value = if bytes.is_empty() {
            Value::Object(serde_json::Map::new())
        } else {
            serde_json::from_slice(&bytes).map_err(|error| {
                let place = format!("line {}, column {}", error.line(), error.column());
                Problem::new(Kind::MalformedJson, format!("the body is not JSON: {place}"))
            })?
        };
        shape(&value).map(Self)
    }
}

/// Reads a body of at most [`BODY_BYTES_MAX`], within [`BODY_TIMEOUT`].
pub(super) async fn read(request: Request) -> Result<Vec<u8>, Problem> {
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX);
    let Ok(collected) = tokio::time::timeout(BODY_TIMEOUT, body.collect()).await else {
        return Err(Problem::new(Kind::IncompleteBody, "the body did not come in time"));
    };
    match collected {
        Ok(body) => Ok(body.to_bytes().into()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Problem::new(Kind::BodyTooLarge, format!("a body may have {BODY_BYTES_MAX} bytes")))
        }
        Err(_) => Err(Problem::new(Kind::IncompleteBody, "the body could not be read to its end")),
    }
}

pub(super) fn shape<T: DeserializeOwned>(value: &Value) -> Result<T, Problem> {
    // serde would take an array for a struct, field by field.
    if !value.is_object() {
        return Err(Problem::invalid("", "the body must be a JSON object"));
    }
    serde_path_to_error::deserialize(value).map_err(|error| {
        let message = error.inner().to_string();
        let mut at = pointer(error.path());
        // An unknown or missing field is reported at the object that has it or should have it.
        if let Some(field) = named_field(&message)
            && at.rsplit('/').next() != Some(&*escape(field))
        {
            at = format!("{at}/{}", escape(field));
        }
        Problem::invalid(at, message)
    })
}

fn named_field(message: &str) -> Option<&str> {
    let about = ["unknown field `", "missing field `", "duplicate field `"];
    let rest = about.iter().find_map(|about| message.strip_prefix(about))?;
    rest.split('`').next()
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let parts = path.iter().map(|segment| match segment {
        Segment::Seq { index } => format!("/{index}"),
        Segment::Map { key } => format!("/{}", escape(key)),
        Segment::Enum { variant } => format!("/{}", escape(variant)),
        Segment::Unknown => String::new(),
    });
    parts.collect()
}

/// RFC 6901 section 3.
pub(super) fn escape(part: &str) -> String {
    part.replace('~', "~0").replace('/', "~1")
}

/// Query parameters of the shape `T`; unknown ones are refused, since a mistyped filter would select everything.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or("");
        let found = axum::extract::Query::<T>::try_from_uri(&parts.uri);
        found.map(|axum::extract::Query(value)| Self(value)).map_err(|error| {
            let message = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            // axum prefixes the parameter's name: "limit: invalid digit".
            let (name, message) = match message.split_once(": ") {
                Some((name, rest)) if query.contains(name) => (name.to_owned(), rest.to_owned()),
                _ => (named_field(&message).unwrap_or("").to_owned(), message),
            };
            Problem::invalid(format!("/query/{}", escape(&name)), message)
        })
    }
}

/// The one parameter of the path.
#[derive(Debug)]
pub struct Id(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(id)) => Ok(Self(id)),
            Err(_) => Err(Problem::new(Kind::NotFound, "the path is not valid UTF-8")),
        }
    }
}

/// Whether the headers declare `application/json`, with or without parameters.
#[must_use]
pub fn is_json(headers: &HeaderMap) -> bool {
    declares(headers, "application/json")
}

/// Whether the headers declare `application/merge-patch+json` (RFC 7396).
#[must_use]
pub fn is_merge_patch(headers: &HeaderMap) -> bool {
    declares(headers, "application/merge-patch+json")
}

fn declares(headers: &HeaderMap, media_type: &str) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    value.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case(media_type)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[expect(dead_code, reason = "only its shape matters")]
        inner: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code, reason = "only its shape matters")]
        n: u8,
    }

    #[test]
    fn a_fault_points_at_its_place() {
        for (body, place) in [
            (json!({"inner": [{"n": 1}, {"n": "x"}]}), "/inner/1/n"),
            (json!({"inner": [], "a/b": 1}), "/a~1b"),
            (json!({"inner": [{"n": 1, "m": 2}]}), "/inner/0/m"),
            (json!({"inner": [{}]}), "/inner/0/n"),
            (json!({}), "/inner"),
            (json!([1]), ""),
        ] {
            let problem = shape::<Outer>(&body).unwrap_err();
            assert_eq!(problem.errors[0].pointer, place, "{body}: {}", problem.detail);
        }
    }

    #[tokio::test]
    async fn a_query_fault_names_its_parameter() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Page {
            #[expect(dead_code, reason = "only its shape matters")]
            limit: Option<u16>,
        }
        for (query, place) in
            [("limit=x", "/query/limit"), ("linit=1", "/query/linit"), ("limit=1&limit=2", "/query/limit")]
        {
            let (mut parts, ()) = http::Request::get(format!("/?{query}")).body(()).unwrap().into_parts();
            let problem = Query::<Page>::from_request_parts(&mut parts, &()).await.unwrap_err();
            assert_eq!(problem.errors[0].pointer, place, "{query}: {}", problem.detail);
        }
    }
}
