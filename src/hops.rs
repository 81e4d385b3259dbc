//! Which Holdlines a request has been through: how one finds that its own backends lead back to it.
//!
//! Each process has an id of its own, made up when it is first needed, and adds it to the `Holdline-Hops` of every request
//! that it sends to a worker. Other proxies pass the header on, so that a loop shows however long it is. Invariant: what a
//! client sends under that name goes on only if it is a list of such ids, and not a long one. `Via` (RFC 9110 section
//! 7.6.3) would say the same, but servers stop compressing for a request that has it.

use std::sync::LazyLock;

use http::{HeaderMap, HeaderName};

/// The header.
pub static HOPS: HeaderName = HeaderName::from_static("holdline-hops");

/// Hops that a request may have behind it.
pub const HOPS_MAX: usize = 16;

/// Digits of an id.
const ID_DIGITS: usize = 16;

static OWN: LazyLock<String> = LazyLock::new(|| format!("{:016x}", rand::random::<u64>()));

/// What is wrong with the way of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Astray {
    /// It has been here before.
    Loop,
    /// It has been through more than [`HOPS_MAX`] others.
    TooMany,
    /// The header is not one of ours.
    Malformed,
}

/// This process's id.
#[must_use]
pub fn own_id() -> &'static str {
    &OWN
}

/// Judges the way that a request with these headers has had.
///
/// # Errors
/// When it must not go on.
pub fn judge(headers: &HeaderMap) -> Result<(), Astray> {
    let mut count = 0;
    for line in headers.get_all(&HOPS) {
        for id in line.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            if id.len() != ID_DIGITS || !id.iter().all(u8::is_ascii_hexdigit) {
                return Err(Astray::Malformed);
            }
            if id == OWN.as_bytes() {
                return Err(Astray::Loop);
            }
            count += 1;
        }
    }
    if count > HOPS_MAX { Err(Astray::TooMany) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn judged(lines: &[&str]) -> Result<(), Astray> {
        judge(&lines.iter().map(|line| (HOPS.clone(), HeaderValue::from_str(line).unwrap())).collect())
    }

    #[test]
    fn a_request_that_was_here_before_is_known_wherever_it_went_since() {
        let other = "0123456789abcdef";
        assert_eq!(judged(&[]), Ok(()));
        assert_eq!(judged(&[other, other]), Ok(()));
        assert_eq!(judged(&[own_id()]), Err(Astray::Loop));
        assert_eq!(judged(&[other, &format!("{other}, {},{other}", own_id())]), Err(Astray::Loop));
    }

    #[test]
    fn only_a_short_list_of_ids_passes() {
        let other = "0123456789abcdef";
        for bad in ["", "x", "0123456789abcde", "0123456789abcdeg", "0123456789abcdef,", "*"] {
            assert_eq!(judged(&[bad]), Err(Astray::Malformed), "{bad}");
        }
        for (count, sound) in [(HOPS_MAX, Ok(())), (HOPS_MAX + 1, Err(Astray::TooMany))] {
            assert_eq!(judged(&vec![other; count]), sound, "{count}");
        }
    }
}
