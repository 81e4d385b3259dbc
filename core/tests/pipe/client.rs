//! A client that is lost and comes back.

use std::time::Duration;

use holdline_core::close::CloseFrame;
use holdline_core::frame::{Kind, Side};
use holdline_core::ids::{Generation, LaneName, Seq};
use holdline_core::leg::barrier::Level;
use holdline_core::pipe::{Action, DialFailure, EndedBy, Fact, Input, LinkLoss, Peer, PipeState, Unsaid};
use holdline_core::settings::{DownPolicy, PipeSettings};
use holdline_core::time::Time;

use crate::bench::{B, Bench, closed, ms, secs, text, texts};
use crate::wire::{self, Item};

const GRACE: Duration = Duration::from_secs(60);

/// A pipe whose client may come back within a minute.
fn bench() -> Bench {
    bench_with(|_| {})
}

fn bench_with(change: impl FnOnce(&mut PipeSettings)) -> Bench {
    Bench::with(|settings| {
        settings.client_grace = Some(GRACE);
        settings.client_heartbeat.interval = Duration::ZERO;
        settings.backend_heartbeat.interval = Duration::ZERO;
        change(settings);
    })
}

fn ended(bench: &Bench) -> Option<(EndedBy, u16)> {
    bench.facts.iter().find_map(|fact| match fact {
        Fact::Ended { by, code, .. } => Some((*by, *code)),
        _ => None,
    })
}

#[test]
fn a_client_that_says_where_it_resumes_is_sent_what_lies_behind() {
    let mut bench = bench();
    for payload in ["1", "2", "3"] {
        bench.worker_says(payload);
    }
    bench.client_vanishes();
    bench.worker_says("4");
    assert!(bench.client_resumes(Some(Seq(2))));
    assert_eq!(bench.client_got(), texts(&["3", "4"]));
    assert_eq!(bench.pipe.view().down.confirmed, Seq(2));
    let again = Fact::ClientAttached { generation: Generation(2), away: Some(Duration::ZERO), again: 1 };
    assert!(bench.facts.contains(&again), "{:?}", bench.facts);
    bench.client_vanishes();
    assert!(bench.client_resumes(Some(Seq(9))), "it cannot have more than there is");
    bench.worker_says("5");
    assert_eq!(bench.client_got(), texts(&["5"]));
}

#[test]
fn a_client_that_was_lost_is_sent_again_what_it_did_not_confirm_and_then_the_rest() {
    let mut bench = bench();
    bench.worker_says("1");
    bench.wait(ms(25));
    bench.client_pongs();
    bench.worker_says("2");
    assert_eq!(bench.client_got(), texts(&["1", "2"]));
    bench.client_vanishes();
    assert_eq!(bench.state(), PipeState::ClientDetached);
    assert!(bench.drops_client(), "the dead link goes");
    bench.worker_says("3");
    bench.wait(secs(59));
    assert!(bench.client_attaches());
    assert_eq!(bench.client_got(), texts(&["2", "3"]), "1 was confirmed");
    assert_eq!(bench.state(), PipeState::Attached);
    assert!(bench.facts.contains(&Fact::ClientDetached { generation: Generation::FIRST, in_doubt: 1 }));
    let again = Fact::ClientAttached { generation: Generation(2), away: Some(secs(59)), again: 1 };
    assert!(bench.facts.contains(&again), "{:?}", bench.facts);
    assert!(bench.facts.contains(&Fact::Replayed { lane: LaneName::Down, messages: 1 }));
    assert_eq!((bench.pipe.view().down.in_doubt, bench.pipe.view().down.level), (1, Level::Pong));
    bench.client_says("here again");
    assert_eq!(bench.worker_got(), texts(&["here again"]));
    bench.wait(ms(25));
    bench.client_pongs();
    assert_eq!(bench.pipe.view().down.confirmed, Seq(3));
    assert_eq!(bench.pipe.charged_bytes(), 32, "the client's own message, and nothing downwards");
}

#[test]
fn a_message_that_was_half_written_to_the_lost_link_begins_anew_on_the_next() {
    let mut bench = bench();
    bench.set_room(Side::Client, 5);
    bench.worker_says("a whole message");
    bench.client_vanishes();
    assert!(bench.client_attaches());
    assert_eq!(bench.client_got(), texts(&["a whole message"]));
}

#[test]
fn half_a_message_of_the_lost_link_is_not_spliced_into_what_the_next_one_says() {
    let mut bench = bench();
    bench.client_sends(&[0x01, 0x85, 0, 0, 0, 0, b'h', b'a']);
    bench.client_vanishes();
    assert!(bench.client_attaches());
    bench.client_says("whole");
    assert_eq!(bench.worker_got(), texts(&["whole"]));
}

#[test]
fn late_news_of_an_old_link_change_nothing() {
    let mut bench = bench();
    bench.client_vanishes();
    assert!(bench.client_attaches());
    let before = bench.pipe.view();
    let old = Peer::Client(Generation::FIRST);
    bench.pipe.lost(old, LinkLoss::Reset, bench.now);
    bench.pipe.receive(old, Input::Copy(&[0x81, 0x81, 0, 0, 0, 0, b'x']), bench.now);
    bench.pump();
    assert_eq!(bench.pipe.view(), before);
    assert_eq!(bench.worker_got(), []);
}

#[test]
fn without_a_grace_a_lost_client_ends_its_pipe_and_is_asked_for_nothing() {
    let mut bench = Bench::new();
    bench.worker_says("1");
    bench.wait(ms(100));
    assert!(bench.client_pings.is_empty(), "no barrier");
    assert_eq!(bench.pipe.view().down.confirmed, Seq(1), "written is confirmed");
    assert!(!bench.client_attaches(), "it is not waited for");
    bench.client_vanishes();
    assert_eq!(ended(&bench), Some((EndedBy::Client, 1006)));
    assert_eq!(bench.worker_got(), [closed(1001, "client gone")]);
}

#[test]
fn an_idle_client_is_not_pinged_for_nothing() {
    let mut bench = bench();
    bench.wait(secs(10));
    assert!(bench.client_pings.is_empty());
    bench.worker_says("1");
    bench.wait(secs(10));
    assert_eq!(bench.client_pings.len(), 1, "one outstanding at most");
}

#[test]
fn a_client_that_stays_away_for_too_long_ends_the_pipe_and_its_worker_is_told_1001() {
    let mut bench = bench();
    bench.worker_says("sent");
    bench.client_vanishes();
    bench.worker_says("kept");
    bench.wait(GRACE - ms(1));
    assert_eq!(ended(&bench), None);
    bench.wait(ms(1));
    assert_eq!(ended(&bench), Some((EndedBy::Client, 1006)));
    assert!(bench.facts.contains(&Fact::ClientExpired { away: GRACE }));
    assert_eq!(bench.worker_got(), [closed(1001, "client gone")]);
    assert_eq!(bench.pipe.view().down.lost, 2);
    assert!(!bench.client_attaches(), "it comes too late");
    bench.worker_closes(1001, "");
    assert!(bench.is_finished());
    assert_eq!(bench.pipe.charged_bytes(), 0);
}

#[test]
fn a_clean_close_of_the_client_detaches_nothing() {
    let mut bench = bench();
    bench.worker_says("1");
    bench.client_closes(1000, "bye");
    assert_eq!(bench.worker_got(), [closed(1000, "bye")]);
    assert!(!bench.client_attaches());
    bench.worker_closes(1000, "bye");
    assert!(bench.is_finished());
    let left = Fact::LeftInDoubt { lane: LaneName::Down, messages: 1 };
    assert!(bench.facts.contains(&left), "it never said that it had it: {:?}", bench.facts);
}

#[test]
fn a_client_that_leaves_its_page_is_awaited_where_pages_are_loaded_again() {
    let mut bench = bench_with(|settings| settings.client_navigates = true);
    bench.worker_says("1");
    bench.client_closes(1001, "");
    assert_eq!((bench.state(), ended(&bench)), (PipeState::ClientDetached, None));
    let words = bench.client_last_words.pop();
    assert_eq!(words, Some((Generation::FIRST, vec![closed(1001, "")])), "it is answered all the same");
    assert_eq!(bench.worker_got(), []);
    assert!(bench.client_attaches());
    assert_eq!(bench.client_got(), texts(&["1"]));
    bench.client_closes(1000, "bye");
    assert_eq!(bench.worker_got(), [closed(1000, "bye")], "another code is a goodbye");
}

#[test]
fn a_client_that_answers_our_own_1001_has_not_left_its_page() {
    let mut bench = bench_with(|settings| settings.client_navigates = true);
    bench.operator(|pipe, now| pipe.close(EndedBy::Operator, CloseFrame::new(1001, "server is going away"), now));
    bench.client_closes(1001, "server is going away");
    assert_eq!(ended(&bench), Some((EndedBy::Operator, 1001)));
    assert!(!bench.client_attaches());
}

#[test]
fn a_client_is_pinged_when_it_is_asked_for_and_only_if_it_can_be_heard() {
    let mut bench = bench();
    assert!(bench.pipe.ping_client());
    bench.pump();
    assert_eq!(bench.client_pings.len(), 1);
    bench.client_pongs();
    assert_eq!(bench.state(), PipeState::Attached);
    bench.client_vanishes();
    assert!(!bench.pipe.ping_client());
}

#[test]
fn iw_15_st_06_a_second_link_of_the_same_client_replaces_the_first_which_is_told_1000() {
    let mut bench = bench();
    for round in 1..=1000_u64 {
        bench.worker_says(&round.to_string());
        assert_eq!(bench.client_got(), texts(&[&round.to_string()]));
        bench.wait(ms(25));
        bench.client_pongs();
        assert!(bench.client_attaches());
        let words = bench.client_last_words.pop();
        assert_eq!(words, Some((Generation(round), vec![closed(1000, "replaced")])));
        assert_eq!((bench.state(), ended(&bench)), (PipeState::Attached, None));
    }
    bench.client_says("still here");
    assert_eq!(bench.worker_got(), texts(&["still here"]));
    let replaced = Fact::ClientAttached { generation: Generation(1001), away: None, again: 0 };
    assert!(bench.facts.contains(&replaced));
}

#[test]
fn the_replaced_link_is_left_the_rest_of_what_it_has_begun_to_get() {
    let mut bench = bench();
    bench.set_room(Side::Client, 4);
    bench.worker_says("half written");
    assert!(bench.client_attaches());
    let words = bench.client_last_words.pop();
    assert_eq!(words, Some((Generation::FIRST, vec![text("half written"), closed(1000, "replaced")])));
    assert_eq!(bench.client_got(), texts(&["half written"]), "it is unknown whether it came through");
}

#[test]
fn while_the_client_is_away_the_worker_is_read_up_to_the_bound_of_the_replay_buffer() {
    let mut bench = bench_with(|settings| settings.replay_bytes_max = 1000);
    bench.client_vanishes();
    assert_eq!(bench.pipe.read_budget(Side::Backend, usize::MAX), 1000);
    // Each is charged its header of four bytes and sixteen more.
    bench.worker_says(&"x".repeat(580));
    assert_eq!(bench.pipe.read_budget(Side::Backend, usize::MAX), 400);
    bench.worker_says(&"y".repeat(380));
    assert_eq!(bench.pipe.read_budget(Side::Backend, usize::MAX), 0, "exactly the bound");
    bench.wait(secs(30));
    assert_eq!(ended(&bench), None, "a client that is away is not too slow");
    assert!(bench.client_attaches());
    assert_eq!(bench.client_got(), texts(&[&"x".repeat(580), &"y".repeat(380)]));
    assert_eq!(bench.pipe.read_budget(Side::Backend, usize::MAX), 0, "not confirmed yet");
    bench.wait(ms(25));
    bench.client_pongs();
    assert_eq!(bench.pipe.read_budget(Side::Backend, usize::MAX), usize::MAX);
}

#[test]
fn where_only_the_newest_count_the_newest_wait_for_the_client() {
    let mut bench = bench_with(|settings| settings.down = DownPolicy::Latest(2.try_into().unwrap()));
    bench.worker_says("0");
    bench.wait(ms(100));
    assert!(bench.client_pings.is_empty(), "nothing is sent twice, so no pong is asked for");
    bench.client_vanishes();
    for n in 1..=9 {
        bench.worker_says(&n.to_string());
    }
    assert_eq!(bench.pipe.view().down.dropped, 7);
    assert!(bench.client_attaches());
    assert_eq!(bench.client_got(), texts(&["8", "9"]));
}

#[test]
fn what_a_worker_says_at_its_end_waits_for_the_client() {
    let mut bench = bench();
    bench.client_vanishes();
    bench.worker_says("the last thing");
    bench.worker_closes(4001, "done");
    assert_eq!((bench.state(), ended(&bench)), (PipeState::Closing, Some((EndedBy::Backend, 4001))));
    bench.wait(secs(30));
    assert!(bench.client_attaches());
    assert_eq!(bench.client_got(), [text("the last thing"), closed(4001, "done")]);
    bench.client_closes(4001, "");
    assert!(bench.is_finished());
}

#[test]
fn a_client_that_is_lost_before_it_heard_of_the_end_may_come_back_for_it() {
    let mut bench = bench();
    bench.set_room(Side::Client, 3);
    bench.worker_says("the last thing");
    bench.worker_closes(4001, "done");
    bench.client_vanishes();
    assert!(!bench.is_finished());
    assert!(bench.client_attaches());
    assert_eq!(bench.client_got(), [text("the last thing"), closed(4001, "done")]);
    bench.client_vanishes();
    assert!(bench.is_finished(), "it was told");
}

#[test]
fn a_client_that_takes_nothing_any_more_is_taken_for_lost() {
    let mut bench = bench();
    bench.set_room(Side::Client, 3);
    bench.worker_says("stuck");
    bench.wait(secs(16));
    assert_eq!((bench.state(), ended(&bench)), (PipeState::ClientDetached, None));
    assert!(bench.client_attaches());
    assert_eq!(bench.client_got(), texts(&["stuck"]));
}

#[test]
fn both_legs_may_be_detached_and_each_comes_back_by_itself() {
    let mut bench = bench();
    bench.client_says("for the next worker");
    bench.worker_says("for the client");
    bench.client_got();
    bench.worker_got();
    bench.client_vanishes();
    bench.worker_dies(LinkLoss::Reset);
    assert_eq!(bench.state(), PipeState::Detached);
    bench.attach(B);
    assert_eq!(bench.state(), PipeState::ClientDetached);
    assert_eq!(bench.worker_got(), texts(&["for the next worker"]));
    assert!(bench.client_attaches());
    assert_eq!(bench.client_got(), texts(&["for the client"]));
}

#[test]
fn without_a_worker_within_its_grace_the_pipe_of_an_absent_client_ends_at_once() {
    let mut bench = bench();
    bench.client_vanishes();
    bench.worker_dies(LinkLoss::Reset);
    while !bench.is_finished() {
        if bench.is_dialing() {
            bench.dial_fails(DialFailure::NoCandidate { retry_after: None });
        }
        bench.wait(secs(1));
    }
    assert_eq!(ended(&bench), Some((EndedBy::Holdline, 1013)));
}

#[test]
fn an_operator_and_want_of_memory_end_the_pipe_of_an_absent_client() {
    let close = |bench: &mut Bench| {
        bench.operator(|pipe, now| pipe.close(EndedBy::Operator, CloseFrame::new(1001, "going away"), now));
        assert_eq!(bench.worker_got(), [closed(1001, "going away")]);
        bench.worker_closes(1001, "");
    };
    let evict = |bench: &mut Bench| bench.operator(|pipe, now| assert!(pipe.evict(now)));
    for end in [&close as &dyn Fn(&mut Bench), &evict] {
        let mut bench = bench();
        bench.worker_says("1");
        bench.client_vanishes();
        bench.worker_says("2");
        end(&mut bench);
        assert!(bench.is_finished());
        assert_eq!((bench.pipe.view().down.lost, bench.pipe.charged_bytes()), (2, 0));
        assert!(!bench.client_attaches());
    }
}

#[test]
fn a_client_that_answers_no_pings_though_it_talks_confirms_by_what_is_written() {
    let mut bench = bench();
    bench.worker_says("1");
    bench.wait(ms(25));
    bench.client_says("I know no pings");
    bench.wait(secs(11));
    assert_eq!((bench.pipe.view().down.level, bench.pipe.view().down.confirmed), (Level::Written, Seq(1)));
    bench.worker_says("2");
    assert_eq!(bench.pipe.view().down.confirmed, Seq(2));
}

#[test]
fn a_client_that_has_answered_pings_and_answers_no_more_is_taken_for_lost_though_it_talks() {
    for answers_at_first in [true, false] {
        let mut bench = bench_with(|settings| {
            settings.client_heartbeat.interval = secs(10);
            settings.client_heartbeat.timeout = secs(20);
        });
        bench.wait(secs(10));
        if answers_at_first {
            bench.client_pongs();
        }
        for _ in 0..19 {
            bench.wait(secs(1));
            bench.client_says("still here");
        }
        assert_eq!(bench.state(), PipeState::Attached);
        for _ in 0..12 {
            bench.wait(secs(1));
            if bench.state() == PipeState::Attached {
                bench.client_says("still here");
            }
        }
        let expected = if answers_at_first { PipeState::ClientDetached } else { PipeState::Attached };
        assert_eq!(bench.state(), expected);
    }
}

#[test]
fn a_client_whose_pong_waits_unread_is_not_taken_for_one_that_answers_none() {
    let mut bench = bench();
    bench.worker_says("1");
    bench.wait(ms(25));
    bench.client_says("alive");
    bench.operator(|pipe, now| pipe.set_paused(Side::Client, true, now));
    bench.wait(secs(30));
    bench.operator(|pipe, now| pipe.set_paused(Side::Client, false, now));
    bench.client_vanishes();
    assert!(bench.client_attaches());
    bench.client_got();
    assert_eq!(bench.pipe.view().down.in_doubt, 1, "it is unknown whether it had it: {:?}", bench.facts);
}

#[test]
fn what_an_evicted_client_was_sent_and_never_confirmed_is_in_doubt() {
    let mut bench = bench();
    bench.worker_says("1");
    bench.operator(|pipe, now| assert!(pipe.evict(now)));
    assert!(bench.facts.contains(&Fact::LeftInDoubt { lane: LaneName::Down, messages: 1 }), "{:?}", bench.facts);
    assert_eq!((bench.pipe.view().down.in_doubt, bench.pipe.view().down.lost), (1, 0));
}

#[test]
fn what_waits_behind_a_half_written_message_of_an_evicted_client_is_lost_and_not_in_doubt_too() {
    let mut bench = bench();
    bench.set_room(Side::Client, 3);
    bench.worker_says("half written");
    bench.worker_says("waits");
    bench.operator(|pipe, now| assert!(pipe.evict(now)));
    bench.set_room(Side::Client, usize::MAX);
    bench.pump();
    assert_eq!(bench.client_got(), [text("half written"), closed(1013, "out of memory")]);
    bench.client_vanishes();
    assert_eq!((bench.pipe.view().down.lost, bench.pipe.view().down.in_doubt), (1, 1));
}

#[test]
fn what_was_dropped_behind_a_half_written_message_is_neither_in_doubt_nor_awaited_once_that_message_went() {
    // The rest of the message leaves, or the ping behind it too; the close frame does not.
    for (room, in_doubt) in [(11, 1), (11 + 10, 0)] {
        let mut bench = bench();
        bench.set_room(Side::Client, 3);
        bench.worker_says("half written");
        bench.wait(ms(25));
        bench.pump();
        bench.worker_says("waits");
        bench.worker_says("waits too");
        bench.worker_closes(4001, "done");
        bench.operator(|pipe, now| assert!(pipe.evict(now), "it ends in another way"));
        bench.set_room(Side::Client, room);
        bench.pump();
        assert_eq!(bench.client_got(), texts(&["half written"]));
        bench.client_pongs();
        bench.hand_over(Time::from_micros(77_000_000), ms(5));
        bench.client_vanishes();
        bench.hand_over(Time::from_micros(99_000_000), ms(5));
        let view = bench.pipe.view();
        assert_eq!((view.down.lost, view.down.in_doubt), (2, in_doubt), "{:?}", bench.facts);
        assert!(bench.client_attaches());
        let again = Fact::ClientAttached { generation: Generation(2), away: Some(ms(5)), again: in_doubt };
        assert!(bench.facts.contains(&again), "{:?}", bench.facts);
        assert_eq!(bench.client_got().last(), Some(&closed(1013, "out of memory")));
    }
}

#[test]
fn a_client_that_comes_before_its_old_link_has_taken_the_end_is_told_it_on_the_new_one() {
    let mut bench = bench();
    bench.set_room(Side::Client, 3);
    bench.worker_says("the last thing");
    bench.worker_closes(4001, "done");
    assert!(bench.pipe.awaits_client(), "its old link is not known to be dead");
    assert!(bench.client_attaches());
    assert_eq!(bench.client_got(), [text("the last thing"), closed(4001, "done")]);
    assert!(!bench.client_attaches(), "it was told");
}

#[test]
fn a_client_whose_message_is_too_big_at_the_end_loses_its_link_and_may_come_back_for_the_end() {
    let mut bench = bench();
    bench.set_room(Side::Client, 3);
    bench.worker_says("the last thing");
    bench.worker_closes(4001, "done");
    bench.client_sends(&[0x82, 0xff, 0, 0, 0, 0, 0x7f, 0, 0, 0, 0, 0, 0, 0]);
    assert!(!bench.is_finished());
    assert!(bench.client_attaches());
    assert_eq!(bench.client_got(), [text("the last thing"), closed(4001, "done")]);
}

#[test]
fn the_pong_of_a_client_that_is_too_slow_for_the_answer_to_its_goodbye_still_counts() {
    let mut bench = bench_with(|settings| settings.stall_max = secs(1));
    let message = wire::frame(0x81, b"taken at last", None).len();
    bench.set_room(Side::Client, 5);
    bench.worker_says("taken at last");
    bench.wait(ms(25));
    bench.pump();
    bench.client_closes(4001, "bye");
    bench.wait(secs(1));
    bench.worker_closes(4001, "bye");
    // The rest of the message, the ping behind it, and the first byte of the close frame.
    bench.set_room(Side::Client, message - 5 + 10 + 1);
    bench.pump();
    bench.client_pongs();
    bench.set_room(Side::Client, usize::MAX);
    bench.pump();
    assert_eq!(bench.client_got(), [text("taken at last"), closed(1013, "client too slow")]);
    assert!(bench.is_finished());
    assert_eq!(bench.pipe.view().down.in_doubt, 0);
}

#[test]
fn a_client_that_broke_a_rule_at_the_end_is_not_waited_for() {
    let mut bench = bench();
    bench.set_room(Side::Client, 3);
    bench.worker_says("the last thing");
    bench.worker_closes(4001, "done");
    bench.client_sends(&[0x83, 0x80, 0, 0, 0, 0]);
    assert!(!bench.pipe.awaits_client());
    bench.client_vanishes();
    assert!(bench.is_finished());
}

#[test]
fn an_operator_is_heard_by_an_absent_client_up_to_the_bound_and_not_behind_the_end() {
    let mut bench = bench_with(|settings| settings.replay_bytes_max = 100);
    bench.client_vanishes();
    let say = |bench: &mut Bench| bench.pipe.say(Kind::Text, &[b'x'; 60], bench.now);
    assert_eq!((say(&mut bench), say(&mut bench)), (Ok(Seq(1)), Ok(Seq(2))));
    assert_eq!(say(&mut bench), Err(Unsaid::Full));
    bench.worker_closes(4001, "done");
    assert_eq!(say(&mut bench), Err(Unsaid::Closing));
    assert!(bench.client_attaches());
    assert_eq!(bench.client_got(), [text(&"x".repeat(60)), text(&"x".repeat(60)), closed(4001, "done")]);
}

#[test]
fn an_absent_client_is_still_absent_in_another_process() {
    for vanishes_after in [true, false] {
        let mut bench = bench();
        bench.worker_says("1");
        if !vanishes_after {
            bench.client_vanishes();
        }
        bench.worker_says("2");
        bench.wait(secs(20));
        bench.hand_over(Time::from_micros(77_000_000), ms(5));
        if vanishes_after {
            bench.client_vanishes();
        }
        assert_eq!(bench.state(), PipeState::ClientDetached);
        bench.client_got();
        assert!(bench.client_attaches());
        assert_eq!(bench.client_got(), texts(&["1", "2"]));
        assert_eq!(bench.generation, Generation(2));
    }
}

#[test]
fn the_grace_goes_on_in_another_process() {
    let mut bench = bench();
    bench.client_vanishes();
    bench.wait(secs(40));
    bench.hand_over(Time::from_micros(0), secs(15));
    bench.wait(ms(4999));
    assert_eq!(ended(&bench), None);
    bench.wait(ms(1));
    assert_eq!(ended(&bench), Some((EndedBy::Client, 1006)));
}

#[test]
fn the_link_of_a_pipe_that_ends_is_dropped_by_its_own_generation() {
    let mut bench = bench();
    bench.client_vanishes();
    assert!(bench.client_attaches());
    bench.orders();
    bench.client_closes(1000, "");
    bench.worker_closes(1000, "");
    let dropped = Action::DropClient { generation: Generation(2), last_words: Vec::new() };
    assert!(bench.orders().contains(&dropped));
    assert!(bench.client_got().contains(&Item::Close(1000, String::new())));
}
