//! A pipe goes to another process in the middle of what it was doing, and neither peer can tell.

use std::sync::Arc;

use holdline_core::frame::Side;
use holdline_core::ids::{Attachment, BackendKey};
use holdline_core::pipe::{Cause, DialFailure, EndedBy, Fact, Interruption, LinkLoss, Pipe, PipeState};
use holdline_core::settings::{OverflowPolicy, PipeSettings, ReplayPolicy};
use holdline_core::snapshot::{Snapshot, SnapshotError, VERSION};
use holdline_core::time::Time;

use crate::bench::{A, B, Bench, C, closed, ms, secs, texts};
use crate::wire;

/// The clock of a process that has just begun.
const YOUNG: Time = Time::from_micros(1_000);

/// Hands the pipe over at once to a process that has just begun.
fn hand_over(bench: &mut Bench) {
    bench.hand_over(YOUNG, ms(0));
}

#[test]
fn half_messages_both_ways_are_finished_by_the_next_process() {
    let mut bench = Bench::new();
    bench.set_room(Side::Backend, 9);
    bench.set_room(Side::Client, 5);
    bench.client_says("half of this is written");
    bench.worker_says("and of this");
    let up = wire::frame(0x81, b"half of this was sent", Some([1, 2, 3, 4]));
    let down = wire::frame(0x81, b"and of this too", None);
    bench.client_sends(&up[..11]);
    bench.worker_sends(&down[..1]);
    hand_over(&mut bench);
    bench.set_room(Side::Backend, usize::MAX);
    bench.set_room(Side::Client, usize::MAX);
    bench.client_sends(&up[11..]);
    bench.worker_sends(&down[1..]);
    assert_eq!(bench.worker_got(), texts(&["half of this is written", "half of this was sent"]));
    assert_eq!(bench.client_got(), texts(&["and of this", "and of this too"]));
}

#[test]
fn a_pong_confirms_what_was_sent_before_the_hand_over_and_nothing_else() {
    let mut bench = Bench::new();
    bench.client_says("1");
    bench.wait(ms(25));
    bench.client_says("2");
    assert_eq!(bench.pings.len(), 1, "a ping is on its way");
    hand_over(&mut bench);
    bench.worker_pongs();
    let up = bench.pipe.view().up;
    assert_eq!((up.confirmed.0, up.sent.0), (1, 2));
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&["2"]), "what is confirmed is not sent again");
}

#[test]
fn a_worker_that_is_lost_with_the_hand_over_is_one_more_interruption() {
    let mut bench = Bench::new();
    bench.client_says("1");
    bench.settle();
    bench.client_says("2");
    bench.worker_says("answer");
    hand_over(&mut bench);
    bench.worker_dies(LinkLoss::Reset);
    let order = bench.dial();
    assert_eq!((order.attachment, order.previous, order.first_seq.0, order.again), (Attachment(2), A, 2, 1));
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&["1", "2"])[1..]);
    assert_eq!(bench.client_got(), texts(&["answer"]));
    assert_eq!((bench.pipe.view().interruptions, bench.pipe.view().up.in_doubt), (1, 1));
}

#[test]
fn a_dial_under_way_is_made_again_with_a_number_of_its_own() {
    let mut bench = Bench::new();
    bench.worker_dies(LinkLoss::Reset);
    bench.client_says("1");
    assert_eq!(bench.dial().attachment, Attachment(2));
    hand_over(&mut bench);
    assert_eq!(bench.dial().attachment, Attachment(3));
    let late = bench.pipe.attached(Attachment(2), A, None, bench.now);
    assert!(!late, "the old process's dial is not waited for");
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&["1"]));
}

#[test]
fn grace_goes_on_though_the_next_clock_is_younger_than_the_outage() {
    let mut bench = Bench::with(|settings| settings.grace = Some(secs(30)));
    bench.worker_dies(LinkLoss::Reset);
    bench.no_worker_is_there();
    bench.wait(secs(20));
    bench.hand_over(YOUNG, secs(4));
    bench.wait(ms(5_999));
    assert_eq!(bench.state(), PipeState::Detached);
    bench.wait(ms(1));
    assert_eq!(bench.client_got(), [closed(1013, "no backend within grace")]);
    assert!(bench.facts.contains(&Fact::Expired { outage: secs(30) }), "what the hand-over took counts");
}

#[test]
fn an_outage_that_ends_after_the_hand_over_is_as_long_as_it_was() {
    let mut bench = Bench::new();
    bench.worker_dies(LinkLoss::Reset);
    bench.wait(secs(2));
    bench.hand_over(YOUNG, secs(1));
    bench.attach(B);
    let outage = bench.facts.iter().find_map(|fact| match fact {
        Fact::Reattached { outage, .. } => Some(*outage),
        _ => None,
    });
    assert_eq!(outage, Some(secs(3)));
}

#[test]
fn a_message_that_kills_workers_is_found_out_across_processes() {
    let mut bench = Bench::new();
    bench.client_says("poison");
    for (deaths, backend) in [A, B, C].into_iter().enumerate() {
        bench.worker_dies(LinkLoss::Eof);
        assert!(!bench.is_finished() && bench.client_got().is_empty(), "after {deaths} deaths");
        hand_over(&mut bench);
        bench.attach(backend);
    }
    bench.worker_dies(LinkLoss::Eof);
    assert_eq!(bench.client_got(), [closed(1011, "message 1 ended workers 3 times in a row")]);
}

#[test]
fn what_is_known_of_backends_is_known_under_their_new_names() {
    let mut bench = Bench::new();
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    bench.worker_closes(4004, "not mine");
    bench.dial_fails(DialFailure::Failed(C));
    hand_over(&mut bench);
    bench.pipe.rename_backends(|key| BackendKey(key.0 + 10));
    let order = bench.dial();
    assert_eq!(order.previous, B, "an order that was carried out already");
    let mut known = bench.pipe.excluded(bench.now);
    known.sort();
    assert_eq!(known, [BackendKey(12), BackendKey(13)]);
}

#[test]
fn an_order_that_waits_speaks_of_backends_by_their_new_names() {
    let mut bench = Bench::new();
    bench.operator(|pipe, now| pipe.leave(Cause::Drain, now));
    bench.worker_dies(LinkLoss::Eof);
    let snapshot = bench.pipe.snapshot(bench.now);
    let mut pipe = Pipe::restore(&snapshot, Arc::new(PipeSettings::default()), 1, YOUNG).unwrap();
    pipe.rename_backends(|key| BackendKey(key.0 + 10));
    let Some(holdline_core::pipe::Action::Dial(order)) = pipe.next_action() else { panic!("a dial is ordered") };
    assert_eq!((order.previous, order.avoid), (BackendKey(11), Some(BackendKey(11))));
}

#[test]
fn a_move_that_has_begun_is_finished_by_the_next_process() {
    let mut bench = Bench::new();
    bench.client_says("1");
    bench.operator(|pipe, now| pipe.leave(Cause::Admin, now));
    bench.client_says("2");
    hand_over(&mut bench);
    assert_eq!(bench.state(), PipeState::Leaving);
    bench.settle();
    assert_eq!(bench.worker_got(), [texts(&["1"]), vec![closed(1001, "moving to another worker")]].concat());
    hand_over(&mut bench);
    bench.worker_closes(1001, "");
    assert_eq!(bench.dial().cause, Cause::Admin);
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&["2"]));
    assert!(bench.facts.iter().any(|fact| matches!(fact, Fact::Interrupted { reason: Interruption::Admin, .. })));
}

#[test]
fn a_client_that_said_goodbye_gets_its_answer_from_the_next_process() {
    let mut bench = Bench::new();
    bench.client_says("last");
    bench.client_closes(1000, "bye");
    hand_over(&mut bench);
    assert_eq!(bench.worker_got(), [texts(&["last"]), vec![closed(1000, "bye")]].concat());
    bench.worker_closes(1000, "bye");
    assert_eq!(bench.client_got(), [closed(1000, "bye")]);
    assert!(bench.is_finished());
}

#[test]
fn a_farewell_without_a_worker_is_still_delivered() {
    let mut bench = Bench::new();
    bench.worker_dies(LinkLoss::Reset);
    bench.client_says("last");
    bench.client_closes(1000, "bye");
    hand_over(&mut bench);
    bench.attach(B);
    assert_eq!(bench.worker_got(), [texts(&["last"]), vec![closed(1000, "bye")]].concat());
}

#[test]
fn a_farewell_of_a_pipe_that_is_parting_from_its_worker_is_still_delivered() {
    let mut bench = Bench::new();
    bench.operator(|pipe, now| pipe.leave(Cause::Drain, now));
    assert_eq!(bench.worker_got(), [closed(1001, "moving to another worker")]);
    bench.client_says("last");
    bench.client_closes(1000, "bye");
    assert_eq!(bench.client_got(), [closed(1000, "bye")]);
    hand_over(&mut bench);
    bench.worker_dies(LinkLoss::Eof);
    bench.attach(B);
    assert_eq!(bench.worker_got(), [texts(&["last"]), vec![closed(1000, "bye")]].concat());
}

#[test]
fn a_replay_that_is_held_is_let_go_when_it_would_have_been() {
    let mut bench = Bench::with(|settings| settings.replay_delay = secs(2));
    bench.client_says("1");
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    bench.wait(ms(500));
    bench.hand_over(YOUNG, ms(500));
    bench.wait(ms(999));
    assert_eq!(bench.worker_got(), []);
    bench.wait(ms(1));
    assert_eq!(bench.worker_got(), texts(&["1"]));
}

#[test]
fn silence_before_the_hand_over_counts_against_a_peer() {
    let mut bench = Bench::with(|settings| {
        settings.backend_heartbeat.interval = secs(10);
        settings.backend_heartbeat.timeout = secs(15);
    });
    bench.wait(secs(20));
    hand_over(&mut bench);
    bench.wait(ms(4_999));
    assert_eq!(bench.state(), PipeState::Attached);
    bench.wait(ms(1));
    assert!(bench.facts.iter().any(|fact| matches!(fact, Fact::Interrupted { reason: Interruption::Heartbeat, .. })));
}

#[test]
fn a_tail_is_kept_for_as_long_as_it_would_have_been() {
    let mut bench = Bench::with(|settings| settings.replay_tail.age = secs(10));
    bench.client_says("old");
    bench.settle();
    bench.wait(secs(8));
    hand_over(&mut bench);
    bench.wait(secs(3));
    bench.client_says("new");
    bench.settle();
    assert_eq!(bench.worker_got(), texts(&["old", "new"]));
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&["new"]), "the old one is eleven seconds old");
}

#[test]
fn a_pipe_keeps_its_policy_whatever_the_configuration_says_now() {
    let mut bench = Bench::with(|settings| settings.replay = ReplayPolicy::Unsent);
    bench.client_says("1");
    let snapshot = bench.pipe.snapshot(bench.now);
    let settings = PipeSettings { overflow: OverflowPolicy::Close, replay_bytes_max: 10, ..PipeSettings::default() };
    assert_eq!(settings.replay, ReplayPolicy::Unconfirmed);
    bench.pipe = Pipe::restore(&snapshot, Arc::new(settings), 1, bench.now).unwrap();
    bench.worker_dies(LinkLoss::Reset);
    assert_eq!(bench.dial().first_seq.0, 2, "at most once, as it was opened");
    bench.client_says("more than ten bytes");
    assert_eq!(bench.client_got(), [closed(1013, "replay buffer overflow")], "the rest is as it is configured now");
}

#[test]
fn losses_are_counted_on() {
    let mut bench = Bench::with(|settings| settings.replay = ReplayPolicy::None);
    bench.worker_dies(LinkLoss::Reset);
    bench.client_says("1");
    hand_over(&mut bench);
    bench.client_says("2");
    let up = bench.pipe.view().up;
    assert_eq!((up.accepted.0, up.lost, bench.pipe.view().interruptions), (2, 2, 1));
    assert_eq!(up.payload_bytes, 2);
}

#[test]
fn a_pipe_whose_end_was_said_does_not_say_it_again() {
    let mut bench = Bench::new();
    bench.set_room(Side::Client, 0);
    let close = holdline_core::close::CloseFrame::new(1001, "by order");
    bench.operator(|pipe, now| pipe.close(EndedBy::Operator, close, now));
    hand_over(&mut bench);
    bench.set_room(Side::Client, usize::MAX);
    bench.client_vanishes();
    bench.worker_closes(1001, "");
    let ends = bench.facts.iter().filter(|fact| matches!(fact, Fact::Ended { .. })).count();
    assert_eq!((ends, bench.is_finished()), (1, true));
}

#[test]
fn a_snapshot_that_was_cut_or_changed_is_refused_or_is_a_pipe() {
    let mut bench = Bench::new();
    bench.set_room(Side::Backend, 30);
    for payload in ["one", "two", "a longer one, of which a part is written"] {
        bench.client_says(payload);
    }
    let bytes = bench.pipe.snapshot(bench.now).into_bytes();
    let restored = |bytes: &[u8]| {
        let snapshot = Snapshot::from_bytes(bytes.to_vec())?;
        Pipe::restore(&snapshot, Arc::new(PipeSettings::default()), 1, YOUNG).map(|pipe| pipe.view().up)
    };
    assert_eq!(restored(&bytes), Ok(bench.pipe.view().up));
    for len in 0..bytes.len() {
        assert!(restored(&bytes[..len]).is_err(), "{len}");
    }
    let mut refused = 0;
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            refused += usize::from(restored(&bytes).is_err());
        }
    }
    assert!(refused > bytes.len() * 2, "{refused} of {} changes were noticed", bytes.len() * 8);
    let newer = [&bytes[..6], &(VERSION + 1).to_be_bytes(), &bytes[8..]].concat();
    assert_eq!(restored(&newer), Err(SnapshotError::Version(VERSION + 1)));
}

#[test]
fn a_pipe_whose_client_broke_a_rule_byte_by_byte_goes_to_another_process() {
    for wrong in [&b"\0\0"[..], b"\x83\x80\0\0\0\0", b"\x81\x01"] {
        let mut bench = Bench::new();
        wrong.chunks(1).for_each(|byte| bench.client_sends(byte));
        let later = bench.now + ms(3);
        bench.hand_over(later, ms(1));
        assert_eq!(bench.state(), PipeState::Closing, "{wrong:?}");
    }
}
