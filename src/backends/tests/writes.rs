//! What the admin API may write, and what it is told when it may not.

use super::*;
use crate::backends::spec::{
    BACKENDS_MAX, INSTANCE_BYTES_MAX, LABELS_MAX, PROBE_INTERVAL_MIN, SERVES_KEYS_MAX, WEIGHT_MAX, WORD_BYTES_MAX,
};
use crate::net::DialFailure;
use holdline_core::health::Health;
use holdline_core::pool::{AdminState, Serves};
use std::num::NonZeroU32;

const DRAIN: StateChange = StateChange { state: AdminState::Drain, pipes: PipesWish::Reattach, deadline: None };

fn with_instance(port: u16, instance: &str) -> BackendSpec {
    BackendSpec { instance: Some(instance.into()), ..worker(port) }
}

#[test]
fn the_same_url_is_registered_once_per_pool() {
    let world = World::new(vec![pool("default", unprobed()), pool("other", unprobed())]);
    let first = world.backends.register(worker(1)).unwrap();
    assert_eq!(world.backends.register(spec("ws://127.0.0.1:1/")).unwrap_err(), BackendError::UrlTaken(first.id));
    assert!(world.backends.register(worker(2)).is_ok());
    assert!(world.backends.register(BackendSpec { pool: "other".into(), ..worker(1) }).is_ok());
}

#[test]
fn what_cannot_be_is_refused_with_the_field_at_fault() {
    let world = World::unprobed();
    let invalid = |spec| world.backends.register(spec).unwrap_err().problem();
    let heavy = |weight| BackendSpec { weight: NonZeroU32::new(weight).unwrap(), ..worker(1) };
    let serving = |keys: usize| {
        let keys = (0..keys).map(|key| (Arc::from(key.to_string()), None));
        BackendSpec { serves: Serves::from_keys(keys), ..worker(1) }
    };
    let labelled = |labels: usize| {
        let labels = (0..labels).map(|label| (label.to_string(), String::new())).collect();
        BackendSpec { labels, ..worker(1) }
    };
    let too_long = BackendSpec { lease: Some(Duration::from_millis(3_600_001)), ..worker(1) };
    let too_short = BackendSpec { lease: Some(Duration::from_millis(999)), ..worker(1) };
    assert_eq!(invalid(BackendSpec { pool: "nowhere".into(), ..worker(1) }), (422, "unknown-pool"));
    assert_eq!(invalid(spec("ws://169.254.169.254/")), (403, "address-not-allowed"));
    assert_eq!(invalid(spec("ws://[::ffff:8.8.8.8]/")), (403, "address-not-allowed"));
    for spec in [heavy(WEIGHT_MAX + 1), too_long, too_short, serving(SERVES_KEYS_MAX + 1), labelled(LABELS_MAX + 1)] {
        assert_eq!(invalid(spec), (422, "invalid-field"));
    }
    for spec in [heavy(WEIGHT_MAX), leased(1, 1), leased(1, 3600), serving(SERVES_KEYS_MAX), labelled(LABELS_MAX)] {
        assert!(world.put("a", spec).is_ok());
    }
    for (id, sound) in [
        ("", false),
        ("a/b", false),
        ("a b", false),
        ("A.b-c_1", true),
        (&"x".repeat(64), true),
        (&"x".repeat(65), false),
    ] {
        assert_eq!(world.put(id, worker(1)).is_ok(), sound, "{id}");
    }
}

#[test]
fn there_is_a_limit_to_the_number_of_backends() {
    let world = World::unprobed();
    for number in 0..BACKENDS_MAX {
        world.put(&format!("b{number}"), worker(1)).unwrap();
    }
    assert_eq!(world.put("one-more", worker(1)), Err(BackendError::TooMany));
    assert_eq!(world.put("b0", worker(1)), Ok(Put::Same));
}

#[test]
fn iw_11_saying_the_same_again_changes_nothing() {
    let mut world = World::unprobed();
    assert_eq!(world.put("a", leased(1, 15)), Ok(Put::Created));
    let before = world.view("a");
    world.heard();
    let index = *world.backends.index().borrow();
    assert_eq!(world.put("a", leased(1, 15)), Ok(Put::Same));
    assert_eq!((world.view("a").key, world.view("a").version), (before.key, before.version));
    assert_eq!(*world.backends.index().borrow(), index);
    assert_eq!(world.heard(), []);
}

#[test]
fn a_changed_field_keeps_the_backend_and_a_changed_url_makes_another() {
    let mut world = World::unprobed();
    world.put("a", worker(1)).unwrap();
    let key = world.view("a").key;
    let place = world.choose().unwrap();
    assert_eq!(world.put("a", BackendSpec { max_pipes: Some(9), ..worker(1) }), Ok(Put::Replaced));
    assert_eq!((world.view("a").key, world.view("a").pipes), (key, 1));
    assert_eq!(world.orders(), []);
    assert_eq!(world.put("a", worker(2)), Ok(Put::Replaced));
    assert_ne!(world.view("a").key, key);
    assert_eq!(world.view("a").pipes, 0, "they are the old one's");
    let leave = Leave { how: LeaveHow::Reattach, cause: LeaveCause::Removed };
    assert_eq!(world.orders(), [(key, leave)]);
    assert_eq!(place.must_leave(), Some(leave));
    drop(place);
    assert_eq!(world.view("a").pipes, 0);
}

#[test]
fn a_live_instance_keeps_its_id_and_a_dead_one_does_not() {
    let taken = Err(BackendError::InstanceConflict("a".into()));
    let world = World::new(vec![pool("default", ProbeSettings::default())]);
    world.put("a", with_instance(1, "i1")).unwrap();
    assert_eq!(world.put("a", with_instance(1, "i2")), taken);
    assert_eq!(world.put("a", with_instance(2, "i2")), taken);
    assert_eq!(world.put("a", with_instance(1, "i1")), Ok(Put::Same));
    world.choose().unwrap().report(None, Outcome::DialFailed(DialFailure::Refused));
    assert_eq!(world.view("a").health, Health::Down);
    assert_eq!(world.put("a", with_instance(1, "i2")), Ok(Put::Replaced));
    assert_eq!(world.view("a").health, Health::Unknown, "another process is judged anew");
}

#[test]
fn a_worker_that_registers_again_does_not_undo_a_drain() {
    let world = World::unprobed();
    world.put("a", worker(1)).unwrap();
    world.backends.set_state("a", Expect::Anything, DRAIN).unwrap();
    world.put("a", BackendSpec { max_pipes: Some(5), ..worker(1) }).unwrap();
    assert_eq!(world.view("a").admin, AdminState::Drain);
    world.put("a", BackendSpec { state: Some(AdminState::Ready), ..worker(1) }).unwrap();
    assert_eq!(world.view("a").admin, AdminState::Ready);
}

#[test]
fn iw_16_a_deleted_backend_drains_and_goes_with_its_last_pipe() {
    let mut world = World::unprobed();
    world.put("a", worker(1)).unwrap();
    let (key, places) = (world.view("a").key, [world.choose().unwrap(), world.choose().unwrap()]);
    assert_eq!(world.backends.delete("a", Expect::Anything), Ok(Progress::Leaving { pipes: 2, requests: 0 }));
    assert_eq!(
        world.backends.delete("a", Expect::Anything),
        Ok(Progress::Leaving { pipes: 2, requests: 0 }),
        "asked again"
    );
    assert_eq!(world.orders(), [(key, Leave { how: LeaveHow::Reattach, cause: LeaveCause::Removed })]);
    assert!(world.choose().is_err());
    assert!(world.view("a").removing);
    drop(places);
    assert!(world.backends.get("a").is_none());
    assert_eq!(world.backends.delete("a", Expect::Anything), Ok(Progress::Done));
    let removed = BackendEvent::Removed { pool: "default".into(), backend: "a".into(), reason: Removal::Deleted };
    assert_eq!(world.heard().last(), Some(&removed));
}

#[test]
fn a_backend_being_removed_comes_back_only_by_registering_again() {
    let world = World::unprobed();
    world.put("a", worker(1)).unwrap();
    let place = world.choose().unwrap();
    world.backends.delete("a", Expect::Anything).unwrap();
    let ready = StateChange { state: AdminState::Ready, ..DRAIN };
    assert!(matches!(world.backends.set_state("a", Expect::Anything, ready), Err(BackendError::NotFound(_))));
    assert_eq!(world.put("a", worker(1)), Ok(Put::Replaced));
    assert_eq!(place.must_leave(), None);
    drop(place);
    assert!(world.view("a").eligible);
}

#[test]
fn a_static_backend_can_be_drained_and_neither_replaced_nor_deleted() {
    let backends = vec![(Arc::from("fixed"), spec("ws://203.0.113.1:80"))];
    let world = World::new(vec![PoolSpec { backends, ..pool("default", unprobed()) }]);
    assert_eq!(world.view("fixed").origin, Origin::Static, "trusted, though outside of the networks");
    let refused = BackendError::Static("fixed".into());
    assert_eq!(world.put("fixed", worker(1)), Err(refused.clone()));
    assert_eq!(world.backends.delete("fixed", Expect::Anything), Err(refused.clone()));
    assert_eq!(world.backends.patch("fixed", Expect::Anything, |_| {}).unwrap_err(), refused);
    assert_eq!(world.backends.set_state("fixed", Expect::Anything, DRAIN).unwrap().0, Progress::Done);
}

#[test]
fn a_patch_changes_what_it_names() {
    let world = World::unprobed();
    world.put("a", leased(1, 15)).unwrap();
    let view = world.backends.patch("a", Expect::Anything, |spec| spec.max_pipes = Some(3)).unwrap();
    assert_eq!((view.spec.max_pipes, view.spec.lease), (Some(3), Some(Duration::from_secs(15))));
    let outside =
        world.backends.patch("a", Expect::Anything, |spec| spec.url = Arc::new("ws://8.8.8.8".parse().unwrap()));
    assert_eq!(outside.unwrap_err().problem(), (403, "address-not-allowed"));
    assert!(matches!(world.backends.patch("b", Expect::Anything, |_| {}), Err(BackendError::NotFound(_))));
}

#[test]
fn a_write_that_expects_something_else_is_refused() {
    let world = World::unprobed();
    let put =
        |expect| world.backends.put("a", BackendSpec { max_pipes: Some(1), ..worker(1) }, expect).map(|(put, _)| put);
    let failed = Err(BackendError::PreconditionFailed("a".into()));
    assert_eq!(put(Expect::Version(1)), failed);
    assert_eq!(put(Expect::Absent), Ok(Put::Created));
    assert_eq!(put(Expect::Absent), failed);
    let version = world.view("a").version;
    assert_eq!(put(Expect::Version(version)), Ok(Put::Same));
    world.put("a", worker(1)).unwrap();
    assert_eq!(put(Expect::Version(version)), failed);
    assert!(world.backends.delete("a", Expect::Version(version)).is_err());
}

#[test]
fn a_state_change_tells_the_pipes_what_was_wished() {
    use LeaveHow::{Close, Detach, Reattach};
    for (state, pipes, how) in [
        (AdminState::Drain, PipesWish::Reattach, Some(Reattach)),
        (AdminState::Drain, PipesWish::Close, Some(Close)),
        (AdminState::Drain, PipesWish::Keep, None),
        (AdminState::Maint, PipesWish::Reattach, Some(Detach)),
        (AdminState::Maint, PipesWish::Close, Some(Close)),
        (AdminState::Maint, PipesWish::Keep, None),
    ] {
        let mut world = World::unprobed();
        world.put("a", worker(1)).unwrap();
        let place = world.choose().unwrap();
        let change = StateChange { state, pipes, deadline: None };
        assert_eq!(
            world.backends.set_state("a", Expect::Anything, change).unwrap().0,
            Progress::Leaving { pipes: 1, requests: 0 }
        );
        let orders: Vec<_> = world.orders().into_iter().map(|(_, leave)| leave.how).collect();
        assert_eq!(orders, how.into_iter().collect::<Vec<_>>(), "{state:?} {pipes:?}");
        assert_eq!(place.must_leave().map(|leave| leave.how), how);
        drop(place);
        assert!(world.heard().iter().any(|event| matches!(event, BackendEvent::Drained { .. })));
    }
}

#[test]
fn a_drained_backend_that_is_made_ready_takes_pipes_again() {
    let world = World::unprobed();
    world.put("a", worker(1)).unwrap();
    let place = world.choose().unwrap();
    world.backends.set_state("a", Expect::Anything, DRAIN).unwrap();
    assert!(world.choose().is_err());
    world.backends.set_state("a", Expect::Anything, StateChange { state: AdminState::Ready, ..DRAIN }).unwrap();
    assert_eq!(place.must_leave(), None);
    assert!(world.choose().is_ok());
}

#[tokio::test(start_paused = true)]
async fn pipes_that_outstay_the_deadline_are_detached() {
    for (pipes, first) in [(PipesWish::Reattach, 1), (PipesWish::Keep, 0)] {
        let mut world = World::unprobed();
        let _keeper = world.keep();
        world.put("a", worker(1)).unwrap();
        let place = world.choose().unwrap();
        let change = StateChange { state: AdminState::Drain, pipes, deadline: Some(Duration::from_secs(5)) };
        world.backends.set_state("a", Expect::Anything, change).unwrap();
        tokio::time::sleep(Duration::from_millis(4990)).await;
        assert_eq!(world.orders().len(), first);
        let detach = Leave { how: LeaveHow::Detach, cause: LeaveCause::Drain };
        assert_eq!(world.leaves.recv().await, Some((place.key(), detach)));
        assert_eq!(place.must_leave(), Some(detach));
    }
}

#[test]
fn a_new_configuration_touches_only_what_changed() {
    let fixed = |ids: &[(&str, u16)]| {
        let backends = ids.iter().map(|&(id, port)| (Arc::from(id), worker(port))).collect();
        vec![PoolSpec { backends, ..pool("default", unprobed()) }]
    };
    let mut world = World::new(fixed(&[("kept", 1), ("moved", 2), ("dropped", 3)]));
    world.put("registered", worker(4)).unwrap();
    world.backends.set_state("kept", Expect::Anything, DRAIN).unwrap();
    let kept = world.view("kept");
    let dropped = world.choose_only("dropped").unwrap();
    world.heard();
    world.backends.configure(&setup(fixed(&[("kept", 1), ("moved", 22), ("added", 5)])));
    assert_eq!((world.view("kept").version, world.view("kept").admin), (kept.version, AdminState::Drain));
    assert_eq!(world.view("moved").spec.url.port(), 22);
    assert!(world.view("registered").eligible && world.view("added").eligible);
    assert!(world.view("dropped").removing);
    assert_eq!(world.orders().iter().map(|(key, _)| *key).collect::<Vec<_>>(), [dropped.key()]);
    drop(dropped);
    assert!(world.backends.get("dropped").is_none());
}

#[test]
fn a_pool_that_is_no_longer_configured_lives_until_its_last_pipe_is_gone() {
    let world = World::new(vec![pool("default", unprobed()), pool("old", unprobed())]);
    let old = || BackendSpec { pool: "old".into(), ..worker(1) };
    world.put("a", old()).unwrap();
    let place = world.backends.choose("old", &Ask::default()).unwrap();
    world.backends.configure(&setup(vec![pool("default", unprobed())]));
    assert_eq!(world.backends.pools().len(), 2);
    assert_eq!(world.put("b", old()), Err(BackendError::UnknownPool("old".into())));
    drop(place);
    assert_eq!(world.backends.pools().len(), 1);
}

#[test]
fn lists_and_pools_add_up() {
    let world = World::unprobed();
    for (id, port) in [("b", 1), ("a", 2)] {
        world.put(id, worker(port)).unwrap();
    }
    let _places = [world.choose().unwrap(), world.choose().unwrap(), world.choose().unwrap()];
    let list = world.backends.list();
    assert_eq!(list.iter().map(|view| &*view.id).collect::<Vec<_>>(), ["a", "b"]);
    let pools = world.backends.pools();
    assert_eq!((pools[0].backends, pools[0].eligible, pools[0].pipes), (2, 2, 3));
    assert_eq!(list.iter().map(|view| view.pipes).sum::<u32>(), 3);
}

#[test]
fn pages_are_cut_by_number_and_by_bytes_and_join_up_to_the_whole_list() {
    let world = World::unprobed();
    let key = |number: usize| (Arc::from(format!("key-{number}-{}", "x".repeat(100))), None);
    let fat = Serves::from_keys((0..5_000).map(key));
    for number in 0..20_u16 {
        let serves = if number < 10 { fat.clone() } else { Serves::Any };
        world.put(&format!("w{number:03}"), BackendSpec { serves, ..worker(number + 1) }).unwrap();
    }
    let (mut ids, mut sizes) = (Vec::new(), Vec::new());
    loop {
        let after = ids.last().cloned();
        let (page, more) = world.backends.page(after.as_deref(), 8, |_, _| true);
        sizes.push(page.len());
        ids.extend(page.iter().map(|view| view.id.to_string()));
        if !more {
            break;
        }
    }
    let all: Vec<_> = world.backends.list().iter().map(|view| view.id.to_string()).collect();
    assert_eq!((ids, all.len()), (all.clone(), 20));
    let one = world.view("w000").spec.held_bytes();
    let most = PAGE_BYTES_MAX.div_ceil(one);
    assert!((2..8).contains(&most) && sizes[0] == most, "{sizes:?}, and {one} bytes each");
    let (drained, more) = world.backends.page(None, 100, |_, state| state != AdminState::Ready);
    assert!(drained.is_empty() && !more);
}

#[test]
fn what_is_said_about_backends_takes_bounded_memory_each_and_in_all() {
    let world = World::unprobed();
    let key = |number: usize| (Arc::from(format!("key-{number}")), None);
    let serving =
        |port: u16, keys: usize| BackendSpec { serves: Serves::from_keys((0..keys).map(key)), ..worker(port) };
    let one = serving(1, 1000).held_bytes();
    let bounds = Bounds { backend_bytes_max: one, registry_bytes_max: 2 * one + 100, ..Bounds::default() };
    world.backends.configure(&Setup { bounds, ..setup(vec![pool("default", unprobed())]) });
    let refused = |id: &str, spec: BackendSpec| world.put(id, spec).unwrap_err().problem();
    assert_eq!(refused("a", serving(1, 1001)), (507, "backend-too-large"));
    world.put("a", serving(1, 1000)).unwrap();
    world.put("b", serving(2, 1000)).unwrap();
    assert_eq!(world.backends.held_bytes(), 2 * one);
    assert_eq!(refused("c", worker(3)), (507, "registry-full"));
    assert_eq!(world.backends.register(worker(3)).unwrap_err().problem(), (507, "registry-full"));
    assert_eq!(world.put("a", serving(1, 1000)).unwrap(), Put::Same, "what is there may be said again");
    world.put("a", serving(1, 10)).unwrap();
    world.put("c", worker(3)).unwrap();
    assert_eq!(
        world.backends.patch("a", Expect::Anything, |said| *said = serving(1, 1000)).unwrap_err().problem().0,
        507
    );
    world.put("b", serving(4, 1000)).unwrap();
    for id in ["a", "b", "c"] {
        world.backends.delete(id, Expect::Anything).unwrap();
    }
    assert_eq!(world.backends.held_bytes(), 0);
}

#[test]
fn words_are_short_and_without_control_characters_and_probes_are_not_too_frequent() {
    let world = World::unprobed();
    let serving = |word: &str| BackendSpec { serves: Serves::from_keys([(Arc::from(word), None)]), ..worker(1) };
    let labelled = |word: &str| BackendSpec { labels: [("l".to_owned(), word.to_owned())].into(), ..worker(1) };
    let instance = |word: &str| BackendSpec { instance: Some(word.into()), ..worker(1) };
    let probed = |interval: Duration| BackendSpec {
        probes: Some(ProbeSettings { interval, ..ProbeSettings::default() }),
        ..worker(1)
    };
    let (long, longest) = ("x".repeat(WORD_BYTES_MAX), "x".repeat(WORD_BYTES_MAX + 1));
    let millisecond = Duration::from_millis(1);
    for (spec, pointer) in [
        (serving(&longest), "/serves"),
        (serving("a\nb"), "/serves"),
        (labelled(&longest), "/labels"),
        (labelled("a\u{85}b"), "/labels"),
        (instance(&"x".repeat(INSTANCE_BYTES_MAX + 1)), "/instance"),
        (probed(PROBE_INTERVAL_MIN - millisecond), "/health/interval"),
        (probed(Duration::from_nanos(1)), "/health/interval"),
    ] {
        assert_eq!(world.put("a", spec).unwrap_err().pointer(), Some(pointer));
    }
    for spec in [
        serving(&long),
        labelled(&long),
        instance(&"x".repeat(INSTANCE_BYTES_MAX)),
        probed(PROBE_INTERVAL_MIN),
        probed(Duration::ZERO),
    ] {
        world.put("a", spec).unwrap();
    }
}
