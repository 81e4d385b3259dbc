//! The address of a server that is asked: `http://`, `https://` or a socket file, and a path.
//!
//! It is read as strictly as the address of a worker, by the same rules: no credentials, no fragment, no host that only
//! looks like an address.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use http::uri::PathAndQuery;

use crate::net::{BackendUrl, UrlError};

/// Where a server is; `Display` and `Debug` hide the query.
#[derive(Clone, PartialEq, Eq)]
pub struct CalloutUrl {
    as_written: String,
    backend: BackendUrl,
    path: PathAndQuery,
}

impl CalloutUrl {
    /// The same as the address of a worker.
    #[must_use]
    pub fn backend(&self) -> &BackendUrl {
        &self.backend
    }

    /// What is asked for there.
    #[must_use]
    pub fn path_and_query(&self) -> Uri {
        Uri::from(self.path.clone())
    }
}

impl FromStr for CalloutUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const WANTED: &str = "write a URL such as \"http://127.0.0.1:4000/path\", \"https://auth.internal/path\" or \
                              \"unix:/run/auth.sock:/path\"";
        let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
        let as_worker = if lower.starts_with("http://") {
            format!("ws{}", &text[4..])
        } else if lower == "https://" {
            format!("wss{}", &text[5..])
        } else if lower.starts_with("unix:") {
            text.to_owned()
        } else {
            return Err(WANTED.to_owned());
        };
        let backend: BackendUrl = as_worker.parse().map_err(|error| match error {
            UrlError::Scheme => WANTED.to_owned(),
            error => error.to_string(),
        })?;
        let path = match backend.path_and_query() {
            None => "/".to_owned(),
            Some(query) if query.starts_with('?') => format!("/{query}"),
            Some(path) => path.to_owned(),
        };
        let path = path.parse().map_err(|_| WANTED.to_owned())?;
        Ok(Self { as_written: text.to_owned(), backend, path })
    }
}

impl fmt::Display for CalloutUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_written.split_once('?') {
            Some((shown, _)) => write!(f, "{shown}?***"),
            None => f.write_str(&self.as_written),
        }
    }
}

impl fmt::Debug for CalloutUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CalloutUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_http_or_https_or_a_socket_file_and_shows_no_query() {
        for (text, origin, path) in [
            ("http://127.0.0.1:4000/check?a=b", "http://127.0.0.1:4000", "/check?a=b"),
            ("HTTPS://Auth.internal", "https://auth.internal", "/"),
            ("unix:/run/auth.sock:/check", "unix:/run/auth.sock", "/check"),
            ("http://a?x=1", "http://a", "/?x=1"),
        ] {
            let url: CalloutUrl = text.parse().unwrap();
            assert_eq!((url.backend().origin().as_str(), url.path_and_query().to_string().as_str()), (origin, path));
            assert!(!url.to_string().contains("a=b") && !format!("{url:?}").contains("a=b"), "{url}");
        }
    }

    #[test]
    fn what_could_mislead_is_refused() {
        for text in
            ["", "ftp://a", "ws://a", "127.0.0.1:80", "http://u:p@a", "http://a/#x", "http://127.1", "http:/a", "é"]
        {
            assert!(text.parse::<CalloutUrl>().is_err(), "{text}");
        }
    }
}
