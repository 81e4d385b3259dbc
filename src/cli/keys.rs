//! `holdline keys`: makes and rotates the file that `resume.keys_file` names.
//!
//! Says what was done with which key, by their ids; a secret goes into the file and nowhere else.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::resume::{new_file, rotate_file};

/// `holdline keys`.
#[derive(Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a file with one key; it must not exist yet
    New(New),
    /// Put a new key in front: it signs from the next reload on, and the old ones verify what they signed
    Rotate {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Args)]
struct New {
    /// The file
    #[arg(value_name = "FILE", required_unless_present = "out", conflicts_with = "out")]
    file: Option<PathBuf>,
    /// The file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Does what is asked, and says what it was.
pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    match &options.command {
        Command::New(New { file, out }) => {
            let Some(path) = file.as_ref().or(out.as_ref()) else { anyhow::bail!("name the file to make") };
            println!("{}: key {} signs; name the file in resume.keys_file", path.display(), new_file(path)?);
        }
        Command::Rotate { file } => {
            let rotated = rotate_file(file)?;
            println!("{}: key {} signs, {} verify", file.display(), rotated.signs, rotated.verify.join(" "));
            if let Some(gone) = rotated.gone {
                println!("key {gone} was the oldest of too many and is gone: what it signed is good no more");
            }
            println!("reload each process that uses it: SIGHUP, or holdline ctl config reload");
        }
    }
    Ok(())
}
