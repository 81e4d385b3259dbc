//! Out of descriptors: accepting goes on when there are some again, and the operator gets through all the while.

use crate::rig::{Backend, Proxy, Raw, connected, frame};

/// Connections that want to be served at once, three times what there are descriptors for.
const CROWD: usize = 200;
const DESCRIPTORS: u32 = 64;

#[test]
fn a_crowd_takes_no_descriptor_that_the_operator_and_the_pipes_need() {
    let mut proxy = Proxy::limited("threads = 2", DESCRIPTORS);
    let backend = Backend::echo();
    proxy.register(backend.address);
    let mut old = connected(&proxy);
    let crowd: Vec<Raw> = (0..CROWD).map(|_| Raw::to(proxy.public)).collect();
    for _ in 0..50 {
        assert_eq!(proxy.admin("GET", "/health/live", &[], "").0, 200, "a new operator gets through");
    }
    old.send(frame(0x81, b"still there?", true));
    assert_eq!(old.talk(true).unwrap().1, b"still there?");
    assert!(proxy.descriptors() < DESCRIPTORS as usize, "{}", proxy.descriptors());
    drop(crowd);
    let mut new = connected(&proxy);
    new.send(frame(0x81, b"hello", true));
    assert_eq!(new.talk(true).unwrap().1, b"hello");
    proxy.assert_sound();
}

#[test]
fn a_crowd_of_pipes_is_served_as_far_as_descriptors_go_and_the_rest_waits() {
    let mut proxy = Proxy::limited("threads = 1", DESCRIPTORS);
    let backend = Backend::echo();
    proxy.register(backend.address);
    let mut waiting: Vec<Raw> = (0..CROWD)
        .map(|_| {
            let mut client = Raw::to(proxy.public);
            client.send(crate::rig::handshake("/ws/x", ""));
            client
        })
        .collect();
    // Each one's turn comes when the ones before it have left; none is turned away.
    while let Some(mut client) = (!waiting.is_empty()).then(|| waiting.remove(0)) {
        let (status, head) = client.head();
        assert_eq!(status, 101, "{head}");
    }
    proxy.assert_sound();
}
