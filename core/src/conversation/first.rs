//! What the first message of a conversation shows, where it shows anything for certain.
//!
//! Refused: to guess. A message that another protocol may begin with too shows nothing.

use super::json::{self, Document, Pointer};
use super::messages::is_hocuspocus_login;
use crate::frame::{Kind, Side};

/// What a first message shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shown {
    /// The profile of this name.
    Profile(&'static str),
    /// That it ends with its worker.
    Stateful,
}

/// By what a conversation is known whose first message showed it.
pub const BY_FIRST_MESSAGE: &str = "first_message";

/// By what one is known whose first message showed a profile that cannot be played: its peers compress what they say, so
/// that the profile could not read it. It ends with its worker.
pub const BY_PROFILE_IN_VAIN: &str = "compressed";

/// First messages that show it for certain: whose they are and how they look, and what they show.
pub const FIRST_MESSAGES: &[(&str, Shown)] = &[
    ("of the worker, 0{\"sid\"… (Engine.IO)", Shown::Profile("socket.io")),
    ("of the worker, INFO {… (NATS)", Shown::Profile("nats")),
    ("of the worker, [\"setup\", … (terminado)", Shown::Stateful),
    ("of the client, a query, mutation or subscription with an id and a path (tRPC)", Shown::Profile("trpc")),
    ("of the client, initialize with capabilities and a processId or rootUri (LSP)", Shown::Profile("lsp")),
    (
        "of the client, a binary one with a document's name, a token and no byte more (Hocuspocus)",
        Shown::Profile("hocuspocus"),
    ),
    ("of the client, [\"stdin\", … or [\"set_size\", … (terminado)", Shown::Stateful),
    ("of the client, initialize with an sdkLanguage (Playwright)", Shown::Stateful),
    (
        "of the client, JSON-RPC 2.0 with a method that begins with eth_ or evm_ (Ethereum)",
        Shown::Profile("eth-jsonrpc"),
    ),
];

/// What the first message of a conversation shows, which `from` sends.
pub(crate) fn shown_by(from: Side, kind: Kind, payload: &[u8]) -> Option<Shown> {
    match from {
        Side::Backend if payload.starts_with(b"0{\"sid\"") => Some(Shown::Profile("socket.io")),
        Side::Backend if payload.starts_with(b"INFO {") => Some(Shown::Profile("nats")),
        Side::Backend if payload.starts_with(b"[\"setup\",") => Some(Shown::Stateful),
        Side::Backend => None,
        Side::Client if kind == Kind::Binary => is_hocuspocus_login(payload).then_some(Shown::Profile("hocuspocus")),
        Side::Client => json::documents(payload).into_iter().next().and_then(|place| shown_by_call(&payload[place])),
    }
}

fn shown_by_call(payload: &[u8]) -> Option<Shown> {
    let document = Document::read(payload)?;
    let find = |pointer: &str| Pointer::parse(pointer).ok().and_then(|pointer| document.find(&pointer));
    if find("/0").is_some_and(|word| word.is("stdin") || word.is("set_size")) {
        return Some(Shown::Stateful);
    }
    let method = find("/method").and_then(|value| value.text())?;
    let has = |pointer: &str| find(pointer).is_some();
    match &*method {
        "query" | "mutation" | "subscription" if has("/id") && has("/params/path") => Some(Shown::Profile("trpc")),
        "initialize" if has("/params/sdkLanguage") => Some(Shown::Stateful),
        "initialize" if has("/params/capabilities") && (has("/params/processId") || has("/params/rootUri")) => {
            Some(Shown::Profile("lsp"))
        }
        name if name.starts_with("eth_") || name.starts_with("evm_") => {
            find("/jsonrpc").filter(|version| version.is("2.0")).map(|_| Shown::Profile("eth-jsonrpc"))
        }
        _ => None,
    }
}
