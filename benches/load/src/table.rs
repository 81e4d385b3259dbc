//! The figures as one table: medians, and ratios to the better of nginx with 64 KiB buffers and HAProxy.

use crate::bench::{Cell, Row};
use crate::generator::Outcome;

/// What a row is judged by: CPU µs per message, or bytes per idle pipe.
fn cost(row: &Row, outcome: &Outcome) -> f64 {
    if row.load.starts_with("idle") {
        return outcome.resident_bytes;
    }
    outcome.cpu_ns as f64 / 1000.0 / (outcome.messages.max(1)) as f64
}

fn median(cell: &Cell, of: impl Fn(&Outcome) -> f64) -> f64 {
    let mut values: Vec<f64> = cell.runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        len if len % 2 == 1 => values[len / 2],
        len => f64::midpoint(values[len / 2 - 1], values[len / 2]),
    }
}

/// The medians of one row, and what Holdline is to the better peer.
pub fn ratio(row: &Row) -> Option<f64> {
    let of =
        |name: &str| row.cells.iter().find(|cell| cell.peer == name).map(|cell| median(cell, |run| cost(row, run)));
    // Of memory, HAProxy alone is the measure.
    let nginx = if row.load.starts_with("idle") { None } else { of("nginx 64k") };
    let best = [nginx, of("haproxy")].into_iter().flatten().filter(|&it| it > 0.0).reduce(f64::min)?;
    of("holdline").map(|own| own / best)
}

pub fn print(rows: &[Row]) {
    println!(
        "| load | proxy | CPU µs/message (bytes/pipe) | messages/s | MB/s | p50 µs | p99 µs | p99.9 µs | generator |"
    );
    println!("|---|---|--:|--:|--:|--:|--:|--:|--:|");
    for row in rows {
        for cell in &row.cells {
            let per_second = |of: fn(&Outcome) -> u64| {
                median(cell, |run| if run.seconds > 0.0 { of(run) as f64 / run.seconds } else { 0.0 })
            };
            println!(
                "| {} | {} | {:.2} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} |",
                row.name,
                cell.peer,
                median(cell, |run| cost(row, run)),
                per_second(|run| run.messages),
                per_second(|run| run.bytes) / 1e6,
                median(cell, |run| run.p50_us),
                median(cell, |run| run.p99_us),
                median(cell, |run| run.p999_us),
                median(cell, |run| run.generator_load),
            );
        }
    }
    println!("\n| load | holdline to the better peer | target | |");
    println!("|---|--:|--:|---|");
    for row in rows {
        let (Some(ratio), Some(target)) = (ratio(row), row.target) else { continue };
        println!("| {} | {ratio:.2} | {target:.2} | {} |", row.name, if ratio > target { "above" } else { "" });
    }
    print_taps(rows);
}

/// How much later a tap is on a proxy that carries video as well: the 99th percentile, to that without video.
fn print_taps(rows: &[Row]) {
    let row = |name: &str| rows.iter().find(|row| row.name == name);
    let (Some(alone), Some(beside)) = (row("tap, no video"), row("tap beside video")) else { return };
    println!("\n| tap beside video, p99 to that without | ratio | target |");
    println!("|---|--:|--:|");
    for (alone, beside) in alone.cells.iter().zip(&beside.cells) {
        let ratio = median(beside, |run| run.p99_us) / median(alone, |run| run.p99_us).max(1.0);
        println!("| {} | {ratio:.2} | 2.00 |", alone.peer);
    }
}
