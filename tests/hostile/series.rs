//! Whatever strangers invent, the number of metric series stays what it is.

use std::collections::BTreeSet;

use crate::rig::{Backend, Proxy, Raw, connected, frame, handshake};

/// Random requests of each kind of connection.
const REQUESTS: usize = 10_000;
const PIPES: usize = 300;

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
}

#[test]
fn random_hosts_paths_methods_and_close_codes_make_no_new_series() {
    let mut proxy = Proxy::with("[[routes]]\nname = \"ws\"\npath = \"/ws/{*path}\"\nupgrade = \"websocket\"");
    let backend = Backend::echo();
    proxy.register(backend.address);
    let mut dice = Dice(7);
    let mut round = |requests: usize, pipes: usize| {
        let mut client = Raw::to(proxy.public);
        for _ in 0..requests {
            let (host, path) = (dice.roll(), dice.roll());
            let method = ["GET", "HEAD", "POST", "DELETE"][dice.roll() as usize % 4];
            client.send(format!(
                "{method} /{path:x}/%41 HTTP/1.1\r\nHost: h{host:x}.example\r\nContent-Length: 0\r\n\r\n"
            ));
            let (status, head) = client.head();
            assert_eq!(status, 404, "{head}");
            if method != "HEAD" {
                client.body(&head);
            }
        }
        for number in 0..pipes {
            let code = if number % 2 == 0 { 3000 + dice.roll() % 2000 } else { 1000 + dice.roll() % 4 };
            let mut client = connected(&proxy);
            client.send(frame(0x88, &(code as u16).to_be_bytes(), true));
            client.close_code(true);
            let mut client = Raw::to(proxy.public);
            client.send(handshake(&format!("/ws/{code:x}?a={code}"), &format!("Origin: http://{code}\r\n")));
            assert_eq!(client.head().0, 101);
        }
    };
    round(40, 40);
    // The first look makes a series of its own.
    series(&proxy);
    let before = series(&proxy);
    round(REQUESTS, PIPES);
    let after = series(&proxy);
    let new: Vec<_> = after.difference(&before).collect();
    assert!(new.is_empty(), "{new:#?}");
    proxy.assert_sound();
}
