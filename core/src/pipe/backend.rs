//! The backend leg: how it is lost, and how another worker is found.

use std::time::Duration;

use super::{
    Action, DialFailure, DialOrder, EndedBy, Fact, Interruption, LinkLoss, Loss, Outage, Peer, Pipe, ResumeAnswer,
};
use crate::assembler::Assembler;
use crate::backoff;
use crate::barrier::Barrier;
use crate::close::CloseFrame;
use crate::frame::Side;
use crate::heartbeat::Heartbeat;
use crate::ids::{Attachment, BackendKey, Seq};
use crate::leg::{Attached, BackendLeg, Cause, ClientLeg, Leaving, Next};
use crate::settings::{BackendLoss, ReplayPolicy};
use crate::suspects::QUICK_DEATH;
use crate::time::{Time, earliest};

/// The shortest wait before a dial is tried again, whatever the pool says: a pipe never spins.
const RETRY_WAIT_MIN: Duration = Duration::from_millis(1);

impl Pipe {
    /// A link died. News of an attach that is no longer current change nothing.
    pub fn lost(&mut self, peer: Peer, loss: LinkLoss, now: Time) {
        match peer {
            Peer::Client(generation) if self.is_current_client(generation) => self.client_vanished(now),
            Peer::Client(_) => {}
            Peer::Backend(attachment) if self.backend.is_current(attachment) => self.backend_lost(loss, now),
            Peer::Backend(attachment) if self.backend.holds(attachment) => self.held_lost(),
            Peer::Backend(_) => {}
        }
        self.finish_if_over();
    }

    fn backend_lost(&mut self, loss: LinkLoss, now: Time) {
        let reason = match (&self.backend, loss) {
            (BackendLeg::Leaving { stage: Leaving::Parting, cause, .. }, _) => Interruption::planned(*cause),
            (BackendLeg::Closing { .. }, _) => return self.lost_while_closing(Interruption::Eof, None, now),
            (_, LinkLoss::Eof) => Interruption::Eof,
            (_, LinkLoss::Reset) => Interruption::Reset,
        };
        self.interrupt(reason, None, now);
    }

    /// The worker died while the pipe was ending: a client's last messages still go to another one.
    pub(super) fn lost_while_closing(&mut self, reason: Interruption, words: Option<&CloseFrame>, now: Time) {
        let farewell = match &self.client {
            ClientLeg::SaidClose(frame) => Some(frame.clone()),
            ClientLeg::Open | ClientLeg::Detached { .. } | ClientLeg::Closing { .. } | ClientLeg::Gone => {
                self.farewell.as_deref().cloned()
            }
        };
        if let Some(frame) = farewell.filter(|_| self.owes_worker()) {
            self.farewell = Some(Box::new(frame.clone()));
            if matches!(self.client, ClientLeg::SaidClose(_)) {
                self.answer_client_close(frame, now);
            }
            return self.interrupt(reason, words, now);
        }
        self.settle_up(Loss::Closed);
        self.drop_backend(Vec::new(), false);
        if let ClientLeg::SaidClose(frame) = &self.client {
            self.answer_client_close(frame.clone(), now);
        }
    }

    /// Whether another worker is owed messages. What was sent before a close frame that left whole is not owed: many
    /// workers just drop the link instead of answering it.
    fn owes_worker(&self) -> bool {
        let buffer = &self.up.buffer;
        let unconfirmed = match self.settings.replay {
            ReplayPolicy::Unconfirmed => buffer.in_doubt_messages() > 0 && !self.to_backend.is_close_written(),
            ReplayPolicy::Unsent | ReplayPolicy::None => false,
        };
        unconfirmed || buffer.unsent_messages() > 0
    }

    /// The backend leg is detached; the pipe looks for another worker unless its route or its state forbids.
    pub(super) fn interrupt(&mut self, reason: Interruption, last_words: Option<&CloseFrame>, now: Time) {
        let Some(link) = self.backend.link().cloned() else { return };
        self.settle_if_outlived(now);
        let next = self.backend.take_next();
        let key = self.draw.key();
        let words = last_words.map(|frame| self.to_backend.last_words(frame, &self.up.buffer, key));
        self.drop_backend(words.unwrap_or_default(), reason.is_death());
        // Only a worker that said goodbye has emptied its queue; one that died on the way out may have had a full one.
        let said_goodbye = reason.cause().is_planned() && last_words.is_some();
        let clean = said_goodbye && self.up.buffer.in_doubt_messages() == 0;
        let confirmed = self.up.buffer.confirmed();
        let rewound = self.up.buffer.rewind(clean);
        self.interruptions += 1;
        self.in_doubt += rewound.in_doubt;
        self.report(Fact::Interrupted {
            attachment: link.attachment,
            backend: link.backend,
            reason,
            in_doubt: rewound.in_doubt,
            gap: rewound.gap,
        });
        self.outage = Some(Box::new(Outage {
            since: self.outage.as_ref().map_or(now, |outage| outage.since),
            cause: reason.cause(),
            previous: link.backend,
            gap: rewound.gap,
            round: 0,
        }));
        let mut next = self.if_promise_holds(next, rewound.gap);
        if self.settings.replay == ReplayPolicy::None && !matches!(next, Next::Held(_)) {
            self.drop_waiting(now);
            next = self.if_promise_holds(next, rewound.gap);
        }
        // A message that it confirmed before it died is not what killed it.
        let suspect = link.first_again.filter(|&first| first > confirmed);
        if let Some((frame, loss)) = self.ends_with(&link, suspect, reason, now) {
            self.dismiss(next);
            return self.give_up(frame, loss, now);
        }
        self.suspects.new_round();
        if matches!(reason, Interruption::Silent | Interruption::Heartbeat) {
            // It would take the dial and be silent again; the others come first.
            self.suspects.tried(link.backend);
        }
        self.go_on_with(next, now);
    }

    /// What ends the pipe now that this worker is lost, if anything does.
    fn ends_with(
        &mut self,
        link: &Attached,
        suspect: Option<Seq>,
        reason: Interruption,
        now: Time,
    ) -> Option<(CloseFrame, Loss)> {
        if self.is_killer(link, suspect, reason, now) {
            let text = format!("message {} ended {} workers in a row", self.up.buffer.sent().0 + 1, 3);
            return Some((CloseFrame::new(1011, &text), Loss::Closed));
        }
        if !self.wants_backend() {
            return Some((CloseFrame::new(1001, ""), Loss::PeerGone));
        }
        // A worker that disowns the key has not begun the conversation that its loss would end.
        let lost = !reason.cause().is_planned() && reason != Interruption::WrongWorker;
        let closes = self.settings.on_backend_loss == BackendLoss::Close && lost;
        closes.then(|| (CloseFrame::new(1012, "backend lost"), Loss::Closed))
    }

    /// Whether the same replayed message has been the first one for three workers that died at once.
    fn is_killer(&mut self, link: &Attached, suspect: Option<Seq>, reason: Interruption, now: Time) -> bool {
        let own_death = !reason.cause().is_planned() && reason != Interruption::WrongWorker;
        own_death && now.since(link.fed_from) < QUICK_DEATH && self.suspects.died_quickly(link.backend, suspect, now)
    }

    /// Whether there is still something to do for a worker.
    const fn wants_backend(&self) -> bool {
        self.client.is_open() || self.farewell.is_some()
    }

    /// Drops the backend link, with `last_words` if it takes them at once.
    pub(super) fn drop_backend(&mut self, last_words: Vec<u8>, died: bool) {
        self.dismiss_next();
        match std::mem::replace(&mut self.backend, BackendLeg::Gone) {
            BackendLeg::Attached(link) | BackendLeg::Leaving { link, .. } | BackendLeg::Closing { link, .. } => {
                self.actions.push_back(Action::DropBackend { attachment: link.attachment, last_words, died });
            }
            BackendLeg::Dialing { attachment } => self.actions.push_back(Action::CancelDial(attachment)),
            BackendLeg::Detached { .. } | BackendLeg::Gone => {}
        }
        self.discard_half_message(Side::Backend);
        self.down.assembler = Assembler::new(Side::Backend);
        self.down.deaf = false;
        self.down.paused = false;
        self.is_no_longer_stuck();
        self.to_backend.reset();
    }

    /// Orders a dial, if the leg is detached.
    pub(super) fn dial(&mut self) {
        let (BackendLeg::Detached { .. }, Some(outage)) = (&self.backend, self.outage.as_deref().copied()) else {
            return;
        };
        let avoid = outage.cause.is_planned().then_some(outage.previous);
        let (attachment, _) = self.order_dial(avoid, outage.cause, outage.previous, outage.gap);
        self.backend = BackendLeg::Dialing { attachment };
    }

    /// Orders a dial; its number, and the first message that its worker will be sent. One that is half written counts
    /// as the old worker's: it is finished before that one is left.
    pub(super) fn order_dial(
        &mut self,
        avoid: Option<BackendKey>,
        cause: Cause,
        previous: BackendKey,
        gap: Option<(Seq, Seq)>,
    ) -> (Attachment, Seq) {
        self.last_attachment = self.last_attachment.next();
        let buffer = &self.up.buffer;
        let amid = u64::from(buffer.is_amid_message());
        let first_seq = buffer.sent().plus(1 + amid);
        self.actions.push_back(Action::Dial(DialOrder {
            attachment: self.last_attachment,
            avoid,
            cause,
            previous,
            first_seq,
            again: buffer.again_messages().saturating_sub(amid),
            bytes: buffer.rest_bytes() as u64,
            confirmed: buffer.confirmed(),
            level: self.barrier.level(),
            gap,
        }));
        (self.last_attachment, first_seq)
    }

    /// The backends that the dial under way must not choose at `now`.
    #[must_use]
    pub fn excluded(&self, now: Time) -> Vec<BackendKey> {
        let mut excluded = self.suspects.excluded(now);
        if let BackendLeg::Leaving { link, .. } = &self.backend {
            excluded.push(link.backend);
        }
        excluded
    }

    /// The dial of `attachment` brought no attach.
    pub fn dial_failed(&mut self, attachment: Attachment, failure: DialFailure, now: Time) {
        if self.backend.dials_next(attachment) {
            return self.next_dial_failed(failure);
        }
        if !matches!(self.backend, BackendLeg::Dialing { attachment: current } if current == attachment) {
            return;
        }
        self.backend = BackendLeg::Detached { retry_at: None };
        match failure {
            DialFailure::Failed(backend) => {
                self.suspects.tried(backend);
                self.dial();
            }
            DialFailure::Unauthorized(_) => {
                self.give_up(CloseFrame::new(1008, "the backend refused the credentials"), Loss::Closed, now);
            }
            DialFailure::NoCandidate { retry_after } => {
                let wait = retry_after.map(|wait| wait.max(self.settings.backoff_min).max(RETRY_WAIT_MIN));
                self.no_candidate(wait.map(|wait| now + wait), now);
            }
        }
        self.finish_if_over();
    }

    fn no_candidate(&mut self, retry_at: Option<Time>, now: Time) {
        let retry_at = earliest(retry_at, self.suspects.next_return(now));
        if self.suspects.any_tried() {
            let settings = &self.settings;
            let round = self.outage.as_ref().map_or(0, |outage| outage.round);
            let wait = backoff::wait(round, settings.backoff_min, settings.backoff_max, &mut self.draw);
            if let Some(outage) = &mut self.outage {
                outage.round += 1;
            }
            self.backend = BackendLeg::Detached { retry_at: Some(now + wait) };
        } else if retry_at.is_none()
            && let Some(frame) = self.wrong_worker.take()
        {
            self.report_ended(EndedBy::Backend, &frame);
            self.give_up(*frame, Loss::Closed, now);
        } else {
            self.backend = BackendLeg::Detached { retry_at };
        }
    }

    /// Another try is worth it: a backend was registered or has recovered.
    pub fn pool_changed(&mut self, _now: Time) {
        self.suspects.new_round();
        self.dial();
    }

    /// The wait between two rounds is over.
    pub(super) fn retry(&mut self) {
        self.suspects.new_round();
        self.dial();
    }

    /// A worker answered 101 to the dial of `attachment`; false if nobody waits for it any more and the link must go.
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
        if !next && !matches!(self.backend, BackendLeg::Dialing { attachment: current } if current == attachment) {
            return false;
        }
        if resume == Some(ResumeAnswer::Refuse) {
            self.dial_failed(attachment, DialFailure::Failed(backend), now);
            return false;
        }
        if next {
            self.hold(attachment, backend, resume, now);
        } else {
            self.take_up(attachment, backend, resume, now);
        }
        true
    }

    /// A worker that has answered is the pipe's from now on.
    pub(super) fn take_up(
        &mut self,
        attachment: Attachment,
        backend: BackendKey,
        resume: Option<ResumeAnswer>,
        now: Time,
    ) {
        if let Some(ResumeAnswer::Ok(seq)) = resume {
            self.up.buffer.fast_forward(seq, now);
        }
        let buffer = &self.up.buffer;
        let again = buffer.again_messages();
        let outage = self.outage.as_ref().map_or(Duration::ZERO, |outage| now.since(outage.since));
        let hold_until = self.hold_until(now);
        self.barrier = Barrier::new(self.draw.key(), now);
        self.barrier.start_at(buffer.sent());
        self.backend_beat = Heartbeat::new(self.settings.backend_heartbeat, now);
        let link = Attached {
            attachment,
            backend,
            fed_from: hold_until.unwrap_or(now),
            first_again: (again > 0).then(|| buffer.sent().plus(1)),
            talked: false,
            settled: false,
            hold_until,
        };
        self.to_backend.set_held(hold_until.is_some());
        self.backend = match &self.farewell {
            Some(frame) => {
                self.to_backend.close(CloseFrame::clone(frame), true);
                BackendLeg::Closing { link, deadline: now + self.settings.grace }
            }
            None => BackendLeg::Attached(link),
        };
        self.report(Fact::Reattached { attachment, backend, outage, again });
    }

    /// Until when the replay waits so that a worker that was cut off can finish its queue.
    fn hold_until(&self, now: Time) -> Option<Time> {
        let until = self.outage.as_ref()?.since + self.settings.replay_delay;
        (until > now).then_some(until)
    }

    /// Ends the outage if the current worker has outlived a quick death, however late that is noticed.
    pub(super) fn settle_if_outlived(&mut self, now: Time) {
        let Some(link) =
            self.backend.link_mut().filter(|link| !link.settled && now.since(link.fed_from) >= QUICK_DEATH)
        else {
            return;
        };
        link.settled = true;
        let backend = link.backend;
        self.suspects.lived(backend);
        self.worker_proven(backend);
    }

    /// The current worker has shown that it works: the outage is over.
    pub(super) fn worker_proven(&mut self, backend: BackendKey) {
        self.outage = None;
        if self.wrong_worker.take().is_some() {
            self.suspects.settled(backend);
        }
    }

    pub(super) fn backend_said_close(&mut self, frame: CloseFrame, now: Time) {
        // Before anything is said about the backend, since this forgets what was said in the outage before.
        self.settle_if_outlived(now);
        match &self.backend {
            BackendLeg::Closing { .. } => self.backend_answered_close(frame, now),
            BackendLeg::Leaving { stage: Leaving::Parting, cause, .. } => {
                let reason = Interruption::planned(*cause);
                self.interrupt(reason, Some(&frame), now);
            }
            BackendLeg::Attached(link) | BackendLeg::Leaving { link, stage: Leaving::Settling, .. } => {
                let backend = link.backend;
                if !link.talked && self.settings.wrong_worker_codes.contains(frame.code) {
                    self.suspects.wrong(backend);
                    self.interrupt(Interruption::WrongWorker, Some(&frame), now);
                    self.wrong_worker = Some(Box::new(frame));
                } else if self.settings.interrupt_codes.contains(frame.code) {
                    self.interrupt(Interruption::Close, Some(&frame), now);
                } else {
                    self.backend_ended(frame, now);
                }
            }
            BackendLeg::Detached { .. } | BackendLeg::Dialing { .. } | BackendLeg::Gone => {}
        }
        self.finish_if_over();
    }
}
