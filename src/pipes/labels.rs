//! Which pipes belong to which group, so that a message to one room asks no pipe of another.
//!
//! The labels themselves are the pipe's own ([`holdline_core::labels`]); here is what others see of them. Bound:
//! `limits.pipe_labels` and `limits.pipe_label_bytes` for each pipe. Invariant: a pipe stands in the index under each of
//! the labels that its entry shows and under no other, and under none once it has left the registry.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use holdline_core::ids::PipeId;
use holdline_core::labels::{LabelBounds, LabelSelector, Labels};

use super::{PipeEntry, lock};
use crate::config::Limits;

/// The version of labels that were never changed.
const FIRST_VERSION: u64 = 1;

/// What a pipe's entry shows of its labels; without memory of its own as long as there were none.
#[derive(Debug, Default)]
pub struct Labelled(Mutex<Option<Box<Shown>>>);

#[derive(Debug)]
struct Shown {
    labels: Option<Arc<Labels>>,
    version: u64,
}

impl Labelled {
    /// The labels, if there are any.
    #[must_use]
    pub fn get(&self) -> Option<Arc<Labels>> {
        lock(&self.0).as_ref()?.labels.clone()
    }

    /// A number that grows with each change of them.
    #[must_use]
    pub fn version(&self) -> u64 {
        lock(&self.0).as_ref().map_or(FIRST_VERSION, |shown| shown.version)
    }

    /// Shows these; what was shown before.
    fn set(&self, labels: Option<Arc<Labels>>) -> Option<Arc<Labels>> {
        let mut shown = lock(&self.0);
        match &mut *shown {
            Some(shown) => {
                shown.version += 1;
                std::mem::replace(&mut shown.labels, labels)
            }
            None => {
                *shown = labels.map(|labels| Box::new(Shown { labels: Some(labels), version: FIRST_VERSION + 1 }));
                None
            }
        }
    }
}

type Members = BTreeMap<PipeId, Arc<PipeEntry>>;

/// By a label's name, then by its value.
type Groups = HashMap<Box<str>, HashMap<Box<str>, Members>>;

/// The members of each group, and how many groups a pipe may belong to.
#[derive(Debug)]
pub struct LabelIndex {
    groups: Mutex<Groups>,
    count_max: AtomicUsize,
    bytes_max: AtomicUsize,
}

impl Default for LabelIndex {
    fn default() -> Self {
        let limits = Limits::default();
        let (count_max, bytes_max) = (limits.pipe_labels as usize, limits.pipe_label_bytes);
        Self { groups: Mutex::default(), count_max: count_max.into(), bytes_max: bytes_max.into() }
    }
}

impl LabelIndex {
    /// How many labels a pipe may have now.
    #[must_use]
    pub fn bounds(&self) -> LabelBounds {
        LabelBounds { count_max: self.count_max.load(Relaxed), bytes_max: self.bytes_max.load(Relaxed) }
    }

    /// Changes how many labels a pipe may have; those that have more keep them.
    pub fn set_bounds(&self, limits: &Limits) {
        self.count_max.store(limits.pipe_labels as usize, Relaxed);
        self.bytes_max.store(limits.pipe_label_bytes, Relaxed);
    }

    /// The pipes that `selector` means, sorted by id.
    #[must_use]
    pub fn select(&self, selector: &LabelSelector) -> Vec<Arc<PipeEntry>> {
        let groups = lock(&self.groups);
        let Some(values) = groups.get(&selector.name) else { return Vec::new() };
        match &selector.value {
            Some(value) => values.get(value).map_or_else(Vec::new, |members| members.values().cloned().collect()),
            None => {
                let mut all: Vec<_> = values.values().flat_map(|members| members.values().cloned()).collect();
                all.sort_unstable_by_key(|entry| entry.id);
                all
            }
        }
    }

    /// Has `entry` show these labels, and stand under them alone.
    pub(super) fn put(&self, entry: &Arc<PipeEntry>, labels: Option<Arc<Labels>>) {
        let before = entry.labels.set(labels.clone());
        if before.is_none() && labels.is_none() {
            return;
        }
        let mut groups = lock(&self.groups);
        for (name, value) in before.iter().flat_map(|labels| labels.iter()) {
            let Some(values) = groups.get_mut(name) else { continue };
            if let Some(members) = values.get_mut(value) {
                members.remove(&entry.id);
                if members.is_empty() {
                    values.remove(value);
                }
            }
            if values.is_empty() {
                groups.remove(name);
            }
        }
        for (name, value) in labels.iter().flat_map(|labels| labels.iter()) {
            let values = groups.entry(name.into()).or_default();
            values.entry(value.into()).or_default().insert(entry.id, entry.clone());
        }
    }
}
