//! What time does to a pipe: one table of timers, from which both the next deadline and what is due are read.
//!
//! A timer runs as long as its state lasts, so that nothing is armed or disarmed; one that fires early does nothing,
//! since the table is read again. In one [`Pipe::tick`] each timer fires once at most, in the order of [`Timer`].

use std::time::Duration;

use super::{EndedBy, Fact, Interruption, LinkLoss, Loss, Peer, Pipe};
use crate::close::CloseFrame;
use crate::frame::Side;
use crate::leg::barrier::{Barrier, Level};
use crate::leg::heartbeat::Beat;
use crate::leg::{BackendState, ClientState, Link};
use crate::settings::DownPolicy;
use crate::suspects::QUICK_DEATH;
use crate::time::{Time, earliest};

/// The payload of a heartbeat ping: no barrier's payload has its length.
pub(super) const HEARTBEAT_PAYLOAD: &[u8] = b"holdline";

const _: () = assert!(HEARTBEAT_PAYLOAD.len() == 8, "the barrier's nonce tells the two apart, not the length");

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Timer {
    /// The client has been away for too long.
    ClientGrace,
    /// The client has not answered our close frame.
    ClientClose,
    /// The client may be read again.
    ClientRest,
    /// The client does not finish a message.
    ClientMessage,
    /// The client takes nothing of what waits for it.
    ClientStall,
    /// A ping to the client is worth its bytes: the next write holds it.
    ClientPing,
    /// The client has not answered a ping that it has read.
    ClientPatience,
    /// The client is to be pinged, or has been silent for too long.
    ClientBeat,
    /// An aware client has not said hello, or is to be told what has come of its messages.
    ClientAware,
    /// No worker was attached in time.
    Grace,
    /// Another dial is worth it.
    Retry,
    /// The worker has not answered our close frame, or not taken what comes before it.
    WorkerClose,
    /// A step of a move takes too long.
    Move,
    /// The worker that is being left has had its time with what it was sent.
    Part,
    /// The replay may go out.
    Delay,
    /// The worker has not answered its prologue.
    Prologue,
    /// The worker has said nothing.
    Silence,
    /// The worker has outlived a quick death.
    Settle,
    /// The worker may be read again.
    WorkerRest,
    /// A ping to the worker is worth its bytes: the next write holds it.
    WorkerPing,
    /// The worker has not answered a ping though it sends other bytes.
    WorkerPatience,
    /// The worker does not finish a message.
    WorkerMessage,
    /// The worker is to be pinged, or has been silent for too long.
    WorkerBeat,
    /// A worker that numbers its messages has not answered, or is to be told what has come of them.
    WorkerAware,
}

impl Pipe {
    /// When [`Self::tick`] must be called at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let mut first = None;
        self.each_timer(|_, at| first = earliest(first, at));
        first
    }

    /// Does what has become due at `now`.
    pub fn tick(&mut self, now: Time) {
        let mut fired = None;
        while let Some(timer) = self.due_behind(fired, now) {
            self.fire(timer, now);
            fired = Some(timer);
        }
        self.finish_if_over();
    }

    /// The next timer behind `fired` that is due.
    fn due_behind(&self, fired: Option<Timer>, now: Time) -> Option<Timer> {
        let mut due = None;
        self.each_timer(|timer, at| {
            if due.is_none() && Some(timer) > fired && at.is_some_and(|at| now >= at) {
                due = Some(timer);
            }
        });
        due
    }

    /// The table: each timer that may run in the present state of its leg, in the order of [`Timer`], and when it is due,
    /// if it runs. It is walked for every message, and costs little only as code without an array.
    #[inline]
    fn each_timer(&self, mut visit: impl FnMut(Timer, Option<Time>)) {
        self.each_client_timer(&mut visit);
        self.each_backend_timer(&mut visit);
    }

    #[inline]
    fn each_client_timer(&self, visit: &mut impl FnMut(Timer, Option<Time>)) {
        match (self.client.state(), self.client.link()) {
            (ClientState::Open | ClientState::SaidClose, Some(link)) => {
                visit(Timer::ClientRest, self.throttle_deadline(Side::Client));
                visit(Timer::ClientMessage, self.message_ends(link));
                visit(Timer::ClientStall, self.stall_ends());
                visit(Timer::ClientPing, self.client_ping_due_at(link));
                visit(Timer::ClientPatience, self.client_patience_ends(link));
                visit(Timer::ClientBeat, link.beat.deadline(self.settings.client_heartbeat));
                visit(Timer::ClientAware, self.aware_due_at());
            }
            (ClientState::Closing, _) => visit(Timer::ClientClose, self.client.closes_at()),
            (ClientState::Detached, _) => {
                visit(Timer::ClientGrace, self.client.away_since().map(|since| self.client_grace_ends(since)));
            }
            (ClientState::Open | ClientState::SaidClose, None) | (ClientState::Gone, _) => {}
        }
    }

    #[inline]
    fn each_backend_timer(&self, visit: &mut impl FnMut(Timer, Option<Time>)) {
        let Some(worker) = self.backend.worker() else {
            visit(Timer::Grace, self.backend.outage().and_then(|outage| self.grace_ends(outage.since)));
            visit(Timer::Retry, self.backend.retry_at());
            return;
        };
        match self.backend.state() {
            BackendState::Closing => {
                visit(Timer::WorkerClose, self.backend.step_ends_at());
                visit(Timer::Delay, worker.delayed_until);
                return visit(Timer::Prologue, self.prologue_ends());
            }
            BackendState::Settling | BackendState::Parting(_) => {
                visit(Timer::Move, self.backend.step_ends_at());
                visit(Timer::Part, self.parts_at());
                visit(Timer::Prologue, self.prologue_ends());
            }
            BackendState::Attached => {
                visit(Timer::Delay, worker.delayed_until);
                visit(Timer::Prologue, self.prologue_ends());
                visit(Timer::Silence, self.silence_ends(worker));
                visit(Timer::Settle, (!worker.settled).then(|| worker.fed_from + QUICK_DEATH));
            }
            BackendState::Detached | BackendState::Dialing | BackendState::Gone => {}
        }
        visit(Timer::WorkerRest, self.throttle_deadline(Side::Backend));
        visit(Timer::WorkerPing, worker.link.ping_due_at(&self.up.buffer));
        visit(Timer::WorkerPatience, worker.link.barrier.as_ref().and_then(Barrier::patience_ends));
        visit(Timer::WorkerMessage, self.message_ends(&worker.link));
        visit(Timer::WorkerBeat, worker.link.beat.deadline(self.settings.backend_heartbeat));
        visit(Timer::WorkerAware, self.numbered_due_at());
    }

    /// When an outage that began at `since` has lasted too long, if it can.
    fn grace_ends(&self, since: Time) -> Option<Time> {
        let grace = match self.farewell {
            Some(_) => Some(self.settings.farewell_grace()),
            None => self.settings.grace,
        };
        Some(since + grace?)
    }

    /// How long the search for a worker may still take; nothing while there is one, or where that has no end.
    #[must_use]
    pub fn grace_left(&self, now: Time) -> Option<Duration> {
        let outage = self.backend.outage().filter(|_| self.backend.worker().is_none())?;
        Some(self.grace_ends(outage.since)?.since(now))
    }

    fn message_ends(&self, link: &Link) -> Option<Time> {
        link.message_ends(self.settings.message_incomplete_timeout)
    }

    /// Whether a message that has taken its time goes on quickly enough to be given more.
    fn message_goes_on(&mut self, side: Side, now: Time) -> bool {
        let bytes = self.settings.message_bytes_due();
        self.incoming(side).is_some_and(|(link, _)| link.message_goes_on(bytes, now))
    }

    fn stall_ends(&self) -> Option<Time> {
        match self.settings.down {
            DownPolicy::Keep => self.client.stalled_since().map(|since| since + self.settings.stall_max),
            DownPolicy::Latest(_) => None,
        }
    }

    fn fire(&mut self, timer: Timer, now: Time) {
        match timer {
            Timer::ClientGrace => self.client_expired(now),
            Timer::ClientClose => self.cut_client_off(now),
            Timer::ClientRest => self.end_rest(Side::Client, now),
            Timer::ClientMessage => {
                if !self.message_goes_on(Side::Client, now) && !self.is_taken_for_lost(now) {
                    self.discard_half_message(Side::Client);
                    self.client_at_fault(CloseFrame::new(1008, "message not finished in time"), now);
                }
            }
            Timer::ClientStall => {
                if !self.is_taken_for_lost(now) {
                    self.client_too_slow(now);
                }
            }
            Timer::ClientPing | Timer::WorkerPing => {}
            Timer::ClientPatience => self.give_up_client_pong(now),
            Timer::ClientBeat => self.client_beats(now),
            Timer::ClientAware => self.aware_is_due(now),
            Timer::Grace => self.grace_is_over(now),
            Timer::Retry => self.retry(),
            Timer::WorkerClose => self.closing_took_too_long(now),
            Timer::Move => self.move_took_too_long(now),
            Timer::Part => self.part_if_settled(now),
            Timer::Delay => self.end_delay(),
            Timer::Prologue => self.prologue_unanswered(now),
            Timer::Silence => {
                let frame = CloseFrame::new(1001, "nothing was said in time");
                self.interrupt(Interruption::Silent, Some(&frame), now);
            }
            Timer::Settle => self.settle_if_outlived(now),
            Timer::WorkerRest => self.end_rest(Side::Backend, now),
            Timer::WorkerPatience => self.give_up_worker_pong(now),
            Timer::WorkerMessage => {
                if !self.message_goes_on(Side::Backend, now) {
                    let frame = CloseFrame::new(1008, "message not finished in time");
                    self.interrupt(Interruption::Protocol, Some(&frame), now);
                }
            }
            Timer::WorkerBeat => self.worker_beats(now),
            Timer::WorkerAware => self.numbered_is_due(now),
        }
    }

    fn client_beats(&mut self, now: Time) {
        let Some(link) = self.client.link_mut() else { return };
        match link.beat.tick(self.settings.client_heartbeat, !link.paused, now) {
            Beat::Rest => {}
            Beat::Ping => link.codec.ping(HEARTBEAT_PAYLOAD, [0; 4]),
            Beat::Dead => self.lost(Peer::Client(self.client.generation()), LinkLoss::Reset, now),
        }
    }

    fn worker_beats(&mut self, now: Time) {
        let Some(link) = self.backend.link_mut() else { return };
        match link.beat.tick(self.settings.backend_heartbeat, !link.paused, now) {
            Beat::Rest => {}
            Beat::Ping => {
                let key = self.draw.key();
                link.codec.ping(HEARTBEAT_PAYLOAD, key);
            }
            Beat::Dead => self.interrupt(Interruption::Heartbeat, None, now),
        }
    }

    /// Ends the pipe because its client does not take what it is sent.
    pub(super) fn client_too_slow(&mut self, now: Time) {
        self.give_up_down(Loss::PeerGone, now);
        self.client_at_fault(CloseFrame::new(1013, "client too slow"), now);
    }

    /// No worker was attached within grace.
    fn grace_is_over(&mut self, now: Time) {
        let Some(outage) = self.backend.outage_mut() else { return };
        let (since, wrong_worker) = (outage.since, outage.wrong_worker.take());
        self.report(Fact::Expired { outage: now.since(since) });
        let frame = match wrong_worker {
            Some(frame) => {
                self.report_ended(EndedBy::Backend, &frame);
                *frame
            }
            None => CloseFrame::new(1013, "no backend within grace"),
        };
        self.give_up(frame, Loss::Grace, now);
    }

    /// Lets the replay go: its delay is over.
    fn end_delay(&mut self) {
        if let Some(worker) = self.backend.worker_mut() {
            worker.delayed_until = None;
        }
        self.withhold();
    }

    /// The worker answers no pings: what is written counts as confirmed from now on.
    fn give_up_worker_pong(&mut self, now: Time) {
        let Some(worker) = self.backend.worker_mut() else { return };
        if let Some(barrier) = &mut worker.link.barrier {
            barrier.give_up();
        }
        self.up.level = worker.link.level();
        let backend = worker.backend;
        self.report(Fact::PongsMissing(backend));
        if self.takes_for_confirmed(Level::Written) {
            self.up.confirm_sent(now);
            self.owe_confirmed(now);
        }
        self.part_if_settled(now);
    }

    /// The worker did not answer our close frame, or did not take what came before it.
    fn closing_took_too_long(&mut self, now: Time) {
        self.end_backend(Loss::Closed, None);
        if let Some(frame) = self.client.said_close().cloned() {
            self.close_client(frame, true, now);
        }
    }
}
