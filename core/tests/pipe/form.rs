//! The form of a frozen pipe, held to what is written down in `form_4.txt`: a change of it raises
//! [`VERSION`], and the new form is written down under that number.

use std::path::Path;
use std::sync::Arc;

use holdline_core::frame::Side;
use holdline_core::labels::{LabelBounds, Labels, Relabel};
use holdline_core::pipe::{Cause, DialFailure, LinkLoss, Pipe};
use holdline_core::settings::{PipeSettings, ReplayTail};
use holdline_core::snapshot::{Snapshot, SnapshotError, VERSION};
use holdline_core::time::Time;

use crate::bench::{A, B, Bench, ms, secs};
use crate::wire;

/// Frozen pipes in the form of today, one a line: a name and bytes in hexadecimal.
const FORM: &str = include_str!("form_4.txt");

fn settings() -> PipeSettings {
    PipeSettings { client_grace: Some(secs(60)), ..PipeSettings::default() }
}

fn bench() -> Bench {
    Bench::with(|it| *it = settings())
}

/// A half message in each of the four places where one can be, a ping on its way each way, and a confirmed tail.
fn attached() -> Bench {
    let mut bench = Bench::with(|it| {
        *it = PipeSettings { replay_tail: ReplayTail { bytes: 100, messages: 2, age: secs(9) }, ..settings() };
    });
    bench.client_says("confirmed");
    bench.worker_says("heard");
    bench.settle();
    bench.client_pongs();
    bench.client_says("up");
    bench.worker_says("down");
    bench.wait(ms(30));
    bench.set_room(Side::Backend, 7);
    bench.set_room(Side::Client, 4);
    bench.client_says("half of this is written");
    bench.worker_says("and of this");
    bench.client_sends(&wire::frame(0x01, b"half of this was sent", Some([1, 2, 3, 4]))[..11]);
    bench.worker_sends(&wire::frame(0x81, b"and of this too", None)[..3]);
    bench
}

/// An outage with all that one can bring: suspects, a word of a wrong worker, messages in doubt, the wait for a retry.
fn detached() -> Bench {
    let mut bench = bench();
    bench.client_says("in doubt");
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    bench.worker_closes(4004, "not mine");
    bench.dial_fails(DialFailure::Failed(A));
    bench.no_worker_is_there();
    bench.client_says("waits");
    bench
}

fn leaving(parting: bool) -> Bench {
    let mut bench = bench();
    bench.client_says("before the move");
    bench.operator(|pipe, now| pipe.leave(Cause::Drain, now));
    if parting {
        bench.settle();
        bench.wait(secs(1));
    }
    bench
}

/// A client that said goodbye, and whose last message still has to find a worker.
fn farewell() -> Bench {
    let mut bench = bench();
    bench.worker_dies(LinkLoss::Eof);
    bench.no_worker_is_there();
    bench.client_says("the last one");
    bench.client_closes(1000, "bye");
    bench
}

/// A client that is away, to be told of what its worker said at the end or not.
fn away(ended: bool) -> Bench {
    let mut bench = bench();
    bench.worker_says("in doubt");
    bench.client_vanishes();
    bench.worker_says("kept");
    if ended {
        bench.worker_closes(4001, "done");
    }
    bench
}

/// A conversation of which the next worker has heard the first half: one entry of each kind, and part of it on its way.
fn playing() -> Bench {
    let mut bench = crate::prologue::profiled("graphql-transport-ws");
    bench.client_says(r#"{"type":"connection_init"}"#);
    bench.worker_says(r#"{"type":"connection_ack"}"#);
    bench.client_says(r#"{"type":"subscribe","id":"1","payload":{"query":"subscription{a}"}}"#);
    bench.client_says(r#"{"type":"complete","id":"1"}"#);
    bench.settle();
    bench.client_says(r#"{"type":"subscribe","id":"2","payload":{"query":"subscription{b}"}}"#);
    bench.settle();
    bench.worker_dies(LinkLoss::Reset);
    bench.client_says(r#"{"type":"subscribe","id":"3","payload":{"query":"mutation{c}"}}"#);
    bench.client_says(r#"{"type":"complete","id":"2"}"#);
    bench.attach(B);
    bench.set_room(Side::Backend, 7);
    bench
}

/// A pipe in two groups.
fn labelled() -> Bench {
    let mut bench = bench();
    let mut change = Relabel::default();
    change.set("room", "a").unwrap();
    change.set("vip", "").unwrap();
    let bounds = LabelBounds { count_max: 2, bytes_max: 100 };
    bench.pipe.set_labels(Labels::default().changed(&change, bounds).unwrap());
    bench
}

fn samples() -> Vec<(&'static str, Bench)> {
    vec![
        ("attached", attached()),
        ("detached", detached()),
        ("settling", leaving(false)),
        ("parting", leaving(true)),
        ("farewell", farewell()),
        ("playing", playing()),
        ("labelled", labelled()),
        ("away", away(false)),
        ("away-and-ended", away(true)),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).unwrap()).collect()
}

/// Thaws a pipe and freezes it again.
fn again(bytes: &[u8]) -> Result<Vec<u8>, SnapshotError> {
    let frozen_at = Time::from_micros(77);
    let snapshot = Snapshot::from_bytes(bytes.to_vec())?;
    let mut pipe = Pipe::restore(&snapshot, Arc::new(settings()), 1, frozen_at)?;
    while pipe.next_action().is_some() {}
    Ok(pipe.snapshot(frozen_at).into_bytes())
}

#[test]
fn the_form_of_a_frozen_pipe_is_the_one_that_was_written_down_under_its_version() {
    let samples = samples();
    let fresh: String =
        samples.iter().map(|(name, it)| format!("{name} {}\n", hex(it.pipe.snapshot(it.now).as_bytes()))).collect();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("form_{VERSION}.txt"));
    std::fs::write(&path, &fresh).unwrap();
    let help = format!("a new form is a new VERSION; pipes in the form of today are in {}", path.display());
    let names: Vec<_> = FORM.lines().filter_map(|line| line.split_once(' ')).map(|(name, _)| name).collect();
    assert_eq!(names, samples.iter().map(|(name, _)| *name).collect::<Vec<_>>(), "{help}");
    for (name, text) in FORM.lines().filter_map(|line| line.split_once(' ')) {
        let bytes = unhex(text);
        assert_eq!(u16::from_be_bytes([bytes[6], bytes[7]]), VERSION, "{help}");
        assert_eq!(again(&bytes).map(|bytes| hex(&bytes)), Ok(text.to_owned()), "{name}: {help}");
    }
    for (name, text) in fresh.lines().filter_map(|line| line.split_once(' ')) {
        assert_eq!(again(&unhex(text)).map(|bytes| hex(&bytes)), Ok(text.to_owned()), "{name}, frozen today");
    }
}

#[test]
fn a_pipe_in_any_other_form_is_refused_by_its_number() {
    let (_, text) = FORM.lines().next().and_then(|line| line.split_once(' ')).unwrap();
    for other in [0, VERSION - 1, VERSION + 1, u16::MAX] {
        let mut bytes = unhex(text);
        bytes[6..8].copy_from_slice(&other.to_be_bytes());
        let error = Snapshot::from_bytes(bytes).unwrap_err();
        assert_eq!(error, SnapshotError::Version(other));
        assert_eq!(error.to_string(), format!("a snapshot in form {other}; this version reads form {VERSION}"));
    }
}
