//! The figures as docs/performance.md has them: everything between its two markers comes from here.

use std::fmt::Write;

use crate::grid::{Grid, figure, judged, or_none, ratio};
use crate::load::Way;
use crate::reattach::{self, By};
use crate::report::Report;
use crate::row::{DIRECT, OWN, PEERS, Row};
use crate::scale;
use crate::stats::GROWTH_MAX;

/// All of it, with its headings.
pub fn document(report: &Report) -> String {
    let loads = report.rows.iter().filter(|row| !row.is_tap());
    let (rest, loads): (Vec<&Row>, Vec<&Row>) = loads.partition(|row| row.is_idle() || row.is_cycles());
    let parts = [
        ("CPU per message, µs", cpu(&loads)),
        ("Throughput and latency", speed(&loads)),
        ("Handshakes and idle pipes", handshakes(&rest)),
        ("Video, taps and viewers", others(report)),
        ("A worker is lost", reattach(&report.reattach)),
        ("Cost against size", report.scale.as_ref().map(scale).unwrap_or_default()),
    ];
    let mut text = format!("{}\n", report.about.in_words());
    for (heading, part) in parts.into_iter().filter(|(_, part)| !part.is_empty()) {
        let _ = write!(text, "\n### {heading}\n\n{part}");
    }
    text
}

const ALL_PEERS: [(&str, &str); 5] = [
    ("nginx", "nginx"),
    ("nginx 64k", "nginx 64k"),
    ("haproxy", "HAProxy"),
    ("caddy", "Caddy"),
    ("pushpin", "Pushpin"),
];

/// Those that were measured at all.
fn peers(rows: &[&Row]) -> Vec<(&'static str, &'static str)> {
    let measured = |peer: &str| rows.iter().any(|row| row.cell(peer).is_some_and(|cell| !cell.runs.is_empty()));
    ALL_PEERS.into_iter().filter(|(peer, _)| measured(peer)).collect()
}

fn cpu(rows: &[&Row]) -> String {
    let peers = peers(rows);
    let mut heads = vec!["load".to_owned()];
    heads.extend(peers.iter().map(|(_, name)| (*name).to_owned()));
    heads.push("Holdline".to_owned());
    heads.extend(peers.iter().map(|(_, name)| format!("to {name}")));
    heads.extend(["to none", "to the better", "target"].map(str::to_owned));
    let mut grid = Grid::new(heads.iter().map(String::as_str));
    for row in rows.iter().filter(|row| row.cost(OWN).is_some()) {
        let mut cells = vec![row.name.clone()];
        cells.extend(peers.iter().map(|(peer, _)| or_none(row.cost(peer))));
        cells.push(or_none(row.cost(OWN)));
        cells.extend(peers.iter().map(|(peer, _)| ratio(row.ratio_to(peer))));
        cells.extend([ratio(row.ratio_to_none()), judged(row.ratio(), row.target), ratio(row.target)]);
        grid.row(cells);
    }
    if grid.is_empty() { String::new() } else { grid.to_string() }
}

fn speed(rows: &[&Row]) -> String {
    let mut grid = Grid::new([
        "load",
        "messages/s",
        "MB/s",
        "CPU s/GB",
        "MB/s to none",
        "p50 ms: none, better peer, Holdline",
        "p99 ms",
        "p99.9 ms",
    ]);
    for row in rows {
        let Some(own) = row.cell(OWN).filter(|cell| !cell.runs.is_empty()) else { continue };
        let direct = row.cell(DIRECT);
        let bytes = own.per_second(|run| run.bytes);
        let none = direct.and_then(|cell| cell.per_second(|run| run.bytes)).filter(|&bytes| bytes > 0.0);
        let latency = |of: fn(&crate::generator::Outcome) -> f64| {
            if row.is_untimed() {
                return String::new();
            }
            let cells = [direct, row.prompter_peer(), Some(own)];
            let ms =
                |cell: Option<&crate::row::Cell>| or_none(cell.and_then(|cell| cell.median(of)).map(|us| us / 1e3));
            cells.map(ms).join(" / ")
        };
        grid.row([
            row.name.clone(),
            or_none(own.per_second(|run| run.messages)),
            or_none(bytes.map(|bytes| bytes / 1e6)),
            or_none(row.cpu_per_gb(OWN)),
            ratio(bytes.zip(none).map(|(own, none)| own / none)),
            latency(|run| run.p50_us),
            latency(|run| run.p99_us),
            latency(|run| run.p999_us),
        ]);
    }
    if grid.is_empty() { String::new() } else { grid.to_string() }
}

fn handshakes(rows: &[&Row]) -> String {
    let peers = peers(rows);
    let heads = [""].into_iter().chain(peers.iter().map(|(_, name)| *name));
    let mut grid = Grid::new(heads.chain(["Holdline", "to the better", "target"]));
    for row in rows {
        let columns = || peers.iter().map(|(peer, _)| *peer).chain([OWN]);
        let mut line = |name: &str, of: &dyn Fn(&str) -> Option<f64>, judge: bool| {
            let mut cells = vec![name.to_owned()];
            cells.extend(columns().map(|peer| or_none(of(peer))));
            let target = row.target.filter(|_| judge);
            cells.extend([
                judged(row.ratio().filter(|_| judge), target),
                target.map(|_| ratio(target)).unwrap_or_default(),
            ]);
            grid.row(cells);
        };
        if row.is_cycles() {
            let (what, until) = match Way::split(&row.load).0 {
                Way::Plain => ("connect, upgrade, close", "the 101"),
                Way::Tls | Way::Http2 => (row.name.as_str(), "its end"),
            };
            line(&format!("{what}: CPU µs"), &|peer| row.cost(peer), true);
            line("the same: handshakes/s", &|peer| row.cell(peer)?.per_second(|run| run.messages), false);
            line(&format!("to {until}: p99 ms"), &|peer| Some(row.cell(peer)?.median(|run| run.p99_us)? / 1e3), false);
        } else {
            let count = row.load.rsplit_once(':').map_or("", |(_, count)| count);
            let by = Way::split(&row.load).0.in_words();
            line(&format!("bytes of an idle pipe{by}, of {count}"), &|peer| row.cost(peer), true);
            // A short run does not wait for it.
            let left = |peer: &str| Some(row.cell(peer)?.median(|run| run.left_bytes)? / 1e6).filter(|&mb| mb != 0.0);
            line("MB above the start 10 s after they closed", &left, false);
        }
    }
    if grid.is_empty() { String::new() } else { grid.to_string() }
}

/// A tap beside video, and many viewers of one device.
pub fn others(report: &Report) -> String {
    let row = |name: &str| report.rows.iter().find(|row| row.name == name);
    let mut grid = Grid::new(["", "figure", "target"]);
    if let (Some(alone), Some(beside)) = (row("tap, no video"), row("tap beside video")) {
        for peer in [DIRECT, PEERS[0], PEERS[1], OWN] {
            let p99 = |row: &Row| row.cell(peer)?.median(|run| run.p99_us / 1e3);
            let (Some(alone), Some(beside)) = (p99(alone), p99(beside)) else { continue };
            let name = format!("tap beside 226 KB video, {peer}: p99 ms without, with, ratio");
            let target = if peer == OWN { "2.00" } else { "" };
            let figures = format!("{}, {}, {:.2}", figure(alone), figure(beside), beside / alone);
            grid.row([name, figures, target.to_owned()]);
        }
    }
    if let Some(fan_out) = &report.fan_out {
        let name =
            format!("{} viewers of one device: CPU s/GB by single pipes, by one shared stream, ratio", fan_out.viewers);
        let (single, shared) = (&fan_out.single, &fan_out.shared);
        let figures = format!("{:.3}, {:.3}, {:.2}", single.cpu_per_gb, shared.cpu_per_gb, fan_out.ratio());
        grid.row([name, figures, "0.70".to_owned()]);
        let bytes = format!("{:.1}, {:.1}", single.viewer_bytes / 1e3, shared.viewer_bytes / 1e3);
        grid.row(["the same: KB of memory for each viewer".to_owned(), bytes, "flat".to_owned()]);
    }
    for (name, figures, target, _) in report.aware.iter().flat_map(|aware| aware.lines()) {
        grid.row([name, figures, target]);
    }
    report.threads.iter().for_each(|figures| grid.row(figures.line()));
    if let Some(single) = &report.single {
        let name = format!("one pipe, {} workers killed, a spare ready: ms to the answer, p50, p99", single.times);
        grid.row([name, format!("{:.2}, {:.2}", single.p50_ms, single.p99_ms), "5, 20".to_owned()]);
    }
    if grid.is_empty() { String::new() } else { grid.to_string() }
}

/// How a run of many is called.
fn how(figures: &reattach::Figures) -> String {
    let threads =
        if figures.threads == 0 { "a thread a core".to_owned() } else { format!("{} thread", figures.threads) };
    let by = match (figures.by, figures.moves_per_second) {
        (By::Kill, _) => "SIGKILL".to_owned(),
        (By::Drain, 0) => "drain, no limit of moves".to_owned(),
        (By::Drain, moves) => format!("drain, {moves} moves a second"),
    };
    format!("{} pipes, {by}, {threads}", figures.pipes)
}

/// Many pipes whose one worker goes.
pub fn reattach(all: &[reattach::Figures]) -> String {
    let mut grid = Grid::new([
        "attached elsewhere",
        "p50 ms",
        "p99 ms",
        "last ms",
        "answers p50 / p99 / last ms",
        "CPU µs a pipe",
        "the worker's",
        "memory MB before / peak",
        "dials at once / allowed",
        "failed",
        "doubled",
    ]);
    for figures in all {
        let (spent, pipes) = (&figures.spent, figures.pipes as f64);
        let waits = [figures.wait_p50_ms, figures.wait_p99_ms, figures.wait_last_ms].map(figure);
        grid.row([
            how(figures),
            figure(figures.p50_ms),
            figure(figures.p99_ms),
            figure(figures.last_ms),
            waits.join(" / "),
            figure(figures.cpu_us_per_pipe()),
            figure(spent.worker_cpu_seconds * 1e6 / pipes),
            format!("{:.0} / {:.0}", spent.resident_before as f64 / 1e6, spent.resident_peak as f64 / 1e6),
            format!("{} / {}", figures.dials_at_once_seen, figures.dials_at_once),
            figures.dials_failed.to_string(),
            figures.doubled.to_string(),
        ]);
    }
    if grid.is_empty() { String::new() } else { grid.to_string() }
}

/// Over pipes, and over what is kept.
pub fn scale(figures: &scale::Figures) -> String {
    let mut pipes = Grid::new(["open pipes", "all speak: µs/message", "50 speak, the others are idle: µs/message"]);
    for row in &figures.pipes {
        pipes.row([row.pipes.to_string(), figure(row.spread_us), figure(row.beside_idle_us)]);
    }
    let mut replay = Grid::new([
        "kept and sent again, a pipe",
        "pipes",
        "keep: µs/message",
        "memory/byte kept",
        "reattach and replay: µs/pipe",
        "each further message: µs",
    ]);
    for row in &figures.replay {
        replay.row([
            if row.bytes < 1 << 20 { format!("{} KiB", row.bytes >> 10) } else { format!("{} MiB", row.bytes >> 20) },
            row.pipes.to_string(),
            figure(row.keep_us),
            ratio(Some(row.resident_per_byte)),
            figure(row.pipe_us),
            or_none(figures.further_us(row)),
        ]);
    }
    let grown = figures.grown();
    let verdict = if grown.is_empty() {
        format!("No message costs over {GROWTH_MAX} times what it costs over the reference size (100 pipes, 128 KiB).")
    } else {
        format!("**Cost grows**: {}.", grown.join("; "))
    };
    format!("{pipes}\n{replay}\n{verdict}\n")
}
