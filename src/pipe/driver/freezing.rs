//! How a pipe goes to another process: it stands still at the end of a turn, and hears what becomes of it.
//!
//! ```text
//!  lives ──▶ Asked ──▶ Frozen ──▶ gone: another process has it
//!    ▲         │          │
//!    └─────────┴──────────┘ it cannot go, or the other process did not take it
//! ```
//! A pipe that is frozen keeps all that it has, so that it goes on as if nothing had been if it stays. Invariant: between
//! its snapshot and the verdict it reads, writes and decides nothing, whatever wakes it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use holdline_core::time::Time;
use tokio::sync::oneshot;

use super::Driver;
use crate::pipes::Sharing;
use crate::pipes::passport::{Freeze, Frozen, LivesBy, Passport, Unmovable, Verdict};

/// What is to become of a pipe that may go to another process.
pub(super) enum Handing {
    /// It freezes at the end of this turn.
    Asked(Box<Freeze>),
    /// It stands still.
    Frozen(oneshot::Receiver<Verdict>),
}

impl Driver {
    /// Whether the pipe stands still, and whether it is over because another process has it.
    pub(super) fn stands_still(&mut self, cx: &mut Context<'_>) -> Option<Poll<()>> {
        let Some(Handing::Frozen(verdict)) = self.handing.as_deref_mut() else { return None };
        match Pin::new(verdict).poll(cx) {
            Poll::Pending => Some(Poll::Pending),
            Poll::Ready(Ok(Verdict::Gone)) => {
                self.books.report.hand_over();
                self.client.let_go(self.plan.settings.close_timeout);
                self.backend.let_go();
                Some(Poll::Ready(()))
            }
            // Without a verdict, no other process has it.
            Poll::Ready(Ok(Verdict::Stays) | Err(_)) => {
                self.handing = None;
                None
            }
        }
    }

    /// Has the pipe stand still, if it was asked to and can.
    pub(super) fn freeze(&mut self, cx: &mut Context<'_>) -> Option<Poll<()>> {
        let asked = self.handing.take_if(|handing| matches!(**handing, Handing::Asked(_)));
        let Handing::Asked(order) = *asked? else { return None };
        // Not the turn's: a dial that ended within it has a later time in the pipe.
        let now = self.process.clock.now();
        let (verdict, heard) = oneshot::channel();
        let answer = self.frozen(verdict, now).map(Box::new).map_err(|why| (self.plan.pipe, why));
        let is_frozen = answer.is_ok();
        // The one that asked may have given up, and with it what it would have been told.
        if order.answer.try_send(answer).is_err() || !is_frozen {
            return None;
        }
        self.handing = Some(Box::new(Handing::Frozen(heard)));
        self.stands_still(cx)
    }

    /// The pipe as another process needs it.
    fn frozen(&self, verdict: oneshot::Sender<Verdict>, now: Time) -> Result<Frozen, Unmovable> {
        if self.pipe.is_finished() {
            return Err(Unmovable::Ends);
        }
        if !matches!(self.entry().sharing, Sharing::Alone) {
            return Err(Unmovable::Shared);
        }
        let (client_passport, client) = self.client.carry()?.unzip();
        let client = match client.transpose() {
            Ok(client) => client,
            // Its client comes back to the other process, as one that has lost its link.
            Err(Unmovable::Tls12 | Unmovable::Tls13) if self.pipe.awaits_client() => None,
            Err(why) => return Err(self.by_requests(why)),
        };
        let backend = self.backend.carry()?;
        if backend.as_ref().is_some_and(|(_, carried)| carried.is_none()) && !self.may_move() {
            return Err(Unmovable::Worker);
        }
        let (backend_passport, backend) = backend.unzip();
        let passport = Passport { client: client_passport, backend: backend_passport, ..self.passport(now) };
        Ok(Frozen {
            pipe: self.plan.pipe,
            passport,
            snapshot: self.pipe.snapshot(now).into_bytes(),
            head_lines: self.plan.head_lines.clone(),
            client,
            backend: backend.flatten(),
            verdict,
        })
    }

    /// A stream in memory is that of a client that speaks HTTP/2, or of one that is on requests.
    fn by_requests(&self, why: Unmovable) -> Unmovable {
        let is_on_requests = why == Unmovable::Http2 && self.process.sessions.of(self.plan.pipe).is_some();
        if is_on_requests { Unmovable::Http } else { why }
    }

    fn passport(&self, now: Time) -> Passport {
        let (plan, entry) = (&*self.plan, self.entry());
        let settings = if Arc::ptr_eq(&plan.settings, &plan.route.aware) {
            LivesBy::Aware
        } else if plan.route.identity.as_ref().is_some_and(|it| Arc::ptr_eq(&plan.settings, &it.settings)) {
            LivesBy::Named
        } else {
            LivesBy::Route
        };
        let name = self.books.guards.as_ref().and_then(|guards| guards.name.as_ref());
        Passport {
            pipe: plan.pipe.to_string(),
            route: plan.route.name.as_str().into(),
            settings,
            key: plan.key.clone(),
            target: plan.target.clone(),
            host: plan.host.clone(),
            announced: plan.announced,
            protocols: plan.protocols.clone(),
            protocol: plan.protocol.clone(),
            numbers: plan.numbers,
            asked: plan.compression,
            compression: entry.compression,
            address: entry.client(),
            aware: entry.aware,
            name: name.map(|claim| claim.name()),
            request_id: entry.request_id.clone(),
            past: self.books.report.past(),
            frozen_at: now.as_micros(),
            client: None,
            backend: None,
            last: self.backend.last().map(|(key, id)| (key.0, id.clone())),
        }
    }
}
