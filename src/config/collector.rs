//! Where spans go: the address of a collector, parsed once.

use std::fmt;
use std::str::FromStr;

use http::uri::{Authority, PathAndQuery, Uri};

/// What the specification of OTLP puts behind the address of a collector.
const TRACES_PATH: &str = "/v1/traces";

/// Where a collector is: `http://HOST[:PORT][/PATH]`, with `/v1/traces` added unless it is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OtlpEndpoint {
    authority: Authority,
    path: PathAndQuery,
}

impl FromStr for OtlpEndpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WANTED: &str = "is no collector's URL; write it like \"http://127.0.0.1:4318\"";
        if text.starts_with("https://") {
            return Err("https is not spoken to collectors; name one that is near, such as \"http://127.0.0.1:4318\"");
        }
        let uri: Uri = text.parse().map_err(|_| WANTED)?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http")).ok_or(WANTED)?;
        if uri.query().is_some() || authority.as_str().contains('@') {
            return Err(WANTED);
        }
        let base = uri.path().trim_end_matches('/');
        let path = if base.ends_with(TRACES_PATH) { base.to_owned() } else { format!("{base}{TRACES_PATH}") };
        Ok(Self { authority: authority.clone(), path: path.parse().map_err(|_| WANTED)? })
    }
}

impl fmt::Display for OtlpEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

impl OtlpEndpoint {
    /// Name or address to connect to; an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.authority.host().trim_start_matches('[').trim_end_matches(']')
    }

    /// The port to connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or(80)
    }

    /// What stands in a `Host` header.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// The path to post to.
    #[must_use]
    pub fn path(&self) -> &str {
        self.path.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_collector_is_the_specifications() {
        for (text, shown) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://tempo/otlp/", "http://tempo/otlp/v1/traces"),
            ("http://[::1]:4318/v1/traces", "http://[::1]:4318/v1/traces"),
        ] {
            let endpoint: OtlpEndpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), shown);
            assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
        }
        for bad in ["", "127.0.0.1:4318", "https://x", "http://", "http://u:p@x", "http://x/?a=b", "ftp://x"] {
            assert!(bad.parse::<OtlpEndpoint>().is_err(), "{bad}");
        }
    }
}
