//! The built-in profiles, as rules.

use std::sync::{Arc, LazyLock};

use super::json::Pointer;
use super::profile::{Dialect, Profile};
use super::rules::{AnswerRule, ForgetRule, Holds, KeepRule, MapRule, NoteRule, Rules, Test, Wants};
use super::words::{Classes, How, Regret};
use crate::frame::Side;

/// The built-in profiles.
static BUILT_IN: LazyLock<Vec<Arc<Profile>>> = LazyLock::new(profiles);

impl Profile {
    /// Every built-in profile.
    #[must_use]
    pub fn built_in() -> &'static [Arc<Self>] {
        &BUILT_IN
    }

    /// The built-in profile called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<Arc<Self>> {
        Self::built_in().iter().find(|profile| *profile.name == *name).cloned()
    }
}

fn profiles() -> Vec<Arc<Profile>> {
    let json = |name, rules| Arc::new(Profile { rules, ..Profile::of(name, Dialect::Json) });
    let own = |name, dialect| Arc::new(Profile::of(name, dialect));
    vec![
        json("graphql-transport-ws", graphql("subscribe", "complete", Regret::GraphqlTransport)),
        json("graphql-ws", graphql("start", "stop", Regret::GraphqlLegacy)),
        own("socket.io", Dialect::SocketIo),
        own("sockjs", Dialect::SockJs),
        own("stomp", Dialect::Stomp),
        own("nats", Dialect::Nats),
        own("mqtt", Dialect::Mqtt),
        own("hocuspocus", Dialect::Hocuspocus),
        json("trpc", trpc()),
        json("ocpp1.6", ocpp()),
        json("lsp", lsp()),
        json("eth-jsonrpc", ethereum()),
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

fn present(pointer: &str) -> Test {
    Test { at: at(pointer), wants: Wants::Present }
}

fn absent(pointer: &str) -> Test {
    Test { at: at(pointer), wants: Wants::Absent }
}

fn keep(tests: Vec<Test>, key: Option<&str>, how: How) -> KeepRule {
    KeepRule { tests, key: key.map(at), how, answer: None, note: None, map: None }
}

fn forget(from: Side, tests: Vec<Test>, key: &str, of: &[u8]) -> ForgetRule {
    ForgetRule { from, tests, key: Some(at(key)), of: Classes::of(of) }
}

/// The answer that repeats what the message has at one place, at another.
fn answered(tests: Vec<Test>, id: &str, in_answer: &str, holds: Holds) -> Option<AnswerRule> {
    Some(AnswerRule { tests, id: Some((at(id), at(in_answer))), holds, within: None })
}

/// The two protocols of GraphQL: a worker that has not acknowledged the init closes on a subscription (4401), one that
/// sees a second init closes (4429), and so does one that sees an id twice (4409). Only a subscription may begin again.
fn graphql(subscribe: &str, stop: &str, regret: Regret) -> Rules {
    let acknowledged =
        AnswerRule { tests: vec![is("/type", &["connection_ack"])], id: None, holds: Holds::Everything, within: None };
    let init = keep(vec![is("/type", &["connection_init"])], None, How::Last);
    let subscription = vec![is("/type", &[subscribe]), begins("/payload/query", "subscription")];
    let other = keep(vec![is("/type", &[subscribe])], Some("/id"), How::Once(regret));
    Rules {
        keep: vec![KeepRule { answer: Some(acknowledged), ..init }, keep(subscription, Some("/id"), How::Last), other],
        forget: vec![
            forget(Side::Client, vec![is("/type", &[stop])], "/id", &[1, 2]),
            forget(Side::Backend, vec![is("/type", &["complete", "error"])], "/id", &[1, 2]),
        ],
    }
}

/// tRPC over WebSocket: a subscription begins again behind the last event that its client has had; a query or a mutation
/// does not begin again.
fn trpc() -> Rules {
    let parameters = keep(vec![is("/method", &["connectionParams"])], None, How::Last);
    let subscription = KeepRule {
        answer: answered(vec![is("/result/type", &["started"])], "/id", "/id", Holds::Replay),
        note: Some(NoteRule { key: at("/id"), value: at("/result/id"), at: at("/params/lastEventId") }),
        ..keep(vec![is("/method", &["subscription"])], Some("/id"), How::Last)
    };
    let call = keep(vec![is("/method", &["query", "mutation"])], Some("/id"), How::Once(Regret::Trpc));
    Rules {
        keep: vec![parameters, subscription, call],
        forget: vec![
            forget(Side::Client, vec![is("/method", &["subscription.stop"])], "/id", &[1]),
            forget(Side::Backend, vec![is("/result/type", &["stopped"])], "/id", &[1]),
            forget(Side::Backend, vec![present("/result")], "/id", &[2]),
            forget(Side::Backend, vec![present("/error")], "/id", &[1, 2]),
        ],
    }
}

/// OCPP-J, of any version: a charge point that a central system does not know is told to boot.
fn ocpp() -> Rules {
    let boot = KeepRule {
        answer: answered(vec![is("/0", &["3", "4"])], "/1", "/1", Holds::Everything),
        ..keep(vec![is("/0", &["2"]), is("/2", &["BootNotification"])], None, How::Last)
    };
    Rules { keep: vec![boot], forget: Vec::new() }
}

/// The language server protocol, a message of JSON-RPC in each WebSocket message.
fn lsp() -> Rules {
    let method = |name: &str| vec![is("/method", &[name])];
    let uri = Some("/params/textDocument/uri");
    let first_change = "/params/contentChanges/0";
    let whole_text =
        [method("textDocument/didChange"), vec![present(first_change), absent("/params/contentChanges/0/range")]]
            .concat();
    let initialize = KeepRule {
        answer: answered(vec![present("/result")], "/id", "/id", Holds::Everything),
        ..keep(method("initialize"), None, How::Last)
    };
    Rules {
        keep: vec![
            initialize,
            keep(method("initialized"), None, How::Last),
            keep(method("textDocument/didOpen"), uri, How::All),
            keep(method("textDocument/didChange"), uri, How::All),
        ],
        forget: vec![
            forget(Side::Client, method("textDocument/didClose"), "/params/textDocument/uri", &[2, 3]),
            // A change without a range is the whole text: those before it are of no use any more.
            forget(Side::Client, whole_text, "/params/textDocument/uri", &[3]),
        ],
    }
}

/// Ethereum's JSON-RPC over WebSocket: a subscription begins again, and its client goes on with the id that it knows. A
/// question is asked again until it is answered; a call that may do something is not made twice.
fn ethereum() -> Rules {
    const QUESTIONS: &[&str] = &[
        "eth_get",
        "eth_call",
        "eth_chainId",
        "eth_blockNumber",
        "eth_blobBaseFee",
        "eth_gasPrice",
        "eth_maxPriorityFeePerGas",
        "eth_feeHistory",
        "eth_estimateGas",
        "eth_createAccessList",
        "eth_accounts",
        "eth_syncing",
        "net_",
        "web3_",
    ];
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let method = |wants| Test { at: at("/method"), wants };
    let subscription = KeepRule {
        answer: answered(vec![absent("/method")], "/id", "/id", Holds::Replay),
        map: Some(MapRule {
            name: at("/result"),
            tests: vec![is("/method", &["eth_subscription"])],
            mention: at("/params/subscription"),
        }),
        ..keep(vec![is("/method", &["eth_subscribe"])], None, How::All)
    };
    let question = keep(vec![method(Wants::Prefix(words(QUESTIONS)))], Some("/id"), How::All);
    let end = vec![is("/method", &["eth_unsubscribe"])];
    let end = keep(end, Some("/id"), How::Once(Regret::JsonRpcDone));
    let call = keep(vec![present("/method")], Some("/id"), How::Once(Regret::JsonRpc));
    Rules {
        keep: vec![subscription, question, end, call],
        forget: vec![
            forget(Side::Client, vec![is("/method", &["eth_unsubscribe"])], "/params/0", &[0]),
            forget(Side::Backend, vec![present("/result")], "/id", &[1, 2, 3]),
            forget(Side::Backend, vec![present("/error")], "/id", &[1, 2, 3]),
        ],
    }
}
