//! `holdline check`: says whether `holdline serve` would take a configuration, and what is wrong if not.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::config::{Config, Invalid};
use crate::routes::rules_of_auto;
use crate::tls::Sets;

/// Options of `holdline check`.
#[derive(Args)]
pub struct Options {
    /// The configuration file; without one, the defaults under this environment
    #[arg(short, long, value_name = "FILE", env = "HOLDLINE_CONFIG")]
    config: Option<PathBuf>,
    /// Print the effective configuration as TOML, secrets masked
    #[arg(long)]
    print: bool,
}

/// Errors and warnings go to stderr, so that stdout is a configuration or one line.
pub fn run(options: &Options) -> ExitCode {
    let loaded = match Config::load(options.config.as_deref()) {
        Ok(loaded) => loaded,
        Err(invalid) => return refuse(&invalid),
    };
    let mut errors = loaded.pools_tls().map_or_else(|invalid| invalid.errors, |(_, untimely)| untimely);
    errors.extend(Sets::load(&loaded).map_or_else(|invalid| invalid.errors, |(_, concerns)| concerns));
    if !errors.is_empty() {
        return refuse(&Invalid { errors });
    }
    if let Err(invalid) = loaded.worker_commands() {
        return refuse(&invalid);
    }
    if let Err(invalid) = loaded.hooks_secret() {
        return refuse(&invalid);
    }
    let exposed = match loaded.resume_keys() {
        Ok((_, exposed)) => exposed,
        Err(invalid) => return refuse(&invalid),
    };
    for warning in loaded.warnings.iter().chain(&exposed).chain(&loaded.worker_ports()) {
        say(io::stderr(), &format!("warning: {warning}\n"));
    }
    if options.print {
        say(io::stdout(), &loaded.config.print());
        let rules: String = rules_of_auto().iter().map(|rule| format!("#   {rule}\n")).collect();
        say(io::stdout(), &format!("\n# A route with conversation = \"auto\" knows its conversations by:\n{rules}"));
    } else {
        let name = options.config.as_ref().map_or("the defaults".to_owned(), |path| path.display().to_string());
        say(io::stdout(), &format!("{name}: ok\n"));
    }
    ExitCode::SUCCESS
}

fn refuse(invalid: &Invalid) -> ExitCode {
    say(io::stderr(), &format!("{invalid}\n"));
    ExitCode::from(super::MISUSE)
}

/// The reader that closed the other end wants no more.
fn say(mut to: impl Write, text: &str) {
    let _ = to.write_all(text.as_bytes());
}
