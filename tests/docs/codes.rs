//! The tables of answers and close codes against the sources that say them.
//!
//! Refuses to interpret Rust: it knows the forms `StatusCode::X, "slug"`, `(404, "slug")`, `bad("slug", "…")` and
//! `CloseFrame::new(1013, "reason")`, and takes each match in what is shipped for an answer of Holdline's own.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::{TROUBLESHOOTING, documents, prose, quoted, read, root, section};

/// Sources whose answers no client of Holdline gets: the demo's, and those that read another process's.
const NOT_OURS: [&str; 5] = ["src/worker", "src/demo", "src/ctl", "src/agent", "src/trace"];

/// Statuses by the names that the sources use.
const STATUSES: [(&str, u16); 22] = [
    ("BAD_REQUEST", 400),
    ("UNAUTHORIZED", 401),
    ("FORBIDDEN", 403),
    ("NOT_FOUND", 404),
    ("METHOD_NOT_ALLOWED", 405),
    ("REQUEST_TIMEOUT", 408),
    ("CONFLICT", 409),
    ("GONE", 410),
    ("PAYLOAD_TOO_LARGE", 413),
    ("UNSUPPORTED_MEDIA_TYPE", 415),
    ("MISDIRECTED_REQUEST", 421),
    ("UNPROCESSABLE_ENTITY", 422),
    ("UPGRADE_REQUIRED", 426),
    ("TOO_MANY_REQUESTS", 429),
    ("REQUEST_HEADER_FIELDS_TOO_LARGE", 431),
    ("INTERNAL_SERVER_ERROR", 500),
    ("NOT_IMPLEMENTED", 501),
    ("BAD_GATEWAY", 502),
    ("SERVICE_UNAVAILABLE", 503),
    ("GATEWAY_TIMEOUT", 504),
    ("INSUFFICIENT_STORAGE", 507),
    ("LOOP_DETECTED", 508),
];

/// The codes of `core/src/aware/mod.rs`, by their names there.
const AWARE_CODES: [(&str, u16); 3] = [("REJECTED", 4900), ("SUPERSEDED", 4901), ("PROTOCOL", 4905)];

/// Every source that is shipped, without its tests.
fn sources() -> Vec<(String, String)> {
    let mut sources = Vec::new();
    for directory in ["src", "core/src"] {
        walk(&root().join(directory), &mut sources);
    }
    assert!(sources.len() > 200, "they are no longer where this test looks: {}", sources.len());
    sources
}

fn walk(directory: &Path, sources: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        if NOT_OURS.contains(&name.as_str()) || path.file_stem().is_some_and(|stem| stem == "tests") {
            continue;
        }
        if path.is_dir() {
            walk(&path, sources);
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(&path).unwrap();
            sources.push((name, text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned()));
        }
    }
}

/// The string literal at the start of `text`, behind white space and `&format!(`.
fn literal(text: &str) -> Option<&str> {
    let text = text.trim_start();
    let text = text.strip_prefix("&format!(").unwrap_or(text).trim_start();
    text.strip_prefix('"')?.split('"').next()
}

fn is_slug(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
}

/// Status and slug of each refusal that a source writes in one of the forms above.
fn refusals(text: &str) -> BTreeSet<(u16, String)> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("StatusCode::") {
        let rest = &text[at + "StatusCode::".len()..];
        let name = rest.split(|letter: char| !letter.is_ascii_uppercase() && letter != '_').next().unwrap_or_default();
        let behind = rest[name.len()..].strip_prefix(',').and_then(literal);
        // A table of kinds has the slug and a title before its status.
        let line = text[..at].rsplit('\n').next().unwrap_or_default();
        let before = line.rsplit_once("(\"").and_then(|(_, rest)| rest.split('"').next());
        let before = before.filter(|_| line.trim_end().ends_with("\","));
        for slug in [behind, before].into_iter().flatten().filter(|slug| is_slug(slug)) {
            let status = STATUSES.iter().find(|(known, _)| *known == name);
            found.insert((status.unwrap_or_else(|| panic!("STATUSES lacks {name}")).1, slug.to_owned()));
        }
    }
    for piece in text.split('(').skip(1) {
        let number =
            piece.get(..3).and_then(|number| number.parse::<u16>().ok()).filter(|number| (400..600).contains(number));
        let slug = number.and(piece.get(3..)).and_then(|rest| rest.strip_prefix(", ")).and_then(literal);
        found.extend(number.zip(slug.filter(|slug| is_slug(slug))).map(|(number, slug)| (number, slug.to_owned())));
    }
    for piece in text.split("bad(\"").skip(1) {
        let Some((slug, rest)) = piece.split_once('"') else { continue };
        if is_slug(slug) && rest.starts_with(", ") {
            found.insert((400, slug.to_owned()));
        }
    }
    for piece in text.split("Problem::named(").skip(1) {
        let Some(slug) = literal(piece).filter(|slug| is_slug(slug)) else { continue };
        let rest = &piece[slug.len() + 2..];
        let number = rest.strip_prefix(", ").and_then(|rest| rest.split([',', ')']).next()?.parse().ok());
        found.extend(number.map(|number| (number, slug.to_owned())));
    }
    found
}

/// Code and reason of each close frame that a source makes, as far as they stand there.
fn closes(text: &str) -> Vec<(Option<u16>, &str)> {
    let mut found = Vec::new();
    for piece in text.split("CloseFrame::new(").skip(1) {
        let Some((code, rest)) = piece.split_once(',') else { continue };
        let named = code.strip_prefix("codes::").and_then(|name| AWARE_CODES.iter().find(|(known, _)| *known == name));
        let code = named.map(|(_, code)| *code).or_else(|| code.trim().parse().ok());
        let reason = literal(rest).unwrap_or_default();
        found.push((code, reason.split('{').next().unwrap_or_default().trim_end_matches([' ', ':'])));
    }
    found
}

/// Status and slugs of the rows of a table.
fn rows(section: &str) -> BTreeSet<(u16, String)> {
    let mut rows = BTreeSet::new();
    for line in section.lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let Some(status) = cells.get(1).and_then(|cell| cell.parse::<u16>().ok()) else { continue };
        rows.extend(quoted(cells[2]).into_iter().map(|slug| (status, slug.to_owned())));
    }
    rows
}

#[test]
fn each_answer_of_our_own_has_its_row() {
    let page = read(TROUBLESHOOTING);
    let clients = rows(section(&page, "## Answers before the conversation"));
    let admin = rows(section(&page, "## Answers of the admin API"));
    let documented: BTreeSet<_> = clients.union(&admin).cloned().chain(rows(&read("docs/dial-in.md"))).collect();
    let sources = sources();
    let said: BTreeSet<_> = sources.iter().flat_map(|(_, text)| refusals(text)).collect();
    assert!(said.len() > 60, "they are no longer found where this test looks: {said:?}");
    let missing: Vec<_> = said.difference(&documented).collect();
    assert!(missing.is_empty(), "{TROUBLESHOOTING} lacks {missing:?}");
    let is_said = |slug: &str| sources.iter().any(|(_, text)| text.contains(&format!("\"{slug}\"")));
    let stale: Vec<_> = documented.iter().filter(|(_, slug)| !is_said(slug)).collect();
    assert!(stale.is_empty(), "no source says {stale:?}");
}

#[test]
fn each_close_of_our_own_is_told() {
    let page = read(TROUBLESHOOTING);
    let told = section(&page, "## Close codes");
    let codes: BTreeSet<u16> =
        told.split(|letter: char| !letter.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    let words = quoted(told);
    let sources = sources();
    let said: Vec<_> =
        sources.iter().flat_map(|(name, text)| closes(text).into_iter().map(move |close| (name, close))).collect();
    assert!(said.len() > 30, "they are no longer found where this test looks: {said:?}");
    for (name, (code, reason)) in said {
        assert!(code.is_none_or(|code| codes.contains(&code)), "{name}: {TROUBLESHOOTING} does not tell of {code:?}");
        assert!(
            reason.is_empty() || words.iter().any(|word| word.starts_with(reason)),
            "{name}: it does not tell of {reason:?}"
        );
    }
    // The table's second column is what a client sees; a number stands where the sources have a variable.
    let reasons = told.lines().filter_map(|line| line.strip_prefix("| ")?.split('|').nth(1)).flat_map(quoted);
    for reason in reasons {
        let fixed = reason.split(|letter: char| letter.is_ascii_digit()).next().unwrap().trim_end_matches([' ', ':']);
        assert!(sources.iter().any(|(_, text)| text.contains(fixed)), "no source says {reason:?}");
    }
}

#[test]
fn each_status_that_metrics_tell_apart_is_explained() {
    let page = read(TROUBLESHOOTING);
    let labels = read("src/metrics/labels.rs");
    let table = labels.split_once("pub fn status_code(").unwrap().1.split_once("\n}").unwrap().0;
    let statuses = table.lines().filter_map(|line| line.trim().split_once(" => \"")?.0.parse::<u16>().ok());
    let statuses: Vec<_> = statuses.filter(|status| *status >= 400).collect();
    assert!(statuses.len() > 15, "they are no longer found where this test looks");
    let missing: Vec<_> = statuses.iter().filter(|status| !page.contains(&status.to_string())).collect();
    assert!(missing.is_empty(), "{TROUBLESHOOTING} lacks {missing:?}");
}

#[test]
fn the_reasons_of_a_broken_protocol_are_those_of_the_program() {
    let guide = read("docs/client-guide.md");
    let list = guide.split_once("Reasons with 4905:").unwrap().1.split_once("\n\n").unwrap().0;
    let (sources, reasons) = (sources(), list.replace('\n', " "));
    let reasons = quoted(&reasons);
    assert!(reasons.len() > 10, "{reasons:?}");
    let stale: Vec<_> =
        reasons.iter().filter(|reason| !sources.iter().any(|(_, text)| text.contains(*reason))).collect();
    assert!(stale.is_empty(), "no source says {stale:?}");
}

/// Whether a word is what events and records of the log are called; `shared.role` is a part of a pipe's view.
fn is_event(word: &str) -> bool {
    const OF: [&str; 8] = ["pipe", "backend", "worker", "pool", "shared", "config", "route", "process"];
    let plain = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    word.split_once('.')
        .is_some_and(|(of, name)| OF.contains(&of) && plain(name) && !matches!(name, "md" | "rs" | "role"))
}

#[test]
fn documents_name_only_events_that_there_are() {
    let sources = sources();
    let mut unknown = BTreeSet::new();
    for document in documents() {
        let text = prose(&read(&document));
        let named = quoted(&text).into_iter().filter(|word| is_event(word));
        let is_said = |word: &str| sources.iter().any(|(_, text)| text.contains(&format!("\"{word}\"")));
        unknown.extend(named.filter(|word| !is_said(word)).map(|word| format!("{document}: {word}")));
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
    assert!(is_event("pipe.given_up") && !is_event("pipes.rs") && !is_event("routes.key"));
}

#[test]
fn the_forms_that_are_looked_for_are_found() {
    let refused =
        "Refusal::new(StatusCode::CONFLICT, \"taken\", detail); Self::X => (404, \"gone\"), bad(\"host\", \"send one\")
        Self::A => (\"no-token\", \"A token\", StatusCode::UNAUTHORIZED), Problem::named(\"not-kept\", 507, detail)";
    let wanted = [(400, "host"), (401, "no-token"), (404, "gone"), (409, "taken"), (507, "not-kept")];
    assert_eq!(refusals(refused), wanted.map(|(status, slug)| (status, slug.to_owned())).into());
    let closed = "CloseFrame::new(1013, \"too slow\"); CloseFrame::new(codes::PROTOCOL, reason); CloseFrame::new(1012, &format!(\"by all: {n}\"))";
    assert_eq!(closes(closed), [(Some(1013), "too slow"), (Some(4905), ""), (Some(1012), "by all")]);
}
