//! The presets of `docs/presets.md`: each is checked and started as it is, and says what its document says.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use holdline::config::{Config, Loaded};

/// One for each kind of worker.
const SEEDS: [&str; 5] = ["device-bridge", "ancestor", "screenshots", "long-poll", "stabilizer"];
/// For device bridges, by size.
const SIZES: [&str; 4] = ["development", "high-concurrency", "low-latency", "small-memory"];

fn presets() -> impl Iterator<Item = &'static str> {
    SEEDS.into_iter().chain(SIZES)
}

fn bridges() -> impl Iterator<Item = &'static str> {
    ["device-bridge"].into_iter().chain(SIZES)
}

fn path(preset: &str) -> String {
    format!("{}/deploy/presets/{preset}.toml", env!("CARGO_MANIFEST_DIR"))
}

fn text(preset: &str) -> String {
    std::fs::read_to_string(path(preset)).unwrap()
}

fn load(preset: &str) -> Loaded {
    Config::read(Some((preset, &text(preset))), Vec::<(String, String)>::new()).unwrap()
}

/// `holdline ARGUMENTS -c PRESET`, with no other environment than `variables`.
fn holdline(command: &str, preset: &str, variables: &[(&str, &str)]) -> Command {
    let mut holdline = Command::new(env!("CARGO_BIN_EXE_holdline"));
    holdline.args([command, "-c", &path(preset)]).env_clear().envs(variables.iter().copied());
    holdline
}

#[test]
fn holdline_check_accepts_each_preset() {
    for preset in presets() {
        let output = holdline("check", preset, &[]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{preset}: {said}");
        // a key that is not built yet may stand there for later; nothing else may be odd
        assert!(said.lines().all(|line| line.ends_with("has no effect in this version")), "{preset}: {said}");
    }
}

#[test]
fn presets_for_a_network_speak_tls_with_a_few_marks_less() {
    let files = tempfile::tempdir().unwrap();
    let at = |name: &str| files.path().join(name).display().to_string();
    let key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::new(vec!["example.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    let pem =
        |label: &str, der: &[u8]| format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der));
    let secrets = "s".repeat(64);
    let written = [
        ("tls.pem", pem("CERTIFICATE", own.der())),
        ("tls.key", pem("PRIVATE KEY", &key.serialize_der())),
        ("tickets", secrets),
    ];
    for (name, text) in written {
        std::fs::write(at(name), text).unwrap();
        std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    for preset in ["high-concurrency", "low-latency", "small-memory"] {
        let marked = text(preset).matches("\n# tls.").count();
        assert!(marked >= 2, "{preset}");
        let spoken =
            text(preset).replace("\n# tls.", "\ntls.").replace("/etc/holdline", &files.path().display().to_string());
        std::fs::write(at("proxy.toml"), spoken).unwrap();
        let mut check = Command::new(env!("CARGO_BIN_EXE_holdline"));
        let output = check.args(["check", "--print", "-c", &at("proxy.toml")]).env_clear().output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{preset}: {said}");
        assert!(String::from_utf8(output.stdout).unwrap().contains("0.0.0.0:443"), "{preset}");
    }
}

#[test]
fn each_preset_starts() {
    for preset in presets() {
        let ports = [("HOLDLINE_SERVER__LISTEN", r#"["127.0.0.1:0"]"#), ("HOLDLINE_ADMIN__LISTEN", "127.0.0.1:0")];
        // its log is what says that it listens
        let loud = [ports[0], ports[1], ("HOLDLINE_LOG__LEVEL", "info"), ("HOLDLINE_LOG__FORMAT", "json")];
        let mut child = holdline("serve", preset, &loud).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let listens = lines.map_while(Result::ok).any(|line| line.contains("listening"));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(listens, "{preset}");
    }
}

/// The rows of the document's table of numbers: a key, and its value in each preset.
fn rows(document: &str) -> Vec<(String, Vec<String>)> {
    let table = document.split("\n## ").find(|chapter| chapter.starts_with("The numbers")).unwrap();
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    let mut rows = table.lines().filter(|line| line.starts_with('|')).map(cells);
    assert_eq!(rows.next().unwrap()[1..], SIZES.map(str::to_owned), "the columns");
    rows.skip(1).map(|mut row| (row.remove(0), row)).collect()
}

/// What the file says under `key`, `video.KEY` being of the route of that name.
fn value(preset: &str, key: &str) -> String {
    let document: toml::Table = text(preset).parse().unwrap();
    let (section, key) = key.split_once('.').unwrap();
    let table = match section {
        "video" => {
            let routes = document["routes"].as_array().unwrap();
            routes.iter().find(|route| route["name"].as_str() == Some("video")).unwrap()
        }
        section => &document[section],
    };
    table[key].as_str().map_or_else(|| table[key].to_string(), str::to_owned)
}

#[test]
fn the_document_says_what_the_files_say() {
    let document = std::fs::read_to_string(format!("{}/docs/presets.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let rows = rows(&document);
    assert!(rows.len() >= 8);
    for (key, said) in rows {
        let written = SIZES.map(|preset| value(preset, &key));
        assert_eq!(said, written, "{key}");
    }
}

/// The presets that the document has a link to.
#[test]
fn the_document_names_every_preset_and_the_directory_holds_no_other() {
    let document = std::fs::read_to_string(format!("{}/docs/presets.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let mut files: Vec<String> = std::fs::read_dir(format!("{}/deploy/presets", env!("CARGO_MANIFEST_DIR")))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let mut wanted: Vec<String> = presets().map(|preset| format!("{preset}.toml")).collect();
    wanted.sort();
    assert_eq!(files, wanted);
    for file in files {
        assert!(document.contains(&format!("(../deploy/presets/{file})")), "{file}");
    }
}

#[test]
fn the_rules_behind_the_numbers_hold() {
    for preset in SIZES {
        let config = load(preset).config;
        assert!(config.replay.total_bytes_max <= config.memory.process_max / 4, "{preset}");
    }
    for preset in bridges() {
        let config = load(preset).config;
        let route = |name: &str| config.routes.iter().find(|route| route.name == name).unwrap();
        let video = route("video");
        assert!(video.share && video.share_catch_up == 1, "{preset}");
        // the largest frames were 1.2 MB
        assert!(video.share_bytes_max >= 2_400_000, "{preset}");
        assert!(config.message.max_bytes > 1_200_000, "{preset}");
        let closes = format!("{:?}", route("webrtc").on_backend_loss);
        assert_eq!((&*closes, route("session").share), ("Close", false), "{preset}");
        // requests and sockets of one session meet on its worker
        for route in ["video", "webrtc", "session", "rest"].map(route) {
            assert_eq!(route.key.as_deref(), Some("{session}"), "{preset}: {}", route.name);
        }
        assert_eq!(route("web").key, None, "{preset}");
    }
}

#[test]
fn two_device_bridges_need_fewer_than_40_lines() {
    assert!(text("device-bridge").lines().count() < 40);
}

#[test]
fn the_ancestors_preset_has_the_ancestors_rules() {
    let config = load("ancestor").config;
    let route = &config.routes[0];
    assert_eq!((&*route.path.0[0], route.client_id.as_deref()), ("/{client}", Some("{client}")));
    assert_eq!(config.pools[0].max_pipes_per_backend, 1);
    assert_eq!(config.replay.pipe_bytes_max, 5 << 20);
    assert_eq!(format!("{:?}", config.replay.overflow), "Close");
    assert_eq!(config.reattach.grace.end(), None, "it waits without an end");
}
