//! What is said about a backend: the body of a registration, read and written, and a merge-patch over it (RFC 7396).
//!
//! A patch is laid over the registration as it would be written today and then read like a new one, so that nothing
//! can be patched in that could not have been registered. The address is the one that was registered, secrets included;
//! it is never shown.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use holdline_core::pool::{AdminState, Serves};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::body;
use super::duration;
use super::problem::Problem;
use crate::backends::{BackendError, BackendSpec, BackendView, ProbeKind, ProbeSettings};
use crate::net::BackendUrl;

/// What a worker says about itself; the same fields by POST and PUT.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Registration {
    /// Where it listens: `ws://`, `wss://` or `unix:`, or `attach:` and its id if it dials in.
    url: String,
    /// The pool that it stands in.
    #[serde(default = "default_pool")]
    pool: String,
    /// Its share of the pipes, beside those of the others.
    #[serde(default = "one")]
    weight: NonZeroU32,
    /// Pipes that it takes at once, instead of what its pool says; 0 is no limit.
    max_pipes: Option<u32>,
    #[serde(default)]
    serves: ServesBody,
    /// Free text for people and filters.
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// A random word of its process: another one is refused the id while this one lives.
    instance: Option<String>,
    /// How long it may be silent; for ever without it.
    #[schemars(regex(pattern = duration::PATTERN))]
    lease: Option<String>,
    /// How it is probed, instead of what its pool says.
    health: Option<HealthBody>,
    /// Whether it takes pipes; what it was before if absent.
    state: Option<StateName>,
}

/// Any part of a registration; null takes a field away.
#[derive(JsonSchema)]
#[schemars(transparent)]
pub(super) struct RegistrationPatch(#[expect(dead_code, reason = "only described")] Map<String, Value>);

fn default_pool() -> String {
    "default".to_owned()
}

const fn one() -> NonZeroU32 {
    NonZeroU32::MIN
}

/// A list of keys, or a map of keys to what the backend calls them.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "serves must be a list of keys, or an object of keys and aliases")]
enum ServesBody {
    List(Vec<String>),
    Map(BTreeMap<String, String>),
}

impl Default for ServesBody {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl ServesBody {
    fn parse(self) -> Serves {
        match self {
            Self::List(keys) => Serves::from_keys(keys.into_iter().map(|key| (key.into(), None))),
            Self::Map(keys) => Serves::from_keys(keys.into_iter().map(|(key, alias)| {
                // A key that the backend calls by the same name needs no alias.
                let alias = (key != alias).then(|| alias.into());
                (key.into(), alias)
            })),
        }
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HealthBody {
    /// A connection, a request that wants a 2xx, or a handshake.
    #[serde(rename = "type")]
    kind: Option<ProbeName>,
    /// What the last two ask for.
    path: Option<String>,
    #[schemars(regex(pattern = duration::PATTERN))]
    interval: Option<String>,
    #[schemars(regex(pattern = duration::PATTERN))]
    timeout: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ProbeName {
    Tcp,
    Http,
    Ws,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum StateName {
    Ready,
    Drain,
    Maint,
}

impl From<StateName> for AdminState {
    fn from(name: StateName) -> Self {
        match name {
            StateName::Ready => Self::Ready,
            StateName::Drain => Self::Drain,
            StateName::Maint => Self::Maint,
        }
    }
}

impl From<AdminState> for StateName {
    fn from(state: AdminState) -> Self {
        match state {
            AdminState::Ready => Self::Ready,
            AdminState::Drain => Self::Drain,
            AdminState::Maint => Self::Maint,
        }
    }
}

impl Registration {
    pub(super) fn parse(self) -> Result<BackendSpec, Problem> {
        let url: BackendUrl = self.url.parse().map_err(BackendError::Url)?;
        Ok(BackendSpec {
            url: Arc::new(url),
            pool: self.pool.into(),
            weight: self.weight,
            max_pipes: self.max_pipes,
            serves: self.serves.parse(),
            labels: self.labels,
            instance: self.instance.map(Into::into),
            lease: self.lease.as_deref().map(|text| duration::parse("/lease", text)).transpose()?,
            probes: self.health.map(HealthBody::parse).transpose()?,
            state: self.state.map(Into::into),
        })
    }
}

impl HealthBody {
    fn parse(self) -> Result<ProbeSettings, Problem> {
        let path = self.path.unwrap_or_else(|| "/".to_owned());
        if !path.starts_with('/') || path.contains(|c: char| c.is_ascii_control() || c == ' ') {
            return Err(Problem::invalid("/health/path", "must begin with / and hold no spaces"));
        }
        let usual = ProbeSettings::default();
        let time = |at, text: Option<String>, usual| text.map_or(Ok(usual), |text| duration::parse(at, &text));
        Ok(ProbeSettings {
            kind: match self.kind.unwrap_or(ProbeName::Tcp) {
                ProbeName::Tcp => ProbeKind::Tcp,
                ProbeName::Http => ProbeKind::Http(path),
                ProbeName::Ws => ProbeKind::Ws(path),
            },
            interval: time("/health/interval", self.interval, usual.interval)?,
            timeout: time("/health/timeout", self.timeout, usual.timeout)?,
        })
    }
}

impl From<&BackendSpec> for Registration {
    /// What a worker would have to say to stand as it stands, but for its state, which need not be said.
    fn from(spec: &BackendSpec) -> Self {
        let serves = match &spec.serves {
            Serves::Any => ServesBody::default(),
            Serves::Keys(keys) => ServesBody::Map(
                keys.iter().map(|(key, alias)| (key.to_string(), alias.as_ref().unwrap_or(key).to_string())).collect(),
            ),
        };
        Self {
            url: spec.url.as_written().to_owned(),
            pool: spec.pool.to_string(),
            weight: spec.weight,
            max_pipes: spec.max_pipes,
            serves,
            labels: spec.labels.clone(),
            instance: spec.instance.as_deref().map(str::to_owned),
            lease: spec.lease.map(duration::show),
            health: spec.probes.as_ref().map(HealthBody::from),
            state: None,
        }
    }
}

impl Registration {
    /// What a worker would have to say to stand exactly as it stands, its state included.
    pub(super) fn in_force(view: &BackendView) -> Self {
        Self { state: Some(view.admin.into()), ..Self::from(&*view.spec) }
    }
}

/// What is said about a backend as JSON, for another process of ours: its address with its secrets.
#[must_use]
pub fn written(view: &BackendView) -> Value {
    serde_json::to_value(Registration::in_force(view)).unwrap_or_default()
}

/// What another process has written so.
///
/// # Errors
/// What is wrong with it.
pub fn of_written(said: Value) -> Result<BackendSpec, String> {
    let said: Registration = serde_json::from_value(said).map_err(|error| error.to_string())?;
    said.parse().map_err(|problem| problem.detail)
}

impl From<&ProbeSettings> for HealthBody {
    fn from(probes: &ProbeSettings) -> Self {
        let (kind, path) = match &probes.kind {
            ProbeKind::Tcp => (ProbeName::Tcp, None),
            ProbeKind::Http(path) => (ProbeName::Http, Some(path.clone())),
            ProbeKind::Ws(path) => (ProbeName::Ws, Some(path.clone())),
        };
        Self {
            kind: Some(kind),
            path,
            interval: Some(duration::show(probes.interval)),
            timeout: Some(duration::show(probes.timeout)),
        }
    }
}

/// The spec that `patch` makes of `spec`.
///
/// # Errors
/// A problem that points into the patch, or at what it leaves out.
pub(super) fn patched(spec: &BackendSpec, patch: &Value) -> Result<BackendSpec, Problem> {
    let mut said = serde_json::to_value(Registration::from(spec)).unwrap_or_default();
    // An empty list means the same as an empty object, and only that can be added to.
    if let Some(serves) = said.get_mut("serves")
        && serves.as_array().is_some_and(Vec::is_empty)
    {
        *serves = Value::Object(serde_json::Map::new());
    }
    merge(&mut said, patch);
    if let Value::Object(fields) = &mut said {
        // A default holds for what was taken away.
        fields.retain(|_, value| !value.is_null());
    }
    body::shape::<Registration>(&said)?.parse()
}

/// RFC 7396 section 2.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(fields) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(name);
        } else {
            merge(fields.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_merge_patch_does_what_the_examples_of_the_rfc_do() {
        for (target, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut merged = target.clone();
            merge(&mut merged, &patch);
            assert_eq!(merged, result, "{target} {patch}");
        }
    }

    #[test]
    fn what_a_patch_does_not_name_stays_as_it_was_said() {
        let said = json!({
            "url": "ws://127.0.0.1:7001/?token=s3cret", "pool": "farm", "weight": 3, "max_pipes": 5, "serves": {"a": "x"},
            "labels": {"rack": "7"}, "instance": "i1", "lease": "15s",
            "health": {"type": "http", "path": "/ok", "interval": "1s", "timeout": "2s"},
        });
        let spec = body::shape::<Registration>(&said).unwrap().parse().unwrap();
        assert_eq!(patched(&spec, &json!({})).unwrap(), spec);
        let more = patched(&spec, &json!({"serves": {"b": "b", "a": null}, "weight": null, "lease": null})).unwrap();
        assert_eq!((more.weight.get(), more.lease, more.url == spec.url), (1, None, true));
        assert!(more.serves.takes(Some("b")) && more.serves.alias("b").is_none() && !more.serves.takes(Some("a")));
        let any = patched(&spec, &json!({"serves": []})).unwrap();
        assert_eq!(any.serves, Serves::Any);
        assert!(patched(&any, &json!({"serves": {"c": "d"}})).unwrap().serves.takes(Some("c")));
        let problem = patched(&spec, &json!({"url": null})).unwrap_err();
        assert_eq!(problem.errors[0].pointer, "/url");
    }
}
