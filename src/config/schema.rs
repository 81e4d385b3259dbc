//! The one table of keys: reading, environment, printing, comparing and the example file all walk it.
//!
//! A key that is not here does not exist; a field of [`Config`] without a key here cannot be set, and the tests that
//! walk the table would not see it, so every new field gets its line.

use super::json_schema;
use super::node::Node;
use super::read::Reader;
use super::setting::{Fault, Form, Setting};
use super::{Backend, Config, OwnProfile, Pool, Route, WorkerGroup};

mod attach;
mod aware;
mod backend;
mod ended_tls;
mod fallback;
mod hooks;
mod limits;
mod pool;
mod profile;
mod root;
mod route;
mod upgrade;
mod workers;

/// The keys of one kind of table.
pub(super) struct Schema<S> {
    pub(super) keys: Vec<Key<S>>,
    pub(super) rows: Vec<Rows<S>>,
}

/// A table that a schema describes; `Default` is an entry that says nothing.
pub(super) trait Table: Clone + Default {
    fn schema() -> Schema<Self>;
}

impl Table for Config {
    fn schema() -> Schema<Self> {
        let rows = vec![
            rows("profiles", |c: &mut Self| &mut c.profiles),
            rows("pools", |c: &mut Self| &mut c.pools),
            rows("routes", |c: &mut Self| &mut c.routes),
            rows("workers", |c: &mut Self| &mut c.workers),
        ];
        Schema { keys: root::keys(), rows }
    }
}

impl Table for OwnProfile {
    fn schema() -> Schema<Self> {
        Schema { keys: profile::keys(), rows: Vec::new() }
    }
}

impl Table for Pool {
    fn schema() -> Schema<Self> {
        let rows = vec![rows("backends", |p: &mut Self| &mut p.backends)];
        Schema { keys: pool::keys(), rows }
    }
}

impl Table for Backend {
    fn schema() -> Schema<Self> {
        Schema { keys: backend::keys(), rows: Vec::new() }
    }
}

impl Table for WorkerGroup {
    fn schema() -> Schema<Self> {
        Schema { keys: workers::keys(), rows: Vec::new() }
    }
}

impl Table for Route {
    fn schema() -> Schema<Self> {
        Schema { keys: route::keys(), rows: Vec::new() }
    }
}

type Read<S> = dyn Fn(&mut S, &Node) -> Result<(), Vec<Fault>>;
type Show<S> = dyn Fn(&mut S) -> Option<String>;

/// One key of a table.
pub(super) struct Key<S> {
    /// Dotted, from its table on.
    pub(super) name: &'static str,
    /// One line for the example file.
    pub(super) why: &'static str,
    /// A value to show where the default is absence.
    pub(super) sample: Option<&'static str>,
    /// Whether a table without it is refused.
    pub(super) required: bool,
    pub(super) read: Box<Read<S>>,
    pub(super) show: Box<Show<S>>,
    /// What is taken and may not be meant.
    pub(super) doubts: fn(&Node) -> Vec<Fault>,
    /// The JSON Schema of its values.
    pub(super) form: fn() -> Form,
}

impl<S> Key<S> {
    /// A table must have the key; the example shows `sample`.
    fn required(self, sample: &'static str) -> Self {
        Self { required: true, ..self.or(sample) }
    }

    /// The key is absent by default; the example shows `sample`.
    fn or(mut self, sample: &'static str) -> Self {
        self.sample = Some(sample);
        self
    }
}

/// A key whose values must pass `check`.
fn key<S: 'static, T: Setting + 'static>(
    name: &'static str,
    field: fn(&mut S) -> &mut T,
    check: impl Fn(&T) -> Result<(), String> + 'static,
    why: &'static str,
) -> Key<S> {
    Key {
        name,
        why,
        sample: None,
        required: false,
        read: Box::new(move |table, node| {
            let value = T::read(node)?;
            check(&value).map_err(|message| vec![(node.place.clone(), message)])?;
            *field(table) = value;
            Ok(())
        }),
        show: Box::new(move |table| field(table).show()),
        doubts: T::doubts,
        form: T::form,
    }
}

/// What is said about one key of one table of a [`Config`].
#[derive(Clone, Debug)]
pub(super) struct Shown {
    /// `pools[0].health.kind`.
    pub(super) path: String,
    /// `pools[].health.kind`: the same for every entry of a list.
    pub(super) pattern: String,
    /// `[[pools]]`, or nothing where the first part of the key is the section.
    pub(super) header: String,
    /// The key from its header on.
    pub(super) name: &'static str,
    pub(super) why: &'static str,
    pub(super) sample: Option<&'static str>,
    /// As TOML; nothing if it is absent.
    pub(super) value: Option<String>,
}

type ReadRows<S> = dyn Fn(&mut S, &[Node], &str, &mut Reader);
type ShowRows<S> = dyn Fn(&mut S, &Position, &mut Vec<Shown>);

/// A list of tables.
pub(super) struct Rows<S> {
    pub(super) name: &'static str,
    pub(super) read: Box<ReadRows<S>>,
    show: Box<ShowRows<S>>,
    /// The JSON Schema of one entry.
    pub(super) form: fn() -> Form,
}

fn rows<S: 'static, T: Table + 'static>(name: &'static str, field: fn(&mut S) -> &mut Vec<T>) -> Rows<S> {
    Rows {
        name,
        read: Box::new(move |table, nodes, path, reader| {
            let filled = nodes.iter().enumerate().map(|(index, node)| {
                let mut row = T::default();
                reader.table(&mut row, node, &format!("{path}[{index}]"));
                row
            });
            *field(table) = filled.collect();
        }),
        show: Box::new(move |table, above, out| {
            for (index, row) in field(table).iter_mut().enumerate() {
                walk(row, &above.row(name, index), out);
            }
        }),
        form: json_schema::table::<T>,
    }
}

/// Where a table stands.
#[derive(Default)]
pub(super) struct Position {
    path: String,
    pattern: String,
    header: String,
}

impl Position {
    fn row(&self, name: &str, index: usize) -> Self {
        let dotted = |above: &str| match above {
            "" => name.to_owned(),
            above => format!("{above}.{name}"),
        };
        Self {
            path: format!("{}[{index}]", dotted(&self.path)),
            pattern: format!("{}[]", dotted(&self.pattern)),
            header: dotted(&self.header),
        }
    }
}

/// Every key of `config`, in the order of the schema.
pub(super) fn shown(config: &Config) -> Vec<Shown> {
    let mut out = Vec::new();
    walk(&mut config.clone(), &Position::default(), &mut out);
    out
}

/// Every key that exists, shown on a configuration with one entry in each list.
pub(super) fn every_key() -> Vec<Shown> {
    let (profiles, workers) = (vec![OwnProfile::default()], vec![WorkerGroup::default()]);
    let mut config = Config { profiles, workers, ..Config::default() };
    for pool in &mut config.pools {
        pool.backends = vec![Backend::default()];
    }
    shown(&config)
}

fn walk<S: Table>(table: &mut S, at: &Position, out: &mut Vec<Shown>) {
    let schema = S::schema();
    for key in &schema.keys {
        let dotted = |above: &str| match above {
            "" => key.name.to_owned(),
            above => format!("{above}.{}", key.name),
        };
        out.push(Shown {
            path: dotted(&at.path),
            pattern: dotted(&at.pattern),
            header: at.header.clone(),
            name: key.name,
            why: key.why,
            sample: key.sample,
            value: (key.show)(table),
        });
    }
    for rows in &schema.rows {
        (rows.show)(table, at, out);
    }
}

fn any<T>(_: &T) -> Result<(), String> {
    Ok(())
}

/// Both ends included.
fn range<T: Setting + PartialOrd>(low: T, high: T) -> impl Fn(&T) -> Result<(), String> {
    move |value| {
        if (&low..=&high).contains(&value) {
            return Ok(());
        }
        let text = |value: &T| value.show().unwrap_or_default();
        Err(format!("{} is out of range; use {} to {}", text(value), text(&low), text(&high)))
    }
}

/// Zero, which means off, or a range.
fn off_or<T: Setting + PartialOrd + Default>(low: T, high: T) -> impl Fn(&T) -> Result<(), String> {
    let range = range(low, high);
    move |value| match value {
        value if *value == T::default() => Ok(()),
        value => range(value).map_err(|message| format!("{message}, or 0 to switch it off")),
    }
}

/// Absence, or what passes `check`.
fn some<T>(check: impl Fn(&T) -> Result<(), String>) -> impl Fn(&Option<T>) -> Result<(), String> {
    move |value| value.as_ref().map_or(Ok(()), &check)
}

/// What names things in metrics, logs and URLs.
fn name(text: &str) -> Result<(), String> {
    const BYTES_MAX: usize = 128;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !text.is_empty() && text.len() <= BYTES_MAX && text.bytes().all(allowed) {
        return Ok(());
    }
    Err(format!("a name is 1 to {BYTES_MAX} letters, digits, \".\", \"_\" or \"-\""))
}
