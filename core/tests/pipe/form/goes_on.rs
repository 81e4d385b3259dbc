//! How each of the frozen pipes goes on: what both sides had sent arrives, whole and once, and the pipe ends.

use super::*;

/// Both sides say one more thing, and goodbye.
fn ends(bench: &mut Bench) {
    bench.client_says("the last word up");
    bench.worker_says("the last word down");
    assert_eq!(bench.worker_got().last(), Some(&text("the last word up")));
    assert_eq!(bench.client_got().last(), Some(&text("the last word down")));
    bench.client_closes(1000, "bye");
    assert_eq!(bench.worker_got(), [closed(1000, "bye")]);
    bench.worker_closes(1000, "bye");
    assert_eq!(bench.client_got(), [closed(1000, "bye")]);
}

fn let_all_through(bench: &mut Bench) {
    bench.set_room(Side::Client, usize::MAX);
    bench.set_room(Side::Backend, usize::MAX);
    bench.pump();
}

pub fn attached(bench: &mut Bench) {
    let_all_through(bench);
    assert_eq!(bench.worker_got(), texts(&["half of this is written"]));
    assert_eq!(bench.client_got(), texts(&["and of this"]));
    bench.client_sends(&wire::frame(0x01, b"half of this was sent", Some([1, 2, 3, 4]))[11..]);
    bench.client_frame(0x80, b", and the rest");
    bench.worker_sends(&wire::frame(0x81, b"and of this too", None)[3..]);
    assert_eq!(bench.worker_got(), texts(&["half of this was sent, and the rest"]));
    assert_eq!(bench.client_got(), texts(&["and of this too"]));
    // The pings were on their way when it was frozen.
    bench.worker_pongs();
    bench.client_pongs();
    let view = bench.pipe.view();
    assert_eq!((view.up.confirmed.0, view.down.confirmed.0), (2, 2));
    ends(bench);
}

pub fn detached(bench: &mut Bench) {
    bench.wait(secs(10));
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&["in doubt", "waits"]));
    ends(bench);
}

pub fn settling(bench: &mut Bench) {
    bench.settle();
    bench.wait(secs(2));
    assert_eq!(bench.worker_got(), [closed(1001, "moving to another worker")]);
    parting(bench);
}

pub fn parting(bench: &mut Bench) {
    bench.worker_says("still to be said");
    bench.worker_closes(1001, "");
    assert_eq!(bench.client_got(), texts(&["still to be said"]));
    bench.attach(B);
    ends(bench);
}

pub fn farewell(bench: &mut Bench) {
    bench.operator(|pipe, now| pipe.pool_changed(now));
    bench.attach(B);
    assert_eq!(bench.worker_got(), [text("the last one"), closed(1000, "bye")]);
    bench.worker_closes(1000, "");
}

pub fn playing(bench: &mut Bench) {
    let_all_through(bench);
    assert_eq!(bench.worker_got(), [], "the rest waits for the answer to what it was told first");
    bench.worker_says(r#"{"type":"connection_ack"}"#);
    assert_eq!(bench.client_got(), [], "the client has had that answer");
    let again = r#"{"type":"subscribe","id":"3","payload":{"query":"mutation{c}"}}"#;
    assert!(bench.worker_got().contains(&text(again)));
    ends(bench);
}

pub fn labelled(bench: &mut Bench) {
    let labels = bench.pipe.labels().map(|labels| labels.iter().map(|(key, _)| key.to_owned()).collect::<Vec<_>>());
    assert_eq!(labels, Some(vec!["room".to_owned(), "vip".to_owned()]));
    ends(bench);
}

pub fn away(bench: &mut Bench) {
    assert!(bench.client_attaches());
    assert_eq!(bench.client_got(), texts(&["in doubt", "kept"]));
    ends(bench);
}

pub fn away_and_ended(bench: &mut Bench) {
    assert!(bench.client_attaches());
    assert_eq!(bench.client_got(), [text("in doubt"), text("kept"), closed(4001, "done")]);
    bench.client_closes(4001, "");
}

pub fn greeted(bench: &mut Bench) {
    let_all_through(bench);
    assert_eq!(bench.client_got(), texts(&["3;half of this is written", "4;waits"]));
    bench.client_says("5;three");
    assert_eq!(bench.worker_got(), texts(&["three"]));
    bench.client_vanishes();
    assert_eq!(aware::comes_back(bench, 1, aware::position(2, [5, 6])), Ok(Generation(2)));
    let resumed = r#"!{"t":"resumed","epoch":5,"gen":2,"token":"t2","rx":5,"tx":[3,5],"custody":"proxy"}"#;
    let live = r#"!{"t":"live"}"#;
    assert_eq!(bench.client_got(), texts(&[resumed, "3;half of this is written", "4;waits", live]));
    fin(bench, 5, 4);
}

pub fn greeted_away(bench: &mut Bench) {
    bench.operator(|pipe, now| pipe.pool_changed(now));
    bench.attach(B);
    assert_eq!(aware::comes_back(bench, 1, aware::position(0, [2, 2])), Ok(Generation(2)));
    let told = bench.client_got();
    let gap = text(r#"!{"t":"gap","lane":"up","from":1,"count":1,"bytes":null,"why":"backend-lost"}"#);
    assert!(told.contains(&gap) && told.contains(&text("1;a")), "{told:?}");
    bench.client_says("2;two");
    assert_eq!(bench.worker_got(), texts(&["two"]));
    fin(bench, 2, 1);
}

/// A client that has sent and received so many messages ends the conversation.
fn fin(bench: &mut Bench, sent: u64, received: u64) {
    bench.client_says(&format!(r#"!{{"t":"ack","n":{received}}}"#));
    bench.client_says(&format!(r#"!{{"t":"fin","code":1000,"reason":"bye","n":{sent}}}"#));
    assert_eq!(bench.worker_got(), [closed(1000, "bye")]);
    bench.worker_closes(1000, "bye");
    assert_eq!(bench.client_got().last(), Some(&closed(1000, "bye")));
    bench.client_closes(1000, "");
}

pub fn numbered(bench: &mut Bench) {
    let_all_through(bench);
    assert_eq!(bench.worker_got(), texts(&["2;half of this is written"]));
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&[&numbered::hello_again(1, [2, 3])]));
    bench.worker_says(r#"!{"t":"resumed","rx":1}"#);
    assert_eq!(bench.worker_got(), texts(&["2;half of this is written"]));
    bench.worker_says(r#"!{"t":"ack","n":2}"#);
    bench.client_closes(1000, "bye");
    let told = bench.worker_got();
    assert!(told.contains(&text(r#"!{"t":"fin","code":1000,"reason":"bye","n":2}"#)), "{told:?}");
    bench.worker_closes(1000, "bye");
    assert_eq!(bench.client_got().last(), Some(&closed(1000, "bye")));
}
