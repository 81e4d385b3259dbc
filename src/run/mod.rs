//! `holdline run`: a worker that something else starts (systemd, Kubernetes, a person), registered with Holdline for as
//! long as it lives.
//!
//! It starts the command with a port, waits until that port is listened at, registers it with a lease and renews that; at
//! SIGTERM it drains the worker first and stops it then. Invariants: what is registered is listened at; the command ends before we do,
//! and if we are killed, the guard ends it.

mod command;
mod registration;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use tokio::net::TcpStream;
use tokio::time::{Instant, interval, timeout};

use crate::config::parse_duration;
use crate::ctl::Where;
use crate::stop_signals::StopSignals;
use command::{Command, Ended};
use registration::Registration;

/// From one look whether the worker listens to the next.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// `holdline run`.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    at: Where,
    /// The pool to register in
    #[arg(long, default_value = "default")]
    pool: String,
    /// The backend's id; run-PORT if not given
    #[arg(long)]
    id: Option<String>,
    /// The port that the worker listens at, for {port} and PORT; a free one if not given
    #[arg(long)]
    port: Option<u16>,
    /// The URL that is registered, where Holdline reaches it otherwise than at ws://127.0.0.1:PORT; {port} stands for the port
    #[arg(long, value_name = "URL")]
    advertise: Option<String>,
    /// A route key that it owns, with what it calls that key itself; without any it takes every key
    #[arg(long, value_name = "KEY[=ALIAS]")]
    serves: Vec<String>,
    /// Labels to register with
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// How long Holdline may go without hearing of it
    #[arg(long, default_value = "15s")]
    lease: String,
    /// How long it has to listen
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    start_timeout: Duration,
    /// How long its pipes have to move after SIGTERM
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    drain_timeout: Duration,
    /// From its own SIGTERM to SIGKILL
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    stop_timeout: Duration,
    /// The worker's program and arguments, in which {port} stands for the port
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.into(), value.into()))
}

/// Runs a worker to its end; the exit code is its own.
///
/// # Errors
/// When there can be no worker.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_target(false);
    log.try_init().map_err(|error| anyhow::anyhow!(error)).context("cannot log")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(keep(options))
}

async fn keep(options: &Options) -> anyhow::Result<ExitCode> {
    let mut told = StopSignals::hear()?;
    let port = options.port.map_or_else(free_port, not_in_use)?;
    let registration = Registration::new(options, port)?;
    let mut command = Command::start(&options.command, port).await?;
    tokio::select! {
        ended = command.ended() => return Ok(gave_up(&ended?)),
        () = told.next() => return stop(options, command, told).await,
        listens = listens(port, options.start_timeout) => listens?,
    }
    tokio::select! {
        ended = command.ended() => {
            let ended = ended?;
            registration.withdraw().await;
            return Ok(gave_up(&ended));
        }
        () = registration.keep() => {}
        () = told.next() => {}
    }
    drain(options, &registration, &mut command, &mut told).await?;
    registration.withdraw().await;
    stop(options, command, told).await
}

/// Has its pipes move, unless the worker ends or an operator is in a hurry.
async fn drain(
    options: &Options,
    registration: &Registration,
    command: &mut Command,
    told: &mut StopSignals,
) -> anyhow::Result<()> {
    tracing::info!("draining");
    tokio::select! {
        drained = timeout(options.drain_timeout, registration.drain()) => match drained {
            Ok(()) => tracing::info!("drained"),
            Err(_) => tracing::warn!("not drained within {:?}", options.drain_timeout),
        },
        ended = command.ended() => {
            ended?;
        }
        () = told.next() => tracing::warn!("told again: not waiting for the rest"),
    }
    Ok(())
}

async fn stop(options: &Options, mut command: Command, mut told: StopSignals) -> anyhow::Result<ExitCode> {
    command.terminate();
    tokio::select! {
        ended = command.ended() => return Ok(ended?.as_asked()),
        () = tokio::time::sleep(options.stop_timeout) => {
            tracing::warn!("it did not end within {:?}, so it is killed", options.stop_timeout);
        }
        () = told.next() => {}
    }
    command.kill();
    Ok(command.ended().await?.as_asked())
}

fn gave_up(ended: &Ended) -> ExitCode {
    tracing::warn!("the worker has ended by itself: {ended}");
    ended.code()
}

fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free")?;
    Ok(listener.local_addr()?.port())
}

/// What listens at a port already would be registered in the place of the worker.
fn not_in_use(port: u16) -> anyhow::Result<u16> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            bail!("port {port} is in use by another process; name another with --port, or leave it out")
        }
        // Any other trouble is the worker's own to report.
        Ok(_) | Err(_) => Ok(port),
    }
}

/// Waits until the worker accepts connections.
async fn listens(port: u16, patience: Duration) -> anyhow::Result<()> {
    let (mut looks, end) = (interval(LOOK_INTERVAL), Instant::now() + patience);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    loop {
        looks.tick().await;
        if TcpStream::connect(address).await.is_ok() {
            return Ok(());
        }
        if Instant::now() >= end {
            bail!(
                "the worker does not listen at 127.0.0.1:{port} within {patience:?}; is {{port}} or PORT what it goes by?"
            );
        }
    }
}
