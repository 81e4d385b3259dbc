//! Where log lines go: to stderr, in the order in which they were said.
//!
//! A thread that called [`start_batching`] promises to call [`flush`] whenever it is about to wait, and what it said
//! since the last time leaves in one write. Everything that waits goes at once with a line of any other thread, with a
//! warning or an error, with more than [`PENDING_BYTES_MAX`], and with a line that finds an older one than
//! [`PENDING_MAX`]. Nothing is ever dropped to make room: stderr is waited for.

use std::cell::Cell;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Bytes of lines that wait to be written at most.
const PENDING_BYTES_MAX: usize = 64 * 1024;

/// How long a line waits at most while its thread goes on saying more.
const PENDING_MAX: Duration = Duration::from_millis(100);

static PENDING: Mutex<Pending> = Mutex::new(Pending { lines: Vec::new(), since: None });

thread_local! {
    static BATCHING: Cell<bool> = const { Cell::new(false) };
    /// Whether this thread has said something since it last flushed.
    static SAID: Cell<bool> = const { Cell::new(false) };
}

struct Pending {
    lines: Vec<u8>,
    since: Option<Instant>,
}

impl Pending {
    /// Takes in one line; whether all of them have to go now.
    fn push(&mut self, line: &[u8], now: Instant) -> bool {
        self.lines.extend_from_slice(line);
        let since = *self.since.get_or_insert(now);
        self.lines.len() > PENDING_BYTES_MAX || now.saturating_duration_since(since) > PENDING_MAX
    }

    fn write(&mut self, out: &mut impl Write) -> io::Result<()> {
        let result = out.write_all(&self.lines);
        self.lines.clear();
        self.since = None;
        result
    }
}

/// From now on this thread's lines wait for [`flush`].
pub fn start_batching() {
    BATCHING.set(true);
}

/// Writes what waits; cheap when this thread batches and has said nothing.
pub fn flush() {
    if SAID.replace(false) || !BATCHING.get() {
        // Best effort: stderr is gone, and with it the place to say so.
        let _ = write_all();
    }
}

fn write_all() -> io::Result<()> {
    PENDING.lock().unwrap_or_else(PoisonError::into_inner).write(&mut io::stderr().lock())
}

/// Writes a line that is made already, among the others.
pub fn write_line(line: &str) {
    // Best effort: there is no other place to say it.
    let _ = Line { at_once: !BATCHING.get() }.write(format!("{line}\n").as_bytes());
}

/// Makes a writer for each line.
#[derive(Debug)]
pub(super) struct Lines;

/// One line on its way.
#[derive(Debug)]
pub(super) struct Line {
    at_once: bool,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { at_once: true }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line {
        Line { at_once: *meta.level() <= Level::WARN || !BATCHING.get() }
    }
}

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut pending = PENDING.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.push(line, Instant::now()) || self.at_once {
            pending.write(&mut io::stderr().lock())?;
        } else {
            SAID.set(true);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        write_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_wait_up_to_a_size_and_an_age_and_leave_in_their_order() {
        let mut pending = Pending { lines: Vec::new(), since: None };
        let start = Instant::now();
        assert!(!pending.push(b"one\n", start));
        assert!(!pending.push(b"two\n", start + PENDING_MAX));
        assert!(pending.push(b"three\n", start + PENDING_MAX + Duration::from_millis(1)), "the first is too old");
        let mut out = Vec::new();
        pending.write(&mut out).unwrap();
        assert_eq!(out, b"one\ntwo\nthree\n");
        let later = start + PENDING_MAX * 3;
        assert!(!pending.push(&[b'x'; PENDING_BYTES_MAX], later), "exactly the limit, and the age starts anew");
        assert!(pending.push(b"y", later));
    }

    #[test]
    fn a_broken_stderr_does_not_fill_the_memory() {
        struct Broken;
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut pending = Pending { lines: b"line\n".to_vec(), since: None };
        assert!(pending.write(&mut Broken).is_err());
        assert!(pending.lines.is_empty());
    }
}
