//! What a request's head costs until its route is known: time linear in its bytes, whatever they are.

use std::hint::black_box;
use std::time::{Duration, Instant};

use http::Request;
use http::request::Parts;

use super::check::{check, host};
use super::client_address::TrustedProxies;
use super::forward::{request_headers, upgrade_head_lines};
use crate::config::Config;
use crate::routes::RouteTable;

/// How many times longer the longer head is.
const FACTOR: usize = 8;

const SHORT_BYTES: usize = 7_500;

/// A head with `bytes` of the piece that `piece` gives for each number, in the header `name`, or in the target.
fn head(name: &str, bytes: usize, piece: impl Fn(usize) -> String) -> Parts {
    let mut filling = String::new();
    for n in 0.. {
        if filling.len() >= bytes {
            break;
        }
        filling.push_str(&piece(n));
    }
    filling.truncate(bytes);
    let mut request = Request::builder()
        .header("host", "app.example")
        .header("upgrade", "websocket")
        .header("connection", "upgrade")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    for n in 0..90 {
        request = request.header(format!("x{n}"), "1");
    }
    let request = match name {
        "path" => request.uri(format!("/ws/{filling}")),
        "query" => request.uri(format!("/ws/s?{filling}&udid=1")),
        _ => request.uri("/ws/s?udid=1").header(name, filling),
    };
    request.body(()).expect("the request is good").into_parts().0
}

fn table() -> RouteTable {
    let config = Config::default();
    let mut spec = config.route_specs().remove(0);
    spec.key = Some("{query.udid}-{header.x1}".into());
    spec.backend_path = Some("/b/{path}/{query.udid}".into());
    RouteTable::compile(vec![spec]).expect("the route is good")
}

/// All that happens to a head before a worker is chosen.
fn look_at(parts: &Parts, table: &RouteTable, trusted: &TrustedProxies) {
    black_box(check(parts, usize::MAX));
    let client = trusted.trace(crate::net::Peer::plain("10.0.0.1".parse().expect("an address")), parts);
    let _ = black_box(table.find(host(parts), parts, std::net::Ipv4Addr::LOCALHOST.into()));
    black_box(upgrade_head_lines(parts, &client));
    black_box(request_headers(parts, &client));
}

/// The quickest of several tries: what else runs on the machine makes some of them slow.
fn cost(parts: &Parts, table: &RouteTable, trusted: &TrustedProxies) -> Duration {
    let time = || {
        let began = Instant::now();
        look_at(parts, table, trusted);
        began.elapsed()
    };
    (0..25).map(|_| time()).min().unwrap_or_default()
}

#[test]
fn a_head_costs_time_linear_in_its_bytes() {
    let table = table();
    let trusted = TrustedProxies::new(vec!["10.0.0.0/8".parse().expect("a network")]);
    let shapes: [(&str, &dyn Fn(usize) -> String); 16] = [
        ("sec-websocket-protocol", &|n| format!("p{n},")),
        ("sec-websocket-extensions", &|n| format!("e{n}; a={n},")),
        ("connection", &|n| format!("x{n},")),
        ("connection", &|_| "x1,".into()),
        ("upgrade", &|_| "h2c,".into()),
        ("transfer-encoding", &|_| "chunked,".into()),
        ("x-forwarded-for", &|_| "10.0.0.1,".into()),
        ("x-forwarded-host", &|n| format!("h{n}.example,")),
        ("forwarded", &|_| "for=10.0.0.1;host=a;proto=http,".into()),
        ("forwarded", &|_| "\",;".into()),
        ("cookie", &|n| format!("c{n}=1; ")),
        ("accept", &|n| format!("a/b;q=0.{n},")),
        ("query", &|n| format!("q{n}=%41&")),
        ("query", &|_| "&".into()),
        ("path", &|_| "%61/".into()),
        ("path", &|_| "%2e/".into()),
    ];
    for (name, piece) in shapes {
        let short = cost(&head(name, SHORT_BYTES, piece), &table, &trusted);
        let long = cost(&head(name, FACTOR * SHORT_BYTES, piece), &table, &trusted);
        // Linear time is `FACTOR` times as long, quadratic time `FACTOR` times that.
        let allowed = short.max(Duration::from_micros(50)) * (4 * FACTOR as u32);
        assert!(long < allowed, "{name} {}: {short:?} for a short head, {long:?} for a long one", piece(0));
    }
}
