//! How a pipe ends, and what each side is told.

use holdline_core::close::CloseFrame;
use holdline_core::frame::Side;
use holdline_core::ids::{Attachment, LaneName};
use holdline_core::pipe::{Action, Cause, EndedBy, Fact, LinkLoss, Loss, PipeState};
use holdline_core::settings::{ReplayPolicy, ReplayTail};

use crate::bench::{B, Bench, C, closed, ms, secs, text, texts};

#[test]
fn a_clients_close_reaches_the_worker_behind_its_messages_and_the_answer_comes_back_iw_14() {
    let mut bench = Bench::new();
    bench.client_says("last words");
    bench.client_closes(4001, "bye");
    assert_eq!(bench.worker_got(), [text("last words"), closed(4001, "bye")]);
    assert_eq!(bench.client_got(), [], "the worker may still have something to say");
    bench.worker_says("wait");
    bench.worker_closes(4001, "bye");
    assert_eq!(bench.client_got(), [text("wait"), closed(4001, "bye")]);
    assert!(bench.is_finished());
    assert_eq!(bench.orders().last(), Some(&Action::Finish));
}

#[test]
fn a_close_without_a_code_stays_without_one() {
    let mut bench = Bench::new();
    bench.client_closes(1005, "");
    assert_eq!(bench.worker_got(), [closed(1005, "")]);
    bench.worker_closes(1005, "");
    assert_eq!(bench.client_got(), [closed(1005, "")]);
    assert!(bench.is_finished());
}

#[test]
fn a_ping_behind_a_clients_close_is_not_answered() {
    let mut bench = Bench::new();
    bench.client_closes(1000, "bye");
    bench.client_frame(0x89, b"still there?");
    assert_eq!(bench.client_got(), []);
    bench.worker_closes(1000, "bye");
    assert_eq!(bench.client_got(), [closed(1000, "bye")]);
}

#[test]
fn a_worker_that_never_answers_a_close_is_given_up_after_the_close_timeout() {
    let mut bench = Bench::new();
    bench.client_closes(1000, "bye");
    bench.wait(ms(4_999));
    assert_eq!(bench.client_got(), []);
    bench.wait(ms(1));
    assert_eq!(bench.client_got(), [closed(1000, "bye")]);
    assert!(bench.is_finished());
}

#[test]
fn a_worker_that_drops_the_link_instead_of_answering_a_close_is_taken_at_its_word() {
    let mut bench = Bench::new();
    bench.client_says("last");
    bench.client_closes(1000, "bye");
    bench.worker_dies(LinkLoss::Eof);
    assert!(!bench.is_dialing());
    assert_eq!(bench.client_got(), [closed(1000, "bye")]);
    assert!(bench.is_finished());
}

#[test]
fn a_client_that_closes_during_an_outage_is_answered_and_its_messages_still_go_to_a_worker() {
    let mut bench = Bench::new();
    bench.worker_dies(LinkLoss::Eof);
    bench.client_says("do this last thing");
    bench.client_closes(1000, "done");
    assert_eq!(bench.client_got(), [closed(1000, "done")]);
    assert!(!bench.is_finished());
    bench.attach(B);
    assert_eq!(bench.worker_got(), [text("do this last thing"), closed(1000, "done")]);
    bench.worker_closes(1000, "");
    assert!(bench.is_finished());
    assert_eq!(bench.pipe.view().up.lost, 0);
}

#[test]
fn a_farewell_waits_for_the_replay_delay_like_everything_else() {
    let mut bench = Bench::with(|settings| settings.replay_delay = secs(2));
    bench.client_says("1");
    bench.worker_dies(LinkLoss::Eof);
    bench.client_closes(1000, "done");
    bench.attach(B);
    bench.wait(ms(1_999));
    assert_eq!(bench.worker_got(), []);
    bench.wait(ms(1));
    assert_eq!(bench.worker_got(), [text("1"), closed(1000, "done")]);
}

#[test]
fn a_client_that_closes_during_an_outage_with_nothing_waiting_ends_the_pipe_at_once() {
    let mut bench = Bench::new();
    bench.worker_dies(LinkLoss::Eof);
    bench.client_closes(1000, "done");
    assert_eq!(bench.client_got(), [closed(1000, "done")]);
    assert!(bench.is_finished());
}

#[test]
fn a_farewell_that_finds_no_worker_within_grace_is_counted_as_lost() {
    let mut bench = Bench::new();
    bench.worker_dies(LinkLoss::Eof);
    bench.client_says("never");
    bench.client_closes(1000, "done");
    bench.no_worker_is_there();
    bench.wait(secs(30));
    assert!(bench.is_finished());
    assert!(bench.facts.contains(&Fact::Lost { lane: LaneName::Up, reason: Loss::Grace, messages: 1 }));
    assert_eq!(bench.pipe.charged_bytes(), 0);
}

#[test]
fn a_farewell_waits_for_a_worker_no_longer_than_30_s_where_grace_has_no_end() {
    let mut bench = Bench::with(|settings| settings.grace = None);
    bench.worker_dies(LinkLoss::Eof);
    bench.client_says("never");
    bench.client_closes(1000, "done");
    bench.no_worker_is_there();
    bench.wait(secs(30));
    assert!(bench.is_finished());
    assert!(bench.facts.contains(&Fact::Lost { lane: LaneName::Up, reason: Loss::Grace, messages: 1 }));
}

#[test]
fn a_worker_that_dies_before_the_clients_last_messages_reached_it_is_replaced() {
    let mut bench = Bench::new();
    bench.set_room(Side::Backend, 3);
    bench.client_says("last");
    bench.client_closes(1000, "done");
    bench.worker_dies(LinkLoss::Reset);
    assert_eq!(bench.client_got(), [closed(1000, "done")]);
    bench.attach(B);
    assert_eq!(bench.worker_got(), [text("last"), closed(1000, "done")]);
}

#[test]
fn a_worker_that_dies_with_unconfirmed_messages_before_it_was_told_of_the_close_is_replaced() {
    let mut bench = Bench::new();
    bench.client_says("sent, not confirmed");
    bench.set_room(Side::Backend, 0);
    bench.client_closes(1000, "done");
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    assert_eq!(bench.worker_got(), [text("sent, not confirmed"), closed(1000, "done")]);
}

#[test]
fn a_client_that_vanishes_ends_the_pipe_and_its_worker_gets_what_it_is_owed_and_1001() {
    let mut bench = Bench::new();
    bench.client_says("1");
    bench.client_sends(&[0x81, 0xFE]);
    bench.client_vanishes();
    assert_eq!(bench.worker_got(), [text("1"), closed(1001, "client gone")]);
    assert!(bench.facts.iter().any(|fact| matches!(fact, Fact::Ended { by: EndedBy::Client, code: 1006, .. })));
    bench.worker_says("to no client");
    bench.worker_closes(1001, "");
    assert!(bench.is_finished());
    assert_eq!(bench.pipe.charged_bytes(), 0);
}

#[test]
fn a_client_that_vanishes_during_an_outage_ends_the_pipe() {
    let mut bench = Bench::new();
    bench.worker_dies(LinkLoss::Eof);
    let attachment = bench.dial().attachment;
    bench.client_says("waits");
    bench.client_vanishes();
    assert!(bench.orders().contains(&Action::CancelDial(attachment)));
    assert!(bench.is_finished());
    assert_eq!(bench.pipe.view().up.lost, 1);
    assert!(!bench.pipe.attached(attachment, B, None, bench.now));
}

#[test]
fn what_a_vanished_client_had_not_read_is_counted_as_lost() {
    let mut bench = Bench::new();
    bench.set_room(Side::Client, 3);
    bench.worker_says("half of this");
    bench.worker_says("none of this");
    bench.client_vanishes();
    assert!(bench.facts.contains(&Fact::Lost { lane: LaneName::Down, reason: Loss::PeerGone, messages: 2 }));
}

#[test]
fn an_operators_close_flushes_both_ways_and_says_1001_to_the_worker() {
    let mut bench = Bench::new();
    bench.set_room(Side::Client, 0);
    bench.worker_says("still due");
    bench.operator(|pipe, now| pipe.close(EndedBy::Operator, CloseFrame::new(1001, "shutting down"), now));
    assert_eq!(bench.worker_got(), [closed(1001, "going away")]);
    bench.set_room(Side::Client, usize::MAX);
    bench.pump();
    assert_eq!(bench.client_got(), [text("still due"), closed(1001, "shutting down")]);
    bench.worker_closes(1001, "");
    bench.client_closes(1001, "");
    assert!(bench.is_finished());
}

#[test]
fn an_operators_close_ends_in_bounded_time_though_both_sides_are_stuck_st_09() {
    let mut bench = Bench::new();
    bench.set_room(Side::Client, 3);
    bench.set_room(Side::Backend, 3);
    bench.worker_says("stuck on its way down");
    bench.client_says("stuck on its way up");
    bench.client_sends(&[0x81, 0xFE]);
    bench.operator(|pipe, now| pipe.close(EndedBy::Operator, CloseFrame::new(1001, "shutting down"), now));
    bench.wait(secs(5));
    assert!(bench.is_finished());
    assert_eq!((bench.pipe.view().up.lost, bench.pipe.view().down.lost), (1, 1));
    assert_eq!(bench.pipe.charged_bytes(), 0);
}

#[test]
fn a_worker_that_dies_while_an_ended_pipe_flushes_to_it_leaves_no_message_uncounted() {
    let mut bench = Bench::new();
    bench.set_room(Side::Backend, 3);
    bench.client_says("never read");
    bench.client_sends(&[0x81, 0xFE, 1]);
    bench.operator(|pipe, now| pipe.close(EndedBy::Operator, CloseFrame::new(1001, "shutting down"), now));
    bench.worker_dies(LinkLoss::Reset);
    bench.client_vanishes();
    assert!(bench.is_finished());
    assert_eq!(bench.pipe.view().up.lost, 1);
    assert_eq!(bench.pipe.charged_bytes(), 0);
}

#[test]
fn nothing_is_relayed_after_the_pipe_began_to_end() {
    let mut bench = Bench::new();
    bench.operator(|pipe, now| pipe.close(EndedBy::Operator, CloseFrame::new(1001, ""), now));
    bench.client_says("too late");
    bench.worker_says("too late");
    assert_eq!(bench.worker_got(), [closed(1001, "going away")]);
    assert_eq!(bench.client_got(), [closed(1001, "")]);
    assert_eq!(bench.state(), PipeState::Closing);
}

#[test]
fn a_close_is_said_once_however_many_reasons_there_are() {
    let mut bench = Bench::new();
    bench.operator(|pipe, now| pipe.close(EndedBy::Operator, CloseFrame::new(1001, "first"), now));
    bench.operator(|pipe, now| pipe.close(EndedBy::Holdline, CloseFrame::new(1011, "second"), now));
    bench.worker_closes(1000, "crossed");
    assert_eq!(bench.client_got(), [closed(1001, "first")]);
    assert_eq!(bench.facts.iter().filter(|fact| matches!(fact, Fact::Ended { .. })).count(), 1);
}

#[test]
fn closes_that_cross_end_the_pipe_with_the_workers_word() {
    let mut bench = Bench::new();
    bench.set_room(Side::Backend, 0);
    bench.client_says("unread");
    bench.client_closes(1000, "client's");
    bench.worker_closes(4000, "worker's");
    assert_eq!(bench.client_got(), [closed(4000, "worker's")]);
    assert!(bench.is_finished());
    assert_eq!(bench.pipe.view().up.lost, 1);
}

#[test]
fn a_worker_restarting_while_the_client_says_goodbye_does_not_swallow_its_last_messages() {
    let mut bench = Bench::new();
    bench.set_room(Side::Backend, 0);
    bench.client_says("must arrive");
    bench.client_closes(1000, "done");
    bench.worker_closes(1012, "restarting");
    assert_eq!(bench.client_got(), [closed(1000, "done")]);
    bench.attach(C);
    assert_eq!(bench.worker_got(), [text("must arrive"), closed(1000, "done")]);
}

#[test]
fn messages_in_doubt_when_a_pipe_ends_are_counted() {
    let mut bench = Bench::with(|settings| settings.replay = ReplayPolicy::Unsent);
    bench.client_says("sent, never confirmed");
    bench.client_vanishes();
    bench.worker_dies(LinkLoss::Reset);
    assert!(bench.is_finished());
    assert_eq!(bench.pipe.view().up.in_doubt, 1);
}

#[test]
fn a_worker_that_answers_our_close_has_read_everything_before_it() {
    let mut bench = Bench::new();
    bench.client_says("1");
    bench.client_closes(1000, "");
    bench.worker_closes(1000, "");
    assert_eq!(bench.pipe.view().up.in_doubt, 0);
    assert_eq!(bench.worker_got(), [text("1"), closed(1000, "")]);
}

#[test]
fn a_client_that_does_not_answer_our_close_is_dropped_after_the_close_timeout() {
    let mut bench = Bench::new();
    bench.worker_closes(1000, "over");
    assert_eq!(bench.client_got(), [closed(1000, "over")]);
    bench.wait(secs(5));
    assert!(bench.drops_client());
    assert!(bench.is_finished());
    assert_eq!(bench.client_got(), texts(&[]));
}

#[test]
fn a_pong_that_waited_for_room_does_not_stand_behind_the_close_frame() {
    let mut bench = Bench::new();
    bench.set_room(Side::Client, 0);
    for _ in 0..10 {
        bench.client_frame(0x89, &[b'p'; 125]);
    }
    bench.operator(|pipe, now| pipe.close(EndedBy::Operator, CloseFrame::new(1001, "by order"), now));
    bench.set_room(Side::Client, 600);
    bench.pump();
    bench.set_room(Side::Client, usize::MAX);
    bench.pump();
    assert_eq!(bench.client_got().last(), Some(&closed(1001, "by order")));
}

#[test]
fn an_eviction_frees_what_waits_either_way_at_once_and_says_what_was_lost() {
    let mut bench = Bench::with(|settings| settings.replay = ReplayPolicy::Unsent);
    bench.worker_dies(LinkLoss::Eof);
    bench.client_frame(0x82, &[1; 100_000]);
    bench.client_frame(0x82, &[1; 100_000]);
    bench.operator(|pipe, now| {
        pipe.evict(now);
    });
    assert_eq!(bench.client_got(), [closed(1013, "out of memory")]);
    assert!(bench.pipe.view().memory_bytes < 1000, "{}", bench.pipe.view().memory_bytes);
    assert!(bench.facts.contains(&Fact::Lost { lane: LaneName::Up, reason: Loss::Evicted, messages: 2 }));
    let ended = Fact::Ended { by: EndedBy::Holdline, code: 1013, reason: "out of memory".into() };
    assert!(bench.facts.contains(&ended));
    bench.client_closes(1013, "");
    assert!(bench.is_finished());
}

#[test]
fn an_eviction_leaves_a_worker_that_did_nothing_wrong_with_a_word() {
    let mut bench = Bench::new();
    bench.set_room(Side::Client, 3);
    bench.worker_says("half of this was taken");
    bench.worker_frame(0x82, &[1; 100_000]);
    bench.operator(|pipe, now| {
        pipe.evict(now);
    });
    assert_eq!(bench.last_words, [(Attachment::FIRST, vec![closed(1001, "evicted")])]);
    let drop = |order: &Action| matches!(order, Action::DropBackend { died, .. } if !died);
    assert!(bench.orders().iter().any(drop), "no worker has died");
    assert!(bench.facts.contains(&Fact::Lost { lane: LaneName::Down, reason: Loss::Evicted, messages: 1 }));
    bench.set_room(Side::Client, usize::MAX);
    bench.pump();
    assert_eq!(bench.client_got(), [text("half of this was taken"), closed(1013, "out of memory")]);
}

#[test]
fn a_client_is_not_told_of_its_workers_end_behind_messages_that_an_eviction_has_lost() {
    let worker_closes = |bench: &mut Bench| bench.worker_closes(1000, "all of it");
    let by_order = |bench: &mut Bench| {
        bench.operator(|pipe, now| pipe.close(EndedBy::Operator, CloseFrame::new(1001, "by order"), now));
    };
    for ends in [&worker_closes as &dyn Fn(&mut Bench), &by_order] {
        let mut bench = Bench::new();
        bench.set_room(Side::Client, 3);
        bench.worker_says("half of this was taken");
        bench.worker_frame(0x82, &[1; 100_000]);
        ends(&mut bench);
        bench.operator(|pipe, now| assert!(pipe.evict(now), "it ends in another way"));
        bench.set_room(Side::Client, usize::MAX);
        bench.pump();
        assert_eq!(bench.client_got(), [text("half of this was taken"), closed(1013, "out of memory")]);
        let last = bench.facts.iter().rfind(|fact| matches!(fact, Fact::Ended { .. }));
        let told = Fact::Ended { by: EndedBy::Holdline, code: 1013, reason: "out of memory".into() };
        assert_eq!(last, Some(&told), "what it was told is what is reported");
    }
}

#[test]
fn a_pipe_that_is_ending_anyway_keeps_its_end_where_an_eviction_finds_nothing_to_give_up() {
    let mut bench = Bench::new();
    bench.set_room(Side::Client, 0);
    bench.worker_closes(1000, "all of it");
    bench.operator(|pipe, now| assert!(!pipe.evict(now)));
    bench.set_room(Side::Client, usize::MAX);
    bench.pump();
    assert_eq!(bench.client_got(), [closed(1000, "all of it")]);
}

#[test]
fn a_client_that_said_goodbye_hears_its_answer_whatever_an_eviction_loses_before_it() {
    let mut bench = Bench::new();
    bench.client_closes(4001, "bye");
    bench.set_room(Side::Client, 0);
    bench.worker_says("lost");
    bench.worker_closes(4001, "bye");
    bench.operator(|pipe, now| assert!(!pipe.evict(now)));
    bench.set_room(Side::Client, usize::MAX);
    bench.pump();
    assert_eq!(bench.client_got(), [closed(4001, "bye")]);
    let ends = bench.facts.iter().filter(|fact| matches!(fact, Fact::Ended { .. }));
    assert_eq!(ends.count(), 1, "{:?}", bench.facts);
}

#[test]
fn a_client_that_has_not_confirmed_what_an_eviction_forgot_is_told_of_the_end_and_awaited_no_more() {
    let mut bench = Bench::with(|settings| settings.client_grace = Some(secs(60)));
    bench.worker_says("given, and not confirmed");
    bench.set_room(Side::Client, 0);
    bench.worker_closes(4001, "done");
    assert!(bench.pipe.awaits_client());
    bench.operator(|pipe, now| assert!(!pipe.evict(now), "it has all that it is told the end of"));
    assert!(!bench.pipe.awaits_client(), "on another link, the message would be missing");
    bench.set_room(Side::Client, usize::MAX);
    bench.pump();
    assert_eq!(bench.client_got(), [text("given, and not confirmed"), closed(4001, "done")]);
}

#[test]
fn an_evicted_pipe_says_no_word_inside_a_message_that_its_worker_has_in_part() {
    let mut bench = Bench::new();
    bench.set_room(Side::Backend, 9);
    bench.client_says("half of this was taken");
    bench.operator(|pipe, now| assert!(pipe.evict(now)));
    assert_eq!(bench.last_words, [(Attachment::FIRST, Vec::new())], "a word would be read as a part of the message");
}

#[test]
fn a_clients_goodbye_behind_a_move_forgets_what_was_kept_for_the_next_worker() {
    let mut bench = Bench::with(|settings| settings.replay_tail = ReplayTail { messages: 8, ..ReplayTail::default() });
    bench.client_says("confirmed, and kept");
    bench.settle();
    bench.operator(|pipe, now| pipe.leave(Cause::Drain, now));
    assert_eq!(bench.worker_got().last(), Some(&closed(1001, "moving to another worker")));
    assert!(bench.pipe.charged_bytes() > 0, "its tail");
    bench.client_closes(4001, "bye");
    assert_eq!(bench.client_got(), [closed(4001, "bye")]);
    assert!(bench.is_finished());
    assert_eq!((bench.pipe.charged_bytes(), bench.pipe.view().up.lost), (0, 0));
}

#[test]
fn a_client_that_said_goodbye_hears_nothing_behind_what_an_eviction_has_lost() {
    let mut bench = Bench::new();
    bench.client_closes(1000, "");
    bench.set_room(Side::Client, 0);
    bench.worker_says("lost");
    bench.operator(|pipe, now| assert!(!pipe.evict(now)));
    assert!(bench.facts.contains(&Fact::Lost { lane: LaneName::Down, reason: Loss::Evicted, messages: 1 }));
    bench.worker_says("behind it");
    bench.set_room(Side::Client, usize::MAX);
    bench.pump();
    assert_eq!(bench.client_got(), [closed(1013, "out of memory")]);
}

#[test]
fn an_eviction_ends_the_wait_for_a_worker_that_a_clients_last_messages_are_for() {
    let mut bench = Bench::new();
    bench.worker_dies(LinkLoss::Eof);
    bench.client_frame(0x82, &[1; 100_000]);
    bench.client_closes(1000, "");
    assert!(!bench.is_finished());
    bench.operator(|pipe, now| assert!(!pipe.evict(now)));
    assert!(bench.is_finished());
    assert!(bench.facts.contains(&Fact::Lost { lane: LaneName::Up, reason: Loss::Evicted, messages: 1 }));
}

#[test]
fn a_peer_that_breaks_a_rule_while_the_pipe_closes_is_dropped_at_once() {
    let mut bench = Bench::new();
    bench.operator(|pipe, now| pipe.close(EndedBy::Operator, CloseFrame::new(1001, "going away"), now));
    assert_eq!(bench.client_got(), [closed(1001, "going away")]);
    bench.client_sends(&[0x83, 0x80, 0, 0, 0, 0]);
    assert!(bench.drops_client() && !bench.is_finished(), "the worker has not answered");
    assert_eq!(bench.client_got(), [], "it is told nothing more");
    bench.worker_sends(&[0x83, 0]);
    assert!(bench.is_finished());
}
