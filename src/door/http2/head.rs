//! The head of a request of HTTP/2, as the judge takes it: what HTTP/1.1 would say with the same meaning.
//!
//! Frames, pseudo-headers that are missing, doubled or out of place, and headers of a connection are refused by the
//! protocol's library: the stream is reset. Invariant: what goes on names its host once, in `Host`, its length once, and its
//! cookies in one line, as a worker that speaks HTTP/1.1 must have them.

use h2::ext::Protocol;
use http::header::{CONTENT_LENGTH, COOKIE, HOST};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};

use crate::door::judge::Asks;
use crate::handshake::check::{Checked, check, check_connect};
use crate::handshake::refusal::Refusal;

/// Makes of `parts` what the judge takes; and says what is asked for.
pub(super) fn translate(parts: &mut Parts, head_bytes_max: usize) -> Asks {
    let protocol = parts.extensions.remove::<Protocol>();
    join_cookies(&mut parts.headers);
    say_length_once(&mut parts.headers);
    if let Err(refusal) = name_host(parts) {
        return Asks::Nothing(refusal);
    }
    let Some(protocol) = protocol else {
        return match check(parts, head_bytes_max) {
            Checked::Plain => Asks::Answer,
            Checked::Refused(refusal) => Asks::Nothing(refusal),
            Checked::Upgrade(_) => Asks::Nothing(bad("upgrade", "HTTP/2 knows no Upgrade; use an extended CONNECT")),
        };
    };
    match check_connect(parts, protocol.as_str(), head_bytes_max) {
        Ok(protocols) => {
            parts.method = Method::GET;
            Asks::Pipe(protocols)
        }
        Err(refusal) => Asks::Nothing(refusal),
    }
}

fn bad(slug: &'static str, detail: &'static str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, slug, detail)
}

/// Puts the authority into `Host` (RFC 9113 section 8.3.1), and leaves the path.
fn name_host(parts: &mut Parts) -> Result<(), Refusal> {
    let scheme = parts.uri.scheme_str().unwrap_or("https");
    if !matches!(scheme, "https" | "http") {
        return Err(bad("scheme", "the :scheme has to be https"));
    }
    if let Some(authority) = parts.uri.authority() {
        let mut said = parts.headers.get_all(HOST).iter();
        if said.any(|host| !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())) {
            return Err(bad("host", "Host and :authority differ; send one of them"));
        }
        let host = HeaderValue::from_str(authority.as_str());
        parts.headers.insert(HOST, host.map_err(|_| bad("host", "the :authority is no host"))?);
    }
    let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    parts.uri = Uri::from(path);
    Ok(())
}

/// Joins the lines that a client may have split its cookies into (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let lines: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if lines.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
}

/// Leaves one of several lines that say the same length (RFC 9110 section 8.6); others were refused before.
fn say_length_once(headers: &mut HeaderMap) {
    if let Some(length) = headers.get(CONTENT_LENGTH).cloned() {
        headers.insert(CONTENT_LENGTH, length);
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let request = Request::builder().method(method).uri(uri).version(http::Version::HTTP_2);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(()).expect("the request is good").into_parts().0
    }

    fn status(mut parts: Parts) -> u16 {
        match translate(&mut parts, 4096) {
            Asks::Answer => 200,
            Asks::Pipe(_) => 101,
            Asks::Nothing(refusal) => refusal.status.as_u16(),
        }
    }

    #[test]
    fn the_authority_is_the_host_and_the_target_a_path() {
        let mut asked = parts("GET", "https://a.example:81/p?q=1", &[]);
        assert!(matches!(translate(&mut asked, 4096), Asks::Answer));
        assert_eq!((asked.uri.to_string().as_str(), asked.headers[HOST].as_bytes()), ("/p?q=1", &b"a.example:81"[..]));
        for (method, uri, headers, expected) in [
            ("GET", "https://a.example/", &[("host", "A.example")] as &[_], 200),
            ("GET", "https://a.example/", &[("host", "b.example")], 400),
            ("GET", "https://a.example/", &[("host", "a.example"), ("host", "b.example")], 400),
            ("GET", "https://user@a.example/", &[], 400),
            ("GET", "/p", &[("host", "a.example")], 200),
            ("GET", "/p", &[], 400),
            ("GET", "http://a.example/", &[], 200),
            ("GET", "wss://a.example/", &[], 400),
            ("CONNECT", "a.example:443", &[], 405),
            ("TRACE", "https://a.example/", &[], 405),
        ] {
            assert_eq!(status(parts(method, uri, headers)), expected, "{method} {uri} {headers:?}");
        }
    }

    #[test]
    fn an_extended_connect_is_a_handshake() {
        let mut asked = parts(
            "CONNECT",
            "https://a.example/ws",
            &[("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat")],
        );
        asked.extensions.insert(Protocol::from_static("websocket"));
        let Asks::Pipe(protocols) = translate(&mut asked, 4096) else { panic!("it is good") };
        assert_eq!((protocols, asked.method), (vec!["chat".to_owned()], Method::GET));
        for length in ["0", "5"] {
            let headers = [("sec-websocket-version", "13"), ("content-length", length)];
            let mut asked = parts("CONNECT", "https://a.example/ws", &headers);
            asked.extensions.insert(Protocol::from_static("websocket"));
            assert_eq!(status(asked), 400, "a body of {length}");
        }
    }

    #[test]
    fn a_length_is_said_once() {
        let mut asked = parts("POST", "https://a.example/", &[("content-length", "5"), ("content-length", "5")]);
        translate(&mut asked, 4096);
        let lines: Vec<_> = asked.headers.get_all(CONTENT_LENGTH).iter().collect();
        assert_eq!(lines, ["5"]);
    }

    #[test]
    fn cookies_become_one_line() {
        let mut asked = parts("GET", "https://a.example/", &[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]);
        translate(&mut asked, 4096);
        let lines: Vec<_> = asked.headers.get_all(COOKIE).iter().collect();
        assert_eq!(lines, ["a=1; b=2; c=3"]);
    }
}
