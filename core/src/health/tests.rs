//! The judgement of one backend, experience by experience.

use super::*;

fn at(millis: u64) -> Time {
    Time::ZERO + Duration::from_millis(millis)
}

fn settings(fall: u32, rise: u32) -> HealthSettings {
    HealthSettings { fall, rise, ..HealthSettings::default() }
}

const fn pipe(number: u64) -> Option<PipeId> {
    Some(PipeId::from_bytes((number as u128).to_be_bytes()))
}

fn experienced(monitor: &mut Monitor, experience: Experience, number: u64, now_millis: u64) -> Option<HealthChange> {
    monitor.experienced(experience, pipe(number), &HealthSettings::default(), true, at(now_millis))
}

/// A pipe of its own dies, so long after its 101.
fn died(monitor: &mut Monitor, lived_millis: u64, now_millis: u64) -> Option<HealthChange> {
    let lived = Duration::from_millis(lived_millis);
    experienced(monitor, Experience::Died { lived }, now_millis, now_millis)
}

fn dial_failed(monitor: &mut Monitor, now_millis: u64) -> Option<HealthChange> {
    experienced(monitor, Experience::DialFailed { since: at(now_millis) }, now_millis, now_millis)
}

#[test]
fn what_one_pipe_lives_through_over_and_over_counts_once() {
    let (lived, mut monitor) = (Duration::from_millis(1), Monitor::new());
    for second in 1..20 {
        assert_eq!(experienced(&mut monitor, Experience::Died { lived }, 7, second * 1000), None);
        let since = at(second * 1000 + 500);
        assert_eq!(experienced(&mut monitor, Experience::DialFailed { since }, 7, second * 1000 + 500), None);
    }
    assert_eq!(died(&mut monitor, 1, 20_000), None, "the second pipe");
    assert!(matches!(died(&mut monitor, 1, 21_000), Some(HealthChange::Ejected { .. })), "the third");
}

#[test]
fn after_its_rest_a_backend_is_not_put_aside_again_by_the_pipes_that_were_counted() {
    let (lived, mut monitor) = (Duration::from_millis(1), Monitor::new());
    for second in 1..=3 {
        experienced(&mut monitor, Experience::Died { lived }, second, second * 1000);
    }
    assert_eq!(monitor.tick(at(4000)), Some(HealthChange::Readmitted));
    for second in 5..10 {
        assert_eq!(experienced(&mut monitor, Experience::Died { lived }, second % 3 + 1, second * 1000), None);
    }
    let another = experienced(&mut monitor, Experience::Died { lived }, 4, 10_000);
    assert!(matches!(another, Some(HealthChange::Ejected { .. })), "one more is enough");
}

#[test]
fn deaths_of_a_single_pipe_never_eject_however_little_is_asked() {
    let settings = HealthSettings { eject_after: 1, ..HealthSettings::default() };
    let (died, mut monitor) = (Experience::Died { lived: Duration::from_millis(1) }, Monitor::new());
    assert_eq!(monitor.experienced(died, pipe(1), &settings, true, at(1000)), None);
    assert_eq!(monitor.experienced(died, pipe(1), &settings, true, at(2000)), None);
    let second = monitor.experienced(died, pipe(2), &settings, true, at(3000));
    assert!(matches!(second, Some(HealthChange::Ejected { .. })));
}

#[test]
fn what_a_request_can_provoke_counts_only_beside_something_that_none_can() {
    let provoked = |monitor: &mut Monitor, now| experienced(monitor, Experience::Provoked { since: at(now) }, now, now);
    let mut monitor = Monitor::new();
    for second in 1..50 {
        assert_eq!(provoked(&mut monitor, second * 1000), None, "alone it never counts");
    }
    assert!(matches!(dial_failed(&mut monitor, 50_000), Some(HealthChange::Ejected { .. })), "beside it does");
    let mut monitor = Monitor::new();
    monitor.probed(Probed::Failed, &HealthSettings::default());
    assert_eq!([provoked(&mut monitor, 1000), provoked(&mut monitor, 2000)], [None, None]);
    assert!(matches!(provoked(&mut monitor, 3000), Some(HealthChange::Ejected { .. })), "a probe fails too");
}

#[test]
fn probes_turn_a_backend_by_fall_and_rise() {
    use Health::{Down, Unknown, Up};
    use Probed::{Failed, Ok, Refused};
    let cases: [(u32, u32, &[Probed], &[Health]); 7] = [
        (3, 1, &[Ok], &[Up]),
        (3, 1, &[Failed, Failed, Failed, Ok], &[Unknown, Unknown, Down, Up]),
        (3, 1, &[Ok, Failed, Failed, Ok, Failed, Failed, Failed], &[Up, Up, Up, Up, Up, Up, Down]),
        (3, 1, &[Ok, Refused, Ok], &[Up, Down, Up]),
        (3, 1, &[Refused], &[Down]),
        (1, 3, &[Failed, Ok, Ok, Failed, Ok, Ok, Ok], &[Down, Down, Down, Down, Down, Down, Up]),
        (3, 2, &[Refused, Ok, Refused, Ok, Ok], &[Down, Down, Down, Down, Up]),
    ];
    for (fall, rise, probes, expected) in cases {
        let mut monitor = Monitor::new();
        for (&probe, &health) in probes.iter().zip(expected) {
            let before = monitor.health();
            let change = monitor.probed(probe, &settings(fall, rise));
            assert_eq!(monitor.health(), health, "{probes:?}");
            assert_eq!(change.is_some(), before != health, "a change is told exactly once: {probes:?}");
        }
    }
}

#[test]
fn a_refused_dial_is_as_good_as_a_refused_probe() {
    let mut monitor = Monitor::new();
    let refused = |monitor: &mut Monitor| experienced(monitor, Experience::Refused, 1, 0);
    assert_eq!(refused(&mut monitor), Some(HealthChange::Down));
    assert_eq!(refused(&mut monitor), None);
    assert_eq!(monitor.probed(Probed::Ok, &HealthSettings::default()), Some(HealthChange::Up));
}

#[test]
fn a_crash_that_takes_many_young_pipes_along_is_one_incident() {
    let mut monitor = Monitor::new();
    let crash = Experience::Died { lived: Duration::from_millis(500) };
    for number in 0..20 {
        assert_eq!(experienced(&mut monitor, crash, number, 1000), None);
    }
    assert_eq!(died(&mut monitor, 100, 2000), None);
    assert!(matches!(died(&mut monitor, 100, 3000), Some(HealthChange::Ejected { .. })));
}

#[test]
fn an_attach_that_lived_long_enough_is_no_failure_and_forgives() {
    for (lived, forgives) in [(1999, false), (2000, true), (2001, true)] {
        let mut monitor = Monitor::new();
        died(&mut monitor, 1, 10_000);
        died(&mut monitor, 1, 11_000);
        let change = died(&mut monitor, lived, 14_000);
        assert_eq!(change.is_none(), forgives, "{lived}");
    }
}

#[test]
fn a_success_between_failed_dials_forgives_them() {
    let mut monitor = Monitor::new();
    for second in 0..10 {
        assert_eq!(dial_failed(&mut monitor, second * 2000), None);
        experienced(&mut monitor, Experience::Connected, second, second * 2000 + 1000);
    }
}

#[test]
fn each_ejection_is_twice_as_long_up_to_the_limit() {
    let mut monitor = Monitor::new();
    let mut now = 0;
    let mut lengths = Vec::new();
    while lengths.len() < 8 {
        now += 10;
        if let Some(HealthChange::Ejected { until }) = dial_failed(&mut monitor, now) {
            lengths.push((until - at(now)).as_secs());
            now = until.as_micros() / 1000;
            assert_eq!(monitor.tick(until), Some(HealthChange::Readmitted));
        }
    }
    assert_eq!(lengths, [1, 2, 4, 8, 16, 32, 60, 60]);
}

#[test]
fn failures_far_apart_are_not_in_a_row() {
    let mut monitor = Monitor::new();
    for minute in 0..10 {
        assert_eq!(dial_failed(&mut monitor, minute * 61_000), None);
    }
}

#[test]
fn probes_that_succeed_readmit_by_rise() {
    let mut monitor = Monitor::new();
    monitor.probed(Probed::Ok, &settings(3, 2));
    for now in [1, 2, 3] {
        dial_failed(&mut monitor, now);
    }
    assert_eq!(monitor.health(), Health::Ejected);
    assert_eq!(monitor.probed(Probed::Ok, &settings(3, 2)), None);
    assert_eq!(monitor.probed(Probed::Ok, &settings(3, 2)), Some(HealthChange::Readmitted));
    assert_eq!(monitor.health(), Health::Up);
}

#[test]
fn without_leave_to_eject_the_backend_stays() {
    let mut monitor = Monitor::new();
    for second in 1..20 {
        let since = at(second * 1000);
        let failed = Experience::DialFailed { since };
        let change = monitor.experienced(failed, pipe(second), &HealthSettings::default(), false, since);
        assert_eq!(change, None);
    }
    assert_eq!(monitor.health(), Health::Unknown);
}

#[test]
fn an_ejected_backend_that_is_refused_is_down_and_comes_up_free_of_its_ejection() {
    let mut monitor = Monitor::new();
    for now in [1, 2, 3] {
        dial_failed(&mut monitor, now);
    }
    assert_eq!(monitor.probed(Probed::Refused, &settings(3, 1)), Some(HealthChange::Down));
    assert_eq!(monitor.health(), Health::Down);
    assert_eq!(monitor.probed(Probed::Ok, &settings(3, 1)), Some(HealthChange::Up));
    assert_eq!(monitor.health(), Health::Up);
}
