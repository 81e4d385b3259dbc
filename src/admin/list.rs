//! Lists: `{"items": […], "next_cursor": null}`, in the order of a key that does not change.
//!
//! A cursor is the key of the last item given out, so that a list that changes between two pages neither repeats an
//! item that stayed nor skips one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problem;

/// Items of a page unless `limit` says otherwise.
pub const PAGE_DEFAULT: usize = 100;
/// Items of a page at most.
pub const PAGE_MAX: usize = 1000;

/// One page.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct List<T> {
    /// The items of this page.
    pub items: Vec<T>,
    /// What to send as `cursor` for the next page; `null` on the last one.
    pub next_cursor: Option<String>,
}

impl<T> List<T> {
    /// The page of at most `limit` items after `cursor`; `items` must be sorted by `key`.
    #[must_use]
    pub fn page(items: Vec<T>, key: impl Fn(&T) -> String, cursor: Option<&str>, limit: usize) -> Self {
        let mut rest: Vec<T> =
            items.into_iter().filter(|item| cursor.is_none_or(|cursor| key(item).as_str() > cursor)).collect();
        let more = rest.len() > limit;
        rest.truncate(limit);
        let next_cursor = if more { rest.last().map(key) } else { None };
        Self { items: rest, next_cursor }
    }
}

/// The number of items asked for.
///
/// # Errors
/// A problem if it is 0 or more than [`PAGE_MAX`].
pub fn limit(asked: Option<usize>) -> Result<usize, Problem> {
    match asked.unwrap_or(PAGE_DEFAULT) {
        limit @ 1..=PAGE_MAX => Ok(limit),
        _ => Err(Problem::invalid("/query/limit", format!("must be 1 to {PAGE_MAX}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_join_up_to_the_whole_list() {
        let all: Vec<u8> = (b'a'..=b'g').collect();
        let key = |item: &u8| char::from(*item).to_string();
        let (mut seen, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let page = List::page(all.clone(), key, cursor.as_deref(), 3);
            seen.extend(page.items);
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, all);
        assert_eq!(List::page(all.clone(), key, None, 7).next_cursor, None);
    }
}
