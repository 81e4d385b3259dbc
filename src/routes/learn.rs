//! Where workers' answers name keys that they have made up.

use super::path::Spelled;

/// One path whose answers name a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LearnRule {
    /// The path, exactly.
    pub path: String,
    /// Where in the JSON of the answer the key stands (RFC 6901).
    pub json: String,
}

impl LearnRule {
    /// The rule with its path in the one spelling in which paths are compared.
    pub(super) fn checked(self) -> Result<Self, String> {
        let Self { path, json } = self;
        if !path.starts_with('/') || path.contains(['{', '}', '?', '#']) {
            return Err(format!(
                "`{path}` is no plain path; write one such as \"/api/kernels\", without parameters and query"
            ));
        }
        if !json.starts_with('/') || has_bad_escape(&json) {
            return Err(format!(
                "`{json}` is no JSON pointer (RFC 6901); write one such as \"/id\" or \"/value/sessionId\""
            ));
        }
        Ok(Self { path: Spelled::new(&path).as_str().to_owned(), json })
    }
}

/// Whether a `~` stands for nothing.
fn has_bad_escape(pointer: &str) -> bool {
    pointer.split('~').skip(1).any(|rest| !rest.starts_with(['0', '1']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_has_a_plain_path_and_a_json_pointer() {
        let rule = |path: &str, json: &str| LearnRule { path: path.into(), json: json.into() }.checked();
        assert!(rule("/api/kernels", "/id").is_ok() && rule("/session", "/value/session~1Id").is_ok());
        for (path, json) in
            [("api", "/id"), ("/a/{b}", "/id"), ("/a?b", "/id"), ("/a", "id"), ("/a", ""), ("/a", "/~2")]
        {
            assert!(rule(path, json).is_err(), "{path} {json}");
        }
    }
}
