//! Out of descriptors: accepting goes on when there are some again, and the operator gets through all the while.

use crate::rig::{Backend, Proxy, Raw, connected, frame, until};

#[test]
fn without_descriptors_the_admin_api_answers_and_accepting_survives() {
    let mut proxy = Proxy::limited("threads = 2", 64);
    let backend = Backend::echo();
    proxy.register(backend.address);
    let mut old = connected(&proxy);
    let mut operator = Raw::to(proxy.admin);
    let live = format!("GET /health/live HTTP/1.1\r\nHost: {}\r\n\r\n", proxy.admin);
    operator.send(&live);
    let (status, head) = operator.head();
    assert_eq!(status, 200);
    operator.body(&head);
    let crowd: Vec<Raw> = (0..200).map(|_| Raw::to(proxy.public)).collect();
    until("the last descriptor", || {
        let used = operator_reads(&mut operator, &live);
        assert_eq!(used, 200);
        proxy.descriptors() >= 60
    });
    old.send(frame(0x81, b"still there?", true));
    assert_eq!(old.talk(true).unwrap().1, b"still there?");
    assert_eq!(operator_reads(&mut operator, &live), 200, "a connection that the operator has");
    drop(crowd);
    until("room", || proxy.descriptors() < 40);
    let mut new = connected(&proxy);
    new.send(frame(0x81, b"hello", true));
    assert_eq!(new.talk(true).unwrap().1, b"hello");
    proxy.assert_sound();
}

fn operator_reads(operator: &mut Raw, request: &str) -> u16 {
    operator.send(request);
    let (status, head) = operator.head();
    operator.body(&head);
    status
}

#[test]
fn a_new_operator_gets_through_a_crowd() {
    let mut proxy = Proxy::limited("threads = 2", 64);
    let crowd: Vec<Raw> = (0..200).map(|_| Raw::to(proxy.public)).collect();
    until("the last descriptor", || proxy.descriptors() >= 60);
    assert_eq!(proxy.admin("GET", "/health/live", &[], "").0, 200);
    drop(crowd);
    proxy.assert_sound();
}
