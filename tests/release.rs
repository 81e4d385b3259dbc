//! What is released: the manifest, what the packages hold, and the configuration that they bring.
//!
//! `scripts/release` builds it and `scripts/install-check` installs it; here is what must hold before either can.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use holdline::config::Config;

/// Where `scripts/release` stages what is built.
const STAGED: &str = "target/dist-files/";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn manifest() -> toml::Table {
    read("Cargo.toml").parse().unwrap()
}

/// The source and the destination of each file of a package.
fn assets(kind: &str) -> Vec<(String, String)> {
    let manifest = manifest();
    let assets = manifest["package"]["metadata"][kind]["assets"].as_array().unwrap();
    let text = |value: &toml::Value| value.as_str().unwrap().trim_start_matches('/').to_owned();
    let pair = |asset: &toml::Value| match asset.as_array() {
        Some(fields) => (text(&fields[0]), text(&fields[1])),
        None => (text(&asset["source"]), text(&asset["dest"])),
    };
    assets.iter().map(pair).collect()
}

#[test]
fn the_manifest_says_what_registries_and_packages_show() {
    let manifest = manifest();
    let package = &manifest["package"];
    for field in ["description", "readme", "keywords", "categories"] {
        assert!(package.get(field).is_some(), "{field}");
    }
    let keywords = package["keywords"].as_array().unwrap();
    assert!(keywords.len() <= 5 && keywords.iter().all(|word| word.as_str().unwrap().len() <= 20), "{keywords:?}");
    let version = manifest["workspace"]["package"]["version"].as_str().unwrap();
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    assert_eq!(manifest["dependencies"]["holdline-core"]["version"].as_str(), Some(version), "one version for both");
}

#[test]
fn what_a_package_holds_is_in_the_tree_or_made_by_the_release() {
    let release = read("scripts/release");
    for (source, _) in assets("deb").into_iter().chain(assets("generate-rpm")) {
        match source.strip_prefix(STAGED) {
            Some(staged) => {
                let name = Path::new(staged).file_name().unwrap().to_str().unwrap().trim_end_matches(".gz");
                let name = if name == "holdline" { "$staged" } else { name };
                assert!(release.contains(name), "scripts/release makes no {staged}");
            }
            None => assert!(root().join(&source).exists(), "{source}"),
        }
    }
}

#[test]
fn both_packages_hold_the_same() {
    // A directory of the .deb is a file of the .rpm, and zsh looks elsewhere on the two.
    let sources = |kind| assets(kind).into_iter().map(|(source, _)| source).collect::<BTreeSet<_>>();
    assert_eq!(sources("deb"), sources("generate-rpm"));
}

#[test]
fn the_configuration_of_the_packages_is_good_and_stays_on_this_machine() {
    let text = read("packaging/proxy.toml");
    let loaded = Config::read(Some(("proxy.toml", &text)), []).unwrap_or_else(|invalid| panic!("{invalid}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert!(loaded.config.server.listen.iter().chain([&loaded.config.admin.listen]).all(|listen| listen.is_local()));
    let state = loaded.config.admin.state_file.unwrap();
    assert_eq!(state.parent(), Some(Path::new("/var/lib/holdline")), "the unit's StateDirectory");
    assert!(read("systemd/holdline.service").contains("/etc/holdline/proxy.toml"));
}

#[test]
fn the_source_package_holds_what_the_build_reads_and_nothing_large() {
    let output = Command::new(env!("CARGO"))
        .args(["package", "--list", "--allow-dirty", "--offline", "-p", "holdline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8(output.stdout).unwrap();
    let files: BTreeSet<&str> = listed.lines().collect();
    for file in ["src/main.rs", "src/admin/dashboard/page.html", ".cargo/config.toml", "README.md", "Cargo.lock"] {
        assert!(files.contains(file), "{file}");
    }
    let size = |file: &&str| std::fs::metadata(root().join(file)).map_or(0, |file| file.len());
    let bytes: u64 = files.iter().map(size).sum();
    assert!(bytes < 8 << 20, "{bytes} bytes");
}

#[test]
fn what_is_new_in_this_version_is_in_the_changelog() {
    let heading = format!("\n## {} - ", env!("CARGO_PKG_VERSION"));
    assert!(read("CHANGELOG.md").contains(&heading), "no section{heading}DATE");
}
