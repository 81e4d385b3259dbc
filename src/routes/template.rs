//! Templates over a request: what a route's key and backend path are made of.
//!
//! `{name}` is a path parameter of the route, `{query.name}` a query parameter, `{header.name}` a request header,
//! `{cookie.name}` a cookie, `{client}` the client's address, `{tls.san}` and `{tls.cn}` the first alternative and the
//! common name of the certificate that it has shown; a backend path also knows `{alias}` (what the chosen
//! backend calls the key, or the key itself) and `{query}` (the whole query). `{{` and `}}` are literal braces.
//!
//! Invariant: what a template takes comes once. Of a parameter, header or cookie that comes twice, a worker may take
//! another one than we do, so that such a request is refused, as is one whose value cannot be read.
//!
//! Invariant: what a request puts into a backend path is one segment of it, or one value of its query, and cannot lead
//! out of it: it is decoded, encoded anew, and refused where it holds a dot segment.
//!
//! Invariant: a template names only what its route can have, so rendering fails on missing query parameters and
//! headers alone.

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName};

use super::NoRoute;
use super::auth::Auth;
use super::path::leaves_its_place;
use super::percent::{decode, encode_into};
use crate::net::ClientCertificate;

/// A parsed template.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Template(Vec<Part>);

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Text(String),
    Param(String),
    Query(String),
    Header(HeaderName),
    /// A header that the server of `routes.auth_url` says.
    Auth(HeaderName),
    Cookie(String),
    Client,
    /// The first alternative name of the client's certificate.
    Alternative,
    /// The common name of it.
    Common,
    WholeQuery,
    Alias,
}

/// What a request gives a template to work with.
pub(super) struct Values<'a> {
    /// The path as sent.
    pub path: &'a str,
    /// The route's path parameters as sent: slices of `path`.
    pub params: &'a [(String, &'a str)],
    /// The query as sent, without its `?`.
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    /// The client's address, as far as trusted proxies say.
    pub client: IpAddr,
    /// What it has shown.
    pub certificate: Option<&'a ClientCertificate>,
}

/// A piece of a backend path, everything but the alias already filled in.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(super) enum Piece {
    Text(String),
    Alias,
}

impl Template {
    /// Parses one of `routes.labels`, which may be the same for every request.
    pub fn for_label(text: &str, params: &[String]) -> Result<Self, String> {
        let template = parse(text, params)?;
        if template.0.iter().any(|part| matches!(part, Part::Alias | Part::WholeQuery)) {
            return Err(format!("`{text}`: {{alias}} and {{query}} are for backend_path only"));
        }
        Ok(template)
    }

    /// Parses `routes.key`.
    pub fn for_key(text: &str, params: &[String]) -> Result<Self, String> {
        let template = Self::for_label(text, params)?;
        if template.0.iter().all(|part| matches!(part, Part::Text(_))) {
            return Err(format!("`{text}` is the same for every request; use a placeholder such as {{session}}"));
        }
        Ok(template)
    }

    /// Parses `routes.backend_path`.
    pub fn for_path(text: &str, params: &[String], has_key: bool) -> Result<Self, String> {
        if !text.starts_with('/') {
            return Err(format!("`{text}` must start with `/`"));
        }
        if let Some(bad) = text.chars().find(|c| !c.is_ascii_graphic() || *c == '#') {
            return Err(format!("`{text}`: {bad:?} must be percent-encoded"));
        }
        let template = parse(text, params)?;
        if !has_key && template.0.contains(&Part::Alias) {
            return Err(format!("`{text}`: {{alias}} needs routes.key, which it is the alias of"));
        }
        let path = template.0.iter().take_while(|part| !part.begins_query());
        if path.clone().any(|part| *part == Part::WholeQuery) {
            return Err(format!("`{text}`: {{query}} stands behind a `?`, or goes along by itself"));
        }
        let literal = |part: &Part| if let Part::Text(literal) = part { literal.clone() } else { "x".to_owned() };
        let sketch: String = template.0.iter().map(literal).collect();
        if leaves_its_place(sketch.split('?').next().unwrap_or_default()) {
            return Err(format!("`{text}`: `.` and `..` cannot be parts of the path"));
        }
        Ok(template)
    }

    /// The key of a request, decoded; `None` if a part of it is missing or empty.
    pub(super) fn key(&self, values: &Values<'_>) -> Result<Option<String>, NoRoute> {
        let (mut key, mut whole) = (String::new(), true);
        for part in &self.0 {
            let value: Option<Cow<'_, str>> = match part {
                Part::Text(text) => Some(text.into()),
                Part::Param(name) => {
                    let sent = values.param(name).unwrap_or_default();
                    Some(decode(sent, false).ok_or_else(|| unclear("the path parameter", name))?)
                }
                Part::Query(name) => match values.query_value(name)? {
                    Some(sent) => Some(decode(sent, true).ok_or_else(|| unclear("the query parameter", name))?),
                    None => None,
                },
                Part::Header(name) | Part::Auth(name) => values.header(name)?.map(Cow::Borrowed),
                Part::Cookie(name) => values.cookie(name)?.map(Cow::Borrowed),
                Part::Client => Some(values.client.to_string().into()),
                Part::Alternative => values.alternative().map(Cow::Borrowed),
                Part::Common => values.common().map(Cow::Borrowed),
                Part::WholeQuery | Part::Alias => None,
            };
            match value.filter(|value| !value.is_empty()) {
                Some(value) => key.push_str(&value),
                None => whole = false,
            }
        }
        Ok(whole.then_some(key))
    }

    /// The backend path of a request, all but the alias; the client's query is appended if the template has none.
    pub(super) fn path(&self, values: &Values<'_>) -> Result<Vec<Piece>, NoRoute> {
        let mut pieces = Vec::new();
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Param(name) => encode_path(&mut text, values.param(name).unwrap_or_default())
                    .ok_or_else(|| astray("the path parameter", name))?,
                Part::Query(name) => {
                    let sent = values.query_value(name)?.ok_or_else(|| missing("query parameter", name))?;
                    let value = decode(sent, true).ok_or_else(|| astray("the query parameter", name))?;
                    encode_into(&mut text, &value);
                }
                Part::Header(name) | Part::Auth(name) => {
                    encode_into(&mut text, values.header(name)?.ok_or_else(|| missing("header", name.as_str()))?)
                }
                Part::Cookie(name) => {
                    encode_into(&mut text, values.cookie(name)?.ok_or_else(|| missing("cookie", name))?)
                }
                Part::Client => encode_into(&mut text, &values.client.to_string()),
                Part::Alternative => {
                    let name = values.alternative().ok_or_else(|| missing("client certificate's name", "tls.san"))?;
                    encode_into(&mut text, name);
                }
                Part::Common => {
                    let name = values.common().ok_or_else(|| missing("client certificate's name", "tls.cn"))?;
                    encode_into(&mut text, name);
                }
                Part::WholeQuery => text.push_str(values.query.unwrap_or_default()),
                Part::Alias => {
                    pieces.push(Piece::Text(std::mem::take(&mut text)));
                    pieces.push(Piece::Alias);
                }
            }
        }
        let has_query = self.0.iter().any(Part::begins_query);
        if let Some(query) = values.query.filter(|_| !has_query) {
            text.push('?');
            text.push_str(query);
        }
        pieces.push(Piece::Text(text));
        Ok(pieces)
    }

    /// What is wrong with a placeholder that takes what no server says.
    pub(super) fn unanswered(&self, auth: Option<&Auth>) -> Option<String> {
        self.0.iter().find_map(|part| match part {
            Part::Auth(name) if !auth.is_some_and(|auth| auth.headers.contains(name)) => {
                Some(format!("{{auth.{name}}} needs auth_url, and \"{name}\" among auth_headers"))
            }
            _ => None,
        })
    }

    /// The single path parameter that the template is, if that is all it is.
    pub(super) fn as_param(&self) -> Option<&str> {
        let [Part::Param(name)] = self.0.as_slice() else {
            return None;
        };
        Some(name)
    }

    /// The single query parameter that the template is, if that is all it is.
    pub(super) fn as_query(&self) -> Option<&str> {
        let [Part::Query(name)] = self.0.as_slice() else {
            return None;
        };
        Some(name)
    }
}

impl Part {
    /// Whether what follows is no path any more.
    fn begins_query(&self) -> bool {
        matches!(self, Self::Text(literal) if literal.contains('?'))
    }
}

fn missing(what: &str, name: &str) -> NoRoute {
    NoRoute::Missing(format!("the {what} `{name}`"))
}

fn unclear(what: &str, name: &str) -> NoRoute {
    NoRoute::Unclear(format!("{what} `{name}`"))
}

fn astray(what: &str, name: &str) -> NoRoute {
    NoRoute::Astray(format!("{what} `{name}`"))
}

/// Appends a part of a client's path with each of its segments encoded anew; `None` if it is not UTF-8.
fn encode_path(out: &mut String, sent: &str) -> Option<()> {
    for (index, segment) in sent.split('/').enumerate() {
        if index > 0 {
            out.push('/');
        }
        encode_into(out, &decode(segment, false)?);
    }
    Some(())
}

impl<'a> Values<'a> {
    pub(super) fn param(&self, wanted: &str) -> Option<&'a str> {
        self.params.iter().find(|(name, _)| name == wanted).map(|(_, value)| *value)
    }

    /// The value as sent.
    pub(super) fn query_value(&self, wanted: &str) -> Result<Option<&'a str>, NoRoute> {
        let mut values = self.query.unwrap_or_default().split('&').filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name, true)? == wanted).then_some(value)
        });
        let value = values.next();
        if values.next().is_some() { Err(unclear("the query parameter", wanted)) } else { Ok(value) }
    }

    /// The value of a cookie as sent.
    fn cookie(&self, wanted: &str) -> Result<Option<&'a str>, NoRoute> {
        let lines = self.headers.get_all(COOKIE).into_iter().filter_map(|line| line.to_str().ok());
        let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let mut values = pairs.filter(|(name, _)| *name == wanted).map(|(_, value)| value);
        let value = values.next();
        if values.next().is_some() { Err(unclear("the cookie", wanted)) } else { Ok(value) }
    }

    fn alternative(&self) -> Option<&'a str> {
        self.certificate?.san.as_deref()
    }

    fn common(&self) -> Option<&'a str> {
        self.certificate?.cn.as_deref()
    }

    fn header(&self, name: &HeaderName) -> Result<Option<&'a str>, NoRoute> {
        let mut lines = self.headers.get_all(name).into_iter();
        let (line, another) = (lines.next(), lines.next());
        let text = line.map(|line| line.to_str().map(str::trim)).transpose();
        text.ok().filter(|_| another.is_none()).ok_or_else(|| unclear("the header", name.as_str()))
    }
}

fn parse(text: &str, params: &[String]) -> Result<Template, String> {
    let mut parts = Vec::new();
    for token in tokens(text)? {
        parts.push(match token {
            Token::Text(literal) => Part::Text(literal),
            Token::Name(name) => placeholder(name, params).map_err(|why| format!("`{text}`: {why}"))?,
        });
    }
    Ok(Template(parts))
}

fn placeholder(name: &str, params: &[String]) -> Result<Part, String> {
    if params.iter().any(|param| param == name) {
        return Ok(Part::Param(name.to_owned()));
    }
    if let Some(query) = name.strip_prefix("query.").filter(|query| !query.is_empty()) {
        return Ok(Part::Query(query.to_owned()));
    }
    if let Some(header) = name.strip_prefix("header.") {
        return header.parse().map(Part::Header).map_err(|_| format!("`{header}` is not a header name"));
    }
    if let Some(header) = name.strip_prefix("auth.") {
        return header.parse().map(Part::Auth).map_err(|_| format!("`{header}` is not a header name"));
    }
    if let Some(cookie) = name.strip_prefix("cookie.") {
        // The name of a cookie is a token, as that of a header is (RFC 6265 section 4.1.1), with its case.
        let is_name = HeaderName::from_bytes(cookie.as_bytes()).is_ok();
        return if is_name {
            Ok(Part::Cookie(cookie.to_owned()))
        } else {
            Err(format!("`{cookie}` is not a cookie name"))
        };
    }
    match name {
        "client" => Ok(Part::Client),
        "tls.san" => Ok(Part::Alternative),
        "tls.cn" => Ok(Part::Common),
        "query" => Ok(Part::WholeQuery),
        "alias" => Ok(Part::Alias),
        _ if params.is_empty() => Err(format!(
            "{{{name}}} is unknown: the path has no parameters; use {{query.NAME}}, {{header.NAME}}, {{cookie.NAME}} or {{client}}"
        )),
        _ => Err(format!(
            "{{{name}}} is unknown: the path has {}; or use {{query.NAME}}, {{header.NAME}}, {{cookie.NAME}}, {{client}}",
            params.join(", ")
        )),
    }
}

enum Token<'a> {
    Text(String),
    Name(&'a str),
}

fn tokens(text: &str) -> Result<Vec<Token<'_>>, String> {
    let mut tokens = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(brace) = rest.find(['{', '}']) {
        literal.push_str(&rest[..brace]);
        let after = &rest[brace + 1..];
        let same = &rest[brace..=brace];
        if let Some(next) = after.strip_prefix(same) {
            literal.push_str(same);
            rest = next;
        } else if same == "{" {
            let (name, next) = after.split_once('}').ok_or_else(|| format!("`{text}`: a `{{` is never closed"))?;
            if !literal.is_empty() {
                tokens.push(Token::Text(std::mem::take(&mut literal)));
            }
            tokens.push(Token::Name(name));
            rest = next;
        } else {
            return Err(format!("`{text}`: a `}}` closes nothing; write `}}}}` for a brace"));
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() || tokens.is_empty() {
        tokens.push(Token::Text(literal));
    }
    Ok(tokens)
}

/// The parameters of a path pattern, in their order.
pub(super) fn param_names(pattern: &str) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = Vec::new();
    for token in tokens(pattern)? {
        let Token::Name(name) = token else { continue };
        let name = name.strip_prefix('*').unwrap_or(name);
        if name.is_empty() || names.iter().any(|known| known == name) {
            return Err(format!("`{pattern}`: each parameter needs a name of its own"));
        }
        if name == "alias" {
            return Err(format!("`{pattern}`: a parameter can't be called `alias`, which backend_path uses"));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

/// The name of a pattern's `{*rest}`, if it ends in one.
pub(super) fn rest_name(pattern: &str) -> Option<&str> {
    pattern.rsplit_once("{*").and_then(|(_, name)| name.strip_suffix('}'))
}
