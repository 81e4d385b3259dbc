//! The workers, as a supervisor runs them: one task owns one worker process, and starts the next when it is gone.
//!
//! A killed worker stays registered until its replacement is up: the proxy has to find out by itself that it is gone.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use hyper::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::board::Board;
use super::children::{Scratch, Worker, WorkerStart};
use super::page::WorkerPhase;
use crate::ctl::Client;

/// Deeds that wait for one worker; more are refused.
const DEEDS_MAX: usize = 4;
/// From the start of a worker to its first pipe.
const UP_WAIT: Duration = Duration::from_secs(20);
/// How long a worker may finish its queue before it is killed.
const DRAIN_WAIT: Duration = Duration::from_secs(10);
/// How often the pool is asked whether a worker is in it, or free of pipes.
const ASK_EVERY: Duration = Duration::from_millis(25);

/// What can be done to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// SIGKILL.
    Kill,
    /// SIGTERM: the worker finishes its command and closes with 1012.
    Terminate,
    /// Over the admin API: the proxy moves every pipe, and then SIGTERM.
    Drain,
}

/// The way to the workers.
#[derive(Clone)]
pub(super) struct Workers {
    deeds: Vec<mpsc::Sender<Deed>>,
}

/// What every worker's task has.
#[derive(Clone)]
struct Crew {
    board: Arc<Board>,
    admin: Arc<Client>,
    admin_address: String,
    scratch: Arc<Scratch>,
    journals: mpsc::Sender<PathBuf>,
}

impl Workers {
    /// Starts all workers; the tasks end when the [`Workers`] are dropped, or with an error when one does not start.
    pub(super) fn start(
        board: &Arc<Board>,
        admin: &Arc<Client>,
        admin_address: &str,
        scratch: &Arc<Scratch>,
        journals: &mpsc::Sender<PathBuf>,
    ) -> (Self, JoinSet<anyhow::Result<()>>) {
        let crew = Crew {
            board: board.clone(),
            admin: admin.clone(),
            admin_address: admin_address.to_owned(),
            scratch: scratch.clone(),
            journals: journals.clone(),
        };
        let mut tasks = JoinSet::new();
        let count = board.books().workers.len();
        let deeds = (0..count).map(|index| {
            let (sender, receiver) = mpsc::channel(DEEDS_MAX);
            tasks.spawn(crew.clone().keep(index, receiver));
            sender
        });
        (Self { deeds: deeds.collect() }, tasks)
    }

    /// Asks for a deed; whether it will be done. Only a worker that is up can be killed or drained.
    pub(super) fn order(&self, board: &Board, index: usize, deed: Deed) -> bool {
        let up = board.books().workers.get(index).is_some_and(|worker| worker.state == WorkerPhase::Up);
        up && self.deeds.get(index).is_some_and(|deeds| deeds.try_send(deed).is_ok())
    }

    /// Kills every worker that is up at the same moment; how many there are.
    pub(super) fn kill_all(&self, board: &Board) -> usize {
        (0..self.deeds.len()).filter(|&index| self.order(board, index, Deed::Kill)).count()
    }

    /// Does it to the worker with the most pipes, unless that would leave none of several.
    pub(super) fn order_next(&self, board: &Board, deed: Deed) {
        let victim = victim(&board.books().workers.iter().map(|w| (w.state, w.pipes)).collect::<Vec<_>>());
        if let Some(index) = victim {
            self.order(board, index, deed);
        }
    }

    /// Whether every worker is up.
    pub(super) fn all_up(board: &Board) -> bool {
        board.books().workers.iter().all(|worker| worker.state == WorkerPhase::Up)
    }
}

/// The busiest of the workers that are up; `None` when it is the last one of several.
fn victim(workers: &[(WorkerPhase, u64)]) -> Option<usize> {
    let up: Vec<usize> = (0..workers.len()).filter(|index| workers[*index].0 == WorkerPhase::Up).collect();
    let spare = up.len() > 1 || workers.len() == 1;
    up.into_iter().max_by_key(|index| workers[*index].1).filter(|_| spare)
}

impl Crew {
    async fn keep(self, index: usize, mut deeds: mpsc::Receiver<Deed>) -> anyhow::Result<()> {
        let mut gone: Option<String> = None;
        for start in 1_u64.. {
            let name = format!("worker-{}.{start}", index + 1);
            let mut worker = self.bring_up(index, &name, start).await?;
            if let Some(old) = gone.replace(name.clone()) {
                self.forget(&old).await;
                self.board.say(format!("{name} takes the place of {old}"));
            }
            // what was asked for while there was no worker to do it to
            while deeds.try_recv().is_ok() {}
            tokio::select! {
                deed = deeds.recv() => match deed {
                    Some(deed) => self.act(index, &name, &mut worker, deed).await,
                    None => return Ok(()),
                },
                () = worker.ended() => self.board.say(format!("{name} ended by itself")),
            }
            self.show(index, WorkerPhase::Down);
        }
        Ok(())
    }

    async fn bring_up(&self, index: usize, name: &str, start: u64) -> anyhow::Result<Worker> {
        let journal = self.scratch.file(&format!("{name}.jsonl"));
        // The reader of journals goes last, so it hears this.
        let _ = self.journals.send(journal.clone()).await;
        let hue = hue(index);
        let start_with = WorkerStart { name, admin: &self.admin_address, journal: &journal, hue };
        let mut worker = Worker::start(&start_with)?;
        {
            let mut books = self.board.books();
            let row = &mut books.workers[index];
            (row.name, row.state, row.starts) = (name.to_owned(), WorkerPhase::Starting, start);
            (row.pid, row.pipes) = (worker.pid(), 0);
        }
        tokio::select! {
            up = timeout(UP_WAIT, self.wait_for(name, |backend| backend["eligible"] == true)) => {
                let Ok(backend) = up else { bail!("{name} did not register") };
                self.board.books().addresses[index] = address_of(&backend);
            }
            () = worker.ended() => bail!("{name} ended before it had registered"),
        }
        self.show(index, WorkerPhase::Up);
        Ok(worker)
    }

    async fn act(&self, index: usize, name: &str, worker: &mut Worker, deed: Deed) {
        let (pid, pipes) = {
            let books = self.board.books();
            (books.workers[index].pid.unwrap_or(0), books.workers[index].pipes)
        };
        match deed {
            Deed::Kill => {
                worker.kill();
                self.board.books().kills += 1;
                self.board.say(format!("{name} (pid {pid}) killed with {pipes} pipes on it"));
                worker.ended().await;
            }
            Deed::Terminate => {
                self.show(index, WorkerPhase::Draining);
                self.board.books().drains += 1;
                self.board.say(format!("{name} (pid {pid}) told to stop with {pipes} pipes on it"));
                self.stop(name, worker).await;
            }
            Deed::Drain => {
                self.show(index, WorkerPhase::Draining);
                self.board.books().drains += 1;
                self.board.say(format!("{name} (pid {pid}) drained of {pipes} pipes"));
                self.drain(name).await;
                self.stop(name, worker).await;
            }
        }
    }

    async fn drain(&self, name: &str) {
        let wish = json!({ "state": "drain", "pipes": "reattach" });
        let began = Instant::now();
        if let Err(error) = self.admin.call(Method::PUT, &format!("/v1/backends/{name}/state"), Some(&wish)).await {
            return self.board.say(format!("{name} could not be drained: {error}"));
        }
        match timeout(DRAIN_WAIT, self.wait_for(name, |backend| backend["pipes"] == 0)).await {
            Ok(_) => self.board.say(format!("{name} is free of pipes after {} ms", began.elapsed().as_millis())),
            Err(_) => self.board.say(format!("{name} still has pipes after {} s", DRAIN_WAIT.as_secs())),
        }
    }

    async fn stop(&self, name: &str, worker: &mut Worker) {
        worker.terminate();
        if timeout(DRAIN_WAIT, worker.ended()).await.is_err() {
            self.board.say(format!("{name} did not stop in {} s and is killed", DRAIN_WAIT.as_secs()));
            worker.kill();
            worker.ended().await;
        }
    }

    /// What a supervisor does when it has replaced a worker; one that stopped in order has done it itself.
    async fn forget(&self, name: &str) {
        // The lease of a backend that can't be removed now runs out soon.
        let _ = self.admin.call(Method::DELETE, &format!("/v1/backends/{name}"), None).await;
    }

    /// Asks for a backend until it is as wanted; the caller bounds the time.
    async fn wait_for(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let path = format!("/v1/backends/{name}");
        loop {
            match self.admin.call(Method::GET, &path, None).await {
                Ok(backend) if wanted(&backend) => return backend,
                Ok(_) | Err(_) => sleep(ASK_EVERY).await,
            }
        }
    }

    fn show(&self, index: usize, state: WorkerPhase) {
        let mut books = self.board.books();
        let row = &mut books.workers[index];
        row.state = state;
        if state == WorkerPhase::Down {
            (row.pid, row.pipes) = (None, 0);
            books.addresses[index] = None;
        }
    }
}

/// The colour of a worker's place, in degrees: neighbours are the golden angle apart, so that no few of them are alike.
pub(super) fn hue(index: usize) -> u32 {
    const FIRST: u64 = 210;
    const GOLDEN_TENTHS: u64 = 1375;
    ((FIRST + index as u64 * GOLDEN_TENTHS / 10) % 360) as u32
}

/// Where a registered worker listens.
fn address_of(backend: &Value) -> Option<SocketAddr> {
    backend["url"].as_str()?.strip_prefix("ws://")?.trim_end_matches('/').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use WorkerPhase::{Down, Draining, Starting, Up};

    #[test]
    fn the_first_workers_have_colours_far_apart() {
        let hues: Vec<u32> = (0..5).map(hue).collect();
        for (at, one) in hues.iter().enumerate() {
            for other in &hues[at + 1..] {
                let apart = one.abs_diff(*other).min(360 - one.abs_diff(*other));
                assert!(apart >= 40, "{hues:?}");
            }
        }
    }

    #[test]
    fn a_registered_url_is_an_address() {
        for url in ["ws://127.0.0.1:81", "ws://127.0.0.1:81/"] {
            assert_eq!(address_of(&json!({ "url": url })), Some(([127, 0, 0, 1], 81).into()));
        }
        assert_eq!(address_of(&json!({ "url": "attach:w" })), None);
    }

    #[test]
    fn the_busiest_worker_that_is_up_is_next() {
        assert_eq!(victim(&[(Up, 3), (Up, 9), (Starting, 0)]), Some(1));
        assert_eq!(victim(&[(Up, 3), (Draining, 9), (Up, 1)]), Some(0));
    }

    #[test]
    fn the_last_of_several_is_spared() {
        assert_eq!(victim(&[(Up, 3), (Down, 0), (Starting, 0)]), None);
        assert_eq!(victim(&[(Down, 0), (Down, 0)]), None);
        assert_eq!(victim(&[(Up, 3)]), Some(0), "but there is no other to leave");
    }
}
