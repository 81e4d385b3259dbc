//! The ratios to the better peer as an SVG: a bar for each load, its target beside it, in light and in dark.

use std::fmt::Write;

use crate::report::Report;
use crate::row::Row;

const WIDTH: f64 = 760.0;
const TOP: f64 = 78.0;
const BOTTOM: f64 = 58.0;
const ROW: f64 = 28.0;
const BAR: f64 = 14.0;
/// Where bars begin and where the scale ends.
const LEFT: f64 = 200.0;
const RIGHT: f64 = 696.0;
/// The least that the scale shows; beyond the most, a bar is cut and only its figure tells.
const SCALE_MIN: f64 = 1.4;
const SCALE_MAX: f64 = 2.5;

/// Colours by the reader's theme: a picture in a page does not inherit the page's.
const STYLE: &str = "\
:root { --back: #ffffff; --edge: #d8dee4; --text: #1f2328; --soft: #59636e; --grid: #e6eaef; --good: #2a78d6; --above: #d9822b }
@media (prefers-color-scheme: dark) {
  :root { --back: #0d1117; --edge: #30363d; --text: #e6edf3; --soft: #9198a1; --grid: #21262d; --good: #4493f8; --above: #e0963f }
}
text { font: 13px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: var(--text) }
.title { font-size: 16px; font-weight: 600 }
.soft { fill: var(--soft); font-size: 12px }
.end { text-anchor: end }
.middle { text-anchor: middle }
.back { fill: var(--back); stroke: var(--edge) }
.grid { stroke: var(--grid) }
.one { stroke: var(--soft); stroke-dasharray: 3 3 }
.good { fill: var(--good) }
.above { fill: var(--above) }
.target { stroke: var(--text); stroke-width: 2.5 }
";

/// One bar.
struct Bar<'a> {
    name: &'a str,
    ratio: f64,
    target: f64,
}

/// Where a ratio lies.
struct Scale {
    end: f64,
}

impl Scale {
    fn of(bars: &[Bar<'_>]) -> Self {
        let largest = bars.iter().map(|bar| bar.ratio.max(bar.target)).fold(SCALE_MIN, f64::max);
        Self { end: (largest.min(SCALE_MAX) * 5.0).ceil() / 5.0 }
    }

    fn x(&self, ratio: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * ratio.min(self.end) / self.end
    }
}

pub fn svg(report: &Report) -> String {
    let bar = |row| bar(row);
    let bars: Vec<Bar<'_>> = report.rows.iter().filter_map(bar).collect();
    let scale = Scale::of(&bars);
    let height = TOP + ROW * bars.len() as f64 + BOTTOM;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\" \
         aria-label=\"CPU of Holdline as a ratio to the better of nginx and HAProxy\">\n<style>\n{STYLE}</style>\n\
         <rect class=\"back\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"6\"/>\n",
        WIDTH - 1.0,
        height - 1.0
    );
    text(&mut out, "title", 20.0, 30.0, "Holdline to the better of nginx and HAProxy");
    text(&mut out, "soft", 20.0, 50.0, "CPU per message (idle pipes: memory, to HAProxy); shorter is better");
    axis(&mut out, &scale, TOP + ROW * bars.len() as f64);
    for (index, bar) in bars.iter().enumerate() {
        draw(&mut out, &scale, bar, TOP + ROW * (index as f64 + 0.5));
    }
    legend(&mut out, height - 18.0, &report.about.date);
    out.push_str("</svg>\n");
    out
}

fn bar(row: &Row) -> Option<Bar<'_>> {
    Some(Bar { name: &row.name, ratio: row.ratio()?, target: row.target? })
}

fn text(out: &mut String, class: &str, x: f64, y: f64, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(out, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{words}</text>");
}

fn axis(out: &mut String, scale: &Scale, bottom: f64) {
    let steps = (scale.end / 0.2).round() as u32;
    for step in 0..=steps {
        let ratio = f64::from(step) / 5.0;
        let (x, class) = (scale.x(ratio), if step == 5 { "one" } else { "grid" });
        let _ =
            writeln!(out, "<line class=\"{class}\" x1=\"{x:.1}\" y1=\"{TOP:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\"/>");
        text(out, "soft middle", x, bottom + 16.0, &format!("{ratio:.1}"));
    }
}

fn draw(out: &mut String, scale: &Scale, bar: &Bar<'_>, middle: f64) {
    let (end, target) = (scale.x(bar.ratio), scale.x(bar.target));
    let class = if bar.ratio > bar.target { "above" } else { "good" };
    let (top, length) = (middle - BAR / 2.0, end - LEFT);
    text(out, "end", LEFT - 10.0, middle + 4.5, bar.name);
    let _ = writeln!(
        out,
        "<rect class=\"{class}\" x=\"{LEFT:.1}\" y=\"{top:.1}\" width=\"{length:.1}\" height=\"{BAR}\" rx=\"2\"/>"
    );
    let (above, below) = (middle - BAR / 2.0 - 3.0, middle + BAR / 2.0 + 3.0);
    let _ = writeln!(
        out,
        "<line class=\"target\" x1=\"{target:.1}\" y1=\"{above:.1}\" x2=\"{target:.1}\" y2=\"{below:.1}\"/>"
    );
    let figure = format!("{:.2}", bar.ratio);
    // Behind the bar and behind its target, wherever that is.
    text(out, "", end.max(if (target - end).abs() < 40.0 { target } else { end }) + 7.0, middle + 4.5, &figure);
}

fn legend(out: &mut String, y: f64, date: &str) {
    let square = |out: &mut String, class: &str, x: f64| {
        let top = y - 10.0;
        let _ =
            writeln!(out, "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"11\" height=\"11\" rx=\"2\"/>");
    };
    square(out, "good", 20.0);
    text(out, "soft", 37.0, y, "at or below its target");
    square(out, "above", 178.0);
    text(out, "soft", 195.0, y, "above it");
    let (from, to) = (y - 11.0, y + 3.0);
    let _ = writeln!(out, "<line class=\"target\" x1=\"264\" y1=\"{from:.1}\" x2=\"264\" y2=\"{to:.1}\"/>");
    text(out, "soft", 273.0, y, "the target");
    text(out, "soft end", WIDTH - 20.0, y, date);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::Outcome;
    use crate::row::Cell;

    fn row(name: &str, own: u64, target: f64) -> Row {
        let cell = |peer: &str, cpu_ns| Cell {
            peer: peer.to_owned(),
            runs: vec![Outcome { messages: 1, cpu_ns, ..Outcome::default() }],
            failed: 0,
        };
        let cells = vec![cell("nginx 64k", 1000), cell("haproxy", 2000), cell("holdline", own)];
        Row { name: name.to_owned(), load: "echo:1:1x1".to_owned(), target: Some(target), cells }
    }

    #[test]
    fn each_load_has_a_bar_in_the_colour_of_its_verdict() {
        let rows = vec![row("a < b", 900, 1.0), row("slow", 5000, 1.0)];
        let drawn = svg(&Report { rows, ..Report::default() });
        assert!(drawn.contains("a &lt; b") && drawn.contains(">0.90<") && drawn.contains(">5.00<"));
        let bars = |class: &str| drawn.matches(&format!("<rect class=\"{class}\"")).count();
        assert_eq!((bars("good"), bars("above")), (2, 2), "a bar each, and the legend's");
        let cut = format!("width=\"{:.1}\"", RIGHT - LEFT);
        assert_eq!(drawn.matches(&cut).count(), 1, "the one beyond the scale is cut");
    }
}
