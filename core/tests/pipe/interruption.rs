//! A worker is lost: what interrupts, what ends, who is dialled next and for how long.

use holdline_core::frame::Side;
use holdline_core::ids::{Attachment, BackendKey, LaneName};
use holdline_core::pipe::{
    Action, Cause, DialFailure, EndedBy, Fact, Interruption, LinkLoss, Loss, PipeState, ResumeAnswer,
};
use holdline_core::settings::{BackendLoss, CodeSet, OnRefused, Refusal};

use crate::bench::{A, B, Bench, C, closed, ms, secs, text, texts};
use crate::wire::Item;

fn interruptions(bench: &Bench) -> Vec<Interruption> {
    bench
        .facts
        .iter()
        .filter_map(|fact| match fact {
            Fact::Interrupted { reason, .. } => Some(*reason),
            _ => None,
        })
        .collect()
}

#[test]
fn a_dead_link_detaches_the_pipe_and_the_client_hears_nothing_of_it() {
    for (loss, reason) in [(LinkLoss::Eof, Interruption::Eof), (LinkLoss::Reset, Interruption::Reset)] {
        let mut bench = Bench::new();
        bench.worker_dies(loss);
        assert_eq!(bench.state(), PipeState::Detached);
        assert_eq!(interruptions(&bench), [reason]);
        let order = bench.dial();
        assert_eq!(
            (order.attachment, order.cause, order.previous, order.avoid),
            (Attachment(2), Cause::Crash, A, None)
        );
        bench.attach(B);
        bench.worker_says("here again");
        assert_eq!(bench.client_got(), texts(&["here again"]));
        assert_eq!(bench.pipe.view().interruptions, 1);
    }
}

#[test]
fn what_the_client_sends_during_an_outage_arrives_without_it_saying_more_ib_04_iw_02() {
    let mut bench = Bench::new();
    bench.worker_dies(LinkLoss::Reset);
    let taps: Vec<String> = (0..100).map(|tap| format!("tap {tap}")).collect();
    for tap in &taps {
        bench.client_says(tap);
    }
    bench.attach(B);
    let got = bench.worker_got();
    assert_eq!(got, taps.iter().map(|tap| text(tap)).collect::<Vec<_>>());
}

#[test]
fn late_news_of_an_old_attach_is_ignored() {
    let mut bench = Bench::new();
    let old = bench.worker_peer();
    bench.worker_dies(LinkLoss::Eof);
    bench.pipe.lost(old, LinkLoss::Eof, bench.now);
    bench.attach(B);
    bench.pipe.lost(old, LinkLoss::Reset, bench.now);
    bench.pump();
    assert_eq!(bench.state(), PipeState::Attached);
    assert_eq!(interruptions(&bench).len(), 1);
}

#[test]
fn a_late_attach_is_turned_away() {
    let mut bench = Bench::new();
    bench.worker_dies(LinkLoss::Eof);
    let first = bench.dial().attachment;
    bench.dial_fails(DialFailure::Failed(B));
    assert!(bench.dial().attachment > first, "no number is used twice");
    assert!(!bench.pipe.attached(first, B, None, bench.now));
    bench.pipe.dial_failed(first, DialFailure::Unauthorized { backend: B, status: 403 }, bench.now);
    assert!(bench.is_dialing());
    bench.attach(C);
    assert!(!bench.pipe.attached(first, B, None, bench.now));
    assert_eq!(bench.pipe.view().backend, Some(C));
}

#[test]
fn the_close_codes_that_interrupt() {
    for code in [1001, 1011, 1012, 1013, 1014] {
        let mut bench = Bench::new();
        bench.worker_closes(code, "");
        assert_eq!(interruptions(&bench), [Interruption::Close], "{code}");
        assert_eq!(bench.dial().cause, Cause::Close);
        assert_eq!(bench.last_words[0].1, [closed(code, "")], "the close frame is answered");
        bench.attach(B);
        assert_eq!(bench.client_got(), []);
    }
}

#[test]
fn the_close_codes_that_end_reach_the_client_unchanged_ib_07() {
    for code in [1000, 1002, 1003, 1007, 1008, 1009, 1010, 3000, 3999, 4000, 4004, 4999] {
        let mut bench = Bench::new();
        bench.worker_says("last");
        bench.worker_closes(code, "over");
        assert_eq!(bench.client_got(), [text("last"), closed(code, "over")], "{code}");
        assert_eq!(interruptions(&bench), []);
        assert!(bench.facts.contains(&Fact::Ended { by: EndedBy::Backend, code, reason: "over".into() }));
        bench.client_closes(code, "over");
        assert!(bench.is_finished(), "{code}");
    }
}

#[test]
fn a_close_without_a_code_ends_the_pipe_and_the_client_gets_it_as_it_is() {
    let mut bench = Bench::new();
    bench.worker_says("last");
    bench.worker_closes(1005, "");
    assert_eq!(bench.client_got(), [text("last"), closed(1005, "")]);
    assert_eq!(interruptions(&bench), []);
    assert_eq!(bench.last_words[0].1, [closed(1005, "")], "the close frame is answered");
    bench.client_closes(1005, "");
    assert!(bench.is_finished());
}

#[test]
fn a_route_may_have_a_close_without_a_code_interrupt() {
    let mut bench = Bench::with(|settings| settings.interrupt_codes = CodeSet::new(vec![(1005, 1006)]));
    bench.worker_closes(1005, "");
    bench.attach(B);
    assert_eq!(bench.client_got(), []);
}

#[test]
fn a_route_may_say_which_codes_interrupt() {
    let mut bench = Bench::with(|settings| settings.interrupt_codes = CodeSet::new(vec![(1000, 1000), (4100, 4199)]));
    bench.worker_closes(4150, "");
    bench.attach(B);
    bench.worker_closes(1000, "");
    bench.attach(C);
    bench.worker_closes(1012, "not in the set");
    assert_eq!(bench.client_got(), [closed(1012, "not in the set")]);
}

fn not_found(backend: BackendKey) -> DialFailure {
    DialFailure::Refused { backend, status: 404 }
}

#[test]
fn refusals_by_every_worker_of_a_round_are_an_answer() {
    let mut bench = Bench::new();
    bench.worker_dies(LinkLoss::Eof);
    bench.client_says("never delivered");
    bench.dial_fails(not_found(B));
    assert_eq!(bench.pipe.excluded(bench.now), [B], "the next candidate is asked");
    bench.dial_fails(not_found(C));
    bench.dial_fails(DialFailure::Absent(A));
    assert_eq!(bench.client_got(), [], "not before all were asked");
    bench.no_worker_is_there();
    assert_eq!(bench.client_got(), [closed(1012, "refused by every worker: 404")], "at once");
    assert!(bench.facts.contains(&Fact::Lost { lane: LaneName::Up, reason: Loss::Closed, messages: 1 }));
    bench.client_closes(1012, "");
    assert!(bench.is_finished());
}

#[test]
fn a_worker_that_is_out_for_now_does_not_hold_up_what_the_others_refuse() {
    let mut bench = Bench::new();
    bench.worker_dies(LinkLoss::Eof);
    bench.dial_fails(DialFailure::Refused { backend: B, status: 410 });
    bench.dial_fails(DialFailure::Out { recheck: secs(5) });
    assert_eq!(bench.client_got(), [closed(1012, "refused by every worker: 410")]);
}

#[test]
fn a_refusal_by_some_is_no_answer_while_another_may_still_take_the_pipe() {
    let mut bench = Bench::new();
    bench.worker_dies(LinkLoss::Eof);
    for failure in [DialFailure::Failed(C), not_found(B)] {
        bench.dial_fails(failure);
    }
    bench.no_worker_is_there();
    assert!(!bench.is_dialing() && bench.client_got().is_empty());
    bench.wait(ms(50));
    bench.dial_fails(not_found(B));
    bench.dial_fails(DialFailure::NoCandidate { retry_after: Some(ms(500)) });
    assert_eq!(bench.client_got(), [], "one that is left alone for a while may take it");
    bench.wait(ms(500));
    bench.dial_fails(not_found(B));
    bench.pipe.pool_changed(bench.now);
    bench.no_worker_is_there();
    assert_eq!(bench.client_got(), [], "the pool has changed since it was asked");
    bench.wait(secs(2));
    bench.attach(C);
    assert_eq!(bench.state(), PipeState::Attached);
}

#[test]
fn a_round_in_which_nobody_is_there_ends_nothing() {
    let mut bench = Bench::new();
    bench.worker_dies(LinkLoss::Eof);
    bench.dial_fails(DialFailure::Absent(A));
    bench.no_worker_is_there();
    assert_eq!(bench.client_got(), []);
    bench.wait(ms(50));
    assert!(bench.is_dialing());
}

#[test]
fn a_route_may_wait_though_all_refuse() {
    let mut bench = Bench::with(|settings| settings.refusal = Refusal::Wait);
    bench.worker_dies(LinkLoss::Eof);
    bench.dial_fails(not_found(B));
    bench.no_worker_is_there();
    bench.wait(ms(50));
    bench.attach(B);
    assert_eq!((bench.state(), bench.client_got()), (PipeState::Attached, vec![]));
}

#[test]
fn a_refused_dial_goes_to_the_next_candidate_and_then_backs_off() {
    let mut bench = Bench::new();
    bench.worker_dies(LinkLoss::Eof);
    bench.dial_fails(DialFailure::Failed(A));
    assert_eq!(bench.pipe.excluded(bench.now), [A]);
    bench.dial_fails(DialFailure::Failed(B));
    assert_eq!(bench.pipe.excluded(bench.now), [A, B]);
    bench.no_worker_is_there();
    assert!(!bench.is_dialing());
    bench.wait(ms(50));
    assert!(bench.is_dialing(), "the first round is at most 50 ms away");
    assert_eq!(bench.pipe.excluded(bench.now), [], "a new round may dial each worker");
}

#[test]
fn a_dial_is_tried_again_for_as_long_as_grace_lasts() {
    let mut bench = Bench::new();
    bench.worker_dies(LinkLoss::Eof);
    let mut dials = 0;
    while !bench.is_finished() && bench.state() == PipeState::Detached {
        if bench.is_dialing() {
            dials += 1;
            bench.dial_fails(DialFailure::Failed(A));
            bench.no_worker_is_there();
        }
        bench.wait(ms(100));
    }
    assert!((16..400).contains(&dials), "{dials}");
    assert_eq!(bench.client_got(), [closed(1013, "no backend within grace")]);
}

#[test]
fn grace_is_not_extended_by_redialling_or_by_workers_that_never_prove_themselves_iw_13() {
    let mut bench = Bench::with(|settings| settings.grace = Some(secs(10)));
    let start = bench.now;
    bench.worker_dies(LinkLoss::Eof);
    while bench.client_got().is_empty() {
        if bench.is_dialing() {
            bench.attach(if bench.now.as_micros().is_multiple_of(2) { B } else { C });
            bench.worker_closes(1013, "not now");
            bench.dial_fails(DialFailure::NoCandidate { retry_after: Some(ms(500)) });
        }
        bench.wait(ms(100));
        assert!(bench.now.since(start) < secs(11));
    }
    assert!(bench.now.since(start) >= secs(10));
}

#[test]
fn without_a_backend_within_grace_the_client_gets_1013_and_what_waited_is_counted_as_lost() {
    let mut bench = Bench::new();
    bench.worker_dies(LinkLoss::Eof);
    bench.no_worker_is_there();
    bench.client_says("never delivered");
    bench.client_says("nor this");
    bench.wait(ms(29_999));
    assert_eq!(bench.client_got(), []);
    bench.wait(ms(1));
    assert_eq!(bench.client_got(), [closed(1013, "no backend within grace")]);
    assert!(bench.facts.contains(&Fact::Lost { lane: LaneName::Up, reason: Loss::Grace, messages: 2 }));
    bench.client_closes(1013, "");
    assert!(bench.is_finished());
    assert_eq!(bench.pipe.charged_bytes(), 0);
}

#[test]
fn without_an_end_of_grace_a_pipe_waits_for_as_long_as_its_client_does() {
    let mut bench = Bench::with(|settings| {
        settings.grace = None;
        settings.client_heartbeat.interval = secs(0);
    });
    bench.worker_dies(LinkLoss::Eof);
    bench.no_worker_is_there();
    bench.client_says("kept");
    bench.wait(secs(3 * 86_400));
    assert_eq!(bench.client_got(), []);
    bench.operator(|pipe, now| pipe.pool_changed(now));
    bench.attach(B);
    assert_eq!(bench.worker_got(), [text("kept")]);
}

#[test]
fn a_dial_that_is_never_answered_is_cancelled_at_the_end_of_grace() {
    let mut bench = Bench::new();
    bench.worker_dies(LinkLoss::Eof);
    let attachment = bench.dial().attachment;
    bench.wait(secs(30));
    assert!(bench.orders().contains(&Action::CancelDial(attachment)));
    assert_eq!(bench.client_got(), [closed(1013, "no backend within grace")]);
    assert!(!bench.pipe.attached(attachment, B, None, bench.now));
}

#[test]
fn a_backend_that_registers_while_the_pipe_waits_is_dialled_at_once_iw_12() {
    let mut bench = Bench::new();
    bench.worker_dies(LinkLoss::Eof);
    bench.no_worker_is_there();
    bench.wait(secs(20));
    assert!(!bench.is_dialing(), "nothing is worth a dial");
    bench.operator(|pipe, now| pipe.pool_changed(now));
    bench.attach(B);
    assert_eq!(bench.state(), PipeState::Attached);
}

#[test]
fn a_pool_that_changes_during_a_dial_is_asked_again_though_that_dial_finds_nobody() {
    let mut bench = Bench::new();
    bench.worker_dies(LinkLoss::Eof);
    bench.operator(|pipe, now| pipe.pool_changed(now));
    bench.no_worker_is_there();
    bench.wait(ms(50));
    assert!(bench.is_dialing(), "who came after the question is not in the answer");
    bench.dial_fails(DialFailure::Failed(A));
    bench.operator(|pipe, now| pipe.pool_changed(now));
    bench.no_worker_is_there();
    bench.wait(ms(100));
    assert!(bench.is_dialing(), "who failed before the change may do after it");
}

#[test]
fn a_backend_whose_dial_failed_in_an_outage_is_fit_for_a_move_once_that_is_over() {
    let mut bench = Bench::new();
    bench.worker_dies(LinkLoss::Eof);
    bench.dial_fails(DialFailure::Failed(A));
    bench.attach(B);
    assert_eq!(bench.pipe.excluded(bench.now), [A]);
    bench.worker_says("here");
    assert_eq!(bench.pipe.excluded(bench.now), []);
}

#[test]
fn a_pool_that_says_when_is_asked_then_and_not_before() {
    let mut bench = Bench::new();
    bench.worker_dies(LinkLoss::Eof);
    bench.dial_fails(DialFailure::NoCandidate { retry_after: Some(secs(4)) });
    bench.wait(ms(3999));
    assert!(!bench.is_dialing());
    bench.wait(ms(1));
    assert!(bench.is_dialing());
}

#[test]
fn a_pool_that_says_now_does_not_make_the_pipe_spin() {
    let mut bench = Bench::new();
    bench.worker_dies(LinkLoss::Eof);
    for _ in 0..100 {
        bench.dial_fails(DialFailure::NoCandidate { retry_after: Some(ms(0)) });
        assert!(!bench.is_dialing());
        assert!(bench.pipe.deadline().unwrap() > bench.now);
        bench.wait(ms(50));
    }
}

#[test]
fn credentials_that_a_reattach_refuses_end_the_pipe_with_1008() {
    let mut bench = Bench::new();
    bench.worker_dies(LinkLoss::Eof);
    bench.dial_fails(DialFailure::Unauthorized { backend: B, status: 403 });
    assert_eq!(bench.client_got(), [closed(1008, "the backend refused the credentials: 403")]);
}

#[test]
fn credentials_that_one_worker_refuses_are_shown_to_the_next_where_the_route_says_so() {
    let mut bench = Bench::with(|settings| settings.on_refused = OnRefused::Next);
    bench.client_says("1");
    bench.worker_dies(LinkLoss::Eof);
    bench.dial_fails(DialFailure::Unauthorized { backend: B, status: 401 });
    bench.attach(C);
    assert_eq!(bench.pipe.view().backend, Some(C));
    bench.worker_dies(LinkLoss::Eof);
    bench.dial_fails(DialFailure::Unauthorized { backend: B, status: 401 });
    bench.dial_fails(DialFailure::Unauthorized { backend: C, status: 403 });
    bench.dial_fails(DialFailure::NoCandidate { retry_after: None });
    assert_eq!(bench.client_got(), [closed(1012, "refused by every worker: 403")]);
}

#[test]
fn a_route_that_wants_no_reattach_gives_1012_at_once_ib_06() {
    let mut bench = Bench::with(|settings| settings.on_backend_loss = BackendLoss::Close);
    bench.worker_says("shown");
    bench.set_room(Side::Backend, 0);
    bench.client_says("candidate");
    bench.worker_dies(LinkLoss::Reset);
    assert_eq!(bench.client_got(), [text("shown"), closed(1012, "backend lost")]);
    assert!(bench.facts.contains(&Fact::Lost { lane: LaneName::Up, reason: Loss::CloseRoute, messages: 1 }));
    assert!(!bench.is_dialing());
    bench.client_closes(1012, "");
    assert!(bench.is_finished());
}

#[test]
fn a_wrong_worker_is_passed_over_and_its_word_is_not_passed_on_ib_09() {
    let mut bench = Bench::new();
    bench.client_says("first");
    bench.settle();
    bench.worker_dies(LinkLoss::Eof);
    bench.client_says("tap");
    bench.attach(B);
    bench.worker_closes(4004, "no such session");
    assert_eq!(bench.pipe.excluded(bench.now), [B]);
    assert_eq!(interruptions(&bench), [Interruption::Eof, Interruption::WrongWorker]);
    bench.attach(C);
    assert_eq!(bench.worker_got(), [text("tap")]);
    bench.worker_says("mine");
    assert_eq!(bench.client_got(), [text("mine")]);
    bench.worker_dies(LinkLoss::Eof);
    assert_eq!(bench.pipe.excluded(bench.now), [], "the next outage asks each worker again");
}

#[test]
fn when_no_right_worker_is_left_the_wrong_ones_word_is_passed_on_ib_09() {
    let mut bench = Bench::new();
    bench.worker_dies(LinkLoss::Eof);
    bench.attach(B);
    bench.worker_closes(4004, "no such session");
    bench.no_worker_is_there();
    assert_eq!(bench.client_got(), [closed(4004, "no such session")]);
}

#[test]
fn a_right_worker_that_is_only_busy_is_waited_for_before_a_wrong_ones_word_is_passed_on() {
    let mut bench = Bench::new();
    bench.worker_dies(LinkLoss::Eof);
    bench.attach(B);
    bench.worker_closes(4004, "no such session");
    bench.dial_fails(DialFailure::NoCandidate { retry_after: Some(secs(3)) });
    assert_eq!(bench.client_got(), []);
    bench.wait(secs(3));
    bench.attach(C);
    bench.worker_says("mine");
    assert_eq!(bench.client_got(), [text("mine")]);
}

#[test]
fn a_wrong_workers_word_outlives_grace_when_the_others_cannot_be_reached() {
    let mut bench = Bench::with(|settings| settings.grace = Some(secs(3)));
    bench.worker_dies(LinkLoss::Eof);
    bench.attach(B);
    bench.worker_closes(4004, "no such session");
    while bench.state() == PipeState::Detached {
        if bench.is_dialing() {
            bench.dial_fails(DialFailure::Failed(A));
            bench.no_worker_is_there();
        }
        bench.wait(ms(100));
    }
    assert_eq!(bench.client_got(), [closed(4004, "no such session")]);
}

#[test]
fn a_wrong_worker_is_passed_over_on_the_first_attach_too() {
    for on_backend_loss in [BackendLoss::Reattach, BackendLoss::Close] {
        let mut bench = Bench::with(|settings| settings.on_backend_loss = on_backend_loss);
        bench.client_says("tap");
        bench.worker_closes(4004, "not mine");
        assert_eq!(bench.pipe.excluded(bench.now), [A]);
        bench.attach(B);
        assert_eq!(bench.worker_got(), [text("tap")]);
        bench.worker_closes(4004, "nor mine");
        bench.no_worker_is_there();
        assert_eq!(bench.client_got(), [closed(4004, "nor mine")], "{on_backend_loss:?}");
    }
}

#[test]
fn a_wrong_worker_code_after_a_message_ends_the_pipe() {
    let mut bench = Bench::new();
    bench.worker_dies(LinkLoss::Eof);
    bench.attach(B);
    bench.worker_says("mine");
    bench.worker_closes(4004, "session is over");
    assert_eq!(bench.client_got(), [text("mine"), closed(4004, "session is over")]);
}

#[test]
fn a_worker_that_refuses_the_resume_is_passed_over() {
    let mut bench = Bench::new();
    bench.worker_dies(LinkLoss::Eof);
    assert!(!bench.attach_with(B, Some(ResumeAnswer::Refuse)));
    assert_eq!(bench.pipe.excluded(bench.now), [B]);
    bench.attach(C);
    assert_eq!(bench.pipe.view().backend, Some(C));
}

#[test]
fn a_half_message_of_a_dead_worker_is_not_spliced_into_the_next_ones_ib_02() {
    let mut bench = Bench::new();
    bench.worker_frame(0x02, &[1; 50]);
    bench.worker_sends(&crate::wire::frame(0x80, &[1; 50], None)[..20]);
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    bench.worker_frame(0x82, &[2; 10]);
    assert_eq!(bench.client_got(), [Item::Binary(vec![2; 10])]);
    assert_eq!(bench.pipe.charged_bytes(), 0);
}

#[test]
fn a_whole_message_that_is_half_written_to_the_client_is_finished_though_its_worker_died() {
    let mut bench = Bench::new();
    bench.set_room(Side::Client, 20);
    bench.worker_says("begun by a worker that is dead now");
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    bench.worker_says("next");
    bench.set_room(Side::Client, usize::MAX);
    bench.pump();
    assert_eq!(bench.client_got(), texts(&["begun by a worker that is dead now", "next"]));
}

#[test]
fn a_late_interruption_after_a_quiet_long_life_starts_a_fresh_grace() {
    let mut bench = Bench::with(|settings| settings.grace = Some(secs(10)));
    bench.worker_dies(LinkLoss::Eof);
    bench.wait(secs(9));
    bench.attach(B);
    bench.now = bench.now + secs(60);
    bench.worker_dies(LinkLoss::Eof);
    bench.no_worker_is_there();
    bench.wait(ms(9_999));
    assert_eq!(bench.client_got(), [], "a timer that came too late takes no grace away");
}
