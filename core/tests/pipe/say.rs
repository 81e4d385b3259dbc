//! A message of the operator's among those of the worker, and a commit that comes by another way.

use holdline_core::frame::{Kind, Side};
use holdline_core::ids::{Attachment, Seq};
use holdline_core::pipe::{EndedBy, Fact, LinkLoss, Unsaid};
use holdline_core::settings::DownPolicy;

use crate::bench::{B, Bench, closed, text, texts};
use crate::wire::Item;

fn say(bench: &mut Bench, payload: &str) -> Result<Seq, Unsaid> {
    let said = bench.pipe.say(Kind::Text, payload.as_bytes(), bench.now);
    bench.pump();
    said
}

#[test]
fn an_operators_message_takes_its_place_in_the_lane_st_15() {
    let mut bench = Bench::new();
    bench.worker_says("1");
    assert_eq!(say(&mut bench, "hear"), Ok(Seq(2)));
    bench.worker_says("2");
    assert_eq!(bench.client_got(), texts(&["1", "hear", "2"]));
    assert_eq!((bench.pipe.view().down.accepted, bench.pipe.view().down.payload_bytes), (Seq(3), 6));
    assert_eq!(bench.pipe.say(Kind::Binary, &[0xFF], bench.now), Ok(Seq(4)));
    bench.pump();
    assert_eq!(bench.client_got(), [Item::Binary(vec![0xFF])]);
    assert_eq!(bench.worker_got(), [], "the worker hears nothing of it");
}

#[test]
fn it_goes_before_a_message_that_is_not_whole_yet_and_never_into_it() {
    let mut bench = Bench::new();
    bench.worker_frame(0x01, b"half ");
    assert_eq!(say(&mut bench, "order"), Ok(Seq(1)));
    assert_eq!(bench.client_got(), texts(&["order"]));
    bench.worker_frame(0x80, b"whole");
    assert_eq!(bench.client_got(), texts(&["half whole"]));
}

#[test]
fn it_survives_the_worker_whose_half_message_does_not() {
    let mut bench = Bench::new();
    bench.set_room(Side::Client, 0);
    bench.worker_frame(0x01, b"half ");
    assert_eq!(say(&mut bench, "order"), Ok(Seq(1)));
    bench.worker_dies(LinkLoss::Reset);
    assert_eq!(say(&mut bench, "while it is away"), Ok(Seq(2)));
    bench.attach(B);
    bench.worker_says("new");
    bench.set_room(Side::Client, usize::MAX);
    bench.pump();
    assert_eq!(bench.client_got(), texts(&["order", "while it is away", "new"]));
}

#[test]
fn it_waits_behind_a_message_that_is_half_written_to_the_client() {
    let mut bench = Bench::new();
    bench.set_room(Side::Client, 4);
    bench.worker_says("a long one");
    assert_eq!(say(&mut bench, "order"), Ok(Seq(2)));
    bench.set_room(Side::Client, usize::MAX);
    bench.pump();
    assert_eq!(bench.client_got(), texts(&["a long one", "order"]));
}

#[test]
fn a_full_lane_a_closing_pipe_and_a_message_too_large_are_said_and_change_nothing() {
    let mut bench = Bench::with(|settings| {
        settings.window_bytes = 100;
        settings.message_bytes_max = 200;
    });
    bench.set_room(Side::Client, 0);
    assert_eq!(say(&mut bench, &"x".repeat(201)), Err(Unsaid::TooBig));
    assert_eq!(say(&mut bench, &"x".repeat(81)), Ok(Seq(1)));
    assert_eq!(say(&mut bench, "y"), Ok(Seq(2)), "one below the bound");
    let before = bench.pipe.view();
    assert_eq!(say(&mut bench, "z"), Err(Unsaid::Full));
    assert_eq!(bench.pipe.view(), before);
    bench.set_room(Side::Client, usize::MAX);
    bench.operator(|pipe, now| pipe.close(EndedBy::Operator, holdline_core::close::CloseFrame::new(1001, ""), now));
    assert_eq!(say(&mut bench, "late"), Err(Unsaid::Closing));
    assert_eq!(bench.client_got(), [text(&"x".repeat(81)), text("y"), closed(1001, "")]);
}

#[test]
fn where_only_the_newest_are_kept_an_order_is_dropped_and_counted_like_the_rest() {
    let mut bench = Bench::with(|settings| settings.down = DownPolicy::Latest(2.try_into().unwrap()));
    bench.set_room(Side::Client, 0);
    say(&mut bench, "order").unwrap();
    bench.worker_says("1");
    bench.worker_says("2");
    bench.set_room(Side::Client, usize::MAX);
    bench.pump();
    assert_eq!(bench.client_got(), texts(&["1", "2"]));
    assert!(bench.facts.iter().any(|fact| matches!(fact, Fact::Dropped { messages: 1, .. })));
}

#[test]
fn a_commit_counts_for_the_current_attach_only() {
    let mut bench = Bench::new();
    bench.client_says("1");
    bench.client_says("2");
    assert_eq!(bench.pipe.commit(Attachment(2), Seq(2), bench.now), None);
    assert_eq!(bench.pipe.commit(Attachment::FIRST, Seq(1), bench.now), Some(Seq(1)));
    assert_eq!(bench.pipe.commit(Attachment::FIRST, Seq(9), bench.now), Some(Seq(2)), "what was never sent is not");
    bench.worker_dies(LinkLoss::Reset);
    assert_eq!(bench.dial().again, 0);
    assert_eq!(bench.pipe.commit(Attachment::FIRST, Seq(2), bench.now), None);
}
