//! Properties that hold for any input: the assembler, the replay buffer, and a pipe under any sequence of calls.
//!
//! `PROPTEST_CASES=100000 cargo test -p holdline-core --test properties` explores; what it finds is kept beside this
//! file by proptest. `corpus/frames.hex` holds inputs that are fed to everything that reads bytes, one a line.
#![allow(clippy::unwrap_used)]

mod buffer;
#[path = "../common/wire.rs"]
mod wire;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdline_core::assembler::{Assembler, MessageLimits, Refused, Step};
use holdline_core::close::CloseFrame;
use holdline_core::frame::{Opcode, Side};
use holdline_core::ids::{Attachment, BackendKey, Generation, Seq};
use holdline_core::pipe::{Action, Cause, DialFailure, EndedBy, Input, LinkLoss, Peer, Pipe, PipeState, ResumeAnswer};
use holdline_core::settings::{DownPolicy, OnTooBig, OverflowPolicy, PipeSettings, ReplayPolicy, ReplayTail};
use holdline_core::snapshot::Snapshot;
use holdline_core::time::Time;
use proptest::prelude::*;

const LIMITS: MessageLimits = MessageLimits { bytes_max: 70_000, fragments_max: 6, on_too_big: OnTooBig::Close };

/// What an assembler makes of bytes: whole messages as they came, control frames, and a verdict.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Made {
    messages: Vec<(Vec<u8>, usize)>,
    controls: Vec<(Opcode, Vec<u8>)>,
    skipped: usize,
    refused: Option<Refused>,
}

/// A fresh assembler, with compressed messages allowed or not.
fn assembler(side: Side, compressed: bool) -> Assembler {
    let assembler = Assembler::new(side);
    if compressed { assembler.with_compressed() } else { assembler }
}

/// `runs` takes whole messages by themselves where there are some, and must make no difference.
fn assemble<'a>(
    mut assembler: Assembler,
    limits: MessageLimits,
    runs: bool,
    chunks: impl Iterator<Item = &'a [u8]>,
) -> Made {
    let (mut made, mut open) = (Made::default(), Vec::new());
    for mut chunk in chunks {
        while !chunk.is_empty() {
            if runs {
                let mut at = 0;
                let taken = assembler.whole_messages(chunk, limits, |message| {
                    let end = at + message.wire_bytes as usize;
                    made.messages.push((chunk[at..end].to_vec(), message.payload_bytes as usize));
                    at = end;
                });
                assert_eq!(taken, at);
                chunk = &chunk[taken..];
                if chunk.is_empty() {
                    break;
                }
            }
            let (len, ended) = match assembler.step(chunk, limits) {
                Ok(Step::Data { len, ended }) => {
                    open.extend_from_slice(&chunk[..len]);
                    (len, ended)
                }
                Ok(Step::Header { header, header_len, len, ended }) => {
                    open.extend_from_slice(&header[..header_len]);
                    (len, ended)
                }
                Ok(Step::Control { control, len }) => {
                    made.controls.push((control.opcode, control.payload().to_vec()));
                    (len, None)
                }
                Ok(Step::Skipped { len, ended }) => {
                    open.clear();
                    made.skipped += usize::from(ended);
                    (len, None)
                }
                Ok(Step::Starved) => (chunk.len(), None),
                Err(refused) => return Made { refused: Some(refused), ..made },
            };
            if let Some(message) = ended {
                assert_eq!(message.wire_bytes as usize, open.len());
                made.messages.push((std::mem::take(&mut open), message.payload_bytes as usize));
            }
            assert!(assembler.open_payload_bytes() <= LIMITS.bytes_max);
            chunk = &chunk[len..];
        }
    }
    made
}

fn cut<'a>(bytes: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = bytes;
    let mut sizes = sizes.iter().cycle();
    std::iter::from_fn(move || {
        let len = (*sizes.next()?).clamp(1, rest.len().max(1));
        let chunk = rest.get(..len.min(rest.len())).filter(|chunk| !chunk.is_empty())?;
        rest = &rest[len..];
        Some(chunk)
    })
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Client), Just(Side::Backend)]
}

/// Frames that are right, mostly, and one time in a while anything at all.
fn stream(side: Side) -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        8 => Just(0x81_u8), 8 => Just(0x82), 3 => Just(0x01), 4 => Just(0x00), 4 => Just(0x80), 3 => Just(0x89),
        3 => Just(0x8A), 1 => Just(0x88), 2 => Just(0xC1), 1 => Just(0x42), 1 => any::<u8>(),
    ];
    let len = prop_oneof![6 => 0..20_usize, 2 => 100..300_usize, 1 => 65_530..65_541_usize];
    let frame = (first, len, any::<[u8; 4]>(), any::<u8>()).prop_map(move |(first, len, mask, fill)| {
        wire::frame(
            first,
            &vec![fill; if first & 8 == 0 { len } else { len % 126 }],
            (side == Side::Client).then_some(mask),
        )
    });
    proptest::collection::vec(frame, 0..12).prop_map(|frames| frames.concat())
}

fn any_bytes() -> impl Strategy<Value = (Side, Vec<u8>)> {
    prop_oneof![
        side().prop_flat_map(|side| (Just(side), stream(side))),
        (side(), proptest::collection::vec(any::<u8>(), 0..300)),
    ]
}

fn corpus() -> Vec<Vec<u8>> {
    include_str!("../corpus/frames.hex")
        .lines()
        .map(|line| line.split('#').next().unwrap_or("").split_whitespace().collect::<String>())
        .filter(|line| !line.is_empty())
        .map(|line| (0..line.len() / 2).map(|at| u8::from_str_radix(&line[2 * at..2 * at + 2], 16).unwrap()).collect())
        .collect()
}

fn is_the_same_however_it_is_cut(side: Side, bytes: &[u8], sizes: &[usize]) {
    let small = MessageLimits { bytes_max: 200, on_too_big: OnTooBig::Drop, ..LIMITS };
    for (limits, compressed) in [(LIMITS, false), (small, false), (LIMITS, true), (small, true)] {
        let fresh = || assembler(side, compressed);
        let whole = assemble(fresh(), limits, false, std::iter::once(bytes));
        for runs in [false, true] {
            assert_eq!(whole, assemble(fresh(), limits, runs, cut(bytes, sizes)));
            assert_eq!(whole, assemble(fresh(), limits, runs, bytes.chunks(1)));
            assert_eq!(whole, assemble(fresh(), limits, runs, std::iter::once(bytes)));
        }
    }
}

#[test]
fn the_corpus_is_the_same_however_it_is_cut_and_breaks_no_pipe() {
    for bytes in corpus() {
        for side in [Side::Client, Side::Backend] {
            is_the_same_however_it_is_cut(side, &bytes, &[1, 3, 2, 7]);
        }
        let ops = [Op::Client(bytes.clone()), Op::Worker(bytes), Op::Move(usize::MAX), Op::Wait(100_000)];
        for compressed in [false, true] {
            run_pipe(PipeSettings::default(), compressed, &ops);
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_mean_the_same_however_they_are_cut(
        (side, bytes) in any_bytes(),
        sizes in proptest::collection::vec(1..80_usize, 1..20),
    ) {
        is_the_same_however_it_is_cut(side, &bytes, &sizes);
    }

    #[test]
    fn a_second_reader_finds_the_same_messages(
        payloads in proptest::collection::vec((0..4_u8, proptest::collection::vec(any::<u8>(), 0..400), 0..4_usize), 0..20),
        sizes in proptest::collection::vec(1..200_usize, 1..20),
    ) {
        let mut bytes = Vec::new();
        for (kind, payload, cuts) in &payloads {
            let (mut first, sent) = match kind {
                0 | 1 => (kind + 1, payload.clone()),
                _ => wire::compressed(kind - 1, payload),
            };
            let mut rest = &sent[..];
            for _ in 0..*cuts {
                let (now, later) = rest.split_at(rest.len() / 2);
                bytes.extend(wire::frame(first, now, Some([7, 7, 1, 0])));
                (first, rest) = (0, later);
            }
            bytes.extend(wire::frame(0x80 | first, rest, Some([1, 2, 3, 4])));
        }
        let made = assemble(assembler(Side::Client, true), LIMITS, true, cut(&bytes, &sizes));
        prop_assert_eq!(made.refused, None);
        let mut reader = wire::Reader::new(true);
        let items: Vec<_> = made.messages.iter().flat_map(|(bytes, _)| reader.read(bytes)).collect();
        let said: Vec<_> = payloads
            .into_iter()
            .map(|(kind, payload, _)| if kind % 2 == 0 { wire::Item::Text(payload) } else { wire::Item::Binary(payload) })
            .collect();
        prop_assert_eq!(items, said);
    }
}

/// A call of the pipe, with arguments that a driver might pass, or should not.
#[derive(Clone, Debug)]
enum Op {
    Client(Vec<u8>),
    Worker(Vec<u8>),
    OldWorker(u64, Vec<u8>),
    Move(usize),
    LoseClient,
    LoseWorker,
    LoseOld(u64),
    Attach(u64, u8),
    FailDial(u8),
    PoolChanged,
    Leave,
    HandOver,
    Close,
    Pause(bool, bool),
    Wait(u64),
    Freeze(u64, u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => stream(Side::Client).prop_map(Op::Client),
        6 => stream(Side::Backend).prop_map(Op::Worker),
        1 => proptest::collection::vec(any::<u8>(), 0..40).prop_map(Op::Client),
        1 => proptest::collection::vec(any::<u8>(), 0..40).prop_map(Op::Worker),
        1 => (0..5_u64, stream(Side::Backend)).prop_map(|(which, bytes)| Op::OldWorker(which, bytes)),
        6 => prop_oneof![Just(usize::MAX), 0..400_usize].prop_map(Op::Move),
        1 => Just(Op::LoseClient),
        3 => Just(Op::LoseWorker),
        1 => (0..5_u64).prop_map(Op::LoseOld),
        5 => (0..3_u64, 0..6_u8).prop_map(|(backend, resume)| Op::Attach(backend, resume)),
        2 => (0..5_u8).prop_map(Op::FailDial),
        1 => Just(Op::PoolChanged),
        1 => Just(Op::Leave),
        2 => Just(Op::HandOver),
        1 => Just(Op::Close),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(client, paused)| Op::Pause(client, paused)),
        4 => prop_oneof![0..2_000_u64, 0..12_000_000_u64].prop_map(Op::Wait),
        2 => (0..30_000_000_u64, 0..3_000_000_u64).prop_map(|(clock, took)| Op::Freeze(clock, took)),
    ]
}

fn settings() -> impl Strategy<Value = PipeSettings> {
    let replay = prop_oneof![Just(ReplayPolicy::Unsent), Just(ReplayPolicy::Unconfirmed), Just(ReplayPolicy::None)];
    let overflow = prop_oneof![Just(OverflowPolicy::Pause), Just(OverflowPolicy::Close)];
    let down = prop_oneof![Just(DownPolicy::Keep), Just(DownPolicy::Latest(2.try_into().unwrap()))];
    (replay, overflow, down, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(replay, overflow, down, small, tail, delay)| PipeSettings {
            replay,
            overflow,
            down,
            replay_bytes_max: if small { 100 } else { 1 << 20 },
            replay_tail: ReplayTail { messages: if tail { 2 } else { 0 }, ..ReplayTail::default() },
            replay_delay: Duration::from_millis(if delay { 500 } else { 0 }),
            fragments_max: 6,
            message_bytes_max: 70_000,
            ..PipeSettings::default()
        },
    )
}

struct Bare {
    pipe: Pipe,
    pipe_settings: Arc<PipeSettings>,
    now: Time,
    current: Option<Attachment>,
    held: Option<Attachment>,
    dialing: Option<Attachment>,
    finished: bool,
}

impl Bare {
    fn act(&mut self) {
        while let Some(action) = self.pipe.next_action() {
            assert!(!self.finished, "{action:?} behind the end");
            match action {
                Action::Dial(order) => self.dialing = Some(order.attachment),
                Action::CancelDial(attachment) => {
                    assert_eq!(self.dialing.take(), Some(attachment));
                }
                Action::TakeOver(attachment) => {
                    assert_eq!(self.current, None, "two links at once");
                    assert_eq!(self.held.take(), Some(attachment));
                    self.current = Some(attachment);
                }
                Action::DropBackend { attachment, .. } => {
                    let dropped = self.current.take_if(|it| *it == attachment).or_else(|| self.held.take());
                    assert_eq!(dropped, Some(attachment));
                }
                Action::Finish => self.finished = true,
                Action::Foretell { .. } | Action::ShutdownClient | Action::DropClient { .. } | Action::Report(_) => {}
            }
        }
    }

    fn shift(&mut self, room: usize) {
        for side in [Side::Backend, Side::Client] {
            for _ in 0..100 {
                let wants = self.pipe.wants_write(side, self.now);
                let due = self.pipe.gather(side, self.now).len();
                assert_eq!(wants, due > 0, "what is due and what is given differ");
                let taken = due.min(room);
                if taken == 0 {
                    break;
                }
                self.pipe.transmitted(side, taken, self.now);
                self.act();
            }
        }
    }

    fn wait(&mut self, micros: u64) {
        self.now = self.now + Duration::from_micros(micros);
        for round in 0.. {
            assert!(round < 50, "it spins");
            if self.pipe.deadline().is_none_or(|at| at > self.now) {
                return;
            }
            self.pipe.tick(self.now);
            self.act();
            self.shift(usize::MAX);
        }
    }

    /// Hands the pipe to a process whose clock shows another time, which takes a while.
    fn freeze(&mut self, clock: u64, took: u64) {
        if self.finished {
            return;
        }
        let (before, dialed) = (self.pipe.view(), self.dialing.is_some());
        // A link that waits stays behind; whether another is dialled depends on what the old worker was told.
        let held = self.held.take().is_some();
        let bytes = self.pipe.snapshot(self.now).into_bytes();
        let frozen_at = Time::from_micros(clock);
        let snapshot = Snapshot::from_bytes(bytes.clone()).unwrap();
        self.pipe = Pipe::restore(&snapshot, self.pipe_settings.clone(), clock, frozen_at).unwrap();
        let after = self.pipe.view();
        assert_eq!((before.up, before.down, before.backend), (after.up, after.down, after.backend));
        assert_eq!((before.state, before.interruptions), (after.state, after.interruptions));
        let dials = after.attachment > before.attachment;
        assert!(dials == dialed || held, "a dial gets a number of its own");
        if dials {
            self.dialing = None;
        } else {
            assert!(self.pipe.next_action().is_none(), "nothing to do but to go on");
            assert!(self.pipe.snapshot(frozen_at).as_bytes() == bytes, "frozen again, it is the same");
        }
        self.act();
        assert_eq!(self.dialing.is_some(), dials);
        self.now = frozen_at + Duration::from_micros(took);
    }

    fn attach(&mut self, backend: u64, resume: u8) {
        let resume = match resume {
            0 => Some(ResumeAnswer::New),
            1 => Some(ResumeAnswer::Refuse),
            2 => Some(ResumeAnswer::Ok(Seq(2))),
            3 => Some(ResumeAnswer::Ok(Seq(u64::MAX))),
            _ => None,
        };
        let waited_for = self.dialing.take();
        let attachment = waited_for.unwrap_or(Attachment(77));
        let taken = self.pipe.attached(attachment, BackendKey(backend), resume, self.now);
        assert_eq!(taken, waited_for.is_some() && resume != Some(ResumeAnswer::Refuse));
        if taken {
            let slot = if self.current.is_some() { &mut self.held } else { &mut self.current };
            assert_eq!(slot.replace(attachment), None);
        }
    }

    fn fail(&mut self, how: u8) {
        let failure = match how {
            0 => DialFailure::NoCandidate { retry_after: None },
            1 => DialFailure::NoCandidate { retry_after: Some(Duration::ZERO) },
            2 => DialFailure::Unauthorized { backend: BackendKey(1), status: 401 },
            3 => DialFailure::Refused { backend: BackendKey(3), status: 404 },
            4 => DialFailure::Absent(BackendKey(4)),
            5 => DialFailure::Out { recheck: Duration::from_secs(5) },
            how => DialFailure::Failed(BackendKey(u64::from(how))),
        };
        let attachment = self.dialing.take().unwrap_or(Attachment(77));
        self.pipe.dial_failed(attachment, failure, self.now);
    }
}

fn run_pipe(settings: PipeSettings, compressed: bool, ops: &[Op]) {
    let now = Time::from_micros(1);
    let pipe_settings = Arc::new(settings);
    let mut pipe = Pipe::open(pipe_settings.clone(), BackendKey(0), 5, now);
    if compressed {
        pipe.allow_compressed();
    }
    let current = Some(Attachment::FIRST);
    let mut bare = Bare { pipe, pipe_settings, now, current, held: None, dialing: None, finished: false };
    for op in ops {
        let (now, current) = (bare.now, bare.current);
        match op {
            Op::Client(bytes) => bare.pipe.receive(Peer::Client(Generation::FIRST), Input::Copy(bytes), now),
            Op::Worker(bytes) => {
                let from = Peer::Backend(current.unwrap_or(Attachment(99)));
                bare.pipe.receive(from, Input::Share(&Bytes::copy_from_slice(bytes)), now);
            }
            Op::OldWorker(which, bytes) if current != Some(Attachment(*which)) => {
                bare.pipe.receive(Peer::Backend(Attachment(*which)), Input::Copy(bytes), now);
            }
            Op::LoseOld(which) if current != Some(Attachment(*which)) => {
                bare.pipe.lost(Peer::Backend(Attachment(*which)), LinkLoss::Eof, now);
            }
            Op::OldWorker(..) | Op::LoseOld(_) => {}
            Op::Move(room) => bare.shift(*room),
            Op::LoseClient => bare.pipe.lost(Peer::Client(Generation::FIRST), LinkLoss::Reset, now),
            Op::LoseWorker => bare.pipe.lost(Peer::Backend(current.unwrap_or(Attachment(99))), LinkLoss::Reset, now),
            Op::Attach(backend, resume) => bare.attach(*backend, *resume),
            Op::FailDial(how) => bare.fail(*how),
            Op::PoolChanged => bare.pipe.pool_changed(now),
            Op::Leave => bare.pipe.leave(Cause::Drain, now),
            Op::HandOver => bare.pipe.move_on(Cause::Admin, now),
            Op::Close => bare.pipe.close(EndedBy::Operator, CloseFrame::new(1001, "x"), now),
            Op::Pause(client, paused) => {
                bare.pipe.set_paused(if *client { Side::Client } else { Side::Backend }, *paused, now);
            }
            Op::Wait(micros) => bare.wait(*micros),
            Op::Freeze(clock, took) => bare.freeze(*clock, *took),
        }
        bare.act();
        check(&bare);
    }
    end(bare);
}

fn check(bare: &Bare) {
    let view = bare.pipe.view();
    for lane in [view.up, view.down] {
        assert!(lane.confirmed <= lane.sent && lane.sent <= lane.accepted);
    }
    assert_eq!(bare.pipe.is_finished(), bare.finished);
    assert_eq!(view.backend.is_some(), bare.current.is_some());
    assert!(bare.finished || bare.pipe.deadline().is_some(), "an open pipe that waits for nothing");
}

/// In any state, an operator's close ends it within the timeouts, with nothing left behind.
fn end(mut bare: Bare) {
    let now = bare.now;
    bare.pipe.close(EndedBy::Operator, CloseFrame::new(1001, "over"), now);
    bare.act();
    for _ in 0..200 {
        bare.wait(1_000_000);
    }
    assert!(bare.finished, "{:?}", bare.pipe.view());
    assert_eq!(bare.pipe.state(), PipeState::Closing);
    assert_eq!((bare.pipe.charged_bytes(), bare.pipe.deadline()), (0, None));
}

proptest! {
    #[test]
    fn a_pipe_survives_any_sequence_of_calls(
        settings in settings(),
        compressed in any::<bool>(),
        ops in proptest::collection::vec(op(), 1..60),
    ) {
        run_pipe(settings, compressed, &ops);
    }
}
