//! The words of each closed set, as they are written in the file.

use holdline_core::settings::{
    BackendLoss, Balance, Confirm, MoveOrder, OnRefused, OnTooBig, OverflowPolicy, Refusal, ReplayPolicy, WeightFrom,
};

use super::super::types::{
    AccessLog, Compression, Conversation, Evict, HealthKind, LogFormat, LogLevel, NoOwner, OnExceed, PoolResume,
    ProxyProtocol, RouteResume, Sticky, Upgrade,
};
use super::super::{AdminState, ClientAuth, TlsVersion};
use super::Choice;
use crate::net::SendProxy;
use crate::routes::Duplicate;

impl Choice for ReplayPolicy {
    const WORDS: &'static [(&'static str, Self)] =
        &[("unsent", Self::Unsent), ("unconfirmed", Self::Unconfirmed), ("none", Self::None)];
}

impl Choice for OverflowPolicy {
    const WORDS: &'static [(&'static str, Self)] = &[("pause", Self::Pause), ("close", Self::Close)];
}

impl Choice for BackendLoss {
    const WORDS: &'static [(&'static str, Self)] = &[("reattach", Self::Reattach), ("close", Self::Close)];
}

impl Choice for OnRefused {
    const WORDS: &'static [(&'static str, Self)] = &[("close", Self::Close), ("next", Self::Next)];
}

impl Choice for OnTooBig {
    const WORDS: &'static [(&'static str, Self)] = &[("close", Self::Close), ("drop", Self::Drop)];
}

impl Choice for Confirm {
    const WORDS: &'static [(&'static str, Self)] = &[("pong", Self::Pong), ("commit", Self::Commit)];
}

impl Choice for Conversation {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("auto", Self::Auto),
        ("stateless", Self::Stateless),
        ("profile", Self::Profile),
        ("stateful", Self::Stateful),
    ];
}

impl Choice for Compression {
    const WORDS: &'static [(&'static str, Self)] = &[("off", Self::Off), ("pass", Self::Pass)];
}

impl Choice for ProxyProtocol {
    const WORDS: &'static [(&'static str, Self)] =
        &[("off", Self::Off), ("accept", Self::Accept), ("require", Self::Require)];
}

impl Choice for SendProxy {
    const WORDS: &'static [(&'static str, Self)] = &[("off", Self::Off), ("v1", Self::V1), ("v2", Self::V2)];
}

impl Choice for Refusal {
    const WORDS: &'static [(&'static str, Self)] = &[("end", Self::End), ("wait", Self::Wait)];
}

impl Choice for Balance {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("least_pipes", Self::LeastPipes),
        ("round_robin", Self::RoundRobin),
        ("random2", Self::Random2),
        ("hash", Self::Hash),
    ];
}

impl Choice for MoveOrder {
    const WORDS: &'static [(&'static str, Self)] =
        &[("attach_first", Self::AttachFirst), ("leave_first", Self::LeaveFirst)];
}

impl Choice for WeightFrom {
    const WORDS: &'static [(&'static str, Self)] = &[("config", Self::Config), ("memory", Self::Memory)];
}

impl Choice for Upgrade {
    const WORDS: &'static [(&'static str, Self)] = &[("any", Self::Any), ("websocket", Self::Websocket)];
}

impl Choice for NoOwner {
    const WORDS: &'static [(&'static str, Self)] = &[("refuse", Self::Refuse), ("any", Self::Any)];
}

impl Choice for PoolResume {
    const WORDS: &'static [(&'static str, Self)] =
        &[("transparent", Self::Transparent), ("hints", Self::Hints), ("aware", Self::Aware)];
}

impl Choice for Sticky {
    const WORDS: &'static [(&'static str, Self)] = &[("off", Self::Off), ("cookie", Self::Cookie)];
}

impl Choice for RouteResume {
    const WORDS: &'static [(&'static str, Self)] = &[("none", Self::None), ("cookie", Self::Cookie)];
}

impl Choice for Duplicate {
    const WORDS: &'static [(&'static str, Self)] = &[("replace", Self::Replace), ("reject", Self::Reject)];
}

impl Choice for HealthKind {
    const WORDS: &'static [(&'static str, Self)] = &[("tcp", Self::Tcp), ("http", Self::Http), ("ws", Self::Ws)];
}

impl Choice for AdminState {
    const WORDS: &'static [(&'static str, Self)] =
        &[("ready", Self::Ready), ("drain", Self::Drain), ("maint", Self::Maint)];
}

impl Choice for OnExceed {
    const WORDS: &'static [(&'static str, Self)] = &[("throttle", Self::Throttle), ("close", Self::Close)];
}

impl Choice for Evict {
    const WORDS: &'static [(&'static str, Self)] =
        &[("lru", Self::Lru), ("oldest", Self::Oldest), ("largest", Self::Largest)];
}

impl Choice for AccessLog {
    const WORDS: &'static [(&'static str, Self)] =
        &[("off", Self::Off), ("combined", Self::Combined), ("json", Self::Json)];
}

impl Choice for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[("auto", Self::Auto), ("text", Self::Text), ("json", Self::Json)];
}

impl Choice for LogLevel {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("off", Self::Off),
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}

impl Choice for TlsVersion {
    const WORDS: &'static [(&'static str, Self)] = &[("1.2", Self::Tls12), ("1.3", Self::Tls13)];
}

impl Choice for ClientAuth {
    const WORDS: &'static [(&'static str, Self)] = &[
        (Self::Off.as_str(), Self::Off),
        (Self::Request.as_str(), Self::Request),
        (Self::Require.as_str(), Self::Require),
    ];
}
