//! `GET /v1/pipes`: the live pipes that fit, sorted by what is looked for.
//!
//! A page costs one look at each live pipe and a sort of the page, however many pages there are: nothing is kept between two
//! of them. A cursor is the place of the last pipe given out, its value and its id, so that pipes that come and go
//! neither shift the others nor repeat them. One whose value passes the cursor between two pages is seen twice or not at
//! all; sorted by age or by id, no value changes.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use holdline_core::ids::PipeId;
use holdline_core::pipe::PipeState;
use holdline_core::time::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::body::Query;
use super::pipes::PipeBody;
use super::problem::Problem;
use super::{Admin, condition, duration, labels, list};
use crate::pipes::PipeEntry;

/// One page of pipes.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct PipeList {
    items: Vec<PipeBody>,
    /// What to send as `cursor` for the next page; `null` on the last one.
    next_cursor: Option<String>,
    /// Live pipes.
    total: usize,
    /// Those of them that fit what was asked for, on all pages together.
    matched: usize,
}

/// What a list is sorted by; pipes of one value stand by their ids.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
pub(super) enum Sort {
    /// Most bytes a second first.
    #[serde(rename = "-rate")]
    Rate,
    /// Most bytes held first.
    #[serde(rename = "-buffered")]
    Buffered,
    /// Most interruptions first.
    #[serde(rename = "-interruptions")]
    Interruptions,
    /// Most memory first.
    #[serde(rename = "-memory")]
    Memory,
    /// Oldest first.
    #[serde(rename = "age")]
    Age,
}

impl Sort {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "-rate",
            Self::Buffered => "-buffered",
            Self::Interruptions => "-interruptions",
            Self::Memory => "-memory",
            Self::Age => "age",
        }
    }

    /// Where a pipe stands: the least comes first.
    fn rank(self, pipe: &PipeEntry, now: Time) -> u64 {
        let most_first = |value: u64| u64::MAX - value;
        match self {
            Self::Rate => most_first(pipe.rate.bytes_per_second(now)),
            Self::Buffered => most_first(pipe.buffered_bytes()),
            Self::Interruptions => most_first(pipe.interruptions.load(Relaxed)),
            Self::Memory => most_first(pipe.memory_bytes.load(Relaxed)),
            Self::Age => micros(pipe.opened_at),
        }
    }
}

fn micros(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// A pipe's place in a list.
type Place = (u64, PipeId);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Ask {
    route: Option<String>,
    pool: Option<String>,
    backend: Option<String>,
    key: Option<String>,
    /// `room:a`, or `room` for any value.
    label: Option<String>,
    state: Option<String>,
    /// What the id, key, client, backend, route or a label has in it, in upper or lower case.
    q: Option<String>,
    /// By id without it.
    sort: Option<Sort>,
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
    /// The `next_cursor` of the page before, of a list that is sorted in the same way.
    cursor: Option<String>,
    index: Option<u64>,
    #[schemars(regex(pattern = duration::PATTERN))]
    wait: Option<String>,
}

impl Ask {
    fn selects(&self, pipe: &PipeEntry, state: Option<PipeState>) -> bool {
        let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        let backend = |wanted: &str| pipe.backend().is_some_and(|(_, id)| *id == *wanted);
        same(&self.route, &pipe.route.name)
            && same(&self.pool, &pipe.route.pool)
            && self.key.as_deref().is_none_or(|wanted| pipe.key.as_deref() == Some(wanted))
            && state.is_none_or(|wanted| pipe.state() == wanted)
            && self.backend.as_deref().is_none_or(backend)
            && self.q.as_deref().is_none_or(|words| mentions(pipe, words))
    }

    fn rank(&self, pipe: &PipeEntry, now: Time) -> u64 {
        self.sort.map_or(0, |sort| sort.rank(pipe, now))
    }

    /// The place that the page begins behind.
    fn cursor(&self) -> Result<Option<Place>, Problem> {
        let Some(text) = &self.cursor else { return Ok(None) };
        let place = match self.sort {
            None => PipeId::parse(text).map(|id| (0, id)),
            Some(sort) => text.strip_prefix(sort.as_str()).and_then(ranked),
        };
        let refused = "must be the next_cursor of this list, sorted in the same way";
        place.map(Some).ok_or_else(|| Problem::invalid("/query/cursor", refused))
    }

    fn next_cursor(&self, (rank, id): Place) -> String {
        self.sort.map_or_else(|| id.to_string(), |sort| format!("{}.{rank}.{id}", sort.as_str()))
    }
}

/// Reads `.RANK.ID`.
fn ranked(text: &str) -> Option<Place> {
    let (rank, id) = text.strip_prefix('.')?.split_once('.')?;
    Some((rank.parse().ok()?, PipeId::parse(id)?))
}

/// Whether what a pipe is found by has these words in it.
fn mentions(pipe: &PipeEntry, words: &str) -> bool {
    let within = |text: &str| contains(text, words);
    let labelled = || {
        let labels = pipe.labels.get();
        labels.iter().flat_map(|labels| labels.iter()).any(|(name, value)| within(&format!("{name}:{value}")))
    };
    pipe.key.as_deref().is_some_and(within)
        || within(&pipe.route.name)
        || pipe.backend().is_some_and(|(_, id)| within(&id))
        || within(&pipe.client())
        || within(&pipe.id.to_string())
        || labelled()
}

/// Whether `text` has `words` in it, letters of ASCII in upper or lower case.
fn contains(text: &str, words: &str) -> bool {
    let (text, words) = (text.as_bytes(), words.as_bytes());
    words.is_empty() || text.windows(words.len()).any(|part| part.eq_ignore_ascii_case(words))
}

pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    Query(ask): Query<Ask>,
) -> Result<Response, Problem> {
    let limit = list::limit(ask.limit)?;
    let state = ask.state.as_deref().map(parse_state).transpose()?;
    let label = ask.label.as_deref().map(|text| labels::selector("/query/label", text)).transpose()?;
    let cursor = ask.cursor()?;
    let index = condition::index(&admin, admin.process.pipes.index(), ask.index, ask.wait.as_deref()).await?;
    let (live, now) = (&admin.process.pipes, admin.process.clock.now());
    let mut found = label.map_or_else(|| live.list(), |label| live.labels.select(&label));
    found.retain(|pipe| ask.selects(pipe, state));
    let matched = found.len();
    let placed = found.into_iter().map(|pipe| ((ask.rank(&pipe, now), pipe.id), pipe));
    let rest = placed.filter(|(place, _)| cursor.is_none_or(|cursor| *place > cursor)).collect();
    let (page, more) = first(rest, limit);
    let next_cursor = page.last().filter(|_| more).map(|(place, _)| ask.next_cursor(*place));
    let items = page.iter().map(|(_, pipe)| PipeBody::new(pipe, now)).collect();
    let body = PipeList { items, next_cursor, total: live.len(), matched };
    // What is sorted by moves with traffic, so that nothing is ever said to be known already.
    let asked = if ask.sort.is_some() { HeaderMap::new() } else { headers };
    Ok(admin.tags.list(&asked, index, body))
}

/// The first `limit` in their order, and whether there are more.
fn first<T>(mut placed: Vec<(Place, T)>, limit: usize) -> (Vec<(Place, T)>, bool) {
    let more = placed.len() > limit;
    if more {
        placed.select_nth_unstable_by_key(limit, |(place, _)| *place);
        placed.truncate(limit);
    }
    placed.sort_unstable_by_key(|(place, _)| *place);
    (placed, more)
}

fn parse_state(name: &str) -> Result<PipeState, Problem> {
    let names = PipeState::ALL.map(PipeState::as_str).join(", ");
    let found = PipeState::ALL.into_iter().find(|state| state.as_str() == name);
    found.ok_or_else(|| Problem::invalid("/query/state", format!("must be one of {names}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_those_that_a_sort_of_all_has_in_front() {
        let id = |n: u8| PipeId::from_bytes([n; 16]);
        let all: Vec<(Place, ())> = (0..=255u8).map(|n| ((u64::from(n.wrapping_mul(37)) / 4, id(n)), ())).collect();
        let mut sorted: Vec<Place> = all.iter().map(|(place, ())| *place).collect();
        sorted.sort_unstable();
        for limit in [1, 7, 255, 256, 1000] {
            let (page, more) = first(all.clone(), limit);
            let places: Vec<Place> = page.into_iter().map(|(place, ())| place).collect();
            assert_eq!((places.as_slice(), more), (&sorted[..limit.min(256)], limit < 256), "{limit}");
        }
    }

    #[test]
    fn words_are_found_in_upper_and_lower_case() {
        for (text, words, found) in [
            ("Screen-7", "screen", true),
            ("s", "", true),
            ("", "s", false),
            ("screen", "eens", false),
            ("a:É", "É", true),
        ] {
            assert_eq!(contains(text, words), found, "{words:?} in {text:?}");
        }
    }
}
