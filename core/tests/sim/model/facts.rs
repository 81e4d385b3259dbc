//! The facts that the pipe speaks: each must follow from what was seen.

use holdline_core::ids::{Attachment, LaneName, Seq};
use holdline_core::pipe::{EndedBy, Fact, Interruption, Loss};
use holdline_core::settings::{OnExceed, OverflowPolicy, ReplayPolicy};
use holdline_core::time::Time;

use super::{Fate, Model, PROVEN_AFTER};
use crate::marks::{Mark, Marks};

impl Model {
    pub fn fact(&mut self, fact: &Fact, now: Time, marks: &mut Marks) {
        match fact {
            Fact::Interrupted { attachment, reason, in_doubt, gap, .. } => {
                self.interrupted(*attachment, *reason, *in_doubt, *gap, now, marks);
            }
            Fact::LeftInDoubt { lane: LaneName::Down, messages } => self.left_in_doubt_down(*messages, marks),
            Fact::ClientDetached { generation, in_doubt } => self.client_detached(*generation, *in_doubt, now, marks),
            Fact::ClientAttached { generation, away, again } => {
                self.client_attached(*generation, *away, *again, now, marks);
            }
            Fact::ClientExpired { away } => self.client_expired(*away, now, marks),
            Fact::LeftInDoubt { lane: LaneName::Up, messages } => {
                self.left_in_doubt += messages;
                self.in_doubt += messages;
                marks.hit(Mark::LeftInDoubt);
                assert!(!self.is_exact() || *messages == self.sent - self.confirmed, "left in doubt");
            }
            Fact::Stayed { .. } => {
                marks.hit(Mark::Stayed);
                assert!(self.tap.as_ref().is_some_and(|tap| !tap.told_to_close), "it stays with a worker it let go");
            }
            Fact::Reattached { outage, .. } => {
                marks.hit(Mark::Reattached);
                self.hit_if_away(Mark::AttachedWhileAway, marks);
                // A worker that is there for a farewell only proves nothing by what it says.
                let expected = self.outage.map(|since| now - since);
                assert!(self.ended.is_some() || Some(*outage) == expected, "the outage was {expected:?}: {fact:?}");
            }
            Fact::Replayed { .. } => marks.hit(Mark::ReplayedAgain),
            Fact::Lost { lane, reason, messages } => self.lost(*lane, *reason, *messages, marks),
            Fact::Dropped { messages, .. } => {
                self.dropped += messages;
                marks.hit(Mark::Dropped);
            }
            Fact::Overflowed(OverflowPolicy::Close) => marks.hit(Mark::Overflowed),
            Fact::Overflowed(OverflowPolicy::Pause) => marks.hit(Mark::OverflowPaused),
            Fact::Limited { .. } => marks.hit(match self.settings.limits.on_exceed {
                OnExceed::Throttle => Mark::Throttled,
                OnExceed::Close => Mark::OverLimitClosed,
            }),
            Fact::ReadPaused(LaneName::Up) => marks.hit(Mark::ClientPaused),
            Fact::ReadPaused(LaneName::Down) => marks.hit(Mark::WorkerPaused),
            Fact::PongsMissing(_) => {
                (self.written, self.committed) = (true, false);
                self.confirm(self.sent);
                marks.hit(Mark::PongsMissing);
            }
            Fact::Expired { outage } => {
                assert!(Some(*outage) >= self.settings.grace, "grace was cut short");
                let expected = self.outage.map(|since| now - since);
                // As above: a farewell's worker proves nothing by what it says.
                assert!(self.ended.is_some() || Some(*outage) == expected, "the outage was {expected:?}: {fact:?}");
            }
            Fact::Repeated { lane: LaneName::Down, .. } => {}
            Fact::Repeated { messages, .. } => {
                self.aware.as_mut().expect("only a client that numbers its messages repeats one").repeated_said +=
                    messages;
            }
            Fact::Gap { .. } => assert!(self.aware.is_some(), "a gap that the client cannot be told of"),
            Fact::Unmasked => panic!("a client of this world masks what it sends"),
            Fact::Conversation { .. }
            | Fact::PrologueSent { .. }
            | Fact::PrologueSwallowed
            | Fact::PrologueFailed(_) => panic!("conversations have a world of their own: core/tests/conversation"),
            Fact::Ended { by, code, reason } => self.end(*by, *code, reason, now, marks),
        }
    }

    fn lost(&mut self, lane: LaneName, reason: Loss, messages: u64, marks: &mut Marks) {
        match lane {
            LaneName::Up => {
                self.lost_up += messages;
                if reason == Loss::Policy {
                    self.owes_gap((self.up.len() as u64 + 1).saturating_sub(messages), self.up.len() as u64);
                }
                marks.hit(match reason {
                    Loss::Policy => Mark::LostByPolicy,
                    Loss::Grace => Mark::LostByGrace,
                    Loss::Overflow => Mark::LostByOverflow,
                    Loss::Evicted => Mark::LostByEviction,
                    Loss::Closed | Loss::PeerGone | Loss::CloseRoute => Mark::LostClosed,
                    Loss::TooBig => panic!("a client's message that is too big is never accepted"),
                });
            }
            LaneName::Down if reason == Loss::TooBig => {
                assert_eq!(messages, 1, "one message at a time is too big");
                self.too_big_down += messages;
            }
            LaneName::Down => {
                self.lost_down += messages;
                if reason == Loss::Evicted {
                    self.evicted_down(messages);
                }
                marks.hit(Mark::LostDown);
            }
        }
    }

    /// Messages before the end were given up, and the client is told that instead.
    fn ends_in_another_way(&mut self, by: EndedBy, code: u16, reason: &str, marks: &mut Marks) {
        let before = self.ended.replace((by, code, reason.to_owned()));
        let first = before.is_some_and(|(by, _, before)| by != EndedBy::Client && before != reason);
        let evicted = (by, code, reason) == (EndedBy::Holdline, 1013, "out of memory");
        assert!(first && evicted, "it ended twice: {by:?} {code} {reason}");
        assert!(self.aware.is_none() && !self.client.told, "it knows what is missing, or was told the other end");
        self.client.is_let_go = false;
        marks.hit(Mark::EndedInAnotherWay);
    }

    fn interrupted(
        &mut self,
        attachment: Attachment,
        reason: Interruption,
        in_doubt: u64,
        gap: Option<(Seq, Seq)>,
        now: Time,
        marks: &mut Marks,
    ) {
        marks.hit(match reason {
            Interruption::Eof => Mark::EofSeen,
            Interruption::Reset => Mark::ResetSeen,
            Interruption::Heartbeat => Mark::HeartbeatSeen,
            Interruption::Close => Mark::CloseSeen,
            Interruption::WrongWorker => Mark::WrongWorkerSeen,
            Interruption::Protocol => Mark::ProtocolSeen,
            Interruption::Silent => Mark::SilentSeen,
            Interruption::Unanswered => Mark::NumberedUnanswered,
            Interruption::Drain => Mark::DrainSeen,
            Interruption::Admin => Mark::AdminSeen,
            Interruption::Handover => Mark::HandoverSeen,
        });
        let planned = reason.cause().is_planned();
        self.hit_if_away(if planned { Mark::MovedWhileAway } else { Mark::WorkerLostWhileAway }, marks);
        let (lost, since) = self.dropped_tap.take().expect("there was a worker to lose");
        assert_eq!(lost, attachment);
        self.last_lost = Some((attachment, reason));
        self.interruptions += 1;
        self.in_doubt += in_doubt;
        if now >= since + PROVEN_AFTER {
            self.outage = None;
        }
        self.outage.get_or_insert(now);
        if !self.is_exact() {
            return;
        }
        assert_eq!(in_doubt, self.sent - self.confirmed, "messages in doubt");
        if in_doubt > 0 {
            marks.hit(Mark::InDoubt);
        }
        if self.settings.replay == ReplayPolicy::Unsent {
            let expected = (in_doubt > 0).then(|| (Seq(self.confirmed + 1), Seq(self.sent)));
            assert_eq!(gap, expected);
            for fate in &mut self.fates[self.confirmed as usize..self.sent as usize] {
                *fate = Fate::InDoubt;
                marks.hit(Mark::GapSaid);
            }
            if let Some((Seq(first), Seq(last))) = expected {
                self.owes_gap(first, last);
            }
            self.confirmed = self.sent;
            self.confirmed_ever = self.confirmed;
        } else {
            assert_eq!(gap, None, "what is sent again is no gap");
            if reason.cause().is_planned() {
                marks.hit(if in_doubt == 0 { Mark::DrainedClean } else { Mark::DrainTimedOut });
            }
            self.sent = self.confirmed;
        }
    }

    fn end(&mut self, by: EndedBy, code: u16, reason: &str, now: Time, marks: &mut Marks) {
        if self.ended.is_some() {
            return self.ends_in_another_way(by, code, reason, marks);
        }
        self.client_ends(by, code, reason, marks);
        self.client_open = false;
        self.accepted_at_end = self.down.len() as u64;
        self.ended = Some((by, code, reason.to_owned()));
        match (by, reason) {
            (EndedBy::Holdline, "no backend within grace") => {
                marks.hit(Mark::GraceExpired);
                let since = self.outage.expect("grace runs in an outage only");
                assert!(now >= since + self.settings.farewell_grace(), "grace was cut short");
            }
            (EndedBy::Holdline, "backend lost") => marks.hit(Mark::BackendLossCloses),
            (EndedBy::Holdline, "the backend refused the credentials: 403") => marks.hit(Mark::Unauthorized),
            (EndedBy::Holdline, reason) if reason.starts_with("message ") => marks.hit(Mark::Poison),
            (EndedBy::Holdline, "out of memory") => marks.hit(Mark::Evicted),
            (EndedBy::Holdline, _) => {}
            (EndedBy::Client, "client too slow") => marks.hit(Mark::Stalled),
            (EndedBy::Backend, _) if code == 4004 && self.tap.is_none() => marks.hit(Mark::WrongWordPassedOn),
            (EndedBy::Backend, _) => marks.hit(Mark::BackendEnded),
            (EndedBy::Operator, _) => marks.hit(Mark::OperatorClosed),
            (EndedBy::Client, _) => {}
        }
    }
}
