//! `holdline completions` and `holdline man`: what shells and readers of manuals want, from the same definitions as the
//! command line itself.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Cli, pages};

/// `holdline completions`.
#[derive(clap::Args)]
pub(super) struct Completions {
    /// The shell they are for
    shell: Shell,
}

/// `holdline man`.
#[derive(clap::Args)]
pub(super) struct Manual {
    /// Write the page of each command into this directory instead
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn completions(options: &Completions) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), "holdline", &mut script);
    print(&script)
}

pub(super) fn man(options: &Manual) -> anyhow::Result<()> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    match &options.dir {
        Some(dir) => write_pages(&command, "holdline", dir).with_context(|| format!("{}", dir.display())),
        None => print(&page(&command, "holdline")?),
    }
}

/// The page of a command, `typed` so, and of those below it.
fn write_pages(command: &Command, typed: &str, dir: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write_pages(below, &format!("{typed} {}", below.get_name()), dir)?;
    }
    let name = Man::new(command.clone()).get_filename();
    std::fs::write(dir.join(name), page(command, typed)?)
}

fn page(command: &Command, typed: &str) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    page.extend(pages::manual(typed).into_bytes());
    Ok(page)
}

fn print(bytes: &[u8]) -> anyhow::Result<()> {
    match io::stdout().write_all(bytes) {
        // The reader of our output has closed it.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}
