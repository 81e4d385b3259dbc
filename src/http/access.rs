//! The access log: one line for each answer of the public listener, among the other log lines, if `log.access` wants it.
//!
//! Refuses queries, which carry tokens, and every byte that could end a line or a quoted field. Written when the answer
//! has left, so that its length and its time are known.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use http::header::{REFERER, USER_AGENT};
use http::{HeaderMap, HeaderName, Request, Version};

use crate::config::AccessLog;

/// Longest text of a client in a line.
const TEXT_BYTES_MAX: usize = 1024;

/// What one line says of a request.
#[derive(Debug)]
pub struct Access {
    form: Form,
    /// Where the client is.
    pub(super) client: IpAddr,
    method: String,
    path: String,
    version: &'static str,
    referer: String,
    agent: String,
    began: jiff::Timestamp,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    Combined,
    Json,
}

impl Access {
    /// What is said of `request`, if anything is.
    #[must_use]
    pub fn of<B>(request: &Request<B>, peer: IpAddr, log: AccessLog) -> Option<Box<Self>> {
        let form = match log {
            AccessLog::Off => return None,
            AccessLog::Combined => Form::Combined,
            AccessLog::Json => Form::Json,
        };
        Some(Box::new(Self {
            form,
            client: peer,
            method: clip(request.method().as_str()),
            path: clip(request.uri().path()),
            version: match request.version() {
                Version::HTTP_10 => "HTTP/1.0",
                Version::HTTP_2 => "HTTP/2.0",
                _ => "HTTP/1.1",
            },
            referer: text(request.headers(), REFERER),
            agent: text(request.headers(), USER_AGENT),
            began: jiff::Timestamp::now(),
        }))
    }

    /// Writes the line.
    pub(super) fn say(&self, status: u16, bytes: u64, took: Duration, route: Option<&str>) {
        let line = match self.form {
            Form::Combined => self.combined(status, bytes),
            Form::Json => self.json(status, bytes, took, route),
        };
        crate::log::write_line(&line);
    }

    /// As Apache and nginx write it; the place of a user is always empty.
    fn combined(&self, status: u16, bytes: u64) -> String {
        let Self { client, version, .. } = self;
        let (method, path, referer, agent) =
            (quotable(&self.method), quotable(&self.path), quotable(&self.referer), quotable(&self.agent));
        let when = self.began.strftime("%d/%b/%Y:%H:%M:%S +0000");
        format!("{client} - - [{when}] \"{method} {path} {version}\" {status} {bytes} \"{referer}\" \"{agent}\"")
    }

    fn json(&self, status: u16, bytes: u64, took: Duration, route: Option<&str>) -> String {
        serde_json::json!({
            "timestamp": format!("{:.6}", self.began),
            "level": "INFO",
            "message": "request",
            "target": "access",
            "client": self.client.to_string(),
            "method": self.method,
            "path": self.path,
            "version": self.version,
            "route": route,
            "status": status,
            "bytes": bytes,
            "seconds": took.as_secs_f64(),
            "referer": self.referer,
            "user_agent": self.agent,
        })
        .to_string()
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> String {
    headers.get(name).map_or_else(|| "-".to_owned(), |value| clip(&String::from_utf8_lossy(value.as_bytes())))
}

fn clip(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}

/// `text` without what could end a line or a quoted field.
fn quotable(text: &str) -> String {
    let mut quotable = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '"' || c == '\\' || !(c.is_ascii_graphic() || c == ' ') {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                // Writing to a string cannot fail.
                let _ = write!(quotable, "\\x{byte:02x}");
            }
        } else {
            quotable.push(c);
        }
    }
    quotable
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(log: AccessLog) -> Box<Access> {
        let request = Request::builder()
            .method("POST")
            .uri("/a/b?token=secret")
            .header("user-agent", "x\" 200 \"y\u{9b}\t")
            .header("referer", "https://app.example/")
            .body(())
            .unwrap();
        let mut access = Access::of(&request, "192.0.2.7".parse().unwrap(), log).unwrap();
        access.began = "2026-11-29T12:00:01Z".parse().unwrap();
        access
    }

    #[test]
    fn a_combined_line_is_one_line_with_nine_fields() {
        let line = access(AccessLog::Combined).combined(201, 42);
        assert_eq!(
            line,
            "192.0.2.7 - - [29/Nov/2026:12:00:01 +0000] \"POST /a/b HTTP/1.1\" 201 42 \"https://app.example/\" \
             \"x\\x22 200 \\x22y\\xc2\\x9b\\x09\""
        );
    }

    #[test]
    fn a_json_line_says_the_route_and_the_seconds_and_never_the_query() {
        let line = access(AccessLog::Json).json(201, 42, Duration::from_millis(1500), Some("api"));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&value["route"], &value["seconds"], &value["bytes"]), (&"api".into(), &1.5.into(), &42.into()));
        assert!(!line.contains("secret") && line.lines().count() == 1, "{line}");
    }

    #[test]
    fn nothing_is_said_unless_it_is_wanted_and_long_texts_are_clipped() {
        let request = Request::builder().uri("/x").header("user-agent", "ä".repeat(4000)).body(()).unwrap();
        assert!(Access::of(&request, "::1".parse().unwrap(), AccessLog::Off).is_none());
        let access = Access::of(&request, "::1".parse().unwrap(), AccessLog::Json).unwrap();
        assert!(access.agent.len() <= TEXT_BYTES_MAX);
    }
}
