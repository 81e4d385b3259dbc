//! The end of a connection whose client may still be sending (RFC 9112 section 9.6).
//!
//! A socket that is closed with bytes unread is reset, and a reset throws away what the client has not read yet: the
//! answer that told it to stop. So our side is closed first, and what still comes is read and forgotten until the client
//! closes its own, within [`LingerLimits`].

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// How much of what a client sends behind its answer is read and forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LingerLimits {
    /// For so long.
    pub time: Duration,
    /// So many bytes.
    pub bytes_max: u64,
}

impl LingerLimits {
    /// The same with no more than so many bytes.
    #[must_use]
    pub fn at_most(self, bytes: u64) -> Self {
        Self { bytes_max: self.bytes_max.min(bytes), ..self }
    }
}

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// Closes our side of `stream` and reads until the client closes its own; false if a limit was met.
pub async fn linger(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), limits: LingerLimits) -> bool {
    // A peer that is gone already has got what it could.
    if stream.shutdown().await.is_err() {
        return true;
    }
    let discard = async {
        let mut forgotten = vec![0; READ_BYTES];
        let mut left = limits.bytes_max;
        loop {
            match stream.read(&mut forgotten).await {
                Ok(0) | Err(_) => return true,
                Ok(read) => match left.checked_sub(read as u64) {
                    Some(rest) => left = rest,
                    None => return false,
                },
            }
        }
    };
    tokio::time::timeout(limits.time, discard).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    const LIMITS: LingerLimits = LingerLimits { time: Duration::from_secs(3), bytes_max: 100 };

    #[tokio::test(start_paused = true)]
    async fn a_client_gets_its_answer_and_is_read_to_its_end_within_the_limits() {
        for (sends, ends, expected) in [(0, true, true), (100, true, true), (101, true, false), (100, false, false)] {
            let (mut ours, mut client) = duplex(1000);
            ours.write_all(b"413").await.unwrap();
            client.write_all(&vec![1; sends]).await.unwrap();
            let began = tokio::time::Instant::now();
            let reads = async {
                let mut answer = Vec::new();
                client.read_to_end(&mut answer).await.unwrap();
                assert_eq!(answer, b"413");
                if ends {
                    drop(client);
                    None
                } else {
                    Some(client)
                }
            };
            let (whole, _client) = tokio::join!(linger(&mut ours, LIMITS), reads);
            assert_eq!(whole, expected, "{sends} bytes, {ends}");
            assert_eq!(began.elapsed() == LIMITS.time, !ends);
        }
    }
}
