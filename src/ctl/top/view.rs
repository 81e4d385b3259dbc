//! The model on a screen: a pure function of it, whatever the size.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Clear, Paragraph, Row, Table, TableState};

use super::model::{Model, Over, Pane};
use super::rows::{Backend, Look, Pipe, Pool};
use super::spark::spark;
use super::stories::Story;
use crate::ctl::table::bytes;

/// Lines that pools may take; more of them are cut.
const POOL_LINES_MAX: u16 = 8;
/// The share of the screen that backends may take, in percent.
const BACKENDS_PERCENT_MAX: u16 = 35;
/// Lines of the events while the cursor is elsewhere, and the share of the screen while it is there, in percent.
const EVENT_LINES: u16 = 6;
const EVENTS_PERCENT: u16 = 40;
/// Lines of a screen from which on there is room for events beside the tables.
const EVENTS_FROM: u16 = 24;
/// Columns of a screen from which on there is room for all that is known of a pipe.
const WIDE_FROM: u16 = 110;
/// Steps of the history that are drawn: five minutes.
const SPARK_STEPS: usize = 60;

const HELP: [&str; 14] = [
    "tab, shift-tab   to the backends, the pipes, the events",
    "arrows, j, k     to another row; page up, page down, home, end",
    "/                search all pipes: id, key, client, backend, route, label",
    "enter            only the pipes of this backend, and all again",
    "s                sort by the next column; pipes are sorted by the process",
    "d                drain this backend, after a yes: its pipes move",
    "r                let this backend take pipes again",
    "m                move this pipe to another backend",
    "esc              back: the search, then the backend's pipes, then the first table",
    "q                leave",
    "",
    "The lines show the last five minutes. BUFFERED is what is held for replay,",
    "RATE is bytes a second both ways over the last five seconds, INTR how often",
    "the pipe lost or left its backend.",
];

/// Draws everything. `has_colour` is false where `NO_COLOR` is set.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, has_colour: bool) {
    let look = model.look.clone().unwrap_or_default();
    let lines = |count: usize| u16::try_from(count).unwrap_or(u16::MAX).saturating_add(2);
    let height = frame.area().height;
    let backends_max = height * BACKENDS_PERCENT_MAX / 100;
    let events_lines = match model.pane {
        Pane::Events => height * EVENTS_PERCENT / 100,
        Pane::Backends | Pane::Pipes if height < EVENTS_FROM => 0,
        Pane::Backends | Pane::Pipes => EVENT_LINES,
    };
    let [head, pools, backends, pipes, events, foot] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Length(lines(look.pools.len()).min(POOL_LINES_MAX)),
        Constraint::Length(lines(look.backends.len()).clamp(3, backends_max.max(3))),
        Constraint::Min(3),
        Constraint::Length(events_lines),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let paint = Paint { has_colour };
    frame.render_widget(Paragraph::new(header(model, &look, paint)), head);
    draw_pools(frame, pools, &look, paint);
    draw_backends(frame, backends, model, paint);
    draw_pipes(frame, pipes, model, &look, paint);
    draw_events(frame, events, model, paint);
    frame.render_widget(Paragraph::new(footer(model, paint)), foot);
    if model.over == Over::Help {
        draw_help(frame);
    }
}

/// Colours, or none.
#[derive(Clone, Copy)]
struct Paint {
    has_colour: bool,
}

impl Paint {
    fn of(self, colour: Color) -> Style {
        if self.has_colour { Style::default().fg(colour) } else { Style::default() }
    }

    /// Good is plain: what is not shall stand out.
    fn state(self, word: &str) -> Style {
        match word {
            "down" | "ejected" | "expired" | "detached" | "error" => self.of(Color::Red),
            "drain" | "maint" | "unknown" | "draining" | "stopping" | "warn" => self.of(Color::Yellow),
            _ => Style::default(),
        }
    }

    fn cursor(is_here: bool) -> Style {
        let style = Style::default();
        if is_here { style.add_modifier(Modifier::REVERSED) } else { style.add_modifier(Modifier::UNDERLINED) }
    }
}

fn header<'a>(model: &Model, look: &Look, paint: Paint) -> Vec<Line<'a>> {
    let health = &look.health;
    let eligible = look.backends.iter().filter(|backend| backend.is_eligible).count();
    let first = format!(
        "holdline {} {} at {}   {} pipes   {eligible} of {} backends eligible   cpu {:.0} %   memory {}",
        health.version,
        health.phase,
        model.target,
        health.pipes,
        look.backends.len(),
        health.cpu_percent,
        bytes(health.rss_bytes),
    );
    let (up, down) = (model.rate(|totals| totals.up_messages), model.rate(|totals| totals.down_messages));
    let (up_bytes, down_bytes) = (model.rate(|totals| totals.up_bytes), model.rate(|totals| totals.down_bytes));
    let second = format!(
        "up {up:.0}/s {}/s   down {down:.0}/s {}/s   held {}   interruptions {}   lost {}",
        bytes(whole(up_bytes)),
        bytes(whole(down_bytes)),
        bytes(health.replay_bytes),
        look.totals.interruptions,
        look.totals.lost,
    );
    vec![Line::from(first), Line::from(second), history(look, paint)]
}

/// The last minutes as lines of blocks, and what stands behind the newest of them.
fn history<'a>(look: &Look, paint: Paint) -> Line<'a> {
    let history = &look.history;
    let slowest = history
        .reattach_p99_ms
        .iter()
        .flatten()
        .fold(None, |most: Option<f64>, took| Some(most.map_or(*took, |most| most.max(*took))));
    let parts = [
        ("pipes", &history.pipes, String::new()),
        ("messages", &history.messages, String::new()),
        ("reattach p99", &history.reattach_p99_ms, slowest.map_or("-".into(), |took| format!("max {took:.1} ms"))),
    ];
    let mut spans = Vec::new();
    for (name, numbers, more) in parts {
        let line = spark(numbers, SPARK_STEPS / 3);
        spans.push(Span::raw(format!("{name} ")));
        spans.push(Span::styled(line, paint.of(Color::Cyan)));
        spans.push(Span::raw(format!(" {more}  ")));
    }
    spans.push(Span::raw(format!("10 min: {} lost a worker, {} moved", history.unplanned, history.planned)));
    Line::from(spans)
}

fn footer<'a>(model: &Model, paint: Paint) -> Line<'a> {
    match &model.over {
        Over::Search(words) => return Line::from(format!("search all pipes: {words}▏  enter looks, esc leaves it")),
        Over::Drain(id) => {
            let pipes = model.backends().iter().find(|backend| backend.id == *id).map_or(0, |backend| backend.pipes);
            let text = format!("drain {id}? it takes no new pipes, and its {pipes} move (y/n)");
            return Line::from(Span::styled(text, paint.of(Color::Yellow).add_modifier(Modifier::BOLD)));
        }
        Over::Nothing | Over::Help => {}
    }
    if let Some(notice) = &model.notice {
        return Line::from(Span::styled(notice.clone(), paint.of(Color::Yellow)));
    }
    let keys = match model.pane {
        Pane::Backends => {
            "d drain   r ready   enter its pipes   / search   s sort   tab to the pipes   ? help   q quit"
        }
        Pane::Pipes => "m move   / search   s sort   tab to the events   esc back   ? help   q quit",
        Pane::Events => "arrows scroll   tab to the backends   esc back   ? help   q quit",
    };
    Line::from(keys)
}

fn heading(names: impl IntoIterator<Item = &'static str>) -> Row<'static> {
    Row::new(names).style(Style::default().add_modifier(Modifier::BOLD))
}

fn draw_pools(frame: &mut Frame<'_>, area: Rect, look: &Look, paint: Paint) {
    let row = |pool: &Pool| {
        let style = if pool.eligible == 0 { paint.of(Color::Red) } else { Style::default() };
        Row::new([
            pool.name.clone(),
            pool.balance.clone(),
            format!("{} of {}", pool.eligible, pool.backends),
            pool.pipes.to_string(),
            pool.waiting.to_string(),
        ])
        .style(style)
    };
    let widths = [
        Constraint::Min(12),
        Constraint::Length(12),
        Constraint::Length(10),
        Constraint::Length(8),
        Constraint::Length(8),
    ];
    let table = Table::new(look.pools.iter().map(row), widths)
        .header(heading(["POOL", "BALANCE", "ELIGIBLE", "PIPES", "WAITING"]))
        .block(Block::default().borders(Borders::TOP));
    frame.render_widget(table, area);
}

fn draw_backends(frame: &mut Frame<'_>, area: Rect, model: &Model, paint: Paint) {
    let row = |backend: &&Backend| {
        Row::new([
            Line::from(backend.id.clone()),
            Line::from(backend.pool.clone()),
            Line::styled(backend.state.clone(), paint.state(&backend.state)),
            Line::styled(format!("{} {}", backend.health, backend.not_up_for), paint.state(&backend.health)),
            Line::styled(backend.lease.clone(), paint.state(&backend.lease)),
            Line::from(backend.pipes.to_string()),
            Line::from(backend.url.clone()),
        ])
    };
    let widths = [
        Constraint::Min(12),
        Constraint::Length(12),
        Constraint::Length(6),
        Constraint::Length(12),
        Constraint::Length(8),
        Constraint::Length(6),
        Constraint::Min(20),
    ];
    let title = format!(" backends by {} ", model.backend_sort.as_str());
    let block = Block::default().borders(Borders::TOP).title(title);
    let rows = model.backends();
    if rows.is_empty() {
        let what = "no backend yet: holdline ctl backends add ws://HOST:PORT, or let workers register themselves";
        return frame.render_widget(Paragraph::new(what).block(block), area);
    }
    let is_here = model.pane == Pane::Backends;
    let table = Table::new(rows.iter().map(row), widths)
        .header(heading(["BACKEND", "POOL", "STATE", "HEALTH", "LEASE", "PIPES", "URL"]))
        .row_highlight_style(Paint::cursor(is_here))
        .block(block);
    frame.render_stateful_widget(table, area, &mut TableState::default().with_selected(model.backend_row()));
}

/// A column of the pipes: its heading, its width, whether a narrow screen has it too, and its cells.
type PipeColumn = (&'static str, Constraint, bool, fn(&Pipe, Paint) -> Line<'static>);

const PIPE_COLUMNS: [PipeColumn; 11] = [
    ("PIPE", Constraint::Length(22), true, |pipe, _| Line::from(pipe.id.clone())),
    ("ROUTE", Constraint::Min(8), false, |pipe, _| Line::from(pipe.route.clone())),
    ("KEY", Constraint::Min(8), true, |pipe, _| Line::from(pipe.key.clone())),
    ("CLIENT", Constraint::Min(10), false, |pipe, _| Line::from(pipe.client.clone())),
    ("BACKEND", Constraint::Min(10), true, |pipe, _| Line::from(pipe.backend.clone())),
    ("STATE", Constraint::Length(8), true, |pipe, paint| Line::styled(pipe.state.clone(), paint.state(&pipe.state))),
    ("LEVEL", Constraint::Length(7), false, |pipe, _| Line::from(pipe.level.clone())),
    ("RATE", Constraint::Length(11), true, |pipe, _| Line::from(format!("{}/s", bytes(pipe.bytes_per_second)))),
    ("BUFFERED", Constraint::Length(9), true, |pipe, _| Line::from(bytes(pipe.buffered_bytes))),
    ("MEMORY", Constraint::Length(9), false, |pipe, _| Line::from(bytes(pipe.memory_bytes))),
    ("INTR", Constraint::Length(4), true, |pipe, _| Line::from(pipe.interruptions.to_string())),
];

fn draw_pipes(frame: &mut Frame<'_>, area: Rect, model: &Model, look: &Look, paint: Paint) {
    let is_wide = area.width >= WIDE_FROM;
    let columns: Vec<&PipeColumn> = PIPE_COLUMNS.iter().filter(|(_, _, always, _)| *always || is_wide).collect();
    let rows = model.pipes();
    let block = Block::default().borders(Borders::TOP).title(pipes_title(model, look));
    if rows.is_empty() {
        let is_narrowed = model.filter.is_some() || !model.search.is_empty();
        let what = if is_narrowed { "no pipe fits; esc shows the others" } else { "no client is connected" };
        return frame.render_widget(Paragraph::new(what).block(block), area);
    }
    let lines = rows.iter().map(|pipe| Row::new(columns.iter().map(|(_, _, _, cell)| cell(pipe, paint))));
    let table = Table::new(lines, columns.iter().map(|(_, width, _, _)| *width))
        .header(heading(columns.iter().map(|(name, _, _, _)| *name)))
        .row_highlight_style(Paint::cursor(model.pane == Pane::Pipes))
        .block(block);
    frame.render_stateful_widget(table, area, &mut TableState::default().with_selected(model.pipe_row()));
}

fn pipes_title(model: &Model, look: &Look) -> String {
    let on = model.filter.as_ref().map(|backend| format!(" on {backend}")).unwrap_or_default();
    let with = if model.search.is_empty() { String::new() } else { format!(" with \"{}\"", model.search) };
    let sort = model.pipe_sort.as_str();
    format!(" {} of {} pipes{on}{with} by {sort} ", look.matched, look.health.pipes)
}

fn draw_events(frame: &mut Frame<'_>, area: Rect, model: &Model, paint: Paint) {
    let line = |story: &Story| {
        let count = if story.count > 1 { format!("{} × ", story.count) } else { String::new() };
        Line::styled(format!("{}  {count}{}", story.at, story.text), paint.state(&story.level))
    };
    let room = usize::from(area.height.saturating_sub(1));
    let newest_first = model.stories.lines().iter().rev().skip(model.events_back).take(room);
    let lines: Vec<Line<'_>> = newest_first.map(line).collect();
    let here = if model.pane == Pane::Events { " events, the newest first, in UTC " } else { " events " };
    let block = Block::default().borders(Borders::TOP).title(here);
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn draw_help(frame: &mut Frame<'_>) {
    let screen = frame.area();
    let (width, height) = (82.min(screen.width), (HELP.len() as u16 + 2).min(screen.height));
    let area = Rect { x: (screen.width - width) / 2, y: (screen.height - height) / 2, width, height };
    let block = Block::default().borders(Borders::ALL).title(" keys; any key closes this ");
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(HELP.map(Line::from).to_vec()).block(block), area);
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are not negative")]
fn whole(rate: f64) -> u64 {
    rate as u64
}
