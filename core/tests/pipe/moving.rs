//! A planned move to another worker: nothing lost and nothing twice, as long as the old one plays along. First the moves
//! that leave the old worker before another is looked for, then those that attach the new one first.

use holdline_core::frame::Side;
use holdline_core::ids::Seq;
use holdline_core::pipe::{Action, Cause, DialFailure, Fact, Interruption, LinkLoss, PipeState, ResumeAnswer};
use holdline_core::settings::{OverflowPolicy, ReplayPolicy};

use crate::bench::{A, B, Bench, C, closed, ms, secs, text, texts};

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
fn a_worker_that_has_confirmed_everything_is_left_alone_for_a_while_after_its_last_message() {
    let mut bench = Bench::with(|settings| settings.settle = ms(200));
    bench.client_says("1");
    leave(&mut bench);
    bench.settle();
    bench.wait(ms(174));
    assert_eq!(bench.worker_got(), texts(&["1"]), "199 ms after the message");
    bench.worker_says("result of 1");
    assert_eq!(bench.client_got(), texts(&["result of 1"]));
    bench.wait(ms(1));
    assert_eq!(bench.worker_got(), [closed(1001, "moving to another worker")]);
    let mut idle = Bench::with(|settings| settings.settle = ms(200));
    idle.wait(ms(200));
    leave(&mut idle);
    assert_eq!(idle.worker_got(), [closed(1001, "moving to another worker")], "it has nothing to answer");
}

#[test]
fn a_worker_is_not_left_alone_for_longer_than_the_move_may_take() {
    let mut bench = Bench::with(|settings| settings.settle = secs(3_600));
    bench.client_says("1");
    bench.settle();
    leave(&mut bench);
    bench.wait(ms(9_975));
    assert_eq!(bench.worker_got().last(), Some(&closed(1001, "moving to another worker")));
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
    let mut bench = Bench::with(|settings| settings.grace = Some(secs(6)));
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

fn move_on(bench: &mut Bench) {
    bench.operator(|pipe, now| pipe.move_on(Cause::Drain, now));
}

const FAREWELL: &str = "moving to another worker";

/// A pipe whose new worker waits beside the old one, which has not confirmed its message yet.
fn held() -> Bench {
    let mut bench = Bench::new();
    bench.client_says("1");
    move_on(&mut bench);
    bench.attach(B);
    assert_eq!(bench.holds(), Some(B));
    bench
}

#[test]
fn the_new_worker_is_attached_before_the_old_one_is_told_to_go() {
    let mut bench = Bench::new();
    bench.client_says("1");
    move_on(&mut bench);
    let order = bench.dial();
    assert_eq!((order.cause, order.avoid, order.first_seq, order.again), (Cause::Drain, Some(A), Seq(2), 0));
    assert!(bench.pipe.excluded(bench.now).contains(&A), "not the same again");
    bench.client_says("2");
    bench.settle();
    assert_eq!(bench.worker_got(), texts(&["1"]), "settled, and not told to go before there is another");
    bench.attach(B);
    assert_eq!(bench.worker_got(), [closed(1001, FAREWELL)]);
    bench.worker_says("result of 1");
    assert_eq!(bench.client_got(), texts(&["result of 1"]));
    bench.worker_closes(1001, "");
    assert_eq!((bench.state(), bench.holds(), bench.is_dialing()), (PipeState::Attached, None, false));
    assert_eq!(bench.worker_got(), texts(&["2"]), "at once, and nothing twice");
    let outage = bench.facts.iter().find_map(|fact| match fact {
        Fact::Reattached { outage, backend: B, again: 0, .. } => Some(*outage),
        _ => None,
    });
    assert_eq!(outage, Some(ms(0)));
}

#[test]
fn a_new_worker_that_is_there_waits_for_the_pong_of_the_old_one() {
    let mut bench = held();
    assert_eq!(bench.worker_got(), texts(&["1"]), "not told to go");
    bench.settle();
    assert_eq!(bench.worker_got(), [closed(1001, FAREWELL)]);
    bench.worker_dies(LinkLoss::Eof);
    bench.client_says("2");
    assert_eq!(bench.worker_got(), texts(&["2"]));
}

#[test]
fn a_failed_dial_is_followed_by_the_next_and_when_none_is_left_the_pipe_is_where_it_was() {
    let mut bench = Bench::new();
    bench.client_says("1");
    move_on(&mut bench);
    bench.client_says("2");
    bench.dial_fails(DialFailure::Failed(B));
    assert_eq!(bench.pipe.excluded(bench.now), [B, A]);
    bench.dial_fails(DialFailure::Unauthorized { backend: C, status: 403 });
    assert_eq!(bench.state(), PipeState::Attached);
    assert!(bench.facts.contains(&Fact::Stayed { backend: A }));
    assert_eq!(bench.worker_got(), texts(&["1", "2"]), "what was held goes on to the old worker");
    assert_eq!(bench.pipe.excluded(bench.now), []);
    move_on(&mut bench);
    bench.settle();
    bench.attach(B);
    assert_eq!(bench.worker_got(), [closed(1001, FAREWELL)], "the next try may work");
}

#[test]
fn a_refusal_at_a_move_leaves_the_pipe_where_it_was() {
    let mut bench = Bench::new();
    bench.client_says("1");
    move_on(&mut bench);
    bench.dial_fails(DialFailure::Refused { backend: B, status: 404 });
    bench.no_worker_is_there();
    assert_eq!((bench.state(), bench.client_got()), (PipeState::Attached, vec![]));
    assert!(bench.facts.contains(&Fact::Stayed { backend: A }));
}

#[test]
fn a_new_worker_has_to_be_there_for_a_while_before_the_old_one_is_told_to_go() {
    let mut bench = Bench::with(|settings| settings.prove = ms(500));
    move_on(&mut bench);
    bench.attach(B);
    bench.worker_says("the old one goes on");
    assert_eq!(bench.client_got(), texts(&["the old one goes on"]));
    bench.wait(ms(499));
    assert_eq!((bench.worker_got(), bench.holds()), (vec![], Some(B)));
    bench.wait(ms(1));
    assert_eq!(bench.worker_got(), [closed(1001, FAREWELL)]);
}

#[test]
fn a_new_worker_that_says_something_has_proven_itself() {
    let mut bench = Bench::with(|settings| settings.prove = ms(500));
    move_on(&mut bench);
    bench.attach(B);
    bench.wait(ms(20));
    bench.held_talks();
    assert_eq!(bench.worker_got(), [closed(1001, FAREWELL)]);
}

#[test]
fn a_new_worker_that_answers_and_goes_leaves_the_pipe_where_it_was() {
    let mut bench = Bench::with(|settings| settings.prove = ms(500));
    move_on(&mut bench);
    bench.client_says("1");
    bench.attach(B);
    bench.wait(ms(499));
    bench.held_dies();
    assert!(bench.is_dialing(), "the next candidate");
    bench.no_worker_is_there();
    assert_eq!((bench.state(), bench.worker_got()), (PipeState::Attached, texts(&["1"])));
    assert!(bench.facts.contains(&Fact::Stayed { backend: A }));
    assert_eq!(bench.client_got(), []);
}

#[test]
fn a_move_whose_new_worker_has_not_proven_itself_in_time_is_given_up() {
    let mut bench = Bench::with(|settings| settings.prove = ms(500));
    move_on(&mut bench);
    bench.wait(ms(9_800));
    bench.attach(B);
    bench.wait(ms(200));
    assert_eq!((bench.state(), bench.worker_got(), bench.holds()), (PipeState::Attached, vec![], None));
    assert_eq!(bench.last_words[0].1, [closed(1001, "not needed after all")]);
}

#[test]
fn an_unproven_worker_takes_over_from_one_that_died() {
    let mut bench = Bench::with(|settings| settings.prove = ms(500));
    move_on(&mut bench);
    bench.client_says("1");
    bench.attach(B);
    bench.worker_dies(LinkLoss::Reset);
    assert_eq!((bench.state(), bench.worker_got()), (PipeState::Attached, texts(&["1"])));
}

#[test]
fn a_dial_that_hangs_is_given_up_and_the_pipe_is_where_it_was() {
    let mut bench = Bench::new();
    move_on(&mut bench);
    let attachment = bench.dial().attachment;
    bench.client_says("1");
    bench.wait(secs(10));
    assert!(bench.orders().contains(&Action::CancelDial(attachment)));
    assert_eq!((bench.state(), bench.worker_got()), (PipeState::Attached, texts(&["1"])));
    assert!(!bench.pipe.attached(attachment, B, None, bench.now), "it is not waited for");
}

#[test]
fn a_new_worker_that_refuses_the_pipe_is_no_worker() {
    let mut bench = Bench::new();
    move_on(&mut bench);
    assert!(!bench.attach_with(B, Some(ResumeAnswer::Refuse)));
    assert!(bench.is_dialing(), "the next candidate");
    bench.attach_with(C, Some(ResumeAnswer::New));
    assert_eq!(bench.holds(), Some(C));
}

#[test]
fn a_new_worker_that_dies_while_it_waits_is_replaced() {
    let mut bench = held();
    bench.held_dies();
    assert_eq!(bench.holds(), None);
    assert!(bench.pipe.excluded(bench.now).contains(&B));
    bench.attach(C);
    bench.settle();
    bench.worker_closes(1001, "");
    assert_eq!(bench.pipe.view().backend, Some(C));
}

#[test]
fn a_new_worker_that_dies_when_the_old_one_was_told_to_go_is_looked_for_again_once_that_one_has_gone() {
    let mut bench = held();
    bench.settle();
    bench.held_dies();
    assert!(!bench.is_dialing());
    bench.worker_closes(1001, "");
    bench.attach(C);
    bench.client_says("2");
    assert_eq!(bench.worker_got(), texts(&["2"]));
}

#[test]
fn an_old_worker_that_dies_in_doubt_is_followed_by_a_new_dial_since_the_one_that_waits_expects_another_message() {
    let mut bench = held();
    bench.worker_dies(LinkLoss::Reset);
    assert_eq!(bench.holds(), None);
    let order = bench.dial();
    assert_eq!((order.cause, order.first_seq, order.again), (Cause::Crash, Seq(1), 1));
    assert_eq!(bench.last_words.last().unwrap().1, [closed(1001, "not needed after all")]);
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&["1"]));
}

#[test]
fn an_old_worker_that_dies_with_nothing_in_doubt_is_followed_by_the_one_that_waits() {
    let mut bench = Bench::new();
    bench.client_says("1");
    bench.settle();
    move_on(&mut bench);
    bench.worker_dies(LinkLoss::Reset);
    assert!(bench.is_dialing(), "the dial under way goes on");
    bench.attach(B);
    assert_eq!((bench.state(), bench.pipe.view().backend), (PipeState::Attached, Some(B)));
    assert_eq!(bench.worker_got(), []);
}

#[test]
fn both_dying_is_an_ordinary_crash() {
    let mut bench = held();
    bench.held_dies();
    bench.worker_dies(LinkLoss::Reset);
    assert_eq!(bench.dial().cause, Cause::Crash);
    bench.attach(C);
    assert_eq!(bench.worker_got(), texts(&["1"]));
}

#[test]
fn an_old_worker_that_never_pongs_is_left_after_the_timeout_though_another_waits() {
    let mut bench = held();
    bench.wait(secs(10));
    assert_eq!((bench.dial().first_seq, bench.dial().again), (Seq(1), 1), "told anew where it begins");
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&["1"]));
}

#[test]
fn a_half_written_message_counts_as_the_old_workers() {
    let mut bench = Bench::new();
    bench.set_room(Side::Backend, 10);
    bench.client_says("a message of thirty bytes or so");
    move_on(&mut bench);
    assert_eq!(bench.dial().first_seq, Seq(2));
    bench.attach(B);
    bench.set_room(Side::Backend, usize::MAX);
    bench.pump();
    bench.settle();
    bench.worker_closes(1001, "");
    bench.client_says("next");
    assert_eq!(bench.worker_got(), texts(&["next"]));
}

#[test]
fn a_client_that_closes_lets_go_of_the_worker_that_waits() {
    let mut bench = held();
    bench.client_closes(1000, "bye");
    assert_eq!(bench.holds(), None);
    assert_eq!(bench.worker_got(), [text("1"), closed(1000, "bye")]);
    let mut bench = Bench::new();
    move_on(&mut bench);
    bench.client_vanishes();
    assert!(!bench.is_dialing());
}

#[test]
fn a_clients_last_messages_go_to_the_worker_that_waits() {
    let mut bench = held();
    bench.settle();
    bench.client_says("2");
    bench.client_closes(1000, "bye");
    assert_eq!(bench.holds(), Some(B), "it is owed a message");
    bench.worker_closes(1001, "");
    assert_eq!(bench.worker_got(), [text("2"), closed(1000, "bye")]);
}

#[test]
fn an_end_said_by_the_old_worker_lets_go_of_the_one_that_waits() {
    let mut bench = held();
    bench.worker_closes(1000, "over");
    assert_eq!((bench.holds(), bench.client_got()), (None, vec![closed(1000, "over")]));
}

#[test]
fn an_order_to_leave_at_once_waits_for_no_dial() {
    let mut bench = Bench::new();
    move_on(&mut bench);
    let attachment = bench.dial().attachment;
    leave(&mut bench);
    assert!(bench.orders().contains(&Action::CancelDial(attachment)));
    assert_eq!(bench.worker_got(), [closed(1001, FAREWELL)]);
    bench.worker_closes(1001, "");
    bench.attach(B);
}

#[test]
fn a_replay_held_for_its_delay_stays_held_for_a_pipe_that_stays() {
    let mut bench = Bench::with(|settings| settings.replay_delay = secs(2));
    bench.client_says("1");
    bench.worker_dies(LinkLoss::Eof);
    bench.attach(B);
    move_on(&mut bench);
    assert_eq!((bench.dial().first_seq, bench.dial().again), (Seq(1), 1));
    bench.no_worker_is_there();
    assert_eq!(bench.worker_got(), []);
    bench.wait(secs(2));
    assert_eq!(bench.worker_got(), texts(&["1"]));
}

#[test]
fn what_the_client_says_amid_a_move_is_neither_lost_nor_its_end_whatever_the_policies_say() {
    let mut bench = Bench::with(|settings| {
        settings.replay = ReplayPolicy::None;
        settings.overflow = OverflowPolicy::Close;
        settings.replay_bytes_max = 20;
    });
    move_on(&mut bench);
    bench.attach(B);
    for _ in 0..3 {
        bench.client_says("ten bytes.");
    }
    assert_eq!(bench.pipe.read_budget(Side::Client, usize::MAX), 0, "it is paused instead");
    bench.worker_closes(1001, "");
    assert_eq!(bench.worker_got(), texts(&["ten bytes."; 3]));
    assert_eq!(bench.pipe.view().up.lost, 0);
}
