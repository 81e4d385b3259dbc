//! Clients that number their messages: what is said, in which order, and what neither side may do. How they come back is
//! told in [`returning`].

mod returning;

use std::num::NonZeroU32;

use holdline_core::aware::{Position, Reject};
use holdline_core::frame::Side;
use holdline_core::ids::{Generation, LaneName, PipeId};
use holdline_core::leg::barrier::Level;
use holdline_core::pipe::{EndedBy, Fact, Introduction, LinkLoss, PipeState, Returning};
use holdline_core::settings::{DownPolicy, PipeSettings, ReplayPolicy};

use crate::bench::{B, Bench, closed, ms, secs, text, texts};
use crate::wire::{self, Item};

const HELLO: &str = r#"!{"t":"hello","v":1}"#;

fn bench_with(change: impl FnOnce(&mut PipeSettings)) -> Bench {
    let mut bench = Bench::with(|settings| {
        settings.client_grace = Some(secs(60));
        change(settings);
    });
    let introduction = Introduction { id: PipeId::from_bytes([0; 16]), epoch: 5, token: "t1".to_owned() };
    bench.pipe.expect_hello(introduction, bench.now);
    bench
}

/// A pipe whose client was greeted.
pub fn greeted_with(change: impl FnOnce(&mut PipeSettings)) -> Bench {
    let mut bench = bench_with(change);
    bench.client_says(HELLO);
    let welcome = bench.client_got();
    assert_eq!(welcome.len(), 1);
    bench
}

pub fn greeted() -> Bench {
    greeted_with(|_| {})
}

pub fn position(rx: u64, tx: [u64; 2]) -> Position {
    Position { epoch: 5, rx, tx_first: tx[0], tx_next: tx[1] }
}

/// The client comes back with a token that was made for `generation`.
pub fn comes_back(bench: &mut Bench, generation: u64, position: Position) -> Result<Generation, Reject> {
    takes_over(bench, generation, position, true)
}

/// The link whose place it takes `is_contested`, or was left by its client.
fn takes_over(
    bench: &mut Bench,
    generation: u64,
    position: Position,
    is_contested: bool,
) -> Result<Generation, Reject> {
    let token = format!("t{}", bench.pipe.next_generation().0);
    let returning = Returning { generation: Generation(generation), position, token: &token, is_contested };
    let resumed = bench.pipe.client_resumes(&returning, bench.now);
    if let Ok(generation) = resumed {
        bench.has_other_client_link(generation);
    }
    bench.pump();
    resumed
}

fn ended(bench: &Bench) -> Option<(EndedBy, u16)> {
    bench.facts.iter().find_map(|fact| match fact {
        Fact::Ended { by, code, .. } => Some((*by, *code)),
        _ => None,
    })
}

#[test]
fn a_client_is_welcomed_before_it_hears_anything_else() {
    let mut bench = bench_with(|_| {});
    bench.worker_says("early");
    assert_eq!(bench.client_got(), []);
    bench.client_says(HELLO);
    let welcome = "!{\"t\":\"welcome\",\"id\":\"AAAAAAAAAAAAAAAAAAAAAA\",\"token\":\"t1\",\"epoch\":5,\"gen\":1,\"ttl_ms\":60000,\
                   \"window_bytes\":262144,\"retain_bytes\":262144,\"heartbeat_ms\":30000,\"jitter_ms\":1000,\"custody\":\"proxy\"}";
    assert_eq!(bench.client_got(), texts(&[welcome, "1;early"]));
    assert!(bench.pipe.view().aware);
}

#[test]
fn a_client_that_says_no_hello_in_time_or_says_something_else_first_is_told_4905() {
    for (said, reason) in [
        (Some("1;x"), "hello expected"),
        (Some(r#"!{"t":"ack","n":0}"#), "hello expected"),
        (Some("hello"), "text without a number"),
        (Some("!x"), "malformed control message"),
        (
            Some(
                r#"!{"t":"hello","v":1,"resume":{"id":"AAAAAAAAAAAAAAAAAAAAAA","token":"x","epoch":5,"rx":0,"tx":[1,1]}}"#,
            ),
            "resume without a pipe entry",
        ),
        (None, "no hello in time"),
    ] {
        let mut bench = bench_with(|_| {});
        match said {
            Some(said) => bench.client_says(said),
            None => bench.wait(secs(5)),
        }
        assert_eq!(bench.client_got(), [closed(4905, reason)], "{said:?}");
        assert_eq!(bench.worker_got(), [closed(1001, "client at fault")], "nothing of it reaches a worker");
    }
    let mut bench = bench_with(|_| {});
    bench.client_says(r#"!{"t":"hello","v":2}"#);
    assert_eq!(bench.client_got(), [text(r#"!{"t":"reject","why":"version"}"#), closed(4900, "version")]);
}

#[test]
fn numbers_go_no_further_than_the_client_link() {
    let mut bench = greeted();
    bench.client_says("1;one");
    bench.client_frame(0x82, b"\0\x02two");
    bench.client_frame(0x01, b"3");
    bench.client_frame(0x00, b";th");
    bench.client_frame(0x80, b"ree");
    assert_eq!(bench.worker_got(), [text("one"), Item::Binary(b"two".to_vec()), text("three")]);
    bench.worker_says("a");
    bench.worker_frame(0x02, b"b");
    bench.worker_frame(0x80, b"c");
    assert_eq!(bench.client_got(), [text("1;a"), Item::Binary(b"\0\x02bc".to_vec())]);
}

#[test]
fn each_mistake_after_the_greeting_has_its_own_reason_and_reaches_no_worker() {
    for (said, reason) in [
        ("2;x", "number skipped without a gap"),
        ("01;x", "number with a leading zero"),
        ("x", "text without a number"),
        (HELLO, "hello twice"),
        (r#"!{"t":"live"}"#, "unknown control message"),
        (r#"!{"t":"ack"}"#, "malformed control message"),
        (r#"!{"t":"fin","code":1000,"reason":"","n":1}"#, "fin with another number"),
        (r#"!{"t":"gap","lane":"up","from":2,"count":1,"why":"ttl"}"#, "number skipped without a gap"),
    ] {
        let mut bench = greeted();
        bench.client_says(said);
        assert_eq!(bench.client_got(), [closed(4905, reason)], "{said}");
        assert_eq!(bench.worker_got(), [closed(1001, "client at fault")]);
        assert_eq!(ended(&bench), Some((EndedBy::Client, 4905)));
    }
    let mut bench = greeted();
    bench.client_frame(0x82, b"x");
    assert_eq!(bench.client_got(), [closed(4905, "binary message without a number")]);
}

#[test]
fn gaps_between_messages_that_no_worker_has_confirmed_are_bounded() {
    let mut bench = greeted();
    let gap = |from: u64| format!(r#"!{{"t":"gap","lane":"up","from":{from},"count":1,"why":"ttl"}}"#);
    for number in (1..32).step_by(2) {
        bench.client_says(&gap(number));
        bench.client_says(&format!("{};x", number + 1));
    }
    assert_eq!(ended(&bench), None, "sixteen are taken");
    bench.client_says(&gap(33));
    assert!(bench.client_got().contains(&closed(4905, "too many gaps")));
}

#[test]
fn a_message_that_came_before_is_dropped_and_counted() {
    let mut bench = greeted();
    bench.client_says("1;one");
    bench.client_says("1;one");
    bench.client_says("2;two");
    assert_eq!(bench.worker_got(), texts(&["one", "two"]));
    assert!(bench.facts.contains(&Fact::Repeated { lane: LaneName::Up, messages: 1 }));
    let again = wire::frame(0x81, b"2;two", Some([1, 2, 3, 4])).repeat(1000);
    bench.client_sends(&again);
    assert!(bench.facts.contains(&Fact::Repeated { lane: LaneName::Up, messages: 1000 }), "told at once");
}

#[test]
fn what_came_is_acknowledged_in_time_or_after_so_many_and_what_the_worker_has_with_it() {
    let mut bench = greeted();
    bench.client_says("1;one");
    bench.wait(ms(199));
    assert_eq!(bench.client_got(), []);
    bench.worker_pongs();
    bench.wait(ms(1));
    assert_eq!(bench.client_got(), [text(r#"!{"t":"ack","n":1,"d":1}"#)]);
    for number in 2..=17 {
        bench.client_says(&format!("{number};x"));
    }
    let acks = bench.client_got();
    assert_eq!(acks, [text(r#"!{"t":"ack","n":17,"d":1}"#)], "the worker has confirmed none of these");
    bench.settle();
    bench.settle();
    bench.wait(ms(200));
    assert_eq!(bench.client_got(), [text(r#"!{"t":"ack","n":17,"d":17}"#)]);
    bench.wait(secs(20));
    assert_eq!(bench.client_got(), [], "nothing new is nothing said");
}

#[test]
fn what_the_client_acknowledges_is_confirmed_by_its_application_and_forgotten() {
    let mut bench = greeted();
    bench.worker_says("a");
    bench.worker_says("b");
    assert!(bench.client_pings.is_empty(), "an aware client is asked by no ping");
    assert_eq!(bench.pipe.view().down.confirmed.0, 0);
    bench.client_says(r#"!{"t":"ack","n":1,"d":0}"#);
    let down = bench.pipe.view().down;
    assert_eq!((down.confirmed.0, down.level), (1, Level::App));
    bench.client_says(r#"!{"t":"ack","n":3}"#);
    let told = [text("1;a"), text("2;b"), text(r#"!{"t":"reject","why":"epoch"}"#), closed(4900, "epoch")];
    assert_eq!(bench.client_got(), told, "it was never sent a third");
}

#[test]
fn no_more_than_the_window_is_sent_before_it_is_acknowledged() {
    let mut bench = greeted_with(|settings| settings.aware.window_bytes = 100);
    for _ in 0..10 {
        bench.worker_says("0123456789012345678901234567890123456789");
    }
    assert_eq!(bench.client_got().len(), 2);
    bench.client_says(r#"!{"t":"ack","n":1}"#);
    assert_eq!(bench.client_got().len(), 1);
    bench.client_says(r#"!{"t":"ack","n":3}"#);
    assert_eq!(bench.client_got().len(), 2);
}

#[test]
fn a_client_whose_acknowledgement_the_worker_waits_for_is_read_though_its_worker_owes_a_pong() {
    let mut bench = greeted_with(|settings| (settings.window_bytes, settings.aware.window_bytes) = (100, 100));
    for number in 1..=4 {
        bench.client_says(&format!("{number};{}", "x".repeat(40)));
        bench.worker_says(&"y".repeat(90));
    }
    let second = text(&format!("2;{}", "y".repeat(90)));
    assert!(!bench.client_got().contains(&second), "the client's window is full");
    assert_eq!(bench.pipe.read_budget(Side::Backend, usize::MAX), 0, "the pong may lie behind what is not read");
    assert!(bench.pipe.read_budget(Side::Client, usize::MAX) > 0, "the acknowledgement may lie there");
    bench.client_says(r#"!{"t":"ack","n":1}"#);
    assert!(bench.client_got().contains(&second));
}

#[test]
fn a_message_that_is_half_written_takes_its_part_of_the_window() {
    let mut bench = greeted_with(|settings| settings.aware.window_bytes = 100);
    bench.set_room(Side::Client, 1);
    for _ in 0..3 {
        bench.worker_says(&"x".repeat(90));
    }
    bench.set_room(Side::Client, usize::MAX);
    bench.pump();
    assert_eq!(bench.client_got().len(), 1, "it fills the window alone");
    bench.client_says(r#"!{"t":"ack","n":1}"#);
    assert_eq!(bench.client_got().len(), 1);
}

#[test]
fn a_close_without_a_fin_is_an_interruption_and_a_fin_is_the_end() {
    let mut bench = greeted();
    bench.client_closes(1001, "");
    assert_eq!((bench.state(), ended(&bench)), (PipeState::ClientDetached, None));
    assert!(comes_back(&mut bench, 1, position(0, [1, 1])).is_ok());
    bench.client_says("1;bye");
    bench.client_says(r#"!{"t":"fin","code":4100,"reason":"done","n":1}"#);
    bench.client_closes(4100, "done");
    assert_eq!(bench.worker_got(), [text("bye"), closed(4100, "done")]);
    bench.worker_closes(4100, "done");
    assert_eq!(ended(&bench), Some((EndedBy::Client, 4100)));
}

#[test]
fn the_worker_s_end_comes_with_the_last_number_behind_all_that_it_said() {
    let mut bench = greeted();
    bench.client_says("1;x");
    bench.worker_says("a");
    bench.worker_closes(1000, "over");
    let fin = r#"!{"t":"fin","code":1000,"reason":"over","n":1}"#;
    let ack = r#"!{"t":"ack","n":1,"d":0}"#;
    assert_eq!(bench.client_got(), [text("1;a"), text(ack), text(fin), closed(1000, "over")]);
}

#[test]
fn the_last_number_counts_the_message_that_is_half_written() {
    let mut bench = greeted();
    bench.set_room(Side::Client, 2);
    bench.worker_says("half and half");
    bench.operator(|pipe, now| assert!(pipe.evict(now)));
    bench.set_room(Side::Client, usize::MAX);
    bench.pump();
    let fin = r#"!{"t":"fin","code":1013,"reason":"out of memory","n":1}"#;
    assert_eq!(bench.client_got(), [text("1;half and half"), text(fin), closed(1013, "out of memory")]);
}

#[test]
fn a_worker_that_is_lost_is_told_and_the_next_one_too() {
    let mut bench = greeted();
    bench.client_says("1;one");
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&["one"]));
    let lost = r#"!{"t":"backend","state":"lost","attach":1,"cause":"reset"}"#;
    let attached = r#"!{"t":"backend","state":"attached","attach":2,"resumed":"unknown"}"#;
    assert_eq!(bench.client_got(), texts(&[lost, attached]));
    bench.settle();
    bench.wait(ms(200));
    assert_eq!(bench.client_got(), [text(r#"!{"t":"ack","n":1,"d":1}"#)]);
}

#[test]
fn what_no_worker_will_get_is_said_as_a_gap() {
    let mut bench = greeted_with(|settings| settings.replay = ReplayPolicy::Unsent);
    bench.client_says("1;one");
    bench.worker_dies(LinkLoss::Reset);
    let gap = r#"!{"t":"gap","lane":"up","from":1,"count":1,"bytes":null,"why":"backend-lost"}"#;
    assert!(bench.client_got().contains(&text(gap)));
    assert!(bench.facts.iter().any(|fact| matches!(fact, Fact::Gap { lane: LaneName::Up, messages: Some(1), .. })));
}

#[test]
fn a_gap_is_told_by_the_client_s_own_numbers_whatever_it_has_given_up_behind_it() {
    let mut bench = greeted_with(|settings| settings.replay = ReplayPolicy::Unsent);
    bench.client_says("1;one");
    bench.client_says(r#"!{"t":"gap","lane":"up","from":2,"count":3,"why":"overflow"}"#);
    bench.worker_dies(LinkLoss::Reset);
    let gap = text(r#"!{"t":"gap","lane":"up","from":1,"count":1,"bytes":null,"why":"backend-lost"}"#);
    assert!(bench.client_got().contains(&gap));
}

#[test]
fn a_client_is_told_the_end_though_it_says_more_and_goodbye_meanwhile() {
    let mut bench = greeted();
    bench.set_room(Side::Client, 0);
    bench.worker_says("last");
    bench.worker_closes(1000, "over");
    bench.client_says("1;late");
    bench.client_says(r#"!{"t":"gap","lane":"up","from":2,"count":1,"why":"overflow"}"#);
    bench.client_says(r#"!{"t":"fin","code":1000,"reason":"","n":2}"#);
    bench.set_room(Side::Client, usize::MAX);
    bench.pump();
    let fin = r#"!{"t":"fin","code":1000,"reason":"over","n":1}"#;
    assert_eq!(bench.client_got(), [text("1;last"), text(fin), closed(1000, "over")]);
}

#[test]
fn a_client_that_breaks_the_protocol_while_its_end_is_on_the_way_is_dropped_and_the_pipe_is_over() {
    let mut bench = greeted();
    bench.set_room(Side::Client, 0);
    bench.worker_closes(1000, "over");
    bench.client_says("no number");
    assert!(bench.is_finished());
}

#[test]
fn what_was_given_up_at_the_end_is_never_said_to_be_confirmed() {
    let mut bench = greeted();
    bench.client_says("1;one");
    bench.client_vanishes();
    bench.worker_closes(4000, "over");
    assert!(comes_back(&mut bench, 1, position(0, [2, 2])).is_ok());
    let got = bench.client_got();
    assert!(!got.iter().any(|item| matches!(item, Item::Text(word) if word.ends_with(b"\"d\":1}"))), "{got:?}");
    assert_eq!(got.last(), Some(&closed(4000, "over")));
}

#[test]
fn what_made_way_for_newer_messages_is_a_gap_before_the_next() {
    let mut bench = greeted_with(|settings| settings.down = DownPolicy::Latest(NonZeroU32::MIN));
    bench.set_room(Side::Client, 0);
    for payload in ["a", "b", "c"] {
        bench.worker_says(payload);
    }
    bench.set_room(Side::Client, usize::MAX);
    bench.pump();
    let gap = r#"!{"t":"gap","lane":"down","from":1,"count":2,"bytes":null,"why":"policy"}"#;
    assert_eq!(bench.client_got(), texts(&[gap, "3;c"]));
    assert_eq!(bench.pipe.view().down.confirmed.0, 2, "the third is not acknowledged");
    assert!(bench.facts.iter().any(|fact| matches!(fact, Fact::Gap { lane: LaneName::Down, messages: Some(2), .. })));
}

#[test]
fn a_client_that_has_given_up_messages_says_so_and_goes_on_behind_them() {
    let mut bench = greeted();
    bench.client_says("1;one");
    bench.client_says(r#"!{"t":"gap","lane":"up","from":2,"count":3,"why":"overflow"}"#);
    bench.client_says("5;five");
    assert_eq!(bench.worker_got(), texts(&["one", "five"]));
    bench.settle();
    bench.wait(ms(200));
    assert_eq!(bench.client_got(), [text(r#"!{"t":"ack","n":5,"d":5}"#)]);
    bench.client_says(r#"!{"t":"gap","lane":"up","from":9,"count":null,"why":"node-lost"}"#);
    bench.client_says("9;nine");
    assert_eq!(bench.worker_got(), texts(&["nine"]));
}

#[test]
fn a_client_that_answers_no_heartbeat_is_taken_for_lost() {
    let mut bench = greeted_with(|settings| settings.client_heartbeat.timeout = secs(10));
    bench.wait(secs(30));
    assert_eq!(bench.client_got(), [text(r#"!{"t":"hb","n":1}"#)]);
    bench.client_says(r#"!{"t":"hb","n":1}"#);
    bench.client_says(r#"!{"t":"hb","n":0}"#);
    assert_eq!(bench.client_got(), [text(r#"!{"t":"hb","n":0}"#)], "its own question is answered");
    bench.wait(secs(30));
    assert_eq!(bench.client_got(), [text(r#"!{"t":"hb","n":2}"#)]);
    bench.wait(secs(10));
    assert_eq!(bench.state(), PipeState::ClientDetached);
}

#[test]
fn a_server_that_goes_says_so_and_that_is_no_end() {
    let mut bench = greeted();
    let frame = holdline_core::close::CloseFrame::new(1001, "server is going away");
    bench.operator(|pipe, now| pipe.close(EndedBy::Operator, frame, now));
    let goaway = r#"!{"t":"goaway","after_ms":0,"jitter_ms":1000,"why":"shutdown"}"#;
    let got = bench.client_got();
    assert_eq!(got.first(), Some(&text(goaway)));
    assert_eq!(got.last(), Some(&closed(1001, "server is going away")));
    assert!(!got.iter().any(|item| matches!(item, Item::Text(word) if word.starts_with(b"!{\"t\":\"fin"))));
}

#[test]
fn a_large_message_is_written_as_its_link_takes_it_and_goes_to_another_process_amid_it() {
    for (room, payload) in [(1, 10), (3, 400), (20, 400), (700, 5000), (5, 70_000)] {
        let mut bench = greeted();
        let payload = "x".repeat(payload);
        bench.client_frame(0x01, b"1;hal");
        bench.set_room(Side::Client, room);
        bench.worker_says(&payload);
        bench.client_frame(0x89, b"ping");
        let later = bench.now + ms(7);
        bench.hand_over(later, ms(5));
        bench.client_frame(0x80, b"f");
        bench.set_room(Side::Client, usize::MAX);
        bench.pump();
        let got = bench.client_got();
        assert_eq!(got, [text(&format!("1;{payload}")), Item::Pong(b"ping".to_vec())], "{room}");
        assert_eq!(bench.worker_got(), texts(&["half"]));
        bench.client_says(r#"!{"t":"ack","n":1}"#);
        assert_eq!(bench.pipe.view().down.confirmed.0, 1);
    }
}

#[test]
fn a_pipe_whose_client_breaks_a_rule_at_any_byte_goes_to_another_process() {
    let mask = Some([1, 2, 3, 4]);
    for wrong in [&b"\0\0\0"[..], b"\x80\x80\0\0\0\0", b"\x81\x01x", b"\x83\x80\0\0\0\0"] {
        let message = [wire::frame(0x81, b"1;x", mask), wire::frame(0x01, b"2;y", mask)].concat();
        let said = [&message[..], wrong].concat();
        for len in 0..=said.len() {
            let mut bench = greeted();
            bench.worker_says("a");
            said[..len].chunks(1).for_each(|byte| bench.client_sends(byte));
            let later = bench.now + ms(3);
            bench.hand_over(later, ms(1));
        }
    }
}

#[test]
fn a_pipe_in_every_stage_goes_to_another_process_and_on() {
    let mut bench = bench_with(|_| {});
    let hand_over = |bench: &mut Bench| {
        let later = bench.now + ms(3);
        bench.hand_over(later, ms(1));
    };
    hand_over(&mut bench);
    bench.client_frame(0x01, b"!{\"t\":\"hel");
    hand_over(&mut bench);
    bench.client_frame(0x80, b"lo\",\"v\":1}");
    assert_eq!(bench.client_got().len(), 1);
    bench.client_frame(0x02, b"\0");
    hand_over(&mut bench);
    bench.client_frame(0x00, b"\x01");
    hand_over(&mut bench);
    bench.client_frame(0x80, b"payload");
    bench.client_frame(0x01, b"1;aga");
    hand_over(&mut bench);
    bench.client_frame(0x80, b"in");
    assert_eq!(bench.worker_got(), [Item::Binary(b"payload".to_vec())]);
    bench.client_vanishes();
    hand_over(&mut bench);
    assert!(comes_back(&mut bench, 1, position(0, [1, 2])).is_ok());
    assert_eq!(bench.client_got().len(), 2);
}
