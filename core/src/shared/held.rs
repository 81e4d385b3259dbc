//! The bytes of a stream's messages, counted once each, for as long as anything holds a part of them.
//!
//! A message is held by the ring and by the pipe of each viewer that has taken it and not passed it on; its memory goes
//! with the last of them, on whichever thread that is. Viewers' pipes charge nothing for it
//! ([`crate::pipe::Input::Common`]). Invariant: what is counted is what is allocated, and a message that is gone is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;

use super::charge;

/// What one stream's messages take together.
#[derive(Clone, Debug, Default)]
pub struct Held(Arc<AtomicUsize>);

/// A message, and where it is counted.
struct Counted {
    message: Bytes,
    held: Held,
}

impl Held {
    /// The same `message`, counted until the last part of it is dropped.
    #[must_use]
    pub fn count(&self, message: Bytes) -> Bytes {
        self.0.fetch_add(charge(&message), Relaxed);
        Bytes::from_owner(Counted { message, held: self.clone() })
    }

    /// What all of them are charged now, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.load(Relaxed)
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.message
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.held.0.fetch_sub(charge(&self.message), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_counted_once_until_the_last_part_of_it_is_gone() {
        let held = Held::default();
        let message = held.count(Bytes::from_static(b"a frame of a video"));
        let all = held.bytes();
        assert_eq!(all, charge(&message));
        let part = message.slice(2..3);
        let another = message.clone();
        drop((message, another));
        assert_eq!((held.bytes(), &part[..]), (all, &b"f"[..]));
        drop(part);
        assert_eq!(held.bytes(), 0);
    }
}
