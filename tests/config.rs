//! `holdline check` as an operator meets it, and the example file.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use holdline::config::Config;

/// `holdline check ARGUMENTS` in `directory`, with no other environment than `variables`.
fn check(directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_holdline"))
        .arg("check")
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn directory_with(text: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("proxy.toml"), text).unwrap();
    directory
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn example_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("proxy.toml.example")
}

#[test]
fn st_12_check_names_file_line_column_and_key_of_each_error() {
    let directory = directory_with("[replay]\n  policy = \"x\"\n\n[[routes]]\npool = \"gone\"\n");
    let output = check(directory.path(), &["-c", "proxy.toml"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        stderr(&output),
        "proxy.toml:2:12: replay.policy: unknown value \"x\"; use one of \"unsent\", \"unconfirmed\", \"none\"\n\
         proxy.toml:5:8: routes[0].pool: there is no pool \"gone\"; the pools are \"default\"\n\
         2 errors\n"
    );
    assert_eq!(stdout(&output), "");
}

#[test]
fn st_12_a_file_that_cannot_be_read_is_a_bad_configuration() {
    let directory = directory_with("");
    let output = check(directory.path(), &["-c", "missing.toml"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).starts_with("missing.toml: cannot read the file: "), "{}", stderr(&output));
    std::fs::write(directory.path().join("latin1.toml"), b"a = \"\xe9\"").unwrap();
    let output = check(directory.path(), &["-c", "latin1.toml"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).starts_with("latin1.toml: the file is not UTF-8"), "{}", stderr(&output));
}

#[test]
fn check_passes_the_defaults_and_says_what_may_not_be_as_expected() {
    let directory = directory_with("[[pools]]\nbalance = \"hash\"\n[[routes]]\npool = \"default\"\n");
    let output = check(directory.path(), &[], &[]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "the defaults: ok\n"));
    let output = check(directory.path(), &["-c", "proxy.toml"], &[]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "proxy.toml: ok\n"));
    assert_eq!(
        stderr(&output),
        "warning: proxy.toml:4:8: routes[0].pool: the pool balances by hash and this route has no key: its pipes are \
         spread by load\n"
    );
}

/// `holdline keys ARGUMENTS` in `directory`.
fn keys(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_holdline")).arg("keys").args(arguments).current_dir(directory).output().unwrap()
}

#[test]
fn keys_are_made_rotated_and_checked_without_showing_a_secret() {
    let directory = directory_with("[resume]\nkeys_file = \"k\"\n");
    let path = directory.path().join("k");
    let output = check(directory.path(), &["-c", "proxy.toml"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).starts_with("proxy.toml:2:13: resume.keys_file: the keys file k can't be read: "));
    assert_eq!(keys(directory.path(), &["new"]).status.code(), Some(2), "it wants a file");
    let made = keys(directory.path(), &["new", "--out", "k"]);
    assert!(made.status.success() && stdout(&made).contains("name the file in resume.keys_file"), "{made:?}");
    let again = keys(directory.path(), &["new", "k"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("there is a file already"), "{again:?}");
    let rotated = keys(directory.path(), &["rotate", "k"]);
    assert!(rotated.status.success() && stdout(&rotated).contains(" signs, "), "{rotated:?}");
    let text = std::fs::read_to_string(&path).unwrap();
    let secrets: Vec<&str> =
        text.lines().filter_map(|line| line.split_whitespace().find(|it| it.len() == 43)).collect();
    assert_eq!(secrets.len(), 2, "{text}");
    for output in [&made, &rotated] {
        assert!(secrets.iter().all(|secret| !stdout(output).contains(secret)), "{output:?}");
    }
    let output = check(directory.path(), &["-c", "proxy.toml"], &[]);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let output = check(directory.path(), &["-c", "proxy.toml"], &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("warning: proxy.toml:2:13: resume.keys_file: every user"), "{output:?}");
}

#[test]
fn px_05_check_shows_the_environment_in_the_effective_configuration_with_secrets_masked() {
    let directory = directory_with("[[pools]]\n[[pools.backends]]\nurl = \"ws://127.0.0.1:9001/ws?token=secret\"\n");
    let variables = [("HOLDLINE_REPLAY__PIPE_BYTES_MAX", "1MiB"), ("HOLDLINE_POOLS__0__BALANCE", "hash")];
    let output = check(directory.path(), &["-c", "proxy.toml", "--print"], &variables);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let printed = stdout(&output);
    assert!(printed.contains("\npipe_bytes_max = \"1MiB\"\n"), "{printed}");
    assert!(printed.contains("\nbalance = \"hash\"\n"), "{printed}");
    assert!(printed.contains("\nurl = \"ws://127.0.0.1:9001/ws?***\"\n"), "{printed}");
    assert!(!printed.contains("secret"), "{printed}");
}

#[test]
fn px_05_an_environment_variable_that_is_no_key_is_named() {
    let directory = directory_with("");
    let output = check(directory.path(), &[], &[("HOLDLINE_LOG__LEVLE", "info")]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        stderr(&output),
        "environment HOLDLINE_LOG__LEVLE: no such key; did you mean HOLDLINE_LOG__LEVEL?\n1 error\n"
    );
}

#[test]
fn the_example_file_shows_every_key_with_its_default() {
    let written = std::fs::read_to_string(example_file()).unwrap_or_default();
    if written != Config::example() {
        let fresh = Path::new(env!("CARGO_TARGET_TMPDIR")).join("proxy.toml.example");
        std::fs::write(&fresh, Config::example()).unwrap();
        panic!("proxy.toml.example is not what the keys say; run: cp {} .", fresh.display());
    }
    let loaded = Config::read(Some(("proxy.toml.example", &written)), []).unwrap();
    assert_eq!(loaded.config, Config::default());
    for key in Config::known_keys() {
        let name = key.key.rsplit("].").next().unwrap_or(&key.key);
        let name = if key.key.contains('[') { name } else { name.split_once('.').map_or(name, |(_, rest)| rest) };
        let shown = |line: &str| line.trim_start_matches("# ").starts_with(&format!("{name} = "));
        assert!(written.lines().any(shown), "{}", key.key);
    }
}

#[test]
fn the_example_file_passes_the_check() {
    let example = example_file().display().to_string();
    let output = check(Path::new("/"), &["-c", &example], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
}

/// `holdline ARGUMENTS` in `directory`, without a `HOLDLINE_CONFIG`.
fn holdline(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdline"));
    command.args(arguments).current_dir(directory).env_remove("HOLDLINE_CONFIG").output().unwrap()
}

#[test]
fn check_takes_the_file_as_it_is_and_answers_programs_in_json() {
    let directory = directory_with("[log]\nlevl = \"info\"\n");
    let output = check(directory.path(), &["proxy.toml", "--json"], &[]);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(2), ""));
    let said: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    let error = serde_json::json!({
        "file": "proxy.toml", "line": 2, "column": 1, "variable": null, "key": "log.levl",
        "message": "unknown key; did you mean \"level\"?",
    });
    assert_eq!(said, serde_json::json!({"file": "proxy.toml", "valid": false, "errors": [error], "warnings": []}));
    std::fs::write(directory.path().join("proxy.toml"), "").unwrap();
    let output = check(directory.path(), &["proxy.toml"], &[]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "proxy.toml: ok\n"));
    let output = check(directory.path(), &["--json"], &[("HOLDLINE_CONFIG", ""), ("HOLDLINE_LISTEN", "")]);
    let said: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&said["valid"], &said["warnings"][0]["variable"]), (&true.into(), &"HOLDLINE_LISTEN".into()), "{said}");
}

#[test]
fn check_opens_what_serve_will_need_and_says_all_of_it_at_once() {
    let text = "[server]\nlisten = \"unix:/nowhere/a.sock\"\n[admin]\ntokens_file = \"tokens\"\nstate_file = \"/nowhere/s.json\"\n\
                [server.tls]\nacme_challenges = \"/nowhere/acme\"\nlisten = \"127.0.0.1:0\"\ncertificates = { cert = \"c.pem\", key = \"k.pem\" }\n\
                [resume]\nkeys_file = \"keys\"\n[hooks]\nurl = \"http://127.0.0.1:1\"\nsecret_file = \"secret\"\n";
    let directory = directory_with(text);
    let output = check(directory.path(), &["proxy.toml"], &[]);
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    for line in [
        "proxy.toml:2:10: server.listen: unix:/nowhere/a.sock cannot be made: there is no folder /nowhere; make it\n",
        "proxy.toml:4:15: admin.tokens_file: the tokens file tokens can't be read: ",
        "proxy.toml:5:14: admin.state_file: /nowhere/s.json cannot be written: there is no folder /nowhere; make it\n",
        "proxy.toml:7:19: server.tls.acme_challenges: there is no folder /nowhere/acme; make it, or name the one that the ACME client writes to\n",
        "proxy.toml:9:16: server.tls.certificates: ",
        "proxy.toml:11:13: resume.keys_file: ",
        "proxy.toml:14:15: hooks.secret_file: ",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
}

#[test]
fn a_file_is_begun_checked_by_editors_and_put_in_order() {
    let directory = directory_with("[ log ]\nlevel='info' # mine\n");
    let example = holdline(directory.path(), &["config", "example"]);
    assert_eq!(stdout(&example), Config::example());
    assert!(
        stdout(&example).starts_with("#:schema ./holdline.schema.json\n"),
        "the line that editors look for comes first"
    );
    let schema = holdline(directory.path(), &["config", "schema"]);
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&schema.stdout).unwrap(), Config::json_schema());
    let checked = holdline(directory.path(), &["config", "fmt", "--check", "proxy.toml"]);
    assert_eq!(checked.status.code(), Some(1));
    assert_eq!(
        stderr(&checked),
        "proxy.toml:1: the layout is not in order; `holdline config fmt proxy.toml` puts it so\n"
    );
    assert!(holdline(directory.path(), &["config", "fmt", "proxy.toml"]).status.success());
    let written = std::fs::read_to_string(directory.path().join("proxy.toml")).unwrap();
    assert_eq!(written, "[log]\nlevel = 'info' # mine\n");
    assert!(holdline(directory.path(), &["config", "fmt", "--check", "proxy.toml"]).status.success());
    std::fs::write(directory.path().join("proxy.toml"), "[log\n").unwrap();
    let refused = holdline(directory.path(), &["config", "fmt", "proxy.toml"]);
    assert_eq!((refused.status.code(), stderr(&refused).lines().count()), (Some(2), 2), "{}", stderr(&refused));
    assert_eq!(std::fs::read_to_string(directory.path().join("proxy.toml")).unwrap(), "[log\n", "nothing was written");
}
