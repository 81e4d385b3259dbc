//! The arguments of `holdline ctl`. Their comments are its help, its completions and its manual page.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Where;

/// `holdline ctl`.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    pub(super) at: Where,
    /// Print JSON, one document a line
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Show it again whenever it changes; of a drain, until no pipe is left
    #[arg(long, short, global = true)]
    pub(super) watch: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand, Debug)]
#[expect(clippy::large_enum_variant, reason = "one is made in a run")]
pub(super) enum Command {
    /// Backends: list, show, add, set, drain, maint, ready, remove
    Backends {
        #[command(subcommand)]
        command: Option<Backends>,
        #[command(flatten)]
        filter: BackendFilter,
    },
    /// Pools: list, show, rebalance
    Pools {
        #[command(subcommand)]
        command: Option<Pools>,
    },
    /// Live pipes: list, show, move, label, close, say
    Pipes {
        #[command(subcommand)]
        command: Option<Pipes>,
        #[command(flatten)]
        filter: Filter,
    },
    /// The processes behind the backends: instance, labels, keys they own, lease, last probe, what they report of
    /// themselves. Those that Holdline runs: list, show, restart, recycle, scale
    Workers {
        #[command(subcommand)]
        command: Option<Workers>,
        #[command(flatten)]
        filter: BackendFilter,
    },
    /// Look on at the messages of a pipe, where admin.tap allows it; the audit log says who did
    Tap {
        /// Its id
        #[arg(allow_hyphen_values = true)]
        id: String,
        /// Bytes of each message; admin.tap_bytes_max without it
        #[arg(long)]
        bytes: Option<u32>,
        /// For how long, such as 10s; 30 s without it
        #[arg(long = "for", value_name = "TIME")]
        time: Option<String>,
    },
    /// Say something to many clients
    Broadcast(Broadcast),
    /// What happened
    Events(Events),
    /// Sessions, memory and counters
    Stats,
    /// What the process is: version, listeners, phase
    Info,
    /// The configuration: show, validate, reload
    Config {
        #[command(subcommand)]
        command: Option<Config>,
    },
    /// The log's level, read or set
    Log {
        /// The level to set: off, error, warn, info, debug, trace
        level: Option<String>,
        /// For how long, such as 10m; for good without it
        #[arg(long = "for", value_name = "TIME", requires = "level")]
        time: Option<String>,
    },
    /// Take no new pipes in the whole process
    Drain {
        /// Take new pipes again
        #[arg(long)]
        cancel: bool,
    },
    /// A live view of pools, backends, pipes and events, with keys that search, drain and move
    Top {
        /// Seconds between two looks
        #[arg(long, default_value_t = 1.0, value_name = "SECONDS")]
        every: f64,
        /// Print one look and leave
        #[arg(long)]
        once: bool,
    },
}

#[derive(Args, Debug)]
pub(super) struct Events {
    /// Only what came after this number
    #[arg(long, conflicts_with = "since")]
    pub(super) after: Option<u64>,
    /// Only what came this long ago or later, such as 15m; now for what comes from now on
    #[arg(long, value_name = "TIME")]
    pub(super) since: Option<String>,
    /// Only events of these types, such as pipe.ended,backend (backend is all that begin with backend.)
    #[arg(long = "type", value_name = "TYPES")]
    pub(super) kinds: Option<String>,
    /// Only events that matter so much or more
    #[arg(long)]
    pub(super) level: Option<EventLevel>,
    /// Go on with what happens from now on
    #[arg(long, short)]
    pub(super) follow: bool,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum EventLevel {
    /// All
    Info,
    /// What may become trouble, or was
    Warn,
    /// What clients felt, and what has to be mended
    Error,
}

impl EventLevel {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

#[derive(Subcommand, Debug)]
pub(super) enum Backends {
    /// All backends
    List(BackendFilter),
    /// One backend
    Show {
        /// Its id
        id: String,
    },
    /// Register a backend
    Add(Add),
    /// Change what is said about a backend; what is not named stays
    Set(Set),
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
    /// Drain it, then forget it
    Remove {
        /// Its id
        id: String,
    },
}

/// Which backends are listed.
#[derive(Args, Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct BackendFilter {
    /// Only those of this pool
    #[arg(long)]
    pub(super) pool: Option<String>,
    /// Only those in this admin state
    #[arg(long)]
    pub(super) state: Option<State>,
}

#[derive(Args, Debug)]
pub(super) struct Add {
    /// ws:// or wss:// URL
    pub(super) url: String,
    /// Its id; without one it is made up
    #[arg(long)]
    pub(super) id: Option<String>,
    /// The pool it stands in
    #[arg(long, default_value = "default")]
    pub(super) pool: String,
    /// Its share beside the others
    #[arg(long, default_value_t = 1)]
    pub(super) weight: u32,
    /// Pipes at once; 0 is no limit
    #[arg(long)]
    pub(super) max_pipes: Option<u32>,
    /// A route key that it owns, with what it calls that key itself, which then takes the key's place in the path;
    /// without any it takes every key
    #[arg(long, value_name = "KEY[=ALIAS]")]
    pub(super) serves: Vec<String>,
}

#[derive(Args, Debug)]
pub(super) struct Set {
    /// Its id
    pub(super) id: String,
    /// ws:// or wss:// URL
    #[arg(long)]
    pub(super) url: Option<String>,
    /// The pool it stands in
    #[arg(long)]
    pub(super) pool: Option<String>,
    /// Its share beside the others
    #[arg(long)]
    pub(super) weight: Option<u32>,
    /// Pipes at once; 0 is no limit
    #[arg(long)]
    pub(super) max_pipes: Option<u32>,
    /// The route keys that it owns instead of those it owned, each with what it calls the key itself; an empty one
    /// takes every key
    #[arg(long, value_name = "KEY[=ALIAS]")]
    pub(super) serves: Vec<String>,
    /// A label; without a value it goes
    #[arg(long = "label", value_name = "NAME=[VALUE]")]
    pub(super) labels: Vec<String>,
}

/// Of the workers that Holdline runs itself.
#[derive(Subcommand, Debug)]
pub(super) enum Workers {
    /// All that Holdline runs
    List {
        /// Only those of this group
        #[arg(long)]
        group: Option<String>,
    },
    /// One that Holdline runs
    Show {
        /// Its id
        id: String,
    },
    /// Replace all of a group, one after another; no client is closed
    Restart {
        /// The group's name
        group: String,
    },
    /// Replace one
    Recycle {
        /// Its id
        id: String,
    },
    /// Have so many of a group serve, until another count is configured
    Scale {
        /// The group's name
        group: String,
        /// How many
        count: u32,
    },
}

#[derive(Subcommand, Debug)]
pub(super) enum Pools {
    /// All pools
    List,
    /// One pool
    Show {
        /// Its name
        name: String,
    },
    /// Move pipes from backends that have too many to those that have too few
    Rebalance {
        /// Its name
        name: String,
    },
}

#[derive(Subcommand, Debug)]
pub(super) enum Pipes {
    /// All pipes
    List(Filter),
    /// One pipe
    Show {
        /// Its id
        #[arg(allow_hyphen_values = true)]
        id: String,
    },
    /// Move it to another backend
    Move {
        /// Its id
        #[arg(allow_hyphen_values = true)]
        id: String,
    },
    /// Change the groups that it belongs to
    Label {
        /// Its id
        #[arg(allow_hyphen_values = true)]
        id: String,
        /// A label and its value; NAME alone has an empty value, and NAME= takes the label away
        #[arg(required = true, value_name = "NAME[=[VALUE]]")]
        labels: Vec<String>,
    },
    /// Close its client
    Close {
        /// Its id
        #[arg(allow_hyphen_values = true)]
        id: String,
        /// Close code
        #[arg(long, default_value_t = 1000)]
        code: u16,
        /// Reason, as the client is told
        #[arg(long, default_value = "", allow_hyphen_values = true)]
        reason: String,
    },
    /// Say something to its client
    Say {
        /// Its id
        #[arg(allow_hyphen_values = true)]
        id: String,
        #[command(flatten)]
        words: Words,
    },
}

/// What is said to clients.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(super) struct Words {
    /// A text message
    #[arg(long, allow_hyphen_values = true)]
    pub(super) text: Option<String>,
    /// A binary message, as base64
    #[arg(long)]
    pub(super) base64: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct Broadcast {
    #[command(flatten)]
    pub(super) words: Words,
    /// Only to clients of this route
    #[arg(long)]
    pub(super) route: Option<String>,
    /// Only to clients with this route key
    #[arg(long, allow_hyphen_values = true)]
    pub(super) key: Option<String>,
    /// Only to clients of this pool
    #[arg(long)]
    pub(super) pool: Option<String>,
    /// Only to clients of this group: NAME:VALUE, or NAME for any value
    #[arg(long)]
    pub(super) label: Option<String>,
    /// Not to the client of this pipe
    #[arg(long, value_name = "PIPE", allow_hyphen_values = true)]
    pub(super) exclude: Vec<String>,
}

/// Which pipes are listed.
#[derive(Args, Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Filter {
    /// Only those of this route
    #[arg(long)]
    pub(super) route: Option<String>,
    /// Only those of this pool
    #[arg(long)]
    pub(super) pool: Option<String>,
    /// Only those on this backend
    #[arg(long)]
    pub(super) backend: Option<String>,
    /// Only those with this route key
    #[arg(long, allow_hyphen_values = true)]
    pub(super) key: Option<String>,
    /// Only those of this group: NAME:VALUE, or NAME for any value
    #[arg(long)]
    pub(super) label: Option<String>,
    /// Only those in this state
    #[arg(long)]
    pub(super) state: Option<String>,
    /// Only those whose id, key, client, backend, route or label has these words in it
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    pub(super) q: Option<String>,
    /// What they are sorted by; by id without it
    #[arg(long, allow_hyphen_values = true)]
    pub(super) sort: Option<PipeSort>,
    /// So many at most
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) limit: Option<u32>,
    /// The columns of the table, such as id,key,rate
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(super) columns: Vec<String>,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PipeSort {
    /// Most bytes a second over the last five seconds first
    #[value(name = "-rate", alias = "rate")]
    Rate,
    /// Most bytes held first
    #[value(name = "-buffered", alias = "buffered")]
    Buffered,
    /// Most interruptions first
    #[value(name = "-interruptions", alias = "interruptions")]
    Interruptions,
    /// Most memory first
    #[value(name = "-memory", alias = "memory")]
    Memory,
    /// Oldest first
    #[value(name = "age")]
    Age,
}

impl PipeSort {
    /// The word of the API.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "-rate",
            Self::Buffered => "-buffered",
            Self::Interruptions => "-interruptions",
            Self::Memory => "-memory",
            Self::Age => "age",
        }
    }
}

#[derive(Subcommand, Debug)]
pub(super) enum Config {
    /// The effective configuration, secrets masked
    Show,
    /// Whether the process would take a file: exit 0, or 2 with every error
    Validate {
        /// The file, - for stdin; without one, the file that the process itself reads, as it is now
        file: Option<PathBuf>,
    },
    /// Read the configuration again and put it in force
    Reload {
        /// Even if it drops what guards the process: an emptied file, tokens, or origins of a route
        #[arg(long)]
        force: bool,
    },
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Takes pipes
    Ready,
    /// Takes no new ones
    Drain,
    /// Out of service
    Maint,
}

impl State {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

#[derive(ValueEnum, Clone, Copy, Debug)]
pub(super) enum Wish {
    /// They move to other backends
    Reattach,
    /// They stay until their clients leave
    Keep,
    /// Their clients are closed
    Close,
}

impl Wish {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Reattach => "reattach",
            Self::Keep => "keep",
            Self::Close => "close",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn the_id_of_a_pipe_may_begin_like_an_option() {
        for id in ["-pVkoC9x8VLvkE42L18FXA", "-cVkoC9x8VLvkE42L18FXA", "--koC9x8VLvkE42L18FXAx"] {
            let parsed = Alone::try_parse_from(["ctl", "--json", "pipes", "show", id, "--watch"]).unwrap().options;
            let Command::Pipes { command: Some(Pipes::Show { id: shown }), .. } = parsed.command else {
                panic!("{id}")
            };
            assert!(shown == id && parsed.watch && parsed.json, "{id}");
        }
        let arguments = ["ctl", "broadcast", "--text", "-1", "--exclude", "-pVkoC9x8VLvkE42L18FXA"];
        assert!(Alone::try_parse_from(arguments).is_ok());
    }
}
