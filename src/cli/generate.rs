//! `holdline completions` and `holdline man`: what shells and readers of manuals want, from the same definitions as the
//! command line itself.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;

/// `holdline completions`.
#[derive(clap::Args)]
pub(super) struct Completions {
    /// The shell they are for
    shell: Shell,
}

/// `holdline man`.
#[derive(clap::Args)]
pub(super) struct Man {
    /// Write the page of each command into this directory instead
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn completions(options: &Completions) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), "holdline", &mut script);
    print(&script)
}

pub(super) fn man(options: &Man) -> anyhow::Result<()> {
    let command = Cli::command();
    if let Some(dir) = &options.dir {
        return clap_mangen::generate_to(command, dir).with_context(|| format!("{}", dir.display()));
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    print(&page)
}

fn print(bytes: &[u8]) -> anyhow::Result<()> {
    match io::stdout().write_all(bytes) {
        // The reader of our output has closed it.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}
