//! What every request passes: the browser guards, the token, the audit line, the metric, the request id.
//!
//! A foreign page in a browser can send requests to a loopback port, so a local listener is no protection by itself:
//! - DNS rebinding (`evil.example` resolving to 127.0.0.1) shows as a `Host` that is no loopback name;
//! - a form or a `fetch` of another site shows as an `Origin` or `Sec-Fetch-Site` that is not ours, or as a body that
//!   is not declared as JSON (declaring it so takes a preflight, which is never answered).

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::body::{is_json, is_merge_patch};
use super::problem::{Kind, Problem};
use super::{Admin, Locality};
use crate::handshake::check::host_name;
use crate::log::AUDIT;
use crate::metrics::labels::status_code;
use crate::net::TlsIdentity;
use crate::tokens::{Access, Caller, Role};

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Longest request id that is taken over from a caller.
const REQUEST_ID_BYTES_MAX: usize = 64;

/// Characters of a path in an audit line; no path that means anything is longer.
const AUDIT_PATH_MAX: usize = 256;

/// The middleware around every route, known or not.
pub(super) async fn gate(
    State(admin): State<Arc<Admin>>,
    matched: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    let route = matched.as_ref().map_or("none", MatchedPath::as_str).to_owned();
    let request_id = request_id(request.headers());
    let method = request.method().clone();
    // Without the query, which has the words that a client is closed with.
    let path: String = request.uri().path().chars().take(AUDIT_PATH_MAX).collect();
    let verdict = check(&admin, &route, &request);
    let caller = match &verdict {
        Ok(caller) => caller.clone(),
        Err(_) => known(&admin, request.headers()),
    };
    let response = match verdict {
        Ok(caller) => {
            request.extensions_mut().insert(caller.unwrap_or_else(anonymous));
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    };
    let response = finish(response, &request_id);
    admin
        .process
        .metrics
        .families()
        .admin_requests_total
        .with_label_values(&[&*route, method_label(&method), status_code(response.status().as_u16())])
        .inc();
    if !method.is_safe() {
        audit(caller.as_ref(), &method, &route, &path, response.status(), &request_id);
    }
    response
}

/// Who the caller is, if it had to say; or why it is refused.
fn check(admin: &Admin, route: &str, request: &Request) -> Result<Option<Caller>, Problem> {
    // A path without this method goes on to its 405, an unknown path to its 404: neither does anything.
    let Some(access) = admin.access.get(route, request.method()) else {
        return Ok(None);
    };
    let headers = request.headers();
    if access != Access::Open {
        check_host(admin.locality, headers, request.uri())?;
    }
    let writes = !request.method().is_safe();
    if writes {
        check_origin(headers)?;
    }
    let caller = authorize(admin, access, request)?;
    if writes {
        check_media_type(request.method(), headers)?;
    }
    Ok(caller)
}

fn check_host(locality: Locality, headers: &HeaderMap, uri: &Uri) -> Result<(), Problem> {
    match locality {
        Locality::Loopback => {}
        // A browser can't reach a socket file, and elsewhere a token is needed.
        Locality::Unix | Locality::Network => return Ok(()),
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok().filter(|host| is_loopback_name(host)),
        (_, _) => None,
    };
    let target_is_local = uri.authority().is_none_or(|authority| is_loopback_name(authority.as_str()));
    if host.is_some() && target_is_local {
        return Ok(());
    }
    Err(Problem::new(Kind::HostForbidden, "use 127.0.0.1, [::1] or localhost as the host in the URL"))
}

/// Whether `host`, with or without a port, can only mean this machine.
fn is_loopback_name(host: &str) -> bool {
    let Some(name) = host_name(host) else {
        return false;
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

/// The only page that may write is one that was loaded from this very listener.
fn check_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let site = headers.get(&FETCH_SITE).map(HeaderValue::as_bytes);
    let from_elsewhere = site.is_some_and(|site| site != b"same-origin" && site != b"none");
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
    let foreign = headers.get_all(header::ORIGIN).iter().any(|origin| {
        let origin = origin.to_str().unwrap_or("");
        let own = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        own.is_none_or(|own| host.is_empty() || !own.eq_ignore_ascii_case(host))
    });
    if foreign || from_elsewhere {
        return Err(Problem::new(Kind::OriginForbidden, "a page of another origin may not change anything here"));
    }
    Ok(())
}

/// A POST must declare JSON (a PATCH: a merge-patch or JSON) even when it is empty: without that, any page may send one.
fn check_media_type(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let has_body = headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0")
        || headers.contains_key(header::CONTENT_TYPE);
    let declared = is_json(headers) || (method == Method::PATCH && is_merge_patch(headers));
    if declared || !(has_body || method == Method::POST) {
        return Ok(());
    }
    Err(Problem::new(Kind::MediaType, "send Content-Type: application/json"))
}

fn authorize(admin: &Admin, access: Access, request: &Request) -> Result<Option<Caller>, Problem> {
    if access == Access::Open {
        return Ok(None);
    }
    let tokens = admin.process.tokens.load();
    let Some(tokens) = tokens.as_ref() else {
        // A certificate here was signed by an authority of `admin.tls.client_ca`.
        if let Some(certificate) = TlsIdentity::certificate(request.extensions()) {
            return Ok(Some(Caller { name: certificate.name().unwrap_or("certificate").into(), role: Role::Operator }));
        }
        return match admin.locality {
            Locality::Loopback | Locality::Unix => Ok(Some(anonymous())),
            Locality::Network => {
                Err(Problem::new(Kind::Unauthorized, "no tokens are configured, so nobody may do this from a network"))
            }
        };
    };
    let Some(caller) = tokens.caller(request.headers()) else {
        return Err(Problem::new(Kind::Unauthorized, "send Authorization: Bearer and a token of admin.tokens_file"));
    };
    if access.allows(caller.role) {
        return Ok(Some(caller));
    }
    let detail = format!("this is not for the role {}", caller.role.as_str());
    Err(Problem::new(Kind::RoleForbidden, detail))
}

/// Whose token this is, whether or not it is good for anything here.
fn known(admin: &Admin, headers: &HeaderMap) -> Option<Caller> {
    admin.process.tokens.load().as_ref().and_then(|tokens| tokens.caller(headers))
}

fn anonymous() -> Caller {
    Caller { name: "anonymous".into(), role: Role::Operator }
}

fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(&REQUEST_ID).and_then(|id| id.to_str().ok());
    let clean = |id: &&str| {
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    given.filter(clean).map_or_else(|| format!("{:016x}", rand::random::<u64>()), str::to_owned)
}

/// A refusal of a request that is not even looked at, with the headers that every answer has.
pub(super) fn refuse(response: Response, asked: &HeaderMap) -> Response {
    finish(response, &request_id(asked))
}

/// Writes a problem out and sets the headers that every answer has.
fn finish(mut response: Response, request_id: &str) -> Response {
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let body = problem.body(request_id);
        response.headers_mut().remove(header::CONTENT_LENGTH);
        *response.body_mut() = body.into();
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID.clone(), id);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn audit(caller: Option<&Caller>, method: &Method, route: &str, path: &str, status: StatusCode, request_id: &str) {
    let who = caller.map_or("-", |caller| &caller.name);
    let role = caller.map_or("-", |caller| caller.role.as_str());
    let status = status.as_u16();
    let method = method_label(method);
    tracing::info!(target: AUDIT, who, role, method, route, path, status, request_id, "admin write");
}

/// The closed set of methods for labels.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_mean_this_machine_are_loopback_names() {
        for name in ["localhost", "LOCALHOST:9000", "127.0.0.1:1", "127.9.9.9", "[::1]:9000", "[::ffff:127.0.0.1]"] {
            assert!(is_loopback_name(name), "{name}");
        }
        for name in [
            "",
            "evil.example",
            "localhost.evil.example",
            "10.0.0.1:9000",
            "127.0.0.1.evil.example",
            "0.0.0.0",
            "[::1].evil.example",
            "[::1]evil.example",
            "localhost@evil.example",
            "localhost:9000.evil.example",
        ] {
            assert!(!is_loopback_name(name), "{name}");
        }
    }

    #[test]
    fn an_odd_request_id_is_not_taken_over() {
        let of =
            |id: &str| request_id(&[(REQUEST_ID.clone(), HeaderValue::from_str(id).unwrap())].into_iter().collect());
        assert_eq!(of("abc-1.2_3"), "abc-1.2_3");
        for odd in ["", "a b", "a\"b", &"x".repeat(65)] {
            assert_eq!(of(odd).len(), 16, "{odd}");
        }
    }
}
