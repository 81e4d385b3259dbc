//! Writing slices to a TCP socket by the cheapest call that takes them.
//!
//! Invariant: what is written is the beginning of the slices, in their order, whichever call it is.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

/// Bytes of several slices that are put together before they are written, at most. For so few a `send` of one piece and
/// the copy cost less than a `writev`, which has its list of slices checked and copied by the kernel.
const JOINED_BYTES_MAX: usize = 1024;

/// Writes as much of `slices` as the socket takes now.
pub(super) fn poll_send(
    stream: &mut TcpStream,
    cx: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [slice] = slices {
        return Pin::new(stream).poll_write(cx, slice);
    }
    let mut joined = [0; JOINED_BYTES_MAX];
    match join(slices, &mut joined) {
        Some(bytes) => Pin::new(stream).poll_write(cx, bytes),
        None => Pin::new(stream).poll_write_vectored(cx, slices),
    }
}

/// All of `slices` in one piece, if there is room for that.
fn join<'a>(slices: &[IoSlice<'_>], room: &'a mut [u8; JOINED_BYTES_MAX]) -> Option<&'a [u8]> {
    let mut end = 0;
    for slice in slices {
        room.get_mut(end..end + slice.len())?.copy_from_slice(slice);
        end += slice.len();
    }
    Some(&room[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_joined_in_their_order_as_far_as_there_is_room() {
        let mut room = [0; JOINED_BYTES_MAX];
        let slices = [b"head".as_slice(), b"", b"message", b"ping"].map(IoSlice::new);
        assert_eq!(join(&slices, &mut room), Some(b"headmessageping".as_slice()));
        let full = [7; JOINED_BYTES_MAX];
        assert_eq!(join(&[IoSlice::new(&full)], &mut room), Some(full.as_slice()));
        assert_eq!(join(&[IoSlice::new(&full), IoSlice::new(b"1")], &mut room), None);
    }
}
