//! What others want of a pipe: the orders in its mailbox.

use std::task::Context;

use holdline_core::close::CloseFrame;
use holdline_core::ids::BackendKey;
use holdline_core::pipe::{Cause, EndedBy, Unsaid};
use holdline_core::time::Time;

use super::{Driver, Handing};
use crate::backends::{Leave, LeaveCause, LeaveHow};
use crate::pipes::{Command, Hearing, Sharing};

impl Driver {
    pub(super) fn obey(&mut self, command: Command, cx: &mut Context<'_>, now: Time) {
        match command {
            Command::Resume(socket, first, resume) => self.client_resumes(socket, first, *resume, cx, now),
            Command::Probe(answer) => self.probe_client(answer),
            Command::Return(socket, first, returned) => self.client_returns(socket, first, *returned, cx, now),
            Command::Reattach => self.leave_by_order(),
            Command::Leave(key, leave) => self.leave(key, leave, now),
            Command::Close(by, frame) => self.pipe.close(by, frame, now),
            Command::Evict(policy) => {
                if self.pipe.evict(now) {
                    self.books.report.evicted(policy);
                }
            }
            Command::Say(kind, payload, ticket) => {
                let has_room = payload.len() <= self.books.registration.room();
                let said = if has_room { self.pipe.say(kind, &payload, now).map(drop) } else { Err(Unsaid::Full) };
                ticket.answer(said.map_or_else(Hearing::Refused, |()| Hearing::Taken));
            }
            Command::Label(change, version, answer) => {
                // The one that asked may have given up.
                let _ = answer.send(self.relabel_by_order(&change, version));
            }
            Command::Commit(attachment, seq, answer) => {
                // The one that asked may have given up.
                let _ = answer.send(self.pipe.commit(attachment, seq, now));
            }
            Command::Freeze(order) => self.handing = Some(Box::new(Handing::Asked(order))),
        }
    }

    fn leave_by_order(&mut self) {
        if let Sharing::Viewer(stream) = &self.entry().sharing {
            // If it has too many orders already, this one changes nothing.
            stream.order(Command::Reattach);
            return;
        }
        if let Some(backend) = self.backend.key().filter(|_| self.may_move()) {
            self.search.wish(backend, Cause::Admin, false, &self.process.backends);
        }
    }

    /// Whether another worker can carry the conversation on.
    pub(super) fn may_move(&self) -> bool {
        self.pipe.moves()
    }

    /// Leaves the worker in the way that its operator wishes. A conversation that no other worker can carry on stays until
    /// the deadline, and ends then.
    fn leave(&mut self, backend: BackendKey, leave: Leave, now: Time) {
        if self.backend.key() != Some(backend) {
            return;
        }
        // Whether the backend's state says so too, and may be changed back.
        let (cause, ordered) = match leave.cause {
            LeaveCause::Drain | LeaveCause::Maint | LeaveCause::Removed | LeaveCause::LeaseExpired => {
                (Cause::Drain, true)
            }
            LeaveCause::Rebalance => (Cause::Admin, false),
        };
        match leave.how {
            LeaveHow::Reattach if ordered || self.may_move() => {
                self.search.wish(backend, cause, ordered, &self.process.backends);
            }
            LeaveHow::Reattach => {}
            LeaveHow::Detach if self.may_move() => self.pipe.leave(cause, now),
            LeaveHow::Detach => self.close_with_backend(1012, now),
            LeaveHow::Close => self.close_with_backend(1001, now),
        }
    }

    fn close_with_backend(&mut self, code: u16, now: Time) {
        self.pipe.close(EndedBy::Operator, CloseFrame::new(code, "backend is going away"), now);
    }
}
