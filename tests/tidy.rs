//! Holds the habits that a machine can hold: how files open, how long they grow, what they must not say, what core may
//! use, which module may know which, that comments name who acts, and that the documentation names only what exists.
//!
//! Each rule is a plain function over a file's text, and is shown to fail on a bad snippet further down. An exception
//! stands in a list beside its reason; an exception that nothing needs any more fails as well.

#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/security.rs"]
mod security;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Lines of a file in `src/` and `core/src/`.
const FILE_LINES_MAX: usize = 600;
/// Lines of a function, from its signature to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;
/// What core may depend on.
const CORE_DEPENDENCIES: [&str; 1] = ["bytes"];

/// Files that may be longer, with the reason.
const LONG_FILES: [(&str, &str); 0] = [];

/// Functions that may be longer, with the reason.
const LONG_FUNCTIONS: [(&str, &str, &str); 2] = [
    ("src/metrics/families.rs", "new", "a table: one entry for each metric, in the order of the struct"),
    ("src/config/schema/root.rs", "server", "a table: one entry for each key"),
];

/// Tests that may call `sleep`, with the reason.
const SLEEPS: [(&str, &str); 9] = [
    ("src/backends/tests/leases.rs", "paused time: the sleep is how virtual time moves"),
    ("src/backends/tests/writes.rs", "paused time: the sleep is how virtual time moves"),
    ("tests/hostile/http_ends.rs", "the rhythm of a slow peer"),
    ("tests/hostile/slow_http.rs", "the rhythm of a slow peer"),
    ("tests/it/harness/agent.rs", "a box in the middle forgets what was idle for so long"),
    ("tests/it/http.rs", "the worker's answer takes its minute"),
    ("tests/it/upgrade_drill.rs", "the pace of its clients and of its upgrades"),
    ("tests/it/upgrade_fails.rs", "a batch of pipes is on its way for so long"),
    ("tests/measured/measure.rs", "the window of a measurement"),
];

/// What only the edges may touch; core decides, and is told the time.
const CORE_FORBIDDEN: [&str; 9] = [
    "std::time::Instant",
    "SystemTime",
    "std::net",
    "std::fs",
    "std::thread",
    "std::env",
    "rand::",
    "tokio",
    "time::{Duration, Instant",
];

#[test]
fn every_rust_file_opens_by_saying_what_it_owns() {
    check(rust_files(), |file| opens_with_a_doc(&file.text));
}

#[test]
fn no_file_outgrows_a_reader() {
    let long = |file: &&Source| is_shipped(&file.path) && file.text.lines().count() > FILE_LINES_MAX;
    let files = rust_files();
    let found: BTreeSet<&str> = files.iter().filter(long).map(|file| file.path.as_str()).collect();
    assert_eq!(found, LONG_FILES.map(|(path, _)| path).into(), "files over {FILE_LINES_MAX} lines: split them");
}

#[test]
fn no_function_outgrows_a_head() {
    let files = rust_files();
    // a test may be a long script, read from top to bottom
    let long = files.iter().filter(|file| is_shipped(&file.path)).flat_map(|file| {
        let functions = long_functions(&without_tests(&file.text)).into_iter();
        functions.map(|(name, _)| (file.path.clone(), name))
    });
    let allowed = LONG_FUNCTIONS.map(|(path, name, _)| (path.to_owned(), name.to_owned()));
    assert_eq!(long.collect::<BTreeSet<_>>(), allowed.into(), "functions over {FUNCTION_LINES_MAX} lines: split them");
}

#[test]
fn nothing_is_unwrapped_outside_tests() {
    let shipped = rust_files().into_iter().filter(|file| !is_test(&file.path)).collect();
    check(shipped, |file| forbidden(&without_tests(&file.text), &[".unwrap()", ".unwrap_err()"]));
}

#[test]
fn nothing_is_left_for_later() {
    check(rust_files(), |file| forbidden(&file.text, &left_over_words()));
}

#[test]
fn comments_name_who_acts() {
    check(rust_files(), |file| riddles(&file.text));
}

#[test]
fn no_test_sleeps() {
    let sleeping = |file: &Source| is_test(&file.path) && !forbidden(&file.text, &SLEEP).is_empty();
    let found: BTreeSet<String> =
        rust_files().into_iter().filter(|file| sleeping(file)).map(|file| file.path).collect();
    assert_eq!(found, SLEEPS.map(|(path, _)| path.to_owned()).into(), "tests wait for what happens, not for time");
}

#[test]
fn tests_that_measure_run_alone() {
    let measures = |file: &Source| file.path.starts_with("tests/measured/") || file.path.starts_with("tests/attacks/");
    check(rust_files().into_iter().filter(measures).collect(), |file| crowded(&file.text));
}

#[test]
fn core_knows_no_clock_no_socket_and_no_chance() {
    let core = rust_files().into_iter().filter(|file| file.path.starts_with("core/src/")).collect();
    check(core, |file| forbidden(&file.text, &CORE_FORBIDDEN));
    let manifest = read("core/Cargo.toml");
    let names: Vec<&str> = dependencies(&manifest, "[dependencies]").map(|(name, _)| name).collect();
    assert_eq!(names, CORE_DEPENDENCIES, "core depends on nothing else");
}

#[test]
fn every_dependency_says_why_it_is_there() {
    assert_eq!(unexplained(&read("Cargo.toml")), Vec::<String>::new());
    assert_eq!(unexplained(&read("core/Cargo.toml")), Vec::<String>::new());
}

#[test]
fn no_file_names_the_machine_it_was_written_on() {
    let files = paths().into_iter().filter_map(|path| {
        let text = fs::read_to_string(root().join(&path)).ok()?;
        Some(Source { path, text })
    });
    check(files.collect(), |file| machine_paths(&file.text));
}

#[test]
fn the_documentation_names_only_what_exists() {
    for document in ["README.md", "ARCHITECTURE.md"] {
        let gone: Vec<String> =
            named_paths(&read(document)).into_iter().filter(|path| !root().join(path).exists()).collect();
        assert_eq!(gone, Vec::<String>::new(), "{document} names what does not exist");
    }
}

#[test]
fn every_metric_is_documented_with_its_labels() {
    let families = read("src/metrics/families.rs");
    let documented = documented_metrics(&read("docs/metrics.md"));
    let exported = exported_metrics(&families);
    assert!(exported.len() > 30, "the families are no longer found where this test looks");
    let difference: Vec<_> = exported.symmetric_difference(&documented).collect();
    assert!(difference.is_empty(), "src/metrics/families.rs and docs/metrics.md differ in {difference:#?}");
}

/// A file of the repository.
#[derive(Debug)]
struct Source {
    path: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What git tracks or would track; in an export without git, everything but the build's own output.
fn paths() -> Vec<String> {
    let git = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .ok()
        .filter(|output| output.status.success() && !output.stdout.is_empty());
    let mut paths = match git {
        Some(output) => String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect(),
        None => walk(root()),
    };
    paths.retain(|path: &String| root().join(path).is_file());
    paths
}

fn walk(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut found = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !["target", ".git", "node_modules"].contains(&name.as_str()) {
            found.extend(walk(&path));
        } else if path.is_file() {
            found.push(relative(&path));
        }
    }
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_string_lossy().into_owned()
}

fn rust_files() -> Vec<Source> {
    let rust = paths().into_iter().filter(|path| path.ends_with(".rs"));
    let files: Vec<Source> = rust.map(|path| Source { text: read(&path), path }).collect();
    assert!(files.len() > 100, "the sources are no longer found where this test looks");
    files
}

/// Fails with every complaint of `rule` about `files`, each with its file.
fn check(files: Vec<Source>, rule: impl Fn(&Source) -> Vec<String>) {
    let complaints: Vec<String> = files
        .iter()
        .flat_map(|file| rule(file).into_iter().map(|complaint| format!("{}: {complaint}", file.path)))
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

fn is_shipped(path: &str) -> bool {
    path.starts_with("src/") || path.starts_with("core/src/")
}

fn is_test(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs") || path.starts_with("fuzz/")
}

const SLEEP: [&str; 2] = [concat!("thread::", "sleep"), concat!("time::", "sleep")];

/// Put together here, so that this file does not hold them itself.
fn left_over_words() -> [&'static str; 6] {
    [
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
        concat!("db", "g!("),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("#[ign", "ore"),
    ]
}

/// Words that hide who acts; a comment names the client, the worker, the caller or the task instead.
const RIDDLES: [&str; 6] = ["whoever", "nobody", "somebody", "someone", "anybody", "anyone"];

/// The comments that hold a riddle.
fn riddles(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let Some(comment) = comment(line) else { continue };
        let words = comment.split(|letter: char| !letter.is_alphabetic()).map(str::to_ascii_lowercase);
        for word in words.filter(|word| RIDDLES.contains(&word.as_str())) {
            found.push(format!("line {} says `{word}`: name it", index + 1));
        }
    }
    found
}

/// What a line says behind `//`; an address in a text such as `ws://` begins none.
fn comment(line: &str) -> Option<&str> {
    let at = line
        .match_indices("//")
        .find(|(at, _)| line[..*at].chars().all(char::is_whitespace) || line[..*at].ends_with(' '))?
        .0;
    Some(&line[at..])
}

fn opens_with_a_doc(text: &str) -> Vec<String> {
    if text.starts_with("//! ") { Vec::new() } else { vec!["does not open with `//! `".into()] }
}

/// The lines of code, comments left out, that hold one of `words`; with a name in front only where a path begins.
fn forbidden(text: &str, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let is_comment = line.trim_start().starts_with("//");
        let begins = |word: &str| {
            let whole =
                |at: usize| !word.starts_with(char::is_alphabetic) || !line[..at].ends_with(char::is_alphanumeric);
            line.match_indices(word).any(|(at, _)| whole(at))
        };
        for word in words.iter().filter(|word| (!is_comment || is_note(word)) && begins(word)) {
            found.push(format!("line {} holds `{word}`", index + 1));
        }
    }
    found
}

/// Words that are wrong in comments as well.
fn is_note(word: &str) -> bool {
    word.chars().all(|letter| letter.is_ascii_uppercase())
}

/// The file up to its unit tests, which stand last.
fn without_tests(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod ").unwrap_or(text.len());
    text[..end].to_owned()
}

/// Tests that do not wait for their turn.
fn crowded(text: &str) -> Vec<String> {
    let tests = text.split("\n#[tokio::test").skip(1);
    let bodies = tests.map(|test| test.split("\n}\n").next().unwrap_or(test));
    let hasty = bodies.filter(|body| !body.contains("let _alone = alone();"));
    hasty.map(|body| format!("this test runs beside others:{}", body.lines().nth(1).unwrap_or(body))).collect()
}

/// Names and lengths of functions that are too long; rustfmt puts a function's closing brace under its first letter.
fn long_functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut long = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = &line[..line.len() - line.trim_start().len()];
        let closing = format!("{indent}}}");
        let length = lines[start..].iter().position(|line| *line == closing).map_or(1, |end| end + 1);
        let one_line = line.ends_with('}') || line.ends_with(';');
        if !one_line && length > FUNCTION_LINES_MAX {
            long.push((name, length));
        }
    }
    long
}

fn function_name(line: &str) -> Option<String> {
    let mut words = line.trim_start().split(' ');
    let before = ["pub", "pub(super)", "pub(crate)", "const", "async"];
    let first = words.find(|word| !before.contains(word))?;
    let name = words.next().filter(|_| first == "fn")?;
    Some(name.split(['(', '<']).next().unwrap_or(name).to_owned())
}

/// Names and lines of a manifest's section.
fn dependencies<'a>(manifest: &'a str, section: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let lines = manifest.lines().skip_while(move |line| *line != section).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    lines
        .filter_map(|line| Some((line.split(['=', '.', ' ']).next().filter(|name| !name.is_empty())?, line)))
        .filter(|(name, _)| !name.starts_with('#'))
}

/// Dependencies without a reason; what the workspace explains and our own crates need none.
fn unexplained(manifest: &str) -> Vec<String> {
    let sections = ["[dependencies]", "[dev-dependencies]", "[build-dependencies]", "[workspace.dependencies]"];
    let lines = sections.into_iter().flat_map(|section| dependencies(manifest, section));
    let silent = lines
        .filter(|(_, line)| !line.contains(" # ") && !line.contains("workspace = true") && !line.contains("path = "));
    silent.map(|(name, _)| format!("{name} has no comment that says why")).collect()
}

/// Homes, work directories and private package sources: what is true on one machine only.
fn machine_paths(text: &str) -> Vec<String> {
    let needles = [
        concat!("/wo", "rk/"),
        concat!("/ho", "me/"),
        concat!("/ro", "ot/"),
        concat!("/Us", "ers/"),
        concat!("index", "-url"),
        concat!("replace", "-with"),
        concat!("extra", "-index"),
    ];
    let own = concat!("/ho", "me/holdline");
    let text = text.replace(own, "");
    needles.into_iter().filter(|needle| names_a_place(&text, needle)).map(|needle| format!("holds {needle}")).collect()
}

/// Whether the path begins at `needle`, and is not the middle of a URL or of another path.
fn names_a_place(text: &str, needle: &str) -> bool {
    text.match_indices(needle).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        !needle.starts_with('/') || !before.is_some_and(|before| before.is_alphanumeric() || "./_-}*".contains(before))
    })
}

/// Paths below `docs/` and `scripts/` that a document names.
fn named_paths(document: &str) -> BTreeSet<String> {
    let is_path = |letter: char| letter.is_ascii_alphanumeric() || "./_-".contains(letter);
    let words = document.split(|letter: char| !is_path(letter));
    let paths = words.map(|word| word.trim_start_matches("./").trim_end_matches(['.', '-']));
    let named = paths.filter(|word| ["docs/", "scripts/"].iter().any(|folder| word.starts_with(folder)));
    named.map(str::to_owned).collect()
}

/// What is compared of a metric: its name, type and labels.
type Metric = (String, String, Vec<String>);

/// The metrics of the `Families` struct, with the labels that `new` gives them.
fn exported_metrics(families: &str) -> BTreeSet<Metric> {
    let (declared, made) = families.split_once("fn new(").unwrap_or_default();
    let fields = declared.lines().filter_map(|line| {
        let (field, of) = line.trim().strip_prefix("pub ")?.strip_suffix(',')?.split_once(": ")?;
        Some((field, of))
    });
    let metric = |(field, of): (&str, &str)| {
        let kind = ["Histogram", "Counter", "Gauge"].into_iter().find(|kind| of.contains(kind)).unwrap_or(of);
        let name = if field.starts_with("process_") { field.to_owned() } else { format!("holdline_{field}") };
        let labels = if of.contains("Vec") { labels_of(made, field) } else { Vec::new() };
        (name, kind.to_lowercase(), labels)
    };
    fields.map(metric).collect()
}

fn labels_of(made: &str, field: &str) -> Vec<String> {
    let entry = made.split_once(&format!(" {field}: ")).map_or("", |(_, entry)| entry);
    let list = entry.split_once("&[").and_then(|(_, list)| list.split_once(']')).map_or("", |(list, _)| list);
    list.split(',').map(|label| label.trim().trim_matches('"').to_owned()).filter(|label| !label.is_empty()).collect()
}

/// The rows of the table: `| `name` | type | `label`, `label` | … |`.
fn documented_metrics(document: &str) -> BTreeSet<Metric> {
    let rows = document.lines().filter(|line| line.starts_with("| `"));
    let metric = |row: &str| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let labels = cells.get(2).map_or("", |cell| cell).split(',').map(|label| label.trim().trim_matches('`'));
        let labels = labels.filter(|label| !label.is_empty() && *label != "-").map(str::to_owned).collect();
        (cells[0].trim_matches('`').to_owned(), cells.get(1).map_or("", |cell| cell).to_string(), labels)
    };
    rows.map(metric).collect()
}

mod each_rule_can_fail {
    use super::*;

    #[test]
    fn a_file_without_a_word_about_itself() {
        assert!(opens_with_a_doc("//! Owns things.\n").is_empty());
        assert_eq!(opens_with_a_doc("use std::fs;\n").len(), 1);
        assert_eq!(opens_with_a_doc("// a comment\n").len(), 1);
    }

    #[test]
    fn words_are_found_in_code_and_notes_in_comments() {
        let words = left_over_words();
        for word in words {
            assert_eq!(forbidden(&format!("    let x = {word}"), &words).len(), 1, "{word}");
        }
        assert_eq!(forbidden(&format!("// {}: later", words[3]), &words).len(), 1);
        assert!(forbidden("// a comment may speak of .unwrap()", &[".unwrap()"]).is_empty());
        assert_eq!(forbidden("let x = y.unwrap();", &[".unwrap()"]), ["line 1 holds `.unwrap()`"]);
        let sleeping = SLEEP.map(|call| format!("    {call}(SECOND);\n")).concat();
        assert_eq!(forbidden(&sleeping, &SLEEP).len(), 2);
    }

    #[test]
    fn a_riddle_in_a_comment_and_not_in_a_text() {
        let riddle = RIDDLES[0];
        assert_eq!(riddles(&format!("    /// {}, once\n", RIDDLES[1].to_uppercase())).len(), 1);
        assert_eq!(riddles(&format!("let x = 1; // {riddle} asks")).len(), 1);
        assert!(riddles(&format!("let text = \"{riddle} ws://{riddle}\";")).is_empty());
        assert!(riddles(&format!("fn {riddle}_comes() {{}}")).is_empty());
    }

    #[test]
    fn core_is_caught_with_a_clock_and_not_with_an_operand() {
        for bad in ["use std::time::Instant;", "let now = SystemTime::now();", "use tokio::time;", "rand::random()"] {
            assert_eq!(forbidden(bad, &CORE_FORBIDDEN).len(), 1, "{bad}");
        }
        assert!(forbidden("let operand::Left = side;", &CORE_FORBIDDEN).is_empty());
    }

    #[test]
    fn unit_tests_may_unwrap_and_the_code_above_them_may_not() {
        let file = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() { x.unwrap(); }\n}\n";
        assert!(forbidden(&without_tests(file), &[".unwrap()"]).is_empty());
        assert_eq!(forbidden(file, &[".unwrap()"]).len(), 1);
    }

    #[test]
    fn a_test_that_measures_beside_others() {
        let alone = "\n#[tokio::test]\nasync fn a() {\n    let _alone = alone();\n}\n";
        assert!(crowded(alone).is_empty());
        assert_eq!(crowded(&alone.replace("    let _alone = alone();\n", "")).len(), 1);
    }

    #[test]
    fn a_function_of_71_lines() {
        let function = |lines: usize| {
            format!("    pub(super) async fn f<T>(x: T) {{\n{}    }}\n", "        g();\n".repeat(lines - 2))
        };
        assert!(long_functions(&function(70)).is_empty());
        assert_eq!(long_functions(&function(71)), [("f".to_owned(), 71)]);
        assert!(long_functions("trait T {\n    fn f(&self);\n}\n").is_empty());
    }

    #[test]
    fn a_dependency_without_a_reason() {
        let manifest =
            "[dependencies]\na = \"1\" # needed\nb = { path = \"b\" }\nc = \"2\"\n# d = \"3\"\n\n[lints]\ne = 1\n";
        assert_eq!(unexplained(manifest), ["c has no comment that says why"]);
        let names: Vec<&str> = dependencies(manifest, "[dependencies]").map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "b", "c"]);
    }

    #[test]
    fn a_path_of_one_machine() {
        let home = concat!("/ho", "me/");
        assert_eq!(machine_paths(&format!("see {home}me/notes")).len(), 1);
        assert_eq!(machine_paths(concat!("pip --index", "-url=x")).len(), 1);
        assert!(machine_paths(&format!("https://example.com{home}page")).is_empty());
    }

    #[test]
    fn a_document_that_names_what_is_gone() {
        let text = "Run `scripts/check --quick`, see [docs/a-b.md](docs/a-b.md). Mydocs/x is something else.";
        assert_eq!(named_paths(text), ["docs/a-b.md".to_owned(), "scripts/check".to_owned()].into());
    }

    #[test]
    fn a_metric_that_nobody_wrote_down() {
        let families = "pub struct Families {\n    pub pipes: IntGaugeVec,\n    pub process_threads: IntGauge,\n}\n\
            fn new() {\n    pipes: at.gauges(\n        \"pipes\", \"Live.\", &[\"route\", \"state\"]),\n}";
        let table = "| name | type | labels |\n|---|---|---|\n| `holdline_pipes` | gauge | `route`, `state` | x |\n";
        let exported = exported_metrics(families);
        let documented = documented_metrics(table);
        let missing: Vec<_> = exported.difference(&documented).map(|metric| &metric.0).collect();
        assert_eq!(missing, ["process_threads"]);
        let other_labels = table.replace(", `state`", "");
        assert_eq!(exported.difference(&documented_metrics(&other_labels)).count(), 2);
    }
}
