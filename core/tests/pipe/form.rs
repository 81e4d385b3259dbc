//! The form of a frozen pipe: `forms/N` holds pipes in form N, frozen in every state that has parts of its own. A change of
//! the form raises [`VERSION`], and the new form is written down under that number; what is there is thawed and goes on to
//! its end as long as a release that wrote it may hand pipes over.

mod goes_on;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdline_core::frame::Side;
use holdline_core::ids::Generation;
use holdline_core::labels::{LabelBounds, Labels, Relabel};
use holdline_core::pipe::{Cause, DialFailure, LinkLoss, Pipe};
use holdline_core::settings::{PipeSettings, ReplayPolicy, ReplayTail};
use holdline_core::snapshot::{Snapshot, SnapshotError, VERSION};
use holdline_core::time::Time;

use crate::bench::{A, B, Bench, closed, ms, secs, text, texts};
use crate::wire;
use crate::{aware, numbered};

/// What a pipe does from the moment on in which it was frozen, and what each side must have of it.
type GoesOn = fn(&mut Bench);

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

/// A client that numbers its messages and has given some up, with half of a message on its way to it.
fn greeted() -> Bench {
    let mut bench = aware::greeted();
    bench.client_says("1;one");
    bench.client_says(r#"!{"t":"gap","lane":"up","from":2,"count":2,"bytes":null,"why":"overflow"}"#);
    bench.client_says("4;two");
    bench.worker_says("a");
    bench.worker_says("b");
    bench.client_says(r#"!{"t":"ack","n":1}"#);
    bench.set_room(Side::Client, 4);
    bench.worker_says("half of this is written");
    bench.worker_says("waits");
    bench
}

/// A client that numbers its messages, is away, and has to hear that a worker took one with it.
fn greeted_away() -> Bench {
    let mut bench = aware::greeted_with(|settings| settings.replay = ReplayPolicy::Unsent);
    bench.client_says("1;lost with its worker");
    bench.worker_says("a");
    bench.client_vanishes();
    bench.worker_dies(LinkLoss::Reset);
    bench.no_worker_is_there();
    bench
}

/// A worker that numbers its messages, with half of one on its way to it.
fn numbered() -> Bench {
    let mut bench = numbered::greeted();
    bench.client_says("one");
    bench.worker_says(r#"!{"t":"ack","n":1}"#);
    bench.worker_says("1;a");
    bench.set_room(Side::Backend, 7);
    bench.client_says("half of this is written");
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

fn samples() -> Vec<(&'static str, Bench, GoesOn)> {
    vec![
        ("attached", attached(), goes_on::attached),
        ("detached", detached(), goes_on::detached),
        ("settling", leaving(false), goes_on::settling),
        ("parting", leaving(true), goes_on::parting),
        ("farewell", farewell(), goes_on::farewell),
        ("playing", playing(), goes_on::playing),
        ("labelled", labelled(), goes_on::labelled),
        ("away", away(false), goes_on::away),
        ("away-and-ended", away(true), goes_on::away_and_ended),
        ("greeted", greeted(), goes_on::greeted),
        ("greeted-away", greeted_away(), goes_on::greeted_away),
        ("numbered", numbered(), goes_on::numbered),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let text = text.trim_end();
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

/// Where pipes in each form are written down, in hexadecimal.
fn forms() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pipe/forms")
}

#[test]
fn the_form_of_a_frozen_pipe_is_the_one_that_was_written_down_under_its_version() {
    let fresh = Path::new(env!("CARGO_TARGET_TMPDIR")).join("forms").join(VERSION.to_string());
    std::fs::create_dir_all(&fresh).unwrap();
    let written_down = forms().join(VERSION.to_string());
    let help = format!(
        "a new form of frozen pipes is a new `snapshot::VERSION`, and `cp -r {} {}` writes it down",
        fresh.display(),
        forms().display()
    );
    let frozen = samples().into_iter().map(|(name, bench, _)| (name, bench.pipe.snapshot(bench.now).into_bytes()));
    let frozen: Vec<_> = frozen.collect();
    for (name, bytes) in &frozen {
        std::fs::write(fresh.join(name), format!("{}\n", hex(bytes))).unwrap();
    }
    for (name, bytes) in frozen {
        let kept = std::fs::read_to_string(written_down.join(name)).unwrap_or_else(|_| panic!("{name}: {help}"));
        assert_eq!(u16::from_be_bytes([unhex(&kept)[6], unhex(&kept)[7]]), VERSION, "{name}: {help}");
        for (bytes, when) in [(unhex(&kept), "written down"), (bytes, "frozen today")] {
            let thawed = again(&bytes).map(|bytes| hex(&bytes));
            assert_eq!(thawed, Ok(hex(&bytes)), "{name}, {when}, is read as something else: {help}");
        }
    }
    for entry in std::fs::read_dir(written_down).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(samples().iter().any(|(sample, ..)| name == *sample), "{name:?} is no pipe of today");
    }
}

#[test]
fn a_pipe_in_each_form_that_is_written_down_goes_on_to_its_end() {
    for form in std::fs::read_dir(forms()).unwrap() {
        let form = form.unwrap().path();
        for (name, mut bench, goes_on) in samples() {
            // What came with a later form is not there.
            let Ok(kept) = std::fs::read_to_string(form.join(name)) else { continue };
            eprintln!("{}: {name}", form.display());
            bench.client_got();
            bench.worker_got();
            bench.goes_on_as(unhex(&kept), Time::from_micros(77_000_000), ms(5));
            goes_on(&mut bench);
            assert!(bench.is_finished(), "{:?}", bench.pipe.view());
            assert_eq!(bench.pipe.charged_bytes(), 0);
        }
    }
}

#[test]
fn a_pipe_in_any_other_form_is_refused_by_its_number() {
    let text = std::fs::read_to_string(forms().join(VERSION.to_string()).join("attached")).unwrap();
    for other in [0, VERSION - 1, VERSION + 1, u16::MAX] {
        let mut bytes = unhex(&text);
        bytes[6..8].copy_from_slice(&other.to_be_bytes());
        let error = Snapshot::from_bytes(bytes).unwrap_err();
        assert_eq!(error, SnapshotError::Version(other));
        assert_eq!(error.to_string(), format!("a snapshot in form {other}; this version reads form {VERSION}"));
    }
}
