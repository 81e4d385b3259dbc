//! A process that takes over from another one: what it knows of backends then.

use super::*;

#[test]
fn a_backend_that_was_drained_is_drained_in_the_process_that_takes_over() {
    let (old, new) = (World::unprobed(), World::unprobed());
    old.put("w", leased(7001, 15)).unwrap();
    let change = StateChange { state: AdminState::Drain, pipes: PipesWish::Keep, deadline: None };
    old.backends.set_state("w", Expect::Anything, change).unwrap();
    let standings = old.backends.standings();
    let words = serde_json::to_string(&standings).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Standing>>(&words).unwrap(), standings);
    assert!(standings.iter().all(|it| new.backends.resume(it, Some(leased(7001, 15)))));
    assert_eq!((new.view("w").admin, new.view("w").eligible), (AdminState::Drain, false));
    assert!(standings.iter().all(|it| new.backends.resume(it, None)), "and told again");
    assert_eq!(new.backends.list().len(), 1);
}

#[test]
fn a_backend_of_a_pool_that_is_configured_no_more_does_not_come_along() {
    let (old, new) = (World::unprobed(), World::new(vec![pool("another", unprobed())]));
    old.put("w", worker(7001)).unwrap();
    assert!(old.backends.standings().iter().all(|it| !new.backends.resume(it, Some(worker(7001)))));
    assert_eq!(new.backends.list().len(), 0);
}

#[test]
fn what_no_backend_here_was_called_is_called_by_a_key_that_none_gets() {
    let new = World::unprobed();
    let stranger = new.backends.key_of_other(BackendKey(1));
    assert_eq!(new.backends.key_of_other(BackendKey(1)), stranger, "the same each time");
    new.put("w", worker(7001)).unwrap();
    assert_ne!(new.view("w").key, stranger);
    assert!(new.backends.occupy(stranger, None).is_none());
    let place = new.backends.occupy(new.view("w").key, None).unwrap();
    assert_eq!(new.view("w").pipes, 1);
    drop(place);
    assert_eq!(new.view("w").pipes, 0);
}
