//! What is sent again to another worker, what is not, and what is said about it.

use holdline_core::frame::Side;
use holdline_core::ids::{LaneName, Seq};
use holdline_core::leg::barrier::Level;
use holdline_core::pipe::{Fact, LinkLoss, Loss, ResumeAnswer};
use holdline_core::settings::{Confirm, ReplayPolicy, ReplayTail};

use crate::bench::{A, B, Bench, C, ms, secs, text, texts};
use crate::wire;

fn interrupted(bench: &Bench) -> (u64, Option<(Seq, Seq)>) {
    bench
        .facts
        .iter()
        .rev()
        .find_map(|fact| match fact {
            Fact::Interrupted { in_doubt, gap, .. } => Some((*in_doubt, *gap)),
            _ => None,
        })
        .unwrap()
}

#[test]
fn where_only_a_commit_confirms_a_pong_does_not_and_what_was_not_committed_is_sent_again() {
    let mut bench = Bench::with(|settings| settings.confirm = Confirm::Commit);
    for payload in ["1", "2", "3"] {
        bench.client_says(payload);
    }
    bench.settle();
    assert_eq!(bench.pipe.view().up.confirmed, Seq(0), "its library has read them");
    bench.worker_frame(0x8A, b"A2");
    let up = bench.pipe.view().up;
    assert_eq!((up.confirmed, up.level), (Seq(2), Level::App));
    bench.worker_dies(LinkLoss::Reset);
    assert_eq!(interrupted(&bench), (1, None));
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&["3"]));
    bench.wait(secs(30));
    assert_eq!(bench.pipe.view().up.confirmed, Seq(2), "a worker that answers no ping has committed nothing");
}

#[test]
fn what_was_not_confirmed_is_sent_again_in_order_and_then_the_rest() {
    let mut bench = Bench::new();
    bench.client_says("1");
    bench.client_says("2");
    bench.settle();
    bench.client_says("3");
    bench.client_says("4");
    assert_eq!(bench.worker_got(), texts(&["1", "2", "3", "4"]));
    bench.worker_dies(LinkLoss::Reset);
    assert_eq!(interrupted(&bench), (2, None));
    bench.client_says("5");
    let order = bench.dial();
    assert_eq!((order.first_seq, order.again, order.confirmed, order.gap), (Seq(3), 2, Seq(2), None));
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&["3", "4", "5"]));
    assert!(bench.facts.contains(&Fact::Replayed { lane: LaneName::Up, messages: 2 }));
    bench.settle();
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(C);
    assert_eq!(bench.worker_got(), [], "nothing is sent again that was confirmed");
}

#[test]
fn a_message_half_written_to_a_dead_worker_is_sent_whole_to_the_next() {
    let mut bench = Bench::new();
    bench.set_room(Side::Backend, 12);
    bench.client_says("this is longer than twelve bytes");
    bench.worker_dies(LinkLoss::Reset);
    assert_eq!(interrupted(&bench), (0, None), "half a message is not in doubt: no peer can have read it");
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&["this is longer than twelve bytes"]));
}

#[test]
fn a_pong_of_an_old_attach_does_not_confirm_for_the_new_one() {
    let mut bench = Bench::new();
    bench.client_says("1");
    bench.wait(ms(25));
    let stale = bench.pings[0].clone();
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    bench.wait(ms(25));
    bench.worker_frame(0x8A, &stale);
    assert_eq!(bench.pipe.view().up.confirmed, Seq(0));
    bench.worker_pongs();
    assert_eq!(bench.pipe.view().up.confirmed, Seq(1));
}

#[test]
fn unsent_sends_nothing_twice_and_says_what_is_in_doubt_ib_05() {
    let mut bench = Bench::with(|settings| settings.replay = ReplayPolicy::Unsent);
    bench.client_says("1");
    bench.settle();
    bench.client_says("2");
    bench.client_says("3");
    bench.worker_dies(LinkLoss::Reset);
    assert_eq!(interrupted(&bench), (2, Some((Seq(2), Seq(3)))));
    bench.client_says("4");
    let order = bench.dial();
    assert_eq!((order.first_seq, order.again, order.gap), (Seq(4), 0, Some((Seq(2), Seq(3)))));
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&["4"]));
    assert_eq!(bench.pipe.view().up.in_doubt, 2);
}

#[test]
fn none_keeps_nothing_over_an_outage_and_counts_what_it_dropped() {
    let mut bench = Bench::with(|settings| settings.replay = ReplayPolicy::None);
    bench.client_says("1");
    assert_eq!(bench.pings.len(), 0, "no pong is asked for");
    bench.set_room(Side::Backend, 0);
    bench.client_says("2");
    bench.worker_dies(LinkLoss::Reset);
    bench.client_says("3");
    bench.client_says("4");
    bench.attach(B);
    bench.client_says("5");
    assert_eq!(bench.worker_got(), texts(&["5"]));
    assert_eq!((bench.pipe.view().up.lost, bench.pipe.view().up.in_doubt), (3, 0));
    bench.worker_dies(LinkLoss::Reset);
    assert_eq!(bench.pipe.view().up.in_doubt, 0, "what was dropped is lost, not in doubt");
    assert!(bench.facts.contains(&Fact::Lost { lane: LaneName::Up, reason: Loss::Policy, messages: 1 }));
}

#[test]
fn none_does_not_keep_the_half_message_that_was_amid_its_way() {
    let mut bench = Bench::with(|settings| settings.replay = ReplayPolicy::None);
    bench.set_room(Side::Backend, 10);
    bench.client_says("half of this is written");
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    bench.client_says("next");
    assert_eq!(bench.worker_got(), texts(&["next"]));
    assert_eq!(bench.pipe.view().up.lost, 1);
}

#[test]
fn a_message_begun_during_an_outage_and_ended_after_it_is_delivered_whatever_the_policy() {
    for policy in [ReplayPolicy::None, ReplayPolicy::Unsent, ReplayPolicy::Unconfirmed] {
        let mut bench = Bench::with(|settings| settings.replay = policy);
        bench.worker_dies(LinkLoss::Reset);
        let frame = wire::frame(0x81, b"begun early", Some([1; 4]));
        bench.client_sends(&frame[..9]);
        bench.attach(B);
        bench.client_sends(&frame[9..]);
        assert_eq!(bench.worker_got(), texts(&["begun early"]), "{policy:?}");
    }
}

#[test]
fn a_worker_that_knows_the_pipe_gets_what_it_has_not_seen() {
    let mut bench = Bench::new();
    for tap in ["1", "2", "3", "4"] {
        bench.client_says(tap);
    }
    bench.worker_dies(LinkLoss::Reset);
    bench.client_says("5");
    assert!(bench.attach_with(B, Some(ResumeAnswer::Ok(Seq(3)))));
    assert_eq!(bench.worker_got(), texts(&["4", "5"]));
    assert_eq!(bench.pipe.view().up.confirmed, Seq(3));
}

#[test]
fn a_worker_that_claims_more_than_was_ever_said_gets_nothing_and_breaks_nothing() {
    let mut bench = Bench::new();
    bench.client_says("1");
    bench.worker_dies(LinkLoss::Reset);
    assert!(bench.attach_with(B, Some(ResumeAnswer::Ok(Seq(u64::MAX)))));
    bench.client_says("2");
    assert_eq!(bench.worker_got(), texts(&["2"]));
}

#[test]
fn a_worker_without_state_gets_the_whole_replay() {
    let mut bench = Bench::new();
    bench.client_says("1");
    bench.worker_dies(LinkLoss::Reset);
    assert!(bench.attach_with(B, Some(ResumeAnswer::New)));
    assert_eq!(bench.worker_got(), texts(&["1"]));
}

#[test]
fn a_resume_in_the_middle_of_an_unsent_queue_skips_what_the_worker_has() {
    let mut bench = Bench::with(|settings| settings.replay = ReplayPolicy::Unsent);
    bench.worker_dies(LinkLoss::Reset);
    for tap in ["1", "2", "3"] {
        bench.client_says(tap);
    }
    assert!(bench.attach_with(B, Some(ResumeAnswer::Ok(Seq(2)))));
    assert_eq!(bench.worker_got(), texts(&["3"]));
}

#[test]
fn a_replay_waits_for_its_delay_so_that_the_old_worker_can_finish_ib_05() {
    let mut bench = Bench::with(|settings| settings.replay_delay = secs(3));
    bench.client_says("1");
    bench.worker_dies(LinkLoss::Eof);
    bench.wait(secs(1));
    bench.attach(B);
    bench.client_says("2");
    bench.wait(ms(1_999));
    assert_eq!(bench.worker_got(), []);
    bench.wait(ms(1));
    assert_eq!(bench.worker_got(), texts(&["1", "2"]));
}

#[test]
fn a_delay_that_is_over_when_the_worker_comes_delays_nothing() {
    let mut bench = Bench::with(|settings| settings.replay_delay = secs(3));
    bench.client_says("1");
    bench.worker_dies(LinkLoss::Eof);
    bench.wait(secs(3));
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&["1"]));
}

#[test]
fn a_message_that_kills_is_found_out_though_a_delay_holds_it_back() {
    let mut bench = Bench::with(|settings| settings.replay_delay = secs(5));
    bench.client_says("poison");
    bench.worker_dies(LinkLoss::Eof);
    for delay in [5, 0, 0] {
        assert_eq!(bench.client_got(), []);
        bench.attach(B);
        bench.wait(secs(delay));
        assert_eq!(bench.worker_got(), texts(&["poison"]));
        bench.worker_dies(LinkLoss::Eof);
    }
    assert_eq!(bench.client_got().len(), 1);
}

fn tail(bytes: usize, messages: u32, age: std::time::Duration) -> Bench {
    Bench::with(|settings| settings.replay_tail = ReplayTail { bytes, messages, age })
}

fn confirm_five(bench: &mut Bench) {
    for tap in ["1", "2", "3", "4", "5"] {
        bench.client_says(tap);
        bench.settle();
    }
    bench.worker_got();
}

#[test]
fn a_tail_is_sent_again_after_an_unclean_loss() {
    let mut bench = tail(0, 2, secs(0));
    confirm_five(&mut bench);
    bench.worker_dies(LinkLoss::Reset);
    bench.client_says("6");
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&["4", "5", "6"]));
}

#[test]
fn a_tail_is_bounded_by_bytes_and_by_age() {
    let mut bench = tail(3 * (holdline_core::replay::MESSAGE_OVERHEAD_BYTES + 7), 0, secs(0));
    confirm_five(&mut bench);
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&["3", "4", "5"]));
    let mut bench = tail(0, 0, ms(60));
    confirm_five(&mut bench);
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&["3", "4", "5"]));
}

#[test]
fn a_tail_is_not_sent_again_after_a_move_in_good_order() {
    let mut bench = tail(0, 2, secs(0));
    confirm_five(&mut bench);
    bench.operator(|pipe, now| pipe.leave(holdline_core::pipe::Cause::Drain, now));
    bench.worker_closes(1001, "");
    bench.attach(B);
    assert_eq!(bench.worker_got(), []);
}

#[test]
fn a_tail_is_sent_again_when_the_worker_died_on_its_way_out() {
    let mut bench = tail(0, 2, secs(0));
    confirm_five(&mut bench);
    bench.operator(|pipe, now| pipe.leave(holdline_core::pipe::Cause::Drain, now));
    bench.worker_dies(LinkLoss::Eof);
    bench.attach(B);
    assert_eq!(bench.worker_got(), texts(&["4", "5"]));
}

#[test]
fn a_tail_larger_than_the_window_does_not_pause_the_client_for_ever() {
    let mut bench = Bench::with(|settings| {
        settings.replay_tail = ReplayTail { bytes: 1 << 20, messages: 0, age: secs(0) };
        settings.window_bytes = 1000;
    });
    for _ in 0..50 {
        assert!(bench.pipe.read_budget(Side::Client, usize::MAX) > 0);
        bench.client_frame(0x82, &[1; 900]);
        bench.settle();
    }
}

#[test]
fn a_confirmed_message_that_left_the_tail_costs_no_memory() {
    let mut bench = tail(0, 1, secs(0));
    for _ in 0..1000 {
        bench.client_frame(0x82, &[1; 900]);
        bench.settle();
    }
    assert!(bench.pipe.view().memory_bytes < 40 << 10, "{}", bench.pipe.view().memory_bytes);
}

#[test]
fn twenty_outages_lose_and_double_nothing_when_workers_confirm_iw_03() {
    let mut bench = Bench::new();
    let mut got = Vec::new();
    let mut said = Vec::new();
    for outage in 0..20 {
        for tap in 0..7 {
            let tap = format!("{outage}.{tap}");
            bench.client_says(&tap);
            said.push(text(&tap));
        }
        bench.settle();
        got.extend(bench.worker_got());
        bench.worker_dies(LinkLoss::Reset);
        bench.client_says(&format!("{outage} in between"));
        said.push(text(&format!("{outage} in between")));
        bench.wait(secs(3));
        bench.attach(if outage % 2 == 0 { A } else { B });
        bench.settle();
        got.extend(bench.worker_got());
    }
    assert_eq!(got, said);
}
