//! What workers write to stdout and stderr, as lines of the log.
//!
//! Bounded: [`LINE_BYTES_MAX`] of a line and [`LINES_PER_SECOND`] of one worker; the rest is dropped, counted and told.
//! A worker never waits for the log.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntCounter;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// Bytes of one line that are logged.
pub const LINE_BYTES_MAX: usize = 8 * 1024;

/// Lines of one worker that are logged in a second.
pub const LINES_PER_SECOND: u64 = 1000;

/// How one worker's lines are logged; its streams share it.
#[derive(Debug)]
pub(super) struct Output {
    worker: Arc<str>,
    rate: Mutex<Rate>,
    dropped: IntCounter,
}

/// The lines of the second that runs.
#[derive(Debug)]
struct Rate {
    since: Instant,
    lines: u64,
    dropped: u64,
}

impl Rate {
    /// Whether another line may be logged, and how many were dropped in the second before if it begins a new one.
    fn take(&mut self, now: Instant) -> (bool, u64) {
        let mut told = 0;
        if now.duration_since(self.since) >= Duration::from_secs(1) {
            told = self.dropped;
            (self.since, self.lines, self.dropped) = (now, 0, 0);
        }
        let fits = self.lines < LINES_PER_SECOND;
        if fits {
            self.lines += 1;
        } else {
            self.dropped += 1;
        }
        (fits, told)
    }
}

impl Output {
    /// Of the worker of this id, where what is dropped is counted.
    pub(super) fn new(worker: Arc<str>, dropped: IntCounter) -> Arc<Self> {
        let rate = Mutex::new(Rate { since: Instant::now(), lines: 0, dropped: 0 });
        Arc::new(Self { worker, rate, dropped })
    }

    /// Logs what comes from `from` until its end.
    pub(super) async fn relay(self: Arc<Self>, stream: &'static str, from: impl AsyncRead + Unpin) {
        let mut from = BufReader::with_capacity(LINE_BYTES_MAX, from);
        let mut line = Vec::new();
        // What cannot be read any more has ended.
        while let Ok(Some(cut)) = next_line(&mut from, &mut line).await {
            self.say(stream, &line, cut);
        }
        let dropped = std::mem::take(&mut self.rate.lock().unwrap_or_else(PoisonError::into_inner).dropped);
        self.tell(dropped);
    }

    fn say(&self, stream: &'static str, line: &[u8], cut: bool) {
        let (fits, dropped) = self.rate.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
        self.tell(dropped);
        if fits {
            let (worker, line) = (&*self.worker, String::from_utf8_lossy(line));
            tracing::info!(worker, stream, cut, line = &*line, "worker.output");
        } else {
            self.dropped.inc();
        }
    }

    fn tell(&self, dropped: u64) {
        if dropped > 0 {
            tracing::warn!(worker = &*self.worker, lines = dropped, "worker.output_dropped");
        }
    }
}

/// Reads a line without its end, at most [`LINE_BYTES_MAX`] of it; whether it was longer, or nothing at the end of all.
async fn next_line(from: &mut BufReader<impl AsyncRead + Unpin>, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
    line.clear();
    let mut cut = false;
    let mut any = false;
    loop {
        let bytes = from.fill_buf().await?;
        if bytes.is_empty() {
            return Ok(any.then_some(cut));
        }
        any = true;
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let (part, used) = end.map_or((bytes, bytes.len()), |end| (&bytes[..end], end + 1));
        let room = LINE_BYTES_MAX - line.len();
        cut |= part.len() > room;
        line.extend_from_slice(&part[..part.len().min(room)]);
        from.consume(used);
        if end.is_some() {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            return Ok(Some(cut));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(text: &[u8]) -> Vec<(Vec<u8>, bool)> {
        let mut from = BufReader::with_capacity(LINE_BYTES_MAX, text);
        let (mut line, mut lines) = (Vec::new(), Vec::new());
        while let Some(cut) = next_line(&mut from, &mut line).await.unwrap() {
            lines.push((line.clone(), cut));
        }
        lines
    }

    #[tokio::test]
    async fn lines_are_cut_at_their_bound_and_the_next_one_is_whole() {
        let long = vec![b'x'; 3 * LINE_BYTES_MAX];
        let text = [b"a\r\n\n", &long[..LINE_BYTES_MAX], b"\n", &long, b"\nlast"].concat();
        let lines = lines(&text).await;
        let lengths: Vec<_> = lines.iter().map(|(line, cut)| (line.len(), *cut)).collect();
        assert_eq!(lengths, [(1, false), (0, false), (LINE_BYTES_MAX, false), (LINE_BYTES_MAX, true), (4, false)]);
        assert_eq!(lines[4].0, b"last");
    }

    #[test]
    fn more_lines_than_a_second_has_are_dropped_and_told_in_the_next() {
        let start = Instant::now();
        let mut rate = Rate { since: start, lines: 0, dropped: 0 };
        let taken = (0..LINES_PER_SECOND + 7).filter(|_| rate.take(start).0).count();
        assert_eq!(taken as u64, LINES_PER_SECOND);
        assert_eq!(rate.take(start + Duration::from_secs(1)), (true, 7));
        assert_eq!(rate.take(start + Duration::from_secs(2)), (true, 0));
    }
}
