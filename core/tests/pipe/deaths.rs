//! Workers that die at once: when one is left alone for a while, and when a message is to blame.

use holdline_core::ids::BackendKey;
use holdline_core::pipe::{LinkLoss, PipeState};

use crate::bench::{A, B, Bench, C, closed, ms, secs, text, texts};
use crate::wire::Item;

#[test]
fn a_backend_that_dies_at_once_three_times_is_left_alone_for_a_while_ib_11() {
    let mut bench = Bench::new();
    bench.wait(secs(3));
    bench.worker_dies(LinkLoss::Eof);
    for _ in 0..3 {
        assert_eq!(bench.pipe.excluded(bench.now), []);
        bench.attach(B);
        bench.wait(ms(10));
        bench.worker_dies(LinkLoss::Eof);
    }
    assert_eq!(bench.pipe.excluded(bench.now), [B]);
    bench.no_worker_is_there();
    bench.wait(ms(999));
    assert!(!bench.is_dialing());
    bench.wait(ms(1));
    assert!(bench.is_dialing(), "it is given another chance when its time is over");
    assert_eq!(bench.pipe.excluded(bench.now), []);
}

#[test]
fn a_backend_that_talks_and_dies_at_once_is_left_alone_though_wrong_workers_stand_between_ib_11() {
    let mut bench = Bench::new();
    bench.worker_dies(LinkLoss::Eof);
    for _ in 0..2 {
        bench.attach(B);
        bench.worker_closes(4004, "not mine");
        bench.attach(A);
        bench.worker_says("hello");
        bench.worker_dies(LinkLoss::Eof);
    }
    assert_eq!(bench.pipe.excluded(bench.now), [A], "it was the first worker, too");
    bench.attach(B);
    bench.worker_closes(4004, "not mine");
    bench.no_worker_is_there();
    assert_eq!(bench.client_got(), texts(&["hello", "hello"]), "the right worker is waited for");
    bench.wait(secs(1));
    bench.attach(A);
}

#[test]
fn an_attach_that_lasted_breaks_the_row_of_deaths() {
    let mut bench = Bench::new();
    for _ in 0..10 {
        bench.worker_dies(LinkLoss::Eof);
        bench.attach(A);
        bench.wait(secs(3));
        assert_eq!(bench.pipe.excluded(bench.now), []);
    }
}

#[test]
fn a_message_that_kills_three_workers_in_a_row_ends_the_pipe_with_1011() {
    let mut bench = Bench::new();
    bench.client_says("fine");
    bench.settle();
    bench.client_says("poison");
    bench.wait(secs(3));
    bench.worker_dies(LinkLoss::Eof);
    for backend in [A, B, C] {
        bench.attach(backend);
        assert_eq!(bench.worker_got(), [text("poison")]);
        bench.worker_dies(LinkLoss::Eof);
    }
    assert_eq!(bench.client_got(), [closed(1011, "message 2 ended 3 workers 4 times in a row")]);
    assert!(!bench.is_dialing());
}

#[test]
fn a_message_that_kills_its_first_worker_and_three_others_says_four() {
    let mut bench = Bench::new();
    bench.client_says("poison");
    bench.worker_dies(LinkLoss::Eof);
    for backend in [B, C, BackendKey(4)] {
        bench.attach(backend);
        bench.worker_dies(LinkLoss::Eof);
    }
    assert_eq!(bench.client_got(), [closed(1011, "message 1 ended 4 workers in a row")]);
}

#[test]
fn a_message_that_kills_workers_who_talk_first_is_found_out_though_wrong_workers_stand_between() {
    let mut bench = Bench::new();
    bench.client_says("poison");
    bench.worker_dies(LinkLoss::Eof);
    for death in 1..=3 {
        bench.attach(B);
        bench.worker_closes(4004, "not mine");
        assert!(bench.is_dialing(), "before death {death}");
        bench.attach(A);
        bench.worker_says("hello");
        bench.worker_dies(LinkLoss::Reset);
    }
    assert_eq!(bench.client_got().last(), Some(&closed(1011, "message 1 ended its worker 4 times in a row")));
}

#[test]
fn a_message_that_the_dead_worker_had_confirmed_is_not_blamed() {
    let mut bench = Bench::new();
    bench.client_says("first");
    bench.wait(secs(3));
    bench.worker_dies(LinkLoss::Reset);
    for backend in [A, B] {
        bench.attach(backend);
        bench.worker_dies(LinkLoss::Reset);
    }
    bench.attach(C);
    bench.settle();
    bench.worker_dies(LinkLoss::Reset);
    assert_eq!(bench.state(), PipeState::Detached);
    assert_eq!(bench.client_got(), []);
}

#[test]
fn workers_that_die_before_any_replay_do_not_blame_a_message() {
    let mut bench = Bench::new();
    bench.worker_dies(LinkLoss::Reset);
    for _ in 0..5 {
        bench.attach(B);
        bench.worker_dies(LinkLoss::Reset);
    }
    assert_eq!(bench.client_got(), []);
    assert_eq!(bench.state(), PipeState::Detached);
}

#[test]
fn a_message_that_the_network_cuts_three_times_is_not_blamed() {
    let mut bench = Bench::new();
    bench.client_frame(0x82, &vec![7; 50_000]);
    // A reset before any word counts a third of a death, so that as many as nine could.
    for backend in [B, C].repeat(5) {
        bench.worker_dies(LinkLoss::Reset);
        assert!(bench.attach_with_room(backend, 20_000));
        assert_eq!(bench.worker_got(), []);
    }
    bench.worker_dies(LinkLoss::Reset);
    assert_eq!(bench.client_got(), []);
    bench.attach(A);
    assert_eq!(bench.worker_got(), [Item::Binary(vec![7; 50_000])]);
}

#[test]
fn a_message_whose_links_the_network_resets_is_not_blamed_for_three_cuts_but_is_not_sent_for_ever() {
    const CUTS_MAX: u32 = 9;
    let mut bench = Bench::new();
    bench.client_says("sound");
    bench.worker_dies(LinkLoss::Reset);
    for cut in 1..=CUTS_MAX {
        assert_eq!(bench.client_got(), [], "before cut {cut}");
        bench.attach(BackendKey(u64::from(cut)));
        assert_eq!(bench.worker_got(), [text("sound")]);
        bench.worker_dies(LinkLoss::Reset);
    }
    assert_eq!(bench.client_got(), [closed(1011, "message 1 ended 9 workers 10 times in a row")]);
}

#[test]
fn a_message_behind_which_the_third_worker_lives_is_not_blamed_however_the_others_went() {
    let mut bench = Bench::new();
    bench.client_says("sound");
    bench.worker_dies(LinkLoss::Eof);
    for loss in [LinkLoss::Eof, LinkLoss::Reset, LinkLoss::Reset, LinkLoss::Eof] {
        assert_eq!(bench.client_got(), []);
        bench.attach(B);
        bench.worker_dies(loss);
        bench.attach(C);
        bench.wait(secs(3));
        bench.worker_dies(LinkLoss::Reset);
    }
    assert_eq!(bench.client_got(), []);
}
