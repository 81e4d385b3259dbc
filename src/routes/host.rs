//! Host patterns of a route: `app.example.com` or `*.example.com`.

use std::borrow::Cow;

/// A host that a route answers for, in lower case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HostPattern {
    /// This host.
    Exact(String),
    /// Every host below this suffix, which starts with its dot; not the bare domain itself.
    Suffix(String),
}

impl HostPattern {
    /// Parses one entry of `routes.hosts`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let name = lower.strip_prefix("*.").unwrap_or(&lower);
        let literal = name.starts_with('[') && name.ends_with(']');
        if !literal && name.contains(':') {
            return Err(format!("`{text}` must be a host without scheme and port"));
        }
        let known = |c: char| {
            c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') || (literal && matches!(c, '[' | ']' | ':'))
        };
        if name.is_empty() || name.starts_with('.') || name.ends_with('.') || !name.chars().all(known) {
            return Err(format!("`{text}` must be a host name such as `app.example.com` or `*.example.com`"));
        }
        Ok(if lower.len() == name.len() { Self::Exact(lower) } else { Self::Suffix(lower[1..].to_owned()) })
    }
}

impl HostPattern {
    /// A host that fits.
    pub fn sample(&self) -> String {
        match self {
            Self::Exact(name) => name.clone(),
            Self::Suffix(suffix) => format!("x{suffix}"),
        }
    }
}

/// A request's host as patterns see it: lower case, without port and trailing dot.
pub fn normalize(host: &str) -> Cow<'_, str> {
    let end = match host.rfind(':') {
        Some(colon) if !host[colon..].contains(']') => colon,
        Some(_) | None => host.len(),
    };
    let name = host[..end].strip_suffix('.').unwrap_or(&host[..end]);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// Whether `host` ends in `suffix` with at least one label before it.
pub fn is_below(host: &str, suffix: &str) -> bool {
    host.len() > suffix.len() && host.ends_with(suffix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_host_loses_port_case_and_trailing_dot() {
        for (sent, seen) in [
            ("App.Example.com:8443", "app.example.com"),
            ("app.example.com.", "app.example.com"),
            ("app.example.com.:80", "app.example.com"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("127.0.0.1:9", "127.0.0.1"),
        ] {
            assert_eq!(normalize(sent), seen, "{sent}");
        }
    }

    #[test]
    fn a_pattern_is_a_host_or_everything_below_one() {
        assert_eq!(HostPattern::parse("App.example.com"), Ok(HostPattern::Exact("app.example.com".into())));
        assert_eq!(HostPattern::parse("*.example.com"), Ok(HostPattern::Suffix(".example.com".into())));
        assert_eq!(HostPattern::parse("[::1]"), Ok(HostPattern::Exact("[::1]".into())));
        for bad in ["", "*", "*.", "a:80", "http://a", "a/b", "a.*.b", ".a", "a.", "a b"] {
            assert!(HostPattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_suffix_needs_a_label_before_it() {
        assert!(is_below("a.example.com", ".example.com"));
        assert!(is_below("a.b.example.com", ".example.com"));
        assert!(!is_below("example.com", ".example.com"));
        assert!(!is_below(".example.com", ".example.com"));
        assert!(!is_below("badexample.com", ".example.com"));
    }
}
