//! Where log lines go: into a bounded queue, from which a thread of its own writes them to stderr in their order.
//!
//! No other thread ever waits for stderr: a reader that stands still, such as a full pipe of a container's runtime, must
//! not hold up pipes or health answers. What finds no room is dropped and counted, and once the reader goes on, a line
//! says how many records are missing at that place. Invariant: lines that wait and lines that are being written take no
//! more than the bound together.
//!
//! A thread that called [`start_batching`] promises to call [`flush`] whenever it is about to wait, and what it said
//! since the last time wakes the writer once. The writer is woken at once by a line of any other thread, by a warning or
//! an error, by more than [`BATCH_BYTES`], and by a line that finds an older one than [`BATCH_AGE_MAX`]. Behind each batch
//! the writer rests for [`REST`], and only what is to be written at once wakes it then: a thread that opens and closes
//! thousands of pipes a second would wake it as often.

use std::cell::Cell;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Bytes of lines that wait for their thread to rest at most.
const BATCH_BYTES: usize = 64 * 1024;

/// How long a line waits at most while its thread goes on saying more.
const BATCH_AGE_MAX: Duration = Duration::from_millis(100);

/// How long the writer rests behind a batch, unless there is something to be written at once.
const REST: Duration = Duration::from_millis(5);

/// Room that the writer keeps from one batch to the next.
const KEPT_BYTES_MAX: usize = 2 * BATCH_BYTES;

static QUEUE: Mutex<Queue> = Mutex::new(Queue::EMPTY);
/// The writer waits for it.
static WANTED: Condvar = Condvar::new();
/// Those wait for it that want all to be written.
static WRITTEN: Condvar = Condvar::new();
/// Records that were dropped and are not in a metric yet.
static DROPPED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static BATCHING: Cell<bool> = const { Cell::new(false) };
    /// Whether this thread has said something since it last flushed.
    static SAID: Cell<bool> = const { Cell::new(false) };
}

struct Queue {
    bytes_max: usize,
    lines: Vec<u8>,
    /// When the first of them came.
    since: Option<Instant>,
    /// Whether they are to be written now.
    wanted: bool,
    /// Whether that is so although the writer rests.
    urgent: bool,
    /// Whether it does.
    rests: bool,
    /// Bytes that the writer has taken and not written yet.
    in_flight_bytes: usize,
    /// Records that found no room behind these lines.
    dropped: u64,
}

impl Queue {
    const EMPTY: Self = Self {
        bytes_max: 0,
        lines: Vec::new(),
        since: None,
        wanted: false,
        urgent: false,
        rests: false,
        in_flight_bytes: 0,
        dropped: 0,
    };

    /// Takes in one line, if there is room; whether the writer has to be woken now.
    fn push(&mut self, line: &[u8], at_once: bool, now: Instant) -> bool {
        if self.lines.len() + self.in_flight_bytes + line.len() > self.bytes_max {
            self.dropped += 1;
            DROPPED.fetch_add(1, Relaxed);
            return false;
        }
        self.lines.extend_from_slice(line);
        let since = *self.since.get_or_insert(now);
        let is_urgent = at_once || self.lines.len() > BATCH_BYTES;
        self.want(is_urgent || now.saturating_duration_since(since) > BATCH_AGE_MAX, is_urgent)
    }

    /// Has the lines written if they are due; whether the writer has to be woken for that.
    const fn want(&mut self, is_due: bool, is_urgent: bool) -> bool {
        if !is_due || self.lines.is_empty() {
            return false;
        }
        let wakes = if self.rests { is_urgent && !self.urgent } else { !self.wanted };
        self.wanted = true;
        self.urgent |= is_urgent;
        wakes
    }

    /// Gives the lines to the writer, in `batch`; how many records are missing behind them.
    fn take(&mut self, batch: &mut Vec<u8>) -> u64 {
        batch.clear();
        std::mem::swap(&mut self.lines, batch);
        self.in_flight_bytes = batch.len();
        (self.since, self.wanted, self.urgent) = (None, false, false);
        std::mem::take(&mut self.dropped)
    }

    const fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.in_flight_bytes == 0
    }
}

fn queue() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the thread that writes, with room for so many bytes; `missing` makes the line that says how many records were
/// dropped.
///
/// # Errors
/// When there can be no thread.
pub(super) fn start(bytes_max: usize, missing: fn(u64) -> String) -> io::Result<()> {
    queue().bytes_max = bytes_max;
    std::thread::Builder::new().name("log".to_owned()).spawn(move || write_for_ever(missing))?;
    Ok(())
}

fn write_for_ever(missing: fn(u64) -> String) {
    let mut batch = Vec::new();
    loop {
        let dropped = {
            let waiting = WANTED.wait_while(queue(), |queue| !queue.wanted);
            waiting.unwrap_or_else(PoisonError::into_inner).take(&mut batch)
        };
        if dropped > 0 {
            batch.extend_from_slice(missing(dropped).as_bytes());
        }
        let lost = write(&batch, &mut io::stderr());
        DROPPED.fetch_add(lost, Relaxed);
        batch.clear();
        batch.shrink_to(KEPT_BYTES_MAX);
        let mut queue = queue();
        queue.in_flight_bytes = 0;
        // What was dropped meanwhile is told although nothing follows it.
        queue.wanted |= queue.dropped > 0;
        queue.rests = true;
        WRITTEN.notify_all();
        let rested = WANTED.wait_timeout_while(queue, REST, |queue| !queue.urgent);
        rested.unwrap_or_else(PoisonError::into_inner).0.rests = false;
    }
}

/// Writes `batch`; how many of its records were not, because stderr is gone.
fn write(batch: &[u8], out: &mut impl Write) -> u64 {
    let mut rest = batch;
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(written @ 1..) => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => break,
        }
    }
    rest.iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// How many records were dropped since this was last asked.
#[must_use]
pub fn take_dropped() -> u64 {
    DROPPED.swap(0, Relaxed)
}

/// From now on this thread's lines wait for [`flush`].
pub fn start_batching() {
    BATCHING.set(true);
}

/// Has written what waits, without waiting for it; cheap when this thread has said nothing.
pub fn flush() {
    if SAID.replace(false) && queue().want(true, false) {
        WANTED.notify_one();
    }
}

/// Waits until everything is written, or for `patience`: before the process ends.
pub fn finish(patience: Duration) {
    let mut queue = queue();
    if queue.want(true, true) {
        WANTED.notify_one();
    }
    // What is not written by then is lost: its reader stands still.
    drop(WRITTEN.wait_timeout_while(queue, patience, |queue| !queue.is_empty()));
}

/// Writes a line that is made already, among the others.
pub fn write_line(line: &str) {
    put(format!("{line}\n").as_bytes(), !BATCHING.get());
}

fn put(line: &[u8], at_once: bool) {
    if queue().push(line, at_once, Instant::now()) {
        WANTED.notify_one();
    }
    if !at_once {
        SAID.set(true);
    }
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
        put(line, self.at_once);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_MAX: usize = 4 * BATCH_BYTES;

    fn empty() -> Queue {
        Queue { bytes_max: BYTES_MAX, ..Queue::EMPTY }
    }

    #[test]
    fn lines_wait_up_to_a_size_and_an_age_and_leave_in_their_order() {
        let (mut queue, mut batch) = (empty(), Vec::new());
        let start = Instant::now();
        assert!(!queue.push(b"one\n", false, start));
        assert!(!queue.push(b"two\n", false, start + BATCH_AGE_MAX));
        let later = start + BATCH_AGE_MAX + Duration::from_millis(1);
        assert!(queue.push(b"three\n", false, later), "the first is too old");
        assert!(!queue.push(b"four\n", true, later), "the writer is awake");
        assert_eq!(queue.take(&mut batch), 0);
        assert_eq!(batch, b"one\ntwo\nthree\nfour\n");
        let later = start + BATCH_AGE_MAX * 3;
        assert!(!queue.push(&[b'x'; BATCH_BYTES], false, later), "exactly the limit, and the age starts anew");
        assert!(queue.push(b"y", false, later));
    }

    #[test]
    fn a_writer_that_rests_is_woken_once_and_only_for_what_is_urgent() {
        let (mut queue, now) = (empty(), Instant::now());
        queue.rests = true;
        queue.push(b"one\n", false, now);
        assert!(!queue.want(true, false), "it comes by itself");
        assert!(queue.wanted && !queue.urgent);
        assert!(queue.push(b"warning\n", true, now) && queue.urgent);
        assert!(!queue.push(b"warning\n", true, now), "it is awake");
        queue.take(&mut Vec::new());
        assert!(!queue.wanted && !queue.urgent);
        assert!(queue.push(&[b'x'; BATCH_BYTES + 1], false, now));
    }

    #[test]
    fn a_line_that_finds_no_room_is_dropped_and_counted_where_it_is_missing() {
        let (mut queue, mut batch) = (empty(), Vec::new());
        let now = Instant::now();
        let half = vec![b'x'; BYTES_MAX / 2];
        queue.push(&half, true, now);
        assert_eq!(queue.take(&mut batch), 0);
        queue.push(&half, true, now);
        assert_eq!(queue.lines.len(), BYTES_MAX / 2, "what is being written counts, and together they just fit");
        for _ in 0..3 {
            assert!(!queue.push(b"lost\n", true, now));
        }
        queue.in_flight_bytes = 0;
        assert_eq!(queue.take(&mut batch), 3);
        assert_eq!(batch.len(), BYTES_MAX / 2);
        queue.in_flight_bytes = 0;
        assert!(queue.push(b"kept\n", true, now));
        assert_eq!((queue.take(&mut batch), &*batch), (0, &b"kept\n"[..]));
    }

    #[test]
    fn records_that_a_broken_stderr_does_not_take_are_counted() {
        struct Broken(usize);
        impl Write for Broken {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let taken = self.0.min(bytes.len());
                self.0 -= taken;
                if taken == 0 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(taken) }
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert_eq!(write(b"one\ntwo\n", &mut Broken(0)), 2);
        assert_eq!(write(b"one\ntwo\n", &mut Broken(4)), 1);
        assert_eq!(write(b"one\ntwo\n", &mut Broken(8)), 0);
    }
}
