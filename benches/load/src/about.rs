//! Where and with what a run was measured: figures without it are worth nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct About {
    pub date: String,
    /// The processor, its cores, and the memory.
    pub machine: String,
    pub kernel: String,
    /// Program and version, the proxies first.
    pub versions: Vec<(String, String)>,
    /// Processes that wanted a CPU before the run, in the mean of the last minute and five minutes.
    pub load_before: String,
    pub rounds: usize,
    pub seconds: f64,
}

impl About {
    pub fn here(holdline: &Path, rounds: usize, seconds: f64) -> Self {
        let holdline = holdline.to_string_lossy();
        let programs: [(&str, &str, &[&str]); 7] = [
            ("Holdline", &holdline, &["--version"]),
            ("nginx", "nginx", &["-v"]),
            ("HAProxy", "haproxy", &["-v"]),
            ("Caddy", "caddy", &["version"]),
            ("Pushpin", "pushpin", &["--version"]),
            ("rustc", "rustc", &["--version"]),
            ("Debian", "cat", &["/etc/debian_version"]),
        ];
        let versions = programs
            .into_iter()
            .filter_map(|(name, program, arguments)| Some((name.to_owned(), version(program, arguments)?)))
            .collect();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            date: said("date", &["-u", "+%-d %B %Y"]).unwrap_or_default(),
            machine: machine(),
            kernel: said("uname", &["-sr"]).unwrap_or_default(),
            versions,
            load_before: load.split(' ').take(2).collect::<Vec<_>>().join(", "),
            rounds,
            seconds,
        }
    }

    pub fn in_words(&self) -> String {
        let versions: Vec<String> = self.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        format!(
            "{}. {}. {}; {}. Load average before the run: {}. Medians of {} interleaved rounds of {} s.",
            self.date,
            versions.join(", "),
            self.machine,
            self.kernel,
            self.load_before,
            self.rounds,
            self.seconds
        )
    }
}

fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0);
    format!("{}, {cores} cores, {:.0} GiB", model.trim_start_matches([' ', '\t', ':']), kib / 1024.0 / 1024.0)
}

/// The first line that a program says of either kind.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    Some(String::from_utf8_lossy(&text).lines().next()?.trim().to_owned())
}

/// The first word that looks like a version.
fn version(program: &str, arguments: &[&str]) -> Option<String> {
    let line = said(program, arguments)?;
    let words = line.split([' ', '/']);
    let version =
        words.into_iter().find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'))?;
    Some(version.split(['-', '+']).next()?.to_owned())
}
