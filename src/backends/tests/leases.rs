//! Leases over virtual time: what renews, expires, revives and protects itself.

use super::*;
use holdline_core::lease::LeaseState;
use holdline_core::pool::AdminState;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_not_renewed_ends_in_removal() {
    let mut world = World::unprobed();
    let _keeper = world.keep();
    world.put("a", leased(1, 15)).unwrap();
    let place = world.choose().unwrap();
    let began = tokio::time::Instant::now();
    world.event(|event| matches!(event, BackendEvent::LeaseExpired { .. })).await;
    assert_eq!(began.elapsed().as_secs(), 15);
    assert_eq!((world.view("a").lease, world.view("a").eligible), (LeaseState::Expired, false));
    assert_eq!(place.must_leave(), None, "there is a minute for a renewal");
    let (key, leave) = world.leaves.recv().await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 75);
    assert_eq!((key, leave), (place.key(), Leave { how: LeaveHow::Detach, cause: LeaveCause::LeaseExpired }));
    assert_eq!(world.backends.renew_lease("a"), Err(BackendError::NotFound("a".into())), "register again");
    drop(place);
    assert!(world.backends.get("a").is_none());
    assert!(matches!(
        world.event(|event| matches!(event, BackendEvent::Removed { .. })).await,
        BackendEvent::Removed { reason: Removal::LeaseExpired, .. }
    ));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_keeps_a_lease_alive_or_revives_it() {
    let mut world = World::unprobed();
    let _keeper = world.keep();
    world.put("a", leased(1, 15)).unwrap();
    for _ in 0..10 {
        tokio::time::sleep(10 * SECOND).await;
        world.backends.renew_lease("a").unwrap();
    }
    assert_eq!(world.view("a").lease, LeaseState::Live);
    world.heard();
    world.event(|event| matches!(event, BackendEvent::LeaseExpired { .. })).await;
    let mut watch = world.backends.watch("default").unwrap();
    world.backends.renew_lease("a").unwrap();
    watch.changed().await;
    assert!(world.view("a").eligible);
    world.event(|event| matches!(event, BackendEvent::LeaseRevived { .. })).await;
}

#[tokio::test(start_paused = true)]
async fn registering_again_renews_the_lease() {
    let world = World::unprobed();
    let _keeper = world.keep();
    world.put("a", leased(1, 15)).unwrap();
    for _ in 0..10 {
        tokio::time::sleep(10 * SECOND).await;
        assert_eq!(world.put("a", leased(1, 15)), Ok(Put::Same));
    }
    assert_eq!(world.view("a").lease, LeaseState::Live);
}

#[tokio::test(start_paused = true)]
async fn leases_that_run_out_together_are_kept_and_it_is_said() {
    let mut world = World::unprobed();
    let _keeper = world.keep();
    for (id, port) in [("a", 1), ("b", 2), ("c", 3)] {
        world.put(id, leased(port, 15)).unwrap();
    }
    let said = world.event(|event| matches!(event, BackendEvent::SelfPreservation { .. })).await;
    assert_eq!(said, BackendEvent::SelfPreservation { pool: "default".into(), late: 3, live: 3 });
    tokio::time::sleep(300 * SECOND).await;
    assert_eq!(world.heard(), [], "said once, and nobody is removed");
    assert!(world.backends.list().iter().all(|backend| backend.eligible));
}

#[test]
fn a_renewal_says_when_to_come_again_and_what_the_operator_wishes() {
    let world = World::unprobed();
    world.put("a", leased(1, 15)).unwrap();
    world.put("plain", worker(2)).unwrap();
    let renewal = world.backends.renew_lease("a").unwrap();
    assert_eq!((renewal.renew_after, renewal.directives), (5 * SECOND, vec![]));
    let left = renewal.expires_at.duration_since(std::time::SystemTime::now()).unwrap();
    assert!(left > 14 * SECOND && left <= 15 * SECOND, "{left:?}");
    for (state, directive) in [(AdminState::Drain, Directive::Drain), (AdminState::Maint, Directive::Maint)] {
        let change = StateChange { state, pipes: PipesWish::Reattach, deadline: None };
        world.backends.set_state("a", Expect::Anything, change).unwrap();
        assert_eq!(world.backends.renew_lease("a").unwrap().directives, [directive]);
    }
    assert_eq!(world.backends.renew_lease("plain"), Err(BackendError::NoLease("plain".into())));
    assert_eq!(world.backends.renew_lease("nobody"), Err(BackendError::NotFound("nobody".into())));
}
