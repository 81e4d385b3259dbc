//! Keys and looks in, orders and screens out.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};

use super::model::{Model, Order, Over, Pane};
use super::rows::{Answers, Look};
use super::view;

fn backend(id: &str, state: &str, pipes: u64) -> Value {
    json!({"id": id, "pool": "default", "url": "ws://127.0.0.1:7001", "state": state, "health": "up",
        "lease_state": "none", "eligible": state == "ready", "pipes": pipes})
}

fn pipe(id: &str, backend: &str, rate: u64, buffered: u64) -> Value {
    json!({"id": id, "state": "attached", "route": "ws", "key": "s1", "client": "10.0.0.1", "backend": backend,
        "interruptions": 0, "bytes_per_second": rate, "buffered_bytes": buffered, "memory_bytes": 4096,
        "up": {"level": "pong"}, "down": {}})
}

fn answers(up: u64, backends: Vec<Value>, pipes: Vec<Value>) -> Answers {
    Answers {
        health: json!({"version": "1.2.3", "phase": "serving", "pipes": pipes.len(), "cpu_percent": 12.3}),
        stats: json!({
            "memory": {"rss_bytes": 41_943_040, "replay_bytes": 1536},
            "counters": {"interruptions_total": 7, "up": {"messages_total": up, "message_bytes_total": up * 1024},
                "down": {"messages_total": 0, "lost_messages_total": 2}},
        }),
        history: json!({"pipes": [1, 2], "up_messages_per_second": [3.0, 0.0], "down_messages_per_second": [1.0, 8.0],
            "reattach_p99_ms": [null, 8.5], "planned_interruptions": [3, 0], "unplanned_interruptions": [0, 2]}),
        pools: vec![
            json!({"name": "default", "balance": "hash", "backends": 2, "eligible": 1, "pipes": 3, "waiting": 4}),
        ],
        backends,
        pipes: json!({"items": pipes, "matched": pipes.len()}),
        events: None,
    }
}

/// Two looks, two seconds apart.
fn model() -> Model {
    let mut model = Model::new("http://127.0.0.1:9000".into());
    let backends = || vec![backend("b", "ready", 3), backend("a", "drain", 0)];
    let first = answers(100, backends(), vec![pipe("p1", "b", 10, 0), pipe("p2", "b", 10, 0)]);
    model.see(Look::read(&first, 0.0));
    let second = answers(300, backends(), vec![pipe("p1", "b", 10, 0), pipe("p2", "b", 3072, 2048)]);
    model.see(Look::read(&second, 2.0));
    model
}

fn press(model: &mut Model, code: KeyCode) -> Option<Order> {
    model.press(KeyEvent::new(code, KeyModifiers::NONE))
}

fn screen(model: &Model, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view::draw(frame, model, true)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_screen_shows_pools_backends_pipes_rates_and_buffers() {
    let screen = screen(&model(), 130, 20);
    let lines: Vec<&str> = screen.lines().collect();
    assert_eq!(
        lines[0],
        "holdline 1.2.3 serving at http://127.0.0.1:9000   2 pipes   1 of 2 backends eligible   cpu 12 %   memory 40.0 MiB"
    );
    assert_eq!(lines[1], "up 100/s 100.0 KiB/s   down 0/s 0 B/s   held 1.5 KiB   interruptions 7   lost 2");
    let row = |name: &str| -> Vec<&str> {
        let line = lines.iter().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {screen}"));
        line.split_whitespace().collect()
    };
    assert_eq!(row("default"), ["default", "hash", "1", "of", "2", "3", "4"]);
    assert_eq!(row("a "), ["a", "default", "drain", "up", "none", "0", "ws://127.0.0.1:7001"]);
    let moving =
        ["p2", "ws", "s1", "10.0.0.1", "b", "attached", "pong", "3.0", "KiB/s", "2.0", "KiB", "4.0", "KiB", "0"];
    assert_eq!(row("p2"), moving);
    assert!(lines.iter().any(|line| line.contains(" 2 of 2 pipes by id ")), "{screen}");
    assert!(lines[19].starts_with("d drain"), "{screen}");
    assert_eq!(lines[2], "pipes ▅█   messages ▅█   reattach p99  █ max 8.5 ms  10 min: 2 lost a worker, 3 moved");
}

#[test]
fn a_narrow_screen_leaves_columns_out_and_cuts_none() {
    let screen = screen(&model(), 80, 20);
    let row = screen.lines().find(|line| line.starts_with("p2")).unwrap_or_else(|| panic!("{screen}"));
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells, ["p2", "s1", "b", "attached", "3.0", "KiB/s", "2.0", "KiB", "0"], "{screen}");
}

#[test]
fn a_screen_of_any_size_is_drawn() {
    let (model, empty) = (model(), Model::new("x".into()));
    for (width, height) in [(1, 1), (20, 5), (80, 24), (300, 100)] {
        screen(&model, width, height);
        screen(&empty, width, height);
    }
}

#[test]
fn a_key_drains_the_backend_under_the_cursor_and_moves_the_pipe_under_it() {
    let mut model = model();
    let drain = |model: &mut Model, answer| {
        assert_eq!(press(model, KeyCode::Char('d')), None);
        assert!(screen(model, 130, 20).contains("move (y/n)"));
        press(model, KeyCode::Char(answer))
    };
    assert_eq!(drain(&mut model, 'n'), None);
    assert_eq!(drain(&mut model, 'y'), Some(Order::Drain("a".into())));
    assert_eq!(press(&mut model, KeyCode::Down), None);
    assert_eq!(drain(&mut model, 'y'), Some(Order::Drain("b".into())));
    assert_eq!(press(&mut model, KeyCode::Char('r')), Some(Order::Ready("b".into())));
    assert_eq!(press(&mut model, KeyCode::Char('m')), None, "the cursor is not on a pipe");
    assert_eq!(press(&mut model, KeyCode::Tab), None);
    assert_eq!(model.pane, Pane::Pipes);
    assert_eq!(press(&mut model, KeyCode::Char('d')), None, "the cursor is not on a backend");
    assert_eq!(press(&mut model, KeyCode::Char('m')), Some(Order::Move("p1".into())));
    assert_eq!(press(&mut model, KeyCode::End), None);
    assert_eq!(press(&mut model, KeyCode::Char('m')), Some(Order::Move("p2".into())));
    assert_eq!(press(&mut model, KeyCode::Char('q')), Some(Order::Quit));
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(model.press(interrupt), Some(Order::Quit));
}

#[test]
fn the_cursor_stays_on_its_row_when_rows_come_go_and_are_sorted() {
    let mut model = model();
    press(&mut model, KeyCode::Tab);
    assert_eq!(model.pipe_row(), Some(0));
    assert_eq!(press(&mut model, KeyCode::Char('s')), Some(Order::Look));
    assert_eq!(model.wanted().sort, Some("-rate"), "the process sorts");
    let sorted = answers(300, vec![], vec![pipe("p2", "b", 3072, 0), pipe("p1", "b", 10, 0)]);
    model.see(Look::read(&sorted, 3.0));
    assert_eq!(model.pipe_row(), Some(1), "still on p1");
    let gone = answers(300, vec![], vec![pipe("p2", "b", 30, 0)]);
    model.see(Look::read(&gone, 4.0));
    assert_eq!(press(&mut model, KeyCode::Char('m')), Some(Order::Move("p2".into())), "the nearest row that is left");
    model.see(Look::read(&answers(0, vec![], vec![]), 5.0));
    assert_eq!((press(&mut model, KeyCode::Char('m')), press(&mut model, KeyCode::Up)), (None, None));
}

#[test]
fn enter_shows_the_pipes_of_one_backend_and_then_all_again() {
    let mut model = Model::new("x".into());
    let pipes = vec![pipe("p1", "a", 0, 0), pipe("p2", "b", 0, 0)];
    model.see(Look::read(&answers(0, vec![backend("a", "ready", 1), backend("b", "ready", 1)], pipes), 0.0));
    press(&mut model, KeyCode::Down);
    assert_eq!(press(&mut model, KeyCode::Enter), Some(Order::Look));
    assert_eq!(model.wanted().backend.as_deref(), Some("b"));
    assert_eq!(model.pipes().iter().map(|pipe| pipe.id.as_str()).collect::<Vec<_>>(), ["p2"]);
    assert!(screen(&model, 100, 20).contains(" of 2 pipes on b by id "));
    press(&mut model, KeyCode::Enter);
    assert_eq!((model.pipes().len(), model.wanted().backend), (2, None));
}

#[test]
fn a_search_is_asked_of_the_process_and_escape_goes_back_one_step_at_a_time() {
    let mut model = model();
    press(&mut model, KeyCode::Down);
    press(&mut model, KeyCode::Enter);
    for code in [KeyCode::Char('/'), KeyCode::Char('d'), KeyCode::Char('q'), KeyCode::Char('x'), KeyCode::Backspace] {
        assert_eq!(press(&mut model, code), None, "letters of a search are no orders");
    }
    assert!(screen(&model, 100, 20).contains("search all pipes: dq"));
    assert_eq!(press(&mut model, KeyCode::Enter), Some(Order::Look));
    assert_eq!((model.wanted().words.as_deref(), model.pane), (Some("dq"), Pane::Pipes));
    assert!(screen(&model, 100, 20).contains("pipes on b with \"dq\" by id"));
    assert_eq!(press(&mut model, KeyCode::Esc), Some(Order::Look));
    assert_eq!((model.wanted().words, model.wanted().backend.as_deref()), (None, Some("b")));
    assert_eq!(press(&mut model, KeyCode::Esc), Some(Order::Look));
    assert_eq!((model.wanted().backend, model.pane), (None, Pane::Pipes));
    assert_eq!(press(&mut model, KeyCode::Esc), None);
    assert_eq!(model.pane, Pane::Backends);
    assert_eq!(press(&mut model, KeyCode::Esc), None, "and it never leaves");
}

#[test]
fn help_lies_over_the_tables_until_a_key() {
    let mut model = model();
    press(&mut model, KeyCode::Char('?'));
    assert!(screen(&model, 100, 30).contains("any key closes this"));
    assert_eq!(press(&mut model, KeyCode::Char('q')), None);
    assert_eq!(model.over, Over::Nothing);
}

#[test]
fn events_have_lines_of_their_own_and_a_place_to_read_on_from() {
    let mut model = model();
    let event =
        |name: &str| json!({"at": "2026-11-30T03:04:05Z", "level": "warn", "type": "backend.down", "backend": name});
    model.stories.tell(&json!({"items": [event("w1"), event("w1"), event("w2")], "last": 17}));
    assert_eq!(model.wanted().after, Some(17));
    let shown = screen(&model, 100, 30);
    assert!(
        shown.contains("03:04:05  2 × backend.down  w1") && shown.contains("03:04:05  backend.down  w2"),
        "{shown}"
    );
    press(&mut model, KeyCode::BackTab);
    assert_eq!(model.pane, Pane::Events);
    press(&mut model, KeyCode::Down);
    assert!(!screen(&model, 100, 30).contains("backend.down  w2"), "scrolled past the newest");
}

#[test]
fn an_empty_screen_says_what_to_do() {
    let mut model = Model::new("x".into());
    model.see(Look::read(&answers(0, vec![], vec![]), 0.0));
    let shown = screen(&model, 120, 30);
    assert!(
        shown.contains("no backend yet: holdline ctl backends add") && shown.contains("no client is connected"),
        "{shown}"
    );
}

#[test]
fn what_a_process_says_cannot_draw() {
    let mut model = Model::new("x".into());
    let nasty = backend("a\u{1b}[2Jb", "ready", 0);
    model.see(Look::read(&answers(0, vec![nasty], vec![]), 0.0));
    assert!(screen(&model, 100, 20).contains(r"a\u{1b}[2Jb"));
}
