//! What the registry promises: names, closed labels, series that go.

use super::labels::{EndedBy, Interruption, Loss};
use super::*;

#[test]
fn a_pipe_is_in_one_gauge_until_it_is_dropped() {
    let metrics = Metrics::new();
    let route = metrics.route("r");
    let mut pipe = route.open_pipe(PipeState::Attached);
    pipe.set(PipeState::Detached);
    let counts = || PipeState::ALL.map(|state| route.pipes(state));
    assert_eq!(counts(), [0, 0, 1, 0, 0]);
    drop(pipe);
    assert_eq!(counts(), [0, 0, 0, 0, 0]);
    assert_eq!(route.pipes_total.get(), 1);
}

#[test]
fn handles_of_one_name_are_the_same_handles() {
    let metrics = Metrics::new();
    metrics.route("r").up.messages.inc_by(2);
    assert_eq!(metrics.route("r").up.messages.get(), 2);
    assert!(metrics.render().contains("holdline_messages_total{lane=\"up\",route=\"r\"} 2\n"));
}

#[test]
fn the_series_of_a_backend_go_when_it_is_gone_and_no_pipe_holds_it() {
    let metrics = Metrics::new();
    let facts = BackendFacts {
        pool: "p".into(),
        backend: "b1".into(),
        up: true,
        states: vec![BackendStateLabel::Ready],
        pipes: 3,
        report: WorkerReport { memory_bytes: Some(7), ..WorkerReport::default() },
    };
    metrics.sync_backends(std::slice::from_ref(&facts));
    let text = metrics.render();
    assert!(text.contains("holdline_backend_up{backend=\"b1\",pool=\"p\"} 1\n"));
    assert!(text.contains("holdline_backend_pipes{backend=\"b1\",pool=\"p\"} 3\n"));
    assert!(text.contains("holdline_backend_reported_memory_bytes{backend=\"b1\",pool=\"p\"} 7\n"));
    assert!(!text.contains("holdline_backend_reported_cpu_percent{"), "it does not say");
    assert!(text.contains("holdline_backend_state{backend=\"b1\",pool=\"p\",state=\"ready\"} 1\n"));
    let held = metrics.backend("p", "b1");
    metrics.sync_backends(&[]);
    assert!(metrics.render().contains("b1"));
    drop(held);
    metrics.sync_backends(&[]);
    assert!(!metrics.render().contains("b1"));
}

#[test]
fn the_series_of_a_route_and_a_pool_go_with_the_configuration() {
    let metrics = Metrics::new();
    let route = metrics.route("old");
    route.pipe_closed(EndedBy::Client, 1000);
    metrics.pool("old").connect_seconds.observe(0.1);
    drop(metrics.route("new"));
    metrics.sync_config(&["new"], &[]);
    assert!(metrics.render().contains("route=\"old\""), "a pipe of the old route still counts");
    drop(route);
    metrics.sync_config(&["new"], &[]);
    let text = metrics.render();
    assert!(!text.contains("\"old\"") && text.contains("route=\"new\""));
}

#[test]
fn whatever_code_a_peer_picks_the_label_set_stays_closed() {
    let codes: std::collections::HashSet<_> = (0..=u16::MAX).map(labels::close_code).collect();
    assert_eq!(codes.len(), 24);
    let statuses: std::collections::HashSet<_> = (0..=u16::MAX).map(labels::status_code).collect();
    assert_eq!(statuses.len(), 34);
}

#[test]
fn every_line_of_the_text_is_a_comment_or_a_sample() {
    let metrics = Metrics::new();
    let _listener = metrics.connection(ListenerLabel::Public);
    metrics.route("a\"b\n").handshake(101);
    for line in metrics.render().lines() {
        let sample = line.rsplit_once(' ').is_some_and(|(_, value)| value.parse::<f64>().is_ok());
        assert!(line.starts_with("# HELP ") || line.starts_with("# TYPE ") || sample, "{line}");
    }
}

#[test]
fn cpu_time_is_a_counter_that_follows_the_process() {
    let metrics = Metrics::new();
    metrics.refresh_process();
    let first = metrics.families().process_cpu_seconds_total.get();
    let mut sum = 0u64;
    while process::cpu_time().as_secs_f64() <= first {
        sum = sum.wrapping_add(1);
    }
    metrics.refresh_process();
    assert!(metrics.families().process_cpu_seconds_total.get() > first);
}

#[test]
fn labels_that_index_arrays_are_listed_in_the_order_of_their_numbers() {
    assert!(PipeState::ALL.iter().enumerate().all(|(index, &label)| label as usize == index));
    assert!(Interruption::ALL.iter().enumerate().all(|(index, &label)| label as usize == index));
    assert!(Loss::ALL.iter().enumerate().all(|(index, &label)| label as usize == index));
    assert!(ReattachResult::ALL.iter().enumerate().all(|(index, &label)| label as usize == index));
}
