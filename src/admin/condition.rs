//! `ETag`, `If-Match` and `If-None-Match` (RFC 9110 section 13), and lists that wait for a change.
//!
//! A tag names a version: of one backend, or of everything that a list shows. It bears the number of the process's
//! life, so that a tag of an earlier one matches nothing. What only moves with traffic (counts of pipes and bytes, the
//! time of the last probe) has no part in it: a tag that changed all the time would protect nothing.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::watch;

use super::problem::Problem;
use super::{Admin, duration};
use crate::backends::Expect;

/// The header that a list's index travels in.
pub(super) static INDEX: HeaderName = HeaderName::from_static("x-holdline-index");

/// No version that ever was.
const NEVER: u64 = 0;

/// The tags of this life of the process.
#[derive(Debug)]
pub(super) struct Tags {
    life: u32,
}

impl Tags {
    pub(super) fn new() -> Self {
        Self { life: rand::random() }
    }

    fn show(&self, version: u64) -> String {
        format!("\"{:08x}-{version}\"", self.life)
    }

    /// What the headers of a write demand of a thing that stands at `current`, if it is there. Where a request has both
    /// headers, `If-Match` counts.
    pub(super) fn expect(&self, headers: &HeaderMap, current: Option<u64>) -> Expect {
        let current = current.unwrap_or(NEVER);
        match self.named(headers, &header::IF_MATCH, false) {
            Some(Named::Anything) => return Expect::Present,
            Some(Named::Versions(versions)) => {
                return Expect::Version(versions.into_iter().find(|&version| version == current).unwrap_or(NEVER));
            }
            None => {}
        }
        match self.named(headers, &header::IF_NONE_MATCH, true) {
            Some(Named::Anything) => Expect::Absent,
            Some(Named::Versions(versions)) if versions.contains(&current) => Expect::AnotherThan(current),
            Some(Named::Versions(_)) | None => Expect::Anything,
        }
    }

    /// Whether the asker has this version already.
    fn is_known(&self, headers: &HeaderMap, version: u64) -> bool {
        match self.named(headers, &header::IF_NONE_MATCH, true) {
            Some(Named::Anything) => true,
            Some(Named::Versions(versions)) => versions.contains(&version),
            None => false,
        }
    }

    /// The versions that a header names; a tag that is not ours is [`NEVER`]. `weakly` also takes tags marked as weak.
    fn named(&self, headers: &HeaderMap, name: &HeaderName, weakly: bool) -> Option<Named> {
        let mut values = headers.get_all(name).iter().peekable();
        values.peek()?;
        let tags: Vec<&str> =
            values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim).collect();
        if tags == ["*"] {
            return Some(Named::Anything);
        }
        let version = |tag: &str| {
            let tag = if weakly { tag.strip_prefix("W/").unwrap_or(tag) } else { tag };
            let inner = tag.strip_prefix('"')?.strip_suffix('"')?;
            let (life, version) = inner.split_once('-')?;
            (life == format!("{:08x}", self.life)).then(|| version.parse().ok())?
        };
        Some(Named::Versions(tags.into_iter().map(|tag| version(tag).unwrap_or(NEVER)).collect()))
    }

    /// `body` with its tag; 304 without it if a reader has that version.
    pub(super) fn answer(&self, asked: &HeaderMap, version: u64, status: StatusCode, body: impl Serialize) -> Response {
        let mut response = match status {
            StatusCode::OK if self.is_known(asked, version) => StatusCode::NOT_MODIFIED.into_response(),
            status => (status, Json(body)).into_response(),
        };
        if let Ok(tag) = HeaderValue::from_str(&self.show(version)) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }

    /// A list with its tag and the index to wait for a change from.
    pub(super) fn list(&self, asked: &HeaderMap, index: u64, body: impl Serialize) -> Response {
        let mut response = self.answer(asked, index, StatusCode::OK, body);
        response.headers_mut().insert(INDEX.clone(), index.into());
        response
    }
}

enum Named {
    Anything,
    Versions(Vec<u64>),
}

/// The index to read a list at: at once, or with `?index=N&wait=30s` when it is no longer `N` or the wait is over.
///
/// # Errors
/// A problem if `wait` is no duration, or too many wait already.
pub(super) async fn index(
    admin: &Admin,
    mut changes: watch::Receiver<u64>,
    seen: Option<u64>,
    wait: Option<&str>,
) -> Result<u64, Problem> {
    let patience = duration::wait(wait)?;
    let now = *changes.borrow();
    if Some(now) == seen && patience > Duration::ZERO {
        let _place = admin.place_to_wait()?;
        // Running out of patience is an answer like any other: the list as it was.
        let _ = tokio::time::timeout(patience, changes.wait_for(|&index| index != now)).await;
    }
    let index = *changes.borrow();
    Ok(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        [(name, HeaderValue::from_str(value).unwrap())].into_iter().collect()
    }

    #[test]
    fn conditions_are_read_as_the_rfc_has_them() {
        let tags = Tags { life: 0xabc };
        let of = |name: &HeaderName, value: &str| tags.expect(&headers(name.clone(), value), Some(7));
        let (if_match, none_match) = (header::IF_MATCH, header::IF_NONE_MATCH);
        assert_eq!(of(&if_match, "*"), Expect::Present);
        assert_eq!(of(&if_match, "\"00000abc-7\""), Expect::Version(7));
        assert_eq!(of(&if_match, "\"x\", \"00000abc-7\""), Expect::Version(7));
        for other in ["\"00000abc-6\"", "W/\"00000abc-7\"", "\"00000def-7\"", "7", "", "\"*\""] {
            assert_eq!(of(&if_match, other), Expect::Version(NEVER), "{other}");
        }
        assert_eq!(of(&none_match, "*"), Expect::Absent);
        assert_eq!(of(&none_match, "W/\"00000abc-7\""), Expect::AnotherThan(7));
        assert_eq!(of(&none_match, "\"00000abc-6\""), Expect::Anything);
        assert_eq!(tags.expect(&HeaderMap::new(), None), Expect::Anything);
    }
}
