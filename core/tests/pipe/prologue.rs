//! What the next worker is told of a conversation, what is held back from the client, and what is not said twice.

use std::sync::Arc;

use holdline_core::conversation::json::Pointer;
use holdline_core::conversation::rules::{ForgetRule, KeepRule, Rules, Test, Wants};
use holdline_core::conversation::words::{Classes, How};
use holdline_core::conversation::{Conversation, Profile, Profiles, Prologue, PrologueBounds};
use holdline_core::frame::Side;
use holdline_core::pipe::{Fact, Interruption, LinkLoss, PipeState, PrologueFailure, ResumeAnswer};
use holdline_core::settings::PipeSettings;
use holdline_core::time::Time;

use crate::bench::{A, B, Bench, C, closed, ms, secs, text, texts};
use crate::wire::Item;

const INIT: &str = r#"{"type":"connection_init","payload":{"token":"t"}}"#;
const ACK: &str = r#"{"type":"connection_ack"}"#;

pub fn profiled(name: &str) -> Bench {
    profiled_with(Profile::named(name).unwrap())
}

pub fn profiled_with(profile: Arc<Profile>) -> Bench {
    let mut bench = Bench::new();
    let prologue = Prologue::new(profile, PrologueBounds::default());
    bench.operator(|pipe, _| pipe.converse(Conversation::Profiled(Box::new(prologue)), "route"));
    bench
}

fn subscription(id: &str) -> String {
    format!(r#"{{"id":"{id}","type":"subscribe","payload":{{"query":"subscription {{ ticks }}"}}}}"#)
}

fn mutation(id: &str) -> String {
    format!(r#"{{"id":"{id}","type":"subscribe","payload":{{"query":"mutation {{ pay }}"}}}}"#)
}

fn complete(id: &str) -> String {
    format!(r#"{{"id":"{id}","type":"complete"}}"#)
}

fn next(id: &str, tick: u32) -> String {
    format!(r#"{{"id":"{id}","type":"next","payload":{{"data":{{"ticks":{tick}}}}}}}"#)
}

/// A GraphQL conversation with its init acknowledged and these subscriptions, all confirmed.
fn graphql(ids: &[&str]) -> Bench {
    let mut bench = profiled("graphql-transport-ws");
    bench.client_says(INIT);
    bench.worker_says(ACK);
    for id in ids {
        bench.client_says(&subscription(id));
    }
    bench.settle();
    bench.worker_got();
    bench.client_got();
    bench
}

fn failures(bench: &Bench) -> Vec<PrologueFailure> {
    let failed = |fact: &Fact| match fact {
        Fact::PrologueFailed(why) => Some(*why),
        _ => None,
    };
    bench.facts.iter().filter_map(failed).collect()
}

#[test]
fn the_next_worker_hears_the_init_and_the_live_subscriptions_and_the_client_hears_no_second_ack() {
    let mut bench = graphql(&["1", "2", "3"]);
    bench.client_says(&complete("2"));
    bench.settle();
    bench.worker_got();
    bench.worker_dies(LinkLoss::Reset);
    assert_eq!(bench.dial().prologue, 3);
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&[INIT]), "nothing follows before the ack");
    bench.client_says(&subscription("4"));
    assert_eq!(bench.worker_got(), []);
    bench.worker_says(ACK);
    let told = [subscription("1"), subscription("3"), subscription("4")];
    assert_eq!(bench.worker_got(), told.map(|it| text(&it)), "and the replay behind them");
    bench.worker_says(&next("1", 7));
    assert_eq!(bench.client_got(), [text(&next("1", 7))]);
    assert!(bench.facts.contains(&Fact::PrologueSwallowed));
}

#[test]
fn an_ack_that_the_client_has_not_had_passes_and_a_second_one_of_the_same_worker_too() {
    let mut bench = profiled("graphql-transport-ws");
    bench.client_says(INIT);
    bench.settle();
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&[INIT]));
    bench.worker_says(ACK);
    bench.worker_says(ACK);
    assert_eq!(bench.client_got(), texts(&[ACK, ACK]), "exactly one is held back, and only of what it has had");
}

#[test]
fn everything_but_the_awaited_answer_passes_while_it_is_awaited() {
    let mut bench = graphql(&["1"]);
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    bench.worker_says(r#"{"type":"ping"}"#);
    bench.worker_frame(0x82, b"\x01\x02");
    bench.worker_says("no JSON");
    assert_eq!(bench.client_got().len(), 3);
    bench.worker_closes(4403, "Forbidden");
    assert_eq!(bench.client_got(), [closed(4403, "Forbidden")], "a close passes by the usual rules");
}

#[test]
fn what_the_replay_brings_is_left_out_of_the_prologue() {
    let mut bench = graphql(&["1"]);
    bench.client_says(&subscription("2"));
    assert_eq!(bench.worker_got(), [text(&subscription("2"))]);
    bench.worker_dies(LinkLoss::Reset);
    assert_eq!((bench.dial().prologue, bench.dial().again), (2, 1));
    bench.attach(B);
    bench.worker_got();
    bench.worker_says(ACK);
    assert_eq!(bench.worker_got(), [text(&subscription("1")), text(&subscription("2"))], "once");
}

#[test]
fn what_a_client_gives_up_is_said_again_until_a_worker_has_heard_that() {
    let mut bench = graphql(&["1"]);
    bench.client_says(&complete("1"));
    bench.worker_got();
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    bench.worker_says(ACK);
    assert_eq!(bench.worker_got(), [text(INIT), text(&subscription("1")), text(&complete("1"))]);
    bench.settle();
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(C);
    bench.worker_says(ACK);
    assert_eq!(bench.worker_got(), texts(&[INIT]));
}

#[test]
fn a_worker_that_dies_between_its_ack_and_the_subscriptions_is_followed_by_one_that_hears_all() {
    let mut bench = graphql(&["1"]);
    for backend in [B, C, A] {
        bench.worker_dies(LinkLoss::Reset);
        bench.attach(backend);
        assert_eq!(bench.worker_got(), texts(&[INIT]));
    }
    bench.worker_says(ACK);
    assert_eq!(bench.worker_got(), [text(&subscription("1"))]);
    assert_eq!(bench.client_got(), []);
}

#[test]
fn an_acknowledged_init_is_never_replayed_ahead_of_its_ack() {
    let mut bench = profiled("graphql-transport-ws");
    bench.client_says(INIT);
    bench.worker_says(ACK);
    bench.client_says(&subscription("1"));
    bench.worker_got();
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&[INIT]), "the ack proved that the worker had read it, without a pong");
    bench.worker_says(ACK);
    assert_eq!(bench.worker_got(), [text(&subscription("1"))]);
}

#[test]
fn a_mutation_under_way_is_not_said_twice_and_its_client_is_told() {
    let mut bench = graphql(&["1"]);
    bench.client_says(&mutation("m"));
    bench.worker_got();
    bench.worker_dies(LinkLoss::Reset);
    bench.client_says(&mutation("n"));
    bench.attach(B);
    bench.worker_says(ACK);
    let told = [text(INIT), text(&subscription("1")), text(&mutation("n"))];
    assert_eq!(bench.worker_got(), told, "the one that no worker has begun goes on");
    let heard = bench.client_got();
    let [Item::Text(error)] = heard.as_slice() else { panic!("one error: {heard:?}") };
    let error = str::from_utf8(error).unwrap();
    assert!(error.starts_with(r#"{"id":"m","type":"error","payload":[{"message":""#), "{error}");
    assert_eq!(failures(&bench), [PrologueFailure::Exchange]);
}

#[test]
fn an_exchange_that_is_over_is_not_said_again_though_its_message_was_never_confirmed() {
    let mut bench = graphql(&[]);
    bench.client_says(&mutation("m"));
    bench.client_says("ordinary");
    bench.worker_says(&next("m", 1));
    bench.worker_says(&complete("m"));
    bench.worker_got();
    bench.worker_dies(LinkLoss::Reset);
    bench.client_got();
    bench.attach(B);
    bench.worker_says(ACK);
    assert_eq!(bench.worker_got(), [text(INIT), text("ordinary")]);
    assert_eq!(bench.client_got(), []);
    assert_eq!(failures(&bench), []);
}

#[test]
fn a_planned_move_waits_for_an_exchange_under_way() {
    let mut bench = graphql(&["1"]);
    bench.client_says(&mutation("m"));
    bench.settle();
    bench.worker_got();
    bench.operator(|pipe, now| pipe.move_on(holdline_core::pipe::Cause::Drain, now));
    bench.attach(B);
    bench.wait(secs(1));
    assert_eq!(bench.worker_got(), [], "the old worker is not told to go");
    bench.worker_says(&complete("m"));
    assert_eq!(bench.worker_got(), [closed(1001, "moving to another worker")]);
    bench.worker_closes(1001, "");
    assert_eq!(bench.held_got(), texts(&[INIT]));
    bench.worker_says(ACK);
    assert_eq!(bench.worker_got(), [text(&subscription("1"))]);
    assert_eq!(bench.client_got(), [text(&complete("m"))]);
}

/// A conversation as that of [`graphql`] whose moves wait for a proof.
fn graphql_with_proof(ids: &[&str]) -> Bench {
    let mut bench = Bench::with(|settings| settings.prove = ms(500));
    let prologue = Prologue::new(Profile::named("graphql-transport-ws").unwrap(), PrologueBounds::default());
    bench.operator(|pipe, _| pipe.converse(Conversation::Profiled(Box::new(prologue)), "route"));
    bench.client_says(INIT);
    bench.worker_says(ACK);
    ids.iter().for_each(|id| bench.client_says(&subscription(id)));
    bench.settle();
    bench.worker_got();
    bench.client_got();
    bench
}

#[test]
fn the_awaited_answer_of_a_worker_that_waits_proves_it_and_is_held_back_when_it_takes_over() {
    let mut bench = graphql_with_proof(&["1"]);
    bench.operator(|pipe, now| pipe.move_on(holdline_core::pipe::Cause::Drain, now));
    bench.attach(B);
    assert_eq!(bench.held_got(), texts(&[INIT]), "and no subscription before the old worker has gone");
    bench.client_says(&subscription("2"));
    bench.wait(ms(20));
    assert_eq!(bench.worker_got(), [], "the old worker is not told to go before the new one has answered");
    bench.held_talks();
    assert_eq!(bench.worker_got(), [closed(1001, "moving to another worker")]);
    bench.worker_closes(1001, "");
    assert_eq!(bench.worker_got(), [], "it is awaited still: it has not been read");
    bench.worker_says(ACK);
    assert_eq!(bench.worker_got(), [text(&subscription("1")), text(&subscription("2"))]);
    assert_eq!(bench.client_got(), []);
}

#[test]
fn a_worker_that_was_told_what_is_no_longer_true_does_not_take_over() {
    let mut bench = profiled("socket.io");
    let prologue = Prologue::new(Profile::named("hocuspocus").unwrap(), PrologueBounds::default());
    bench.operator(|pipe, _| pipe.converse(Conversation::Profiled(Box::new(prologue)), "route"));
    let message = |rest: &[u8]| [&[1, b'a'][..], rest].concat();
    bench.client_frame(0x82, &message(&[2, 0, 1, b't']));
    bench.worker_frame(0x82, &message(&[2, 2, 1, b'w']));
    bench.settle();
    bench.client_says("x");
    bench.operator(|pipe, now| pipe.move_on(holdline_core::pipe::Cause::Drain, now));
    bench.attach(B);
    assert_eq!(bench.held_got().len(), 1);
    // The old worker closes the document before it goes.
    bench.worker_frame(0x82, &message(&[7, 0]));
    bench.settle();
    bench.worker_closes(1001, "");
    assert!(bench.is_dialing(), "another connection, which hears nothing of it");
    bench.attach(C);
    assert_eq!(bench.worker_got(), []);
}

#[test]
fn what_the_worker_has_ended_is_forgotten_at_once_and_a_new_one_with_its_id_is_not() {
    let mut bench = graphql(&["1"]);
    bench.client_says(&complete("1"));
    bench.client_says(&subscription("1"));
    bench.settle();
    bench.worker_got();
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    bench.worker_says(ACK);
    assert_eq!(bench.worker_got(), [text(INIT), text(&subscription("1"))], "an id may be used again");
    bench.worker_says(&complete("1"));
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(C);
    bench.worker_says(ACK);
    assert_eq!(bench.worker_got(), texts(&[INIT]));
}

#[test]
fn a_worker_that_does_not_answer_is_given_up_for_the_next() {
    let mut bench = graphql(&["1"]);
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    bench.wait(secs(5));
    let given_up = |fact: &Fact| matches!(fact, Fact::Interrupted { reason: Interruption::Unanswered, .. });
    assert!(bench.facts.iter().any(given_up));
    assert_eq!(failures(&bench), [PrologueFailure::Unanswered]);
    assert!(bench.pipe.excluded(bench.now).contains(&B));
    bench.attach(C);
    bench.worker_says(ACK);
    assert_eq!(bench.worker_got(), [text(INIT), text(&subscription("1"))]);
    bench.wait(secs(60));
    assert_eq!(bench.state(), PipeState::Attached);
}

#[test]
fn a_conversation_that_outgrows_its_bounds_ends_with_its_worker_and_not_before() {
    let ids: Vec<String> = (0..257).map(|id| id.to_string()).collect();
    let fits: Vec<&str> = ids[..255].iter().map(String::as_str).collect();
    let mut bench = graphql(&fits);
    assert_eq!(failures(&bench), [], "at the bound: the init and 255");
    bench.client_says(&subscription(&ids[255]));
    assert_eq!(failures(&bench), [PrologueFailure::Overflow]);
    assert!(!bench.pipe.moves());
    assert_eq!(bench.pipe.view().prologue_bytes, 0, "what is of no use is let go");
    bench.worker_says(&next("1", 1));
    assert_eq!(bench.client_got().len(), 1);
    bench.worker_dies(LinkLoss::Reset);
    assert_eq!(bench.client_got(), [closed(1012, "backend lost")]);
}

#[test]
fn a_worker_that_knows_the_pipe_is_told_nothing_again() {
    let mut bench = graphql(&["1"]);
    bench.worker_dies(LinkLoss::Reset);
    bench.client_says("new");
    bench.attach_with(B, Some(ResumeAnswer::Ok(holdline_core::ids::Seq(2))));
    assert_eq!(bench.worker_got(), texts(&["new"]));
}

#[test]
fn messages_cut_into_fragments_or_single_bytes_are_read_as_one() {
    let mut bench = profiled("graphql-transport-ws");
    let (head, tail) = INIT.as_bytes().split_at(9);
    bench.client_frame(0x01, head);
    bench.client_frame(0x80, tail);
    bench.worker_says(ACK);
    bench.settle();
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&[INIT]));
    for byte in crate::wire::frame(0x81, ACK.as_bytes(), None) {
        bench.worker_sends(&[byte]);
    }
    bench.worker_sends(&[crate::wire::frame(0x81, b"a", None), crate::wire::frame(0x81, b"b", None)].concat());
    assert_eq!(bench.client_got(), texts(&[ACK, "a", "b"]));
}

#[test]
fn a_prologue_goes_to_another_process_with_its_place() {
    let mut bench = graphql(&["1", "2"]);
    bench.client_says(&mutation("m"));
    bench.settle();
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&[INIT]));
    bench.hand_over(Time::from_micros(5_000_000), ms(100));
    bench.client_got();
    bench.worker_says(ACK);
    assert_eq!(bench.worker_got(), [text(&subscription("1")), text(&subscription("2"))]);
    assert_eq!(bench.client_got(), [], "the ack is held back in the new process too");
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(C);
    assert_eq!(bench.worker_got(), texts(&[INIT]));
}

#[test]
fn the_first_messages_of_a_client_are_said_again_where_the_route_counts_them() {
    let mut bench = profiled_with(Profile::first(2));
    for payload in ["login", "open", "type"] {
        bench.client_says(payload);
    }
    bench.settle();
    bench.worker_got();
    bench.worker_dies(LinkLoss::Reset);
    bench.client_says("more");
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&["login", "open", "more"]));
}

/// What a route keeps of events whose first word is `join`, until one says `leave`.
fn rooms() -> Rules {
    let pointer = |text: &str| Pointer::parse(text).unwrap();
    let says = |word: &str| vec![Test { at: pointer("/0"), wants: Wants::OneOf(vec![word.to_owned()]) }];
    let key = Some(pointer("/1"));
    let keep = KeepRule { tests: says("join"), key, how: How::Last, answer: None, note: None, map: None };
    let key = Some(pointer("/1"));
    let forget = ForgetRule { from: Side::Client, tests: says("leave"), key, of: Classes::of(&[]) };
    Rules::own(&[keep], &[forget])
}

#[test]
fn rooms_of_socket_io_are_joined_again_where_the_route_keeps_their_event() {
    let profile = Profiles::new(Vec::new(), &rooms()).named("socket.io").unwrap();
    let mut bench = profiled_with(profile);
    bench.worker_says(r#"0{"sid":"a"}"#);
    for payload in ["40", "40/chat,", r#"42["join","red"]"#, r#"427["join","blue"]"#, r#"42/chat,["join","red"]"#] {
        bench.client_says(payload);
    }
    bench.worker_says("40{}");
    bench.worker_says("40/chat,{}");
    bench.client_says(r#"42["leave","red"]"#);
    bench.client_says(r#"42["say","join"]"#);
    bench.settle();
    bench.worker_got();
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    bench.worker_says(r#"0{"sid":"b"}"#);
    bench.worker_says("40{}");
    bench.worker_says("40/chat,{}");
    let told = ["40", "40/chat,", r#"427["join","blue"]"#, r#"42/chat,["join","red"]"#];
    assert_eq!(bench.worker_got(), texts(&told), "the room that is left in each namespace");
    bench.client_says("41/chat,");
    bench.settle();
    bench.worker_got();
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(C);
    bench.worker_says(r#"0{"sid":"c"}"#);
    bench.worker_says("40{}");
    assert_eq!(bench.worker_got(), texts(&["40", r#"427["join","blue"]"#]), "a namespace is left with its rooms");
}

#[test]
fn a_route_that_keeps_messages_keeps_them_of_any_conversation_that_reads_json() {
    let settings = |settings: &mut PipeSettings| settings.profiles = Profiles::new(Vec::new(), &rooms());
    let undecided = |first: &str| {
        let mut bench = Bench::with(settings);
        bench.operator(|pipe, _| pipe.converse(Conversation::Undecided, "unknown"));
        bench.client_says(first);
        bench
    };
    let mut bench = undecided(r#"["join","red"]"#);
    assert_eq!(bench.pipe.conversation().1, Some("rules"));
    bench.client_says("more");
    bench.settle();
    bench.worker_got();
    bench.hand_over(Time::from_micros(5_000_000), ms(100));
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&[r#"["join","red"]"#]), "in another process too");
    let known = undecided(r#"{"id":1,"method":"query","params":{"path":"a"}}"#);
    assert_eq!(known.pipe.conversation().1, Some("trpc"), "what is known has its own rules besides");
}

#[test]
fn a_stateful_conversation_ends_with_its_worker() {
    let mut bench = Bench::new();
    bench.operator(|pipe, _| pipe.converse(Conversation::Stateful { opens_each_connection: true }, "subprotocol"));
    bench.worker_dies(LinkLoss::Reset);
    assert_eq!(bench.client_got(), [closed(1012, "backend lost")]);
    assert!(!bench.is_dialing());
}
