//! Names that strangers invent do not change the number of metric series.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::rig::{Backend, Proxy, Raw, connected, frame, handshake};

/// Random hosts, paths and methods.
const REQUESTS: usize = 10_000;
/// Pipes that end with a random code, as many of the client's as of the worker's.
const PIPES: usize = 1_000;
/// Random requests to the admin API, and backends that come and go.
const ADMIN: usize = 1_000;
const BACKENDS: usize = 100;

fn series(proxy: &Proxy) -> BTreeSet<String> {
    let lines = proxy.metrics();
    let names = lines.lines().filter(|line| line.starts_with("holdline_")).filter_map(|line| line.rsplit_once(' '));
    names.map(|(name, _)| name.to_owned()).collect()
}

/// A small generator, so that a failure can be run again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// Any that may be sent (RFC 6455 section 7.4).
    fn close_code(&mut self) -> u16 {
        if self.roll().is_multiple_of(8) { 1000 + (self.roll() % 4) as u16 } else { 3000 + (self.roll() % 2000) as u16 }
    }
}

fn ask(address: SocketAddr, count: usize, dice: &mut Dice) {
    let mut client = Raw::to(address);
    for _ in 0..count {
        let (host, path) = (dice.roll(), dice.roll());
        let method = ["GET", "HEAD", "POST", "DELETE", "PROPFIND", "X"][dice.roll() as usize % 6];
        client.send(format!("{method} /{path:x}/%41 HTTP/1.1\r\nHost: h{host:x}.example\r\nContent-Length: 0\r\n\r\n"));
        let (status, head) = client.head();
        assert!(matches!(status, 403..=405), "{head}");
        if method != "HEAD" {
            client.body(&head);
        }
    }
}

fn pipes(proxy: &Proxy, count: usize, dice: &mut Dice) {
    for _ in 0..count / 2 {
        let mut client = connected(proxy);
        client.send(frame(0x88, &dice.close_code().to_be_bytes(), true));
        client.close_code(true);
        // one that ends the pipe: neither interrupts it nor says that it is another worker's
        let code = 3000 + (dice.roll() % 1000) as u16;
        let mut client = Raw::to(proxy.public);
        client.send(handshake(&format!("/ws/{code}?a={code}"), &format!("Origin: http://{code}\r\n")));
        assert_eq!(client.head().0, 101);
        client.send(frame(0x81, &code.to_be_bytes(), true));
        assert_eq!(client.close_code(true), Some(code), "an end that the worker wanted");
    }
}

/// Backends with random names, which no client ever reaches, and random requests.
fn admin(proxy: &Proxy, requests: usize, backends: usize, dice: &mut Dice) {
    ask(proxy.admin, requests, dice);
    let json = ("Content-Type", "application/json");
    for _ in 0..backends {
        let path = format!("/v1/backends/b{:x}", dice.roll());
        let body = "{\"url\":\"ws://127.0.0.1:9\",\"pool\":\"default\",\"state\":\"maint\"}";
        assert_eq!(proxy.admin("PUT", &path, &[json], body).0, 201);
        assert!(matches!(proxy.admin("DELETE", &path, &[], "").0, 202 | 204));
    }
}

#[test]
fn random_hosts_paths_methods_and_close_codes_make_no_new_series() {
    let mut proxy = Proxy::with("[[routes]]\nname = \"ws\"\npath = \"/ws/{*path}\"\nupgrade = \"websocket\"");
    // Says goodbye with the code that it is told, or as its peer does.
    let backend = Backend::start(|mut peer, head, _| {
        peer.upgrade(head);
        if let Some((_, payload)) = peer.talk(false) {
            peer.send(frame(0x88, &payload[..2], false));
        }
        peer.rest();
    });
    proxy.register(backend.address);
    let mut dice = Dice(7);
    let mut round = |requests: usize, pairs: usize, asks: usize, backends: usize| {
        ask(proxy.public, requests, &mut dice);
        pipes(&proxy, pairs, &mut dice);
        admin(&proxy, asks, backends, &mut dice);
    };
    // Enough to have met every class of code and method.
    round(200, 200, 200, 2);
    // The first look makes a series of its own.
    series(&proxy);
    let before = series(&proxy);
    round(REQUESTS, PIPES, ADMIN, BACKENDS);
    let after = series(&proxy);
    let changed: Vec<_> = after.symmetric_difference(&before).collect();
    assert!(changed.is_empty(), "{changed:#?}");
    proxy.assert_sound();
}
