//! The model on a screen: a pure function of it, whatever the size.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Row, Table, TableState};

use super::model::{Model, Pane};
use super::rows::{Backend, Look, Pipe, Pool};
use crate::ctl::table::bytes;

/// Lines that pools may take; more of them are cut.
const POOL_LINES_MAX: u16 = 8;
/// The share of the screen that backends may take, in percent.
const BACKENDS_PERCENT_MAX: u16 = 40;
/// Columns of a screen from which on there is room for all that is known of a pipe.
const WIDE_FROM: u16 = 110;

/// Draws everything. `has_colour` is false where `NO_COLOR` is set.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, has_colour: bool) {
    let look = model.look.clone().unwrap_or_default();
    let lines = |count: usize| u16::try_from(count).unwrap_or(u16::MAX).saturating_add(2);
    let backends_max = frame.area().height * BACKENDS_PERCENT_MAX / 100;
    let [head, pools, backends, pipes, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(lines(look.pools.len()).min(POOL_LINES_MAX)),
        Constraint::Length(lines(look.backends.len()).clamp(3, backends_max.max(3))),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let paint = Paint { has_colour };
    frame.render_widget(Paragraph::new(header(model, &look)), head);
    draw_pools(frame, pools, &look, paint);
    draw_backends(frame, backends, model, paint);
    draw_pipes(frame, pipes, model, &look, paint);
    frame.render_widget(Paragraph::new(footer(model, paint)), foot);
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
            "down" | "ejected" | "expired" | "detached" => self.of(Color::Red),
            "drain" | "maint" | "unknown" | "draining" | "stopping" => self.of(Color::Yellow),
            _ => Style::default(),
        }
    }

    fn cursor(is_here: bool) -> Style {
        let style = Style::default();
        if is_here { style.add_modifier(Modifier::REVERSED) } else { style.add_modifier(Modifier::UNDERLINED) }
    }
}

fn header<'a>(model: &Model, look: &Look) -> Vec<Line<'a>> {
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
    vec![Line::from(first), Line::from(second)]
}

fn footer<'a>(model: &Model, paint: Paint) -> Line<'a> {
    if let Some(notice) = &model.notice {
        return Line::from(Span::styled(notice.clone(), paint.of(Color::Yellow)));
    }
    let keys = match model.pane {
        Pane::Backends => "d drain   r ready   enter its pipes only   s sort   tab to the pipes   q quit",
        Pane::Pipes => "m move   s sort   tab to the backends   q quit",
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
            Line::styled(backend.health.clone(), paint.state(&backend.health)),
            Line::styled(backend.lease.clone(), paint.state(&backend.lease)),
            Line::from(backend.pipes.to_string()),
            Line::from(backend.url.clone()),
        ])
    };
    let widths = [
        Constraint::Min(12),
        Constraint::Length(12),
        Constraint::Length(6),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(6),
        Constraint::Min(20),
    ];
    let is_here = model.pane == Pane::Backends;
    let title = format!(" backends by {} ", model.backend_sort.as_str());
    let table = Table::new(model.backends().iter().map(row), widths)
        .header(heading(["BACKEND", "POOL", "STATE", "HEALTH", "LEASE", "PIPES", "URL"]))
        .row_highlight_style(Paint::cursor(is_here))
        .block(Block::default().borders(Borders::TOP).title(title));
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
    ("BUFFERED", Constraint::Length(9), true, |pipe, _| Line::from(bytes(pipe.buffered_bytes))),
    ("UP/S", Constraint::Length(6), true, |pipe, _| Line::from(format!("{:.1}", pipe.up_rate))),
    ("DOWN/S", Constraint::Length(6), true, |pipe, _| Line::from(format!("{:.1}", pipe.down_rate))),
    ("INTR", Constraint::Length(4), true, |pipe, _| Line::from(pipe.interruptions.to_string())),
];

fn draw_pipes(frame: &mut Frame<'_>, area: Rect, model: &Model, look: &Look, paint: Paint) {
    let is_wide = area.width >= WIDE_FROM;
    let columns: Vec<&PipeColumn> = PIPE_COLUMNS.iter().filter(|(_, _, always, _)| *always || is_wide).collect();
    let rows = model.pipes();
    let lines = rows.iter().map(|pipe| Row::new(columns.iter().map(|(_, _, _, cell)| cell(pipe, paint))));
    let only = model.filter.as_ref().map(|backend| format!(" on {backend}")).unwrap_or_default();
    let title = format!(" {} of {} pipes{only} by {} ", rows.len(), look.health.pipes, model.pipe_sort.as_str());
    let table = Table::new(lines, columns.iter().map(|(_, width, _, _)| *width))
        .header(heading(columns.iter().map(|(name, _, _, _)| *name)))
        .row_highlight_style(Paint::cursor(model.pane == Pane::Pipes))
        .block(Block::default().borders(Borders::TOP).title(title));
    frame.render_stateful_widget(table, area, &mut TableState::default().with_selected(model.pipe_row()));
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are not negative")]
fn whole(rate: f64) -> u64 {
    rate as u64
}
