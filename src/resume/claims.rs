//! What a resume token says, and its bytes.
//!
//! The payload has one form, with a number in front: another form is another number, and what is not exactly one of them
//! is no payload. Credentials and places are in it as digests, so that a token tells its reader nothing about either.

use std::time::{Duration, SystemTime};

use holdline_core::ids::{Generation, PipeId};
use http::{HeaderMap, header};
use sha2::{Digest, Sha256};

/// The form of the payload.
const FORM: u8 = 1;

/// Bytes of the payload up to the name of the node, and of all that follows it.
const FIXED_BYTES: usize = 1 + 16 + 6 * 8 + 2 * 32 + 1;

/// A time on the wall in milliseconds since 1970, which other processes read as well.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct UnixTime {
    /// Milliseconds since 1970.
    pub ms: u64,
}

impl UnixTime {
    /// What the system's clock shows.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
    }

    /// So much later.
    #[must_use]
    pub fn plus(self, wait: Duration) -> Self {
        let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        Self { ms: self.ms.saturating_add(ms) }
    }
}

/// The name of a node of a cluster; empty for a process that is alone.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeName(Box<str>);

impl NodeName {
    /// Bytes of a name.
    pub const BYTES_MAX: usize = 64;

    /// The node called `name`: at most [`Self::BYTES_MAX`] letters, digits, `.`, `_` or `-`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        (name.len() <= Self::BYTES_MAX && name.bytes().all(allowed)).then(|| Self(name.into()))
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The process that owned the pipe when the token was made.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Home {
    /// Its node.
    pub node: NodeName,
    /// Which start of that node.
    pub incarnation: u64,
}

/// Whom credentials name, as a digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Principal([u8; 32]);

impl Principal {
    /// The owner of these credentials, in this order.
    #[must_use]
    pub fn of<'a>(credentials: impl IntoIterator<Item = &'a [u8]>) -> Self {
        Self(digest(b"holdline principal\0", credentials))
    }

    /// The owner of what a request has in `Authorization`; cookies are not looked at, since which of them says who the
    /// user is is not known here, and others change at any time.
    #[must_use]
    pub fn of_headers(headers: &HeaderMap) -> Self {
        Self::of(headers.get_all(header::AUTHORIZATION).iter().map(http::HeaderValue::as_bytes))
    }
}

/// Where a pipe was opened, as a digest: host, path and subprotocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place([u8; 32]);

impl Place {
    /// The place of a pipe that was opened at this path of this host, and speaks this subprotocol.
    #[must_use]
    pub fn of(host: Option<&str>, path: &str, subprotocol: Option<&str>) -> Self {
        let host = host.unwrap_or_default().to_ascii_lowercase();
        let parts = [host.as_str(), path, subprotocol.unwrap_or_default()];
        Self(digest(b"holdline place\0", parts.map(str::as_bytes)))
    }
}

fn digest<'a>(domain: &[u8], parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut digest = Sha256::new_with_prefix(domain);
    for part in parts {
        // With its length, so that no two different lists of parts are the same bytes.
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

/// What a token says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claims {
    /// The pipe that it is for.
    pub pipe: PipeId,
    /// The pipe's epoch when it was made.
    pub epoch: u64,
    /// The fence of the pipe's owner.
    pub fence: u64,
    /// The client's attach that it was given to.
    pub generation: Generation,
    /// The pipe's owner.
    pub home: Home,
    /// When it was made.
    pub issued: UnixTime,
    /// Until when it is good.
    pub expires: UnixTime,
    /// Whom it was given to.
    pub principal: Principal,
    /// Where the pipe was opened.
    pub place: Place,
}

impl Claims {
    pub(super) fn encode(&self) -> Vec<u8> {
        let node = self.home.node.as_str().as_bytes();
        let mut bytes = Vec::with_capacity(FIXED_BYTES + node.len());
        bytes.push(FORM);
        bytes.extend(self.pipe.to_bytes());
        let numbers =
            [self.epoch, self.fence, self.generation.0, self.home.incarnation, self.issued.ms, self.expires.ms];
        numbers.iter().for_each(|number| bytes.extend(number.to_be_bytes()));
        bytes.extend(self.principal.0);
        bytes.extend(self.place.0);
        bytes.push(u8::try_from(node.len()).expect("a name has at most 64 bytes"));
        bytes.extend(node);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut bytes = Reader(bytes);
        if bytes.take::<1>()? != [FORM] {
            return None;
        }
        let pipe = PipeId::from_bytes(bytes.take()?);
        let (epoch, fence, generation) = (bytes.number()?, bytes.number()?, Generation(bytes.number()?));
        let incarnation = bytes.number()?;
        let (issued, expires) = (UnixTime { ms: bytes.number()? }, UnixTime { ms: bytes.number()? });
        let (principal, place) = (Principal(bytes.take()?), Place(bytes.take()?));
        let [length] = bytes.take()?;
        let node = std::str::from_utf8(bytes.0).ok().filter(|name| name.len() == usize::from(length))?;
        let home = Home { node: NodeName::parse(node)?, incarnation };
        Some(Self { pipe, epoch, fence, generation, home, issued, expires, principal, place })
    }
}

/// What is left of a payload.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, left) = self.0.split_first_chunk::<N>()?;
        self.0 = left;
        Some(*taken)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::claims;
    use super::*;

    #[test]
    fn claims_come_back_from_their_bytes_and_from_no_part_of_them() {
        for node in ["", "node-1", &"n".repeat(NodeName::BYTES_MAX)] {
            let claims = claims(node);
            let mut bytes = claims.encode();
            assert_eq!(Claims::decode(&bytes), Some(claims));
            assert!((0..bytes.len()).all(|end| Claims::decode(&bytes[..end]).is_none()), "{node}");
            bytes.push(b'x');
            assert_eq!(Claims::decode(&bytes), None);
            bytes[0] = FORM + 1;
            assert_eq!(Claims::decode(&bytes), None);
        }
    }

    #[test]
    fn places_and_principals_differ_where_their_parts_do_however_these_are_put_together() {
        let place = Place::of(Some("a"), "/b", Some("c"));
        assert_eq!(place, Place::of(Some("A"), "/b", Some("c")), "hosts have no case");
        for other in [
            Place::of(Some("a/"), "b", Some("c")),
            Place::of(Some("a"), "/bc", None),
            Place::of(None, "a/b", Some("c")),
            Place::of(Some("a"), "/B", Some("c")),
        ] {
            assert_ne!(place, other);
        }
        let headers = |values: &[&str]| {
            Principal::of_headers(&values.iter().map(|it| (header::AUTHORIZATION, it.parse().unwrap())).collect())
        };
        assert_eq!(headers(&["Basic a"]), headers(&["Basic a"]));
        assert_ne!(headers(&["Basic a"]), headers(&[]));
        assert_ne!(headers(&["a", "b"]), headers(&["ab"]));
    }

    #[test]
    fn a_node_has_a_short_plain_name() {
        assert!(NodeName::parse("eu-1.a_b").is_some());
        for name in ["a b", "é", "a/b", &"n".repeat(NodeName::BYTES_MAX + 1)] {
            assert_eq!(NodeName::parse(name), None, "{name}");
        }
    }
}
