//! Tests of reading, printing and comparing whole configurations.

use std::time::Duration;

use super::*;

mod env;
mod messages;
mod nasty;

fn read(text: &str) -> Result<Loaded, Invalid> {
    Config::read(Some(("proxy.toml", text)), [])
}

fn config(text: &str) -> Config {
    read(text).unwrap_or_else(|invalid| panic!("{text}\n{invalid}")).config
}

/// The errors of `text`, one line each.
fn errors(text: &str) -> Vec<String> {
    match read(text) {
        Ok(_) => Vec::new(),
        Err(invalid) => invalid.errors.iter().map(ToString::to_string).collect(),
    }
}

#[track_caller]
fn refused(text: &str, expected: &[&str]) {
    assert_eq!(errors(text), expected, "{text}");
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(config(""), Config::default());
    assert_eq!(config("\u{feff}# nothing\n"), Config::default());
    assert_eq!(Config::read(None, []).unwrap().config, Config::default());
}

#[test]
fn a_backend_that_is_a_listener_of_ours_is_refused() {
    let pool = "[[pools]]\nname = \"default\"\n[[pools.backends]]\nurl = ";
    for (listen, url, own) in [
        ("127.0.0.1:8000", "ws://127.0.0.1:8000/x", "127.0.0.1:8000"),
        ("0.0.0.0:8000", "ws://localhost:8000", "127.0.0.1:8000"),
        ("0.0.0.0:8000", "wss://127.9.9.9:8000", "127.9.9.9:8000"),
        ("127.0.0.1:1", "ws://localhost:9000", "127.0.0.1:9000"),
    ] {
        let text = format!("server.listen = [\"{listen}\"]\n{pool}\"{url}\"\n");
        let error = format!(
            "proxy.toml:5:7: pools[0].backends[0].url: {own} is a listener of this proxy itself; write the address of a worker"
        );
        refused(&text, &[&error]);
    }
    config(&format!("server.listen = [\"127.0.0.1:8000\"]\n{pool}\"ws://127.0.0.1:8001\"\n"));
}

#[test]
fn what_workers_dial_in_on_is_no_open_door() {
    let at = |message: &str| format!("proxy.toml:1:17: attach.listen: {message}");
    let open = "0.0.0.0:1 is not a loopback address: set admin.tokens_file, or every caller is a worker";
    let plain = "0.0.0.0:1 is not a loopback address, so TLS is spoken there: set server.tls.certificates";
    refused("attach.listen = [\"0.0.0.0:1\"]\n", &[&at(open), &at(plain)]);
    let taken = "127.0.0.1:8000 is another listener already; use another port";
    refused("attach.listen = [\"127.0.0.1:8000\"]\n", &[&at(taken)]);
    let file = "unix:/w is a socket file: a worker on this machine registers with a unix: URL; write ADDRESS:PORT";
    refused("attach.listen = [\"unix:/w\"]\n", &[&at(file)]);
    let few = "proxy.toml:1:27: attach.parked_total_max: is less than attach.parked_max; make it larger";
    refused("attach.parked_total_max = 9\n", &[few]);
    let url = "[[pools]]\nname = \"default\"\n[[pools.backends]]\nurl = \"attach:w\"\n";
    let dials_in = "proxy.toml:4:7: pools[0].backends[0].url: is of a worker that dials in and registers by that; remove this, and set attach.listen";
    refused(url, &[dials_in]);
    let whole = "admin.tokens_file = \"/t\"\nserver.tls.certificates = [{ cert = \"/c\", key = \"/k\" }]\nattach.listen = [\"0.0.0.0:1\"]\n";
    config(whole);
    config("attach.listen = [\"127.0.0.1:1\"]\n");
}

#[test]
fn a_password_in_a_url_is_in_no_message() {
    for text in [
        "trace.otlp_endpoint = \"http://u:hunter2@collector\"",
        "trace.otlp_endpoint = \"https://u:hunter2@collector\"",
        "[[pools]]\nname = \"default\"\n[[pools.backends]]\nurl = \"ws://u:hunter2@worker\"",
    ] {
        let found = errors(text);
        assert!(!found.is_empty() && found.iter().all(|line| !line.contains("hunter2")), "{found:?}");
    }
}

#[test]
fn the_default_pipe_settings_are_the_ones_of_the_core() {
    let config = Config::default();
    let settings = config.pipe_settings(&config.routes[0]);
    assert_eq!(format!("{settings:?}"), format!("{:?}", PipeSettings::default()));
    config.route_table().unwrap();
}

#[test]
fn what_is_printed_reads_back_as_the_same_configuration() {
    let busy = config(BUSY);
    let again = read(&busy.print()).unwrap_or_else(|invalid| panic!("{}\n{invalid}", busy.print())).config;
    assert_eq!(again.pools[0].backends[0].url.as_written(), "ws://10.0.0.1:9001/ws?***");
    let unmasked = busy.print().replace("?***", "?token=secret");
    assert_eq!(config(&unmasked), busy);
    assert_eq!(config(&Config::default().print()), Config::default());
}

#[test]
fn secrets_are_masked_wherever_a_configuration_is_shown() {
    let busy = config(BUSY);
    for shown in [busy.print(), busy.to_json().to_string(), format!("{busy:?}")] {
        assert!(!shown.contains("=secret"), "{shown}");
        assert!(shown.contains("10.0.0.1"), "{shown}");
    }
}

#[test]
fn json_has_the_shape_of_the_file() {
    let json = config(BUSY).to_json();
    assert_eq!(json["replay"]["pipe_bytes_max"], "1MiB");
    assert_eq!(json["replay"]["tail"]["messages"], 7);
    assert_eq!(json["pools"][0]["health"]["kind"], "http");
    assert_eq!(json["pools"][0]["backends"][1]["serves"]["k"], "alias");
}

#[test]
fn every_part_of_a_busy_file_lands_where_it_belongs() {
    let config = config(BUSY);
    assert_eq!(config.server.listen.len(), 2);
    assert_eq!(config.server.trusted_proxies[1].to_string(), "192.0.2.7/32");
    assert_eq!(config.replay.pipe_bytes_max, 1 << 20);
    let first = &config.pools[0].backends[0];
    assert_eq!((first.url.authority().as_str(), first.url.tls()), ("10.0.0.1:9001", false));
    assert_eq!(first.url.path_and_query(), Some("/ws?token=secret"));
    assert_eq!(first.id("default", 0), "default-1");
    assert_eq!(config.pools[0].backends[1].id("default", 1), "w2");
    let settings = config.pipe_settings(&config.routes[0]);
    assert_eq!(settings.message_bytes_max, 2048);
    assert_eq!(settings.replay_tail.bytes, 1024, "from the route");
    assert_eq!(settings.replay_tail.messages, 7, "from [replay]");
    assert_eq!(settings.client_heartbeat.interval, Duration::from_secs(1));
    assert_eq!(settings.client_heartbeat.timeout, Duration::from_secs(60));
    assert_eq!(settings.first_message_timeout, Some(Duration::from_millis(90_500)));
    assert!(settings.interrupt_codes.contains(4050) && !settings.interrupt_codes.contains(1006));
}

const BUSY: &str = r#"
[server]
listen = ["127.0.0.1:0", "unix:/run/holdline.sock"]
trusted_proxies = ["10.1.2.3/8", "192.0.2.7"]
[admin]
listen = "0.0.0.0:9000"
tokens_file = "/etc/tokens \"quoted\""
[replay]
pipe_bytes_max = "1MiB"
tail = { messages = 7 }
[[pools]]
name = "farm"
health = { kind = "http", path = "/health" }
[[pools.backends]]
url = "ws://10.0.0.1:9001/ws?token=secret"
serves = ["b", "a"]
labels = { rack = "a 1", "odd key" = "tab\t" }
[[pools.backends]]
url = "wss://worker.example/"
id = "w2"
serves = { k = "alias" }
[[routes]]
pool = "farm"
path = "/ws/{session}"
key = "{session}"
hosts = ["farm.example", "*.farm.example"]
origins = ["https://farm.example"]
down = "latest:5"
message_max_bytes = 2048
replay_tail.bytes = "1KiB"
heartbeat.client_interval = "1s"
first_message_timeout = "1m30s500ms"
interrupt_codes = [1001, "4000-4099"]
"#;

#[test]
fn st_12_an_error_names_file_line_column_and_key() {
    refused(
        "[replay]\npolicy = \"x\"\n",
        &["proxy.toml:2:10: replay.policy: unknown value \"x\"; use one of \"unsent\", \"unconfirmed\", \"none\""],
    );
    let notice =
        read("[[routes]]\n[[routes]]\nname = \"b\"\npath=\"/b\"\npool = \"gone\"").unwrap_err().errors.remove(0);
    assert_eq!(notice.file.as_deref(), Some("proxy.toml"));
    assert_eq!(notice.place, Place::File { line: 5, column: 8 });
    assert_eq!(notice.key, "routes[1].pool");
    assert_eq!(notice.message, "there is no pool \"gone\"; the pools are \"default\"");
}

#[test]
fn st_12_all_errors_are_reported_in_the_order_of_the_file() {
    let text = "[server]\ntreads = 3\nlisten = [\"a\", 5]\n[log]\nlevel = \"loud\"\n[[pools]]\nname = 5\n[[routes]]\npool = \"x\"\n";
    let found = errors(text);
    let starts = [
        "proxy.toml:2:1: server.treads: unknown key; did you mean \"threads\"?",
        "proxy.toml:3:11: server.listen: cannot use \"a\"",
        "proxy.toml:3:16: server.listen: cannot use 5",
        "proxy.toml:5:9: log.level: unknown value \"loud\"",
        "proxy.toml:7:8: pools[0].name: cannot use 5",
    ];
    assert_eq!(found.len(), starts.len(), "a missing pool may be the one whose name was refused: {found:?}");
    for (line, start) in found.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}");
    }
    assert!(read(text).unwrap_err().to_string().ends_with("\n5 errors"));
}

#[test]
fn st_12_unknown_keys_say_what_was_meant_or_what_there_is() {
    refused("[sever]\n", &["proxy.toml:1:2: sever: unknown key; did you mean \"server\"?"]);
    refused(
        "[log]\ncolour = 1",
        &["proxy.toml:2:1: log.colour: unknown key; the keys here are format, access, level, queue_bytes_max"],
    );
    refused("[[pools]]\nhealth.knd = 1", &["proxy.toml:2:8: pools[0].health.knd: unknown key; did you mean \"kind\"?"]);
    refused(
        "\"server.listen\" = 1",
        &[
            "proxy.toml:1:1: \"server.listen\": unknown key; the keys here are server, admin, heartbeat, message, replay, reattach, resume, aware, attach, prologue, http_fallback, limits, memory, upgrade, log, trace, hooks, profiles, pools, routes, workers",
        ],
    );
}

#[test]
fn st_12_wrong_types_units_and_ranges_say_what_to_write() {
    let cases = [
        ("log = 1", "proxy.toml:1:7: log: cannot use an integer; use a table"),
        ("pools = 1", "proxy.toml:1:9: pools: cannot use an integer; begin each entry with [[pools]]"),
        ("routes = [1]", "proxy.toml:1:11: routes[0]: cannot use an integer; use a table"),
        ("pools = []", "proxy.toml:1:9: pools: at least one pool is needed; add [[pools]]"),
        (
            "server.threads = -1",
            "proxy.toml:1:18: server.threads: cannot use -1; use a whole number from 0 to 4294967295",
        ),
        (
            "server.threads = 1.5",
            "proxy.toml:1:18: server.threads: cannot use a decimal number; use a whole number from 0 to 4294967295",
        ),
        (
            "server.threads = 99999999999999999999",
            "proxy.toml:1:18: server.threads: cannot use an integer beyond 64 bits; use a whole number from 0 to 4294967295",
        ),
        ("server.threads = 1025", "proxy.toml:1:18: server.threads: 1025 is out of range; use 0 to 1024"),
        (
            "reattach.grace = 30",
            "proxy.toml:1:18: reattach.grace: cannot use 30; use a duration in whole numbers with units, such as \"30s\", \"50ms\" or \"1m30s\", or \"none\"",
        ),
        ("reattach.grace = \"25h\"", "proxy.toml:1:18: reattach.grace: \"25h\" is out of range; use \"0s\" to \"24h\""),
        (
            "reattach.grace = \"never\"",
            "proxy.toml:1:18: reattach.grace: cannot use \"never\"; use a duration in whole numbers with units, such as \"30s\", \"50ms\" or \"1m30s\", or \"none\"",
        ),
        (
            "message.max_bytes = \"2GiB\"",
            "proxy.toml:1:21: message.max_bytes: \"2GiB\" is out of range; use 1 to \"1GiB\"",
        ),
        (
            "memory.process_max = 5",
            "proxy.toml:1:22: memory.process_max: 5 is out of range; use \"16MiB\" to \"64TiB\", or 0 to switch it off",
        ),
        (
            "limits.key_rate = \"5/day\"",
            "proxy.toml:1:19: limits.key_rate: cannot use \"5/day\"; use a rate such as \"20/min\", \"5/s\" or \"5 per second\", or 0 for no limit",
        ),
        (
            "admin.backend_networks = [\"10.0.0.0/33\"]",
            "proxy.toml:1:27: admin.backend_networks: cannot use \"10.0.0.0/33\"; use an address or network such as \"10.0.0.0/8\" or \"::1\"",
        ),
        ("routes = [{ share = \"yes\" }]", "proxy.toml:1:21: routes[0].share: cannot use \"yes\"; use true or false"),
        (
            "routes = [{ down = \"latest:0\" }]",
            "proxy.toml:1:20: routes[0].down: cannot use \"latest:0\"; use \"keep\" or \"latest:N\" with N from 1 to 1000000",
        ),
        (
            "routes = [{ interrupt_codes = [999] }]",
            "proxy.toml:1:32: routes[0].interrupt_codes: cannot use 999; use a close code from 1000 to 4999, or a range such as \"4000-4099\"",
        ),
    ];
    for (text, expected) in cases {
        refused(text, &[expected]);
    }
}

#[test]
fn what_is_said_of_a_route_s_conversations_must_fit_together() {
    let profiles = holdline_core::conversation::Profile::built_in().iter().map(|profile| profile.name.to_string());
    let names = profiles.collect::<Vec<_>>().join(", ");
    let cases = [
        (
            "routes = [{ prologue.profile = \"graphql\" }]",
            format!(
                "proxy.toml:1:32: routes[0].prologue.profile: there is no profile \"graphql\"; the profiles are {names}"
            ),
        ),
        (
            "routes = [{ conversation = \"profile\" }]",
            format!(
                "proxy.toml:1:28: routes[0].conversation: \"profile\" needs prologue.profile, keep or first; the profiles are {names}"
            ),
        ),
        (
            "routes = [{ conversation = \"stateful\", prologue.first = 2 }]",
            "proxy.toml:1:57: routes[0].prologue.first: has no place with this conversation; use conversation = \"profile\", or remove it".to_owned(),
        ),
        (
            "routes = [{ prologue = { profile = \"mqtt\", keep = [{ json = \"/0\", equals = \"a\" }] } }]",
            "proxy.toml:1:51: routes[0].prologue.keep: has no effect: the messages of mqtt are not JSON; remove one of them".to_owned(),
        ),
        (
            "routes = [{ prologue.forget = [{ json = \"/0\", equals = \"a\" }] }]",
            "proxy.toml:1:31: routes[0].prologue.forget: forgets what prologue.keep keeps, which is missing; add it".to_owned(),
        ),
        (
            "profiles = [{ name = \"lsp\", record = [{ json = \"/0\", equals = \"a\" }] }]",
            "proxy.toml:1:22: profiles[0].name: is the name of a built-in profile; use another, and name it in routes.prologue.profile".to_owned(),
        ),
        (
            "routes = [{ share = true, key = \"{query.a}\", prologue.profile = \"sockjs\" }]",
            "proxy.toml:1:65: routes[0].prologue.profile: cannot be combined with share: a newcomer would not hear the beginning; remove one".to_owned(),
        ),
    ];
    for (text, expected) in cases {
        refused(text, &[expected.as_str()]);
    }
}

#[test]
fn a_mistake_in_a_rule_of_a_conversation_is_told_with_its_own_place() {
    let at = |column: u32, key: &str, message: &str| format!("proxy.toml:1:{column}: {key}: {message}");
    let keep = "routes[0].prologue.keep";
    let record = "profiles[0].record";
    let rule = |rule: &str| format!("routes = [{{ prologue.keep = [{rule}] }}]");
    let own = |rule: &str| format!("profiles = [{{ name = \"p\", record = [{rule}] }}]");
    let event = r#"json = "/0", equals = "a""#;
    let named = r#"name = "/r", json = "/m", equals = "e", mention = "/s""#;
    let cases = [
        (
            rule(r#"{ json = "0", equals = "a" }"#),
            at(39, keep, r#"cannot use "0": a JSON pointer begins with "/", as in "/type" or "/payload/0""#),
        ),
        (
            rule(r#"{ json = "/0", equals = "a", remember = true }"#),
            at(59, keep, r#"unknown key "remember"; the keys here are json, equals, match, key, keep, await, map"#),
        ),
        (rule(r#"{ key = "/0" }"#), at(30, keep, "does not say which messages: add json and equals, or match")),
        (rule(r#"{ json = "/0" }"#), at(30, keep, "json needs equals: what stands there")),
        (
            own(&format!(r#"{{ {event}, keep = "first" }}"#)),
            at(73, record, r#"unknown word "first"; use one of "last", "all""#),
        ),
        (
            own(&format!(r#"{{ {event}, await = {{ within = "1s" }} }}"#)),
            at(74, record, "does not say which messages: add json and equals, or match"),
        ),
        (
            own(&format!(r#"{{ {event}, map = {{ {named} }} }}"#)),
            at(72, record, "needs await with a key: the id that the request and its answer have in common"),
        ),
        (
            own(r#"{ match = { "type" = "a" } }"#),
            at(49, record, r#"cannot use "type": a JSON pointer begins with "/", as in "/type" or "/payload/0""#),
        ),
        (own(""), at(36, record, "a profile keeps something; add a rule")),
    ];
    for (text, expected) in cases {
        refused(&text, &[expected.as_str()]);
    }
}

#[test]
fn st_12_keys_that_contradict_each_other_are_refused() {
    let cases = [
        (
            "admin.listen = \"0.0.0.0:9000\"",
            "proxy.toml:1:16: admin.listen: 0.0.0.0:9000 is not a loopback address: set admin.tokens_file or admin.tls.client_ca, or listen on 127.0.0.1",
        ),
        (
            "admin.listen = \"127.0.0.1:8000\"",
            "proxy.toml:1:16: admin.listen: 127.0.0.1:8000 is also a public listener; use another port",
        ),
        (
            "server.http2 = true",
            "proxy.toml:1:16: server.http2: needs server.tls.listen beside it: HTTP/2 is spoken over TLS only; add that, such as [\"0.0.0.0:443\"]",
        ),
        (
            "heartbeat.client_timeout = \"1s\"",
            "proxy.toml:1:28: heartbeat.client_timeout: is shorter than heartbeat.client_interval; make it at least as long",
        ),
        (
            "reattach.backoff_min = \"3s\"",
            "proxy.toml:1:24: reattach.backoff_min: is longer than reattach.backoff_max; make it shorter",
        ),
        (
            "replay.total_bytes_max = \"1MiB\"",
            "proxy.toml:1:26: replay.total_bytes_max: is less than replay.pipe_bytes_max; make it larger",
        ),
        (
            "server.shutdown_grace = \"1s\"",
            "proxy.toml: server.close_spread: is longer than server.shutdown_grace; make it shorter",
        ),
        (
            "pools = [{}, {}]",
            "proxy.toml:1:14: pools[1].name: \"default\" is already the name of pools[0] (line 1); give each pool its own name",
        ),
        (
            "routes = [{}, { path = \"/b\" }]",
            "proxy.toml:1:15: routes[1].name: \"default\" is already the name of routes[0] (line 1); give each route its own name",
        ),
        (
            "routes = [{ pool = \"a\" }]",
            "proxy.toml:1:20: routes[0].pool: there is no pool \"a\"; the pools are \"default\"",
        ),
        (
            "routes = [{ prologue = { first = 1, profile = \"nats\" } }]",
            "proxy.toml:1:47: routes[0].prologue.profile: cannot be combined with prologue.first; remove one",
        ),
        (
            "pools = [{ backends = [{}] }]",
            "proxy.toml:1:24: pools[0].backends[0].url: is missing; write url = \"ws://127.0.0.1:9101\"",
        ),
    ];
    for (text, expected) in cases {
        refused(text, &[expected]);
    }
    let twice = "pools = [{ backends = [{ url = \"ws://a\" }, { url = \"ws://b\", id = \"default-1\" }] }]";
    refused(
        twice,
        &[
            "proxy.toml:1:67: pools[0].backends[1].id: \"default-1\" is already pools[0].backends[0] (line 1); give each backend its own id",
        ],
    );
}

#[test]
fn st_12_patterns_and_templates_are_judged_by_the_router() {
    let found =
        errors("routes = [{ path = \"ws\" }, { name = \"b\", key = \"{nope}\" }, { name = \"c\" }, { name = \"d\" }]");
    let starts =
        ["proxy.toml:1:20: routes[0].path: ", "proxy.toml:1:48: routes[1].key: ", "proxy.toml:1:76: routes[3].path: "];
    assert_eq!(found.len(), starts.len(), "{found:?}");
    for (line, start) in found.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}");
    }
}

#[test]
fn st_12_a_bad_backend_url_is_refused_and_not_repeated() {
    for url in [
        "http://secret@a",
        "ws://secret@a",
        "ws://u:secret@",
        "ws://a:0?secret",
        "ws://a/?secret#x",
        "ws://a/?secret é",
        "",
    ] {
        let found = errors(&format!("pools = [{{ backends = [{{ url = \"{url}\" }}] }}]"));
        assert_eq!(found.len(), 1, "{url}");
        assert!(found[0].starts_with("proxy.toml:1:32: pools[0].backends[0].url: "), "{url}: {}", found[0]);
        assert!(!found[0].contains("secret"), "{}", found[0]);
    }
}

#[test]
fn st_12_syntax_errors_have_their_place() {
    let found = errors("[server]\nthreads = \n");
    assert!(found[0].starts_with("proxy.toml:2:"), "{found:?}");
    let found = errors("[log]\nlevel = \"info\"\nlevel = \"info\"\n");
    assert!(found[0].starts_with("proxy.toml:3:1: "), "{found:?}");
}

#[test]
fn what_is_not_supported_is_refused_wherever_it_is_set() {
    for text in ["[cluster]", "[cluster]\nname = \"a\""] {
        let found = errors(text);
        assert!(found.len() == 1 && found[0].contains("not supported yet"), "{text}: {found:?}");
    }
}

#[test]
fn a_hash_without_a_key_is_worth_a_warning() {
    let loaded = read("pools = [{ balance = \"hash\" }]").unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    assert_eq!(loaded.warnings[0].key, "routes[0].pool");
}

#[test]
fn a_reload_says_what_needs_a_restart() {
    let old = Config::default();
    let new = config(
        "server.listen = [\"127.0.0.1:1\"]\nlog.level = \"debug\"\n[[pools]]\n[[pools.backends]]\nurl = \"ws://a:1\"\n",
    );
    let changes = old.changes(&new);
    let restart: Vec<_> = changes.iter().filter(|change| change.needs_restart).map(|change| &change.key).collect();
    assert_eq!(restart, ["server.listen"]);
    let keys: Vec<_> = changes.iter().map(|change| change.key.as_str()).collect();
    assert!(keys.contains(&"log.level") && keys.contains(&"pools[0].backends[0].url"), "{keys:?}");
    assert_eq!(new.changes(&new.clone()), []);
    assert_eq!(new.changes(&old).len(), changes.len());
}

#[test]
fn a_change_that_only_masks_hide_is_still_a_change() {
    let with = |secret: &str| config(&format!("[[pools]]\n[[pools.backends]]\nurl = \"ws://a:1/?t={secret}\"\n"));
    let changes = with("one").changes(&with("two"));
    assert_eq!(changes, [Change { key: "pools".to_owned(), needs_restart: false }]);
}

#[test]
fn the_example_is_the_default_and_shows_every_key() {
    let example = Config::example();
    assert_eq!(config(&example), Config::default());
    assert!(read(&example).unwrap().warnings.is_empty());
    // With every commented key switched on it is still a valid file.
    let all: String = example
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.starts_with("[[") || (rest.contains(" = ") && !rest.contains("; ")) => rest,
            _ => line,
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let all = all.replace("prologue.first = 0", "prologue.first = 0 #");
    config(&all);
}
