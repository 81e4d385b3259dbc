//! Whether the tests and metrics that `docs/security.md` names exist.

use super::{read, rust_files};

/// The words of the page in backquotes, up to where a label or a pattern begins.
fn named(page: &str) -> Vec<&str> {
    let quoted = page.split('`').skip(1).step_by(2);
    quoted.map(|word| word.split(['{', '*', ' ']).next().unwrap_or_default()).collect()
}

fn is_test_name(word: &str) -> bool {
    let plain = word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    plain && word.matches('_').count() > 3 && !word.starts_with("holdline_")
}

#[test]
fn each_test_and_metric_of_the_security_page_exists() {
    let page = read("docs/security.md");
    let words = named(&page);
    let code: String = rust_files().into_iter().map(|file| file.text).collect();
    let tests: Vec<_> = words.iter().filter(|word| is_test_name(word)).collect();
    assert!(tests.len() > 30, "the tests are no longer found where this test looks: {tests:?}");
    let missing: Vec<_> = tests.into_iter().filter(|name| !code.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
    let metrics = read("docs/metrics.md");
    let unknown: Vec<_> = words.iter().filter(|word| word.starts_with("holdline_")).collect();
    let unknown: Vec<_> = unknown.into_iter().filter(|name| !metrics.contains(&format!("`{name}`"))).collect();
    assert!(unknown.is_empty(), "no such metrics: {unknown:?}");
}
