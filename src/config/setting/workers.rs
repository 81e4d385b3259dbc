//! The values of `[[workers]]` that no other table has.

use std::time::Duration;

use holdline_core::supervisor::Replace;
use serde_json::json;

use super::super::workers::{Backoff, Ports, StopSignal, WorkerListen};
use super::{Choice, Fault, Form, Setting, fault, quoted, string, units, wants};
use crate::config::node::{Node, Value};

impl Choice for WorkerListen {
    const WORDS: &'static [(&'static str, Self)] = &[("port", Self::Port), ("fd", Self::Fd), ("unix", Self::Unix)];
}

impl Choice for Replace {
    const WORDS: &'static [(&'static str, Self)] = &[("first", Self::First), ("after", Self::After)];
}

impl Choice for StopSignal {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("TERM", Self::Term),
        ("INT", Self::Int),
        ("QUIT", Self::Quit),
        ("HUP", Self::Hup),
        ("USR1", Self::Usr1),
        ("USR2", Self::Usr2),
    ];
}

impl Setting for Ports {
    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        const WANTED: &str = "ports such as \"9100-9199\", from 1 to 65535";
        let text = string(node, WANTED)?;
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|&port| port > 0);
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => wants(node, WANTED),
        }
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }

    fn form() -> Form {
        json!({ "type": "string", "pattern": "^[0-9]+ *(- *[0-9]+)?$" })
    }
}

impl Setting for Backoff {
    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        const WANTED: &str = "two durations such as \"100ms..30s\"";
        let text = string(node, WANTED)?;
        let both = text.split_once("..").or_else(|| text.split_once('…'));
        match both.map(|(min, max)| (units::duration(min.trim()), units::duration(max.trim()))) {
            Some((Some(min), Some(max))) => Ok(Self { min, max }),
            _ => wants(node, WANTED),
        }
    }

    fn show(&self) -> Option<String> {
        let text = |wait: Duration| units::show_duration(wait);
        Some(quoted(&format!("{}..{}", text(self.min), text(self.max))))
    }

    fn form() -> Form {
        json!({ "type": "string" })
    }
}

/// A part of a whole.
impl Setting for f64 {
    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        let number = match &node.value {
            Value::Decimal(number) => Some(*number),
            Value::Integer(number) => Some(*number as Self),
            Value::Env(text) => text.parse().ok(),
            Value::Text(_) | Value::Bool(_) | Value::List(_) | Value::Table(_) | Value::Other(_) => None,
        };
        match number.filter(|number| number.is_finite()) {
            Some(number) => Ok(number),
            None => fault(node, "use a number such as 0.1".to_owned()),
        }
    }

    fn show(&self) -> Option<String> {
        Some(format!("{self:?}"))
    }

    fn form() -> Form {
        json!({ "type": "number" })
    }
}
