//! Slices to be sealed, cut into pieces that make whole records.

use std::io::IoSlice;

use super::session::RECORD_BYTES;

/// What is left of a list of slices.
#[derive(Debug)]
pub(super) struct Pieces<'a> {
    slices: &'a [IoSlice<'a>],
    /// What is taken of the first one.
    taken: usize,
}

impl<'a> Pieces<'a> {
    pub(super) const fn new(slices: &'a [IoSlice<'a>]) -> Self {
        Self { slices, taken: 0 }
    }

    /// The next piece, of `bytes_max` bytes at most; empty at the end. What would make a short record is put together
    /// with what follows, in `gathered`: a record costs more than a copy.
    pub(super) fn next<'b>(&mut self, bytes_max: usize, gathered: &'b mut Vec<u8>) -> &'b [u8]
    where
        'a: 'b,
    {
        let first = self.first();
        if first.len() >= RECORD_BYTES.min(bytes_max) {
            let bytes = first.len().min(bytes_max);
            // Whole records, so that the rest begins one with what follows.
            let piece = &first[..if bytes > RECORD_BYTES { bytes - bytes % RECORD_BYTES } else { bytes }];
            self.taken += piece.len();
            return piece;
        }
        gathered.clear();
        let room = RECORD_BYTES.min(bytes_max);
        while gathered.len() < room {
            let first = self.first();
            if first.is_empty() {
                break;
            }
            let bytes = first.len().min(room - gathered.len());
            gathered.extend_from_slice(&first[..bytes]);
            self.taken += bytes;
        }
        gathered
    }

    /// What is left of the first slice of which something is.
    fn first(&mut self) -> &'a [u8] {
        while let [slice, rest @ ..] = self.slices {
            let slice: &'a [u8] = slice;
            if self.taken < slice.len() {
                return &slice[self.taken..];
            }
            (self.slices, self.taken) = (rest, 0);
        }
        &[]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_slices_are_put_together_and_long_ones_are_not_copied() {
        let long = vec![7; 3 * RECORD_BYTES + 5];
        let slices: Vec<&[u8]> = vec![b"head", b"", &long, b"tail"];
        let slices: Vec<_> = slices.into_iter().map(IoSlice::new).collect();
        let (mut pieces, mut gathered, mut sizes, mut all) = (Pieces::new(&slices), Vec::new(), Vec::new(), Vec::new());
        loop {
            let piece = pieces.next(64 * 1024, &mut gathered);
            if piece.is_empty() {
                break;
            }
            sizes.push(piece.len());
            all.extend_from_slice(piece);
        }
        assert_eq!(sizes, [RECORD_BYTES, 2 * RECORD_BYTES, 13]);
        assert_eq!(all, [b"head".as_slice(), &long, b"tail"].concat());
    }

    #[test]
    fn no_piece_is_longer_than_it_may_be() {
        let slice = [IoSlice::new(b"twelve bytes")];
        let (mut pieces, mut gathered) = (Pieces::new(&slice), Vec::new());
        assert_eq!(pieces.next(5, &mut gathered), b"twelv");
        assert_eq!(pieces.next(5, &mut gathered), b"e byt");
        assert_eq!(pieces.next(5, &mut gathered), b"es");
        assert_eq!(pieces.next(5, &mut gathered), b"");
    }
}
