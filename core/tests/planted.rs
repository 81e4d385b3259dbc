//! The planted bugs still fit the code that they are planted in; `scripts/planted` shows that each is noticed.
#![allow(clippy::unwrap_used)]

use std::path::Path;

/// The text that each hunk of a patch expects to find, with its context.
fn expected(patch: &str) -> Vec<String> {
    let mut hunks: Vec<String> = Vec::new();
    for line in patch.lines() {
        if line.starts_with("@@") {
            hunks.push(String::new());
        } else if let Some(hunk) = hunks.last_mut()
            && let Some(text) = line.strip_prefix(' ').or_else(|| line.strip_prefix('-'))
        {
            hunk.push_str(text);
            hunk.push('\n');
        }
    }
    hunks
}

#[test]
fn every_planted_bug_fits_the_code_of_today() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let planted = ["core/tests/planted", "tests/planted"].map(|at| std::fs::read_dir(root.join(at)).unwrap());
    let mut bugs = 0;
    for entry in planted.into_iter().flatten() {
        let path = entry.unwrap().path();
        let patch = std::fs::read_to_string(&path).unwrap();
        let file = patch.lines().find_map(|line| line.strip_prefix("--- a/")).unwrap();
        let code = std::fs::read_to_string(root.join(file)).unwrap();
        for hunk in expected(&patch) {
            assert!(code.contains(&hunk), "{} no longer fits {file}; it expects\n{hunk}", path.display());
        }
        bugs += 1;
    }
    assert!(bugs >= 12, "{bugs}");
}
