//! `holdline config`: the example, the JSON Schema for editors, and the layout of a file.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};

use crate::config::{Config, format};
use crate::ctl::Misuse;

/// Bytes of a configuration that are read from stdin; more is not one.
const STDIN_BYTES_MAX: u64 = 4 << 20;

/// `holdline config`.
#[derive(Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print every key with its default and what it is for: a file to begin with
    Example,
    /// Print the JSON Schema of the file, by which editors check and complete it
    Schema,
    /// Put the layout of a file in order; comments, values and the order of keys stay
    Fmt(Fmt),
}

#[derive(Args)]
struct Fmt {
    /// The file, which is written; - or none reads stdin and prints
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Write nothing; exit 1 if the layout is not in order
    #[arg(long)]
    check: bool,
}

/// Prints what is asked for, or writes the file.
///
/// # Errors
/// When the file cannot be read or written, or is not TOML.
pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    match &options.command {
        Command::Example => print(&Config::example()),
        Command::Schema => print(&format!("{:#}\n", Config::json_schema())),
        Command::Fmt(options) => fmt(options),
    }
}

fn fmt(options: &Fmt) -> anyhow::Result<ExitCode> {
    let file = options.file.as_deref().filter(|file| *file != Path::new("-"));
    let name = file.map_or("stdin".to_owned(), |file| file.display().to_string());
    let text = read(file).map_err(|error| Misuse(format!("{name}: {error}")))?;
    let formatted = match format(&name, &text) {
        Ok(formatted) => formatted,
        Err(invalid) => {
            eprintln!("{invalid}");
            return Ok(ExitCode::from(super::MISUSE));
        }
    };
    if options.check {
        let Some(line) = first_difference(&text, &formatted) else { return Ok(ExitCode::SUCCESS) };
        eprintln!("{name}:{line}: the layout is not in order; `holdline config fmt {name}` puts it so");
        return Ok(ExitCode::FAILURE);
    }
    match file {
        None => return print(&formatted),
        Some(file) if formatted != text => std::fs::write(file, formatted).with_context(|| name)?,
        Some(_) => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn read(file: Option<&Path>) -> io::Result<String> {
    if let Some(file) = file {
        return std::fs::read_to_string(file);
    }
    let mut text = String::new();
    io::stdin().take(STDIN_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// The first line that differs, counted from 1.
fn first_difference(before: &str, after: &str) -> Option<usize> {
    if before == after {
        return None;
    }
    let same = before.split('\n').zip(after.split('\n')).take_while(|(before, after)| before == after);
    Some(same.count() + 1)
}

fn print(text: &str) -> anyhow::Result<ExitCode> {
    match io::stdout().write_all(text.as_bytes()) {
        // The reader of our output has closed it.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        done => Ok(done.map(|()| ExitCode::SUCCESS)?),
    }
}
