//! The documents against the program: links that lead somewhere, keys, bounds and metrics that there are, each answer and close
//! of Holdline's own with a row, a section for each alert, and the page of the admin API as the program describes it.
//!
//! What a document tells its reader to run is run by `scripts/docs-check`. Sources are read as text: the rules here know the few
//! forms in which a refusal or a close frame is written, and each of them is shown to find what it looks for.

#![allow(clippy::unwrap_used)]

#[path = "docs/api.rs"]
mod api;
#[path = "docs/bounds.rs"]
mod bounds;
#[path = "docs/codes.rs"]
mod codes;

use std::collections::BTreeSet;
use std::path::Path;

/// Documents that are in no directory of their own.
const OUTSIDE: [&str; 6] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "clients/js/README.md",
    "clients/python/README.md",
];

const TROUBLESHOOTING: &str = "docs/troubleshooting.md";
const RULES: &str = "deploy/prometheus/holdline.rules.yml";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The pages of `docs/`.
fn pages() -> Vec<String> {
    let files = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut pages: Vec<_> = files.map(|name| format!("docs/{}", name.to_str().unwrap())).collect();
    pages.retain(|path| path.ends_with(".md"));
    pages.sort();
    assert!(pages.len() > 15, "they are no longer where this test looks: {pages:?}");
    pages
}

fn documents() -> Vec<String> {
    OUTSIDE.iter().map(|&path| path.to_owned()).chain(pages()).collect()
}

/// A document without its fenced blocks.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let lines = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        !fenced && !is_fence
    });
    lines.fold(String::new(), |all, line| all + line + "\n")
}

/// What stands in backquotes.
fn quoted(text: &str) -> Vec<&str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

/// The section under a heading, up to the next one of its level.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let level = heading.split(' ').next().unwrap();
    let begins = page.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}")) + 1;
    let rest = &page[begins + heading.len()..];
    rest.find(&format!("\n{level} ")).map_or(rest, |end| &rest[..end])
}

/// The fragment by which a heading is linked.
fn fragment(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

fn fragments(page: &str) -> BTreeSet<String> {
    prose(page).lines().filter(|line| line.starts_with('#')).map(fragment).collect()
}

/// The targets of the links of a text.
fn links(text: &str) -> Vec<&str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect()
}

/// Why a link of `document` leads nowhere.
fn broken(document: &str, link: &str) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (file, part) = link.split_once('#').map_or((link, None), |(file, part)| (file, Some(part)));
    let directory = root().join(document).parent().unwrap().to_owned();
    let target = if file.is_empty() { root().join(document) } else { directory.join(file) };
    if !target.exists() {
        return Some(format!("{document}: there is no {link}"));
    }
    let found = part.is_none_or(|part| fragments(&std::fs::read_to_string(&target).unwrap()).contains(part));
    (!found).then(|| format!("{document}: {file} has no heading for #{}", part.unwrap_or_default()))
}

#[test]
fn each_link_leads_to_a_file_and_a_heading() {
    let of = |document: String| {
        let text = prose(&read(&document));
        links(&text).into_iter().filter_map(|link| broken(&document, link)).collect::<Vec<_>>()
    };
    let broken: Vec<_> = documents().into_iter().flat_map(of).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn a_link_to_a_heading_that_is_not_there_is_found() {
    assert_eq!(broken("README.md", "docs/README.md"), None);
    assert_eq!(broken(TROUBLESHOOTING, "#close-codes"), None);
    assert!(broken(TROUBLESHOOTING, "#no-such-heading").is_some());
    assert!(broken("README.md", "docs/no-such-page.md").is_some());
    assert_eq!(fragment("## Why a `held` pipe, and (perhaps) more"), "why-a-held-pipe-and-perhaps-more");
}

/// Whether a word in backquotes is a path of this repository.
fn is_path(word: &str) -> bool {
    const TOPS: [&str; 9] = ["src", "core", "tests", "docs", "deploy", "scripts", "clients", "benches", "systemd"];
    let plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"./_-".contains(&byte));
    plain && word.split_once('/').is_some_and(|(top, _)| TOPS.contains(&top))
}

#[test]
fn each_path_that_is_named_is_there() {
    let of = |document: String| {
        let text = prose(&read(&document));
        let beside = root().join(&document).parent().unwrap().to_owned();
        let is_there = |word: &str| root().join(word).exists() || beside.join(word).exists();
        let named = quoted(&text).into_iter().filter(|word| is_path(word) && !is_there(word));
        named.map(|word| format!("{document}: {word}")).collect::<Vec<_>>()
    };
    let missing: Vec<_> = documents().into_iter().flat_map(of).collect();
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(is_path("core/src/pipe/backend.rs") && !is_path("application/json"));
}

#[test]
fn the_maps_of_both_crates_name_each_module() {
    for file in ["src/lib.rs", "core/src/lib.rs"] {
        let text = read(file);
        let map: String = text.lines().filter(|line| line.starts_with("//!")).collect();
        let modules =
            text.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'));
        let missing: Vec<_> = modules.filter(|name| !map.contains(&format!("`{name}`"))).collect();
        assert!(missing.is_empty(), "the head of {file} lacks {missing:?}");
    }
}

#[test]
fn the_index_names_each_page() {
    let index = read("docs/README.md");
    let named = links(&index);
    let missing: Vec<_> = pages().into_iter().map(|page| page["docs/".len()..].to_owned()).collect();
    let missing: Vec<_> =
        missing.iter().filter(|page| **page != "README.md" && !named.contains(&page.as_str())).collect();
    assert!(missing.is_empty(), "docs/README.md lacks {missing:?}");
}

/// The cells of each row of a page's tables.
fn cells(page: &str) -> impl Iterator<Item = Vec<&str>> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix('|'));
    rows.map(|row| row.split('|').map(str::trim).collect())
}

/// The figure of Holdline in the row of this name on the page of measurements.
fn measured<'a>(page: &'a str, row: &str) -> Option<&'a str> {
    let mut column = None;
    for cells in cells(page) {
        column = cells.iter().position(|cell| *cell == "Holdline").or(column);
        if cells[0] == row {
            return cells.get(column?).copied();
        }
    }
    None
}

#[test]
fn sizes_are_those_that_were_measured() {
    let (sizing, performance) = (read("docs/sizing.md"), read("docs/performance.md"));
    let table = section(&sizing, "## CPU");
    let rows: Vec<_> = cells(table).skip(1).filter(|cells| !cells[0].starts_with("---")).collect();
    assert!(rows.len() > 4, "they are no longer found where this test looks: {rows:?}");
    for cells in rows {
        assert_eq!(measured(&performance, cells[0]), Some(cells[1]), "docs/sizing.md: {}", cells[0]);
    }
}

#[test]
fn each_alert_has_a_section_that_says_what_to_do() {
    let (rules, page) = (read(RULES), read(TROUBLESHOOTING));
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 20, "they are no longer found where this test looks");
    let missing: Vec<_> = alerts.iter().filter(|alert| !page.contains(&format!("\n### {alert}\n"))).collect();
    assert!(missing.is_empty(), "{TROUBLESHOOTING} lacks a `###` heading for each of {missing:?}");
    let sections = section(&page, "## Alerts").lines().filter_map(|line| line.strip_prefix("### "));
    let stale: Vec<_> = sections.filter(|name| !alerts.contains(name)).collect();
    assert!(stale.is_empty(), "{RULES} has no alert {stale:?}");
}

#[test]
fn each_runbook_leads_to_a_section() {
    let (rules, known) = (read(RULES), fragments(&read(TROUBLESHOOTING)));
    for line in rules.lines().filter(|line| line.trim_start().starts_with("runbook_url:")) {
        let (page, part) = line.trim().trim_end_matches('"').split_once('#').unwrap_or_else(|| panic!("{line}"));
        assert!(page.ends_with(TROUBLESHOOTING) && known.contains(part), "{line}");
    }
}
