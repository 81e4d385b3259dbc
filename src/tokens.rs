//! Tokens and roles of the admin API: who may do what.
//!
//! The tokens file holds digests, never tokens. One token a line, `#` begins a comment:
//!
//! ```text
//! # role    sha256 of the token, in hex                                       name, for the audit log
//! operator  9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08  alice
//! worker    60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752  racks
//! ```
//!
//! `printf %s "$TOKEN" | sha256sum` prints a digest. Roles are separate jobs, not steps of a ladder, except that the
//! operator may do everything: a `viewer` reads, a `worker` registers backends and renews their leases.

use std::path::Path;

use http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What a token may be used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Registers backends, renews their leases, takes them back.
    Worker,
    /// Everything.
    Operator,
}

impl Role {
    /// Its name in the tokens file and in the audit log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Worker => "worker",
            Self::Operator => "operator",
        }
    }
}

/// Who may use an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Every caller, without a token.
    Open,
    /// Viewers and operators.
    Viewer,
    /// Workers and operators.
    Worker,
    /// Operators.
    Operator,
}

impl Access {
    /// Whether `role` is enough.
    #[must_use]
    pub const fn allows(self, role: Role) -> bool {
        match (self, role) {
            (Self::Open, _) | (_, Role::Operator) | (Self::Viewer, Role::Viewer) | (Self::Worker, Role::Worker) => true,
            (Self::Viewer, Role::Worker)
            | (Self::Worker, Role::Viewer)
            | (Self::Operator, Role::Viewer | Role::Worker) => false,
        }
    }
}

/// Who a request comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// The name beside the token, or `anonymous` where no tokens are set.
    pub name: String,
    /// What it may do.
    pub role: Role,
}

/// The digests of a tokens file.
#[derive(Default)]
pub struct Tokens(Vec<Entry>);

struct Entry {
    digest: [u8; 32],
    caller: Caller,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokens({})", self.0.len())
    }
}

/// A tokens file that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// It can't be read.
    #[error("the tokens file {path} can't be read: {source}")]
    Unreadable {
        /// The path as configured.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A line of it is wrong.
    #[error("the tokens file, line {line}: {message}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong; the line itself is not quoted.
        message: &'static str,
    },
    /// It has no token at all, so that no caller could ever get in.
    #[error("the tokens file has no token; add a line such as \"operator SHA256 NAME\"")]
    Empty,
}

impl Tokens {
    /// Reads a tokens file.
    ///
    /// # Errors
    /// [`TokensError`] if it can't be read or a line is wrong.
    pub fn load(path: &Path) -> Result<Self, TokensError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| TokensError::Unreadable { path: path.display().to_string(), source })?;
        Self::parse(&text)
    }

    /// Parses the text of a tokens file.
    ///
    /// # Errors
    /// [`TokensError`] if a line is wrong or there is no token.
    pub fn parse(text: &str) -> Result<Self, TokensError> {
        let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.split('#').next().unwrap_or("")));
        let entries = lines
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(line, text)| parse_line(text).map_err(|message| TokensError::Line { line, message }))
            .collect::<Result<Vec<_>, _>>()?;
        if entries.is_empty() {
            return Err(TokensError::Empty);
        }
        Ok(Self(entries))
    }

    /// Who presents the token in these headers; `None` if there is none or it is not known.
    #[must_use]
    pub fn caller(&self, headers: &HeaderMap) -> Option<Caller> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let (value, None) = (values.next()?, values.next()) else {
            return None;
        };
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let digest: [u8; 32] = Sha256::digest(token.trim().as_bytes()).into();
        // Every entry is compared, whichever matches, so that the time tells nothing about the list.
        let mut found = None;
        for entry in &self.0 {
            if bool::from(entry.digest.ct_eq(&digest)) {
                found = Some(entry.caller.clone());
            }
        }
        found
    }
}

fn parse_line(line: &str) -> Result<Entry, &'static str> {
    let mut words = line.split_whitespace();
    let role = match words.next() {
        Some("viewer") => Role::Viewer,
        Some("worker") => Role::Worker,
        Some("operator") => Role::Operator,
        Some(_) | None => return Err("the role must be viewer, worker or operator"),
    };
    let digest = words.next().and_then(parse_digest).ok_or("the digest must be 64 hexadecimal digits")?;
    let name = words.next().unwrap_or(role.as_str()).to_owned();
    if words.next().is_some() {
        return Err("there is something after the name");
    }
    Ok(Entry { digest, caller: Caller { name, role } })
}

fn parse_digest(hex: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# ours\n\nviewer 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 eve # test\n\
                        worker 60303AE22B998861BCE3B28F33EEC1BE758A213C86C93C076DBE9F558C11C752\n";

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (header::AUTHORIZATION, value.parse().unwrap())).collect()
    }

    #[test]
    fn a_token_is_known_by_its_digest() {
        let tokens = Tokens::parse(FILE).unwrap();
        let eve = Caller { name: "eve".into(), role: Role::Viewer };
        assert_eq!(tokens.caller(&headers(&["Bearer test"])), Some(eve));
        assert_eq!(tokens.caller(&headers(&["bearer test2"])).unwrap().role, Role::Worker);
        for wrong in [&[][..], &["Bearer no"], &["Basic test"], &["test"], &["Bearer test", "Bearer test"]] {
            assert_eq!(tokens.caller(&headers(wrong)), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_wrong_line_is_named_and_not_quoted() {
        let digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        for line in ["root abc", "viewer abc", "viewer", &format!("viewer {digest} a b"), &format!("admin {digest}")] {
            let error = Tokens::parse(&format!("# one\n{line}\n")).unwrap_err().to_string();
            assert!(error.contains("line 2:") && !error.contains("abc"), "{error}");
        }
        assert!(matches!(Tokens::parse("# nobody\n"), Err(TokensError::Empty)));
    }

    #[test]
    fn roles_are_separate_jobs_under_the_operator() {
        for (access, viewer, worker) in [
            (Access::Open, true, true),
            (Access::Viewer, true, false),
            (Access::Worker, false, true),
            (Access::Operator, false, false),
        ] {
            assert_eq!(access.allows(Role::Viewer), viewer);
            assert_eq!(access.allows(Role::Worker), worker);
            assert!(access.allows(Role::Operator));
        }
    }
}
