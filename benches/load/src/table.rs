//! The figures for a terminal: a line for each load on each proxy, and what is above its target.

use std::fmt::Write;

use crate::grid::{Grid, or_none, ratio};
use crate::markdown;
use crate::report::Report;
use crate::row::{OWN, PEERS, Row};

pub fn table(report: &Report) -> String {
    let mut text = format!("{}\n\n{}", report.about.in_words(), lines(&report.rows));
    let _ = write!(text, "\n{}", ratios(&report.rows));
    for part in [markdown::others(report), markdown::reattach(&report.reattach)] {
        if !part.is_empty() {
            let _ = write!(text, "\n{part}");
        }
    }
    if let Some(scale) = &report.scale {
        let _ = write!(text, "\n{}", markdown::scale(scale));
    }
    text
}

fn lines(rows: &[Row]) -> String {
    let mut grid = Grid::new([
        "load",
        "proxy",
        "µs/message",
        "s/GB",
        "messages/s",
        "MB/s",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "generator",
    ])
    .texts(2);
    for row in rows {
        for cell in &row.cells {
            let latency = |of: fn(&crate::generator::Outcome) -> f64| or_none(cell.median(of).filter(|&us| us > 0.0));
            let failed = if cell.failed > 0 { format!(" ({} failed)", cell.failed) } else { String::new() };
            grid.row([
                row.name.clone(),
                format!("{}{failed}", cell.peer),
                or_none(row.cost(&cell.peer)),
                or_none(row.cpu_per_gb(&cell.peer)),
                or_none(cell.per_second(|run| run.messages)),
                or_none(cell.per_second(|run| run.bytes).map(|bytes| bytes / 1e6)),
                latency(|run| run.p50_us),
                latency(|run| run.p99_us),
                latency(|run| run.p999_us),
                ratio(cell.median(|run| run.generator_load).filter(|&load| load > 0.0)),
            ]);
        }
    }
    grid.to_string()
}

fn ratios(rows: &[Row]) -> String {
    let mut grid = Grid::new(["CPU of holdline", "to nginx 64k", "to haproxy", "to the better", "target", ""]);
    for row in rows.iter().filter(|row| row.target.is_some() && row.cost(OWN).is_some()) {
        let above = row.ratio().zip(row.target).is_some_and(|(ratio, target)| ratio > target);
        grid.row([
            row.name.clone(),
            ratio(row.ratio_to(PEERS[0])),
            ratio(row.ratio_to(PEERS[1])),
            ratio(row.ratio()),
            ratio(row.target),
            if above { "above" } else { "" }.to_owned(),
        ]);
    }
    grid.to_string()
}
