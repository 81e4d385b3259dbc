//! Which module of `src/` may know which: each imports only what stands before it in [`LAYERS`].
//!
//! So there is no cycle, and no lower layer knows a higher one. Unit tests may look up: they need a configuration or a
//! backend to test with.

use std::collections::BTreeSet;

use super::{Source, is_test, read, rust_files};

/// The modules of `src/lib.rs`, from the lowest layer to the highest; within a layer as well, each module knows only
/// those before it.
const LAYERS: [(&str, &[&str]); 9] = [
    (
        "small words that every layer uses",
        &["blame", "clock", "hops", "phase", "send_timeout", "stop_signals", "unix_user", "whole_file"],
    ),
    ("connections, and what a request path means", &["net", "callout", "routes"]),
    ("what an operator decides", &["resume", "secret", "config", "tokens", "tls", "log", "level"]),
    ("the workers, and what is told about everything", &["backends", "metrics", "trace", "events", "hooks", "workers"]),
    ("HTTP on both sides", &["handshake", "waiting", "http", "rules"]),
    (
        "what is live, and its bounds",
        &["pipes", "clients", "fallback", "share", "limits", "memory", "rebalance", "upgrade"],
    ),
    ("one bag of services, and what uses them for clients", &["process", "pipe", "door", "dialin"]),
    ("the life of the process, and who steers it", &["reload", "admin", "activation", "notify", "handover", "serve"]),
    ("the command line", &["ctl", "run", "agent", "worker", "demo", "cli"]),
];

#[test]
fn no_module_knows_a_higher_layer() {
    let found: BTreeSet<(String, String)> = rust_files().iter().flat_map(|file| upward(file, &order())).collect();
    assert!(found.is_empty(), "imports from a lower layer to a higher one, see LAYERS: {found:?}");
}

#[test]
fn every_module_has_a_layer() {
    let lib = read("src/lib.rs");
    let modules = lib.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod")?.strip_suffix(';'));
    let modules: BTreeSet<&str> = modules.map(str::trim).collect();
    assert!(modules.len() > 20, "the modules are no longer found where this test looks");
    assert_eq!(modules, order().into_iter().collect(), "src/lib.rs and LAYERS differ");
}

fn order() -> Vec<&'static str> {
    LAYERS.iter().flat_map(|(_, modules)| *modules).copied().collect()
}

/// The imports of one file that stand behind its own module in `order`.
fn upward(file: &Source, order: &[&str]) -> Vec<(String, String)> {
    let Some(path) = module_path(&file.path) else { return Vec::new() };
    let place = |name: &str| order.iter().position(|known| *known == name);
    let Some(own) = place(path[0]) else { return Vec::new() };
    let imports = imports(&shipped(&file.text), path.len());
    let above = imports.into_iter().filter(|name| place(name).is_some_and(|at| at > own));
    above.map(|name| (file.path.clone(), name)).collect()
}

/// The names of the modules that lead to a file of the library; none for tests and for what is not in the library.
fn module_path(path: &str) -> Option<Vec<&str>> {
    let inside = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    let modules = inside.strip_suffix("/mod").unwrap_or(inside);
    (!is_test(path) && !["lib", "main"].contains(&modules)).then(|| modules.split('/').collect())
}

/// A file's code without comments and without its unit tests, which stand last.
fn shipped(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let code = text[..end].lines().filter(|line| !line.trim_start().starts_with("//"));
    code.collect::<Vec<_>>().join("\n")
}

/// The top-level modules that code names, as `crate::NAME`, in a `crate::{…}`, or by as many `super::` as lead from a
/// file that is `depth` modules deep to the root.
fn imports(code: &str, depth: usize) -> BTreeSet<String> {
    let root = "super::".repeat(depth);
    let from_crate = code.match_indices("crate::").map(|(at, word)| at + word.len());
    let from_super = code
        .match_indices(&root)
        .filter(|(at, _)| !code[..*at].ends_with("super::") && !code[..*at].ends_with(char::is_alphanumeric))
        .map(|(at, word)| at + word.len());
    from_crate.chain(from_super).flat_map(|at| first_names(&code[at..])).collect()
}

/// The first names of what is imported: one, or those of a group in braces.
fn first_names(path: &str) -> Vec<String> {
    let name = |path: &str| path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let (mut depth, mut begins, mut names) = (0_i32, true, Vec::new());
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            _ if begins && letter.is_alphabetic() => {
                names.push(name(&group[at..]));
                begins = false;
            }
            _ => {}
        }
    }
    names
}

mod can_fail {
    use super::*;

    const ORDER: [&str; 3] = ["low", "middle", "high"];

    fn upward_of(path: &str, text: &str) -> Vec<String> {
        let file = Source { path: path.to_owned(), text: text.to_owned() };
        upward(&file, &ORDER).into_iter().map(|(_, name)| name).collect()
    }

    #[test]
    fn a_lower_module_that_knows_a_higher_one_is_found_however_it_says_so() {
        for text in [
            "use crate::high::Thing;\n",
            "use crate::{low::A, high::{B, C}};\n",
            "fn f() { crate::high::g() }\n",
            "use super::super::high;\n",
        ] {
            assert_eq!(upward_of("src/middle/part.rs", text), ["high"], "{text}");
        }
        assert_eq!(upward_of("src/low.rs", "use super::middle::A;\n"), ["middle"]);
        assert_eq!(upward_of("src/low/mod.rs", "use super::middle::A;\n"), ["middle"]);
    }

    #[test]
    fn a_module_may_know_itself_and_what_is_below_and_its_tests_may_know_all() {
        for text in [
            "use crate::{low, middle::{self, high}};\n",
            "use super::high::A;\n",
            "use super::super::super::high::A;\n",
            "// see crate::high\n",
            "fn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::high::A;\n}\n",
        ] {
            assert_eq!(upward_of("src/middle/part.rs", text), [""; 0], "{text}");
        }
        for path in ["src/low/tests.rs", "src/low/tests/part.rs", "src/main.rs", "core/src/low.rs"] {
            assert_eq!(upward_of(path, "use crate::high::A;\n"), [""; 0], "{path}");
        }
    }
}
