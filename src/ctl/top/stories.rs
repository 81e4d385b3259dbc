//! Events in lines for people: the same fact about the same backend, said many times, is one line with a count.
//!
//! Invariant: at most [`STORIES_MAX`] lines are kept, the newest last.

use std::collections::VecDeque;

use serde_json::Value;

use crate::log::escaped;

/// Lines that are kept.
const STORIES_MAX: usize = 200;
/// Among so many lines, a fact is found again.
const OPEN_MAX: usize = 8;

/// Some events that are one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Story {
    /// When the last of them happened: hours, minutes and seconds, in UTC.
    pub(super) at: String,
    pub(super) level: String,
    pub(super) text: String,
    /// What they have in common.
    key: String,
    pub(super) count: u64,
}

/// All lines, and up to which event they go.
#[derive(Clone, Default, Debug)]
pub(super) struct Stories {
    lines: VecDeque<Story>,
    pub(super) after: Option<u64>,
}

impl Stories {
    /// Takes a page of events in.
    pub(super) fn tell(&mut self, page: &Value) {
        for event in page["items"].as_array().into_iter().flatten() {
            self.add(event);
        }
        if let Some(last) = page["last"].as_u64() {
            self.after = Some(last.max(self.after.unwrap_or(0)));
        }
    }

    /// Begins anew: what was missed is not told.
    pub(super) fn forget_place(&mut self) {
        self.after = None;
        self.lines.clear();
    }

    pub(super) fn lines(&self) -> &VecDeque<Story> {
        &self.lines
    }

    fn add(&mut self, event: &Value) {
        let story = Story::of(event);
        let open = self.lines.iter().rev().take(OPEN_MAX).position(|line| line.key == story.key);
        let count = open.map_or(0, |back| {
            let place = self.lines.len() - 1 - back;
            self.lines.remove(place).map_or(0, |old| old.count)
        });
        if self.lines.len() == STORIES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(Story { count: count + 1, ..story });
    }
}

impl Story {
    fn of(event: &Value) -> Self {
        let text = |name: &str| event[name].as_str().map(escaped).unwrap_or_default();
        let (kind, about) = (text("type"), [text("backend"), text("worker"), text("route")]);
        let about = about.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
        let more: Vec<String> =
            ["state", "reason", "status", "error"].map(text).into_iter().filter(|x| !x.is_empty()).collect();
        let more = more.join(", ");
        let line = [kind.as_str(), about.as_str(), more.as_str()];
        let line: Vec<&str> = line.into_iter().filter(|part| !part.is_empty()).collect();
        let took = event["took_ms"].as_f64().map(|took| format!("  {took:.1} ms")).unwrap_or_default();
        let at = text("at");
        Self {
            at: at.get(11..19).unwrap_or(&at).to_owned(),
            level: text("level"),
            text: format!("{}{took}", line.join("  ")),
            key: line.join("  "),
            count: 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(kind: &str, backend: &str, reason: &str) -> Value {
        json!({"seq": 1, "at": "2026-11-30T03:04:05.678Z", "level": "warn", "type": kind, "backend": backend, "reason": reason})
    }

    #[test]
    fn a_thousand_moves_are_one_line() {
        let mut stories = Stories::default();
        let moves: Vec<Value> = (0..1_000)
            .flat_map(|_| {
                let mut back = event("pipe.reattached", "w2", "");
                back["took_ms"] = json!(2.25);
                [event("pipe.interrupted", "w1", "drain"), back]
            })
            .collect();
        stories.tell(&json!({"items": moves, "last": 2_000}));
        stories.tell(&json!({"items": [event("backend.down", "w3", "refused")], "last": 2_001}));
        let lines: Vec<(u64, &str)> = stories.lines().iter().map(|line| (line.count, line.text.as_str())).collect();
        let wanted = [
            (1_000, "pipe.interrupted  w1  drain"),
            (1_000, "pipe.reattached  w2  2.2 ms"),
            (1, "backend.down  w3  refused"),
        ];
        assert_eq!(lines, wanted);
        assert_eq!((stories.after, stories.lines()[2].at.as_str()), (Some(2_001), "03:04:05"));
    }

    #[test]
    fn lines_are_bounded() {
        let mut stories = Stories::default();
        for number in 0..1_000 {
            stories.add(&event("backend.up", &number.to_string(), ""));
        }
        assert_eq!(stories.lines().len(), STORIES_MAX);
        stories.forget_place();
        assert!(stories.lines().is_empty() && stories.after.is_none());
    }
}
