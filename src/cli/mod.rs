//! The command line: parses arguments, runs the command, and turns its outcome into an exit code.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod check;
mod worker;

/// An interruptible WebSocket reverse proxy.
#[derive(Parser)]
#[command(name = "holdline", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Validate the configuration: exit 0, or 2 with every error's file, line, column and key
    Check(check::Options),
    /// Run the demo device-bridge worker
    Worker(crate::worker::Options),
}

/// Runs the command that the arguments name; exit codes are 0 fine, 1 failed at run time, 2 bad usage or bad config.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Check(options) => return check::run(&options),
        Command::Worker(options) => worker::run(options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdline: {error:#}");
            ExitCode::FAILURE
        }
    }
}
