//! A planned move to another worker: nothing lost and nothing twice, as long as the old one plays along.

use holdline_core::frame::Side;
use holdline_core::pipe::{Cause, Fact, Interruption, LinkLoss, PipeState};

use crate::bench::{A, B, Bench, closed, ms, secs, text, texts};

fn leave(bench: &mut Bench) {
    bench.operator(|pipe, now| pipe.leave(Cause::Drain, now));
}

#[test]
fn a_drained_pipe_waits_for_the_pong_says_1001_and_moves() {
    let mut bench = Bench::new();
    bench.client_says("1");
    leave(&mut bench);
    assert_eq!(bench.state(), PipeState::Leaving);
    bench.client_says("2");
    assert_eq!(bench.worker_got(), texts(&["1"]), "held for the next worker");
    bench.wait(ms(25));
    bench.worker_pongs();
    assert_eq!(bench.worker_got(), [closed(1001, "moving to another worker")]);
    bench.worker_says("result of 1");
    assert_eq!(bench.client_got(), texts(&["result of 1"]), "what the old worker still says is relayed");
    bench.worker_closes(1001, "");
    let order = bench.dial();
    assert_eq!((order.cause, order.avoid, order.again), (Cause::Drain, Some(A), 0));
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&["2"]), "nothing twice");
    assert_eq!(bench.client_got(), [], "the client never noticed");
    assert!(
        bench
            .facts
            .iter()
            .any(|fact| matches!(fact, Fact::Interrupted { reason: Interruption::Drain, in_doubt: 0, .. }))
    );
}

#[test]
fn a_pipe_with_nothing_in_doubt_leaves_at_once() {
    let mut bench = Bench::new();
    leave(&mut bench);
    assert_eq!(bench.worker_got(), [closed(1001, "moving to another worker")]);
}

#[test]
fn a_message_half_written_to_the_old_worker_is_finished_before_it_is_left() {
    let mut bench = Bench::new();
    bench.set_room(Side::Backend, 10);
    bench.client_says("a message of thirty bytes or so");
    bench.client_says("next");
    leave(&mut bench);
    bench.set_room(Side::Backend, usize::MAX);
    bench.pump();
    assert_eq!(bench.worker_got(), texts(&["a message of thirty bytes or so"]));
    bench.settle();
    assert_eq!(bench.worker_got(), [closed(1001, "moving to another worker")]);
    bench.worker_dies(LinkLoss::Eof);
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&["next"]));
}

#[test]
fn an_old_worker_that_does_not_pong_is_left_after_the_timeout_and_what_it_had_is_sent_again() {
    let mut bench = Bench::new();
    bench.client_says("1");
    leave(&mut bench);
    bench.wait(ms(9_999));
    assert!(!bench.is_dialing());
    bench.wait(ms(1));
    assert_eq!(bench.last_words[0].1, [closed(1001, "moving to another worker")]);
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&["1"]));
}

#[test]
fn an_old_worker_that_does_not_answer_the_close_is_left_after_the_timeout() {
    let mut bench = Bench::new();
    bench.client_says("1");
    bench.settle();
    leave(&mut bench);
    bench.wait(secs(10));
    bench.attach(B);
    assert_eq!(bench.worker_got(), []);
}

#[test]
fn an_old_worker_that_dies_amid_the_move_is_an_ordinary_crash() {
    let mut bench = Bench::new();
    bench.client_says("1");
    leave(&mut bench);
    bench.worker_dies(LinkLoss::Reset);
    assert_eq!(bench.dial().cause, Cause::Crash);
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&["1"]));
}

#[test]
fn an_end_said_before_the_parting_ends_the_pipe_and_one_said_after_it_does_not() {
    let mut bench = Bench::new();
    bench.client_says("1");
    leave(&mut bench);
    bench.worker_closes(1000, "over");
    assert_eq!(bench.client_got(), [closed(1000, "over")]);
    let mut bench = Bench::new();
    leave(&mut bench);
    bench.worker_closes(1000, "as you wish");
    bench.attach(B);
    assert_eq!(bench.client_got(), []);
}

#[test]
fn leaving_twice_or_while_detached_is_leaving_once() {
    let mut bench = Bench::new();
    leave(&mut bench);
    leave(&mut bench);
    assert_eq!(bench.worker_got(), [closed(1001, "moving to another worker")]);
    bench.worker_closes(1001, "");
    leave(&mut bench);
    bench.attach(B);
    assert_eq!(bench.state(), PipeState::Attached);
}

#[test]
fn a_client_that_closes_while_the_pipe_is_settling_takes_its_worker_with_it() {
    let mut bench = Bench::new();
    bench.client_says("1");
    leave(&mut bench);
    bench.client_says("2");
    bench.client_closes(1000, "bye");
    assert_eq!(bench.worker_got(), [text("1"), text("2"), closed(1000, "bye")]);
    bench.worker_closes(1000, "bye");
    assert_eq!(bench.client_got(), [closed(1000, "bye")]);
    assert!(bench.is_finished());
}

#[test]
fn a_client_that_closes_while_the_old_worker_parts_has_its_last_messages_delivered_to_the_new_one() {
    let mut bench = Bench::new();
    leave(&mut bench);
    bench.worker_got();
    bench.client_says("2");
    bench.client_closes(1000, "bye");
    assert_eq!(bench.client_got(), [closed(1000, "bye")]);
    bench.worker_closes(1001, "");
    bench.attach(B);
    assert_eq!(bench.worker_got(), [text("2"), closed(1000, "bye")]);
}

#[test]
fn a_parting_pipe_does_not_spin_over_a_ping_it_will_never_send() {
    let mut bench = Bench::new();
    bench.client_says("1");
    bench.worker_frame(0x8A, b"A1");
    leave(&mut bench);
    bench.wait(secs(9));
    assert_eq!(bench.worker_got(), [text("1"), closed(1001, "moving to another worker")]);
}

#[test]
fn a_move_soon_after_a_reattach_does_not_eat_the_grace_of_the_next_outage() {
    let mut bench = Bench::with(|settings| settings.grace = secs(6));
    bench.worker_dies(LinkLoss::Eof);
    bench.wait(secs(1));
    bench.attach(B);
    leave(&mut bench);
    bench.wait(secs(9));
    bench.worker_closes(1001, "");
    bench.wait(secs(5));
    assert_eq!(bench.state(), PipeState::Detached);
    assert_eq!(bench.client_got(), []);
    bench.attach(A);
    assert_eq!(bench.state(), PipeState::Attached);
}
