//! What time does: heartbeats, silence, slow messages, missing pongs.

use holdline_core::frame::Side;
use holdline_core::leg::barrier::Level;
use holdline_core::limits::Rate;
use holdline_core::pipe::{Fact, Interruption, LinkLoss, PipeState};
use holdline_core::settings::{Heartbeat, PipeSettings};

use crate::bench::{A, B, Bench, closed, ms, secs, text};
use crate::wire;

#[test]
fn a_worker_that_answers_no_heartbeat_is_replaced_and_one_that_freezes_for_ten_seconds_is_not_ib_15() {
    let mut bench = Bench::with(|settings| settings.client_heartbeat.interval = secs(0));
    bench.wait(secs(30));
    bench.worker_says("alive after ten seconds of silence");
    assert_eq!(bench.state(), PipeState::Attached);
    // The next ping goes out at 40 s; the verdict comes 75 s after it.
    bench.wait(ms(84_999));
    bench.client_frame(0x8A, b"alive");
    assert_eq!(bench.state(), PipeState::Attached);
    bench.wait(ms(1));
    assert_eq!(bench.state(), PipeState::Detached);
    assert!(bench.facts.iter().any(|fact| matches!(fact, Fact::Interrupted { reason: Interruption::Heartbeat, .. })));
}

#[test]
fn a_client_that_answers_no_heartbeat_is_dropped_and_its_worker_gets_1001_st_01() {
    let mut bench = Bench::new();
    for _ in 0..8 {
        bench.wait(secs(10));
        bench.worker_says("x");
    }
    assert_eq!(bench.state(), PipeState::Attached);
    bench.wait(secs(10));
    assert!(bench.drops_client());
    assert_eq!(bench.worker_got(), [closed(1001, "client gone")]);
}

#[test]
fn a_leg_that_is_not_read_is_not_judged_by_its_silence() {
    let mut bench = Bench::with(|settings| {
        settings.client_heartbeat = Heartbeat { interval: secs(1), timeout: secs(2) };
        settings.backend_heartbeat = Heartbeat { interval: secs(0), timeout: secs(0) };
    });
    bench.operator(|pipe, now| pipe.set_paused(Side::Client, true, now));
    bench.wait(secs(60));
    assert_eq!(bench.state(), PipeState::Attached);
    bench.operator(|pipe, now| pipe.set_paused(Side::Client, false, now));
    bench.wait(secs(4));
    assert_eq!(bench.state(), PipeState::Closing);
}

#[test]
fn a_worker_that_never_says_anything_is_given_up_where_the_route_expects_it_ib_10() {
    let mut bench = Bench::with(|settings| settings.first_message_timeout = Some(secs(5)));
    bench.worker_frame(0x8A, b"a pong is no message");
    bench.wait(secs(5));
    assert!(bench.facts.iter().any(|fact| matches!(fact, Fact::Interrupted { reason: Interruption::Silent, .. })));
    assert_eq!(bench.last_words[0].1, [closed(1001, "nothing was said in time")]);
    assert_eq!(bench.pipe.excluded(bench.now), [A], "another one is tried first");
    bench.attach(B);
    bench.worker_says("frame");
    bench.wait(secs(60));
    bench.client_frame(0x8A, b"");
    assert_eq!(bench.state(), PipeState::Attached);
}

#[test]
fn a_worker_that_is_not_read_is_not_given_up_for_its_silence() {
    let mut bench = Bench::with(|settings| settings.first_message_timeout = Some(secs(5)));
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    bench.wait(secs(3));
    bench.operator(|pipe, now| pipe.set_paused(Side::Backend, true, now));
    bench.wait(secs(30));
    bench.client_frame(0x8A, b"alive");
    assert_eq!(bench.state(), PipeState::Attached, "what it says lies unread");
    bench.operator(|pipe, now| pipe.set_paused(Side::Backend, false, now));
    bench.wait(ms(4_999));
    assert_eq!(bench.state(), PipeState::Attached, "it has its time again from when it is read");
    bench.wait(ms(1));
    assert!(bench.facts.iter().any(|fact| matches!(fact, Fact::Interrupted { reason: Interruption::Silent, .. })));
}

#[test]
fn a_message_that_goes_on_at_the_least_rate_may_take_as_long_as_it_is() {
    let rate = |settings: &mut PipeSettings| settings.message_rate_min = Rate::new(1000, secs(1));
    let (mut quick, mut slow) = (Bench::with(rate), Bench::with(rate));
    for (bench, bytes) in [(&mut quick, 1100), (&mut slow, 900)] {
        let message = wire::frame(0x82, &vec![7; 200_000], Some([1, 2, 3, 4]));
        let answer = wire::frame(0x82, &vec![7; 200_000], None);
        bench.client_sends(&message[..1]);
        bench.worker_sends(&answer[..1]);
        for second in 0..90 {
            let at = 1 + second * bytes;
            bench.wait(secs(1));
            bench.client_sends(&message[at..at + bytes]);
            bench.worker_sends(&answer[at..at + bytes]);
        }
    }
    assert_eq!((quick.state(), quick.client_got()), (PipeState::Attached, Vec::new()), "{:?}", quick.facts);
    assert_eq!(slow.client_got(), [closed(1008, "message not finished in time")]);
    let replaced = |fact: &Fact| matches!(fact, Fact::Interrupted { reason: Interruption::Protocol, .. });
    assert!(!quick.facts.iter().any(replaced) && quick.pipe.deadline().is_some());
}

#[test]
fn a_message_that_goes_on_for_a_while_and_then_stops_ends_its_sender() {
    let mut bench = Bench::new();
    let message = wire::frame(0x82, &vec![7; 200_000], Some([1, 2, 3, 4]));
    bench.client_sends(&message[..100_000]);
    bench.wait(secs(59));
    assert_eq!(bench.client_got(), []);
    bench.wait(secs(1));
    assert_eq!(bench.client_got(), [closed(1008, "message not finished in time")]);
}

#[test]
fn a_message_that_is_not_finished_in_time_ends_its_sender() {
    let mut bench = Bench::new();
    bench.client_frame(0x01, b"begun");
    bench.wait(secs(29));
    bench.client_frame(0x00, b" and continued");
    bench.wait(ms(999));
    assert_eq!(bench.client_got(), []);
    bench.wait(ms(1));
    assert_eq!(bench.client_got(), [closed(1008, "message not finished in time")]);
    let mut bench = Bench::new();
    bench.worker_sends(&wire::frame(0x81, b"begun", None)[..3]);
    bench.wait(secs(30));
    assert_eq!(bench.last_words[0].1, [closed(1008, "message not finished in time")]);
    assert_eq!(bench.state(), PipeState::Detached);
}

#[test]
fn many_messages_in_a_row_are_not_one_slow_one() {
    let mut bench = Bench::new();
    let frame = wire::frame(0x81, b"x", Some([0; 4]));
    bench.client_sends(&frame[..3]);
    for _ in 0..60 {
        bench.wait(secs(1));
        bench.client_sends(&[&frame[3..], &frame[..3]].concat());
        bench.worker_says("y");
    }
    assert_eq!(bench.state(), PipeState::Attached);
}

#[test]
fn a_pause_of_ours_is_not_counted_against_a_slow_message() {
    let mut bench = Bench::new();
    bench.client_frame(0x01, b"begun");
    bench.operator(|pipe, now| pipe.set_paused(Side::Client, true, now));
    bench.wait(secs(50));
    bench.operator(|pipe, now| pipe.set_paused(Side::Client, false, now));
    bench.client_frame(0x80, b" ended");
    assert_eq!(bench.worker_got(), [text("begun ended")]);
}

#[test]
fn a_worker_that_talks_and_never_pongs_is_believed_once_written() {
    let mut bench = Bench::new();
    bench.client_says("1");
    for _ in 0..11 {
        bench.wait(secs(1));
        bench.worker_says("frame");
    }
    assert!(bench.facts.contains(&Fact::PongsMissing(A)));
    assert_eq!(bench.pipe.view().up.level, Level::Written);
    assert_eq!(bench.pipe.view().up.confirmed.0, 1);
    bench.client_says("2");
    assert_eq!(bench.pipe.view().up.confirmed.0, 2);
    assert_eq!(bench.facts.iter().filter(|fact| matches!(fact, Fact::PongsMissing(_))).count(), 1);
    bench.worker_pongs();
    assert_eq!(bench.pipe.view().up.level, Level::Pong, "a pong proves otherwise");
}

#[test]
fn a_worker_that_froze_and_talks_again_has_ten_more_seconds_to_pong() {
    let mut bench = Bench::new();
    bench.client_says("1");
    bench.wait(secs(15));
    bench.worker_says("back, and the pong is right behind this");
    bench.wait(ms(1));
    assert_eq!(bench.pipe.view().up.confirmed.0, 0, "nothing is believed too early");
    bench.worker_pongs();
    assert_eq!(bench.pipe.view().up.level, Level::Pong);
    assert_eq!(bench.pipe.view().up.confirmed.0, 1);
}

#[test]
fn the_fallback_is_for_one_attach_only() {
    let mut bench = Bench::new();
    bench.client_says("1");
    for _ in 0..11 {
        bench.wait(secs(1));
        bench.worker_says("frame");
    }
    bench.worker_dies(LinkLoss::Eof);
    bench.attach(B);
    assert_eq!(bench.pipe.view().up.level, Level::Pong);
    bench.client_says("2");
    assert_eq!(bench.pipe.view().up.confirmed.0, 1);
}

#[test]
fn a_timer_that_fires_early_does_nothing() {
    let mut bench = Bench::with(|settings| settings.grace = Some(secs(3)));
    bench.worker_dies(LinkLoss::Eof);
    for _ in 0..1000 {
        bench.pipe.tick(bench.now);
    }
    bench.pump();
    assert_eq!(bench.client_got(), []);
    assert!(bench.is_dialing());
}

#[test]
fn a_finished_pipe_has_no_deadline_and_wants_nothing() {
    let mut bench = Bench::new();
    bench.client_vanishes();
    bench.worker_closes(1001, "");
    assert!(bench.is_finished());
    assert_eq!(bench.pipe.deadline(), None);
    bench.orders();
    bench.client_says("?");
    bench.worker_says("?");
    bench.operator(|pipe, now| pipe.pool_changed(now));
    bench.operator(|pipe, now| pipe.leave(holdline_core::pipe::Cause::Admin, now));
    bench.client_vanishes();
    bench.wait(secs(100));
    assert_eq!(bench.orders(), []);
    assert_eq!(bench.pipe.read_budget(Side::Client, 9), 0);
    assert_eq!(bench.pipe.read_budget(Side::Backend, 9), 0);
}
