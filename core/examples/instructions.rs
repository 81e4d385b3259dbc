//! The hot path in small pieces, for `scripts/instructions` to count its instructions under callgrind.
//!
//! Only what happens inside `measured` is counted; what stands for the peers and the kernel is outside. The program
//! prints how many messages the count is to be divided by. A `NAME@SIZE` does the same work over so many bytes: the
//! script fails when a message costs more there than at the smallest size.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdline_core::frame::Side;
use holdline_core::ids::{Attachment, BackendKey, Generation};
use holdline_core::pipe::{Action, Input, LinkLoss, Peer, Pipe};
use holdline_core::settings::{DownPolicy, PipeSettings, ReplayTail};
use holdline_core::time::Time;

/// Messages of one relay: enough for the first one's allocations to be lost in the rest.
const RELAYED: usize = 2000;

/// Payload of the messages that fill a buffer.
const FILLING: usize = 1024;

/// What a full socket takes at once while a replay goes out.
const SOCKET_TAKES: usize = 8 * 1024;

/// From one message to the next.
const STEP: Duration = Duration::from_micros(100);

const SIZES: [(&str, usize); 5] =
    [("1KiB", 1 << 10), ("64KiB", 64 << 10), ("1MiB", 1 << 20), ("4MiB", 4 << 20), ("16MiB", 16 << 20)];

/// Does some messages' work; how many.
type Work = fn() -> usize;
type SizedWork = fn(usize) -> usize;

const PLAIN: [(&str, Work); 9] = [
    ("relay_up_64B", || relay_up(64, false)),
    ("relay_up_1KiB", || relay_up(1 << 10, false)),
    ("relay_up_30KiB", || relay_up(30 << 10, true)),
    ("relay_up_64KiB", || relay_up(64 << 10, true)),
    ("relay_down_64B", || relay_down(64, false)),
    ("relay_down_1KiB", || relay_down(1 << 10, false)),
    ("relay_down_30KiB", || relay_down(30 << 10, true)),
    ("relay_down_64KiB", || relay_down(64 << 10, true)),
    ("open_and_close", open_and_close),
];

const SIZED: [(&str, SizedWork); 6] = [
    ("confirm", confirm),
    ("rewind", rewind),
    ("replay", replay),
    ("relay_over_tail", relay_over_tail),
    ("relay_to_slow_client", relay_to_slow_client),
    ("latest_to_stalled_client", latest_to_stalled_client),
];

fn main() {
    let name = std::env::args().nth(1);
    let all = PLAIN.iter().map(|&(name, work)| (name.to_owned(), Box::new(work) as Box<dyn Fn() -> usize>));
    let sized = SIZED.iter().flat_map(|&(name, work)| {
        SIZES.iter().map(move |&(label, bytes)| {
            (format!("{name}@{label}"), Box::new(move || work(bytes)) as Box<dyn Fn() -> usize>)
        })
    });
    for (known, work) in all.chain(sized) {
        match &name {
            None => println!("{known}"),
            Some(name) if *name == known => println!("messages {}", work()),
            Some(_) => {}
        }
    }
}

/// What callgrind counts: it looks for this function by its name.
#[inline(never)]
fn measured<T>(work: impl FnOnce() -> T) -> T {
    work()
}

struct Rig {
    pipe: Pipe,
    now: Time,
    attachment: Attachment,
    timer_at: Option<Time>,
}

/// What one turn wrote, and the end of what it wrote upwards: a ping, if there was one.
struct Written {
    up: usize,
    down: usize,
    end: [u8; 14],
}

impl Rig {
    fn new(change: impl FnOnce(&mut PipeSettings)) -> Self {
        let mut settings = PipeSettings::default();
        change(&mut settings);
        let now = Time::from_micros(1_000_000);
        Self {
            pipe: Pipe::open(Arc::new(settings), BackendKey(1), 7, now),
            now,
            attachment: Attachment::FIRST,
            timer_at: None,
        }
    }

    fn worker(&self) -> Peer {
        Peer::Backend(self.attachment)
    }

    /// What a driver does between two waits.
    fn turn(&mut self, from: Peer, input: Input<'_>, takes: usize) -> Written {
        self.now = self.now + STEP;
        let (pipe, now) = (&mut self.pipe, self.now);
        if self.timer_at.is_none_or(|at| now >= at) {
            pipe.tick(now);
            self.timer_at = None;
        }
        if pipe.read_budget(Side::Client, usize::MAX) > 0 {
            pipe.set_paused(Side::Client, false, now);
        }
        pipe.receive(from, input, now);
        let (up, end) = write(pipe, Side::Backend, takes, now);
        let (down, _) = write(pipe, Side::Client, takes, now);
        while let Some(action) = pipe.next_action() {
            drop(action);
        }
        std::hint::black_box((pipe.charged_bytes(), pipe.view()));
        let deadline = pipe.deadline();
        if self.timer_at.is_none() || deadline < self.timer_at {
            self.timer_at = deadline;
        }
        Written { up, down, end }
    }

    /// A counted turn with one message of the client, and one with the pong, if there was a ping.
    fn relay_up(&mut self, message: &[u8], share: bool) {
        let shared = Bytes::copy_from_slice(message);
        let input = if share { Input::Share(&shared) } else { Input::Copy(message) };
        let written = measured(|| self.turn(Peer::Client(Generation::FIRST), input, usize::MAX));
        if written.up > message.len() {
            let pong = pong_to(written.end);
            let worker = self.worker();
            measured(|| self.turn(worker, Input::Copy(&pong), usize::MAX));
        } else {
            assert_eq!(written.up, message.len());
        }
    }

    /// Takes in so many bytes of messages, sends them, and leaves them unconfirmed; how many.
    fn fill(&mut self, bytes: usize) -> usize {
        let message = masked(FILLING);
        let count = (bytes / FILLING).max(1);
        for _ in 0..count {
            self.turn(Peer::Client(Generation::FIRST), Input::Copy(&message), usize::MAX);
        }
        count
    }
}

fn write(pipe: &mut Pipe, side: Side, takes: usize, now: Time) -> (usize, [u8; 14]) {
    let mut end = [0; 14];
    let mut all = 0;
    while all < takes {
        let gather = pipe.gather(side, now);
        let bytes = gather.len().min(takes - all);
        if let Some(tail) = gather.as_slices().last().and_then(|slice| slice.last_chunk::<14>()) {
            end = *tail;
        }
        if bytes == 0 {
            break;
        }
        pipe.transmitted(side, bytes, now);
        all += bytes;
    }
    (all, end)
}

fn frame(len: usize, masked: bool) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    let mut frame = vec![0x82];
    match u16::try_from(len) {
        Ok(len) if len < 126 => frame.push(mask | len as u8),
        Ok(len) => {
            frame.push(mask | 126);
            frame.extend(len.to_be_bytes());
        }
        Err(_) => {
            frame.push(mask | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend(if masked { &[0; 4][..] } else { &[] });
    frame.resize(frame.len() + len, b'.');
    frame
}

fn masked(len: usize) -> Vec<u8> {
    frame(len, true)
}

/// The answer to a masked ping of eight bytes.
fn pong_to(ping: [u8; 14]) -> Vec<u8> {
    assert_eq!(ping[..2], [0x89, 0x88], "a ping");
    let mut pong = vec![0x8A, 8];
    pong.extend((0..8).map(|at| ping[6 + at] ^ ping[2 + at % 4]));
    pong
}

fn relay_up(len: usize, share: bool) -> usize {
    let mut rig = Rig::new(|_| {});
    let message = masked(len);
    for _ in 0..RELAYED {
        rig.relay_up(&message, share);
    }
    RELAYED
}

fn relay_down(len: usize, share: bool) -> usize {
    let mut rig = Rig::new(|_| {});
    let message = frame(len, false);
    for _ in 0..RELAYED {
        let shared = Bytes::copy_from_slice(&message);
        let input = if share { Input::Share(&shared) } else { Input::Copy(&message) };
        let worker = rig.worker();
        let written = measured(|| rig.turn(worker, input, usize::MAX));
        assert_eq!(written.down, message.len());
    }
    RELAYED
}

/// A pipe that says nothing and is closed by its client.
fn open_and_close() -> usize {
    for _ in 0..RELAYED {
        measured(|| {
            let mut rig = Rig::new(|_| {});
            rig.turn(Peer::Client(Generation::FIRST), Input::Copy(&[0x88, 0x80, 0, 0, 0, 0]), usize::MAX);
            let worker = rig.worker();
            rig.turn(worker, Input::Copy(&[0x88, 0]), usize::MAX);
            drop(rig);
        });
    }
    RELAYED
}

/// One pong confirms all that the buffer holds.
fn confirm(bytes: usize) -> usize {
    let mut rig = Rig::new(|_| {});
    let count = rig.fill(bytes);
    let name = format!("A{count}");
    let mut pong = vec![0x8A, name.len() as u8];
    pong.extend(name.bytes());
    let worker = rig.worker();
    measured(|| rig.turn(worker, Input::Copy(&pong), usize::MAX));
    assert_eq!(rig.pipe.view().up.confirmed.0, count as u64);
    count
}

fn filled_and_lost(bytes: usize) -> (Rig, usize) {
    let mut rig = Rig::new(|settings| settings.replay_bytes_max = 64 << 20);
    let count = rig.fill(bytes);
    (rig, count)
}

fn lose(rig: &mut Rig) -> Attachment {
    let worker = rig.worker();
    rig.pipe.lost(worker, LinkLoss::Eof, rig.now);
    let mut dialled = None;
    while let Some(action) = rig.pipe.next_action() {
        if let Action::Dial(order) = action {
            dialled = Some(order.attachment);
        }
    }
    dialled.expect("a lost worker is replaced")
}

/// The worker is lost and another one attached: everything becomes unsent.
fn rewind(bytes: usize) -> usize {
    let (mut rig, count) = filled_and_lost(bytes);
    measured(|| {
        let attachment = lose(&mut rig);
        assert!(rig.pipe.attached(attachment, BackendKey(2), None, rig.now));
        std::hint::black_box(rig.pipe.view());
    });
    assert_eq!(rig.pipe.view().up.sent.0, 0);
    count
}

/// Everything goes out again, as a slow worker takes it.
fn replay(bytes: usize) -> usize {
    let (mut rig, count) = filled_and_lost(bytes);
    rig.attachment = lose(&mut rig);
    assert!(rig.pipe.attached(rig.attachment, BackendKey(2), None, rig.now));
    while rig.pipe.view().up.sent.0 < count as u64 {
        measured(|| write(&mut rig.pipe, Side::Backend, SOCKET_TAKES, rig.now));
        while rig.pipe.next_action().is_some() {}
    }
    count
}

/// Relay while so many confirmed bytes are kept as a tail.
fn relay_over_tail(bytes: usize) -> usize {
    let mut rig = Rig::new(|settings| settings.replay_tail = ReplayTail { bytes, ..ReplayTail::default() });
    let count = rig.fill(bytes);
    let name = format!("A{count}");
    let mut pong = vec![0x8A, name.len() as u8];
    pong.extend(name.bytes());
    let worker = rig.worker();
    rig.turn(worker, Input::Copy(&pong), usize::MAX);
    let message = masked(FILLING);
    // The ping that was outstanding is not answered, so each message is confirmed by the application.
    for seq in count + 1..=count + RELAYED {
        let name = format!("A{seq}");
        let mut pong = vec![0x8A, name.len() as u8];
        pong.extend(name.bytes());
        measured(|| rig.turn(Peer::Client(Generation::FIRST), Input::Copy(&message), usize::MAX));
        measured(|| rig.turn(worker, Input::Copy(&pong), usize::MAX));
    }
    assert_eq!(rig.pipe.view().up.confirmed.0, (count + RELAYED) as u64);
    RELAYED
}

/// A client that takes as much as its worker says, but always has so many bytes waiting for it.
fn relay_to_slow_client(bytes: usize) -> usize {
    let mut rig = Rig::new(|_| {});
    let message = frame(FILLING, false);
    let worker = rig.worker();
    for _ in 0..bytes / FILLING {
        rig.turn(worker, Input::Copy(&message), 0);
    }
    for _ in 0..RELAYED {
        measured(|| rig.turn(worker, Input::Copy(&message), message.len()));
    }
    RELAYED
}

/// A client that stopped amid a message, while newer ones take the place of older ones.
fn latest_to_stalled_client(bytes: usize) -> usize {
    let one = std::num::NonZeroU32::MIN;
    let mut rig = Rig::new(|settings| settings.down = DownPolicy::Latest(one));
    let message = frame(FILLING, false);
    let worker = rig.worker();
    rig.turn(worker, Input::Copy(&message), FILLING / 2);
    for _ in 0..bytes / FILLING {
        rig.turn(worker, Input::Copy(&message), 0);
    }
    for _ in 0..RELAYED {
        measured(|| rig.turn(worker, Input::Copy(&message), 0));
    }
    RELAYED
}
