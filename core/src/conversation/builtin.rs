//! The built-in profiles, as rules.

use std::sync::Arc;

use super::json::Pointer;
use super::profile::{Dialect, Profile};
use super::rules::{AnswerRule, ForgetRule, KeepRule, Rules, Test, Wants};
use super::words::{Classes, How, Regret};
use crate::frame::Side;

pub(super) fn profiles() -> Vec<Arc<Profile>> {
    let json = |name, rules| Arc::new(Profile { name, dialect: Dialect::Json, rules });
    vec![
        json("graphql-transport-ws", graphql("subscribe", "complete", Regret::GraphqlTransport)),
        json("graphql-ws", graphql("start", "stop", Regret::GraphqlLegacy)),
        Arc::new(Profile { name: "sockjs", dialect: Dialect::SockJs, rules: Rules::default() }),
    ]
}

fn at(text: &str) -> Pointer {
    Pointer::parse(text).expect("a constant pointer")
}

fn is(pointer: &str, words: &[&str]) -> Test {
    let words = words.iter().map(|word| (*word).to_owned()).collect();
    Test { at: at(pointer), wants: Wants::OneOf(words) }
}

fn begins(pointer: &str, word: &str) -> Test {
    Test { at: at(pointer), wants: Wants::Begins(word.to_owned()) }
}

/// The two protocols of GraphQL: a worker that has not acknowledged the init closes on a subscription (4401), one that
/// sees a second init closes (4429), and so does one that sees an id twice (4409). Only a subscription may begin again.
fn graphql(subscribe: &str, stop: &str, regret: Regret) -> Rules {
    let acknowledged = AnswerRule { tests: vec![is("/type", &["connection_ack"])], key: None, gates: true };
    let init = KeepRule {
        tests: vec![is("/type", &["connection_init"])],
        key: None,
        how: How::Last,
        answer: Some(acknowledged),
    };
    let subscription = KeepRule {
        tests: vec![is("/type", &[subscribe]), begins("/payload/query", "subscription")],
        key: Some(at("/id")),
        how: How::Last,
        answer: None,
    };
    let other =
        KeepRule { tests: vec![is("/type", &[subscribe])], key: Some(at("/id")), how: How::Once(regret), answer: None };
    let forget = |from, words: &[&str]| ForgetRule {
        from,
        tests: vec![is("/type", words)],
        key: Some(at("/id")),
        of: Classes::of(&[1, 2]),
    };
    Rules {
        keep: vec![init, subscription, other],
        forget: vec![forget(Side::Client, &[stop]), forget(Side::Backend, &["complete", "error"])],
    }
}
