//! Lists page by page, things by their names, and what was probably meant when there is none of that name.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::anyhow;
use hyper::Method;
use serde_json::Value;

use super::{CallError, Client, PATIENCE};
use crate::config::closest;

/// Items of a page: as many as the API gives.
const PAGE_ITEMS: usize = 1000;

/// Pages of a list that are fetched at most; more than there can be.
const PAGES_MAX: usize = 1000;

/// What has a name of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Backend,
    Pool,
    Pipe,
    Worker,
}

impl Kind {
    const fn plural(self) -> &'static str {
        match self {
            Self::Backend => "backends",
            Self::Pool => "pools",
            Self::Pipe => "pipes",
            Self::Worker => "workers",
        }
    }

    const fn name_field(self) -> &'static str {
        match self {
            Self::Backend | Self::Pipe | Self::Worker => "id",
            Self::Pool => "name",
        }
    }
}

/// One thing of the API.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Thing {
    pub(super) kind: Kind,
    pub(super) name: String,
}

impl Thing {
    pub(super) fn new(kind: Kind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }

    /// Its path.
    pub(super) fn path(&self) -> String {
        format!("/v1/{}/{}", self.kind.plural(), encode(&self.name))
    }

    /// Asks for it, or for something below it.
    pub(super) async fn call(
        &self,
        client: &Client,
        method: Method,
        below: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        match client.call(method, &format!("{}{below}", self.path()), body).await {
            Err(CallError::NotFound(text)) => Err(self.missing(client, &text).await),
            done => Ok(done?),
        }
    }

    /// Reads it.
    pub(super) async fn get(&self, client: &Client) -> anyhow::Result<Value> {
        self.call(client, Method::GET, "", None).await
    }

    async fn missing(&self, client: &Client, text: &str) -> anyhow::Error {
        let list = List::new(format!("/v1/{}", self.kind.plural()), Vec::new());
        // What went wrong with the list is not what was asked.
        let items = list.fetch(client, None).await.map(|found| found.items).unwrap_or_default();
        let names: Vec<&str> = items.iter().filter_map(|item| item[self.kind.name_field()].as_str()).collect();
        match near(&self.name, &names) {
            Some(near) => anyhow!("{text}; did you mean {near:?}?"),
            None => anyhow!("{text}; `holdline ctl {}` lists what there is", self.kind.plural()),
        }
    }
}

/// The name that was probably meant: the only one that goes on like this, or one that is spelt nearly the same.
fn near<'a>(name: &str, names: &[&'a str]) -> Option<&'a str> {
    let mut longer = names.iter().filter(|candidate| !name.is_empty() && candidate.starts_with(name));
    match (longer.next(), longer.next()) {
        (Some(only), None) => Some(only),
        (Some(_), Some(_)) | (None, _) => closest(name, names.iter().copied()),
    }
}

/// A list of the API, with what it is filtered by.
#[derive(Debug)]
pub(super) struct List {
    path: String,
    query: Vec<(&'static str, Option<String>)>,
    /// Items that are fetched at most.
    limit: usize,
}

/// A whole list.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) items: Vec<Value>,
    /// Where it stood, to wait for a change from.
    pub(super) index: Option<u64>,
    /// How many there are, and how many of them fit, where the list says so.
    pub(super) total: Option<u64>,
    pub(super) matched: Option<u64>,
}

impl List {
    pub(super) fn new(path: impl Into<String>, query: Vec<(&'static str, Option<String>)>) -> Self {
        Self { path: path.into(), query, limit: usize::MAX }
    }

    /// The same list, of so many items at most.
    pub(super) fn limited(self, limit: Option<u32>) -> Self {
        Self { limit: limit.map_or(usize::MAX, |limit| limit as usize), ..self }
    }

    /// The first page only, of at most 1000 items.
    pub(super) async fn first(&self, client: &Client) -> Result<Vec<Value>, CallError> {
        let mut page = client.call(Method::GET, &self.first_path(), None).await?;
        match page["items"].take() {
            Value::Array(items) => Ok(items),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => Ok(Vec::new()),
        }
    }

    fn first_path(&self) -> String {
        let mut path = format!("{}?limit={}", self.path, self.limit.min(PAGE_ITEMS));
        for (name, value) in &self.query {
            if let Some(value) = value {
                let _ = write!(path, "&{name}={}", encode(value));
            }
        }
        path
    }

    /// Every item, page by page. With `seen`, waits as long as the list stands there and no longer than the time.
    pub(super) async fn fetch(&self, client: &Client, seen: Option<(u64, Duration)>) -> Result<Listing, CallError> {
        let path = self.first_path();
        let mut found = Listing { items: Vec::new(), index: None, total: None, matched: None };
        let mut more =
            seen.map_or(String::new(), |(index, wait)| format!("&index={index}&wait={}ms", wait.as_millis()));
        let mut patience = PATIENCE + seen.map_or(Duration::ZERO, |(_, wait)| wait);
        for _ in 0..PAGES_MAX {
            let mut reply = client.reply_within(Method::GET, &format!("{path}{more}"), None, patience).await?;
            found.index = found.index.or(reply.index);
            found.total = reply.body["total"].as_u64();
            found.matched = reply.body["matched"].as_u64();
            if let Value::Array(items) = reply.body["items"].take() {
                found.items.extend(items);
            }
            let Some(next) = reply.body["next_cursor"].as_str().filter(|_| found.items.len() < self.limit) else {
                break;
            };
            (more, patience) = (format!("&cursor={}", encode(next)), PATIENCE);
        }
        found.items.truncate(self.limit);
        Ok(found)
    }
}

/// Everything but the unreserved characters of RFC 3986 section 2.3, percent-encoded.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_reasons_are_encoded() {
        assert_eq!(Thing::new(Kind::Backend, "a/b c?d").path(), "/v1/backends/a%2Fb%20c%3Fd");
        assert_eq!(encode("é&="), "%C3%A9%26%3D");
    }

    #[test]
    fn the_name_that_was_meant_is_the_one_that_goes_on_like_this_or_is_spelt_alike() {
        let names = ["worker-1", "worker-2", "canary"];
        assert_eq!(near("can", &names), Some("canary"));
        assert_eq!(near("wroker-2", &names), Some("worker-2"));
        assert_eq!(near("worker-", &names), Some("worker-1"), "by spelling: both go on like this");
        assert_eq!(near("zebra", &names), None);
        assert_eq!(near("", &names), None);
    }
}
