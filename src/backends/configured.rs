//! From the configuration's pools to this module's.

use super::networks::Networks;
use super::spec::{BackendSpec, PoolSpec, ProbeKind, ProbeSettings};
use super::url::UrlError;
use super::{BackendUrl, Setup};
use crate::config;
use holdline_core::health::HealthSettings;
use holdline_core::pool::{AdminState, Serves};
use std::num::NonZeroU32;
use std::sync::Arc;

/// A static backend whose URL this module does not take.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("backend \"{backend}\" of pool \"{pool}\": {error}")]
pub struct SetupError {
    /// Its pool.
    pub pool: String,
    /// Its id.
    pub backend: String,
    /// What is wrong with it.
    pub error: UrlError,
}

impl Setup {
    /// The pools, networks and dial budget of `config`.
    ///
    /// # Errors
    /// When the URL of a static backend is one that no backend may have.
    pub fn from_config(config: &config::Config) -> Result<Self, SetupError> {
        Ok(Self {
            pools: config.pools.iter().map(pool).collect::<Result<_, _>>()?,
            networks: Networks::new(config.admin.backend_networks.clone()),
            dials_per_window: config.reattach.dials_per_minute,
        })
    }
}

fn pool(pool: &config::Pool) -> Result<PoolSpec, SetupError> {
    let health = &pool.health;
    let kind = match health.kind {
        config::HealthKind::Tcp => ProbeKind::Tcp,
        config::HealthKind::Http => ProbeKind::Http(health.path.clone()),
        config::HealthKind::Ws => ProbeKind::Ws(health.path.clone()),
    };
    let name: Arc<str> = pool.name.as_str().into();
    let backends = pool.backends.iter().map(|entry| backend(&name, entry)).collect::<Result<_, _>>()?;
    Ok(PoolSpec {
        name,
        balance: pool.balance,
        max_pipes_per_backend: pool.max_pipes_per_backend,
        probes: ProbeSettings { kind, interval: health.interval, timeout: health.timeout },
        health: HealthSettings { fall: health.fall, rise: health.rise, ..HealthSettings::default() },
        backends,
    })
}

fn backend(pool: &Arc<str>, entry: &config::Backend) -> Result<(Arc<str>, BackendSpec), SetupError> {
    let refused = |error| SetupError { pool: pool.to_string(), backend: entry.id(), error };
    let url: BackendUrl = entry.url.as_written().parse().map_err(refused)?;
    let state = match entry.state {
        config::AdminState::Ready => AdminState::Ready,
        config::AdminState::Drain => AdminState::Drain,
        config::AdminState::Maint => AdminState::Maint,
    };
    // A key that the backend calls by the same name needs no alias.
    let keys = entry.serves.0.iter().map(|(key, alias)| {
        let alias = (key != alias).then(|| Arc::from(alias.as_str()));
        (Arc::from(key.as_str()), alias)
    });
    let spec = BackendSpec {
        weight: NonZeroU32::new(entry.weight).unwrap_or(NonZeroU32::MIN),
        max_pipes: entry.max_pipes,
        serves: Serves::from_keys(keys),
        labels: entry.labels.clone(),
        state: Some(state),
        ..BackendSpec::new(url, pool.clone())
    };
    Ok((entry.id().into(), spec))
}
