//! From the configuration's pools to this module's.

use super::report::ReportPointers;
use super::spec::{BackendSpec, PoolSpec, ProbeKind, ProbeSettings};
use super::{Bounds, Setup};
use crate::config;
use crate::net::{Networks, SocketDirectories, TlsClient};
use holdline_core::health::HealthSettings;
use holdline_core::pool::Serves;
use std::num::NonZeroU32;
use std::sync::Arc;

impl Setup {
    /// The pools, networks and dial budget of `config`, and the TLS of its pools.
    #[must_use]
    pub fn from_config(config: &config::Config, tls: &config::PoolsTls) -> Self {
        Self {
            pools: config.pools.iter().map(|entry| pool(entry, tls.of(&entry.name))).collect(),
            networks: Networks::new(config.admin.backend_networks.clone())
                .with_sockets(SocketDirectories::new(config.admin.backend_sockets.clone())),
            bounds: Bounds {
                deaths_per_window: config.reattach.dials_per_minute,
                dials_at_once: config.reattach.dials_at_once,
                moves_per_second: config.reattach.moves_per_second,
                backend_bytes_max: config.admin.backend_bytes_max,
                registry_bytes_max: config.admin.registry_bytes_max,
            },
        }
    }
}

fn pool(pool: &config::Pool, tls: TlsClient) -> PoolSpec {
    let health = &pool.health;
    let kind = match health.kind {
        config::HealthKind::Tcp => ProbeKind::Tcp,
        config::HealthKind::Http => ProbeKind::Http(health.path.clone()),
        config::HealthKind::Ws => ProbeKind::Ws(health.path.clone()),
    };
    let name: Arc<str> = pool.name.as_str().into();
    let backends = pool.backends.iter().enumerate().map(|(index, entry)| backend(&name, index, entry)).collect();
    PoolSpec {
        name,
        balance: pool.balance,
        max_pipes_per_backend: pool.max_pipes_per_backend,
        move_order: pool.move_order,
        weight_from: pool.weight_from,
        worker_memory_max: pool.worker_memory_max as u64,
        min_backends: pool.min_backends,
        tls,
        send_proxy: pool.send_proxy,
        numbers: pool.resume == config::PoolResume::Aware,
        report: ReportPointers {
            rss_mb: pool.report.rss_mb.as_deref().map(Arc::from),
            limit_mb: pool.report.limit_mb.as_deref().map(Arc::from),
        },
        probes: ProbeSettings { kind, interval: health.interval, timeout: health.timeout },
        health: HealthSettings { fall: health.fall, rise: health.rise, ..HealthSettings::default() },
        backends,
    }
}

fn backend(pool: &Arc<str>, index: usize, entry: &config::Backend) -> (Arc<str>, BackendSpec) {
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
        state: Some(entry.state),
        ..BackendSpec::new(entry.url.clone(), pool.clone())
    };
    (entry.id(pool, index).into(), spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdline_core::pool::AdminState;
    use holdline_core::settings::MoveOrder;
    use std::time::Duration;

    const FILE: &str = r#"
        [admin]
        backend_networks = ["10.0.0.0/8"]
        [reattach]
        dials_per_minute = 7
        dials_at_once = 8
        moves_per_second = 9
        [[pools]]
        name = "farm"
        max_pipes_per_backend = 4
        min_backends = 3
        move_order = "leave_first"
        report = { rss_mb = "/m/used", limit_mb = "/m/max" }
        health = { kind = "http", path = "/health", interval = "3s", timeout = "2s", fall = 5, rise = 2 }
        [[pools.backends]]
        id = "w1"
        url = "ws://10.0.0.1:9001/ws"
        weight = 3
        max_pipes = 2
        state = "drain"
        serves = { udid = "session", same = "same" }
        labels = { rack = "7" }
        [[routes]]
        name = "all"
        path = "/{*path}"
        pool = "farm"
    "#;

    #[test]
    fn every_key_of_a_pool_arrives() {
        let loaded = config::Config::read(Some(("proxy.toml", FILE)), []).unwrap();
        let setup = Setup::from_config(&loaded.config, &config::PoolsTls::default());
        assert!(
            setup.networks.allow("10.1.2.3".parse().unwrap()) && !setup.networks.allow("127.0.0.1".parse().unwrap())
        );
        assert_eq!(
            setup.bounds,
            Bounds { deaths_per_window: 7, dials_at_once: 8, moves_per_second: 9, ..Bounds::default() }
        );
        let pool = &setup.pools[0];
        assert_eq!((&*pool.name, pool.max_pipes_per_backend, pool.min_backends), ("farm", 4, 3));
        assert_eq!(pool.move_order, MoveOrder::LeaveFirst);
        assert_eq!((pool.report.rss_mb.as_deref(), pool.report.limit_mb.as_deref()), (Some("/m/used"), Some("/m/max")));
        let probes = ProbeSettings {
            kind: ProbeKind::Http("/health".to_owned()),
            interval: Duration::from_secs(3),
            timeout: Duration::from_secs(2),
        };
        assert_eq!((&pool.probes, pool.health.fall, pool.health.rise), (&probes, 5, 2));
        let (id, backend) = &pool.backends[0];
        assert_eq!((&**id, backend.url.as_written(), backend.weight.get()), ("w1", "ws://10.0.0.1:9001/ws", 3));
        assert_eq!((backend.max_pipes, backend.state), (Some(2), Some(AdminState::Drain)));
        assert_eq!(backend.serves.alias("udid").as_deref(), Some("session"));
        assert!(backend.serves.takes(Some("same")) && backend.serves.alias("same").is_none());
        assert_eq!(backend.labels["rack"], "7");
    }
}
