//! What becomes of a group, in scripts of what happens to its workers, and in seeded runs in which anything happens.

use super::*;
use std::collections::BTreeMap;

const SECOND: Duration = Duration::from_secs(1);

fn settings() -> GroupSettings {
    GroupSettings {
        count: 2,
        standby: 0,
        replace: Replace::First,
        start_timeout: 30 * SECOND,
        drain_timeout: 60 * SECOND,
        stop_timeout: 30 * SECOND,
        backoff_min: Duration::from_millis(100),
        backoff_max: 30 * SECOND,
        limits: Limits::default(),
    }
}

/// A group and the processes that its actions make.
struct World {
    group: Group,
    now: Time,
    /// Whether each process that lives was asked to end.
    processes: BTreeMap<WorkerKey, bool>,
    said: Vec<Action>,
}

impl World {
    fn new(settings: GroupSettings) -> Self {
        let mut world =
            Self { group: Group::new(settings, 7), now: Time::ZERO, processes: BTreeMap::new(), said: Vec::new() };
        world.settle();
        world
    }

    /// One in which all that should be ready is.
    fn ready(settings: GroupSettings) -> Self {
        let mut world = Self::new(settings);
        world.all_ready();
        world
    }

    fn settle(&mut self) {
        for action in self.group.settle(self.now) {
            match action {
                Action::Start { worker, .. } => drop(self.processes.insert(worker, false)),
                Action::Stop(worker) | Action::Kill(worker) => {
                    self.processes.insert(worker, true);
                }
                Action::Serve(_)
                | Action::Empty { .. }
                | Action::SayRecycled(..)
                | Action::SayNeverReady(_)
                | Action::SayCrashLoop { .. } => {}
            }
            self.said.push(action);
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.settle();
    }

    fn is_ready(&mut self, worker: WorkerKey) {
        self.group.ready(worker, self.now);
        self.settle();
    }

    fn all_ready(&mut self) {
        for worker in self.keys(Phase::Starting) {
            self.is_ready(worker);
        }
    }

    fn emptied(&mut self, worker: WorkerKey) {
        self.group.emptied(worker, self.now);
        self.settle();
    }

    fn ended(&mut self, worker: WorkerKey) -> bool {
        self.processes.remove(&worker);
        let unexpected = self.group.ended(worker, self.now);
        self.settle();
        unexpected
    }

    /// The one that leaves is emptied and ends.
    fn let_go(&mut self) -> WorkerKey {
        let [leaving] = self.keys(Phase::Draining)[..] else { panic!("{:?}", self.phases()) };
        self.emptied(leaving);
        assert_eq!(self.group.worker(leaving).map(Worker::phase), Some(Phase::Stopping));
        self.ended(leaving);
        leaving
    }

    fn keys(&self, phase: Phase) -> Vec<WorkerKey> {
        self.group.workers().filter(|worker| worker.phase() == phase).map(Worker::key).collect()
    }

    fn phases(&self) -> Vec<(u32, Phase)> {
        self.group.workers().map(|worker| (worker.index(), worker.phase())).collect()
    }

    fn said(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.said)
    }

    fn starts(&mut self) -> Vec<(u32, StartReason)> {
        let start = |action| match action {
            Action::Start { index, reason, .. } => Some((index, reason)),
            _ => None,
        };
        self.said().into_iter().filter_map(start).collect()
    }
}

#[test]
fn as_many_are_started_as_should_serve_and_stand_by_and_the_first_ready_ones_serve() {
    let mut world = World::new(GroupSettings { standby: 1, ..settings() });
    assert_eq!(world.starts(), [(1, StartReason::Count), (2, StartReason::Count), (3, StartReason::Count)]);
    let [first, second, third] = world.keys(Phase::Starting)[..] else { panic!() };
    world.is_ready(third);
    world.is_ready(first);
    world.is_ready(second);
    assert_eq!(world.phases(), [(1, Phase::Serving), (2, Phase::Standby), (3, Phase::Serving)]);
}

#[test]
fn a_crash_is_followed_by_the_ready_one_at_once_and_by_a_new_process_after_the_back_off() {
    let mut world = World::ready(GroupSettings { standby: 1, ..settings() });
    let (serving, standby) = (world.keys(Phase::Serving)[0], world.keys(Phase::Standby)[0]);
    world.said();
    assert!(world.ended(serving));
    assert_eq!(world.said(), [Action::Serve(standby)]);
    let due = world.group.deadline().unwrap();
    assert!(due > world.now && due.since(world.now) <= Duration::from_millis(100));
    world.pass(due.since(world.now));
    assert_eq!(world.starts(), [(1, StartReason::Failure)], "in the place of the one that crashed");
}

#[test]
fn failures_in_a_row_wait_longer_and_longer_and_are_told_as_a_loop_once() {
    let mut world = World::new(GroupSettings { count: 1, ..settings() });
    let mut longest = Duration::ZERO;
    for failure in 1..=20 {
        let [starting] = world.keys(Phase::Starting)[..] else { panic!("{failure}") };
        world.ended(starting);
        assert!(world.keys(Phase::Starting).is_empty(), "not at once");
        let wait = world.group.deadline().unwrap().since(world.now);
        longest = longest.max(wait);
        world.pass(wait);
    }
    assert!(longest > 3 * SECOND && longest <= 30 * SECOND, "{longest:?}");
    let loops = world.said().into_iter().filter(|said| matches!(said, Action::SayCrashLoop { failures: 5, .. }));
    assert_eq!(loops.count(), 1);
}

#[test]
fn a_process_that_was_ready_for_a_minute_fails_for_the_first_time() {
    let mut world = World::new(GroupSettings { count: 1, ..settings() });
    for lived in [59 * SECOND, PROVEN_AFTER] {
        let failed = world.keys(Phase::Starting)[0];
        world.ended(failed);
        world.pass(SECOND);
        world.all_ready();
        world.pass(lived);
        let serving = world.keys(Phase::Serving)[0];
        world.ended(serving);
        let expected = if lived < PROVEN_AFTER { 2 } else { 1 };
        assert_eq!(world.group.vacancies()[0].failures, expected);
        world.pass(SECOND);
    }
}

#[test]
fn a_rolling_restart_replaces_one_at_a_time_and_each_only_when_its_replacement_is_ready() {
    let mut world = World::ready(settings());
    world.said();
    assert_eq!(world.group.restart(), 2);
    world.settle();
    for round in 0..2 {
        assert_eq!(world.keys(Phase::Serving).len(), 2, "{round}: both serve until the next is ready");
        assert_eq!(world.starts().len(), 1, "{round}: one at a time");
        let old = world.keys(Phase::Serving)[0];
        world.all_ready();
        assert_eq!(world.keys(Phase::Draining), [old], "{round}");
        assert_eq!(world.keys(Phase::Serving).len(), 2, "{round}");
        let said = world.said();
        assert!(said.contains(&Action::SayRecycled(old, Recycle::Restart)), "{said:?}");
        assert!(world.starts().is_empty(), "the next one begins when this one has ended");
        assert_eq!(world.let_go(), old);
    }
    assert!(world.group.workers().all(|worker| worker.due().is_none()));
    assert_eq!(world.phases().len(), 2);
    assert_eq!(world.group.deadline(), None);
}

#[test]
fn where_a_device_is_owned_the_old_one_has_ended_before_the_next_is_started_in_its_place() {
    let mut world = World::ready(GroupSettings { replace: Replace::After, ..settings() });
    world.group.restart();
    world.settle();
    world.said();
    for index in [1, 2] {
        let old = world.keys(Phase::Draining)[0];
        assert_eq!(world.group.worker(old).unwrap().index(), index);
        world.emptied(old);
        assert!(world.starts().is_empty(), "its process is there still");
        world.ended(old);
        assert_eq!(world.starts(), [(index, StartReason::Replacement)]);
        assert!(world.keys(Phase::Draining).is_empty(), "the other one serves until this one does");
        world.all_ready();
    }
    assert_eq!(world.keys(Phase::Serving).len(), 2);
}

#[test]
fn a_replacement_that_never_gets_ready_leaves_the_old_one_where_it_is() {
    let mut world = World::ready(GroupSettings { count: 1, ..settings() });
    let old = world.keys(Phase::Serving)[0];
    assert!(world.group.recycle(old));
    assert!(!world.group.recycle(old), "once");
    world.settle();
    for _ in 0..3 {
        let [next] = world.keys(Phase::Starting)[..] else { panic!("{:?}", world.phases()) };
        world.pass(30 * SECOND);
        assert!(world.said().contains(&Action::SayNeverReady(next)));
        assert_eq!(world.keys(Phase::Stopping), [next]);
        world.ended(next);
        assert_eq!(world.phases(), [(1, Phase::Serving)], "and the next try waits");
        let wait = world.group.deadline().unwrap().since(world.now);
        world.pass(wait);
    }
    world.all_ready();
    assert_eq!(world.keys(Phase::Draining), [old]);
}

#[test]
fn a_process_that_refuses_to_end_is_killed() {
    let mut world = World::ready(GroupSettings { count: 1, ..settings() });
    world.group.scale(0);
    world.settle();
    let leaving = world.keys(Phase::Draining)[0];
    world.emptied(leaving);
    world.said();
    world.pass(29 * SECOND);
    assert_eq!(world.said(), []);
    world.pass(SECOND);
    assert_eq!(world.said(), [Action::Kill(leaving)]);
    world.ended(leaving);
    assert!(world.group.is_over());
}

#[test]
fn what_a_worker_has_used_makes_it_due() {
    let limits = Limits { pipes: 10, age: 3600 * SECOND, rss_bytes: 1000, jitter: 0.0 };
    for (rss, pipes, age, why) in [
        (999, 9, 3599, None),
        (1000, 0, 0, Some(Recycle::Rss)),
        (0, 10, 0, Some(Recycle::Pipes)),
        (0, 0, 3600, Some(Recycle::Age)),
    ] {
        let mut world = World::ready(GroupSettings { count: 1, limits, ..settings() });
        let worker = world.keys(Phase::Serving)[0];
        world.group.measured(worker, Some(rss), pipes);
        world.pass(age * SECOND);
        assert_eq!(world.group.worker(worker).unwrap().due(), why);
        assert_eq!(world.keys(Phase::Starting).len(), usize::from(why.is_some()), "{why:?}");
    }
}

#[test]
fn limits_are_lowered_by_a_part_that_differs_and_never_raised() {
    let limits = Limits { pipes: 1000, age: 1000 * SECOND, rss_bytes: 1_000_000, jitter: 0.1 };
    let mut draw = Draw::new(3);
    let drawn: Vec<_> = (0..100).map(|_| limits.drawn(&mut draw)).collect();
    assert!(drawn.iter().all(|one| (900..=1000).contains(&one.pipes)));
    assert!(drawn.iter().all(|one| (900 * SECOND..=1000 * SECOND).contains(&one.age)));
    assert!(drawn.iter().all(|one| (900_000..=1_000_000).contains(&one.rss_bytes)));
    assert!(drawn.iter().any(|one| one.pipes < 950) && drawn.iter().any(|one| one.pipes > 950));
    let off = Limits { jitter: 1.0, ..Limits::default() }.drawn(&mut draw);
    assert_eq!((off.pipes, off.age, off.rss_bytes), (0, Duration::ZERO, 0), "off stays off");
    assert_eq!(Limits { pipes: 1, jitter: 1.0, ..Limits::default() }.drawn(&mut draw).pipes, 1, "and on stays on");
}

#[test]
fn another_count_starts_or_turns_away_as_many() {
    let mut world = World::ready(settings());
    world.said();
    world.group.scale(4);
    world.settle();
    assert_eq!(world.starts(), [(3, StartReason::Count), (4, StartReason::Count)]);
    world.all_ready();
    world.group.scale(1);
    world.settle();
    assert_eq!(world.keys(Phase::Serving).len(), 1);
    assert_eq!(world.keys(Phase::Draining).len(), 3, "the first one stays");
    assert_eq!(world.phases()[0], (1, Phase::Serving));
}

#[test]
fn a_smaller_count_keeps_the_ready_ones_that_stand_by() {
    let mut world = World::ready(GroupSettings { standby: 1, ..settings() });
    world.group.scale(1);
    world.settle();
    let count = |phase| world.keys(phase).len();
    assert_eq!((count(Phase::Serving) + count(Phase::Standby), count(Phase::Draining)), (2, 1));
}

#[test]
fn a_ready_one_that_stands_by_replaces_a_due_one_without_a_wait() {
    let mut world = World::ready(GroupSettings { standby: 1, ..settings() });
    let (old, standby) = (world.keys(Phase::Serving)[0], world.keys(Phase::Standby)[0]);
    world.group.recycle(old);
    world.said();
    world.settle();
    assert_eq!(world.keys(Phase::Draining), [old]);
    assert!(world.said().starts_with(&[Action::Serve(standby)]));
    assert_eq!(world.keys(Phase::Starting).len(), 1, "and another will stand by");
}

#[test]
fn another_configuration_replaces_all_one_by_one_and_what_waits_at_once() {
    let mut world = World::ready(GroupSettings { standby: 1, ..settings() });
    let standby = world.keys(Phase::Standby)[0];
    world.group.configure(GroupSettings { standby: 1, ..settings() }, true);
    world.settle();
    assert_eq!(world.keys(Phase::Draining), [standby], "it has no pipes");
    for _ in 0..2 {
        world.all_ready();
        let [gone, ..] = world.keys(Phase::Draining)[..] else { panic!("{:?}", world.phases()) };
        for leaving in world.keys(Phase::Draining) {
            world.emptied(leaving);
            world.ended(leaving);
        }
        assert!(world.group.worker(gone).is_none());
    }
    world.all_ready();
    assert!(world.group.workers().all(|worker| worker.due().is_none()), "{:?}", world.group);
}

#[test]
fn the_end_of_the_group_asks_all_at_once_and_starts_none_again() {
    let mut world = World::ready(settings());
    world.said();
    world.group.stop();
    world.settle();
    assert_eq!(world.said().len(), 2);
    let [one, other] = world.keys(Phase::Stopping)[..] else { panic!() };
    assert!(!world.ended(one));
    world.group.kill();
    world.settle();
    assert_eq!(world.said(), [Action::Kill(other)]);
    world.ended(other);
    assert!(world.group.is_over());
    world.pass(60 * SECOND);
    assert_eq!(world.said(), []);
}

/// What must hold after every step.
fn check(world: &World) {
    let group = &world.group;
    let settings = group.settings();
    let mut indexes: Vec<_> = group.workers().map(Worker::index).collect();
    indexes.extend(group.vacancies().iter().map(|vacancy| vacancy.index));
    let all = indexes.len();
    indexes.sort_unstable();
    indexes.dedup();
    assert_eq!(indexes.len(), all, "an index belongs to one process at a time: {group:?}");
    let leaving = |worker: &&Worker| worker.is_leaving() && worker.due().is_some() && worker.has_served();
    assert!(group.workers().filter(leaving).count() <= 1, "one replacement at a time: {group:?}");
    let live: Vec<_> = group.workers().filter(|worker| !worker.is_leaving()).collect();
    assert!(live.len() <= (settings.count + settings.standby.max(1)) as usize, "never more than wanted: {group:?}");
    assert!(world.keys(Phase::Serving).len() <= settings.count as usize, "{group:?}");
    let known: Vec<_> = group.workers().map(Worker::key).collect();
    assert!(world.processes.keys().all(|key| known.contains(key)), "no process is forgotten: {group:?}");
}

#[test]
fn whatever_happens_the_group_comes_to_rest_as_it_should_be() {
    let mut replaced = 0;
    for seed in 0..400 {
        let mut draw = Draw::new(seed);
        let replace = if seed % 3 == 0 { Replace::After } else { Replace::First };
        let standby = if replace == Replace::After { 0 } else { (draw.bits() % 3) as u32 };
        let limits = Limits { pipes: 50, age: 500 * SECOND, rss_bytes: 1000, jitter: 0.1 };
        let mut world = World::new(GroupSettings { standby, replace, limits, ..settings() });
        for _ in 0..200 {
            disturb(&mut world, &mut draw);
            check(&world);
        }
        calm(&mut world);
        replaced += world.said().iter().filter(|said| matches!(said, Action::SayRecycled(..))).count();
        let (count, standby) = (world.group.settings().count as usize, standby as usize);
        assert_eq!(
            (world.keys(Phase::Serving).len(), world.keys(Phase::Standby).len()),
            (count, standby),
            "seed {seed}"
        );
        assert!(world.group.workers().all(|worker| worker.due().is_none()), "seed {seed}");
    }
    assert!(replaced > 500, "{replaced}");
}

fn disturb(world: &mut World, draw: &mut Draw) {
    let keys: Vec<_> = world.processes.keys().copied().collect();
    let Some(&any) = keys.get(draw.bits() as usize % keys.len().max(1)) else {
        return world.pass(SECOND);
    };
    match draw.bits() % 12 {
        0..3 => world.is_ready(any),
        3 => drop(world.ended(any)),
        4 | 5 => world.emptied(any),
        6 if world.processes[&any] => drop(world.ended(any)),
        7 => world.group.measured(any, Some(draw.bits() % 1100), draw.bits() % 55),
        8 => drop(world.group.recycle(any)),
        9 if draw.bits().is_multiple_of(8) => drop(world.group.restart()),
        10 if draw.bits().is_multiple_of(4) => world.group.scale((draw.bits() % 5) as u32),
        _ => world.pass(Duration::from_millis(draw.bits() % 20_000)),
    }
    world.settle();
}

/// From now on, processes become ready, are emptied and end as they should.
fn calm(world: &mut World) {
    for _ in 0..200 {
        for worker in world.keys(Phase::Starting) {
            world.is_ready(worker);
        }
        for worker in world.keys(Phase::Draining) {
            world.emptied(worker);
        }
        let asked: Vec<_> = world.processes.iter().filter(|(_, asked)| **asked).map(|(&key, _)| key).collect();
        for worker in asked {
            world.ended(worker);
        }
        if world.keys(Phase::Serving).len() == world.group.settings().count as usize
            && world.group.workers().all(|worker| worker.due().is_none() && !worker.is_leaving())
            && world.group.vacancies().is_empty()
            && world.keys(Phase::Starting).is_empty()
        {
            return;
        }
        world.pass(SECOND);
    }
}
