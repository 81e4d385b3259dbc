//! A hash of pipes' names for their table: the names are drawn at random here, so that a part of one is as good as any.
//!
//! Refuses anything else as a key: what strangers choose needs a hash that they cannot foresee.

use std::hash::{BuildHasherDefault, Hasher};

/// Makes the hashes.
pub(super) type ByName = BuildHasherDefault<NameHasher>;

/// The last eight bytes of a name.
#[derive(Debug, Default)]
pub(super) struct NameHasher(u64);

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last_chunk() {
            self.0 = u64::from_le_bytes(*last);
        }
    }

    /// The length, which is that of all.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use holdline_core::ids::PipeId;

    use super::*;

    #[test]
    fn names_that_differ_only_in_what_the_shard_is_chosen_by_are_the_only_ones_with_one_hash() {
        let hash = |bytes: [u8; 16]| ByName::default().hash_one(PipeId::from_bytes(bytes));
        assert_eq!(hash([7; 16]), u64::from_le_bytes([7; 8]));
        for at in 8..16 {
            let mut other = [7; 16];
            other[at] = 8;
            assert_ne!(hash(other), hash([7; 16]), "{at}");
        }
    }
}
