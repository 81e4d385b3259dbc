//! `holdline ctl`: the admin API from the command line, as tables for people and as JSON for programs.
//!
//! The token comes from `HOLDLINE_TOKEN` and never from an argument, where every process of the machine could read it.
//! Exit codes: 0 fine, 1 refused or not reached, 2 bad usage or bad configuration.

mod args;
mod ask;
mod backends;
mod client;
mod effective;
mod in_words;
mod output;
mod pipes;
mod process;
mod table;
mod tls;
mod top;
mod workers;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use clap::Args;

pub use args::Options;
pub use client::{CallError, Client, PATIENCE, Target};
pub use in_words::in_words;

use args::{Backends, Command, Config as ConfigCommand, Pipes, Pools, Workers};
use output::Output;
use tls::TlsOptions;

use crate::config::{Config, Invalid};

/// Where the admin API is, for every command that asks it.
#[derive(Args, Debug, Clone)]
pub struct Where {
    /// Admin API: http://HOST:PORT, https://HOST:PORT or unix:PATH [default: admin.listen of the configuration] [env:
    /// HOLDLINE_ADMIN]
    #[arg(long, global = true, value_name = "URL")]
    admin: Option<Target>,
    /// The configuration that names the admin listener [env: HOLDLINE_CONFIG]
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsOptions,
}

impl Where {
    /// A client of the API that is meant.
    ///
    /// # Errors
    /// What is wrong with the configuration, if it is needed, or with the files of TLS.
    pub fn client(&self) -> anyhow::Result<Client> {
        let (target, own) = match self.named()? {
            Some(target) => (target, None),
            None => {
                let config = self.configured()?;
                (Target::of(&config), config.admin.tls.cert)
            }
        };
        let tls = self.tls.trusting(own.as_deref())?;
        Ok(Client::new(target).by_tls(tls).with_token())
    }

    /// A client that asks for the health of the process that is meant, and tells it no secret. Where the configuration
    /// says who that is, its certificate is not judged: one that has expired, or was just renewed, makes no process ill.
    ///
    /// # Errors
    /// As [`Where::client`].
    pub fn health_client(&self) -> anyhow::Result<Client> {
        let (target, tls) = match self.named()? {
            Some(target) => (target, self.tls.trusting(None)?),
            None => (Target::of(&self.configured()?), self.tls.unsuspecting()?),
        };
        Ok(Client::new(target).by_tls(tls))
    }

    /// The address that `--admin` or else `HOLDLINE_ADMIN` says.
    fn named(&self) -> Result<Option<Target>, Misuse> {
        const NAME: &str = "HOLDLINE_ADMIN";
        let Some(text) = variable(NAME).filter(|_| self.admin.is_none()) else { return Ok(self.admin.clone()) };
        let parsed = text.to_string_lossy().parse::<Target>();
        parsed.map(Some).map_err(|why| Misuse(format!("{NAME} is no address of an admin API; {why}")))
    }

    fn configured(&self) -> Result<Config, Invalid> {
        let file = self.config.clone().or_else(|| variable("HOLDLINE_CONFIG").map(PathBuf::from));
        Ok(Config::load(file.as_deref())?.config)
    }
}

/// A variable of the environment; an empty one is as good as none, which many a service manager cannot say otherwise.
#[must_use]
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// What was asked for cannot be, whatever the process would answer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Misuse(pub String);

/// Runs one command and prints its answer.
///
/// # Errors
/// What went wrong, with what to do next.
pub fn run(options: Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = options.at.client()?;
    let out = Output { json: options.json, watch: options.watch };
    if out.watch && !is_watchable(&options.command) {
        return Err(Misuse("--watch is for what can be read and for drains".into()).into());
    }
    match runtime.block_on(command(&client, out, options.command)) {
        // The reader of our output has closed it, which is how `| head` ends.
        Err(error) if is_broken_pipe(&error) => Ok(()),
        done => done,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn is_watchable(command: &Command) -> bool {
    match command {
        Command::Backends { command, .. } => match command {
            None
            | Some(
                Backends::List(_)
                | Backends::Show { .. }
                | Backends::Drain { .. }
                | Backends::Maint { .. }
                | Backends::Remove { .. },
            ) => true,
            Some(Backends::Add(_) | Backends::Set(_) | Backends::Ready { .. }) => false,
        },
        Command::Pools { command } => !matches!(command, Some(Pools::Rebalance { .. })),
        Command::Pipes { command, .. } => matches!(command, None | Some(Pipes::List(_) | Pipes::Show { .. })),
        Command::Config { command } => matches!(command, None | Some(ConfigCommand::Show)),
        Command::Log { level, .. } => level.is_none(),
        Command::Drain { cancel } => !cancel,
        Command::Workers { command, .. } => match command {
            None | Some(Workers::List { .. } | Workers::Show { .. }) => true,
            Some(Workers::Restart { .. } | Workers::Recycle { .. } | Workers::Scale { .. }) => false,
        },
        Command::Events(_) | Command::Stats | Command::Info => true,
        Command::Broadcast(_) | Command::Top { .. } => false,
    }
}

async fn command(client: &Client, out: Output, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Backends { command, filter } => {
            backends::run(client, out, or_list(command, filter, Backends::List)?).await
        }
        Command::Workers { command: None, filter } => workers::behind_backends(client, out, filter).await,
        Command::Workers { command: Some(command), filter } => {
            workers::run(client, out, or_list(Some(command), filter, |_| Workers::List { group: None })?).await
        }
        Command::Pools { command } => pipes::pools(client, out, command.unwrap_or(Pools::List)).await,
        Command::Pipes { command, filter } => pipes::run(client, out, or_list(command, filter, Pipes::List)?).await,
        Command::Broadcast(broadcast) => pipes::broadcast(client, out, broadcast).await,
        Command::Events(wish) => process::events(client, out, wish).await,
        Command::Stats => out.show(client, &output::View::page("/v1/stats")).await,
        Command::Info => out.show(client, &output::View::page("/v1/info")).await,
        Command::Config { command } => process::config(client, out, command.unwrap_or(ConfigCommand::Show)).await,
        Command::Log { level, time } => process::log(client, out, level, time).await,
        Command::Drain { cancel } => process::drain(client, out, cancel).await,
        Command::Top { every, once } => top::run(client, every, once).await,
    }
}

/// The command, or else the list that `filter` filters.
fn or_list<C, F: Default + PartialEq>(command: Option<C>, filter: F, list: impl FnOnce(F) -> C) -> Result<C, Misuse> {
    match command {
        None => Ok(list(filter)),
        Some(command) if filter == F::default() => Ok(command),
        Some(_) => Err(Misuse("write filters behind the command that they are for, as in `list --pool NAME`".into())),
    }
}
