//! Log records: one line each on stderr, as text for a person at a terminal or as JSON for programs.
//!
//! JSON lines are flat: `timestamp`, `level`, `message`, `target`, and the fields of the record. What a peer wrote
//! into a field can't start a new line or reach the terminal: JSON escapes it, and so does the text format.
//! Lines wait in a queue of `log.queue_bytes_max` for the thread that writes them; see `output`.
//! Our own records obey `log.level`; those of libraries are shown from `warn` up at most.

mod json;
mod output;
mod stamp;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::{self, Write as _};
use std::io::IsTerminal;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

pub use output::{finish, flush, start_batching, take_dropped, write_line};

use crate::config::{Log, LogFormat, LogLevel};
use json::JsonLines;
use output::Lines;

/// The target of audit records, which are written whatever the level is, unless it is `off`.
pub const AUDIT: &str = "audit";

/// Changes the level of the running process.
#[derive(Debug)]
pub struct LogHandle {
    filter: Option<reload::Handle<Targets, Registry>>,
    level: AtomicU8,
    format: LogFormat,
}

/// Why there can be no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Another subscriber was installed before.
    #[error("logging was set up twice")]
    AlreadySet,
    /// There is no thread that could write it.
    #[error("no thread for the log: {0}")]
    Thread(#[from] std::io::Error),
}

/// Starts logging for the whole process, panics included.
///
/// # Errors
/// On a second call, and without a thread.
pub fn init(wanted: &Log) -> Result<LogHandle, LogError> {
    let level = wanted.level;
    let (filter, handle) = reload::Layer::new(targets(level));
    let format = resolve(wanted.format, std::io::stderr().is_terminal());
    let missing = match format {
        LogFormat::Json => missing_as_json,
        LogFormat::Text | LogFormat::Auto => missing_as_text,
    };
    let output = match format {
        LogFormat::Text | LogFormat::Auto => {
            let colour = std::io::stderr().is_terminal() && colour_allowed();
            tracing_subscriber::fmt::layer().with_writer(Lines).event_format(TextLines { colour }).boxed()
        }
        LogFormat::Json => tracing_subscriber::fmt::layer().with_writer(Lines).event_format(JsonLines).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(output).try_init().map_err(|_| LogError::AlreadySet)?;
    output::start(wanted.queue_bytes_max, missing)?;
    std::panic::set_hook(Box::new(panicked));
    Ok(LogHandle { filter: Some(handle), level: AtomicU8::new(number(level)), format })
}

/// How long the end of a panicking main thread waits for the log.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);

/// Says what the standard hook says, without waiting for stderr: a panic costs one pipe, not its thread.
fn panicked(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    write_line(&format!("thread '{}' {panic}", thread.name().unwrap_or("unnamed")));
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        write_line(&trace.to_string());
    }
    if thread.name() == Some("main") {
        finish(LAST_WORDS_MAX);
    } else {
        flush();
    }
}

const MISSING: &str = "log records are missing here: stderr was not read fast enough";

fn missing_as_json(count: u64) -> String {
    let now = jiff::Timestamp::now();
    format!(
        "{{\"timestamp\":\"{now:.6}\",\"level\":\"WARN\",\"message\":\"{MISSING}\",\"dropped\":{count},\"target\":\"holdline::log\"}}\n"
    )
}

fn missing_as_text(count: u64) -> String {
    let now = jiff::Timestamp::now();
    format!("{now:.3} WARN  {MISSING} dropped={count}\n")
}

impl LogHandle {
    /// A handle that remembers the level and changes nothing.
    #[cfg(test)]
    pub fn detached(level: LogLevel) -> Self {
        Self { filter: None, level: AtomicU8::new(number(level)), format: LogFormat::Json }
    }

    /// Whether its lines are for programs.
    #[must_use]
    pub fn writes_json(&self) -> bool {
        self.format == LogFormat::Json
    }

    /// The level in force.
    #[must_use]
    pub fn level(&self) -> LogLevel {
        LEVELS[usize::from(self.level.load(Ordering::Relaxed))]
    }

    /// Changes the level at once.
    pub fn set_level(&self, level: LogLevel) {
        if let Some(filter) = &self.filter
            && let Err(error) = filter.reload(targets(level))
        {
            tracing::error!(%error, "the log level could not be changed");
            return;
        }
        self.level.store(number(level), Ordering::Relaxed);
    }
}

/// All levels, least talkative first.
pub const LEVELS: [LogLevel; 6] =
    [LogLevel::Off, LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];

/// The name of a level in the configuration and the API.
#[must_use]
pub const fn level_name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Off => "off",
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    }
}

/// Whether colours are wanted: `NO_COLOR` is absent or empty (no-color.org).
#[must_use]
pub fn colour_allowed() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

const fn number(level: LogLevel) -> u8 {
    match level {
        LogLevel::Off => 0,
        LogLevel::Error => 1,
        LogLevel::Warn => 2,
        LogLevel::Info => 3,
        LogLevel::Debug => 4,
        LogLevel::Trace => 5,
    }
}

fn targets(level: LogLevel) -> Targets {
    let (ours, audit) = match level {
        LogLevel::Off => (LevelFilter::OFF, LevelFilter::OFF),
        LogLevel::Error => (LevelFilter::ERROR, LevelFilter::INFO),
        LogLevel::Warn => (LevelFilter::WARN, LevelFilter::INFO),
        LogLevel::Info => (LevelFilter::INFO, LevelFilter::INFO),
        LogLevel::Debug => (LevelFilter::DEBUG, LevelFilter::INFO),
        LogLevel::Trace => (LevelFilter::TRACE, LevelFilter::INFO),
    };
    // The prefix covers holdline_core and targets such as "holdline::pipe" alike.
    Targets::new().with_default(ours.min(LevelFilter::WARN)).with_target("holdline", ours).with_target(AUDIT, audit)
}

fn resolve(format: LogFormat, terminal: bool) -> LogFormat {
    match (format, terminal) {
        (LogFormat::Auto, true) => LogFormat::Text,
        (LogFormat::Auto, false) => LogFormat::Json,
        (LogFormat::Text, _) => LogFormat::Text,
        (LogFormat::Json, _) => LogFormat::Json,
    }
}

/// `2026-11-21T10:13:37Z INFO  message key=value`.
struct TextLines {
    colour: bool,
}

impl<S, N> FormatEvent<S, N> for TextLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = TextFields::default();
        event.record(&mut fields);
        let level = *event.metadata().level();
        let (on, off) = if self.colour { (paint(level), "\x1b[0m") } else { ("", "") };
        let now = jiff::Timestamp::now();
        writeln!(writer, "{now:.3} {on}{level:<5}{off} {}{}", fields.message, fields.rest)
    }
}

const fn paint(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG | Level::TRACE => "\x1b[2m",
    }
}

#[derive(Default)]
struct TextFields {
    message: String,
    rest: String,
}

impl TextFields {
    fn add(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message = escaped(value);
            return;
        }
        let _ = if value.is_empty() || value.contains([' ', '"', '=']) {
            write!(self.rest, " {}={:?}", field.name(), value)
        } else {
            write!(self.rest, " {}={}", field.name(), escaped(value))
        };
    }
}

impl Visit for TextFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }
}

/// `text` with every control character written out.
pub(crate) fn escaped(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(colour: bool, write: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
        let layer = layer.event_format(TextLines { colour }).with_filter(targets(LogLevel::Info));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), write);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn what_a_peer_wrote_stays_on_its_line() {
        let text = logged(false, || {
            tracing::info!(path = "/a\nERROR forged\x1b[2J", other = %"x\u{9b}1my", "hello\r\nworld");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains(r"hello\r\nworld") && !text.contains('\x1b') && !text.contains('\u{9b}'), "{text}");
    }

    #[test]
    fn libraries_are_heard_from_warn_up_and_audit_always() {
        let text = logged(false, || {
            tracing::info!(target: "hyper::proto", "chatter");
            tracing::warn!(target: "hyper::proto", "trouble");
            tracing::info!(target: "audit", "written");
            tracing::debug!("detail");
        });
        assert!(!text.contains("chatter") && !text.contains("detail"));
        assert!(text.contains("trouble") && text.contains("written"));
    }

    #[test]
    fn a_json_line_is_flat_and_keeps_each_kind_of_value() {
        let sink = Sink::default();
        let writer = sink.clone();
        let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).event_format(JsonLines);
        let layer = layer.with_filter(targets(LogLevel::Info));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let (some, none) = (Some("k"), None::<&str>);
            tracing::info!(a = "x\"y", b = 5u64, c = -1, d = 5.0, e = true, f = ?"z\n", some, none, r#type = 1, "said");
        });
        let bytes = sink.0.lock().unwrap().clone();
        let line: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
        assert_eq!(keys.len(), 12, "{line}");
        assert_eq!(line["message"], "said");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["target"], "holdline::log::tests");
        assert_eq!((&line["a"], &line["b"], &line["c"]), (&"x\"y".into(), &5.into(), &(-1).into()));
        assert_eq!((&line["d"], &line["e"], &line["f"]), (&5.0.into(), &true.into(), &"\"z\\n\"".into()));
        assert_eq!((&line["some"], &line["type"]), (&"k".into(), &1.into()));
        let time = line["timestamp"].as_str().unwrap();
        assert!(time.len() == 27 && time.parse::<jiff::Timestamp>().is_ok(), "{time}");
        assert_eq!(bytes.iter().filter(|&&byte| byte == b'\n').count(), 1);
    }

    #[test]
    fn what_is_missing_is_said_in_the_form_of_the_other_lines() {
        let line: serde_json::Value = serde_json::from_str(&missing_as_json(7)).unwrap();
        assert_eq!((&line["dropped"], &line["level"], &line["message"]), (&7.into(), &"WARN".into(), &MISSING.into()));
        assert!(missing_as_text(7).ends_with(" dropped=7\n"));
    }

    #[test]
    fn colours_are_only_used_when_asked_for() {
        assert!(logged(true, || tracing::info!("x")).contains("\x1b[32m"));
        assert!(!logged(false, || tracing::info!("x")).contains('\x1b'));
    }

    #[test]
    fn auto_is_text_on_a_terminal_and_json_elsewhere() {
        assert_eq!(resolve(LogFormat::Auto, true), LogFormat::Text);
        assert_eq!(resolve(LogFormat::Auto, false), LogFormat::Json);
        assert_eq!(resolve(LogFormat::Json, true), LogFormat::Json);
    }

    #[test]
    fn a_level_is_remembered() {
        let log = LogHandle::detached(LogLevel::Info);
        for level in LEVELS {
            log.set_level(level);
            assert_eq!(log.level(), level);
        }
    }
}
