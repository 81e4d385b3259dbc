//! Origins (RFC 6454), compared by scheme, host and port and nothing else, and what a route says of them.

/// A tuple origin; the opaque origin `null` is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    scheme: String,
    host: String,
    /// `None` for the scheme's default, or a scheme without one.
    port: Option<u16>,
}

/// One entry of `routes.origins`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OriginPattern {
    /// This one.
    Exact(Origin),
    /// Every host with one label in front of `suffix`, which begins with its dot.
    OneLabel { scheme: String, suffix: String, port: Option<u16> },
    /// `null`: a page in a sandboxed frame, from a file, or behind a redirect.
    Null,
    /// `file://`, as some embedded browsers call a page from a file.
    File,
}

/// What such browsers send.
const FILE: &str = "file://";
const NULL: &str = "null";

impl OriginPattern {
    /// Parses one entry, in any case.
    pub fn from_config(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        match lower.as_str() {
            NULL => return Ok(Self::Null),
            FILE => return Ok(Self::File),
            _ => {}
        }
        let Some((scheme, rest)) = lower.split_once("://*.") else {
            return Origin::parse(&lower).map(Self::Exact).map_err(|why| format!("`{text}` {why}"));
        };
        let below = Origin::parse(&format!("{scheme}://{rest}")).map_err(|why| format!("`{text}` {why}"))?;
        if below.host.starts_with('[') || !below.host.contains('.') {
            return Err(format!("`{text}` must have a domain of at least two labels behind its `*.`"));
        }
        Ok(Self::OneLabel { scheme: below.scheme, suffix: format!(".{}", below.host), port: below.port })
    }

    /// Whether a browser that sends `text` may connect.
    pub fn allows(&self, text: &str) -> bool {
        match self {
            Self::Exact(origin) => Origin::parse(text).is_ok_and(|sent| sent == *origin),
            Self::OneLabel { scheme, suffix, port } => Origin::parse(text).is_ok_and(|sent| {
                let label = sent.host.strip_suffix(suffix.as_str());
                let is_one = label.is_some_and(|label| !label.is_empty() && !label.contains('.'));
                is_one && sent.scheme == *scheme && sent.port == *port
            }),
            Self::Null => text == NULL,
            Self::File => text == FILE,
        }
    }
}

impl Origin {
    /// Parses an origin as a browser serializes it: lower case, no userinfo, no path, not even a trailing slash.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text.split_once("://").ok_or("must look like `https://app.example.com`")?;
        let scheme_byte =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.');
        if !scheme.starts_with(|c: char| c.is_ascii_lowercase()) || !scheme.bytes().all(scheme_byte) {
            return Err("must start with a scheme in lower case");
        }
        let colon = rest.rfind(':').filter(|&colon| !rest[colon..].contains(']'));
        let (host, port) = match colon {
            Some(colon) => (&rest[..colon], Some(parse_port(&rest[colon + 1..])?)),
            None => (rest, None),
        };
        let literal = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
        let name_byte =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_');
        let literal_byte = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
        let inner_good =
            if literal { host[1..host.len() - 1].bytes().all(literal_byte) } else { host.bytes().all(name_byte) };
        if host.is_empty() || host.ends_with('.') || !inner_good {
            return Err("must have a plain host: no user, path, trailing slash or trailing dot");
        }
        let default = match scheme {
            "http" | "ws" => Some(80),
            "https" | "wss" => Some(443),
            _ => None,
        };
        Ok(Self { scheme: scheme.to_owned(), host: host.to_owned(), port: port.filter(|_| port != default) })
    }
}

fn parse_port(text: &str) -> Result<u16, &'static str> {
    let digits = !text.is_empty() && !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or("must have a port from 1 to 65535")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_port_is_the_same_as_none() {
        assert_eq!(Origin::parse("https://a.example:443"), Origin::parse("https://a.example"));
        assert_eq!(Origin::parse("http://a.example:80"), Origin::parse("http://a.example"));
        assert_ne!(Origin::parse("http://a.example:443"), Origin::parse("http://a.example"));
        assert_ne!(Origin::parse("https://a.example:80"), Origin::parse("http://a.example"));
    }

    #[test]
    fn only_a_browsers_serialization_parses() {
        for good in [
            "https://a.example",
            "http://127.0.0.1:3000",
            "http://[::1]:3000",
            "chrome-extension://abc",
            "http://localhost",
        ] {
            assert!(Origin::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "null",
            "",
            "https://",
            "a.example",
            "https:a.example",
            "https://a.example/",
            "https://a.example/x",
            "https://a.example.",
            "https://a.example.:443",
            "https://u@a.example",
            "https://u:p@a.example",
            "https://A.example",
            "HTTPS://a.example",
            "https://a.example:",
            "https://a.example:0",
            "https://a.example:0443",
            "https://a.example:65536",
            "https://a.example:+443",
            "https://a.example https://b.example",
            "https://a.example,https://b.example",
            "https://a.example?x",
            "https://a.example#x",
            "https://[::1",
            "https://[]",
            "://a",
            "https://a.example\\b",
            " https://a.example",
        ] {
            assert!(Origin::parse(bad).is_err(), "{bad}");
        }
    }
}
