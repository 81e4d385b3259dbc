//! While both legs are there: messages whole and in order, control frames hop by hop.

use holdline_core::frame::Side;
use holdline_core::ids::{Attachment, LaneName, Seq};
use holdline_core::leg::barrier::Level;
use holdline_core::pipe::{Action, EndedBy, Fact, Input, LinkLoss, Loss, Peer, PipeState, ResumeAnswer};

use crate::bench::{B, Bench, closed, ms, secs, text, texts};
use crate::wire::{self, Item};

#[test]
fn messages_pass_both_ways_with_opcode_bytes_and_boundaries_ib_01() {
    let mut bench = Bench::new();
    bench.client_says("tap 1");
    bench.client_frame(0x82, &[0, 255, 7]);
    bench.client_says("");
    bench.worker_says("frame 1");
    bench.worker_frame(0x82, &vec![9; 70_000]);
    assert_eq!(bench.worker_got(), [text("tap 1"), Item::Binary(vec![0, 255, 7]), text("")]);
    assert_eq!(bench.client_got(), [text("frame 1"), Item::Binary(vec![9; 70_000])]);
    assert_eq!(bench.state(), PipeState::Attached);
}

#[test]
fn a_message_is_the_same_however_its_bytes_are_cut() {
    let whole =
        [wire::frame(0x81, b"cut anywhere", Some([1, 2, 3, 4])), wire::frame(0x82, &[5; 300], Some([0; 4]))].concat();
    for cut in 1..whole.len() {
        let mut bench = Bench::new();
        bench.client_sends(&whole[..cut]);
        bench.client_sends(&whole[cut..]);
        assert_eq!(bench.worker_got(), [text("cut anywhere"), Item::Binary(vec![5; 300])], "{cut}");
    }
}

#[test]
fn a_message_that_came_in_shared_bytes_is_relayed_like_a_copied_one() {
    let mut bench = Bench::new();
    let bytes = bytes::Bytes::from(wire::frame(0x82, &vec![3; 40_000], None));
    bench.pipe.receive(bench.worker_peer(), Input::Share(&bytes), bench.now);
    bench.pump();
    assert_eq!(bench.client_got(), [Item::Binary(vec![3; 40_000])]);
}

#[test]
fn half_a_message_is_not_relayed() {
    let mut bench = Bench::new();
    let frame = wire::frame(0x81, b"whole or not at all", Some([9; 4]));
    let (last, start) = frame.split_last().unwrap();
    bench.client_sends(start);
    assert!(bench.pipe.gather(Side::Backend, bench.now).is_empty());
    bench.client_sends(&[*last]);
    assert_eq!(bench.worker_got(), [text("whole or not at all")]);
}

#[test]
fn a_fragmented_message_arrives_as_one_message() {
    let mut bench = Bench::new();
    bench.client_frame(0x01, b"one ");
    bench.client_frame(0x00, b"");
    bench.client_frame(0x00, b"two ");
    assert_eq!(bench.worker_got(), []);
    bench.client_frame(0x80, b"three");
    assert_eq!(bench.worker_got(), [text("one two three")]);
}

#[test]
fn control_frames_between_fragments_concern_their_own_hop_and_leave_the_message_whole() {
    let mut bench = Bench::new();
    bench.client_frame(0x01, b"he");
    bench.client_frame(0x89, b"are you there");
    bench.client_frame(0x80, b"llo");
    assert_eq!(bench.client_got(), [Item::Pong(b"are you there".to_vec())]);
    assert_eq!(bench.worker_got(), [text("hello")]);
    bench.worker_frame(0x02, &[1]);
    bench.worker_frame(0x89, b"and you");
    bench.worker_frame(0x8A, b"unsolicited");
    bench.worker_frame(0x80, &[2]);
    assert_eq!(bench.worker_got(), [Item::Pong(b"and you".to_vec())]);
    assert_eq!(bench.client_got(), [Item::Binary(vec![1, 2])]);
}

#[test]
fn pings_and_pongs_do_not_pass() {
    let mut bench = Bench::new();
    bench.client_frame(0x89, b"p");
    bench.client_frame(0x8A, b"q");
    assert_eq!(bench.client_got(), [Item::Pong(b"p".to_vec())]);
    assert_eq!(bench.worker_got(), []);
    bench.worker_frame(0x89, b"r");
    bench.worker_frame(0x8A, b"s");
    assert_eq!(bench.worker_got(), [Item::Pong(b"r".to_vec())]);
    assert_eq!(bench.client_got(), []);
}

#[test]
fn nothing_is_written_into_the_middle_of_a_message() {
    let mut bench = Bench::new();
    bench.set_room(Side::Client, 10);
    bench.worker_says("a message of thirty bytes or so");
    bench.client_frame(0x89, b"ping");
    bench.set_room(Side::Client, usize::MAX);
    bench.pump();
    assert_eq!(bench.client_got(), [text("a message of thirty bytes or so"), Item::Pong(b"ping".to_vec())]);
}

#[test]
fn a_peer_that_pings_without_reading_gets_a_pong_for_its_last_ping_and_no_memory_without_end() {
    let mut bench = Bench::new();
    bench.set_room(Side::Client, 0);
    for count in 0..10_000_u32 {
        bench.client_frame(0x89, &count.to_be_bytes());
    }
    assert!(bench.pipe.view().memory_bytes < 64 << 10, "{}", bench.pipe.view().memory_bytes);
    bench.set_room(Side::Client, usize::MAX);
    bench.pump();
    assert_eq!(bench.client_got().last(), Some(&Item::Pong(9_999_u32.to_be_bytes().to_vec())));
}

#[test]
fn a_barrier_ping_follows_the_data_and_its_pong_confirms_it() {
    let mut bench = Bench::new();
    for tap in 0..15 {
        bench.client_says(&tap.to_string());
    }
    assert_eq!(bench.pings.len(), 0, "fifteen messages are not worth one yet");
    bench.client_says("15");
    assert_eq!(bench.pings.len(), 1);
    assert_eq!(bench.pipe.view().up.confirmed.0, 0);
    bench.client_says("16");
    bench.wait(secs(1));
    assert_eq!(bench.pings.len(), 1, "one outstanding at most");
    bench.worker_pongs();
    assert_eq!(bench.pipe.view().up.confirmed.0, 16);
    bench.settle();
    assert_eq!(bench.pipe.view().up.confirmed.0, 17);
    assert_eq!(bench.pipe.view().up.buffered_bytes, 0);
}

#[test]
fn an_idle_pipe_sends_no_barrier_ping() {
    let mut bench = Bench::new();
    bench.worker_says("only downwards");
    bench.wait(secs(10));
    assert_eq!(bench.pings.len(), 0);
    assert!(bench.pipe.deadline().unwrap() >= bench.now + secs(5));
}

#[test]
fn a_pong_that_answers_no_ping_of_ours_confirms_nothing() {
    let mut bench = Bench::new();
    bench.client_says("x");
    bench.wait(ms(25));
    let mut forged = bench.pings[0].clone();
    forged[7] ^= 1;
    for payload in [&forged[..], b"", b"A", b"A1x", b"A-1", b"B1"] {
        bench.worker_frame(0x8A, payload);
    }
    assert_eq!(bench.pipe.view().up.confirmed.0, 0);
}

#[test]
fn a_commit_raises_the_level_until_a_pong_confirms_more_than_the_application_has() {
    let mut bench = Bench::new();
    let level = |bench: &Bench| (bench.pipe.view().up.confirmed, bench.pipe.view().up.level);
    bench.client_says("one");
    bench.worker_frame(0x8A, b"A0");
    assert_eq!(level(&bench), (Seq(0), Level::Pong), "nothing is committed");
    bench.worker_frame(0x8A, b"A1");
    assert_eq!(level(&bench), (Seq(1), Level::App));
    bench.settle();
    assert_eq!(level(&bench), (Seq(1), Level::App), "a late pong takes nothing back");
    bench.client_says("two");
    bench.settle();
    assert_eq!(level(&bench), (Seq(2), Level::Pong));
    bench.worker_frame(0x8A, b"A1");
    assert_eq!(level(&bench), (Seq(2), Level::Pong), "the application has not got so far");
    assert_eq!(bench.pipe.commit(Attachment::FIRST, Seq(9), bench.now), Some(Seq(2)));
    assert_eq!(level(&bench), (Seq(2), Level::App), "by another way");
    bench.worker_dies(LinkLoss::Eof);
    assert_eq!(bench.dial().level, Level::App);
    bench.attach_with(B, Some(ResumeAnswer::New));
    assert_eq!(level(&bench), (Seq(2), Level::Pong), "another worker, which has said nothing");
    bench.worker_dies(LinkLoss::Eof);
    bench.attach_with(B, Some(ResumeAnswer::Ok(Seq(2))));
    assert_eq!(level(&bench), (Seq(2), Level::App), "it has what came before");
}

#[test]
fn a_commit_pong_confirms_up_to_its_number_and_not_beyond_what_was_sent() {
    let mut bench = Bench::new();
    for tap in ["1", "2", "3"] {
        bench.client_says(tap);
    }
    bench.worker_frame(0x8A, b"A2");
    assert_eq!(bench.pipe.view().up.confirmed.0, 2);
    bench.worker_frame(0x8A, b"A1");
    assert_eq!(bench.pipe.view().up.confirmed.0, 2, "it never goes back");
    bench.worker_frame(0x8A, b"A99999999999");
    assert_eq!(bench.pipe.view().up.confirmed.0, 3);
    bench.worker_frame(0x8A, b"A99999999999999999999999999");
    assert_eq!(bench.state(), PipeState::Attached);
}

#[test]
fn a_message_over_the_limit_gets_its_sender_1009_and_nobody_else() {
    let mut bench = Bench::with(|settings| settings.message_bytes_max = 100);
    bench.client_frame(0x82, &[1; 100]);
    assert_eq!(bench.worker_got(), [Item::Binary(vec![1; 100])]);
    bench.client_sends(&wire::frame(0x82, &[1; 101], Some([0; 4]))[..10]);
    assert_eq!(bench.client_got(), [closed(1009, "message too big")]);
    assert_eq!(bench.worker_got(), [closed(1001, "client at fault")]);
}

#[test]
fn a_message_too_big_in_parts_is_too_big() {
    let mut bench = Bench::with(|settings| settings.message_bytes_max = 100);
    bench.client_frame(0x02, &[1; 60]);
    bench.client_frame(0x00, &[1; 40]);
    bench.client_frame(0x00, &[]);
    assert_eq!(bench.client_got(), []);
    bench.client_frame(0x80, &[1; 1]);
    assert_eq!(bench.client_got(), [closed(1009, "message too big")]);
    assert_eq!(bench.worker_got(), [closed(1001, "client at fault")], "and no half message");
}

#[test]
fn a_workers_message_that_is_too_big_is_counted_as_lost_and_ends_the_pipe_with_1009() {
    for returns in [false, true] {
        let mut bench = Bench::with(|settings| {
            settings.message_bytes_max = 100;
            settings.client_grace = returns.then(|| secs(60));
        });
        bench.worker_says("small");
        bench.worker_sends(&wire::frame(0x82, &[1; 101], None)[..4]);
        assert_eq!(bench.last_words[0].1, [closed(1009, "message too big")]);
        assert_eq!(bench.client_got(), [text("small"), closed(1009, "message too big")]);
        let lost = Fact::Lost { lane: LaneName::Down, reason: Loss::TooBig, messages: 1 };
        assert!(bench.facts.contains(&lost), "{:?}", bench.facts);
        let ended = Fact::Ended { by: EndedBy::Backend, code: 1009, reason: "message too big".to_owned() };
        assert!(bench.facts.contains(&ended), "{:?}", bench.facts);
        assert!(!bench.is_dialing(), "the next worker would send it too");
        bench.client_closes(1009, "");
        assert!(bench.is_finished());
    }
}

#[test]
fn a_worker_that_breaks_a_rule_is_told_so_and_replaced() {
    let mut bench = Bench::new();
    bench.worker_sends(&[0x83, 0]);
    assert_eq!(bench.last_words[0].1, [closed(1002, "reserved opcode")]);
    assert_eq!(bench.client_got(), []);
    bench.dial();
}

#[test]
fn a_control_frame_of_a_client_may_come_unmasked_and_is_counted_but_no_message_may() {
    let mut bench = Bench::new();
    bench.wait(secs(30));
    for split in [1, 3] {
        let pong = wire::frame(0x8A, b"holdline", None);
        bench.client_sends(&pong[..split]);
        bench.client_sends(&pong[split..]);
    }
    bench.client_sends(&wire::frame(0x89, b"there?", None));
    assert_eq!(bench.client_got(), [Item::Pong(b"there?".to_vec())]);
    assert_eq!(bench.facts.iter().filter(|fact| **fact == Fact::Unmasked).count(), 3);
    bench.client_says("masked");
    assert_eq!(bench.worker_got(), [text("masked")]);
    bench.client_sends(&wire::frame(0x81, b"unmasked", None));
    assert_eq!(bench.client_got(), [closed(1002, "client frame not masked")]);

    let mut bench = Bench::new();
    bench.client_sends(&wire::frame(0x88, &wire::close_payload(1000, "bye"), None));
    assert_eq!(bench.worker_got(), [closed(1000, "bye")]);
}

#[test]
fn a_message_of_too_many_fragments_ends_its_sender() {
    let mut bench = Bench::with(|settings| settings.fragments_max = 3);
    bench.client_frame(0x01, b"1");
    bench.client_frame(0x00, b"2");
    bench.client_frame(0x80, b"3");
    assert_eq!(bench.worker_got(), [text("123")]);
    bench.client_frame(0x01, b"1");
    bench.client_frame(0x00, b"2");
    bench.client_frame(0x00, b"3");
    bench.client_frame(0x80, b"4");
    assert_eq!(bench.client_got(), [closed(1008, "too many fragments")]);
}

/// First byte, rest: what no client may send.
fn violations() -> Vec<(Vec<u8>, &'static str)> {
    vec![
        (vec![0xC1, 0x80], "reserved bit set without an extension"),
        (vec![0x83, 0x80], "reserved opcode"),
        (vec![0x81, 0x01, b'x'], "client frame not masked"),
        (vec![0x89, 0xFE, 0, 126], "control frame over 125 bytes"),
        (vec![0x09, 0x80], "fragmented control frame"),
        (vec![0x81, 0xFE, 0, 1], "length not in shortest form"),
        (vec![0x81, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0], "length over 2^63"),
        (wire::frame(0x80, b"", Some([0; 4])), "continuation without a message"),
        (
            [wire::frame(0x01, b"a", Some([0; 4])), wire::frame(0x81, b"b", Some([0; 4]))].concat(),
            "new message inside another",
        ),
        (wire::frame(0x88, &[3], Some([0; 4])), "malformed close frame"),
        (wire::frame(0x88, &[3, 237], Some([0; 4])), "malformed close frame"),
    ]
}

#[test]
fn a_client_that_breaks_rfc_6455_gets_1002_and_its_worker_1001() {
    for (bytes, reason) in violations() {
        let mut bench = Bench::new();
        bench.client_says("before");
        bench.client_sends(&bytes);
        bench.client_says("after");
        assert_eq!(bench.client_got(), [closed(1002, reason)]);
        assert_eq!(bench.worker_got(), [text("before"), closed(1001, "client at fault")], "{reason}");
        assert!(bench.orders().contains(&Action::ShutdownClient), "{reason}");
        bench.worker_closes(1001, "");
        bench.client_vanishes();
        assert!(bench.is_finished(), "{reason}");
    }
}

#[test]
fn a_worker_that_breaks_rfc_6455_is_told_1002_and_replaced() {
    for (bytes, reason) in [
        (vec![0xC1, 0x00], "reserved bit set without an extension"),
        (vec![0x81, 0x81, 0, 0, 0, 0, b'x'], "server frame masked"),
        (vec![0x80, 0x00], "continuation without a message"),
        (vec![0x88, 0x02, 3, 237], "malformed close frame"),
    ] {
        let mut bench = Bench::new();
        bench.worker_says("before");
        bench.worker_sends(&bytes);
        assert_eq!(bench.client_got(), [text("before")]);
        assert_eq!(bench.last_words[0].1, [closed(1002, reason)]);
        bench.dial();
        assert_eq!(bench.state(), PipeState::Detached);
    }
}

#[test]
fn a_slow_reader_pauses_its_sender_and_loses_nothing() {
    let mut bench = Bench::with(|settings| settings.window_bytes = 1000);
    bench.set_room(Side::Backend, 0);
    while bench.pipe.read_budget(Side::Client, usize::MAX) > 0 {
        bench.client_frame(0x82, &[1; 78]);
    }
    assert_eq!(bench.pipe.view().up.accepted.0, 10, "a hundred bytes each, with header and overhead");
    bench.set_room(Side::Backend, usize::MAX);
    bench.pump();
    assert_eq!(bench.pipe.read_budget(Side::Client, usize::MAX), 0, "sent is not confirmed");
    bench.settle();
    assert!(bench.pipe.read_budget(Side::Client, usize::MAX) > 0);
    assert_eq!(bench.worker_got().len(), 10);
}

#[test]
fn a_pipe_is_read_a_little_even_when_the_process_has_no_room_left() {
    let bench = Bench::new();
    assert!(bench.pipe.read_budget(Side::Client, 0) > 0);
    assert!(bench.pipe.read_budget(Side::Backend, 0) > 0);
}

#[test]
fn a_slow_worker_does_not_make_the_pipe_spin() {
    let mut bench = Bench::new();
    bench.client_says("sent");
    bench.set_room(Side::Backend, 0);
    for tap in 0..40 {
        bench.client_says(&format!("waits {tap}"));
    }
    bench.wait(secs(5));
    bench.set_room(Side::Backend, usize::MAX);
    bench.pump();
    bench.settle();
    bench.settle();
    assert_eq!(bench.pipe.view().up.confirmed.0, 41);
}

#[test]
fn a_backlog_that_the_worker_takes_slowly_is_confirmed_on_the_way() {
    let mut bench = Bench::new();
    bench.set_room(Side::Backend, 0);
    for _ in 0..40 {
        bench.client_frame(0x82, &[1; 5_000]);
    }
    bench.set_room(Side::Backend, 50_000);
    bench.pump();
    bench.set_room(Side::Backend, 50_000);
    bench.pump();
    bench.settle();
    let up = bench.pipe.view().up;
    assert!(up.sent.0 < 40, "most of it still waits: {up:?}");
    assert!(up.confirmed.0 >= 9, "and what the worker has read is confirmed: {up:?}");
}

#[test]
fn bytes_for_an_attach_that_is_no_longer_current_change_nothing() {
    let mut bench = Bench::new();
    let old = bench.worker_peer();
    bench.worker_dies(holdline_core::pipe::LinkLoss::Eof);
    bench.attach(crate::bench::B);
    let late = wire::frame(0x81, b"late", None);
    bench.pipe.receive(old, Input::Copy(&late), bench.now);
    bench.pump();
    assert_eq!(bench.client_got(), []);
    bench.worker_says("new");
    bench.pipe.receive(Peer::Backend(holdline_core::ids::Attachment(99)), Input::Copy(&late), bench.now);
    bench.pump();
    assert_eq!(bench.client_got(), texts(&["new"]));
}
