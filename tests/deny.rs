//! What `deny.toml` says of licences, sources and bans, held in each `cargo test` without cargo-deny.
//!
//! cargo-deny takes minutes to build and knows more (advisories above all); `scripts/deny` runs it. This reads the same
//! file, so that the two cannot disagree about what is allowed. Refuses to guess: a licence that it cannot read is none.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The part of `deny.toml` that is held here.
struct Rules {
    licences: BTreeSet<String>,
    registries: BTreeSet<String>,
    banned: BTreeSet<String>,
}

fn read(path: &str) -> toml::Table {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    text.parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn texts(list: &toml::Value) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn rules() -> Rules {
    let deny = read("deny.toml");
    let banned = deny["bans"]["deny"].as_array().unwrap().iter();
    Rules {
        licences: texts(&deny["licenses"]["allow"]),
        registries: texts(&deny["sources"]["allow-registry"]),
        banned: banned.map(|ban| ban["crate"].as_str().unwrap().to_owned()).collect(),
    }
}

/// Everything that can be linked on this platform, with every feature.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--all-features", "--filter-platform"])
        .arg("x86_64-unknown-linux-gnu")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let linked: BTreeSet<&str> =
        metadata["resolve"]["nodes"].as_array().unwrap().iter().map(|node| node["id"].as_str().unwrap()).collect();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages.filter(|package| linked.contains(package["id"].as_str().unwrap())).cloned().collect()
}

/// What is wrong with a package of `cargo metadata`.
fn complaints(package: &Value, rules: &Rules) -> Vec<String> {
    let name = package["name"].as_str().unwrap();
    let mut wrong = Vec::new();
    if rules.banned.contains(name) {
        wrong.push(format!("{name} is banned"));
    }
    let ours = package["source"].is_null();
    let licence = package["license"].as_str().unwrap_or("none");
    if !ours && !is_allowed(licence, &rules.licences) {
        wrong.push(format!("{name} has the licence `{licence}`"));
    }
    for dependency in package["dependencies"].as_array().unwrap() {
        if ours && dependency["req"] == "*" && dependency["path"].is_null() {
            wrong.push(format!("{name} wants any version of {}", dependency["name"]));
        }
    }
    wrong
}

/// What is wrong with an entry of `Cargo.lock`: it comes from an allowed registry and is what it was, or it is ours.
fn lock_complaints(entry: &toml::Value, rules: &Rules) -> Vec<String> {
    let name = entry["name"].as_str().unwrap();
    let Some(source) = entry.get("source").map(|source| source.as_str().unwrap()) else { return Vec::new() };
    let mut wrong = Vec::new();
    if !source.strip_prefix("registry+").is_some_and(|registry| rules.registries.contains(registry)) {
        wrong.push(format!("{name} comes from {source}"));
    }
    if entry.get("checksum").is_none() {
        wrong.push(format!("{name} has no checksum"));
    }
    wrong
}

/// Whether an SPDX expression can be fulfilled with `allowed` licences; AND binds stronger than OR.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    // before there were expressions, a slash meant OR
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let (fulfilled, rest) = any_of(&tokens, allowed);
    fulfilled && rest.is_empty()
}

fn any_of<'t>(tokens: &'t [&'t str], allowed: &BTreeSet<String>) -> (bool, &'t [&'t str]) {
    let (mut fulfilled, mut rest) = all_of(tokens, allowed);
    while let ["OR", more @ ..] = rest {
        let (also, behind) = all_of(more, allowed);
        (fulfilled, rest) = (fulfilled || also, behind);
    }
    (fulfilled, rest)
}

fn all_of<'t>(tokens: &'t [&'t str], allowed: &BTreeSet<String>) -> (bool, &'t [&'t str]) {
    let (mut fulfilled, mut rest) = one(tokens, allowed);
    while let ["AND", more @ ..] = rest {
        let (also, behind) = one(more, allowed);
        (fulfilled, rest) = (fulfilled && also, behind);
    }
    (fulfilled, rest)
}

fn one<'t>(tokens: &'t [&'t str], allowed: &BTreeSet<String>) -> (bool, &'t [&'t str]) {
    match tokens {
        ["(", inside @ ..] => match any_of(inside, allowed) {
            (fulfilled, [")", rest @ ..]) => (fulfilled, rest),
            (_, rest) => (false, rest),
        },
        // an exception takes nothing away, but only a list that names it has thought of it
        [licence, "WITH", exception, rest @ ..] => (allowed.contains(&format!("{licence} WITH {exception}")), rest),
        [licence, rest @ ..] => (allowed.contains(*licence), rest),
        [] => (false, tokens),
    }
}

#[test]
fn every_linked_package_has_an_allowed_licence_and_none_is_banned() {
    let (packages, rules) = (packages(), rules());
    assert!(packages.len() > 100, "the packages are no longer found where this test looks");
    let wrong: Vec<String> = packages.iter().flat_map(|package| complaints(package, &rules)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_package_comes_from_an_allowed_registry_with_its_checksum() {
    let (lock, rules) = (read("Cargo.lock"), rules());
    let entries = lock["package"].as_array().unwrap();
    assert!(entries.len() > 100, "the packages are no longer found where this test looks");
    let wrong: Vec<String> = entries.iter().flat_map(|entry| lock_complaints(entry, &rules)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

mod each_rule_can_fail {
    use super::*;

    #[test]
    fn a_licence_is_read_as_spdx_means_it() {
        let allowed = rules().licences;
        for fine in ["MIT", "MIT OR GPL-3.0", "GPL-2.0 OR (MIT AND ISC)", "MIT/Apache-2.0", "(MIT OR GPL-2.0) AND ISC"]
        {
            assert!(is_allowed(fine, &allowed), "{fine}");
        }
        for wrong in [
            "",
            "none",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(MIT OR ISC) AND GPL-3.0",
            "MIT WITH odds",
            "(MIT",
            "MIT ISC",
            "OR",
        ] {
            assert!(!is_allowed(wrong, &allowed), "{wrong}");
        }
    }

    #[test]
    fn a_package_that_is_banned_or_has_no_licence() {
        let registry = "registry+https://github.com/rust-lang/crates.io-index";
        let package = |name: &str, licence: Value| serde_json::json!({ "name": name, "source": registry, "license": licence, "dependencies": [] });
        assert!(complaints(&package("fine", "MIT".into()), &rules()).is_empty());
        assert_eq!(complaints(&package("openssl-sys", "MIT".into()), &rules()), ["openssl-sys is banned"]);
        assert_eq!(complaints(&package("x", Value::Null), &rules()), ["x has the licence `none`"]);
    }

    #[test]
    fn a_dependency_on_any_version() {
        let ours = serde_json::json!({
            "name": "holdline", "source": null, "license": null,
            "dependencies": [{ "name": "x", "req": "*" }, { "name": "core", "req": "*", "path": "core" }],
        });
        assert_eq!(complaints(&ours, &rules()), ["holdline wants any version of \"x\""]);
    }

    #[test]
    fn a_package_from_elsewhere_or_without_a_checksum() {
        let entry =
            |source: &str| format!("name = \"x\"\nsource = \"{source}\"\nchecksum = \"0\"").parse::<toml::Table>();
        for source in ["git+https://example.com/x", "registry+https://example.com/index"] {
            let entry = toml::Value::Table(entry(source).unwrap());
            assert_eq!(lock_complaints(&entry, &rules()), [format!("x comes from {source}")]);
        }
        let mut entry = entry("registry+https://github.com/rust-lang/crates.io-index").unwrap();
        entry.remove("checksum");
        assert_eq!(lock_complaints(&toml::Value::Table(entry), &rules()), ["x has no checksum"]);
    }
}
