//! How pipes choose, hold and let go of backends.

use super::*;
use crate::net::DialFailure;
use futures_util::FutureExt;
use holdline_core::health::Health;
use holdline_core::ids::PipeId;
use holdline_core::pool::{AdminState, NoCandidate};

#[test]
fn a_place_is_given_back_when_it_is_dropped() {
    let world = World::unprobed();
    world.put("a", BackendSpec { max_pipes: Some(1), ..worker(1) }).unwrap();
    let place = world.choose().unwrap();
    assert_eq!((&**place.id(), &**place.pool(), place.url().port()), ("a", "default", 1));
    assert_eq!(world.choose().unwrap_err().reason, NoCandidate::Full);
    let passing = world.backends.choose_request("default", &Ask::default(), None).unwrap();
    assert_eq!(world.view("a").pipes, 1, "a request is no pipe");
    drop(passing);
    assert_eq!(world.view("a").pipes, 1);
    drop(place);
    assert!(world.choose().is_ok());
}

#[test]
fn an_unknown_pool_has_nobody() {
    let world = World::unprobed();
    let empty = NoBackend { reason: NoCandidate::Empty, retry_at: None, awaited: false };
    assert_eq!(world.backends.choose("nowhere", &Ask::default()).unwrap_err(), empty);
    assert!(world.backends.watch("nowhere").is_none());
    assert_eq!(world.choose().unwrap_err(), empty);
}

#[tokio::test]
async fn a_waiting_pipe_is_woken_by_what_may_help_it_and_by_nothing_else() {
    type Change = fn(&World, &mut Vec<Reservation>);
    let state = |world: &World, state| {
        let change = StateChange { state, pipes: PipesWish::Keep, deadline: None };
        world.backends.set_state("a", Expect::Anything, change).unwrap();
    };
    let changes: [(&str, Change, bool); 7] = [
        ("registration", |world, _| _ = world.put("new", worker(9)).unwrap(), true),
        ("the same registration again", |world, _| _ = world.put("a", worker(1)).unwrap(), false),
        (
            "a raised limit",
            |world, _| _ = world.put("a", BackendSpec { max_pipes: Some(2), ..worker(1) }).unwrap(),
            true,
        ),
        ("a full backend's free place", |_, places| places.clear(), true),
        ("a removal", |world, _| _ = world.backends.delete("other", Expect::Anything).unwrap(), false),
        (
            "a drain",
            |world, _| {
                let change = StateChange { state: AdminState::Drain, pipes: PipesWish::Keep, deadline: None };
                world.backends.set_state("other", Expect::Anything, change).unwrap();
            },
            false,
        ),
        ("a reload", |world, _| world.backends.configure(&setup(vec![pool("default", unprobed())])), true),
    ];
    for (name, change, wakes) in changes {
        let world = World::new(vec![PoolSpec { max_pipes_per_backend: 1, ..pool("default", unprobed()) }]);
        world.put("a", worker(1)).unwrap();
        let mut places = vec![world.choose().unwrap()];
        world.put("other", worker(2)).unwrap();
        let mut watch = world.backends.watch("default").unwrap();
        change(&world, &mut places);
        assert_eq!(watch.changed().now_or_never().is_some(), wakes, "{name}");
        assert!(watch.changed().now_or_never().is_none(), "{name}: once is enough");
    }
    let world = World::unprobed();
    world.put("a", worker(1)).unwrap();
    state(&world, AdminState::Drain);
    let mut watch = world.backends.watch("default").unwrap();
    state(&world, AdminState::Ready);
    assert!(watch.changed().now_or_never().is_some(), "a backend made ready");
}

#[tokio::test(start_paused = true)]
async fn ib_11_a_pipe_that_died_too_often_on_a_backend_gets_another_or_a_time() {
    let world = World::unprobed();
    world.put("a", worker(1)).unwrap();
    world.put("b", worker(2)).unwrap();
    let only_a = [world.view("b").key];
    let pipe = |number: u8| Some(PipeId::from_bytes([number; 16]));
    let choose = |pipe, exclude| world.backends.choose("default", &Ask { pipe, exclude, ..Ask::default() });
    let began = tokio::time::Instant::now();
    let live = |outcome| choose(pipe(1), &only_a).unwrap().report(pipe(1), outcome);
    for _ in 0..2 {
        live(Outcome::DialFailed(DialFailure::Timeout));
        live(Outcome::Died(Duration::from_secs(2)));
        live(Outcome::Died(Duration::from_millis(1)));
    }
    assert_eq!(choose(pipe(1), &[]).unwrap().id().as_ref(), "b");
    let held = choose(pipe(1), &only_a).unwrap_err();
    assert_eq!((held.reason, held.hold()), (NoCandidate::Excluded, Hold::DiesYoung));
    assert_eq!(held.retry_at, Some(began + Duration::from_secs(60)));
    assert_eq!(world.view("a").pipes, 0, "what was refused holds no place");
    assert!(choose(pipe(2), &only_a).is_ok(), "another pipe's trouble is its own");
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(choose(pipe(1), &only_a).unwrap().id().as_ref(), "a");
}

#[test]
fn what_pipes_live_through_ejects_or_downs_a_backend() {
    let report = |failure: DialFailure, times: u32| {
        let world = World::new(vec![pool("default", ProbeSettings::default())]);
        world.put("a", worker(1)).unwrap();
        world.put("b", worker(2)).unwrap();
        for _ in 0..times {
            if let Ok(place) = world.choose_only("a") {
                place.report(None, Outcome::DialFailed(failure));
            }
        }
        world.view("a").health
    };
    assert_eq!(report(DialFailure::Refused, 1), Health::Down);
    assert_eq!(report(DialFailure::Local, 5), Health::Unknown);
    assert_eq!(report(DialFailure::Status(503), 5), Health::Unknown, "a request can bring that about");
    assert_eq!(report(DialFailure::BadProtocol, 5), Health::Unknown);
    assert_eq!(report(DialFailure::Status(403), 5), Health::Up, "it answers, if not kindly");
}

#[tokio::test(start_paused = true)]
async fn dials_that_fail_in_a_row_eject_for_a_while() {
    for failure in [DialFailure::Timeout, DialFailure::BadAnswer] {
        let mut world = World::unprobed();
        let _keeper = world.keep();
        world.put("a", worker(1)).unwrap();
        world.put("b", worker(2)).unwrap();
        for _ in 0..3 {
            tokio::time::advance(Duration::from_millis(10)).await;
            let place = world.choose_only("a").unwrap();
            place.report(None, Outcome::DialFailed(failure));
        }
        assert_eq!(world.view("a").health, Health::Ejected, "{failure:?}");
        let ejected = world.event(|event| matches!(event, BackendEvent::Ejected { .. })).await;
        assert!(matches!(ejected, BackendEvent::Ejected { reason, .. } if reason == EjectCause::FailedDials));
        let mut watch = world.backends.watch("default").unwrap();
        world.event(|event| matches!(event, BackendEvent::Readmitted { .. })).await;
        watch.changed().await;
        assert!(world.view("a").eligible);
    }
}

#[tokio::test(start_paused = true)]
async fn where_nothing_probes_a_refused_dial_does_not_down_a_backend_for_ever() {
    let world = World::unprobed();
    world.put("a", worker(1)).unwrap();
    for _ in 0..10 {
        tokio::time::advance(Duration::from_millis(10)).await;
        world.choose().unwrap().report(None, Outcome::DialFailed(DialFailure::Refused));
    }
    assert!(world.view("a").eligible, "the only one is never ejected");
}
