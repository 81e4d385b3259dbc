//! The verdict: each promise is one check, passed or failed with what contradicts it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};

use serde::Deserialize;

use crate::Options;
use crate::books::{Books, Pages};
use crate::metrics::{Metrics, Samples};

/// The most memory that the proxy may hold under this load, debug build included.
const RSS_MIB_MAX: f64 = 300.0;
/// Growth over the second half of a soak that is noise: a share of the mean, and so much on top.
const GROWTH_SHARE_MAX: f64 = 0.05;
const GROWTH_RSS_MIB_MAX: f64 = 4.0;
const GROWTH_COUNT_MAX: f64 = 12.0;

/// The checks so far.
#[derive(Debug, Default)]
pub struct Judge {
    soak: bool,
    passed: u64,
    failed: Vec<String>,
}

/// A line of a worker's journal.
#[derive(Deserialize)]
struct Executed {
    n: Option<u64>,
    session: String,
    pipe: Option<String>,
    attach: Option<u64>,
}

impl Judge {
    pub fn new(soak: bool) -> Self {
        Self { soak, ..Self::default() }
    }

    fn check(&mut self, promise: &str, broken: Option<String>) {
        match broken {
            None => {
                self.passed += 1;
                println!("ok    {promise}");
            }
            Some(how) => {
                println!("FAIL  {promise}: {how}");
                self.failed.push(promise.to_owned());
            }
        }
    }

    fn check_that(&mut self, promise: &str, holds: bool, how: impl FnOnce() -> String) {
        self.check(promise, (!holds).then(how));
    }

    /// What the clients saw.
    pub fn books(&mut self, books: &Books, settled: bool) {
        println!("{}", books.summary());
        let unanswered = books.unanswered();
        let pages = books.open();
        for (rule, count) in &pages.excused {
            println!("      {count:>5}  {rule}");
        }
        let how = || format!("{}, among them:\n      {}", pages.problems_total, pages.problems.join("\n      "));
        self.check_that("no client saw anything that no rule allows", pages.problems_total == 0, how);
        self.check_that("everything that was sent was answered", settled, || {
            let waiting = pages.talks.iter().filter(|(_, talk)| talk.unanswered() > 0);
            let names: Vec<String> =
                waiting.take(20).map(|(name, talk)| format!("{name} ({})", missing(talk))).collect();
            format!("{unanswered} were not: {}", names.join("; "))
        });
        self.check_that("the clients were busy", pages.sent > 100 && pages.received > 100, || "they were not".into());
    }

    /// What the workers did, beside what the clients asked for.
    pub fn journals(&mut self, books: &Books, journals: &[PathBuf], after: &Metrics) {
        let pages = books.open();
        let (executions, disorder) = read_journals(journals);
        let mut lost = Vec::new();
        let mut again = 0;
        for (session, talk) in pages.talks.iter().filter(|(_, talk)| talk.is_journalled) {
            let none = BTreeMap::new();
            let done = executions.get(session).unwrap_or(&none);
            again += done.values().map(|times| times - 1).sum::<u64>();
            let gone: Vec<u64> = (1..=talk.sent).filter(|number| !done.contains_key(number)).collect();
            if !talk.ended_early && !gone.is_empty() {
                lost.push(format!("{session}: {gone:?} of {}", talk.sent));
            }
            if let Some(invented) = done.keys().find(|number| **number == 0 || **number > talk.sent) {
                lost.push(format!("{session}: {invented} was executed and never sent"));
            }
        }
        self.check_that("every command of a client who stayed was executed", lost.is_empty(), || {
            lost.truncate(10);
            lost.join("; ")
        });
        self.check_that("commands were executed in order within each attachment", disorder.is_empty(), || {
            disorder.join("; ")
        });
        let in_doubt = after.sum("holdline_in_doubt_messages_total", &[("lane", "up")]);
        let echoed_again = echoed_again(&pages);
        println!("      {again} commands executed again, {echoed_again} echoes again, {in_doubt} messages in doubt");
        self.check_that("only what was in doubt came twice", (again + echoed_again) as f64 <= in_doubt, || {
            format!("{again} commands and {echoed_again} echoes, but only {in_doubt} were in doubt")
        });
    }

    /// What the proxy says of itself.
    pub fn metrics(&mut self, books: &Books, before: &Metrics, after: &Metrics) {
        let pages = books.open();
        for reason in ["policy", "grace", "overflow"] {
            let lost = after.sum("holdline_lost_messages_total", &[("reason", reason)]);
            self.check_that(&format!("nothing was given up for `{reason}`"), lost == 0.0, || format!("{lost} were"));
        }
        let opened = after.sum("holdline_pipes_total", &[]);
        let closed = after.sum("holdline_pipe_closes_total", &[]);
        self.check_that("each pipe was closed once", opened == closed, || format!("{opened} opened, {closed} closed"));
        self.check_that("each socket had a pipe", opened >= pages.opened as f64, || {
            format!("{} sockets, {opened} pipes", pages.opened)
        });
        let stayed: u64 = pages.talks.values().filter(|talk| !talk.ended_early).map(|talk| talk.sent).sum();
        let counted = after.sum("holdline_messages_total", &[("lane", "up")]);
        let fits = (stayed as f64..=pages.sent as f64).contains(&counted);
        self.check_that("the proxy counted what was sent", fits, || {
            format!("{counted} counted, {} sent, {stayed} of them by those who stayed", pages.sent)
        });
        println!("      {} interruptions", after.sum("holdline_interruptions_total", &[]));
        let rest = not_at_rest(before, after);
        self.check_that("all is at rest afterwards", rest.is_empty(), || rest.join(", "));
    }

    /// Memory, and for a soak whether anything grew.
    pub fn samples(&mut self, samples: &Samples, under_load: &Metrics) {
        let highest = samples.0.iter().map(|sample| sample.rss_mib).fold(under_load.rss_mib(), f64::max);
        println!("      {highest:.0} MiB of memory at most");
        self.check_that("memory is bounded", highest < RSS_MIB_MAX, || format!("{highest:.0} MiB of {RSS_MIB_MAX}"));
        if !self.soak {
            return;
        }
        let growths = [
            ("memory", samples.growth(|sample| sample.rss_mib), GROWTH_RSS_MIB_MAX),
            ("descriptors", samples.growth(|sample| sample.fds), GROWTH_COUNT_MAX),
            ("tasks", samples.growth(|sample| sample.tasks), GROWTH_COUNT_MAX),
        ];
        for (what, (growth, mean), noise) in growths {
            println!("      {what}: {growth:+.1} over the second half, {mean:.1} in the mean");
            let bound = mean * GROWTH_SHARE_MAX + noise;
            self.check_that(&format!("no growth of {what}"), growth < bound, || {
                format!("by {growth:.1} of {bound:.1}")
            });
        }
    }

    /// How the proxy ended, and what it wrote until then.
    pub fn end_of_proxy(&mut self, status: Option<ExitStatus>, directory: &Path) {
        let fine = status.is_some_and(|status| status.success());
        self.check_that("the proxy ends in order", fine, || format!("{status:?}"));
        let log = std::fs::read_to_string(directory.join("proxy.log")).unwrap_or_default();
        let bad: Vec<&str> =
            log.lines().filter(|line| line.contains("\"ERROR\"") || line.contains("panicked")).take(5).collect();
        self.check_that("the proxy logged no error", !log.is_empty() && bad.is_empty(), || bad.join("\n      "));
    }

    /// The verdict, and the command that plays the same faults again.
    pub fn close(self, options: &Options, seed: u64) -> ExitCode {
        if !self.failed.is_empty() {
            let script = if self.soak { "soak" } else { "chaos" };
            println!("seed {seed} again: scripts/{script} --minutes {} --seed {seed}", options.minutes);
        }
        println!("{} passed, {} failed", self.passed, self.failed.len());
        if self.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// What is still there although every client is gone.
pub fn not_at_rest(before: &Metrics, now: &Metrics) -> Vec<String> {
    let mut left = Vec::new();
    for gauge in ["holdline_pipes", "holdline_replay_buffer_bytes", "holdline_backend_pipes"] {
        let value = now.sum(gauge, &[]);
        if value != 0.0 {
            left.push(format!("{gauge} is {value}"));
        }
    }
    let sockets = now.sum("holdline_connections", &[("listener", "public")]);
    if sockets != 0.0 {
        left.push(format!("holdline_connections is {sockets}"));
    }
    for gauge in ["process_open_fds", "holdline_runtime_tasks"] {
        let (was, is) = (before.sum(gauge, &[]), now.sum(gauge, &[]));
        // a health check or a registration may be under way; each has one descriptor and one task or two
        if is > was + 4.0 {
            left.push(format!("{gauge} was {was} and is {is}"));
        }
    }
    left
}

/// How often each number was executed, by session; and where the order was wrong.
fn read_journals(journals: &[PathBuf]) -> (HashMap<String, BTreeMap<u64, u64>>, Vec<String>) {
    let mut executions: HashMap<String, BTreeMap<u64, u64>> = HashMap::new();
    let mut last: HashMap<(Option<String>, Option<u64>), u64> = HashMap::new();
    let mut disorder = Vec::new();
    for path in journals {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        // the last line of a killed worker may be half a line: it does not count as executed then
        for line in text.lines().filter_map(|line| serde_json::from_str::<Executed>(line).ok()) {
            let Some(number) = line.n else { continue };
            let before = last.insert((line.pipe, line.attach), number);
            if before.is_some_and(|before| number <= before) && disorder.len() < 10 {
                disorder.push(format!("{}: {number} after {before:?} in attachment {:?}", line.session, line.attach));
            }
            *executions.entry(line.session).or_default().entry(number).or_default() += 1;
        }
    }
    (executions, disorder)
}

/// Echoes that came more than once. Answers to commands follow from executions, which the journals count.
fn echoed_again(pages: &Pages) -> u64 {
    let echoes = pages.talks.values().filter(|talk| talk.is_answered && !talk.is_journalled);
    echoes.flat_map(|talk| talk.answers.values()).map(|times| times - 1).sum()
}

fn missing(talk: &crate::books::Talk) -> String {
    let numbers: Vec<String> = (1..=talk.sent)
        .filter(|number| !talk.answers.contains_key(number))
        .take(5)
        .map(|number| number.to_string())
        .collect();
    format!("{} of {}", numbers.join(", "), talk.sent)
}
