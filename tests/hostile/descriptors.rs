//! Out of descriptors: accepting goes on when there are some again, and the operator gets through all the while.

use crate::rig::{Backend, Proxy, Raw, connected, frame, handshake, until};

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
            client.send(handshake("/ws/x", ""));
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

#[test]
fn when_there_are_really_none_left_accepting_pauses_and_goes_on_afterwards() {
    let mut proxy = Proxy::limited("threads = 1", DESCRIPTORS);
    let backend = Backend::echo();
    proxy.register(backend.address);
    let mut old = connected(&proxy);
    // Nothing keeps a local caller of the admin API from taking them all.
    let hogs: Vec<Raw> = (0..DESCRIPTORS).map(|_| Raw::to(proxy.admin)).collect();
    let logged = |proxy: &Proxy, what: &str| proxy.log().iter().any(|line| line.contains(what));
    until("the last descriptor's end", || logged(&proxy, "an admin connection could not be accepted"));
    let mut new = Raw::to(proxy.public);
    new.send(handshake("/ws/x", ""));
    until("a failed accept", || logged(&proxy, "\"a connection could not be accepted"));
    old.send(frame(0x81, b"still there?", true));
    assert_eq!(old.talk(true).unwrap().1, b"still there?");
    drop(hogs);
    let (status, head) = new.head();
    assert_eq!(status, 101, "{head}");
    assert_eq!(proxy.admin("GET", "/health/live", &[], "").0, 200);
    proxy.assert_sound();
}

#[test]
fn plain_requests_and_what_they_keep_open_leave_descriptors_for_the_operator() {
    let mut proxy = Proxy::limited("threads = 2", DESCRIPTORS);
    let backend = Backend::start(|mut peer, _, _| {
        // Each answer keeps its connection, so that the proxy has it to spare.
        loop {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            if peer.try_head().is_none() {
                return;
            }
        }
    });
    proxy.register(backend.address);
    let mut crowd: Vec<Raw> = (0..CROWD).map(|_| Raw::to(proxy.public)).collect();
    for client in &mut crowd {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    for mut client in crowd {
        let (status, head) = client.head();
        assert_eq!(status, 200, "{head}");
        assert_eq!(proxy.admin("GET", "/health/live", &[], "").0, 200, "a new operator gets through");
    }
    proxy.assert_sound();
}
