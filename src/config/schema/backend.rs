//! The keys of `[[pools.backends]]`.

use super::super::Backend;
use super::{Key, any, key, name, range, some};

pub(super) fn keys() -> Vec<Key<Backend>> {
    vec![
        key("url", |b: &mut Backend| &mut b.url, any, "where it listens; with a path, every pipe is sent to that path")
            .required("\"ws://127.0.0.1:9101\""),
        key(
            "id",
            |b: &mut Backend| &mut b.id,
            some(|text: &String| name(text)),
            "its name in the API and in metrics; the pool's name and its place there if absent",
        )
        .or("\"w1\""),
        key("weight", |b: &mut Backend| &mut b.weight, range(1, 1000), "its share beside the others"),
        key(
            "max_pipes",
            |b: &mut Backend| &mut b.max_pipes,
            any,
            "instead of the pool's max_pipes_per_backend; 0 is no limit",
        )
        .or("1"),
        key(
            "serves",
            |b: &mut Backend| &mut b.serves,
            any,
            "the route keys it takes, as a list or as a table of key and alias; empty is any",
        ),
        key("labels", |b: &mut Backend| &mut b.labels, any, "free text for people and filters"),
        key(
            "state",
            |b: &mut Backend| &mut b.state,
            any,
            "the admin state it starts in: \"ready\", \"drain\" or \"maint\"",
        ),
    ]
}
