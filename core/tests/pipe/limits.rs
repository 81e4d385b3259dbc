//! Overflow and slow readers: each bound at its edge.

use std::time::Duration;

use holdline_core::frame::Side;
use holdline_core::ids::LaneName;
use holdline_core::pipe::{Fact, LinkLoss, Loss, PipeState};
use holdline_core::replay::MESSAGE_OVERHEAD_BYTES;
use holdline_core::settings::{DownPolicy, OnTooBig, OverflowPolicy, PipeSettings};

use crate::bench::{B, Bench, closed, ms, secs, text, texts};
use crate::wire::{self, Item};

const L: usize = 1000;

/// A client's binary message that is charged exactly so much.
fn charged(bytes: usize) -> Vec<u8> {
    let header = if bytes < 126 + 22 { 6 } else { 8 };
    vec![1; bytes - MESSAGE_OVERHEAD_BYTES - header]
}

fn limited(overflow: OverflowPolicy) -> Bench {
    let mut bench = Bench::with(|settings: &mut PipeSettings| {
        settings.replay_bytes_max = L;
        settings.overflow = overflow;
    });
    bench.worker_dies(LinkLoss::Eof);
    bench
}

#[test]
fn exactly_the_limit_survives_and_one_byte_more_closes_with_1013_iw_06() {
    let mut bench = limited(OverflowPolicy::Close);
    bench.client_frame(0x82, &charged(400));
    bench.client_frame(0x82, &charged(600));
    assert_eq!(bench.client_got(), []);
    bench.attach(B);
    assert_eq!(bench.worker_got(), [Item::Binary(charged(400)), Item::Binary(charged(600))]);

    let mut bench = limited(OverflowPolicy::Close);
    bench.client_frame(0x82, &charged(400));
    bench.client_frame(0x82, &charged(601));
    assert_eq!(bench.client_got(), [closed(1013, "replay buffer overflow")]);
    assert!(bench.facts.contains(&Fact::Overflowed(OverflowPolicy::Close)));
    assert!(bench.facts.contains(&Fact::Lost { lane: LaneName::Up, reason: Loss::Overflow, messages: 2 }));
    bench.client_closes(1013, "");
    assert!(bench.is_finished());
}

#[test]
fn the_limit_counts_every_byte_that_is_held_the_headers_of_empty_fragments_too() {
    const HEADER: usize = 6;
    for payload in [0, 1, 10] {
        let mut bench = limited(OverflowPolicy::Close);
        let fragments = (L - MESSAGE_OVERHEAD_BYTES) / (HEADER + payload);
        bench.client_frame(0x02, &vec![1; payload]);
        for _ in 2..fragments {
            bench.client_frame(0x00, &vec![1; payload]);
            assert_eq!(bench.client_got(), []);
        }
        bench.client_frame(0x80, &vec![1; payload]);
        assert_eq!(bench.client_got(), [], "{fragments} fragments of {payload} bytes are at the limit");
        let charged = bench.pipe.charged_bytes();
        assert_eq!(charged, fragments * (HEADER + payload) + MESSAGE_OVERHEAD_BYTES);
        bench.client_frame(0x82, &[1; 17]);
        assert_eq!(bench.client_got(), [closed(1013, "replay buffer overflow")]);
    }
}

#[test]
fn empty_fragments_fill_the_window_of_a_worker_that_confirms_nothing() {
    let mut bench = Bench::with(|settings| settings.window_bytes = L);
    bench.set_room(Side::Backend, 0);
    for _ in 0..2 {
        bench.client_frame(0x02, &[]);
        (0..100).for_each(|_| bench.client_frame(0x00, &[]));
        assert!(bench.pipe.read_budget(Side::Client, usize::MAX) > 0, "what is not whole may become so");
        bench.client_frame(0x80, &[]);
    }
    assert_eq!(bench.pipe.read_budget(Side::Client, usize::MAX), 0);
    assert_eq!(bench.pipe.charged_bytes(), 2 * (102 * 6 + MESSAGE_OVERHEAD_BYTES));
}

#[test]
fn a_message_that_is_not_whole_counts_too() {
    let mut bench = limited(OverflowPolicy::Close);
    let frame = wire::frame(0x82, &[1; 5000], Some([0; 4]));
    bench.client_sends(&frame[..900]);
    assert_eq!(bench.client_got(), []);
    bench.client_sends(&frame[900..1200]);
    assert_eq!(bench.client_got(), [closed(1013, "replay buffer overflow")]);
}

#[test]
fn empty_messages_do_not_pile_up_for_free() {
    let mut bench = limited(OverflowPolicy::Close);
    for _ in 0..L / (6 + MESSAGE_OVERHEAD_BYTES) {
        bench.client_says("");
    }
    assert_eq!(bench.client_got(), []);
    bench.client_says("");
    assert_eq!(bench.client_got(), [closed(1013, "replay buffer overflow")]);
}

#[test]
fn a_lane_that_held_a_crowd_of_small_messages_gives_its_list_back() {
    let mut bench = Bench::new();
    bench.set_room(Side::Client, 0);
    for n in 0..10_000 {
        bench.worker_sends(&[0x82, 1, n as u8]);
    }
    let full = bench.pipe.memory_bytes();
    assert!(full > 10_000 * 11, "{full}");
    bench.set_room(Side::Client, 3 * 9_990);
    bench.pump();
    assert_eq!(bench.pipe.view().down.accepted.0 - bench.pipe.view().down.sent.0, 10);
    let left = bench.pipe.memory_bytes();
    assert!(left < 20_000, "{left} bytes for ten messages of a byte");
}

#[test]
fn a_full_buffer_pauses_the_client_until_a_worker_takes_it_iw_06() {
    let mut bench = limited(OverflowPolicy::Pause);
    bench.client_frame(0x82, &charged(400));
    assert_eq!(bench.pipe.read_budget(Side::Client, usize::MAX), L - 400);
    bench.client_frame(0x82, &charged(592));
    bench.client_sends(&[0x82, 0xFE, 1, 0, 0, 0, 0, 0]);
    assert_eq!(bench.pipe.read_budget(Side::Client, usize::MAX), 0);
    bench.operator(|pipe, now| pipe.set_paused(Side::Client, true, now));
    assert!(bench.facts.contains(&Fact::ReadPaused(LaneName::Up)));
    assert!(bench.facts.contains(&Fact::Overflowed(OverflowPolicy::Pause)));
    bench.wait(secs(20));
    assert_eq!(bench.client_got(), [], "a pause of ours is not the client's fault");
    bench.attach(B);
    assert!(bench.pipe.read_budget(Side::Client, usize::MAX) > 0);
    bench.operator(|pipe, now| pipe.set_paused(Side::Client, false, now));
    bench.client_sends(&[7; 256]);
    assert_eq!(bench.worker_got().len(), 3);
}

#[test]
fn what_a_client_left_behind_that_was_not_read_is_read_up_to_as_much_again() {
    for worker_is_there in [true, false] {
        let mut bench = Bench::with(|settings| (settings.replay_bytes_max, settings.window_bytes) = (L, L));
        if !worker_is_there {
            bench.worker_dies(LinkLoss::Eof);
        }
        bench.client_frame(0x82, &[1; 600]);
        bench.client_frame(0x82, &[2; 400]);
        assert_eq!(bench.pipe.read_budget(Side::Client, usize::MAX), 0, "it is not read");
        bench.pipe.set_paused(Side::Client, true, bench.now);
        assert!(bench.pipe.leaves_client_unread() && !bench.pipe.has_client_left());
        bench.pipe.client_left();
        assert!(
            bench.pipe.read_budget(Side::Client, usize::MAX) > L / 2,
            "as much again, but for what is charged beside it"
        );
        assert_eq!(bench.pipe.read_budget(Side::Client, 0), 0, "the process has no room for it");
        bench.client_says("the last thing");
        bench.client_closes(1000, "bye");
        if !worker_is_there {
            bench.attach(B);
        }
        let got = bench.worker_got();
        assert_eq!(got[2..], [text("the last thing"), closed(1000, "bye")], "{worker_is_there}");
    }
}

#[test]
fn a_client_that_left_more_behind_than_may_be_held_is_not_read_to_its_end() {
    let mut bench = limited(OverflowPolicy::Pause);
    bench.client_frame(0x82, &[1; L]);
    bench.pipe.client_left();
    bench.client_frame(0x82, &[2; L]);
    assert!(bench.pipe.has_client_left());
    assert_eq!(bench.pipe.read_budget(Side::Client, usize::MAX), 0);
    bench.client_vanishes();
    assert!(bench.is_finished());
    assert_eq!((bench.pipe.view().up.lost, bench.pipe.charged_bytes()), (2, 0));
}

#[test]
fn a_slow_viewer_gets_the_newest_whole_frames_ib_16() {
    let mut bench = Bench::with(|settings| settings.down = DownPolicy::Latest(3.try_into().unwrap()));
    bench.set_room(Side::Client, 5);
    for frame in 0..100 {
        bench.worker_says(&format!("frame {frame}"));
    }
    assert_eq!(bench.pipe.view().down.dropped, 96);
    assert!(bench.pipe.read_budget(Side::Backend, usize::MAX) > 0, "the worker is never paused");
    bench.set_room(Side::Client, usize::MAX);
    bench.pump();
    assert_eq!(bench.client_got(), texts(&["frame 0", "frame 97", "frame 98", "frame 99"]));
    bench.worker_says("frame 100");
    assert_eq!(bench.client_got(), texts(&["frame 100"]));
}

#[test]
fn what_made_way_for_newer_messages_is_not_in_doubt_when_the_client_is_lost() {
    let mut bench = Bench::with(|settings| {
        settings.down = DownPolicy::Latest(1.try_into().unwrap());
        settings.client_grace = Some(secs(60));
    });
    bench.worker_says("taken");
    bench.set_room(Side::Client, 0);
    ["first", "second", "last"].into_iter().for_each(|said| bench.worker_says(said));
    bench.client_vanishes();
    assert_eq!(bench.pipe.view().down.in_doubt, 0);
}

#[test]
fn a_drop_spares_the_message_that_is_not_whole_yet() {
    let mut bench = Bench::with(|settings| settings.down = DownPolicy::Latest(1.try_into().unwrap()));
    bench.set_room(Side::Client, 0);
    let last = wire::frame(0x81, b"last", None);
    let bytes = [wire::frame(0x81, b"first", None), wire::frame(0x81, b"second", None), last[..3].to_vec()].concat();
    bench.worker_sends(&bytes);
    bench.worker_sends(&last[3..]);
    bench.set_room(Side::Client, usize::MAX);
    bench.pump();
    assert_eq!(bench.client_got(), texts(&["last"]));
}

#[test]
fn a_viewer_that_takes_nothing_for_too_long_is_closed_with_1013_and_costs_its_worker_nothing() {
    let mut bench = Bench::with(|settings| settings.window_bytes = 100);
    bench.set_room(Side::Client, 0);
    bench.worker_says("unread");
    bench.wait(ms(14_999));
    assert_eq!(bench.state(), PipeState::Attached);
    bench.wait(ms(1));
    assert_eq!(bench.worker_got(), [closed(1001, "client at fault")]);
    bench.set_room(Side::Client, usize::MAX);
    bench.pump();
    assert_eq!(bench.client_got(), [closed(1013, "client too slow")]);
    assert_eq!(bench.pipe.view().down.lost, 1);
}

#[test]
fn a_close_for_slowness_does_not_land_inside_a_half_written_message() {
    let mut bench = Bench::new();
    bench.set_room(Side::Client, 7);
    bench.worker_says("half of this was taken");
    bench.worker_says("none of this");
    bench.wait(secs(15));
    bench.set_room(Side::Client, usize::MAX);
    bench.pump();
    assert_eq!(bench.client_got(), [text("half of this was taken"), closed(1013, "client too slow")]);
    bench.client_closes(1013, "");
    bench.client_vanishes();
    assert_eq!(bench.pipe.view().down.lost, 1);
}

#[test]
fn a_workers_message_over_the_limit_is_lost_by_itself_where_the_route_keeps_the_pipe() {
    for piece in [usize::MAX, 7, 1] {
        let mut bench = Bench::with(|settings| {
            settings.message_bytes_max = 100;
            settings.on_too_big = OnTooBig::Drop;
        });
        let mut bytes = wire::frame(0x81, b"before", None);
        bytes.extend(wire::frame(0x02, &[b'x'; 60], None));
        bytes.extend(wire::frame(0x89, b"between", None));
        bytes.extend(wire::frame(0x00, &[b'x'; 41], None));
        bytes.extend(wire::frame(0x80, &[b'x'; 300], None));
        bytes.extend(wire::frame(0x81, b"after", None));
        for part in bytes.chunks(piece.min(bytes.len())) {
            bench.worker_sends(part);
            bench.hand_over(bench.now, Duration::ZERO);
            assert!(bench.pipe.charged_bytes() <= 60 + 6, "nothing of it is kept");
        }
        assert_eq!(bench.client_got(), texts(&["before", "after"]));
        assert_eq!(bench.worker_got(), [Item::Pong(b"between".to_vec())]);
        let lost = Fact::Lost { lane: LaneName::Down, reason: Loss::TooBig, messages: 1 };
        assert_eq!((bench.facts.as_slice(), bench.pipe.view().down.lost), (&[lost][..], 1), "by {piece}");
    }
}

#[test]
fn a_frame_that_would_never_end_is_refused_where_too_big_messages_are_lost_by_themselves() {
    let mut bench = Bench::with(|settings| settings.on_too_big = OnTooBig::Drop);
    bench.worker_sends(&[0x82, 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(bench.client_got(), [closed(1009, "message too big")]);
}

#[test]
fn a_viewer_that_takes_a_little_is_not_stalled() {
    let mut bench = Bench::with(|settings| settings.backend_heartbeat.interval = secs(0));
    bench.set_room(Side::Client, 0);
    bench.worker_frame(0x82, &[1; 100]);
    for _ in 0..50 {
        bench.wait(secs(10));
        bench.set_room(Side::Client, 2);
        bench.pump();
        bench.client_frame(0x8A, b"alive");
    }
    assert_eq!(bench.state(), PipeState::Attached);
}

#[test]
fn a_worker_is_paused_while_its_client_is_slow_and_read_again_when_it_is_not() {
    let mut bench = Bench::with(|settings| settings.window_bytes = 1000);
    bench.set_room(Side::Client, 0);
    bench.worker_frame(0x82, &[1; 979]);
    assert!(bench.pipe.read_budget(Side::Backend, usize::MAX) > 0);
    bench.worker_frame(0x82, &[1; 1]);
    assert_eq!(bench.pipe.read_budget(Side::Backend, usize::MAX), 0);
    bench.set_room(Side::Client, usize::MAX);
    bench.pump();
    assert!(bench.pipe.read_budget(Side::Backend, usize::MAX) > 0);
}

/// What a client may begin and never finish.
fn unfinished() -> [(&'static str, Vec<u8>); 5] {
    let mask = Some([1, 2, 3, 4]);
    [
        ("a first byte", vec![0x81]),
        ("a header without its mask", vec![0x81, 0xfe, 0, 200, 1]),
        ("half a payload", wire::frame(0x81, b"never whole", mask)[..9].to_vec()),
        ("a fragment", wire::frame(0x01, b"and then", mask)),
        ("half a ping", wire::frame(0x89, b"are you", mask)[..8].to_vec()),
    ]
}

#[test]
fn whatever_begins_and_is_not_finished_in_time_ends_its_leg() {
    for (what, start) in unfinished() {
        let mut bench = Bench::with(|settings| settings.message_incomplete_timeout = secs(3));
        bench.wait(secs(20));
        bench.client_sends(&start);
        bench.wait(ms(2_999));
        assert_eq!(bench.state(), PipeState::Attached, "{what}");
        bench.wait(ms(1));
        assert_eq!(bench.client_got(), [closed(1008, "message not finished in time")], "{what}");
    }
}

#[test]
fn a_client_whose_reads_always_end_inside_of_a_frame_is_not_late() {
    let mut bench = Bench::with(|settings| settings.message_incomplete_timeout = secs(3));
    let pong = wire::frame(0x8A, b"", Some([1, 2, 3, 4]));
    bench.client_sends(&pong[..2]);
    for _ in 0..10 {
        bench.wait(secs(2));
        bench.client_sends(&[&pong[2..], &pong[..2]].concat());
    }
    assert_eq!(bench.state(), PipeState::Attached);
}

#[test]
fn control_frames_between_the_fragments_of_a_message_buy_it_no_time() {
    let mut bench = Bench::with(|settings| settings.message_incomplete_timeout = secs(3));
    bench.client_frame(0x01, b"begun");
    for _ in 0..2 {
        bench.wait(secs(1));
        bench.client_frame(0x8A, b"");
    }
    bench.wait(secs(1));
    assert_eq!(bench.client_got(), [closed(1008, "message not finished in time")]);
}
