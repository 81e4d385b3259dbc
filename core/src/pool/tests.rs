//! The pool from outside, decision by decision.

use super::*;
use crate::lease::EXPIRED_GRACE;
use std::num::NonZeroU32;
use std::time::Duration;

fn settings(balance: Balance) -> PoolSettings {
    PoolSettings { balance, max_pipes_per_backend: 0, health: HealthSettings::default() }
}

fn at(seconds: u64) -> Time {
    Time::ZERO + Duration::from_secs(seconds)
}

fn weight(weight: u32) -> BackendSettings {
    BackendSettings { weight: NonZeroU32::new(weight).unwrap(), ..BackendSettings::default() }
}

fn serving(keys: &[(&str, Option<&str>)]) -> BackendSettings {
    let keys = keys.iter().map(|&(key, alias)| (Arc::from(key), alias.map(Arc::from)));
    BackendSettings { serves: Serves::from_keys(keys), ..BackendSettings::default() }
}

fn leased(seconds: u64) -> BackendSettings {
    BackendSettings { lease: Some(Duration::from_secs(seconds)), ..BackendSettings::default() }
}

/// A pool whose backends are called `b1`, `b2`, … with the keys 1, 2, ….
fn pool(balance: Balance, backends: &[BackendSettings]) -> Pool {
    let mut pool = Pool::new(settings(balance));
    for (index, backend) in (1..).zip(backends) {
        pool.insert(BackendKey(index), format!("b{index}").into(), backend.clone(), at(0));
    }
    pool
}

fn plain(count: usize) -> Vec<BackendSettings> {
    vec![BackendSettings::default(); count]
}

fn choose(pool: &mut Pool, ask: &Choose<'_>) -> Result<u64, NoCandidate> {
    pool.choose(ask).map(|chosen| chosen.key.0)
}

/// How often each of `count` backends is chosen in `rounds`.
fn spread(pool: &mut Pool, count: usize, rounds: u64) -> Vec<u32> {
    for round in 0..rounds {
        let random = round.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        pool.choose(&Choose { random, ..Choose::default() }).unwrap();
    }
    (1..=count as u64).map(|key| pool.get(BackendKey(key)).unwrap().pipes()).collect()
}

#[test]
fn ib_08_a_key_goes_to_its_owners_and_never_to_another() {
    let s1 = || serving(&[("s1", None)]);
    let mut pool = pool(Balance::LeastPipes, &[s1(), serving(&[("s2", None)]), s1()]);
    let ask = Choose { key: Some("s1"), ..Choose::default() };
    pool.probed(BackendKey(1), Probed::Refused);
    assert_eq!(choose(&mut pool, &ask), Ok(3));
    pool.probed(BackendKey(3), Probed::Refused);
    assert_eq!(choose(&mut pool, &ask), Err(NoCandidate::NotEligible));
    assert_eq!(choose(&mut pool, &Choose { key: Some("s3"), ..ask }), Err(NoCandidate::NoOwner));
    assert_eq!(choose(&mut pool, &Choose { key: None, ..ask }), Ok(2), "only a key restricts");
    assert!(pool.awaits(&ask) && !pool.awaits(&Choose { key: Some("s3"), ..ask }));
    pool.set_admin(BackendKey(1), AdminState::Maint);
    pool.set_admin(BackendKey(3), AdminState::Drain);
    assert!(!pool.awaits(&ask), "what was taken out is not waited for");
}

#[test]
fn ib_08_the_chosen_backend_says_what_it_calls_the_key() {
    let mut pool = pool(Balance::LeastPipes, &[serving(&[("udid", Some("session-7"))])]);
    let chosen = pool.choose(&Choose { key: Some("udid"), ..Choose::default() }).unwrap();
    assert_eq!(chosen.alias.as_deref(), Some("session-7"));
}

#[test]
fn ib_09_excluded_backends_are_passed_over_until_none_is_left() {
    let mut pool = pool(Balance::LeastPipes, &plain(2));
    let one = [BackendKey(1)];
    let both = [BackendKey(1), BackendKey(2)];
    assert_eq!(choose(&mut pool, &Choose { exclude: &one, ..Choose::default() }), Ok(2));
    assert_eq!(choose(&mut pool, &Choose { exclude: &both, ..Choose::default() }), Err(NoCandidate::Excluded));
}

#[test]
fn the_avoided_backend_is_taken_only_if_there_is_no_other() {
    let mut pool = pool(Balance::LeastPipes, &plain(2));
    let ask = Choose { avoid: Some(BackendKey(1)), ..Choose::default() };
    for _ in 0..5 {
        assert_eq!(choose(&mut pool, &ask), Ok(2));
    }
    pool.set_admin(BackendKey(2), AdminState::Maint);
    assert_eq!(choose(&mut pool, &ask), Ok(1));
}

#[test]
fn the_preferred_backend_is_taken_before_less_loaded_ones_while_it_may_be() {
    let mut pool = pool(Balance::LeastPipes, &plain(2));
    let ask = Choose { prefer: Some(BackendKey(1)), ..Choose::default() };
    for _ in 0..5 {
        assert_eq!(choose(&mut pool, &ask), Ok(1));
    }
    pool.set_admin(BackendKey(1), AdminState::Drain);
    assert_eq!(choose(&mut pool, &ask), Ok(2));
}

#[test]
fn iw_09_a_full_backend_is_passed_over_until_a_pipe_leaves_it() {
    let mut pool = pool(Balance::LeastPipes, &plain(2));
    pool.configure(PoolSettings { max_pipes_per_backend: 1, ..settings(Balance::LeastPipes) });
    let ask = Choose::default();
    let mut taken = vec![choose(&mut pool, &ask).unwrap(), choose(&mut pool, &ask).unwrap()];
    taken.sort_unstable();
    assert_eq!(taken, [1, 2]);
    assert_eq!(choose(&mut pool, &ask), Err(NoCandidate::Full));
    assert!(pool.choose_request(&ask).is_ok(), "a request is no pipe");
    assert_eq!(pool.release(BackendKey(2)), Some(Released { pipes: 0, was_full: true }));
    assert_eq!(choose(&mut pool, &ask), Ok(2));
}

#[test]
fn a_backends_own_limit_goes_before_the_pools() {
    for (own, taken) in [(Some(3), 3), (Some(1), 1), (None, 2), (Some(0), 10)] {
        let mut pool = pool(Balance::LeastPipes, &[BackendSettings { max_pipes: own, ..BackendSettings::default() }]);
        pool.configure(PoolSettings { max_pipes_per_backend: 2, ..settings(Balance::LeastPipes) });
        let count = (0..10).filter(|_| choose(&mut pool, &Choose::default()).is_ok()).count();
        assert_eq!(count, taken, "{own:?}");
    }
}

#[test]
fn all_three_states_must_allow_a_pipe() {
    type Change = fn(&mut Pool);
    let changes: [(&str, Change, bool); 7] = [
        ("nothing is known", |_| {}, true),
        ("up", |pool| _ = pool.probed(BackendKey(1), Probed::Ok), true),
        ("down", |pool| _ = pool.probed(BackendKey(1), Probed::Refused), false),
        ("drain", |pool| _ = pool.set_admin(BackendKey(1), AdminState::Drain), false),
        ("maint", |pool| _ = pool.set_admin(BackendKey(1), AdminState::Maint), false),
        ("expired", |pool| _ = pool.expire_leases(at(15)), false),
        (
            "down is not undone by ready",
            |pool| {
                pool.probed(BackendKey(1), Probed::Refused);
                pool.set_admin(BackendKey(1), AdminState::Drain);
                pool.set_admin(BackendKey(1), AdminState::Ready);
            },
            false,
        ),
    ];
    for (name, change, eligible) in changes {
        let mut pool = pool(Balance::LeastPipes, &[leased(15)]);
        change(&mut pool);
        assert_eq!(pool.iter().any(Backend::is_eligible), eligible, "{name}");
        assert_eq!(choose(&mut pool, &Choose::default()).is_ok(), eligible, "{name}");
    }
}

#[test]
fn an_empty_pool_says_so() {
    assert_eq!(choose(&mut pool(Balance::Hash, &[]), &Choose::default()), Err(NoCandidate::Empty));
}

#[test]
fn least_pipes_fills_backends_by_their_weights() {
    assert_eq!(spread(&mut pool(Balance::LeastPipes, &plain(3)), 3, 300), [100, 100, 100]);
    assert_eq!(spread(&mut pool(Balance::LeastPipes, &[weight(1), weight(3)]), 2, 400), [100, 300]);
}

#[test]
fn of_a_weight_only_the_part_counts_that_its_worker_has_free_but_keys_do_not_wander_with_it() {
    for balance in [Balance::LeastPipes, Balance::RoundRobin] {
        let mut shared = pool(balance, &plain(2));
        shared.set_share(BackendKey(1), 25);
        assert_eq!(spread(&mut shared, 2, 500), [100, 400], "{balance:?}");
        shared.set_share(BackendKey(1), 0);
        assert_eq!(shared.get(BackendKey(1)).unwrap().share(), 1, "a worker that has nothing left is the last resort");
    }
    let ask = Choose { key: Some("k"), ..Choose::default() };
    let owner = choose(&mut pool(Balance::Hash, &plain(3)), &ask).unwrap();
    let mut shared = pool(Balance::Hash, &plain(3));
    shared.set_share(BackendKey(owner), 1);
    assert_eq!(choose(&mut shared, &ask).unwrap(), owner);
}

#[test]
fn least_pipes_breaks_ties_by_chance() {
    let mut firsts = [0; 3];
    for random in 0..300_u64 {
        let mut pool = pool(Balance::LeastPipes, &plain(3));
        let random = random.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        firsts[choose(&mut pool, &Choose { random, ..Choose::default() }).unwrap() as usize - 1] += 1;
    }
    assert!(firsts.iter().all(|&count| (60..140).contains(&count)), "{firsts:?}");
}

#[test]
fn round_robin_is_smooth_and_weighted() {
    let mut pool = pool(Balance::RoundRobin, &[weight(5), weight(1), weight(1)]);
    let order: Vec<_> = (0..7).map(|_| choose(&mut pool, &Choose::default()).unwrap()).collect();
    assert_eq!(order, [1, 1, 2, 1, 3, 1, 1]);
}

#[test]
fn random2_keeps_clear_of_the_loaded_one() {
    let mut pool = pool(Balance::Random2, &plain(3));
    for _ in 0..50 {
        choose(&mut pool, &Choose { prefer: Some(BackendKey(1)), ..Choose::default() }).unwrap();
    }
    let pipes = spread(&mut pool, 3, 60);
    assert_eq!(pipes[0], 50, "the one that is drawn beside it has fewer: {pipes:?}");
    assert!(pipes[1] > 15 && pipes[2] > 15, "{pipes:?}");
}

#[test]
fn random2_takes_the_only_one_there_is() {
    for random in [0, 1, u64::MAX] {
        let mut pool = pool(Balance::Random2, &plain(1));
        assert_eq!(choose(&mut pool, &Choose { random, ..Choose::default() }), Ok(1));
    }
}

#[test]
fn hash_keeps_a_key_on_its_backend_and_moves_only_the_keys_of_a_lost_one() {
    let mut pool = pool(Balance::Hash, &plain(4));
    let keys: Vec<_> = (0..400).map(|number| format!("session-{number}")).collect();
    let owners = |pool: &mut Pool| -> Vec<u64> {
        keys.iter().map(|key| choose(pool, &Choose { key: Some(key), ..Choose::default() }).unwrap()).collect()
    };
    let before = owners(&mut pool);
    assert_eq!(before, owners(&mut pool), "load doesn't matter");
    pool.probed(BackendKey(2), Probed::Refused);
    let after = owners(&mut pool);
    for (old, new) in before.iter().zip(&after) {
        assert!(*new != 2 && (old == new || *old == 2), "{old} moved to {new}");
    }
    let share = before.iter().filter(|&&owner| owner == 2).count();
    assert!((60..140).contains(&share), "{share} of 400 on one of four");
}

#[test]
fn hash_gives_a_heavier_backend_more_keys() {
    let mut pool = pool(Balance::Hash, &[weight(1), weight(3)]);
    let heavy = (0..1000)
        .filter(|number| choose(&mut pool, &Choose { key: Some(&number.to_string()), ..Choose::default() }) == Ok(2))
        .count();
    assert!((700..800).contains(&heavy), "{heavy}");
}

#[test]
fn hash_without_a_key_spreads_by_load() {
    assert_eq!(spread(&mut pool(Balance::Hash, &plain(2)), 2, 100), [50, 50]);
}

#[test]
fn at_most_half_of_a_pool_is_ejected() {
    for (backends, ejected) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)] {
        let mut pool = pool(Balance::LeastPipes, &plain(backends));
        for round in 1..=3 {
            for key in 1..=backends as u64 {
                let since = at(round * 10);
                pool.experienced(BackendKey(key), Experience::DialFailed { since }, None, since);
            }
        }
        let count = pool.iter().filter(|backend| backend.health() == Health::Ejected).count();
        assert_eq!(count, ejected, "of {backends}");
    }
}

#[test]
fn an_ejected_backend_comes_back_at_its_deadline() {
    let mut pool = pool(Balance::LeastPipes, &plain(2));
    for second in 1..=3 {
        pool.experienced(BackendKey(1), Experience::DialFailed { since: at(second) }, None, at(second));
    }
    assert_eq!(pool.deadline(), Some(at(4)));
    assert_eq!(pool.readmit(at(3)), []);
    assert_eq!(pool.readmit(at(4)), [BackendKey(1)]);
    assert_eq!(pool.deadline(), Some(at(3) + DOUBT), "it is still asked last");
    assert_eq!(pool.readmit(at(8)), []);
    assert_eq!(pool.deadline(), None);
}

/// Three dials of three pipes fail, `seconds` after the beginning.
fn fails(pool: &mut Pool, key: u64, seconds: u64) -> Option<HealthChange> {
    let failed = |second| Experience::DialFailed { since: at(second) };
    (0..3).filter_map(|n| pool.experienced(BackendKey(key), failed(seconds + n), None, at(seconds + n))).next()
}

#[test]
fn the_last_eligible_backend_is_never_ejected_whatever_keeps_the_others_out() {
    type Out = fn(&mut Pool);
    let outs: [(&str, Out); 4] = [
        ("down", |pool| _ = pool.probed(BackendKey(2), Probed::Refused)),
        ("drain", |pool| _ = pool.set_admin(BackendKey(2), AdminState::Drain)),
        ("maint", |pool| _ = pool.set_admin(BackendKey(2), AdminState::Maint)),
        ("expired", |pool| _ = pool.expire_leases(at(60))),
    ];
    for (name, out) in outs {
        let mut pool = pool(Balance::LeastPipes, &[BackendSettings::default(), leased(15), weight(1), weight(1)]);
        out(&mut pool);
        pool.set_admin(BackendKey(3), AdminState::Drain);
        pool.set_admin(BackendKey(4), AdminState::Maint);
        assert_eq!(fails(&mut pool, 1, 100), None, "{name}");
        assert!(pool.get(BackendKey(1)).unwrap().is_eligible(), "{name}");
    }
}

#[test]
fn the_last_owner_of_a_key_is_never_ejected() {
    let owner = |keys: &[(&str, Option<&str>)]| serving(keys);
    let backends = [owner(&[("s1", None), ("s2", None)]), owner(&[("s1", None)]), owner(&[("s3", None)])];
    let mut pool = pool(Balance::LeastPipes, &backends);
    assert_eq!(fails(&mut pool, 1, 10), None, "s2 would have no worker");
    assert!(fails(&mut pool, 2, 20).is_some());
    let mut pool = super::tests::pool(Balance::LeastPipes, &[BackendSettings::default(), owner(&[("s1", None)])]);
    assert_eq!(fails(&mut pool, 1, 10), None, "only it takes every key");
    assert!(fails(&mut pool, 2, 20).is_some(), "the other takes s1 too");
}

#[test]
fn a_backend_that_rests_is_asked_when_there_is_no_other() {
    let mut pool = pool(Balance::LeastPipes, &plain(2));
    assert!(fails(&mut pool, 1, 10).is_some());
    for _ in 0..3 {
        assert_eq!(choose(&mut pool, &Choose::default()), Ok(2));
    }
    pool.probed(BackendKey(2), Probed::Refused);
    assert_eq!(choose(&mut pool, &Choose::default()), Ok(1));
}

#[test]
fn a_backend_that_lost_a_pipe_without_a_word_is_asked_last_until_it_is_heard_of() {
    type News = fn(&mut Pool);
    let news: [(&str, News); 3] = [
        ("a probe succeeds", |pool| _ = pool.probed(BackendKey(1), Probed::Ok)),
        ("a pipe connects", |pool| _ = pool.experienced(BackendKey(1), Experience::Connected, None, at(1))),
        ("time passes", |pool| _ = pool.readmit(at(0) + DOUBT)),
    ];
    for (name, news) in news {
        let mut pool = pool(Balance::LeastPipes, &plain(2));
        let lived = Duration::from_secs(3600);
        pool.experienced(BackendKey(1), Experience::Died { lived }, None, at(0));
        for _ in 0..3 {
            assert_eq!(choose(&mut pool, &Choose { prefer: Some(BackendKey(1)), ..Choose::default() }), Ok(2));
        }
        let only_it = Choose { exclude: &[BackendKey(2)], ..Choose::default() };
        assert_eq!(choose(&mut pool, &only_it), Ok(1), "last is not never");
        news(&mut pool);
        assert_eq!(choose(&mut pool, &Choose::default()), Ok(1), "{name}");
    }
}

#[test]
fn among_the_last_the_avoided_one_comes_behind_those_in_doubt() {
    let mut pool = pool(Balance::LeastPipes, &plain(2));
    let lived = Duration::from_secs(1);
    pool.experienced(BackendKey(2), Experience::Died { lived }, None, at(0));
    assert_eq!(choose(&mut pool, &Choose { avoid: Some(BackendKey(1)), ..Choose::default() }), Ok(2));
}

#[test]
fn a_lone_lease_expires_and_is_gone_a_minute_later() {
    let mut pool = pool(Balance::LeastPipes, &[leased(15), BackendSettings::default()]);
    let key = BackendKey(1);
    assert_eq!(pool.deadline(), Some(at(15)));
    assert_eq!(pool.expire_leases(at(14)), []);
    assert_eq!(pool.expire_leases(at(15)), [LeaseChange::Expired(key)]);
    assert_eq!(pool.deadline(), Some(at(15) + EXPIRED_GRACE));
    assert_eq!(pool.expire_leases(at(74)), []);
    assert_eq!(pool.expire_leases(at(75)), [LeaseChange::Gone(key)]);
    assert_eq!(pool.expire_leases(at(76)), [], "it is said once");
    assert_eq!(pool.deadline(), None);
}

#[test]
fn a_lease_renewed_after_its_expiry_lives_on() {
    let mut pool = pool(Balance::LeastPipes, &[leased(15), BackendSettings::default()]);
    pool.expire_leases(at(15));
    assert_eq!(pool.renew_lease(BackendKey(1), at(20)), Some(true));
    assert_eq!(pool.renew_lease(BackendKey(1), at(21)), Some(false));
    assert_eq!(pool.renew_lease(BackendKey(2), at(21)), None, "it has none");
    assert!(pool.get(BackendKey(1)).unwrap().is_eligible());
    assert_eq!(pool.deadline(), Some(at(36)));
}

#[test]
fn leases_that_run_out_together_are_kept_until_most_are_renewed() {
    let mut pool = pool(Balance::LeastPipes, &[leased(15), leased(15), leased(15)]);
    pool.renew_lease(BackendKey(3), at(12));
    assert_eq!(pool.expire_leases(at(15)), [LeaseChange::SelfPreservation { late: 2, live: 3 }]);
    assert!(pool.iter().all(Backend::is_eligible));
    assert_eq!(pool.deadline(), Some(at(16)), "looked at again soon, and not at once");
    assert_eq!(pool.expire_leases(at(16)), [], "said once");
    pool.renew_lease(BackendKey(1), at(16));
    assert_eq!(pool.expire_leases(at(17)), [LeaseChange::Expired(BackendKey(2))]);
}

#[test]
fn a_release_on_a_removed_backend_is_ignored() {
    let mut pool = pool(Balance::LeastPipes, &plain(1));
    choose(&mut pool, &Choose::default()).unwrap();
    assert!(pool.remove(BackendKey(1)).is_some());
    assert_eq!(pool.release(BackendKey(1)), None);
    assert_eq!(pool.experienced(BackendKey(1), Experience::Connected, None, at(1)), None);
}

#[test]
fn a_surplus_is_what_a_backend_has_beyond_its_share() {
    let mut pool = pool(Balance::LeastPipes, &[weight(1), weight(1), weight(2)]);
    assert_eq!(pool.surplus().count(), 0);
    for _ in 0..8 {
        choose(&mut pool, &Choose { prefer: Some(BackendKey(1)), ..Choose::default() }).unwrap();
    }
    assert_eq!(pool.surplus().collect::<Vec<_>>(), [(BackendKey(1), 6)]);
}

#[test]
fn a_lease_that_came_from_another_process_ends_when_it_would_have_there() {
    let mut pool = pool(Balance::LeastPipes, &[leased(10), leased(10), leased(10)]);
    let health = HealthStanding { checked: Health::Up, ejected_until: None, ejections: 0 };
    pool.insert(BackendKey(9), "late".into(), leased(10), at(100));
    pool.resume(BackendKey(9), health, Some((at(95), None)));
    for key in 1..=3 {
        pool.renew_lease(BackendKey(key), at(104));
    }
    assert_eq!(pool.expire_leases(at(104)), []);
    assert_eq!(pool.expire_leases(at(105)), [LeaseChange::Expired(BackendKey(9))], "not ten seconds anew");
    assert_eq!(pool.get(BackendKey(9)).map(Backend::health), Some(Health::Up));
}
