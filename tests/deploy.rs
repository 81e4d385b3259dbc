//! What stands in the unit, the image and the operator's guide, held to what the program does.
//!
//! Tools that read these files themselves are run by `scripts/deploy-check`; here is what must hold without any of them.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use holdline::config::{Config, Listen};

fn read(path: &str) -> String {
    std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Values of a key in a unit file, in order.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

/// What follows an instruction of a Dockerfile's last stage.
fn instruction<'a>(file: &'a str, name: &str) -> Vec<&'a str> {
    let last = &file[file.rfind("\nFROM ").unwrap()..];
    last.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).collect()
}

fn seconds(text: &str) -> Duration {
    Duration::from_secs(text.trim_end_matches('s').parse().unwrap())
}

fn port(listen: &Listen) -> String {
    match listen {
        Listen::Tcp(address) => address.port().to_string(),
        Listen::Unix(_) => panic!("a default without a port"),
    }
}

#[test]
fn the_unit_promises_what_the_program_does() {
    let (unit, config) = (read("systemd/holdline.service"), Config::default());
    assert_eq!(values(&unit, "Type"), ["notify"]);
    let reload = values(&unit, "ExecReload");
    assert!(
        reload[0].starts_with("/usr/bin/holdline check -c ") && reload[1] == "/bin/kill -HUP $MAINPID",
        "{reload:?}"
    );
    let (serve, check) = (values(&unit, "ExecStart")[0], reload[0]);
    assert_eq!(serve.replace("serve", "check"), check, "the file that is checked is the one that runs");
    assert!(!values(&unit, "WatchdogSec").is_empty());
    assert_eq!(values(&unit, "RestartPreventExitStatus"), ["2"], "a bad configuration is not retried");
    let descriptors: u64 = values(&unit, "LimitNOFILE")[0].parse().unwrap();
    assert!(descriptors >= 2 * u64::from(config.server.max_connections) + 100, "{descriptors}");
    let patience = seconds(values(&unit, "TimeoutStopSec")[0]);
    assert!(patience >= config.server.shutdown_grace + Duration::from_secs(5), "{patience:?}");
}

#[test]
fn the_unit_is_closed_tightly() {
    let unit = read("systemd/holdline.service");
    for key in [
        "NoNewPrivileges",
        "PrivateDevices",
        "PrivateTmp",
        "ProtectControlGroups",
        "ProtectHome",
        "ProtectKernelModules",
        "ProtectKernelTunables",
        "MemoryDenyWriteExecute",
        "LockPersonality",
        "RestrictNamespaces",
        "RestrictSUIDSGID",
    ] {
        assert_eq!(values(&unit, key), ["yes"], "{key}");
    }
    assert_eq!(values(&unit, "ProtectSystem"), ["strict"]);
    assert_eq!(values(&unit, "CapabilityBoundingSet"), [""]);
    assert_ne!(values(&unit, "User"), ["root"]);
}

#[test]
fn the_socket_unit_opens_the_default_listener_under_a_name_we_know() {
    let (unit, config) = (read("systemd/holdline.socket"), Config::default());
    assert_eq!(values(&unit, "FileDescriptorName"), ["public"]);
    assert_eq!(values(&unit, "ListenStream"), [config.server.listen[0].to_string()]);
}

#[test]
fn the_image_is_small_promises_and_no_root() {
    let (file, config) = (read("Dockerfile"), Config::default());
    assert_eq!(file.lines().filter(|line| line.starts_with("FROM ")).count(), 2, "one stage builds, one runs");
    let ports = format!("{} {}", port(&config.server.listen[0]), port(&config.admin.listen));
    assert_eq!(instruction(&file, "EXPOSE"), [ports], "the default ports");
    assert_eq!(instruction(&file, "STOPSIGNAL"), ["SIGTERM"]);
    let user = instruction(&file, "USER")[0];
    assert!(user.split(':').all(|id| id.parse().is_ok_and(|id: u32| id != 0)), "{user}");
    let health = instruction(&file, "HEALTHCHECK")[0];
    assert!(
        health.ends_with(r#"CMD ["holdline", "healthcheck", "--live"]"#),
        "{health}: a proxy that is not ready is not dead"
    );
    assert_eq!(instruction(&file, "ENTRYPOINT"), [r#"["holdline"]"#]);
}

#[test]
fn the_configurations_of_the_image_can_be_reached_from_outside_it() {
    for file in ["docker/proxy.toml", "docker/compose.toml"] {
        let loaded = Config::read(Some((file, &read(file))), Vec::<(String, String)>::new()).unwrap();
        let Listen::Tcp(public) = loaded.config.server.listen[0] else { panic!("{file}") };
        assert!(public.ip().is_unspecified(), "{file}");
        assert!(loaded.config.admin.listen.is_local(), "{file}: without tokens");
        assert!(loaded.warnings.is_empty(), "{file}: {:?}", loaded.warnings);
    }
}

#[test]
fn the_guides_sums_hold() {
    let (guide, config) = (read("docs/operations.md"), Config::default());
    let number = |text: &str, after: &str| -> u64 {
        let rest = text.split(after).nth(1).unwrap_or_else(|| panic!("{after}"));
        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
    };
    let grace = config.server.shutdown_grace.as_secs();
    let deployment = read("deploy/kubernetes/base/deployment.yaml");
    let pre_stop = number(&deployment, "command: [sleep, \"");
    assert!(number(&deployment, "terminationGracePeriodSeconds: ") >= pre_stop + grace + 5);
    assert!(number(&guide, "--stop-timeout ") >= grace + 5);
    for page in [&guide, &read("docs/migrate.md")] {
        assert!(number(page, "proxy_read_timeout ") > config.heartbeat.client_interval.as_secs());
    }
    for file in ["compose.yaml", "deploy/compose/compose.yaml"] {
        let compose = read(file);
        let stop = compose.split("stop_grace_period: ").nth(1).unwrap().lines().next().unwrap();
        assert!(seconds(stop).as_secs() >= grace + 5, "{file}");
    }
    for said in [
        format!("`server.shutdown_grace` ({grace}s)"),
        format!("`heartbeat.client_interval` ({}s)", config.heartbeat.client_interval.as_secs()),
        format!("`server.close_spread` ({}s)", config.server.close_spread.as_secs()),
    ] {
        assert!(guide.contains(&said), "{said}");
    }
}

#[test]
fn the_guide_names_only_metrics_that_are_documented() {
    let (guide, documented) = (read("docs/operations.md"), read("docs/metrics.md"));
    let is_name = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    let words = guide.split(|letter: char| !is_name(letter));
    let of_the_process = |word: &&str| word.starts_with("process_") && *word != "process_max"; // memory.process_max is a key
    let named: Vec<&str> = words.filter(|word| word.starts_with("holdline_") || of_the_process(word)).collect();
    assert!(named.len() > 5, "they are no longer found where this test looks");
    for name in named {
        assert!(documented.contains(&format!("| `{name}` |")), "{name}");
    }
}

#[test]
fn every_alert_names_a_section_of_the_troubleshooting_page_by_its_own_name() {
    let rules = read("deploy/prometheus/holdline.rules.yml");
    let values = |name: &str| rules.lines().filter_map(|line| line.trim_start().strip_prefix(name)).collect::<Vec<_>>();
    let (alerts, books) = (values("- alert: "), values("runbook_url: "));
    assert!(alerts.len() > 20, "they are no longer found where this test looks");
    let expected = alerts.iter().map(|alert| format!("docs/troubleshooting.md#{}", alert.to_lowercase()));
    assert_eq!(expected.collect::<Vec<_>>(), books);
}
