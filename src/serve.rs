//! `holdline serve`: binds everything, starts the threads, and takes them down again.
//!
//! Data threads each run a runtime of their own and share nothing but numbers; the calling thread runs the control
//! runtime with the admin API, probes and signals, so that it answers however busy the data threads are.

mod places;

use std::fs::File;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use holdline_core::memory::Pressure;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime;
use tokio::sync::{oneshot, watch};

use crate::activation::Inherited;
use crate::admin::listen::AdminListener;
use crate::admin::state_file::{StateFile, StateFileError};
use crate::admin::{self, Admin, Locality};
use crate::clock::Clock;
use crate::config::{Config, Invalid, Loaded};
use crate::dialin::DialInListeners;
use crate::door::Door;
use crate::door::listen::{self, Bound, PublicListener};
use crate::handover::giving::{Giver, Program};
use crate::handover::taking::{Predecessor, TakeError};
use crate::handover::{Estate, Listener};
use crate::http::{HttpContext, IDLE_TIMEOUT};
use crate::log::LogHandle;
use crate::net::OwnListener;
use crate::notify::{Notifier, Runtimes};
use crate::pipe::{shed_read_buffers, shed_spare_read_buffers};
use crate::pipes::{Command, Pipes};
use crate::process::{Judged, Outgoing, Process};
use crate::reload::Reload;
use crate::routes::RouteError;
use crate::rules::Rules;
use crate::share::Streams;
use crate::tls::Sets;
use crate::tokens::Tokens;
use crate::workers::Workers;

pub use places::Places;

/// How long data threads have to finish what they do once no pipe is left.
const THREADS_GRACE: Duration = Duration::from_secs(1);

/// What close frames have to leave in once an operator is in a hurry.
const HURRY: Duration = Duration::from_millis(500);

/// Why the process could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener could not be bound, or a thread not be started.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A route cannot be.
    #[error("routes: {0}")]
    Route(#[from] RouteError),
    /// The tokens file cannot be used.
    #[error(transparent)]
    Tokens(#[from] crate::tokens::TokensError),
    /// A file that the configuration names cannot be used.
    #[error(transparent)]
    File(#[from] Invalid),
    /// What an earlier process knew can be neither read nor written.
    #[error(transparent)]
    StateFile(#[from] StateFileError),
    /// Another process cannot be taken over from.
    #[error(transparent)]
    TakeOver(#[from] TakeError),
    /// A socket that was handed over would open the admin API to the network.
    #[error("admin.listen {0}: not a loopback address, and neither admin.tokens_file nor admin.tls.client_ca is set")]
    Exposed(String),
}

impl StartError {
    /// Whether the configuration has to change, or a file that it names.
    #[must_use]
    pub const fn is_misuse(&self) -> bool {
        match self {
            Self::Route(_) | Self::Tokens(_) | Self::File(_) => true,
            Self::Io(_) | Self::StateFile(_) | Self::TakeOver(_) | Self::Exposed(_) => false,
        }
    }
}

/// What a process begins with.
#[derive(Debug)]
pub struct Beginning {
    /// Listeners of a service manager; they take the place of the configured ones.
    pub inherited: Inherited,
    /// The process that this one takes over from, if it does.
    pub predecessor: Option<Predecessor>,
    /// How a process is started that takes over from this one.
    pub program: Program,
}

/// A running proxy.
#[derive(Debug)]
pub struct Running {
    process: Arc<Process>,
    reload: Arc<Reload>,
    bound: Vec<PublicListener>,
    threads: Vec<DataThread>,
    outgoing: Outgoing,
    notifier: Notifier,
    stop_control: watch::Sender<bool>,
    places: Places,
    admin: tokio::task::JoinHandle<()>,
    /// Resolves once another process has taken over.
    given: oneshot::Receiver<()>,
}

#[derive(Debug)]
struct DataThread {
    runtime: runtime::Handle,
    handle: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

/// Starts a proxy; its control part runs on the current runtime. One that takes over has the old one's pipes when it
/// accepts its first connection.
///
/// # Errors
/// [`StartError`]; nothing is left running then but what ends with the runtime.
pub async fn start(loaded: Loaded, log: Arc<LogHandle>, beginning: Beginning) -> Result<Running, StartError> {
    let Beginning { mut inherited, predecessor, program } = beginning;
    let mut judged = judge(&loaded)?;
    let config_hash = loaded.config.digest();
    let mut heritage = match predecessor {
        Some(predecessor) => Some(predecessor.meet(config_hash.clone()).await?),
        None => None,
    };
    let mut clock = Clock::start();
    if let Some(heritage) = &mut heritage {
        (inherited, clock) = (heritage.inherited(), heritage.clock()?);
        judged.resume_keys = judged.resume_keys.or_else(|| heritage.resume_keys());
    }
    let sources = loaded.sources;
    let (process, outgoing) = Process::new(judged, log, descriptors(), clock);
    let process = Arc::new(process);
    warn_of_few_descriptors(&process);
    process.metrics.watch_runtime("control".to_owned(), runtime::Handle::current());
    let (attach, state_lock) = (std::mem::take(&mut inherited.attach), inherited.state_lock.take());
    let (bound, admin_listener) = listeners(&process.config.load(), inherited).await?;
    let dial_in = DialInListeners::bind(&process, attach)?;
    process.backends.keep_off(own_listeners(&bound, &admin_listener).chain(dial_in.own()).collect());
    let state_file = open_state_file(&process, state_lock)?;
    if let Some(heritage) = &mut heritage {
        heritage.take_in(&process);
    }
    let estate = estate(&bound, &admin_listener, &dial_in, state_file.as_deref())?;
    let admin_address = admin_listener.to_string();
    let attach_addresses: Vec<_> = dial_in.addresses().collect();

    let threads = start_threads(&process, &bound)?;
    let (stop_control, stopped) = watch::channel(false);
    start_chores(&process, state_file.clone(), &stopped);
    if let Some(heritage) = &mut heritage {
        let handles: Vec<_> = threads.iter().map(|thread| thread.runtime.clone()).collect();
        heritage.take_pipes(&process, &handles).await?;
    }
    let reload = Arc::new(Reload::new(process.clone(), sources));
    let admin = Admin::new(process.clone(), reload.clone(), state_file, admin_listener.locality());
    let admin = tokio::spawn(admin::listen::serve(admin_listener, admin, stopped.clone()));
    dial_in.start(&process, &stopped);
    let (kept, until_stopped) = (reload.clone(), until(stopped.clone()));
    tokio::spawn(async move { kept.keep_certificates(until_stopped).await });

    // A reader of where we listen may connect at once.
    process.phase.started();
    let socket = upgrade_socket(&process, heritage.is_some())?;
    let (tell, given) = oneshot::channel();
    let giver = Giver { process: process.clone(), estate, program, config_hash };
    tokio::spawn(giver.run(process.upgrade.asks(), socket, tell));
    say_where(&bound, &attach_addresses, &admin_address);
    if let Some(heritage) = heritage {
        heritage.serves(&process).await;
    }
    let notifier = Notifier::start(runtimes(&threads), status(process.clone()))?;
    let places = Places::of(&bound, admin_address, process.config.load().admin.tls.cert.is_some());
    Ok(Running { process, reload, bound, threads, outgoing, notifier, stop_control, places, admin, given })
}

/// What another process gets that takes over from this one.
fn estate(
    public: &[PublicListener],
    admin: &AdminListener,
    dial_in: &DialInListeners,
    state_file: Option<&StateFile>,
) -> io::Result<Estate> {
    let mut estate = Estate::default();
    public.iter().try_for_each(|listener| estate.add_public(listener))?;
    estate.add_admin(&admin.share()?)?;
    dial_in.bound().iter().try_for_each(|listener| estate.add_attach(listener))?;
    state_file.map_or(Ok(()), |file| estate.add_state_lock(file.lock()))?;
    Ok(estate)
}

/// Where processes come that take over by themselves; an `heir` has the place of the process before it.
fn upgrade_socket(process: &Process, heir: bool) -> Result<Option<Listener>, io::Error> {
    let config = process.config.load();
    let Some(path) = &config.upgrade.socket else { return Ok(None) };
    let listener = if heir { Listener::replace(path) } else { Listener::bind(path) };
    let named = |error: io::Error| io::Error::new(error.kind(), format!("upgrade.socket {}: {error}", path.display()));
    match listener.map_err(named) {
        // It has its pipes already, which no socket is worth.
        Err(error) if heir => {
            tracing::error!(%error, "no process can take over by itself");
            Ok(None)
        }
        listener => listener.map(Some),
    }
}

fn judge(loaded: &Loaded) -> Result<Judged, StartError> {
    let config = loaded.config.clone();
    let rules = Rules::from_config(&config)?;
    let tokens = config.admin.tokens_file.as_deref().map(Tokens::load).transpose()?;
    let (resume_keys, exposed) = loaded.resume_keys()?;
    let hooks_secret = loaded.hooks_secret()?;
    loaded.worker_commands()?;
    let (tls, untimely) = loaded.pools_tls()?;
    let (shown, concerns) = Sets::load(loaded)?;
    for notice in untimely.into_iter().chain(exposed).chain(concerns) {
        tracing::warn!("{notice}");
    }
    Ok(Judged { config, rules, tokens, resume_keys, hooks_secret, tls, shown })
}

fn own_listeners<'a>(
    bound: &'a [PublicListener],
    admin: &AdminListener,
) -> impl Iterator<Item = OwnListener> + use<'a> {
    bound.iter().filter_map(|listener| listener.bound.own()).chain(admin.own())
}

/// Registers what an earlier process knew.
fn open_state_file(process: &Process, mut lock: Option<File>) -> Result<Option<Arc<StateFile>>, StateFileError> {
    let config = process.config.load();
    let path = config.admin.state_file.as_deref();
    Ok(path.map(|path| StateFile::open(path, &process.backends, lock.take())).transpose()?.map(Arc::new))
}

/// Starts what looks after memory, backends and the state file, until `stopped`.
fn start_chores(process: &Arc<Process>, state_file: Option<Arc<StateFile>>, stopped: &watch::Receiver<bool>) {
    if let Some(file) = state_file {
        let (backends, mut gate) = (process.backends.clone(), process.upgrade.watch());
        tokio::spawn(async move {
            // The process that has taken over has the file, too.
            tokio::select! {
                () = file.keep(&backends) => {}
                () = gate.gone() => {}
            }
        });
    }
    let (kept, until_stopped) = (process.clone(), until(stopped.clone()));
    tokio::spawn(async move { kept.memory.run(until_stopped).await });
    let (workers, around) = (process.workers.clone(), process.around_workers());
    tokio::spawn(async move { workers.run(around).await });
    let (backends, until_stopped) = (process.backends.clone(), until(stopped.clone()));
    tokio::spawn(async move { backends.run(until_stopped).await });
}

fn say_where(public: &[PublicListener], attach: &[(String, bool)], admin: &str) {
    for PublicListener { bound, tls } in public {
        tracing::info!(listener = "public", address = %bound, tls, "listening");
    }
    for (address, tls) in attach {
        tracing::info!(listener = "attach", address, tls, "listening");
    }
    tracing::info!(listener = "admin", address = admin, "listening");
}

/// Binds what was not inherited. Sockets without TLS and with it are inherited each for themselves.
async fn listeners(config: &Config, inherited: Inherited) -> Result<(Vec<PublicListener>, AdminListener), StartError> {
    let mut bound = Vec::new();
    for (tls, key, handed_over, configured) in [
        (false, "server.listen", inherited.public, &config.server.listen),
        (true, "server.tls.listen", inherited.tls, &config.server.tls.listen),
    ] {
        let bind = |listen| Bound::bind(key, listen);
        let listeners = match handed_over {
            none if none.is_empty() => configured.iter().map(bind).collect::<Result<_, _>>()?,
            inherited => inherited,
        };
        bound.extend(listeners.into_iter().map(|bound| PublicListener { bound, tls }));
    }
    let Some(admin) = inherited.admin else {
        return Ok((bound, AdminListener::bind(&config.admin.listen).await?));
    };
    let admin = AdminListener::adopt(admin)?;
    match admin.locality() {
        // What is configured is checked where the configuration is.
        Locality::Network if config.admin.tokens_file.is_none() && config.admin.tls.client_ca.is_none() => {
            Err(StartError::Exposed(admin.to_string()))
        }
        Locality::Network | Locality::Loopback | Locality::Unix => Ok((bound, admin)),
    }
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // A sender that is gone means the same as one that says so.
    let _ = stopped.wait_for(|&stopped| stopped).await;
}

fn start_threads(process: &Arc<Process>, bound: &[PublicListener]) -> io::Result<Vec<DataThread>> {
    let count = match process.config.load().server.threads {
        0 => std::thread::available_parallelism()?.get(),
        count => count as usize,
    };
    (0..count)
        .map(|number| {
            let listeners = bound.iter().map(PublicListener::share).collect::<io::Result<Vec<_>>>()?;
            let http = HttpContext::new(process.backends.clone(), process.rules.load().http, process.waiting.clone());
            start_thread(number, listeners, Arc::new(Door { process: process.clone(), http }))
        })
        .collect()
}

fn warn_of_few_descriptors(process: &Process) {
    if let Some(possible) = process.slots.fewer_than_configured() {
        let configured = process.config.load().server.max_connections;
        tracing::warn!(
            configured,
            possible,
            "server.max_connections is more than the descriptor limit allows; raise it (LimitNOFILE, ulimit -Hn)"
        );
    }
}

/// The most descriptors that the process may have, after taking what the system offers: shells hand out 1024 by habit.
fn descriptors() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if setrlimit(Resource::Nofile, raised).is_ok() {
        limit = raised;
    }
    limit.current.and_then(|current| usize::try_from(current).ok()).unwrap_or(usize::MAX)
}

fn start_thread(number: usize, listeners: Vec<PublicListener>, door: Arc<Door>) -> io::Result<DataThread> {
    let runtime = runtime::Builder::new_current_thread().enable_all().on_thread_park(crate::log::flush).build()?;
    let watched = runtime.handle().clone();
    let name = format!("data-{number}");
    door.process.metrics.watch_runtime(name.clone(), watched.clone());
    let (stop, stopped) = oneshot::channel();
    let handle = std::thread::Builder::new().name(name).spawn(move || {
        crate::log::start_batching();
        runtime.block_on(async move {
            for listener in listeners {
                tokio::spawn(listen::accept(listener, door.clone()));
            }
            tokio::spawn(sweep(door));
            // A sender that is gone means the same as one that says so.
            let _ = stopped.await;
        });
        runtime.shutdown_timeout(THREADS_GRACE);
        crate::log::flush();
    })?;
    Ok(DataThread { runtime: watched, handle, stop })
}

fn runtimes(threads: &[DataThread]) -> Runtimes {
    let data = threads.iter().enumerate().map(|(number, thread)| (format!("data-{number}"), thread.runtime.clone()));
    data.chain([("control".to_owned(), runtime::Handle::current())]).collect()
}

/// One line for `systemctl status`.
fn status(process: Arc<Process>) -> impl Fn() -> String + Send {
    move || {
        let pools = process.backends.pools();
        let (total, eligible) = pools.iter().fold((0, 0), |sum, pool| (sum.0 + pool.backends, sum.1 + pool.eligible));
        let (phase, live, held) = (process.phase.get().as_str(), process.pipes.len(), process.pipes.held_bytes());
        format!("{phase}: {live} pipes holding {held} bytes, {eligible} of {total} backends eligible")
    }
}

/// Closes this thread's idle backend connections in time and gives back spare buffers, and all that it keeps when memory is
/// short.
async fn sweep(door: Arc<Door>) {
    let mut ticks = tokio::time::interval(IDLE_TIMEOUT);
    let mut pressure = door.process.memory.watch();
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                door.http.sweep();
                shed_spare_read_buffers();
            }
            // The sender lives as long as `door`.
            _ = pressure.changed() => {
                if *pressure.borrow_and_update() > Pressure::Low {
                    door.http.shed();
                    shed_read_buffers();
                }
            }
        }
    }
}

/// Why a process goes down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Down {
    /// It was told to.
    Stopped,
    /// Another one has taken over.
    Replaced,
}

impl Running {
    /// Where it is found.
    #[must_use]
    pub const fn places(&self) -> &Places {
        &self.places
    }

    /// Waits until another process has taken over.
    pub async fn given(&mut self) {
        if (&mut self.given).await.is_err() {
            // Nothing more is given.
            std::future::pending::<()>().await;
        }
    }

    /// Has an upgrade that is under way end, now that the process is told to stop; whether another process has taken over. One
    /// that has not touched any pipe is given up. Once `hurry` resolves, it is waited for no more.
    pub async fn settle(&self, hurry: impl Future<Output = ()>) -> bool {
        self.process.upgrade.abandon();
        tokio::select! {
            () = self.process.upgrade.idle() => {}
            () = hurry => {}
        }
        self.process.upgrade.watch().is_gone()
    }

    /// Takes the proxy down: nothing new, then every client 1001, spread over `server.close_spread`, while plain requests
    /// are answered; what has not ended by `server.shutdown_grace` is cut off. Then the workers that are run here end. Once
    /// `hurry` resolves, it is over within a second or two.
    pub async fn stop(self, hurry: impl Future<Output = ()>) {
        self.take_down(Down::Stopped, hurry).await;
    }

    /// Takes down a proxy that another process has taken over from: what could not go there is told 1012, spread over
    /// `server.close_spread`, and cut off by `upgrade.drain_max`.
    pub async fn leave(self, hurry: impl Future<Output = ()>) {
        self.take_down(Down::Replaced, hurry).await;
    }

    async fn take_down(self, down: Down, hurry: impl Future<Output = ()>) {
        let began = Instant::now();
        let config = self.process.config.load_full();
        self.process.phase.stop();
        let mut notifier = Some(self.notifier);
        // Where there is a new process, that is the one which the service manager hears.
        if let Some(notifier) = notifier.take_if(|_| down == Down::Replaced) {
            notifier.end();
        }
        if let Some(notifier) = &notifier {
            notifier.stopping();
            // Later clients are refused, instead of waiting in a backlog that is not accepted from any more.
            self.bound.iter().for_each(|listener| listener.bound.clean_up());
        }
        drop(self.bound);
        let pipes = self.process.pipes.clone();
        let exchanges = &self.process.exchanges;
        let (live, opened, requests) = (pipes.len(), pipes.opened(), exchanges.count());
        tracing::info!(pipes = live, requests, "stopping");
        let (grace, word): (_, fn() -> Command) = match down {
            Down::Stopped => (config.server.shutdown_grace, Command::going_away),
            Down::Replaced => (config.upgrade.drain_max.unwrap_or(config.server.shutdown_grace), Command::left_behind),
        };
        let orderly = async {
            close_all(&pipes, &self.process.streams, config.server.close_spread.min(grace), word).await;
            tokio::join!(pipes.emptied(), exchanges.emptied());
        };
        let mut hurry = pin!(hurry);
        let hurried = tokio::select! {
            () = orderly => false,
            () = tokio::time::sleep(grace) => false,
            () = &mut hurry => {
                close_all(&pipes, &self.process.streams, Duration::ZERO, word).await;
                // What has not ended by then is cut off below.
                let _ = tokio::time::timeout(HURRY, async { tokio::join!(pipes.emptied(), exchanges.emptied()) }).await;
                true
            }
        };
        let (failed, requests_cut) = (pipes.len(), exchanges.count());
        // Those that were on their way to be opened are told as well.
        let closed = (live as u64 + pipes.opened() - opened).saturating_sub(failed as u64);
        end_workers(&self.process.workers, hurried, hurry).await;
        if let Some(notifier) = notifier {
            notifier.end();
        }
        let _ = self.stop_control.send(true);
        if down == Down::Replaced {
            // The one that asked for the upgrade is told what came of it. A server that panicked tells nothing.
            let _ = self.admin.await;
        }
        for thread in self.threads {
            // A thread that is gone already needs no word.
            let _ = thread.stop.send(());
            if thread.handle.join().is_err() {
                tracing::error!("a data thread panicked");
            }
        }
        self.outgoing.finish().await;
        let seconds = began.elapsed().as_secs_f64();
        self.process.metrics.log_totals(pipes.opened());
        tracing::info!(closed, failed, requests_cut, seconds, "stopped");
    }

    /// Reads the configuration again; what comes of it is in the log and in the metrics.
    pub async fn reload(&self) {
        self.notifier.reloading();
        // An error was said where it came up.
        let _ = self.reload.reload(false).await;
        self.notifier.reloaded();
    }
}

/// Ends the workers that are run here: in order unless that is too slow, and it is once `hurry` resolves.
async fn end_workers(workers: &Workers, hurried: bool, hurry: impl Future<Output = ()>) {
    if !hurried {
        tokio::select! {
            () = workers.stop() => return,
            () = hurry => {}
        }
    }
    workers.kill().await;
}

/// Tells every client `word`, evenly spread over `spread`; then the streams that they shared, with each of which all its
/// viewers would have been told at once.
async fn close_all(pipes: &Pipes, streams: &Streams, spread: Duration, word: fn() -> Command) {
    let entries: Vec<_> = pipes.list().into_iter().filter(|pipe| !pipe.is_stream()).collect();
    let pause = spread.checked_div(u32::try_from(entries.len()).unwrap_or(u32::MAX)).unwrap_or_default();
    let mut next = tokio::time::Instant::now();
    for entry in entries {
        entry.order(word());
        next += pause;
        tokio::time::sleep_until(next).await;
    }
    streams.retire();
}
