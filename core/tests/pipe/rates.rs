//! Rates within a pipe: slowed down to the token, or closed with 1008.

use std::time::Duration;

use holdline_core::frame::Side;
use holdline_core::ids::LaneName;
use holdline_core::limits::{PipeLimit, Rate};
use holdline_core::pipe::{EndedBy, Fact, LinkLoss, PipeState};
use holdline_core::settings::{LimitedLanes, OnExceed, PipeLimits};

use crate::bench::{B, Bench, closed, ms, secs, texts};
use crate::wire;

const SECOND: Duration = Duration::from_secs(1);

fn limited(messages: u64, bytes: u64, on_exceed: OnExceed) -> Bench {
    Bench::with(|settings| {
        settings.limits = PipeLimits {
            messages: Rate::new(messages, SECOND),
            bytes: Rate::new(bytes, SECOND),
            on_exceed,
            lanes: LimitedLanes::Both,
        };
        settings.backend_heartbeat.interval = secs(0);
        settings.client_heartbeat.interval = secs(0);
    })
}

/// Reads `queue` as a driver would: as much as the budget allows, at each moment until `wait` is over.
fn feed(bench: &mut Bench, side: Side, queue: &mut Vec<u8>, wait: Duration) {
    let step = ms(5);
    for _ in 0..=wait.as_millis() / step.as_millis() {
        loop {
            let budget = bench.pipe.read_budget(side, usize::MAX).min(queue.len());
            let rest = bench.pipe.read_budget(side, usize::MAX) == 0;
            bench.operator(|pipe, now| pipe.set_paused(side, rest, now));
            if budget == 0 {
                break;
            }
            let bytes: Vec<u8> = queue.drain(..budget).collect();
            match side {
                Side::Client => bench.client_sends(&bytes),
                Side::Backend => bench.worker_sends(&bytes),
            }
        }
        bench.wait(step);
        if side == Side::Client {
            bench.worker_pongs();
        }
    }
}

fn frames(count: usize, len: usize, mask: Option<[u8; 4]>) -> Vec<u8> {
    (0..count).flat_map(|_| wire::frame(0x82, &vec![7; len], mask)).collect()
}

#[test]
fn a_client_over_its_messages_is_read_at_the_rate_and_not_one_message_faster() {
    for len in [0, 3, 100, 5_000] {
        let mut bench = limited(10, 0, OnExceed::Throttle);
        let mut queue = frames(100, len, Some([1, 2, 3, 4]));
        feed(&mut bench, Side::Client, &mut queue, ms(0));
        assert_eq!(bench.worker_got().len(), 10, "a full bucket of messages of {len} bytes");
        feed(&mut bench, Side::Client, &mut queue, secs(3));
        let got = bench.worker_got().len();
        assert!((29..=30).contains(&got), "{got} of {len} bytes in three seconds");
        feed(&mut bench, Side::Client, &mut queue, secs(10));
        assert_eq!((queue.len(), bench.pipe.view().up.accepted.0), (0, 100), "nothing is lost");
    }
}

#[test]
fn a_worker_over_its_bytes_is_read_at_the_rate() {
    let mut bench = limited(0, 10_000, OnExceed::Throttle);
    let mut queue = frames(100, 500, None);
    let total = queue.len();
    feed(&mut bench, Side::Backend, &mut queue, ms(0));
    assert_eq!(total - queue.len(), 10_000);
    feed(&mut bench, Side::Backend, &mut queue, secs(2));
    let came = total - queue.len();
    assert!((29_700..=30_100).contains(&came), "{came}");
    assert!(bench.facts.contains(&Fact::Limited { lane: LaneName::Down, limit: PipeLimit::Bytes }));
    assert!(!bench.facts.contains(&Fact::ReadPaused(LaneName::Down)), "a rest is no want of room");
    let said = bench.facts.iter().filter(|fact| matches!(fact, Fact::Limited { .. })).count();
    assert!((2..=3).contains(&said), "once a second: {said}");
    // The other lane has tokens of its own.
    assert!(bench.pipe.read_budget(Side::Client, usize::MAX) >= 10_000);
}

#[test]
fn a_lane_at_its_rate_wakes_its_pipe_fifty_times_a_second_at_most() {
    let mut bench = limited(0, 1 << 20, OnExceed::Throttle);
    bench.client_sends(&frames(1, (1 << 20) - 14, Some([0; 4])));
    assert_eq!(bench.pipe.read_budget(Side::Client, usize::MAX), 0);
    let deadline = bench.pipe.deadline().unwrap();
    bench.worker_pongs();
    assert_eq!(deadline - bench.now, ms(20));
    bench.wait(ms(20));
    assert!(bench.pipe.read_budget(Side::Client, usize::MAX) >= 20_000);
}

#[test]
fn exactly_the_limit_passes_and_one_message_more_closes_the_client_with_1008() {
    let mut bench = limited(3, 0, OnExceed::Close);
    for text in ["one", "two", "three"] {
        bench.client_says(text);
    }
    assert_eq!((bench.client_got(), bench.worker_got()), (vec![], texts(&["one", "two", "three"])));
    bench.client_says("four");
    assert_eq!(bench.client_got(), [closed(1008, "too many messages")]);
    assert!(bench.facts.contains(&Fact::Limited { lane: LaneName::Up, limit: PipeLimit::Messages }));
    let ended = Fact::Ended { by: EndedBy::Client, code: 1008, reason: "too many messages".into() };
    assert!(bench.facts.contains(&ended));
}

#[test]
fn a_client_that_keeps_to_its_rate_is_never_closed() {
    let mut bench = limited(10, 0, OnExceed::Close);
    for n in 0..200 {
        bench.client_says(&n.to_string());
        bench.wait(ms(100));
        bench.worker_pongs();
    }
    assert_eq!((bench.client_got(), bench.worker_got().len()), (vec![], 200));
}

#[test]
fn a_worker_that_sends_too_much_ends_the_pipe_with_1008_and_what_it_said_before_is_delivered() {
    let mut bench = limited(0, 1000, OnExceed::Close);
    bench.worker_frame(0x82, &[1; 900]);
    bench.worker_frame(0x82, &[2; 900]);
    let got = bench.client_got();
    assert_eq!((got.len(), got.last()), (3, Some(&closed(1008, "too many bytes"))));
    assert_eq!(bench.worker_got(), [closed(1001, "going away")]);
}

#[test]
fn a_rest_outlives_an_outage_and_holds_nothing_up_after_it() {
    let mut bench = limited(2, 0, OnExceed::Throttle);
    bench.client_says("one");
    bench.client_says("two");
    assert_eq!(bench.pipe.read_budget(Side::Client, usize::MAX), 0);
    bench.worker_dies(LinkLoss::Eof);
    assert_eq!(bench.pipe.read_budget(Side::Client, usize::MAX), 0);
    bench.wait(ms(500));
    assert!(bench.pipe.read_budget(Side::Client, usize::MAX) > 0);
    bench.client_says("three");
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&["one", "two", "three"]));
}

#[test]
fn a_worker_that_is_not_read_for_long_may_have_answered_its_ping() {
    let mut bench = limited(0, 100, OnExceed::Throttle);
    bench.client_says("confirm this");
    bench.wait(ms(25));
    // Its pong stands behind more than it may say in a quarter of a minute.
    let mut queue = frames(16, 94, None);
    for payload in std::mem::take(&mut bench.pings) {
        queue.extend(wire::frame(0x8A, &payload, None));
    }
    feed(&mut bench, Side::Backend, &mut queue, secs(14));
    assert!(!bench.facts.iter().any(|fact| matches!(fact, Fact::PongsMissing(_))));
    assert_eq!(bench.pipe.view().up.confirmed.0, 0);
    feed(&mut bench, Side::Backend, &mut queue, secs(4));
    assert_eq!((bench.pipe.view().up.confirmed.0, bench.state()), (1, PipeState::Attached));
}
