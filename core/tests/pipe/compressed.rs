//! Where both peers have agreed on compression: each message goes on as it was compressed, over every link there is.

use holdline_core::conversation::{Conversation, ConversationKind};
use holdline_core::pipe::LinkLoss;
use holdline_core::time::Time;

use crate::bench::{B, Bench, closed, secs, text, texts};
use crate::wire::{self, Item};

fn bench() -> Bench {
    let mut bench = Bench::with(|settings| settings.client_grace = Some(secs(60)));
    bench.pipe.allow_compressed();
    bench
}

fn client_compresses(bench: &mut Bench, payload: &str) {
    let (first, payload) = wire::compressed(0x81, payload.as_bytes());
    bench.client_frame(first, &payload);
}

fn worker_compresses(bench: &mut Bench, payload: &str) {
    let (first, payload) = wire::compressed(0x81, payload.as_bytes());
    bench.worker_frame(first, &payload);
}

#[test]
fn compressed_and_plain_messages_pass_both_ways_as_they_are() {
    let mut bench = bench();
    client_compresses(&mut bench, "up");
    bench.client_says("plain");
    worker_compresses(&mut bench, "down");
    bench.worker_says("plain");
    let (first, payload) = wire::compressed(0x02, &[7; 300]);
    let (start, end) = payload.split_at(100);
    bench.worker_frame(first, start);
    bench.worker_frame(0x89, b"between");
    bench.worker_frame(0x80, end);
    assert_eq!(bench.worker_got(), [text("up"), text("plain"), Item::Pong(b"between".to_vec())]);
    assert_eq!(bench.client_got(), [text("down"), text("plain"), Item::Binary(vec![7; 300])]);
}

#[test]
fn a_compressed_message_counts_by_what_it_takes_on_the_wire() {
    let mut bench = Bench::with(|settings| settings.message_bytes_max = 10);
    bench.pipe.allow_compressed();
    client_compresses(&mut bench, "0123456789");
    assert_eq!(bench.worker_got(), [text("0123456789")]);
    client_compresses(&mut bench, "0123456789a");
    assert_eq!(bench.client_got(), [closed(1009, "message too big")]);
}

#[test]
fn only_the_first_frame_of_a_message_may_say_that_it_is_compressed() {
    let reason = "reserved bit set without an extension";
    for bytes in [vec![0xC9, 0x80], vec![0xC8, 0x80], vec![0xC0, 0x80], vec![0xD1, 0x80], vec![0xA1, 0x80]] {
        let mut bench = bench();
        bench.client_frame(0x01, b"begun");
        bench.client_sends(&bytes);
        assert_eq!(bench.client_got(), [closed(1002, reason)], "{bytes:02x?}");
        let mut bench = self::bench();
        bench.worker_sends(&[bytes[0], 0]);
        assert_eq!(bench.last_words[0].1, [closed(1002, reason)], "{bytes:02x?}");
    }
}

#[test]
fn the_next_worker_gets_what_is_unconfirmed_as_it_was_compressed_and_may_compress_too() {
    let mut bench = bench();
    client_compresses(&mut bench, "confirmed");
    bench.settle();
    client_compresses(&mut bench, "in doubt");
    bench.worker_dies(LinkLoss::Reset);
    client_compresses(&mut bench, "waits");
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&["in doubt", "waits"]));
    worker_compresses(&mut bench, "answer");
    assert_eq!(bench.client_got(), texts(&["answer"]));
}

#[test]
fn a_client_that_comes_back_may_compress_as_before() {
    let mut bench = bench();
    worker_compresses(&mut bench, "in doubt");
    bench.client_vanishes();
    worker_compresses(&mut bench, "kept");
    assert!(bench.client_attaches());
    client_compresses(&mut bench, "again");
    assert_eq!(bench.client_got(), texts(&["in doubt", "kept"]));
    assert_eq!(bench.worker_got(), texts(&["again"]));
}

#[test]
fn what_was_agreed_on_goes_with_the_pipe_to_another_process() {
    let mut bench = bench();
    let (first, payload) = wire::compressed(0x81, b"half of this was sent");
    let up = wire::frame(first, &payload, Some([1, 2, 3, 4]));
    bench.client_sends(&up[..11]);
    let (first, payload) = wire::compressed(0x81, b"and of this");
    let down = wire::frame(first, &payload, None);
    bench.worker_sends(&down[..1]);
    bench.hand_over(Time::from_micros(1_000), secs(0));
    bench.client_sends(&up[11..]);
    bench.worker_sends(&down[1..]);
    client_compresses(&mut bench, "later");
    assert_eq!(bench.worker_got(), texts(&["half of this was sent", "later"]));
    assert_eq!(bench.client_got(), texts(&["and of this"]));
    bench.worker_dies(LinkLoss::Eof);
    bench.attach(B);
    worker_compresses(&mut bench, "of the next");
    assert_eq!(bench.client_got(), texts(&["of the next"]));
}

#[test]
fn a_first_message_shows_what_it_does_however_it_is_sent_and_no_profile_is_played_that_could_not_read_on() {
    let open = br#"0{"sid":"a"}"#;
    let len = open.len() as u8;
    // A stored block of DEFLATE, and the beginning of the empty one that ends a message.
    let stored = [&[0, len, 0, !len, 0xFF][..], open, &[0]].concat();
    for (first, payload) in [(0xC1, &stored[..]), (0x81, &open[..])] {
        let mut bench = bench();
        bench.operator(|pipe, _| pipe.converse(Conversation::Undecided, "unknown"));
        bench.worker_frame(first, payload);
        assert_eq!(bench.pipe.conversation(), (ConversationKind::Stateful, None));
        assert_eq!(bench.client_got().len(), 1, "it passes as it came");
    }
    let mut bench = bench();
    bench.operator(|pipe, _| pipe.converse(Conversation::Undecided, "unknown"));
    worker_compresses(&mut bench, "no DEFLATE at all");
    assert_eq!(bench.pipe.conversation(), (ConversationKind::Stateless, None));
}
