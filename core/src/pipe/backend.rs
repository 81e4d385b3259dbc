//! The backend leg: how it is lost, and how another worker is found.

use std::time::Duration;

use super::{
    Action, DialFailure, DialOrder, EndedBy, Fact, Interruption, LinkLoss, Loss, Peer, Pipe, ResumeAnswer,
    link_to_worker,
};
use crate::aware::Said;
use crate::backoff;
use crate::close::CloseFrame;
use crate::ids::{Attachment, BackendKey, Seq};
use crate::leg::barrier::Level;
use crate::leg::{BackendState, Cause, Link, Next, Worker};
use crate::settings::{OnRefused, Refusal, ReplayPolicy};
use crate::suspects::{End, QUICK_DEATH, Tried};
use crate::time::{Time, earliest};

/// The shortest wait before a dial is tried again, whatever the pool says: a pipe never spins.
const RETRY_WAIT_MIN: Duration = Duration::from_millis(1);

impl Pipe {
    /// A link died. News of an attach that is no longer current change nothing.
    pub fn lost(&mut self, peer: Peer, loss: LinkLoss, now: Time) {
        match peer {
            Peer::Client(generation) if self.client.is_current(generation) => self.client_vanished(now),
            Peer::Client(_) => {}
            Peer::Backend(attachment) if self.backend.is_current(attachment) => self.backend_lost(loss, now),
            Peer::Backend(attachment) if self.backend.has_waiting(attachment) => self.waiting_lost(),
            Peer::Backend(_) => {}
        }
        self.finish_if_over();
    }

    fn backend_lost(&mut self, loss: LinkLoss, now: Time) {
        let reason = match (self.backend.state(), loss) {
            (BackendState::Closing, _) => return self.lost_while_closing(Interruption::Eof, None, now),
            (BackendState::Parting(cause), _) => Interruption::planned(cause),
            (_, LinkLoss::Eof) => Interruption::Eof,
            (_, LinkLoss::Reset) => Interruption::Reset,
        };
        self.interrupt(reason, None, now);
    }

    /// The worker died while the pipe was ending: a client's last messages still go to another one.
    pub(super) fn lost_while_closing(&mut self, reason: Interruption, words: Option<&CloseFrame>, now: Time) {
        let said = self.client.said_close().cloned();
        let farewell = said.clone().or_else(|| self.farewell.as_deref().cloned());
        if let Some(frame) = farewell.filter(|_| self.owes_worker()) {
            self.farewell = Some(Box::new(frame));
            if let Some(said) = said {
                self.answer_client_close(said, now);
            }
            return self.interrupt(reason, words, now);
        }
        self.end_backend(Loss::Closed, None);
        if let Some(said) = said {
            self.answer_client_close(said, now);
        }
    }

    /// Whether another worker is owed messages. What was sent before a close frame that left whole is not owed: many
    /// workers just drop the link instead of answering it.
    fn owes_worker(&self) -> bool {
        let buffer = &self.up.buffer;
        let unconfirmed = match self.settings.replay {
            ReplayPolicy::Unconfirmed => {
                let told = self.backend.link().is_some_and(|link| link.codec.is_close_written());
                buffer.in_doubt_messages() > 0 && !told
            }
            ReplayPolicy::Unsent | ReplayPolicy::None => false,
        };
        unconfirmed || buffer.unsent_messages() > 0
    }

    /// The backend leg is detached; the pipe looks for another worker unless its route or its state forbids.
    pub(super) fn interrupt(&mut self, reason: Interruption, last_words: Option<&CloseFrame>, now: Time) {
        self.settle_if_outlived(now);
        let next = self.backend.take_next();
        let key = self.draw.key();
        let Some(link) = self.backend.link() else { return };
        let words = last_words.map(|frame| link.codec.last_words(frame, &self.up.buffer, key));
        // Only a worker that said goodbye has emptied its queue; one that died on the way out may have had a full one.
        let said_goodbye = reason.cause().is_planned() && last_words.is_some();
        let clean = said_goodbye && self.up.buffer.in_doubt_messages() == 0;
        let (sent, confirmed) = (self.up.buffer.sent(), self.up.buffer.confirmed());
        let rewound = self.up.buffer.rewind(clean);
        let Some(worker) = self.backend.detach(reason.cause(), rewound.gap, now) else { return };
        let (attachment, backend, died) = (worker.attachment, worker.backend, reason.is_death());
        let last_words = words.unwrap_or_default();
        self.actions.push_back(Action::DropBackend { attachment, last_words, died });
        self.down.buffer.discard_partial();
        self.numbered_worker_gone();
        self.interruptions = self.interruptions.saturating_add(1);
        self.up.in_doubt += rewound.in_doubt;
        let (in_doubt, gap) = (rewound.in_doubt, rewound.gap);
        self.report(Fact::Interrupted { attachment, backend, reason, in_doubt, gap });
        self.owe_confirmed(now);
        self.end_exchanges(sent, confirmed, now);
        let mut next = self.if_promise_holds(next, gap);
        if self.settings.replay == ReplayPolicy::None && !matches!(next, Next::Waiting(_)) {
            self.drop_waiting(now);
            next = self.if_promise_holds(next, gap);
        }
        // A message that it confirmed before it died is not what killed it, nor is one that it was not given whole.
        let suspect = worker.first_again.filter(|&first| first > confirmed && first <= sent);
        if died && reason != Interruption::WrongWorker && in_doubt > 0 {
            self.suspects.died_of(backend, confirmed.plus(1));
        }
        if let Some((frame, loss)) = self.ends_with(&worker, suspect, reason, now) {
            self.dismiss(next);
            return self.give_up(frame, loss, now);
        }
        self.suspects.new_round();
        if matches!(reason, Interruption::Silent | Interruption::Unanswered | Interruption::Heartbeat) {
            // It would take the dial and be silent again; the others come first.
            self.suspects.tried(backend, Tried::Failed);
        }
        self.go_on_with(next, now);
    }

    /// What ends the pipe now that this worker is lost, if anything does.
    fn ends_with(
        &mut self,
        worker: &Worker,
        suspect: Option<Seq>,
        reason: Interruption,
        now: Time,
    ) -> Option<(CloseFrame, Loss)> {
        if self.is_killer(worker, suspect, reason, now) {
            let text = self.suspects.deeds_of(self.up.buffer.sent().plus(1));
            return Some((CloseFrame::new(1011, &text), Loss::Closed));
        }
        if !self.wants_backend() {
            return Some((CloseFrame::new(1001, ""), Loss::PeerGone));
        }
        // A worker that disowns the key has not begun the conversation that its loss would end.
        let lost = !reason.cause().is_planned() && reason != Interruption::WrongWorker;
        let closes = !self.moves() && lost;
        closes.then(|| (CloseFrame::new(1012, "backend lost"), Loss::CloseRoute))
    }

    /// Whether the same replayed message has been the first one for three workers that died at once, or for many more that
    /// may have been cut off.
    fn is_killer(&mut self, worker: &Worker, suspect: Option<Seq>, reason: Interruption, now: Time) -> bool {
        let own_death = !reason.cause().is_planned() && reason != Interruption::WrongWorker;
        own_death
            && now.since(worker.fed_from) < QUICK_DEATH
            && self.suspects.died_quickly(worker.backend, suspect, how_it_went(worker, reason), now)
    }

    /// Whether there is still something to do for a worker.
    const fn wants_backend(&self) -> bool {
        self.client.is_open() || self.farewell.is_some()
    }

    /// Orders a dial, if the leg is detached.
    pub(super) fn dial(&mut self) {
        let Some((attachment, outage)) = self.backend.dial() else { return };
        let (cause, previous, gap) = (outage.cause, outage.previous, outage.gap);
        let avoid = cause.is_planned().then_some(previous);
        self.order_dial(attachment, avoid, cause, previous, gap);
    }

    /// The first message that the next worker will be sent. One that is half written counts as the old worker's: it is
    /// finished before that one is left.
    pub(super) const fn first_seq(&self) -> Seq {
        let buffer = &self.up.buffer;
        buffer.sent().plus(1 + buffer.is_amid_message() as u64)
    }

    /// Orders the dial of `attachment`.
    pub(super) fn order_dial(
        &mut self,
        attachment: Attachment,
        avoid: Option<BackendKey>,
        cause: Cause,
        previous: BackendKey,
        gap: Option<(Seq, Seq)>,
    ) {
        let buffer = &self.up.buffer;
        self.actions.push_back(Action::Dial(DialOrder {
            attachment,
            avoid,
            cause,
            previous,
            first_seq: self.first_seq(),
            again: buffer.again_messages().saturating_sub(u64::from(buffer.is_amid_message())),
            bytes: buffer.rest_bytes() as u64,
            confirmed: buffer.confirmed(),
            level: self.up.level,
            gap,
            prologue: self.conversation.prologue().map_or(0, |prologue| prologue.missing(buffer.sent())),
        }));
    }

    /// The backends that the dial under way must not choose at `now`.
    #[must_use]
    pub fn excluded(&self, now: Time) -> Vec<BackendKey> {
        let mut excluded = self.suspects.excluded(now);
        if let Some(worker) = self.backend.worker().filter(|_| self.backend.leaves_for().is_some()) {
            excluded.push(worker.backend);
        }
        excluded
    }

    /// The dial of `attachment` brought no attach.
    pub fn dial_failed(&mut self, attachment: Attachment, failure: DialFailure, now: Time) {
        if self.backend.dials_next(attachment) {
            return self.next_dial_failed(failure);
        }
        if !self.backend.dials(attachment) {
            return;
        }
        self.backend.dial_failed();
        let failure = match (failure, self.settings.on_refused) {
            (DialFailure::Unauthorized { backend, status }, OnRefused::Next) => {
                DialFailure::Refused { backend, status }
            }
            (failure, OnRefused::Close | OnRefused::Next) => failure,
        };
        if let Some((backend, tried)) = failure.of_one() {
            self.suspects.tried(backend, tried);
        }
        match failure {
            DialFailure::Failed(_) | DialFailure::Absent(_) | DialFailure::Refused { .. } => self.dial(),
            DialFailure::Unauthorized { status, .. } => {
                let frame = CloseFrame::new(1008, &format!("the backend refused the credentials: {status}"));
                self.give_up(frame, Loss::Closed, now);
            }
            DialFailure::NoCandidate { retry_after } => {
                let wait = retry_after.map(|wait| wait.max(self.settings.backoff_min).max(RETRY_WAIT_MIN));
                self.no_candidate(wait.map(|wait| now + wait), None, now);
            }
            DialFailure::Out { recheck } => self.no_candidate(None, Some(now + recheck), now),
        }
        self.finish_if_over();
    }

    /// The round is over: no other worker may be dialled before `retry_at`, or one that is out is worth a look at
    /// `recheck_at`.
    fn no_candidate(&mut self, retry_at: Option<Time>, recheck_at: Option<Time>, now: Time) {
        let returns_at = earliest(retry_at, self.suspects.next_return(now));
        let refused = self.suspects.refused_by_all().filter(|_| returns_at.is_none());
        let Some(outage) = self.backend.outage_mut() else { return };
        let changed = std::mem::take(&mut outage.changed);
        if let (Some(status), Refusal::End) = (refused, self.settings.refusal)
            && !changed
            && outage.wrong_worker.is_none()
        {
            // Who would ask them again is its client.
            let frame = CloseFrame::new(1012, &format!("refused by every worker: {status}"));
            return self.give_up(frame, Loss::Closed, now);
        }
        // Only what a wrong worker said needs another look: all else that may help is a change of the pool.
        let retry_at = earliest(returns_at, recheck_at.filter(|_| outage.wrong_worker.is_some()));
        if changed || self.suspects.any_tried() {
            let settings = &self.settings;
            let wait = backoff::wait(outage.round, settings.backoff_min, settings.backoff_max, &mut self.draw);
            outage.round += 1;
            self.backend.wait(Some(now + wait));
        } else if retry_at.is_none()
            && let Some(frame) = outage.wrong_worker.take()
        {
            self.report_ended(EndedBy::Backend, &frame);
            self.give_up(*frame, Loss::Closed, now);
        } else {
            self.backend.wait(retry_at);
        }
    }

    /// Another try is worth it: a backend was registered or has recovered.
    pub fn pool_changed(&mut self, _now: Time) {
        if self.backend.state() == BackendState::Dialing {
            if let Some(outage) = self.backend.outage_mut() {
                outage.changed = true;
            }
            return;
        }
        self.suspects.new_round();
        self.dial();
    }

    /// The wait between two rounds is over.
    pub(super) fn retry(&mut self) {
        self.suspects.new_round();
        self.dial();
    }

    /// A worker answered 101 to the dial of `attachment`; false if the dial was cancelled and the link must go.
    ///
    /// While the pipe is being moved off another worker that is still there, the link is to be kept beside that one's
    /// until `TakeOver` or `DropBackend` names it.
    pub fn attached(
        &mut self,
        attachment: Attachment,
        backend: BackendKey,
        resume: Option<ResumeAnswer>,
        now: Time,
    ) -> bool {
        let next = self.backend.dials_next(attachment);
        if !next && !self.backend.dials(attachment) {
            return false;
        }
        if resume == Some(ResumeAnswer::Refuse) {
            self.dial_failed(attachment, DialFailure::Failed(backend), now);
            return false;
        }
        if next {
            let proven_at = now + self.settings.prove.min(self.settings.move_timeout);
            let foretold = self.foretell(attachment, resume);
            self.backend.let_wait(backend, resume, proven_at, foretold);
            self.part_if_settled(now);
        } else {
            self.take_up(attachment, backend, resume, 0, now);
        }
        true
    }

    /// A worker that has answered is the pipe's from now on. It has had the first `foretold` messages of the prologue.
    pub(super) fn take_up(
        &mut self,
        attachment: Attachment,
        backend: BackendKey,
        resume: Option<ResumeAnswer>,
        foretold: u64,
        now: Time,
    ) {
        if let Some(ResumeAnswer::Ok(seq)) = resume {
            self.up.buffer.fast_forward(seq, now);
        }
        let again = self.up.buffer.again_messages();
        let outage = self.backend.outage().map_or(Duration::ZERO, |outage| now.since(outage.since));
        let delayed_until = self.delayed_until(now);
        let link = self.link_to_next(delayed_until.is_some(), now);
        let resumed = matches!(resume, Some(ResumeAnswer::Ok(_)));
        self.up.level = link.level();
        if let Some(ResumeAnswer::Ok(seq)) = resume {
            // It has what came before in its state.
            self.up.confirm(seq, Level::App, now);
        }
        let worker = Worker {
            attachment,
            link,
            backend,
            fed_from: delayed_until.unwrap_or(now),
            first_again: (again > 0).then(|| self.up.buffer.sent().plus(1)),
            talked: false,
            settled: false,
            delayed_until,
            outage: None,
        };
        self.backend.attach(worker, self.farewell.as_ref().map(|_| now + self.settings.farewell_grace()));
        self.report(Fact::Reattached { attachment, backend, outage, again });
        if self.is_aware() {
            let resumed = resume.map_or("unknown", ResumeAnswer::as_str);
            self.say_word(&Said::BackendAttached { attach: attachment.0, resumed });
        }
        self.owe_confirmed(now);
        if !resumed {
            self.begin_prologue(foretold, now);
        }
    }

    /// A link to the worker that takes the pipe up, behind what others were sent.
    fn link_to_next(&mut self, withheld: bool, now: Time) -> Link {
        let mut link = link_to_worker(&self.settings, &mut self.draw, now);
        if let Some(barrier) = &mut link.barrier {
            barrier.start_at(self.up.buffer.sent());
        }
        if self.compressed {
            link.codec.allow_compressed();
        }
        link.codec.set_withheld(withheld);
        if let Some(frame) = &self.farewell {
            link.codec.close(CloseFrame::clone(frame), true);
        }
        link
    }

    /// Until when the replay waits so that a worker that was cut off can finish its queue.
    fn delayed_until(&self, now: Time) -> Option<Time> {
        let until = self.backend.outage()?.since + self.settings.replay_delay;
        (until > now).then_some(until)
    }

    /// Ends the outage if the current worker has outlived a quick death, however late that is noticed.
    pub(super) fn settle_if_outlived(&mut self, now: Time) {
        let Some(worker) = self.backend.worker_mut() else { return };
        if worker.settled || now.since(worker.fed_from) < QUICK_DEATH {
            return;
        }
        worker.settled = true;
        self.suspects.lived(worker.backend);
        self.worker_proven();
    }

    /// The current worker has shown that it works: the outage is over.
    pub(super) fn worker_proven(&mut self) {
        let Some(worker) = self.backend.worker_mut() else { return };
        match worker.outage.take() {
            Some(outage) if outage.wrong_worker.is_some() => self.suspects.settled(worker.backend),
            // A dial that failed then says nothing about a planned move later.
            Some(_) => self.suspects.new_round(),
            None => {}
        }
    }

    /// When a worker that has said nothing is given up. One that is not read may have said something.
    pub(super) fn silence_ends(&self, worker: &Worker) -> Option<Time> {
        let wait = self.settings.first_message_timeout.filter(|_| !worker.talked && !worker.link.paused)?;
        Some(worker.fed_from.max(worker.link.turned_at) + wait)
    }

    pub(super) fn backend_said_close(&mut self, frame: CloseFrame, now: Time) {
        // Before anything is said about the backend, since this forgets what was said in the outage before.
        self.settle_if_outlived(now);
        match self.backend.state() {
            BackendState::Closing => self.backend_answered_close(frame, now),
            BackendState::Parting(cause) => self.interrupt(Interruption::planned(cause), Some(&frame), now),
            BackendState::Attached | BackendState::Settling => self.backend_closed(frame, now),
            BackendState::Detached | BackendState::Dialing | BackendState::Gone => {}
        }
        self.finish_if_over();
    }

    /// A worker closed that was not asked to.
    fn backend_closed(&mut self, frame: CloseFrame, now: Time) {
        let Some(worker) = self.backend.worker() else { return };
        if !worker.talked && self.settings.wrong_worker_codes.contains(frame.code) {
            self.suspects.wrong(worker.backend);
            self.interrupt(Interruption::WrongWorker, Some(&frame), now);
            if let Some(outage) = self.backend.outage_mut() {
                outage.wrong_worker = Some(Box::new(frame));
            }
        } else if self.settings.interrupt_codes.contains(frame.code) || self.has_numbered_worker() {
            // One that numbers its messages says so, if the conversation is over.
            self.interrupt(Interruption::Close, Some(&frame), now);
        } else {
            self.backend_ended(frame, now);
        }
    }
}

/// Whether a worker that is lost had read what it was sent.
const fn how_it_went(worker: &Worker, reason: Interruption) -> End {
    match reason {
        Interruption::Eof | Interruption::Close | Interruption::Protocol => End::Died,
        _ if worker.talked => End::Died,
        Interruption::Reset
        | Interruption::Heartbeat
        | Interruption::Silent
        | Interruption::Unanswered
        | Interruption::WrongWorker
        | Interruption::Drain
        | Interruption::Admin
        | Interruption::Handover => End::Cut,
    }
}
