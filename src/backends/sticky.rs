//! A cookie of ours that brings a client back to the worker that it had.
//!
//! It names the backend by a hash of its id: neither its address nor its id can be read from it, and it means the same
//! after a restart, and to another proxy with the same backends. Invariant: what a client sends is only compared; a name
//! that no backend has is as good as none.

use std::fmt;

use http::HeaderMap;
use http::header::{COOKIE, HeaderValue};
use sha2::{Digest, Sha256};

/// Bytes of the hash that stand in the cookie.
const TAG_BYTES: usize = 12;

/// The name of a backend in the cookie.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tag([u8; TAG_BYTES]);

impl Tag {
    /// The name of the backend `id`.
    #[must_use]
    pub fn of(id: &str) -> Self {
        let digest = Sha256::new().chain_update(b"holdline sticky\0").chain_update(id).finalize();
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&digest[..TAG_BYTES]);
        Self(tag)
    }

    /// Whether `text` is this name.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        text.len() == TAG_BYTES * 2 && self.to_string() == text
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tag({self})")
    }
}

/// What the cookie of `pool` says in `headers`.
#[must_use]
pub fn sent<'h>(headers: &'h HeaderMap, pool: &str) -> Option<&'h str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut ours = pairs.filter(|(name, _)| name.strip_prefix("holdline-") == Some(pool)).map(|(_, value)| value);
    ours.next()
}

/// The header that sets the cookie of `pool`.
#[must_use]
pub fn set(pool: &str, tag: Tag, secure: bool) -> Option<HeaderValue> {
    let secure = if secure { "; Secure" } else { "" };
    HeaderValue::from_str(&format!("holdline-{pool}={tag}; Path=/; HttpOnly; SameSite=Lax{secure}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_of_a_pool_is_found_among_others_and_says_no_more_than_a_hash() {
        let tag = Tag::of("10.0.0.1:9001");
        let cookie = set("farm", tag, true).expect("a header");
        let cookie = cookie.to_str().expect("text");
        assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure") && !cookie.contains("10.0"), "{cookie}");
        let mut headers = HeaderMap::new();
        let value = format!("a=1; holdline-other=x; {}", cookie.split(';').next().expect("a pair"));
        headers.append(COOKIE, HeaderValue::from_str(&value).expect("a header"));
        assert!(sent(&headers, "farm").is_some_and(|text| tag.is(text)));
        assert_eq!(sent(&headers, "none"), None);
        assert!(!Tag::of("another").is(sent(&headers, "farm").expect("it is there")));
    }
}
