//! The command line: parses arguments, runs the command, and turns its outcome into an exit code.

use std::ffi::OsString;
use std::io::{self, Read};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::Invalid;
use crate::ctl::{CallError, Misuse, in_words};

mod banner;
mod check;
mod config;
mod files;
mod generate;
mod healthcheck;
mod keys;
mod pages;
mod serve;
mod upgrade;
mod worker;

/// The exit code of bad usage or a bad configuration.
const MISUSE: u8 = 2;

/// An interruptible WebSocket reverse proxy: the client's socket outlives its worker
#[derive(Parser)]
#[command(name = "holdline", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the proxy
    Serve(serve::Options),
    /// Validate the configuration: exit 0, or 2 with every error's file, line, column and key
    Check(check::Options),
    /// The configuration file: an example, its JSON Schema, its layout
    Config(config::Options),
    /// Watch clients keep their sockets while worker processes are killed under them
    Demo(crate::demo::Options),
    /// Ask and steer a running Holdline
    Ctl(crate::ctl::Options),
    /// Exit 0 if a running Holdline is ready for clients, else 1
    Healthcheck(healthcheck::Options),
    /// Have a new process take over from a running Holdline with all its clients, none of which is closed
    Upgrade(upgrade::Options),
    /// Run the demo device-bridge worker
    Worker(crate::worker::Options),
    /// Run a worker's command, registered with Holdline while it lives, drained before it is stopped
    Run(crate::run::Options),
    /// Park connections with Holdline for a worker that cannot be dialled (behind a NAT)
    Agent(crate::agent::Options),
    /// End workers once the process that started them is gone
    #[command(hide = true)]
    Guard,
    /// Become a worker that is given a socket
    #[command(hide = true)]
    Launch(Launch),
    /// Make and rotate the keys of resume tokens (resume.keys_file)
    Keys(keys::Options),
    /// Print the completions of a shell: bash, zsh, fish …
    Completions(generate::Completions),
    /// Print the manual page, or write all of them into a directory
    Man(generate::Manual),
}

#[derive(clap::Args)]
struct Launch {
    /// The worker's program
    #[arg(allow_hyphen_values = true)]
    program: OsString,
    /// Its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Runs the command that the arguments name; exit codes are 0 fine, 1 failed at run time, 2 bad usage or bad config.
#[must_use]
pub fn main() -> ExitCode {
    let matches = pages::with_help(Cli::command()).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match cli.command {
        Command::Serve(options) => serve::run(&options),
        Command::Check(options) => check::run(&options),
        Command::Config(options) => match config::run(&options) {
            Ok(code) => code,
            Err(error) => outcome(Err(error)),
        },
        Command::Demo(options) => crate::demo::run(options),
        Command::Ctl(options) => outcome(crate::ctl::run(options)),
        Command::Healthcheck(options) => outcome(healthcheck::run(&options)),
        Command::Upgrade(options) => outcome(upgrade::run(&options)),
        Command::Worker(options) => outcome(worker::run(options)),
        Command::Run(options) => match crate::run::run(&options) {
            Ok(code) => code,
            Err(error) => outcome(Err(error)),
        },
        Command::Agent(options) => match crate::agent::run(&options) {
            Ok(code) => code,
            Err(error) => outcome(Err(error)),
        },
        Command::Guard => {
            crate::workers::guard::run(io::stdin());
            ExitCode::SUCCESS
        }
        Command::Launch(options) => {
            let error = crate::workers::launch::run(&options.program, &options.arguments);
            eprintln!("holdline: cannot run {}: {error}", options.program.display());
            ExitCode::FAILURE
        }
        Command::Keys(options) => outcome(keys::run(&options)),
        Command::Completions(options) => outcome(generate::completions(&options)),
        Command::Man(options) => outcome(generate::man(&options)),
    }
}

fn outcome(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdline: {}", in_words(&error));
            let unfit = error.downcast_ref().is_some_and(CallError::is_misuse);
            let is_misuse = unfit || error.is::<Misuse>() || error.is::<Invalid>();
            if is_misuse { ExitCode::from(MISUSE) } else { ExitCode::FAILURE }
        }
    }
}

/// Ends the process when stdin does, for a child that must not outlive its parent.
///
/// For a thread of its own, because a blocked read of stdin would keep a runtime from ending.
fn exit_with_stdin() {
    let mut ignored = [0; 256];
    while matches!(io::stdin().read(&mut ignored), Ok(read) if read > 0) {}
    crate::log::finish(std::time::Duration::from_secs(1));
    std::process::exit(0);
}
