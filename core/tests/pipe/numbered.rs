//! Workers that number their messages: how they are greeted, what they say that they have, and what neither side may do.

use holdline_core::frame::Side;
use holdline_core::ids::{Attachment, LaneName};
use holdline_core::leg::barrier::Level;
use holdline_core::pipe::{Cause, EndedBy, Fact, Interruption, LinkLoss, PipeState};
use holdline_core::settings::{PipeSettings, ReplayPolicy};

use crate::bench::{B, Bench, PIPE, closed, ms, secs, text, texts};
use crate::wire::Item;

const HELLO: &str = r#"!{"t":"hello","v":1,"id":"AAAAAAAAAAAAAAAAAAAAAA"}"#;

/// What a pipe says to its next worker: the last number it has, and what it can send.
pub fn hello_again(rx: u64, tx: [u64; 2]) -> String {
    let [first, next] = tx;
    let id = "AAAAAAAAAAAAAAAAAAAAAA";
    format!(
        "!{{\"t\":\"hello\",\"v\":1,\"id\":\"{id}\",\"resume\":{{\"id\":\"{id}\",\"token\":\"\",\"epoch\":1,\"rx\":{rx},\"tx\":[{first},{next}]}}}}"
    )
}

fn bench_with(change: impl FnOnce(&mut PipeSettings)) -> Bench {
    let mut bench = Bench::with(change);
    bench.numbers = true;
    bench.pipe.worker_numbers(Attachment::FIRST, PIPE, bench.now);
    bench.pump();
    bench
}

/// A pipe whose worker has answered the greeting.
fn greeted_with(change: impl FnOnce(&mut PipeSettings)) -> Bench {
    let mut bench = bench_with(change);
    assert_eq!(bench.worker_got(), texts(&[HELLO]));
    bench.worker_says(r#"!{"t":"welcome"}"#);
    bench
}

pub fn greeted() -> Bench {
    greeted_with(|_| {})
}

fn interrupted(bench: &Bench) -> Vec<Interruption> {
    let reasons = bench.facts.iter().filter_map(|fact| match fact {
        Fact::Interrupted { reason, .. } => Some(*reason),
        _ => None,
    });
    reasons.collect()
}

#[test]
fn a_worker_is_greeted_before_it_hears_anything_and_then_hears_numbers() {
    let mut bench = bench_with(|_| {});
    bench.client_says("one");
    assert_eq!(bench.worker_got(), texts(&[HELLO]), "nothing before it has answered");
    bench.worker_says(r#"!{"t":"welcome"}"#);
    bench.client_frame(0x82, b"two");
    bench.client_frame(0x01, b"th");
    bench.client_frame(0x80, b"ree");
    assert_eq!(bench.worker_got(), [text("1;one"), Item::Binary(b"\0\x02two".to_vec()), text("3;three")]);
    assert!(bench.pings.is_empty(), "it is asked by no ping");
    bench.worker_says("1;a");
    bench.worker_frame(0x82, b"\0\x02b");
    assert_eq!(bench.client_got(), [text("a"), Item::Binary(b"b".to_vec())], "the client sees no number");
}

#[test]
fn what_the_worker_acknowledges_is_confirmed_by_its_application() {
    let mut bench = greeted();
    bench.client_says("one");
    bench.client_says("two");
    bench.worker_says(r#"!{"t":"ack","n":1}"#);
    let up = bench.pipe.view().up;
    assert_eq!((up.confirmed.0, up.level), (1, Level::App));
    bench.worker_says(r#"!{"t":"ack","n":3}"#);
    assert_eq!(interrupted(&bench), [Interruption::Protocol], "it was never sent a third");
}

#[test]
fn what_the_worker_said_is_acknowledged_and_with_it_what_the_client_has() {
    let mut bench = greeted_with(|settings| settings.client_grace = Some(secs(60)));
    bench.worker_says("1;a");
    bench.wait(ms(200));
    assert_eq!(bench.worker_got().pop(), Some(text(r#"!{"t":"ack","n":1,"d":0}"#)));
    bench.client_pongs();
    bench.wait(ms(200));
    assert_eq!(bench.worker_got(), [text(r#"!{"t":"ack","n":1,"d":1}"#)]);
    bench.wait(secs(4));
    assert_eq!(bench.worker_got(), [], "nothing new is nothing said");
}

#[test]
fn a_message_that_has_just_come_is_not_said_to_have_arrived() {
    let mut bench = greeted_with(|settings| {
        settings.client_grace = Some(secs(60));
        settings.aware.ack_messages = 1;
    });
    bench.worker_got();
    bench.worker_says("1;a");
    assert_eq!(bench.worker_got(), [text(r#"!{"t":"ack","n":1,"d":0}"#)]);
}

#[test]
fn a_worker_that_has_the_conversation_hears_what_it_lacks_and_nothing_else() {
    let mut bench = greeted();
    for message in ["one", "two", "three"] {
        bench.client_says(message);
    }
    bench.worker_says("1;a");
    bench.worker_says(r#"!{"t":"ack","n":1}"#);
    bench.worker_dies(LinkLoss::Reset);
    bench.client_says("four");
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&[&hello_again(1, [2, 5])]));
    bench.worker_says(r#"!{"t":"resumed","rx":2,"tx":[2,2]}"#);
    assert_eq!(bench.worker_got(), texts(&["3;three", "4;four"]));
    assert_eq!(bench.pipe.view().up.confirmed.0, 2);
    bench.worker_says("1;a");
    bench.worker_says("2;b");
    assert_eq!(bench.client_got(), texts(&["a", "b"]), "what had come is not passed on again");
    assert!(bench.facts.contains(&Fact::Repeated { lane: LaneName::Down, messages: 1 }));
}

#[test]
fn a_worker_that_says_again_what_it_said_before_it_has_answered_breaks_the_protocol() {
    let mut bench = greeted();
    bench.worker_says("1;a");
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    bench.worker_says("1;a");
    assert_eq!(interrupted(&bench)[1..], [Interruption::Protocol]);
}

#[test]
fn a_worker_without_the_conversation_is_told_what_it_will_never_hear() {
    let mut bench = greeted();
    for message in ["one", "two", "three"] {
        bench.client_says(message);
    }
    bench.worker_says(r#"!{"t":"ack","n":2}"#);
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    bench.worker_says(r#"!{"t":"welcome"}"#);
    let gap = r#"!{"t":"gap","lane":"up","from":1,"count":2,"bytes":null,"why":"backend-lost"}"#;
    assert_eq!(bench.worker_got(), texts(&[&hello_again(0, [3, 4]), gap, "3;three"]));
}

#[test]
fn each_mistake_of_a_worker_is_told_to_it_alone_and_another_one_takes_over() {
    for (greets, said, reason) in [
        (false, "1;x", "welcome expected"),
        (false, r#"!{"t":"ack","n":0}"#, "welcome expected"),
        (false, r#"!{"t":"resumed","rx":7}"#, "it has what was never sent"),
        (false, "!x", "malformed control message"),
        (true, "2;x", "number skipped without a gap"),
        (true, "01;x", "number with a leading zero"),
        (true, "x", "text without a number"),
        (true, r#"!{"t":"welcome"}"#, "greeting twice"),
        (true, r#"!{"t":"hello","v":1}"#, "unknown control message"),
        (true, r#"!{"t":"fin","code":1000,"reason":"","n":1}"#, "fin with another number"),
        (true, r#"!{"t":"gap","lane":"down","from":2,"count":1,"why":"ttl"}"#, "number skipped without a gap"),
        (true, r#"!{"t":"gap","lane":"up","from":1,"count":1,"why":"ttl"}"#, "malformed control message"),
    ] {
        let mut bench = bench_with(|_| {});
        if greets {
            bench.worker_says(r#"!{"t":"welcome"}"#);
        }
        bench.worker_got();
        bench.worker_says(said);
        let (_, words) = bench.last_words.pop().unwrap();
        assert_eq!(words.last(), Some(&closed(4905, reason)), "{said}");
        assert_eq!((bench.state(), bench.client_got()), (PipeState::Detached, vec![]), "{said}");
    }
}

#[test]
fn a_worker_that_does_not_answer_in_time_or_refuses_the_pipe_is_left_for_another() {
    let mut bench = bench_with(|_| {});
    bench.client_says("one");
    bench.wait(secs(5));
    assert_eq!(interrupted(&bench), [Interruption::Unanswered]);
    bench.attach(B);
    bench.worker_says(r#"!{"t":"reject","why":"busy"}"#);
    assert_eq!(interrupted(&bench)[1..], [Interruption::WrongWorker]);
    bench.numbers = false;
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&["one"]), "one that speaks no such protocol hears an ordinary client");
}

#[test]
fn a_worker_that_rejects_the_pipe_is_asked_again_behind_the_others_and_not_at_once() {
    let mut bench = greeted();
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    bench.worker_says(r#"!{"t":"reject","why":"busy"}"#);
    assert!(bench.is_dialing());
    assert_eq!(bench.pipe.excluded(bench.now), [B]);
    bench.no_worker_is_there();
    assert!(!bench.is_dialing(), "one that refuses at once would be asked a thousand times a second");
    bench.wait(secs(5));
    assert!(bench.is_dialing());
    assert_eq!(bench.pipe.excluded(bench.now), []);
}

#[test]
fn a_close_without_a_fin_is_an_interruption_and_a_fin_is_the_end() {
    let mut bench = greeted();
    bench.worker_closes(1000, "");
    assert_eq!(interrupted(&bench), [Interruption::Close]);
    bench.attach(B);
    bench.worker_says(r#"!{"t":"resumed","rx":0,"tx":[1,1]}"#);
    bench.worker_says("1;last");
    bench.worker_says(r#"!{"t":"fin","code":1012,"reason":"over","n":1}"#);
    assert_eq!(bench.client_got(), [text("last"), closed(1012, "over")]);
    assert!(bench.facts.iter().any(|fact| matches!(fact, Fact::Ended { by: EndedBy::Backend, code: 1012, .. })));
}

#[test]
fn the_client_s_end_comes_with_the_last_number_and_a_move_is_no_end() {
    let mut bench = greeted();
    bench.client_says("one");
    bench.client_closes(4100, "done");
    let fin = r#"!{"t":"fin","code":4100,"reason":"done","n":1}"#;
    assert_eq!(bench.worker_got(), [text("1;one"), text(fin), closed(4100, "done")]);
    let mut bench = greeted();
    bench.client_says("one");
    bench.operator(|pipe, now| pipe.leave(Cause::Drain, now));
    assert_eq!(bench.worker_got(), texts(&["1;one"]));
    bench.client_says("two");
    bench.worker_says(r#"!{"t":"ack","n":1}"#);
    bench.wait(secs(1));
    assert_eq!(bench.worker_got(), [closed(1001, "moving to another worker")], "held back for the next one");
}

#[test]
fn a_worker_that_waits_is_greeted_when_it_takes_over() {
    let mut bench = greeted();
    bench.operator(|pipe, now| pipe.move_on(Cause::Admin, now));
    bench.attach(B);
    bench.client_says("one");
    bench.worker_closes(1001, "");
    assert_eq!(bench.worker_got(), texts(&[&hello_again(0, [1, 2])]));
    bench.worker_says(r#"!{"t":"welcome"}"#);
    assert_eq!(bench.worker_got(), texts(&["1;one"]));
}

#[test]
fn no_more_than_the_window_is_sent_before_it_is_acknowledged() {
    let mut bench = greeted_with(|settings| settings.aware.window_bytes = 100);
    for _ in 0..5 {
        bench.client_says("0123456789012345678901234567890123456789");
    }
    assert_eq!(bench.worker_got().len(), 2);
    bench.worker_says(r#"!{"t":"ack","n":1}"#);
    assert_eq!(bench.worker_got().len(), 1);
}

#[test]
fn what_is_not_sent_again_is_said_as_a_gap_to_the_next_worker() {
    let mut bench = greeted_with(|settings| settings.replay = ReplayPolicy::Unsent);
    bench.client_says("one");
    bench.worker_dies(LinkLoss::Reset);
    bench.client_says("two");
    bench.attach(B);
    bench.worker_says(r#"!{"t":"resumed","rx":0,"tx":[1,1]}"#);
    let gap = r#"!{"t":"gap","lane":"up","from":1,"count":1,"bytes":null,"why":"backend-lost"}"#;
    assert_eq!(bench.worker_got(), texts(&[&hello_again(0, [2, 3]), gap, "2;two"]));
}

#[test]
fn a_worker_that_answers_no_heartbeat_is_taken_for_lost() {
    let mut bench = greeted_with(|settings| {
        settings.backend_heartbeat.interval = secs(30);
        settings.backend_heartbeat.timeout = secs(10);
    });
    bench.wait(secs(30));
    assert_eq!(bench.worker_got(), [text(r#"!{"t":"hb","n":1}"#)]);
    bench.worker_says(r#"!{"t":"hb","n":1}"#);
    bench.worker_says(r#"!{"t":"hb","n":0}"#);
    assert_eq!(bench.worker_got(), [text(r#"!{"t":"hb","n":0}"#)], "its own question is answered");
    bench.wait(secs(30));
    bench.wait(secs(10));
    assert_eq!(interrupted(&bench), [Interruption::Heartbeat]);
}

#[test]
fn a_gap_that_is_half_written_goes_on_in_another_process_as_it_began() {
    for room in 1..80 {
        let mut bench = greeted_with(|settings| settings.replay = ReplayPolicy::Unsent);
        bench.client_says("one");
        bench.worker_dies(LinkLoss::Reset);
        bench.client_says("two");
        bench.attach(B);
        bench.worker_got();
        bench.set_room(Side::Backend, room);
        bench.worker_says(r#"!{"t":"resumed","rx":0}"#);
        let later = bench.now + ms(3);
        bench.hand_over(later, ms(1));
        bench.set_room(Side::Backend, usize::MAX);
        bench.pump();
        let gap = r#"!{"t":"gap","lane":"up","from":1,"count":1,"bytes":null,"why":"backend-lost"}"#;
        assert_eq!(bench.worker_got(), texts(&[gap, "2;two"]), "{room}");
    }
}

#[test]
fn a_worker_that_breaks_the_protocol_at_the_end_leaves_no_pipe_behind() {
    let mut bench = greeted();
    bench.client_closes(1000, "");
    bench.worker_says("no number");
    assert!(bench.is_finished());
}

/// Messages that were given up as sent and not confirmed, and those that were given up unsent.
fn given_up(bench: &Bench) -> (u64, u64) {
    bench.facts.iter().fold((0, 0), |(in_doubt, lost), fact| match fact {
        Fact::LeftInDoubt { lane: LaneName::Up, messages } => (in_doubt + messages, lost),
        Fact::Lost { lane: LaneName::Up, messages, .. } => (in_doubt, lost + messages),
        _ => (in_doubt, lost),
    })
}

#[test]
fn how_a_worker_closes_at_the_end_says_nothing_of_what_it_has() {
    let ways: [fn(&mut Bench); 2] = [
        |bench| bench.worker_says(r#"!{"t":"fin","code":1000,"reason":"","n":0}"#),
        |bench| bench.worker_closes(1000, ""),
    ];
    for closes in ways {
        for acknowledges in [false, true] {
            let mut bench = greeted();
            bench.client_says("one");
            bench.client_closes(1000, "");
            if acknowledges {
                bench.worker_says(r#"!{"t":"ack","n":1}"#);
            }
            closes(&mut bench);
            assert_eq!(given_up(&bench), (u64::from(!acknowledges), 0), "it may have closed before it read that");
            assert!(!bench.is_dialing());
        }
    }
}

#[test]
fn a_worker_that_closes_before_it_hears_of_the_end_is_interrupted_and_one_that_says_fin_ends_it() {
    for code in [1000, 1012] {
        let mut bench = greeted();
        bench.set_room(Side::Backend, 0);
        bench.client_says("one");
        bench.client_closes(1000, "");
        bench.worker_closes(code, "");
        assert_eq!((interrupted(&bench), given_up(&bench)), (vec![Interruption::Close], (0, 0)), "{code}");
        bench.set_room(Side::Backend, usize::MAX);
        bench.attach(B);
        bench.worker_got();
        bench.worker_says(r#"!{"t":"welcome"}"#);
        assert_eq!(bench.worker_got().first(), Some(&text("1;one")), "another one gets the last message");

        let mut bench = greeted();
        bench.set_room(Side::Backend, 0);
        bench.client_says("one");
        bench.client_closes(1000, "");
        bench.worker_says(&format!("!{{\"t\":\"fin\",\"code\":{code},\"reason\":\"\",\"n\":0}}"));
        assert_eq!((interrupted(&bench), given_up(&bench)), (vec![], (0, 1)), "{code}");
    }
}

#[test]
fn numbers_that_a_worker_gives_up_at_the_end_are_not_held_against_it() {
    let mut bench = greeted();
    bench.set_room(Side::Backend, 0);
    bench.client_says("one");
    bench.client_frame(0x83, b"");
    bench.worker_says("1;too late");
    bench.worker_says(r#"!{"t":"gap","lane":"down","from":2,"count":1,"why":"ttl"}"#);
    bench.worker_got();
    bench.set_room(Side::Backend, usize::MAX);
    bench.pump();
    assert_eq!(bench.worker_got().first(), Some(&text("1;one")));
}

#[test]
fn a_pipe_in_every_stage_goes_to_another_process_and_on() {
    for room in [1, 3, 20, 70, usize::MAX] {
        let hand_over = |bench: &mut Bench| {
            let later = bench.now + ms(3);
            bench.hand_over(later, ms(1));
        };
        let mut bench = Bench::new();
        bench.set_room(Side::Backend, room);
        bench.pipe.worker_numbers(Attachment::FIRST, PIPE, bench.now);
        bench.pump();
        hand_over(&mut bench);
        bench.set_room(Side::Backend, usize::MAX);
        bench.pump();
        bench.worker_frame(0x01, b"!{\"t\":\"wel");
        hand_over(&mut bench);
        bench.worker_frame(0x80, b"come\"}");
        bench.set_room(Side::Backend, room);
        bench.client_says("a message for the worker");
        hand_over(&mut bench);
        bench.set_room(Side::Backend, usize::MAX);
        bench.pump();
        assert_eq!(bench.worker_got(), texts(&[HELLO, "1;a message for the worker"]), "{room}");
        bench.worker_frame(0x02, b"\0");
        hand_over(&mut bench);
        bench.worker_frame(0x80, b"\x01payload");
        assert_eq!(bench.client_got(), [Item::Binary(b"payload".to_vec())]);
    }
}
