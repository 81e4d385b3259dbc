//! Tests of the environment: every key, and every name that is none.

use super::*;

fn under(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, Invalid> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::read(Some(("proxy.toml", text)), variables)
}

/// A value for each key that is not its default, as a variable holds it and as TOML shows it.
const OTHER: &[(&str, &str, &str)] = &[
    ("server.listen", "127.0.0.1:1,unix:/s", r#"["127.0.0.1:1", "unix:/s"]"#),
    ("server.tls.listen", "127.0.0.1:3", r#"["127.0.0.1:3"]"#),
    ("server.tls.certificates", r#"[{ cert = "/c", key = "/k" }]"#, r#"[{ cert = "/c", key = "/k" }]"#),
    ("server.tls.min_version", "1.3", r#""1.3""#),
    ("server.tls.sni_strict", "true", "true"),
    ("server.tls.client_auth", "require", r#""require""#),
    ("server.tls.client_ca", "/a", r#""/a""#),
    ("server.tls.client_crl", "/r", r#""/r""#),
    ("server.tls.tickets", "false", "false"),
    ("server.tls.tickets_file", "/t", r#""/t""#),
    ("server.tls.acme_challenges", "/w", r#""/w""#),
    ("admin.tls.cert", "/c", r#""/c""#),
    ("admin.tls.key", "/k", r#""/k""#),
    ("admin.tls.client_ca", "/a", r#""/a""#),
    ("server.tls.handshakes_at_once", "9", "9"),
    ("server.tls.reload_interval", "1s", r#""1s""#),
    ("server.threads", "3", "3"),
    ("server.max_connections", "7", "7"),
    ("server.waiting_max", "7", "7"),
    ("server.handshake_timeout", "1m30s", r#""90s""#),
    ("server.keepalive_timeout", "1m5s", r#""65s""#),
    ("server.header_bytes_max", "64KiB", r#""64KiB""#),
    ("server.http2", "true", "true"),
    ("server.shutdown_grace", "1m", r#""60s""#),
    ("server.close_spread", "0", r#""0s""#),
    ("server.proxy_protocol", "accept", r#""accept""#),
    ("server.trusted_proxies", "10.0.0.0/8, ::1", r#"["10.0.0.0/8", "::1/128"]"#),
    ("server.backend_connect_timeout", "1s", r#""1s""#),
    ("server.backend_handshake_timeout", "1s", r#""1s""#),
    ("server.response_header_timeout", "1s", r#""1s""#),
    ("server.send_timeout", "1s", r#""1s""#),
    ("server.linger_timeout", "1s", r#""1s""#),
    ("server.linger_bytes_max", "1MiB", r#""1MiB""#),
    ("server.close_timeout", "1s", r#""1s""#),
    ("admin.listen", "unix:/run/admin.sock", r#""unix:/run/admin.sock""#),
    ("admin.tokens_file", "/t", r#""/t""#),
    ("admin.backend_networks", "[\"127.0.0.1\"]", r#"["127.0.0.1/32"]"#),
    ("admin.backend_sockets", "/run/w,/srv", r#"["/run/w", "/srv"]"#),
    ("admin.state_file", "/s", r#""/s""#),
    ("admin.max_connections", "99", "99"),
    ("admin.address_connections", "9", "9"),
    ("admin.backend_bytes_max", "1MiB", r#""1MiB""#),
    ("admin.registry_bytes_max", "2MiB", r#""2MiB""#),
    ("admin.tap", "true", "true"),
    ("admin.tap_bytes_max", "2KiB", r#""2KiB""#),
    ("admin.tap_time_max", "1m", r#""60s""#),
    ("heartbeat.client_interval", "1s", r#""1s""#),
    ("heartbeat.client_timeout", "2m", r#""120s""#),
    ("heartbeat.backend_interval", "0", r#""0s""#),
    ("heartbeat.backend_timeout", "2m", r#""120s""#),
    ("message.max_bytes", "1000", "1000"),
    ("message.incomplete_timeout", "1s", r#""1s""#),
    ("message.incomplete_rate", "2KiB/min", r#""2048/min""#),
    ("message.fragments_max", "9", "9"),
    ("replay.policy", "none", r#""none""#),
    ("replay.pipe_bytes_max", "1MiB", r#""1MiB""#),
    ("replay.total_bytes_max", "1GB", "1000000000"),
    ("replay.window", "64KiB", r#""64KiB""#),
    ("replay.overflow", "close", r#""close""#),
    ("replay.delay", "500ms", r#""500ms""#),
    ("replay.tail.bytes", "1KiB", r#""1KiB""#),
    ("replay.tail.messages", "4", "4"),
    ("replay.tail.age", "1s", r#""1s""#),
    ("replay.stall_max", "1s", r#""1s""#),
    ("reattach.grace", "1s", r#""1s""#),
    ("reattach.backoff_min", "10ms", r#""10ms""#),
    ("reattach.backoff_max", "1h", r#""1h""#),
    ("reattach.dials_per_minute", "9", "9"),
    ("reattach.dials_at_once", "9", "9"),
    ("reattach.moves_per_second", "9", "9"),
    ("reattach.move_timeout", "1s", r#""1s""#),
    ("reattach.settle", "1s", r#""1s""#),
    ("reattach.prove", "1s", r#""1s""#),
    ("prologue.messages_max", "5", "5"),
    ("prologue.bytes_max", "1KiB", r#""1KiB""#),
    ("prologue.inspect_max", "1KiB", r#""1KiB""#),
    ("prologue.within", "1s", r#""1s""#),
    ("resume.grace", "1s", r#""1s""#),
    ("resume.probe_timeout", "2s", r#""2s""#),
    ("resume.keys_file", "/k", r#""/k""#),
    ("aware.hello_timeout", "1s", r#""1s""#),
    ("aware.window", "1KiB", r#""1KiB""#),
    ("aware.ack_delay", "1s", r#""1s""#),
    ("aware.ack_messages", "9", "9"),
    ("aware.heartbeat", "1s", r#""1s""#),
    ("aware.retain", "1KiB", r#""1KiB""#),
    ("attach.listen", "127.0.0.1:5", r#"["127.0.0.1:5"]"#),
    ("attach.parked_max", "9", "9"),
    ("attach.parked_total_max", "9999", "9999"),
    ("attach.wait", "1s", r#""1s""#),
    ("attach.waiting_max", "9", "9"),
    ("attach.heartbeat", "1s", r#""1s""#),
    ("limits.key_connections", "0", "0"),
    ("limits.key_connections_total", "7", "7"),
    ("limits.key_rate", "0", "0"),
    ("limits.address_connections", "3", "3"),
    ("limits.address_rate", "5/s", r#""5/s""#),
    ("limits.address_detached", "7", "7"),
    ("limits.resume_failures", "5/s", r#""5/s""#),
    ("limits.pipe_messages", "100/h", r#""100/h""#),
    ("limits.pipe_bytes", "1KiB/s", r#""1024/s""#),
    ("limits.on_exceed", "close", r#""close""#),
    ("limits.statistics_keys", "9", "9"),
    ("limits.pipe_labels", "9", "9"),
    ("limits.pipe_label_bytes", "2KiB", r#""2KiB""#),
    ("memory.process_max", "1GiB", r#""1GiB""#),
    ("memory.evict", "largest", r#""largest""#),
    ("upgrade.socket", "/u", r#""/u""#),
    ("upgrade.binary", "/b", r#""/b""#),
    ("upgrade.ready_timeout", "1s", r#""1s""#),
    ("upgrade.batch", "9", "9"),
    ("upgrade.drain_max", "1s", r#""1s""#),
    ("log.format", "json", r#""json""#),
    ("log.access", "combined", r#""combined""#),
    ("log.level", "trace", r#""trace""#),
    ("log.queue_bytes_max", "2MiB", r#""2MiB""#),
    ("trace.otlp_endpoint", "http://c:4318", "\"http://c:4318/v1/traces\""),
    ("hooks.url", "http://c:4318/x", r#""http://c:4318/x""#),
    ("hooks.secret_file", "/s", r#""/s""#),
    ("hooks.queue_max", "5", "5"),
    ("hooks.timeout", "1s", r#""1s""#),
    ("pools[0].name", "farm", r#""farm""#),
    ("pools[0].balance", "hash", r#""hash""#),
    ("pools[0].max_pipes_per_backend", "1", "1"),
    ("pools[0].move_order", "leave_first", r#""leave_first""#),
    ("pools[0].weight_from", "memory", r#""memory""#),
    ("pools[0].min_backends", "3", "3"),
    ("pools[0].worker_memory_max", "1GiB", r#""1GiB""#),
    ("pools[0].resume", "hints", r#""hints""#),
    ("pools[0].send_proxy", "v2", r#""v2""#),
    ("pools[0].tls.ca", "/ca", r#""/ca""#),
    ("pools[0].tls.cert", "/c", r#""/c""#),
    ("pools[0].tls.key", "/k", r#""/k""#),
    ("pools[0].tls.server_name", "worker.internal", r#""worker.internal""#),
    ("pools[0].report.rss_mb", "/m/rss", r#""/m/rss""#),
    ("pools[0].report.limit_mb", "/m/max", r#""/m/max""#),
    ("pools[0].health.kind", "ws", r#""ws""#),
    ("pools[0].health.interval", "1s", r#""1s""#),
    ("pools[0].health.timeout", "1s", r#""1s""#),
    ("pools[0].health.fall", "1", "1"),
    ("pools[0].health.rise", "2", "2"),
    ("pools[0].health.path", "/up", r#""/up""#),
    ("pools[0].backends[0].url", "ws://a:1", r#""ws://a:1""#),
    ("pools[0].backends[0].id", "w9", r#""w9""#),
    ("pools[0].backends[0].weight", "2", "2"),
    ("pools[0].backends[0].max_pipes", "2", "2"),
    ("pools[0].backends[0].serves", "a=b,c=d", r#"{ "a" = "b", "c" = "d" }"#),
    ("pools[0].backends[0].labels", "{ rack = \"1\" }", r#"{ "rack" = "1" }"#),
    ("pools[0].backends[0].state", "drain", r#""drain""#),
    ("routes[0].name", "r", r#""r""#),
    ("routes[0].path", "/ws/{id}", r#""/ws/{id}""#),
    ("routes[0].hosts", "a.example,b.example", r#"["a.example", "b.example"]"#),
    ("routes[0].pool", "farm", r#""farm""#),
    ("routes[0].key", "{path}", r#""{path}""#),
    ("routes[0].no_owner", "any", r#""any""#),
    ("routes[0].backend_path", "/x", r#""/x""#),
    ("routes[0].upgrade", "websocket", r#""websocket""#),
    ("routes[0].raw_path", "true", "true"),
    ("routes[0].check_utf8", "true", "true"),
    ("routes[0].compression", "off", r#""off""#),
    ("routes[0].origins", "https://a.example", r#"["https://a.example"]"#),
    ("routes[0].on_backend_loss", "close", r#""close""#),
    ("routes[0].refusal", "wait", r#""wait""#),
    ("routes[0].on_refused", "next", r#""next""#),
    ("routes[0].sticky", "cookie", r#""cookie""#),
    ("routes[0].learn", "[{ path = \"/a\", json = \"/b\" }]", r#"[{ path = "/a", json = "/b" }]"#),
    ("routes[0].learn_ttl", "1s", r#""1s""#),
    ("routes[0].wait", "1s", r#""1s""#),
    ("routes[0].host", "backend", r#""backend""#),
    ("routes[0].headers.request.set", "{ x-a = \"1\" }", r#"{ "x-a" = "1" }"#),
    ("routes[0].headers.request.add", "{ x-a = \"1\" }", r#"{ "x-a" = "1" }"#),
    ("routes[0].headers.request.remove", "x-a,x-b", r#"["x-a", "x-b"]"#),
    ("routes[0].headers.response.set", "{ x-a = \"1\" }", r#"{ "x-a" = "1" }"#),
    ("routes[0].headers.response.add", "{ x-a = \"1\" }", r#"{ "x-a" = "1" }"#),
    ("routes[0].headers.response.remove", "x-a,x-b", r#"["x-a", "x-b"]"#),
    ("routes[0].down", "latest:3", r#""latest:3""#),
    ("routes[0].on_too_big", "drop", r#""drop""#),
    ("routes[0].confirm", "commit", r#""commit""#),
    ("routes[0].first_message_timeout", "1s", r#""1s""#),
    ("routes[0].interrupt_codes", "1001,4000-4099", r#"[1001, "4000-4099"]"#),
    ("routes[0].wrong_worker_codes", "", "[]"),
    ("routes[0].replay", "unsent", r#""unsent""#),
    ("routes[0].replay_tail.bytes", "1", "1"),
    ("routes[0].replay_tail.messages", "1", "1"),
    ("routes[0].replay_tail.age", "1ms", r#""1ms""#),
    ("routes[0].replay_delay", "1ms", r#""1ms""#),
    ("routes[0].overflow", "close", r#""close""#),
    ("routes[0].message_max_bytes", "1", "1"),
    ("routes[0].heartbeat.client_interval", "1s", r#""1s""#),
    ("routes[0].heartbeat.client_timeout", "2m", r#""120s""#),
    ("routes[0].heartbeat.backend_interval", "1s", r#""1s""#),
    ("routes[0].heartbeat.backend_timeout", "2m", r#""120s""#),
    ("routes[0].client_id", "{path}", r#""{path}""#),
    ("routes[0].labels", "{ room = \"{query.room}\" }", r#"{ "room" = "{query.room}" }"#),
    ("routes[0].resume", "cookie", r#""cookie""#),
    ("routes[0].duplicate", "reject", r#""reject""#),
    ("routes[0].replaced_code", "4901", "4901"),
    ("routes[0].share", "true", "true"),
    ("routes[0].share_linger", "0", r#""0s""#),
    ("routes[0].share_catch_up", "5", "5"),
    ("routes[0].share_bytes_max", "1MiB", r#""1MiB""#),
    ("routes[0].conversation", "stateful", r#""stateful""#),
    ("routes[0].prologue.first", "5", "5"),
    ("routes[0].prologue.profile", "nats", r#""nats""#),
    (
        "routes[0].prologue.keep",
        "[{ json = \"/0\", equals = [\"join\", 1], key = \"/1\", keep = \"all\" }]",
        r#"[{ match = { "/0" = ["join", "1"] }, key = "/1", keep = "all" }]"#,
    ),
    ("routes[0].prologue.forget", "[{ match = { \"/0\" = true } }]", r#"[{ match = { "/0" = "true" } }]"#),
    ("profiles[0].name", "mine", r#""mine""#),
    ("profiles[0].subprotocol", "mine.v1", r#""mine.v1""#),
    (
        "profiles[0].record",
        "[{ match = { \"/a\" = \"b\" }, await = { json = \"/c\", equals = \"d\", key = \"/id\", answer_key = \"/re\", within = \"1s\" }, map = { name = \"/e\", json = \"/f\", equals = \"g\", mention = \"/h\" } }]",
        r#"[{ match = { "/a" = "b" }, await = { match = { "/c" = "d" }, key = "/id", answer_key = "/re", within = "1s" }, map = { name = "/e", match = { "/f" = "g" }, mention = "/h" } }]"#,
    ),
    (
        "profiles[0].forget",
        "[{ json = \"/a\", equals = \"b\", from = \"backend\" }]",
        r#"[{ match = { "/a" = "b" }, from = "backend" }]"#,
    ),
    ("routes[0].http_fallback", "true", "true"),
    ("http_fallback.poll_wait_max", "7s", r#""7s""#),
    ("http_fallback.poll_bytes_max", "64KiB", r#""64KiB""#),
    ("http_fallback.post_bytes_max", "2MiB", r#""2MiB""#),
    ("http_fallback.early_posts_max", "7", "7"),
    ("http_fallback.early_bytes_max", "64KiB", r#""64KiB""#),
    ("routes[0].limits.key_connections", "3", "3"),
    ("routes[0].limits.key_rate", "3/s", r#""3/s""#),
    ("routes[0].limits.address_connections", "3", "3"),
    ("routes[0].auth_url", "http://a:1/c", r#""http://a:1/c""#),
    ("routes[0].auth_headers", "x-user,x-team", r#"["x-user", "x-team"]"#),
    ("routes[0].auth_timeout", "1s", r#""1s""#),
    ("routes[0].auth_requests_max", "7", "7"),
    ("routes[0].limits.address_rate", "5 per second", r#""5/s""#),
    ("routes[0].limits.headers", "true", "true"),
    ("workers[0].name", "w", r#""w""#),
    ("workers[0].command", r#"["a", "b"]"#, r#"["a", "b"]"#),
    ("workers[0].count", "3", "3"),
    ("workers[0].pool", "farm", r#""farm""#),
    ("workers[0].standby", "1", "1"),
    ("workers[0].env", "A=b", r#"{ "A" = "b" }"#),
    ("workers[0].cwd", "/c", r#""/c""#),
    ("workers[0].user", "u", r#""u""#),
    ("workers[0].listen", "unix", r#""unix""#),
    ("workers[0].ports", "9200-9299", r#""9200-9299""#),
    ("workers[0].serves", "a=b,c=d", r#"{ "a" = "b", "c" = "d" }"#),
    ("workers[0].start_timeout", "1s", r#""1s""#),
    ("workers[0].stop_signal", "INT", r#""INT""#),
    ("workers[0].stop_timeout", "1s", r#""1s""#),
    ("workers[0].drain_timeout", "1s", r#""1s""#),
    ("workers[0].restart_backoff", "1s…2s", r#""1s..2s""#),
    ("workers[0].recycle_pipes", "5", "5"),
    ("workers[0].recycle_age", "1h", r#""1h""#),
    ("workers[0].recycle_rss", "1GiB", r#""1GiB""#),
    ("workers[0].recycle_jitter", "0.25", "0.25"),
    ("workers[0].replace", "after", r#""after""#),
];

#[test]
fn px_05_every_key_can_be_set_by_environment() {
    for key in Config::known_keys() {
        let Some((path, value, shown)) = OTHER.iter().find(|(path, ..)| *path == key.key) else {
            panic!("{} needs a line in OTHER", key.key);
        };
        assert_ne!(key.default.as_deref(), Some(*shown), "{path}: not another value");
        // What else must be true for the value to be allowed.
        let around = match *path {
            "server.tls.listen" => "server.tls.certificates = [{ cert = \"/c\", key = \"/k\" }]",
            "server.http2" => {
                "server.tls = { listen = [\"127.0.0.1:3\"], certificates = [{ cert = \"/c\", key = \"/k\" }] }"
            }
            "server.proxy_protocol" => "server.trusted_proxies = [\"10.0.0.0/8\"]",
            "server.tls.client_auth" => "server.tls.client_ca = \"/a\"",
            "server.tls.client_crl" => "server.tls.client_ca = \"/a\"",
            "admin.tls.cert" => "admin.tls.key = \"/k\"",
            "admin.tls.key" => "admin.tls.cert = \"/c\"",
            "admin.tls.client_ca" => "admin.tls = { cert = \"/c\", key = \"/k\" }",
            "pools[0].name" => "routes = [{ pool = \"farm\" }]",
            "routes[0].pool" => "pools = [{ name = \"farm\" }]",
            "admin.tap" => "admin = { tokens_file = \"/t\" }",
            "hooks.url" => "hooks = { secret_file = \"/s\" }",
            "pools[0].tls.cert" => "pools = [{ tls = { key = \"/k\" } }]",
            "pools[0].tls.key" => "pools = [{ tls = { cert = \"/c\" } }]",
            "routes[0].prologue.forget" => "routes = [{ prologue.keep = [{ match = { \"/a\" = \"b\" } }] }]",
            "workers[0].pool" => {
                "pools = [{ name = \"farm\" }]\nroutes = [{ pool = \"farm\" }]\nworkers = [{ name = \"v\", command = [\"c\"] }]"
            }
            _ if path.contains("workers") => "workers = [{ name = \"v\", command = [\"c\"] }]",
            _ if path.contains("profiles") => {
                "profiles = [{ name = \"p\", record = [{ match = { \"/a\" = \"b\" } }] }]"
            }
            _ if path.contains("backends") => "pools = [{ backends = [{ url = \"ws://b:1\" }] }]",
            _ => "",
        };
        let loaded = under(around, &[(&key.variable, value)]).unwrap_or_else(|invalid| panic!("{invalid}"));
        let keys = super::super::schema::shown(&loaded.config);
        let got = keys.iter().find(|key| key.path == *path).and_then(|key| key.value.as_deref());
        assert_eq!(got, Some(*shown), "{path}");
        let wrong = under(around, &[(&key.variable, "\u{1}?[")]);
        let Err(invalid) = wrong else {
            // Free text is right whatever it is.
            assert!(
                matches!(
                    *path,
                    "admin.tokens_file"
                        | "admin.state_file"
                        | "resume.keys_file"
                        | "upgrade.socket"
                        | "upgrade.binary"
                        | "hooks.secret_file"
                        | "routes[0].client_id"
                        | "workers[0].cwd"
                        | "workers[0].user"
                ) || path.ends_with("serves")
                    || ["tls.ca", "tls.cert", "tls.key", "client_ca", "client_crl", "tickets_file", "acme_challenges"]
                        .iter()
                        .any(|file| path.ends_with(file)),
                "{path}"
            );
            continue;
        };
        let named = |error: &Notice| error.place == Place::Env(key.variable.clone()) && error.key == *path;
        assert!(invalid.errors.iter().any(named), "{invalid}");
    }
}

/// Every source below `directory`, but for what only reads, shows and tests configurations.
fn sources(directory: &std::path::Path) -> String {
    const OF_THE_FILE: [&str; 7] = ["tests", "tests.rs", "schema", "schema.rs", "setting", "setting.rs", "sections.rs"];
    let mut text = String::new();
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let name = entry.file_name();
        match entry.path() {
            _ if OF_THE_FILE.iter().any(|other| name == *other) => {}
            path if path.is_dir() => text.push_str(&sources(&path)),
            path => text.push_str(&std::fs::read_to_string(path).unwrap()),
        }
    }
    text
}

#[test]
fn st_13_every_key_is_used_or_said_to_have_no_effect_yet() {
    let sources = sources(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    for (path, ..) in OTHER {
        let field = path.rsplit('.').next().unwrap_or_default();
        let used = sources.contains(&format!(".{field}"));
        let not_yet = super::super::gaps::is_not_yet(&path.replace("[0]", "[]"));
        assert!(used || not_yet, "{path} is read, and does nothing");
    }
    assert!(!sources.contains(".no_such_field"), "the search can fail");
}

#[test]
fn px_05_each_field_of_a_section_has_a_key() {
    let root = |path: &str| !path.contains('[');
    let variables = Config::known_keys().into_iter().filter(|key| root(&key.key)).map(|key| {
        let other = OTHER.iter().find(|(path, ..)| *path == key.key).map(|(_, value, _)| *value);
        (key.variable, other.unwrap_or_default().to_owned())
    });
    let set = Config::read(None, variables).unwrap().config;
    let old = Config::default();
    let pairs = [
        (format!("{:#?}", set.server), format!("{:#?}", old.server)),
        (format!("{:#?}", set.admin), format!("{:#?}", old.admin)),
        (format!("{:#?}", set.heartbeat), format!("{:#?}", old.heartbeat)),
        (format!("{:#?}", set.message), format!("{:#?}", old.message)),
        (format!("{:#?}", set.replay), format!("{:#?}", old.replay)),
        (format!("{:#?}", set.reattach), format!("{:#?}", old.reattach)),
        (format!("{:#?}", set.resume), format!("{:#?}", old.resume)),
        (format!("{:#?}", set.aware), format!("{:#?}", old.aware)),
        (format!("{:#?}", set.prologue), format!("{:#?}", old.prologue)),
        (format!("{:#?}", set.memory), format!("{:#?}", old.memory)),
        (format!("{:#?}", set.log), format!("{:#?}", old.log)),
        (format!("{:#?}", set.trace), format!("{:#?}", old.trace)),
    ];
    for (set, old) in pairs {
        let field = |line: &&str| line.starts_with("    ") && line.ends_with(',') && line.contains(": ");
        for line in old.lines().filter(field) {
            assert!(!set.lines().any(|other| other == line), "no key sets{line}");
        }
    }
}

#[test]
fn px_05_the_environment_wins_over_the_file_and_its_errors() {
    let text = "[replay]\npipe_bytes_max = \"5M\"\n[[pools]]\nname = \"default\"\nbalance = \"hash\"\n";
    let variables =
        [("HOLDLINE_REPLAY__PIPE_BYTES_MAX", "1MiB"), ("HOLDLINE_POOLS__0__BALANCE", "random2"), ("HOME", "/")];
    let config = under(text, &variables).unwrap().config;
    assert_eq!(config.replay.pipe_bytes_max, 1 << 20);
    assert_eq!(config.pools[0].balance, holdline_core::settings::Balance::Random2);
}

#[test]
fn px_05_lists_grow_by_environment_in_the_order_of_their_numbers() {
    let variables: Vec<(String, String)> =
        (0..12).map(|n| (format!("HOLDLINE_POOLS__0__BACKENDS__{n}__URL"), format!("ws://w{n}:1"))).rev().collect();
    let config = Config::read(None, variables).unwrap().config;
    let hosts: Vec<_> = config.pools[0].backends.iter().map(|backend| backend.url.as_written()).collect();
    assert_eq!(hosts.len(), 12);
    assert_eq!((hosts[2], hosts[11]), ("ws://w2:1", "ws://w11:1"));
    let gap = under("", &[("HOLDLINE_ROUTES__3__POOL", "default")]).unwrap_err();
    assert_eq!(
        gap.errors[0].to_string(),
        "environment HOLDLINE_ROUTES__3__POOL: routes[3].pool: there is no entry 3; the next free one is 0"
    );
}

#[test]
fn px_05_a_name_that_is_no_key_is_an_error() {
    let cases = [
        ("HOLDLINE_REPLAY__POLICI", "no such key; did you mean HOLDLINE_REPLAY__POLICY?"),
        ("HOLDLINE_replay__policy", "no such key; did you mean HOLDLINE_REPLAY__POLICY?"),
        ("HOLDLINE_POOLS__0__BALANCES", "no such key; did you mean HOLDLINE_POOLS__0__BALANCE?"),
        ("HOLDLINE_LOG_LEVEL", "no such key; did you mean HOLDLINE_LOG__LEVEL?"),
        ("HOLDLINE_REPLAY_PIPE_BYTES_MAX", "no such key; did you mean HOLDLINE_REPLAY__PIPE_BYTES_MAX?"),
        ("HOLDLINE_POOLS__0", "no such key"),
        ("HOLDLINE_POOLS__99999999999999999999__NAME", "no such key"),
        ("HOLDLINE_CLUSTER__NAME", "cluster.name: clusters are not supported yet"),
    ];
    for (name, message) in cases {
        let errors = under("", &[(name, "x")]).unwrap_err().errors;
        assert_eq!(errors.len(), 1, "{name}");
        let line = errors[0].to_string();
        assert!(line.starts_with(&format!("environment {name}: {message}")), "{line}");
    }
}

#[test]
fn px_05_names_that_others_set_are_left_alone() {
    let others = [
        ("HOLDLINE_PORT", "tcp://10.0.0.1:8000"),
        ("HOLDLINE_PORT_8000_TCP_ADDR", "10.0.0.1"),
        ("HOLDLINE_SERVICE_HOST", "10.0.0.1"),
        ("HOLDLINE_CONFIG", "/etc/proxy.toml"),
        ("HOLDLINES__X", "1"),
        ("HOLDLINE_BIN", "/usr/bin/holdline"),
    ];
    assert_eq!(under("", &others).unwrap().config, Config::default());
}
