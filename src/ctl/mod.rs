//! `holdline ctl`: the admin API from the command line, as tables for people and as JSON for programs.
//!
//! The token comes from `HOLDLINE_TOKEN` and never from an argument, where every process of the machine could read it.

mod client;
mod commands;
mod table;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

pub use client::{CallError, Client, PATIENCE, Reply, Target};
pub use commands::run;

use crate::config::Config;

/// Where the admin API is, for every command that asks it.
#[derive(Args, Debug, Clone)]
pub struct Where {
    /// Admin API: http://HOST:PORT or unix:PATH [default: admin.listen of the configuration]
    #[arg(long, env = "HOLDLINE_ADMIN", global = true, value_name = "URL")]
    pub admin: Option<Target>,
    /// The configuration that names the admin listener
    #[arg(short, long, env = "HOLDLINE_CONFIG", global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl Where {
    /// A client of the API that is meant.
    ///
    /// # Errors
    /// What is wrong with the configuration, if it is needed.
    pub fn client(&self) -> anyhow::Result<Client> {
        let target = match &self.admin {
            Some(target) => target.clone(),
            None => Target::of(&Config::load(self.config.as_deref())?.config),
        };
        Ok(Client::new(target))
    }
}

/// `holdline ctl`.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    at: Where,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Backends: list, show, add, drain, remove …
    Backends {
        #[command(subcommand)]
        command: Option<Backends>,
    },
    /// Pools and how many of their backends are eligible
    Pools,
    /// Live pipes: list, show, move, close
    Pipes {
        #[command(subcommand)]
        command: Option<Pipes>,
    },
    /// What happened
    Events {
        /// Only what came after this number
        #[arg(long, default_value_t = 0)]
        after: u64,
        /// Go on with what happens from now on
        #[arg(long, short)]
        follow: bool,
    },
    /// Sessions, memory and counters
    Stats,
    /// The effective configuration, secrets masked
    Config,
    /// Take no new pipes in the whole process
    Drain {
        /// Take new pipes again
        #[arg(long)]
        cancel: bool,
    },
}

#[derive(Subcommand, Debug)]
enum Backends {
    /// All backends
    List {
        /// Only those of this pool
        #[arg(long)]
        pool: Option<String>,
        /// Only those in this admin state
        #[arg(long)]
        state: Option<State>,
    },
    /// One backend
    Show {
        /// Its id
        id: String,
    },
    /// Registers a backend
    Add(Add),
    /// No new pipes for it, and the ones it has move away
    Drain {
        /// Its id
        id: String,
        /// What becomes of its pipes
        #[arg(long, default_value = "reattach")]
        pipes: Wish,
        /// When pipes that are still there are cut off, such as 1m
        #[arg(long)]
        deadline: Option<String>,
    },
    /// Out of service
    Maint {
        /// Its id
        id: String,
        /// What becomes of its pipes
        #[arg(long, default_value = "reattach")]
        pipes: Wish,
    },
    /// New pipes for it again
    Ready {
        /// Its id
        id: String,
    },
    /// Drains it, then forgets it
    Remove {
        /// Its id
        id: String,
    },
}

#[derive(Args, Debug)]
struct Add {
    /// ws:// or wss:// URL
    url: String,
    /// Its id; without one it is made up
    #[arg(long)]
    id: Option<String>,
    /// The pool it stands in
    #[arg(long, default_value = "default")]
    pool: String,
    /// Its share beside the others
    #[arg(long, default_value_t = 1)]
    weight: u32,
    /// Pipes at once; 0 is no limit
    #[arg(long)]
    max_pipes: Option<u32>,
    /// A route key it takes, with what it calls it itself: KEY or KEY=ALIAS
    #[arg(long, value_name = "KEY[=ALIAS]")]
    serves: Vec<String>,
}

#[derive(Subcommand, Debug)]
enum Pipes {
    /// All pipes
    List(Filter),
    /// One pipe
    Show {
        /// Its id
        id: String,
    },
    /// Moves it to another backend
    Move {
        /// Its id
        id: String,
    },
    /// Closes its client
    Close {
        /// Its id
        id: String,
        /// Close code
        #[arg(long, default_value_t = 1000)]
        code: u16,
        /// Reason, as the client is told
        #[arg(long, default_value = "")]
        reason: String,
    },
}

#[derive(Args, Debug, Default)]
struct Filter {
    /// Only those of this route
    #[arg(long)]
    route: Option<String>,
    /// Only those of this pool
    #[arg(long)]
    pool: Option<String>,
    /// Only those on this backend
    #[arg(long)]
    backend: Option<String>,
    /// Only those with this route key
    #[arg(long)]
    key: Option<String>,
    /// Only those in this state
    #[arg(long)]
    state: Option<String>,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum State {
    Ready,
    Drain,
    Maint,
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Wish {
    Reattach,
    Keep,
    Close,
}

impl Wish {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Reattach => "reattach",
            Self::Keep => "keep",
            Self::Close => "close",
        }
    }
}
