//! Everything that a run of the bench found, as `target/bench.json` keeps it, and what is made of it afterwards.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::about::About;
use crate::row::Row;
use crate::{aware, fanout, markdown, plot, reattach, scale, single, threads};

/// Between these lines the documentation has what a run printed.
const BEGIN: &str = "<!-- figures: scripts/bench --docs -->";
const END: &str = "<!-- end of figures -->";

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    pub about: About,
    pub rows: Vec<Row>,
    pub fan_out: Option<fanout::Figures>,
    pub aware: Option<aware::Figures>,
    pub single: Option<single::Figures>,
    #[serde(default)]
    pub threads: Vec<threads::Figures>,
    pub reattach: Vec<reattach::Figures>,
    pub scale: Option<scale::Figures>,
}

#[derive(clap::Args, Clone)]
pub struct Outputs {
    /// Where the figures go as JSON, and come from
    #[arg(long, default_value = "target/bench.json")]
    pub json: PathBuf,
    /// Prints Markdown as docs/performance.md has it
    #[arg(long)]
    pub markdown: bool,
    /// Draws the ratios to the better peer into this SVG
    #[arg(long)]
    pub plot: Option<PathBuf>,
    /// Replaces the figures in this Markdown file, between its two markers
    #[arg(long)]
    pub into: Option<PathBuf>,
}

impl Report {
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, serde_json::to_string_pretty(self)?)?;
        eprintln!("written: {}", path.display());
        Ok(())
    }

    /// Prints, draws and fills in what was asked for.
    pub fn put_out(&self, outputs: &Outputs) -> anyhow::Result<()> {
        print!("{}", if outputs.markdown { markdown::document(self) } else { crate::table::table(self) });
        if let Some(path) = &outputs.plot {
            fs::write(path, plot::svg(self)).with_context(|| path.display().to_string())?;
        }
        if let Some(path) = &outputs.into {
            let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
            fs::write(path, filled_in(&text, &markdown::document(self))?)?;
        }
        Ok(())
    }
}

/// Makes everything anew from what an earlier run kept.
pub fn run(outputs: &Outputs) -> anyhow::Result<()> {
    let text = fs::read_to_string(&outputs.json).with_context(|| outputs.json.display().to_string())?;
    serde_json::from_str::<Report>(&text)?.put_out(outputs)
}

fn filled_in(text: &str, figures: &str) -> anyhow::Result<String> {
    let (before, rest) = text.split_once(BEGIN).context("the first marker is missing")?;
    let (_, after) = rest.split_once(END).context("the second marker is missing")?;
    ensure!(!after.contains(BEGIN), "there are more markers than two");
    Ok(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", figures.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_replace_what_stood_between_the_markers_and_nothing_else() {
        let text = format!("above\n{BEGIN}\nold\n{END}\nbelow\n");
        let new = filled_in(&text, "new\n").unwrap();
        assert_eq!(new, format!("above\n{BEGIN}\n\nnew\n\n{END}\nbelow\n"));
        assert_eq!(filled_in(&new, "new\n").unwrap(), new);
        assert!(filled_in("no marker", "new").is_err());
    }
}
