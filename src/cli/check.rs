//! `holdline check`: says whether `holdline serve` would take a configuration and find its files, and what is wrong if not.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::files::{self, Found};
use crate::config::{Config, Notice, Place};
use crate::ctl::variable;
use crate::routes::rules_of_auto;

/// Options of `holdline check`.
#[derive(Args)]
pub struct Options {
    /// The configuration file; without one, the defaults under this environment [env: HOLDLINE_CONFIG]
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    /// The same
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the effective configuration as TOML, secrets masked
    #[arg(long)]
    print: bool,
    /// Print one JSON document: valid, errors and warnings, each with its file, line, column, key and message
    #[arg(long, conflicts_with = "print")]
    json: bool,
}

/// Errors and warnings go to stderr, so that stdout is a configuration, a document or one line.
pub fn run(options: &Options) -> ExitCode {
    let file =
        options.file.clone().or_else(|| options.config.clone()).or_else(|| variable("HOLDLINE_CONFIG").map(Into::into));
    let (found, config) = match Config::load(file.as_deref()) {
        Ok(loaded) => {
            let mut found = files::look(&loaded);
            found.warnings.splice(0..0, loaded.warnings);
            (found, Some(loaded.config))
        }
        Err(invalid) => (Found { errors: invalid.errors, warnings: Vec::new() }, None),
    };
    let is_valid = found.errors.is_empty();
    if options.json {
        say(io::stdout(), &format!("{}\n", document(file.as_ref(), &found)));
    } else {
        say(io::stderr(), &told(&found));
        if is_valid {
            say(io::stdout(), &good(options, file.as_ref(), config.as_ref()));
        }
    }
    if is_valid { ExitCode::SUCCESS } else { ExitCode::from(super::MISUSE) }
}

/// Each notice on a line, and how many errors there are.
fn told(found: &Found) -> String {
    if found.errors.is_empty() {
        return found.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
    }
    format!("{}\n", crate::config::Invalid { errors: found.errors.clone() })
}

fn good(options: &Options, file: Option<&PathBuf>, config: Option<&Config>) -> String {
    if let Some(config) = config.filter(|_| options.print) {
        let rules: String = rules_of_auto().iter().map(|rule| format!("#   {rule}\n")).collect();
        return format!(
            "{}\n# A route with conversation = \"auto\" knows its conversations by:\n{rules}",
            config.print()
        );
    }
    let name = file.map_or("the defaults".to_owned(), |path| path.display().to_string());
    format!("{name}: ok\n")
}

fn document(file: Option<&PathBuf>, found: &Found) -> Value {
    let each = |notices: &[Notice]| notices.iter().map(fields).collect::<Vec<_>>();
    json!({
        "file": file.map(|path| path.display().to_string()),
        "valid": found.errors.is_empty(),
        "errors": each(&found.errors),
        "warnings": each(&found.warnings),
    })
}

/// As the admin API says it of a candidate.
fn fields(notice: &Notice) -> Value {
    let (line, column, variable) = match &notice.place {
        Place::File { line, column } => (Some(line), Some(column), None),
        Place::Env(name) => (None, None, Some(name.as_str())),
        Place::Argument { name, .. } => (None, None, Some(*name)),
        Place::Nowhere => (None, None, None),
    };
    json!({
        "file": notice.file, "line": line, "column": column, "variable": variable,
        "key": notice.key, "message": notice.message,
    })
}

/// The reader that closed the other end wants no more.
fn say(mut to: impl Write, text: &str) {
    let _ = to.write_all(text.as_bytes());
}
