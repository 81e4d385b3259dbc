//! Names that each worker gives anew: the client goes on with those that it knows, in both directions.

use holdline_core::pipe::{Fact, Interruption, LinkLoss};
use holdline_core::time::Time;

use crate::bench::{A, B, Bench, C, ms, secs, text};
use crate::prologue::profiled;
use crate::wire::Item;

fn subscribe(id: &str, what: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"eth_subscribe","params":["{what}"]}}"#)
}

fn unsubscribe(id: u32, name: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"eth_unsubscribe","params":["{name}"]}}"#)
}

fn answer(id: &str, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

fn event(name: &str, block: u32) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"eth_subscription","params":{{"subscription":"{name}","result":{{"number":{block}}}}}}}"#
    )
}

/// A request with an id of ours, for what the client calls `name`.
fn again(name: &str, what: &str) -> String {
    subscribe(&format!(r#""holdline:{name}""#), what)
}

fn own(name: &str) -> String {
    format!(r#""holdline:{name}""#)
}

/// A client that listens to what it calls these names; everything is confirmed.
fn listening(names: &[&str]) -> Bench {
    let mut bench = profiled("eth-jsonrpc");
    for (id, name) in names.iter().enumerate() {
        bench.client_says(&subscribe(&id.to_string(), name));
        bench.worker_says(&answer(&id.to_string(), &format!(r#""{name}""#)));
    }
    bench.settle();
    bench.client_got();
    bench.worker_got();
    bench
}

/// The worker is lost, and the next one calls what the client calls by the first name by the second.
fn served_by_next(bench: &mut Bench, names: &[(&str, &str)]) {
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    for (known, new) in names {
        bench.worker_says(&answer(&own(known), &format!(r#""{new}""#)));
    }
}

#[test]
fn a_subscription_begins_again_and_its_client_hears_the_id_that_it_knows() {
    let mut bench = listening(&["0xa", "0xb"]);
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    assert_eq!(bench.worker_got(), [text(&again("0xa", "0xa")), text(&again("0xb", "0xb"))]);
    bench.worker_says(&answer(&own("0xb"), r#""0xd""#));
    bench.worker_says(&answer(&own("0xa"), r#""0xc""#));
    assert_eq!(bench.client_got(), [], "it has had these answers");
    bench.worker_says(&event("0xd", 7));
    bench.worker_says(&event("0xc", 8));
    bench.worker_says(&event("0xe", 9));
    assert_eq!(bench.client_got(), [text(&event("0xb", 7)), text(&event("0xa", 8)), text(&event("0xe", 9))]);
}

#[test]
fn what_is_given_up_is_called_as_its_worker_calls_it_and_is_not_asked_for_again() {
    let mut bench = listening(&["0xa", "0xb"]);
    served_by_next(&mut bench, &[("0xa", "0xc"), ("0xb", "0xd")]);
    bench.worker_got();
    bench.client_says(&unsubscribe(9, "0xa"));
    assert_eq!(bench.worker_got(), [text(&unsubscribe(9, "0xc"))]);
    bench.worker_says(&answer("9", "true"));
    bench.settle();
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(C);
    assert_eq!(bench.worker_got(), [text(&again("0xb", "0xb"))]);
}

#[test]
fn what_was_given_up_without_a_worker_waits_for_the_new_name() {
    let mut bench = listening(&["0xa"]);
    bench.worker_dies(LinkLoss::Reset);
    bench.client_says("before");
    bench.client_says(&unsubscribe(9, "0xa"));
    bench.client_says("behind");
    bench.attach(B);
    assert_eq!(bench.worker_got(), [text(&again("0xa", "0xa"))]);
    bench.worker_says(&answer(&own("0xa"), r#""0xlonger""#));
    assert_eq!(bench.worker_got(), [text("before"), text(&unsubscribe(9, "0xlonger")), text("behind")]);
    assert_eq!(bench.client_got(), []);
}

#[test]
fn what_was_being_given_up_has_ended_with_its_worker() {
    let mut bench = listening(&["0xa", "0xb"]);
    bench.client_says("before");
    bench.client_says(&unsubscribe(9, "0xa"));
    bench.client_says("behind");
    bench.worker_dies(LinkLoss::Reset);
    assert_eq!(bench.client_got(), [text(&answer("9", "true"))]);
    bench.attach(B);
    assert_eq!(bench.worker_got(), [text(&again("0xb", "0xb"))]);
    bench.worker_says(&answer(&own("0xb"), r#""0xc""#));
    assert_eq!(bench.worker_got(), [text("before"), text("behind")]);
}

#[test]
fn what_a_worker_still_says_of_what_is_given_up_is_called_as_the_client_knows_it() {
    let mut bench = listening(&["0xa"]);
    served_by_next(&mut bench, &[("0xa", "0xc")]);
    bench.client_says(&unsubscribe(9, "0xa"));
    bench.settle();
    bench.client_says("more");
    bench.worker_says(&event("0xc", 7));
    bench.worker_says(&answer("9", "true"));
    assert_eq!(bench.client_got(), [text(&event("0xa", 7)), text(&answer("9", "true"))]);
    bench.client_says("still more");
    bench.worker_says(&event("0xc", 8));
    assert_eq!(bench.client_got(), [text(&event("0xc", 8))], "it is forgotten");
}

#[test]
fn two_workers_may_give_one_id_to_two_subscriptions() {
    let mut bench = listening(&["0x1", "0x2"]);
    bench.client_says(&unsubscribe(9, "0x1"));
    bench.worker_says(&answer("9", "true"));
    bench.settle();
    bench.client_got();
    served_by_next(&mut bench, &[("0x2", "0x1")]);
    bench.worker_says(&event("0x1", 1));
    assert_eq!(bench.client_got(), [text(&event("0x2", 1))]);
    bench.worker_got();
    bench.client_says(&subscribe("7", "logs"));
    bench.worker_says(&answer("7", r#""0x2""#));
    let heard = bench.client_got();
    let [Item::Text(named)] = heard.as_slice() else { panic!("{heard:?}") };
    let named = str::from_utf8(named).unwrap();
    let name = named.split('"').rev().nth(1).unwrap();
    assert!(name.starts_with("0x686f6c646c696e65") && name.len() == 34, "a name of ours: {named}");
    bench.worker_says(&event("0x2", 2));
    assert_eq!(bench.client_got(), [text(&event(name, 2))]);
    bench.worker_got();
    bench.client_says(&unsubscribe(8, name));
    assert_eq!(bench.worker_got(), [text(&unsubscribe(8, "0x2"))]);
}

#[test]
fn a_subscription_that_was_not_answered_is_asked_for_in_the_clients_own_words() {
    let mut bench = profiled("eth-jsonrpc");
    bench.client_says(&subscribe("5", "logs"));
    bench.settle();
    bench.worker_got();
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    assert_eq!(bench.worker_got(), [text(&subscribe("5", "logs"))]);
    bench.worker_says(&answer("5", r#""0xa""#));
    assert_eq!(bench.client_got(), [text(&answer("5", r#""0xa""#))], "it passes: the client waits for it");
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(C);
    assert_eq!(bench.worker_got(), [text(&again("0xa", "logs"))]);
}

#[test]
fn a_subscription_that_a_worker_refuses_is_forgotten_and_one_that_the_next_refuses_is_tried_elsewhere() {
    let refusal = |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601}}}}"#);
    let mut bench = listening(&["0xa"]);
    bench.client_says(&subscribe("5", "nonsense"));
    bench.worker_says(&refusal("5"));
    bench.settle();
    assert_eq!(bench.client_got(), [text(&refusal("5"))]);
    bench.worker_got();
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    assert_eq!(bench.worker_got(), [text(&again("0xa", "0xa"))]);
    bench.worker_says(&refusal(&own("0xa")));
    assert_eq!(bench.client_got(), [], "it has not asked for that");
    bench.wait(secs(5));
    let given_up = |fact: &Fact| matches!(fact, Fact::Interrupted { reason: Interruption::Unanswered, .. });
    assert!(bench.facts.iter().any(given_up));
    bench.attach(C);
    assert_eq!(bench.worker_got(), [text(&again("0xa", "0xa"))]);
}

#[test]
fn requests_in_lists_are_told_apart() {
    let mut bench = profiled("eth-jsonrpc");
    bench.client_says(&format!("[{},{}]", subscribe("1", "logs"), subscribe("2", "heads")));
    bench.worker_says(&format!("[{},{}]", answer("2", r#""0xb""#), answer("1", r#""0xa""#)));
    bench.settle();
    bench.client_got();
    bench.worker_got();
    served_by_next(&mut bench, &[("0xa", "0xc"), ("0xb", "0xd")]);
    assert_eq!(bench.worker_got(), [text(&again("0xa", "logs")), text(&again("0xb", "heads"))]);
    bench.client_says(&format!("[{},{}]", unsubscribe(3, "0xb"), unsubscribe(4, "0xa")));
    assert_eq!(bench.worker_got(), [text(&format!("[{},{}]", unsubscribe(3, "0xd"), unsubscribe(4, "0xc")))]);
}

#[test]
fn a_question_is_asked_again_until_it_is_answered_and_a_call_that_may_have_run_is_not() {
    let call = |id: u32, method: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":[]}}"#);
    let mut bench = profiled("eth-jsonrpc");
    bench.client_says(&call(1, "eth_blockNumber"));
    bench.client_says(&call(2, "eth_call"));
    bench.client_says(&call(3, "eth_sendRawTransaction"));
    bench.client_says(&call(4, "eth_sendRawTransaction"));
    bench.worker_says(&answer("1", r#""0x1""#));
    bench.worker_says(&answer("3", r#""0x2""#));
    bench.settle();
    bench.client_got();
    bench.worker_got();
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    assert_eq!(bench.worker_got(), [text(&call(2, "eth_call"))]);
    let heard = bench.client_got();
    let [Item::Text(error)] = heard.as_slice() else { panic!("{heard:?}") };
    assert!(error.starts_with(br#"{"jsonrpc":"2.0","id":4,"error":{"code":-32603"#), "{heard:?}");
}

#[test]
fn names_go_to_another_process() {
    let mut bench = listening(&["0xa", "0xb"]);
    served_by_next(&mut bench, &[("0xa", "0xc")]);
    bench.worker_got();
    bench.client_says(&unsubscribe(9, "0xa"));
    bench.hand_over(Time::from_micros(5_000_000), ms(100));
    bench.worker_says(&answer(&own("0xb"), r#""0xd""#));
    assert_eq!(bench.worker_got(), [text(&unsubscribe(9, "0xc"))]);
    bench.worker_says(&event("0xd", 1));
    assert_eq!(bench.client_got(), [text(&event("0xb", 1))]);
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(A);
    assert_eq!(bench.worker_got(), [text(&again("0xb", "0xb"))]);
    bench.worker_says(&answer(&own("0xb"), r#""0xf""#));
    assert_eq!(bench.client_got(), [text(&answer("9", "true"))]);
}
