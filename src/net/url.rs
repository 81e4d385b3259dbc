//! The address of a backend, parsed once: scheme, host and port or a socket file, and the path if it has one of its own.
//!
//! A URL that leaves something to guess or could mislead is refused: other schemes, credentials, fragments, ports that
//! cannot be listened on, hosts that only look like addresses, and bytes that don't belong in a request line.
//!
//! `unix:/run/w.sock` is a socket file, and `unix:/run/w.sock:/ws` one with a path of its own, as nginx writes it. What
//! nginx, Node and Docker write in front (`ws+unix:`, `unix://`) means the same. HTTP on it is never encrypted.
//!
//! `attach:w1` is the worker that dials in under the id `w1`: its connections are those that it has parked with us.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Longest URL of a backend, in bytes.
pub const URL_BYTES_MAX: usize = 2048;

/// Longest path of a socket file, in bytes: `sun_path` of Linux without its NUL.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The scheme of workers that dial in.
const ATTACH: &str = "attach:";

/// Longest id behind it, in bytes.
const ATTACH_ID_BYTES_MAX: usize = 64;

/// What a `Host` header says where there is no host.
const NO_HOST: &str = "localhost";

/// Where a backend listens; two are equal if they lead to the same place. `Display` and `Debug` hide the query.
#[derive(Clone)]
pub struct BackendUrl {
    as_written: String,
    tls: bool,
    host: Host,
    port: u16,
    path_and_query: Option<String>,
}

/// A name to be resolved at each dial, an address, or a socket file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Host {
    /// Lower case.
    Name(String),
    /// As written.
    Address(IpAddr),
    /// A socket file, by its absolute path.
    Socket(PathBuf),
    /// The connections that the worker of this id has parked.
    Parked(String),
}

impl Host {
    /// The addresses that are known without asking a resolver: an address, and those that `localhost` means (RFC 6761
    /// section 6.3).
    #[must_use]
    pub fn known_addresses(&self) -> Vec<IpAddr> {
        match self {
            Self::Address(address) => vec![*address],
            Self::Name(name) => match name.strip_suffix('.').unwrap_or(name).rsplit('.').next() {
                Some("localhost") => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
                Some(_) | None => Vec::new(),
            },
            Self::Socket(_) | Self::Parked(_) => Vec::new(),
        }
    }
}

/// What is wrong with a URL, said so that it can be mended.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UrlError {
    /// More than `URL_BYTES_MAX`.
    #[error("the URL is longer than {URL_BYTES_MAX} bytes")]
    TooLong,
    /// Neither `ws` nor `wss`, nor a socket file.
    #[error(
        "the URL of a backend begins with \"ws://\", \"wss://\" or \"unix:/\", as in \"ws://127.0.0.1:9001\" or \"unix:/run/w.sock\""
    )]
    Scheme,
    /// `unix:` without an absolute path.
    #[error("write the absolute path of a socket file after \"unix:\", as in \"unix:/run/w.sock\"")]
    SocketPath,
    /// More than `SOCKET_PATH_BYTES_MAX`.
    #[error("the path of a socket file has {0} bytes; the system takes {SOCKET_PATH_BYTES_MAX} at most")]
    SocketPathTooLong(usize),
    /// A byte that is more likely a mistake than part of a file's name.
    #[error(
        "the path of a socket file holds \"?\", \"#\" or a control character; a path of the request stands behind a colon, as in \"unix:/run/w.sock:/ws?a=b\""
    )]
    SocketLetter,
    /// `user:password@`.
    #[error("a backend URL has no user and password; remove what stands before \"@\"")]
    UserInfo,
    /// `#…`.
    #[error("a backend URL has no fragment; remove \"#\" and what follows")]
    Fragment,
    /// No host, or not one.
    #[error("\"{0}\" is not a host; write a name, an IPv4 address or an IPv6 address in brackets")]
    Host(String),
    /// No id behind `attach:`.
    #[error(
        "behind attach: stands the id of the worker that dials in: 1 to {ATTACH_ID_BYTES_MAX} letters, digits, dots, dashes and underscores"
    )]
    Attach,
    /// Not a port.
    #[error("the port must be a number from 1 to 65535")]
    Port,
    /// A byte that a request line can't carry.
    #[error("the path holds a space, a control character or a letter outside ASCII; percent-encode it")]
    Path,
}

impl BackendUrl {
    /// Where the worker is that dials in under the id `id`.
    ///
    /// # Errors
    /// It is no id.
    pub fn attach(id: &str) -> Result<Self, UrlError> {
        let is_id = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if id.is_empty() || id.len() > ATTACH_ID_BYTES_MAX || !id.bytes().all(is_id) {
            return Err(UrlError::Attach);
        }
        let (as_written, host) = (format!("{ATTACH}{id}"), Host::Parked(id.to_owned()));
        Ok(Self { as_written, tls: false, host, port: 0, path_and_query: None })
    }

    /// The id under which its worker dials in, if it does.
    #[must_use]
    pub fn attach_id(&self) -> Option<&str> {
        let Host::Parked(id) = &self.host else { return None };
        Some(id)
    }

    /// Whether it is `wss`.
    #[must_use]
    pub const fn tls(&self) -> bool {
        self.tls
    }

    /// Name, address or socket file.
    #[must_use]
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// The port, 80 or 443 if none was written; 0 for a socket file.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// What stands in a `Host` header: an IPv6 address in brackets, the port unless it is the scheme's own; `localhost` for
    /// a socket file.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = match &self.host {
            Host::Socket(_) | Host::Parked(_) => return NO_HOST.to_owned(),
            Host::Name(name) => name.clone(),
            Host::Address(IpAddr::V4(address)) => address.to_string(),
            Host::Address(IpAddr::V6(address)) => format!("[{address}]"),
        };
        if self.port == default_port(self.tls) { host } else { format!("{host}:{}", self.port) }
    }

    /// Where its connections lead, path and query aside: two URLs that agree in it may share connections.
    #[must_use]
    pub fn origin(&self) -> String {
        match &self.host {
            Host::Socket(path) => format!("unix:{}", path.display()),
            Host::Parked(id) => format!("{ATTACH}{id}"),
            Host::Name(_) | Host::Address(_) => {
                format!("{}://{}", if self.tls { "https" } else { "http" }, self.authority())
            }
        }
    }

    /// Whether it is `wss` to a name, which then stands in the `Host` header as well.
    #[must_use]
    pub const fn is_tls_by_name(&self) -> bool {
        self.tls && matches!(self.host, Host::Name(_))
    }

    /// The name that a certificate must carry; an IPv6 address without brackets.
    #[must_use]
    pub fn tls_name(&self) -> Option<String> {
        match &self.host {
            Host::Name(name) if self.tls => Some(name.clone()),
            Host::Address(address) if self.tls => Some(address.to_string()),
            Host::Name(_) | Host::Address(_) | Host::Socket(_) | Host::Parked(_) => None,
        }
    }

    /// Path and query as written, trailing slash and all; nothing if there is no path or only `/`, because then the
    /// client's own are used.
    #[must_use]
    pub fn path_and_query(&self) -> Option<&str> {
        self.path_and_query.as_deref()
    }

    /// The URL as it was written, query included: for the state file and the dialer, not for logs.
    #[must_use]
    pub fn as_written(&self) -> &str {
        &self.as_written
    }
}

impl FromStr for BackendUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if text.len() > URL_BYTES_MAX {
            return Err(UrlError::TooLong);
        }
        if let Some(file) = socket_file(text) {
            return parse_socket(text, file);
        }
        if let Some(id) = text.strip_prefix(ATTACH) {
            return Self::attach(id);
        }
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "ws" => false,
            "wss" => true,
            _ => return Err(UrlError::Scheme),
        };
        if rest.contains('#') {
            return Err(UrlError::Fragment);
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(UrlError::UserInfo);
        }
        let (host, port) = split_port(authority)?;
        let port = match port {
            None => default_port(tls),
            Some(digits) => parse_port(digits)?,
        };
        Ok(Self { as_written: text.to_owned(), tls, host: parse_host(host)?, port, path_and_query: parse_path(path)? })
    }
}

impl PartialEq for BackendUrl {
    fn eq(&self, other: &Self) -> bool {
        (self.tls, &self.host, self.port, &self.path_and_query)
            == (other.tls, &other.host, other.port, &other.path_and_query)
    }
}

impl Eq for BackendUrl {}

impl fmt::Display for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_written.split_once('?') {
            Some((shown, _)) => write!(f, "{shown}?***"),
            None => f.write_str(&self.as_written),
        }
    }
}

impl fmt::Debug for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackendUrl({self})")
    }
}

const fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

/// What stands behind the scheme of a socket file, if it is one.
fn socket_file(text: &str) -> Option<&str> {
    ["unix:", "ws+unix:"].iter().find_map(|scheme| {
        let (before, rest) = text.split_at_checked(scheme.len())?;
        before.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

fn parse_socket(text: &str, file: &str) -> Result<BackendUrl, UrlError> {
    let file = file.strip_prefix("//").unwrap_or(file);
    let (file, path) = file.split_once(':').map_or((file, ""), |(file, path)| (file, path));
    if file.contains(['?', '#']) || file.contains(char::is_control) {
        return Err(UrlError::SocketLetter);
    }
    if !Path::new(file).is_absolute() || file.ends_with('/') {
        return Err(UrlError::SocketPath);
    }
    if file.len() > SOCKET_PATH_BYTES_MAX {
        return Err(UrlError::SocketPathTooLong(file.len()));
    }
    if path.contains('#') {
        return Err(UrlError::Fragment);
    }
    if !path.is_empty() && !path.starts_with(['/', '?']) {
        return Err(UrlError::SocketLetter);
    }
    let (as_written, host) = (text.to_owned(), Host::Socket(PathBuf::from(file)));
    Ok(BackendUrl { as_written, tls: false, host, port: 0, path_and_query: parse_path(path)? })
}

/// Takes `authority` apart; an IPv6 address keeps its brackets, which tell it from a name.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), UrlError> {
    let host_end = if authority.starts_with('[') {
        authority.find(']').map(|at| at + 1).ok_or_else(|| UrlError::Host(authority.to_owned()))?
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, port) = authority.split_at(host_end);
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok((host, None)),
        None => Err(UrlError::Host(authority.to_owned())),
        Some(digits) => Ok((host, Some(digits))),
    }
}

/// Digits only: `parse` alone would take `+80`.
fn parse_port(digits: &str) -> Result<u16, UrlError> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(UrlError::Port);
    }
    digits.parse().ok().filter(|&port| port != 0).ok_or(UrlError::Port)
}

fn parse_host(host: &str) -> Result<Host, UrlError> {
    let refused = || UrlError::Host(host.to_owned());
    if let Some(inside) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return inside.parse::<Ipv6Addr>().map(|address| Host::Address(address.into())).map_err(|_| refused());
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Ok(Host::Address(address.into()));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let labels_are_sound = name.split('.').all(|label| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    });
    // A resolver takes "127.1", "0x7f.1" or "2130706433" for an address; an operator does not mean one.
    let looks_like_an_address = name.rsplit('.').next().is_some_and(|last| {
        last.starts_with(|first: char| first.is_ascii_digit())
            && (last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X"))
    });
    if !labels_are_sound || looks_like_an_address || name.len() > 253 {
        return Err(refused());
    }
    Ok(Host::Name(host.to_ascii_lowercase()))
}

fn parse_path(path: &str) -> Result<Option<String>, UrlError> {
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(UrlError::Path);
    }
    match path {
        "" | "/" => Ok(None),
        // A request line needs a path before its query.
        _ if path.starts_with('?') => Ok(Some(format!("/{path}"))),
        _ => Ok(Some(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<BackendUrl, UrlError> {
        text.parse()
    }

    #[test]
    fn iw_10_every_sound_form_of_url_is_taken_apart() {
        for (text, tls, authority, port, path) in [
            ("ws://127.0.0.1:9001", false, "127.0.0.1:9001", 9001, None),
            ("ws://127.0.0.1:9001/", false, "127.0.0.1:9001", 9001, None),
            ("WS://Worker-1.Local", false, "worker-1.local", 80, None),
            ("wss://worker", true, "worker", 443, None),
            ("wss://worker:8443/prefix", true, "worker:8443", 8443, Some("/prefix")),
            ("ws://worker:80/prefix/", false, "worker", 80, Some("/prefix/")),
            ("ws://[::1]:9001/a/b?c=d", false, "[::1]:9001", 9001, Some("/a/b?c=d")),
            ("ws://[::1]", false, "[::1]", 80, None),
            ("ws://worker?token=x", false, "worker", 80, Some("/?token=x")),
            ("ws://worker_1.pool.svc.", false, "worker_1.pool.svc.", 80, None),
        ] {
            let url = parse(text).unwrap();
            assert_eq!(
                (url.tls(), url.authority().as_str(), url.port(), url.path_and_query()),
                (tls, authority, port, path),
                "{text}"
            );
            assert_eq!(url.as_written(), text);
        }
    }

    #[test]
    fn iw_10_every_unsound_form_of_url_is_refused_with_its_reason() {
        let host = |text: &str| UrlError::Host(text.to_owned());
        for (text, error) in [
            ("", UrlError::Scheme),
            ("127.0.0.1:9001", UrlError::Scheme),
            ("http://worker", UrlError::Scheme),
            ("https://worker", UrlError::Scheme),
            ("ws:/worker", UrlError::Scheme),
            ("ws://", host("")),
            ("ws://:80", host("")),
            ("ws:///path", host("")),
            ("ws://user:secret@worker", UrlError::UserInfo),
            ("ws://worker/#top", UrlError::Fragment),
            ("ws://worker:0", UrlError::Port),
            ("ws://worker:", UrlError::Port),
            ("ws://worker:65536", UrlError::Port),
            ("ws://worker:+80", UrlError::Port),
            ("ws://worker:80:81", UrlError::Port),
            ("ws://[::1", host("[::1")),
            ("ws://[::1]x", host("[::1]x")),
            ("ws://[fe80::1%eth0]", host("[fe80::1%eth0]")),
            ("ws://127.1", host("127.1")),
            ("ws://0x7f000001", host("0x7f000001")),
            ("ws://2130706433", host("2130706433")),
            ("ws://wor ker", host("wor ker")),
            ("ws://wörker", host("wörker")),
            ("ws://a..b", host("a..b")),
            ("ws://worker/a b", UrlError::Path),
            ("ws://worker/a\r\nX: y", UrlError::Path),
        ] {
            assert_eq!(parse(text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn every_sound_form_of_a_socket_file_is_taken_apart() {
        for (text, file, path) in [
            ("unix:/run/w.sock", "/run/w.sock", None),
            ("unix:///run/w.sock", "/run/w.sock", None),
            ("UNIX:/run/w.sock", "/run/w.sock", None),
            ("ws+unix:/run/w.sock", "/run/w.sock", None),
            ("ws+unix:///run/w.sock:/", "/run/w.sock", None),
            ("unix:/run/w.sock:/ws/a?b=c:d", "/run/w.sock", Some("/ws/a?b=c:d")),
            ("unix:/run/w.sock:?b=c", "/run/w.sock", Some("/?b=c")),
            ("unix:/run/my worker/\u{fc}.sock", "/run/my worker/\u{fc}.sock", None),
        ] {
            let url = parse(text).unwrap();
            assert_eq!(url.host(), &Host::Socket(file.into()), "{text}");
            assert_eq!((url.path_and_query(), url.authority().as_str()), (path, "localhost"), "{text}");
            assert_eq!((url.tls(), url.tls_name(), url.as_written()), (false, None, text));
            assert_eq!(url.origin(), format!("unix:{file}"));
        }
        assert_eq!(parse("unix:/run/w.sock").unwrap(), parse("ws+unix:///run/w.sock").unwrap());
        assert_ne!(parse("unix:/run/w.sock").unwrap(), parse("unix:/run/w2.sock").unwrap());
        assert_eq!(parse("unix:/run/w.sock:/a?token=x").unwrap().to_string(), "unix:/run/w.sock:/a?***");
    }

    #[test]
    fn every_unsound_form_of_a_socket_file_is_refused_with_its_reason() {
        for (text, error) in [
            ("unix:", UrlError::SocketPath),
            ("unix:w.sock", UrlError::SocketPath),
            ("unix://run/w.sock", UrlError::SocketPath),
            ("unix:/run/", UrlError::SocketPath),
            ("unix:@abstract", UrlError::SocketPath),
            ("unix:/run/w.sock?token=x", UrlError::SocketLetter),
            ("unix:/run/w.sock#top", UrlError::SocketLetter),
            ("unix:/run/w\0.sock", UrlError::SocketLetter),
            ("unix:/run/w.sock:ws", UrlError::SocketLetter),
            ("unix:/run/w.sock:/ws#top", UrlError::Fragment),
            ("unix:/run/w.sock:/a b", UrlError::Path),
            ("wss+unix:/run/w.sock", UrlError::Scheme),
            ("unix/run/w.sock", UrlError::Scheme),
        ] {
            assert_eq!(parse(text).unwrap_err(), error, "{text}");
        }
        for (bytes, sound) in [(106, true), (107, true), (108, false)] {
            let parsed = parse(&format!("unix:/{}", "a".repeat(bytes - 1)));
            assert_eq!(parsed.is_ok(), sound, "{bytes}");
            assert!(sound || parsed == Err(UrlError::SocketPathTooLong(bytes)));
        }
    }

    #[test]
    fn a_worker_that_dials_in_is_known_by_its_id_and_by_nothing_else() {
        let url = parse("attach:w-1.a_2").unwrap();
        assert_eq!((url.attach_id(), url.authority().as_str(), url.port()), (Some("w-1.a_2"), "localhost", 0));
        assert_eq!((url.origin().as_str(), url.to_string().as_str()), ("attach:w-1.a_2", "attach:w-1.a_2"));
        assert_eq!((url.tls(), url.path_and_query()), (false, None));
        let long = format!("attach:{}", "a".repeat(65));
        for text in ["attach:", "attach:a/b", "attach://a", "attach:a?b", "attach:a b", long.as_str()] {
            assert_eq!(parse(text).unwrap_err(), UrlError::Attach, "{text}");
        }
    }

    #[test]
    fn the_length_of_a_url_is_bounded() {
        let url_of = |bytes: usize| format!("ws://worker/{}", "a".repeat(bytes - 12));
        for (bytes, sound) in [(URL_BYTES_MAX - 1, true), (URL_BYTES_MAX, true), (URL_BYTES_MAX + 1, false)] {
            assert_eq!(parse(&url_of(bytes)).is_ok(), sound, "{bytes}");
        }
    }

    #[test]
    fn two_spellings_of_one_place_are_equal() {
        assert_eq!(parse("ws://Worker:80/").unwrap(), parse("ws://worker").unwrap());
        assert_ne!(parse("ws://worker/a").unwrap(), parse("ws://worker/a/").unwrap());
        assert_ne!(parse("ws://worker:443").unwrap(), parse("wss://worker").unwrap());
    }

    #[test]
    fn a_query_is_not_shown() {
        let url = parse("ws://worker/a?token=hunter2").unwrap();
        assert_eq!(url.to_string(), "ws://worker/a?***");
        assert!(!format!("{url:?}").contains("hunter2"));
    }
}
