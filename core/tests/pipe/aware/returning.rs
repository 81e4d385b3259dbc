//! Clients that number their messages and come back: where they go on, what they hear again, and who may not.

use holdline_core::aware::words::GapWhy;
use holdline_core::aware::{Position, Reject};
use holdline_core::frame::Side;
use holdline_core::ids::{Generation, LaneName};
use holdline_core::pipe::{Fact, LinkLoss, PipeState, Returning};
use holdline_core::settings::ReplayPolicy;

use super::{comes_back, greeted, greeted_with, position, takes_over};
use crate::bench::{B, Bench, closed, ms, secs, text, texts};

const RESUMED_1: &str = r#"!{"t":"resumed","epoch":5,"gen":2,"token":"t2","rx":1,"tx":[2,4],"custody":"proxy"}"#;

#[test]
fn a_client_goes_on_where_it_was_and_hears_again_what_it_lacks() {
    let mut bench = greeted();
    bench.client_says("1;one");
    for payload in ["a", "b", "c"] {
        bench.worker_says(payload);
    }
    bench.client_says(r#"!{"t":"ack","n":1}"#);
    bench.client_vanishes();
    assert_eq!(bench.state(), PipeState::ClientDetached);
    assert_eq!(comes_back(&mut bench, 1, position(1, [1, 3])), Ok(Generation(2)));
    assert_eq!(bench.client_got(), texts(&[RESUMED_1, "2;b", "3;c", r#"!{"t":"live"}"#]));
    bench.client_says("1;one");
    bench.client_says("2;two");
    bench.worker_says("d");
    assert_eq!(bench.worker_got(), texts(&["one", "two"]), "what had come is not passed on again");
    assert_eq!(bench.client_got(), texts(&["4;d"]));
}

#[test]
fn a_client_that_has_more_than_it_acknowledged_is_sent_only_the_rest() {
    let mut bench = greeted();
    bench.worker_says("a");
    bench.worker_says("b");
    bench.client_vanishes();
    assert_eq!(comes_back(&mut bench, 1, position(2, [1, 1])), Ok(Generation(2)));
    let resumed = r#"!{"t":"resumed","epoch":5,"gen":2,"token":"t2","rx":0,"tx":[3,3],"custody":"proxy"}"#;
    assert_eq!(bench.client_got(), texts(&[resumed, r#"!{"t":"live"}"#]));
}

#[test]
fn a_replay_goes_on_as_it_is_acknowledged_and_is_over_when_all_of_it_was_sent() {
    let mut bench = greeted_with(|settings| settings.aware.window_bytes = 100);
    for _ in 0..4 {
        bench.worker_says("0123456789012345678901234567890123456789");
    }
    bench.client_vanishes();
    assert!(comes_back(&mut bench, 1, position(0, [1, 1])).is_ok());
    assert_eq!(bench.client_got().len(), 3, "the word and as many messages as the window takes");
    bench.client_says(r#"!{"t":"ack","n":2}"#);
    let rest = bench.client_got();
    assert_eq!((rest.len(), rest.last()), (3, Some(&text(r#"!{"t":"live"}"#))));
}

#[test]
fn what_is_acknowledged_amid_a_replay_is_confirmed() {
    let mut bench = greeted();
    for payload in ["a", "b", "c"] {
        bench.worker_says(payload);
    }
    bench.client_vanishes();
    let returning =
        Returning { generation: Generation(1), position: position(0, [1, 1]), token: "t2", is_contested: true };
    let generation = bench.pipe.client_resumes(&returning, bench.now).unwrap();
    bench.has_other_client_link(generation);
    // The word, the first message and a part of the second.
    let resumed = r#"!{"t":"resumed","epoch":5,"gen":2,"token":"t2","rx":0,"tx":[1,4],"custody":"proxy"}"#;
    bench.set_room(Side::Client, 2 + resumed.len() + 5 + 1);
    bench.pump();
    assert_eq!(bench.client_got(), texts(&[resumed, "1;a"]));
    bench.client_says(r#"!{"t":"ack","n":1}"#);
    assert_eq!(bench.pipe.view().down.confirmed.0, 1);
    bench.set_room(Side::Client, usize::MAX);
    bench.pump();
    assert_eq!(bench.client_got(), texts(&["2;b", "3;c", r#"!{"t":"live"}"#]));
}

#[test]
fn a_half_message_of_a_lost_client_is_forgotten_and_comes_again_whole() {
    let mut bench = greeted();
    bench.client_frame(0x01, b"1;half");
    bench.client_vanishes();
    assert_eq!(comes_back(&mut bench, 1, position(0, [1, 2])), Ok(Generation(2)));
    bench.client_says("1;half and half");
    assert_eq!(bench.worker_got(), texts(&["half and half"]));
}

#[test]
fn the_old_link_is_told_4901_and_its_late_words_change_nothing() {
    let mut bench = greeted();
    let old = bench.generation;
    assert_eq!(comes_back(&mut bench, 1, position(0, [1, 1])), Ok(Generation(2)));
    assert_eq!(bench.client_last_words.pop(), Some((old, vec![closed(4901, "superseded")])));
    bench.pipe.lost(holdline_core::pipe::Peer::Client(old), LinkLoss::Reset, bench.now);
    bench.pump();
    assert_eq!(bench.state(), PipeState::Attached);
}

#[test]
fn an_old_token_is_good_until_the_first_acknowledgement_under_the_new_one() {
    let mut bench = greeted();
    bench.worker_says("a");
    bench.client_vanishes();
    assert_eq!(comes_back(&mut bench, 1, position(0, [1, 1])), Ok(Generation(2)));
    bench.client_vanishes();
    assert_eq!(comes_back(&mut bench, 1, position(0, [1, 1])), Ok(Generation(3)), "resumed was lost with its link");
    bench.client_vanishes();
    assert_eq!(comes_back(&mut bench, 1, position(0, [1, 1])), Ok(Generation(4)), "however often it is");
    bench.client_says(r#"!{"t":"ack","n":1}"#);
    bench.client_vanishes();
    assert_eq!(comes_back(&mut bench, 3, position(1, [1, 1])), Err(Reject::Unknown));
    assert_eq!(comes_back(&mut bench, 5, position(1, [1, 1])), Err(Reject::Unknown), "none was made yet");
    assert_eq!(comes_back(&mut bench, 4, position(1, [1, 1])), Ok(Generation(5)));
}

#[test]
fn what_the_worker_has_is_said_again_to_a_client_that_may_have_missed_it() {
    let mut bench = greeted();
    bench.client_says("1;one");
    bench.settle();
    bench.settle();
    bench.wait(ms(200));
    assert_eq!(bench.client_got(), [text(r#"!{"t":"ack","n":1,"d":1}"#)]);
    bench.client_vanishes();
    assert_eq!(comes_back(&mut bench, 1, position(0, [1, 2])), Ok(Generation(2)));
    bench.client_got();
    bench.wait(ms(200));
    assert_eq!(bench.client_got(), [text(r#"!{"t":"ack","n":1,"d":1}"#)]);
    bench.wait(secs(20));
    assert_eq!(bench.client_got(), [], "once is enough");
}

#[test]
fn numbers_that_cannot_be_the_pipes_are_rejected() {
    let mut bench = greeted();
    bench.client_says("1;one");
    bench.client_says("2;two");
    bench.worker_says("a");
    bench.client_vanishes();
    let reject = |bench: &mut Bench, position| comes_back(bench, 1, position);
    assert_eq!(reject(&mut bench, position(2, [1, 3])), Err(Reject::Epoch), "more than was ever sent");
    assert_eq!(reject(&mut bench, position(1, [1, 1])), Err(Reject::Epoch), "its numbers begin again");
    assert_eq!(reject(&mut bench, Position { epoch: 4, ..position(1, [1, 3]) }), Err(Reject::Epoch));
    assert_eq!(reject(&mut bench, position(1, [3, 3])), Ok(Generation(2)));
}

#[test]
fn after_three_takeovers_in_ten_seconds_the_newcomer_is_refused() {
    let mut bench = greeted();
    for generation in 1..=3 {
        assert!(comes_back(&mut bench, generation, position(0, [1, 1])).is_ok());
    }
    assert_eq!(comes_back(&mut bench, 4, position(0, [1, 1])), Err(Reject::Taken));
    bench.client_vanishes();
    assert!(comes_back(&mut bench, 4, position(0, [1, 1])).is_ok(), "it takes the place of no link");
    bench.wait(secs(10));
    assert!(comes_back(&mut bench, 5, position(0, [1, 1])).is_ok());
}

#[test]
fn links_that_their_client_has_left_are_no_takeovers_however_many_they_are() {
    let mut bench = greeted();
    for generation in 1..=9 {
        assert!(takes_over(&mut bench, generation, position(0, [1, 1]), false).is_ok());
    }
    assert!(comes_back(&mut bench, 10, position(0, [1, 1])).is_ok(), "none of them counted");
}

#[test]
fn a_gap_is_told_on_each_link_until_the_client_has_shown_that_it_read_so_far() {
    let mut bench = greeted_with(|settings| settings.replay = ReplayPolicy::Unsent);
    bench.client_says("1;one");
    bench.client_vanishes();
    bench.worker_dies(LinkLoss::Reset);
    let gap = text(r#"!{"t":"gap","lane":"up","from":1,"count":1,"bytes":null,"why":"backend-lost"}"#);
    for _ in 0..2 {
        assert!(comes_back(&mut bench, 1, position(0, [2, 2])).is_ok());
        assert!(bench.client_got().contains(&gap), "the link before may have lost it");
        bench.client_vanishes();
    }
    assert!(comes_back(&mut bench, 1, position(0, [2, 2])).is_ok());
    bench.attach(B);
    bench.worker_says("a");
    bench.client_says(r#"!{"t":"ack","n":1}"#);
    bench.client_got();
    bench.client_vanishes();
    assert!(comes_back(&mut bench, 4, position(1, [2, 2])).is_ok());
    assert!(!bench.client_got().contains(&gap), "it has read what was sent behind it");
}

#[test]
fn nothing_is_said_behind_a_close_frame_though_the_message_before_it_was_the_last_of_a_replay() {
    for room in 1..12 {
        let mut bench = greeted();
        bench.worker_says("a");
        bench.client_vanishes();
        let returning =
            Returning { generation: Generation(1), position: position(0, [1, 1]), token: "t2", is_contested: true };
        let generation = bench.pipe.client_resumes(&returning, bench.now).unwrap();
        bench.has_other_client_link(generation);
        let resumed = r#"!{"t":"resumed","epoch":5,"gen":2,"token":"t2","rx":0,"tx":[1,2],"custody":"proxy"}"#;
        bench.set_room(Side::Client, 2 + resumed.len() + room);
        bench.pump();
        bench.client_says("no number");
        bench.set_room(Side::Client, usize::MAX);
        bench.pump();
        assert_eq!(bench.client_got().last(), Some(&closed(4905, "text without a number")), "{room}");
    }
}

/// A client that has one of three messages, whose worker has ended the conversation, and for which nothing is kept any more.
fn evicted_at_the_end() -> Bench {
    let mut bench = greeted();
    bench.worker_says("a");
    bench.client_says(r#"!{"t":"ack","n":1}"#);
    bench.client_got();
    bench.set_room(Side::Client, 0);
    for payload in ["b", "c"] {
        bench.worker_says(payload);
    }
    bench.worker_closes(1000, "done");
    bench.operator(|pipe, now| assert!(!pipe.evict(now), "it ends as it would have"));
    bench
}

const LOST: &str = r#"!{"t":"gap","lane":"down","from":2,"count":2,"bytes":null,"why":"policy"}"#;
const DONE: &str = r#"!{"t":"fin","code":1000,"reason":"done","n":3}"#;

#[test]
fn what_an_eviction_gave_up_behind_the_end_is_said_before_it() {
    let mut bench = evicted_at_the_end();
    bench.set_room(Side::Client, usize::MAX);
    bench.pump();
    assert_eq!(bench.client_got(), [text(LOST), text(DONE), closed(1000, "done")]);
    assert!(bench.facts.contains(&Fact::Gap { lane: LaneName::Down, why: GapWhy::Policy, messages: Some(2) }));
    bench.client_says(r#"!{"t":"ack","n":3}"#);
    bench.client_closes(1000, "");
    assert!(bench.is_finished(), "it may acknowledge what it was told to be missing");
}

#[test]
fn what_an_eviction_gave_up_behind_the_end_is_said_to_a_client_that_comes_back_for_it() {
    let mut bench = evicted_at_the_end();
    // The words leave, and the close frame behind them does not.
    bench.set_room(Side::Client, 4 + LOST.len() + DONE.len());
    bench.pump();
    assert_eq!(bench.client_got(), texts(&[LOST, DONE]));
    bench.client_vanishes();
    assert_eq!(comes_back(&mut bench, 1, position(1, [1, 1])), Ok(Generation(2)));
    let resumed = r#"!{"t":"resumed","epoch":5,"gen":2,"token":"t2","rx":0,"tx":[4,4],"custody":"proxy"}"#;
    let lost = r#"!{"t":"backend","state":"lost","attach":1,"cause":"outage"}"#;
    assert_eq!(bench.client_got(), [text(resumed), text(lost), text(LOST), text(DONE), closed(1000, "done")]);
}

#[test]
fn a_client_that_has_read_what_is_missing_may_come_back_for_the_end() {
    let mut bench = evicted_at_the_end();
    bench.set_room(Side::Client, 4 + LOST.len() + DONE.len());
    bench.pump();
    bench.client_vanishes();
    assert_eq!(comes_back(&mut bench, 1, position(3, [1, 1])), Ok(Generation(2)));
    let told = bench.client_got();
    assert_eq!(told[2..], [text(r#"!{"t":"live"}"#), text(DONE), closed(1000, "done")], "{told:?}");
}

#[test]
fn what_an_eviction_gave_up_behind_a_half_written_message_is_said_behind_it() {
    let mut bench = greeted();
    bench.set_room(Side::Client, 2);
    for payload in ["half and half", "b", "c"] {
        bench.worker_says(payload);
    }
    bench.operator(|pipe, now| assert!(pipe.evict(now)));
    bench.set_room(Side::Client, usize::MAX);
    bench.pump();
    let fin = text(r#"!{"t":"fin","code":1013,"reason":"out of memory","n":3}"#);
    assert_eq!(bench.client_got(), [text("1;half and half"), text(LOST), fin, closed(1013, "out of memory")]);
}
