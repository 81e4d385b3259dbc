//! All connections of an agent: opened as they are missing, and let go of at the end in the right order.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use holdline_core::dialin::keeping::{Bounds, Keeping};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use super::Options;
use super::line::{self, Ends, Event};
use super::proxy::{Drained, Failure, Proxy};
use super::worker::{Look, Worker};
use crate::clock::Clock;
use crate::ctl::Misuse;
use crate::stop_signals::StopSignals;

/// News of connections that are on their way here.
const EVENTS_MAX: usize = 256;

/// From one look at a worker that listens to the next.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// The same for one that does not.
const AWAITED_LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// From one look at what is left on a draining worker to the next.
const DRAIN_LOOK: Duration = Duration::from_millis(200);

/// How long what passes through still has once the pipes have moved.
const GOODBYE_WAIT: Duration = Duration::from_secs(5);

pub(super) struct Crew {
    ends: Arc<Ends>,
    keeping: Keeping,
    clock: Clock,
    lines: JoinSet<()>,
    /// What looks after the worker.
    looks: JoinSet<()>,
    /// Whether what is parked stays so.
    stays: watch::Sender<bool>,
    events: (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    has_parked: bool,
    drain_timeout: Duration,
}

/// Why no more is parked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stop {
    /// It was told to.
    Told,
    /// A newer agent has the id.
    Superseded,
}

impl Crew {
    /// What `options` ask for.
    ///
    /// # Errors
    /// When that cannot be.
    pub(super) fn new(options: &Options) -> Result<Self, Misuse> {
        if options.parked > options.parked_max {
            return Err(Misuse("--parked is more than --parked-max; make it less".to_owned()));
        }
        let instance = format!("{:016x}", rand::random::<u64>());
        let (proxy, worker) = (Proxy::new(options, &instance)?, Worker::parse(&options.forward)?);
        let bounds = Bounds { parked: options.parked, parked_max: options.parked_max };
        Ok(Self {
            ends: Arc::new(Ends { proxy, worker, patience: options.connect_timeout, look: Notify::new() }),
            keeping: Keeping::new(bounds, rand::random()),
            clock: Clock::start(),
            lines: JoinSet::new(),
            looks: JoinSet::new(),
            stays: watch::Sender::new(true),
            events: mpsc::channel(EVENTS_MAX),
            has_parked: false,
            drain_timeout: options.drain_timeout,
        })
    }

    /// Parks connections until the end.
    ///
    /// # Errors
    /// When Holdline refuses the first one for good.
    pub(super) async fn work(mut self, mut told: StopSignals) -> anyhow::Result<()> {
        self.looks.spawn(watch_worker(self.ends.clone(), self.events.0.clone()));
        let stop = loop {
            for _ in 0..self.keeping.open(self.clock.now()) {
                let (ends, stays, events) = (self.ends.clone(), self.stays.subscribe(), self.events.0.clone());
                self.lines.spawn(line::run(ends, stays, events));
            }
            let retry = self.keeping.deadline().map(|at| self.clock.instant(at));
            let retry = async {
                match retry {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(event) = self.events.1.recv() => if let Some(stop) = self.hear(event)? {
                    break stop;
                },
                Some(_) = self.lines.join_next() => {}
                () = retry => {}
                () = told.next() => break Stop::Told,
            }
        };
        self.finish(stop, &mut told).await;
        Ok(())
    }

    fn hear(&mut self, event: Event) -> anyhow::Result<Option<Stop>> {
        let now = self.clock.now();
        match event {
            Event::Parked(want) => {
                if self.keeping.parked() == 0 {
                    tracing::info!("dialled in at {}", self.ends.proxy.authority());
                }
                self.has_parked = true;
                self.keeping.is_parked();
                self.want(want);
            }
            Event::Taken(want) => {
                self.keeping.is_taken();
                self.want(want);
            }
            Event::Lost => {
                self.keeping.is_lost(now);
                if self.keeping.parked() == 0 {
                    tracing::warn!("the last parked connection is lost");
                }
            }
            Event::Closed => self.keeping.is_closed(),
            Event::Refused(failure) => {
                self.keeping.is_refused(now);
                return self.refused(&failure);
            }
            Event::Worker(look) => self.saw(look),
        }
        Ok(None)
    }

    fn want(&mut self, want: Option<u32>) {
        if let Some(want) = want {
            self.keeping.wants(want);
        }
    }

    fn refused(&self, failure: &Failure) -> anyhow::Result<Option<Stop>> {
        match failure {
            Failure::Superseded(_) => {
                tracing::warn!("{failure}");
                return Ok(Some(Stop::Superseded));
            }
            // What is wrong from the beginning will not become right by itself.
            Failure::Refused(..) if !self.has_parked => bail!("{failure}"),
            Failure::Busy(_) => tracing::debug!("{failure}"),
            Failure::Refused(..) | Failure::Unreached(..) => tracing::warn!("{failure}"),
        }
        Ok(None)
    }

    fn saw(&mut self, look: Look) {
        let listens = match look {
            Look::Listens => true,
            Look::Away => false,
            Look::Silent => return,
        };
        if self.keeping.worker_listens() && !listens {
            tracing::warn!("the worker does not listen, so nothing is parked");
        } else if !self.keeping.worker_listens() && listens {
            tracing::info!("the worker listens");
        }
        self.keeping.set_worker(listens);
        self.stays.send_replace(listens);
    }

    /// Lets the pipes move, and closes what is parked after that.
    async fn finish(mut self, stop: Stop, told: &mut StopSignals) {
        self.keeping.drain();
        self.looks.abort_all();
        let (ends, mut end) = (self.ends.clone(), pin!(sleep(self.drain_timeout)));
        let mut left = pin!(async move {
            match stop {
                Stop::Told => drain(&ends.proxy).await,
                // Holdline has them move to the newer one, and their connections end here one by one.
                Stop::Superseded => std::future::pending().await,
            }
        });
        while !self.lines.is_empty() {
            tokio::select! {
                () = &mut left => break,
                () = &mut end => {
                    tracing::warn!("not drained within {:?}", self.drain_timeout);
                    break;
                }
                () = told.next() => {
                    tracing::warn!("told again: not waiting for the rest");
                    break;
                }
                Some(event) = self.events.1.recv() => self.note(event),
                Some(_) = self.lines.join_next() => {}
            }
        }
        self.stays.send_replace(false);
        let goodbye = async {
            while !self.lines.is_empty() {
                tokio::select! {
                    Some(_) = self.lines.join_next() => {}
                    Some(_) = self.events.1.recv() => {}
                }
            }
        };
        // What still passes through then is cut off.
        let _ = timeout(GOODBYE_WAIT, goodbye).await;
        tracing::info!("ended");
    }

    /// Hears what nothing follows from any more.
    fn note(&self, event: Event) {
        if let Event::Refused(failure) = event {
            tracing::debug!("{failure}");
        }
    }
}

/// Looks after the worker, and tells what it finds.
async fn watch_worker(ends: Arc<Ends>, events: mpsc::Sender<Event>) {
    loop {
        let look = ends.worker.look(ends.patience).await;
        if events.send(Event::Worker(look)).await.is_err() {
            return;
        }
        let pause = if look == Look::Away { AWAITED_LOOK_INTERVAL } else { LOOK_INTERVAL };
        // A connection that the worker refuses asks for a look before.
        let _ = timeout(pause, ends.look.notified()).await;
    }
}

/// Says that the worker takes no more pipes, until the last one has left.
async fn drain(proxy: &Proxy) {
    tracing::info!("draining");
    loop {
        match proxy.drain().await {
            Ok(Drained::Done) => return tracing::info!("drained"),
            Ok(Drained::Leaving) => {}
            // A newer agent has them.
            Err(Failure::Superseded(_)) => return std::future::pending().await,
            Err(failure) => tracing::warn!("Holdline does not say what is left: {failure}"),
        }
        sleep(DRAIN_LOOK).await;
    }
}
