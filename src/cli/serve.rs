//! `holdline serve`: runs the proxy until it is told to stop.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::banner::banner;
use crate::activation::Inherited;
use crate::config::{Arguments, Config, Invalid, Loaded, LogLevel};
use crate::ctl::variable;
use crate::handover::giving::Program;
use crate::handover::taking::{Predecessor, TakeError};
use crate::log::LogHandle;
use crate::serve::{self, Beginning};

/// How long the end waits for a reader of the log that stands still.
const LOG_TIMEOUT: Duration = Duration::from_secs(2);

/// Arguments of `holdline serve`.
#[derive(clap::Args)]
pub struct Options {
    /// The configuration; without a file, the defaults: 127.0.0.1:8000, admin on 127.0.0.1:9000, one pool, one route
    /// [env: HOLDLINE_CONFIG]
    #[arg(short, long, value_name = "FILE", conflicts_with = "to")]
    config: Option<PathBuf>,
    /// A worker, instead of a file: ws://HOST:PORT, wss://HOST:PORT or unix:PATH; once for each
    #[arg(long, value_name = "URL")]
    to: Vec<String>,
    /// Where clients come, beside --to: ADDRESS:PORT or unix:PATH, once for each [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDRESS", requires = "to")]
    listen: Vec<String>,
    /// Take over from the process that listens at this socket (its upgrade.socket), with all its clients
    #[arg(long, value_name = "PATH")]
    take_over: Option<PathBuf>,
    /// Take over from the process that has started this one
    #[arg(long, hide = true, conflicts_with = "take_over")]
    take_over_stdin: bool,
    /// Exit at once when stdin ends: a parent that dies takes its proxy along
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

/// Runs the proxy; exit 2 when the configuration is wrong, 1 when it cannot start.
pub fn run(options: &Options) -> ExitCode {
    // Before another file takes the place of this program.
    let program = program(options);
    let inherited = match Inherited::take() {
        Ok(inherited) => inherited,
        Err(error) => {
            eprintln!("holdline: {error}");
            return ExitCode::FAILURE;
        }
    };
    if options.until_stdin_closes {
        std::thread::spawn(super::exit_with_stdin);
    }
    let loaded = match load(options) {
        Ok(loaded) => loaded,
        Err(invalid) => {
            eprintln!("{invalid}");
            return ExitCode::from(super::MISUSE);
        }
    };
    let log = match crate::log::init(&loaded.config.log) {
        Ok(log) => Arc::new(log),
        Err(error) => {
            eprintln!("holdline: {error}");
            return ExitCode::FAILURE;
        }
    };
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("holdline: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    // The record of programs and the line for people go to the same place: what is wrong is said once.
    let recorded = log.writes_json() && loaded.config.log.level != LogLevel::Off;
    let ended = runtime.block_on(serve(loaded, log, inherited, program, options));
    let failed = ended.map_err(|error| (crate::ctl::in_words(&error), error));
    if let Err((error, _)) = &failed
        && recorded
    {
        tracing::error!(error, "could not start");
    }
    crate::log::finish(LOG_TIMEOUT);
    match failed {
        Ok(()) => ExitCode::SUCCESS,
        Err((words, error)) => {
            if !recorded {
                eprintln!("holdline: {words}");
            }
            let is_misuse = error.downcast_ref().is_some_and(serve::StartError::is_misuse);
            if is_misuse { ExitCode::from(super::MISUSE) } else { ExitCode::FAILURE }
        }
    }
}

/// The configuration that is meant: `--to` in place of a file, also of one that the environment names.
fn load(options: &Options) -> Result<Loaded, Invalid> {
    if options.to.is_empty() {
        let file = options.config.clone().or_else(|| variable("HOLDLINE_CONFIG").map(PathBuf::from));
        return Config::load(file.as_deref());
    }
    Config::of_arguments(&Arguments { to: options.to.clone(), listen: options.listen.clone() })
}

/// How a process is started that takes over from this one: as this one was.
fn program(options: &Options) -> Program {
    let own = std::env::current_exe().unwrap_or_else(|_| "holdline".into());
    let config = options.config.iter().map(|file| ("-c", file.clone().into_os_string()));
    let to = options.to.iter().map(|url| ("--to", url.into()));
    let listen = options.listen.iter().map(|address| ("--listen", address.into()));
    let pairs = config.chain(to).chain(listen).flat_map(|(name, value)| [name.into(), value]);
    Program { own, arguments: std::iter::once("serve".into()).chain(pairs).collect() }
}

fn predecessor(options: &Options) -> Result<Option<Predecessor>, TakeError> {
    match &options.take_over {
        Some(path) => Predecessor::at(path).map(Some),
        None if options.take_over_stdin => Predecessor::at_stdin().map(Some),
        None => Ok(None),
    }
}

async fn serve(
    loaded: Loaded,
    log: Arc<LogHandle>,
    inherited: Inherited,
    program: Program,
    options: &Options,
) -> anyhow::Result<()> {
    let mut signals =
        Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
    let mut hangup = signal(SignalKind::hangup())?;
    let beginning = Beginning { inherited, predecessor: predecessor(options)?, program };
    let (config, sources, is_text) = (loaded.config.clone(), loaded.sources.clone(), !log.writes_json());
    let mut running = serve::start(loaded, log, beginning).await?;
    if is_text && io::stderr().is_terminal() {
        crate::log::write_line(&banner(&config, &sources, running.places()));
    }
    let is_replaced = loop {
        tokio::select! {
            () = signals.next() => break running.settle(signals.next()).await,
            () = running.given() => break true,
            _ = hangup.recv() => running.reload().await,
        }
    };
    if is_replaced {
        running.leave(signals.next()).await;
    } else {
        running.stop(signals.next()).await;
    }
    Ok(())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Waits for the next SIGTERM or SIGINT.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
