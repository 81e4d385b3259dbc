//! What the pipe does about its conversation: messages are looked at, the next worker hears what it must, and an answer
//! that the client has had is held back.
//!
//! Only a conversation that is undecided or has a profile is read at all; for every other, nothing here is done per
//! message. Invariant: while a prologue plays, the replay is withheld.

use super::{Fact, Interruption, Pipe, PrologueFailure};
use crate::assembler::Message;
use crate::close::CloseFrame;
use crate::conversation::first::{BY_FIRST_MESSAGE, BY_PROFILE_IN_VAIN, Shown, shown_by};
use crate::conversation::inflate;
use crate::conversation::profile::RULES;
use crate::conversation::{Conversation, ConversationKind, Heard, Prologue, Said};
use crate::frame::{self, Kind, Side};
use crate::ids::Seq;
use crate::leg::BackendState;
use crate::leg::barrier::Level;
use crate::settings::BackendLoss;
use crate::time::Time;

impl Pipe {
    /// Says what the conversation is, and by what that is known. For a pipe that has taken in nothing yet.
    pub fn converse(&mut self, conversation: Conversation, why: &'static str) {
        self.conversation = conversation;
        let (kind, profile) = self.conversation.kind();
        if kind != ConversationKind::Undecided {
            let profile = profile.cloned();
            self.report(Fact::Conversation { kind, profile, why });
        }
    }

    /// What the conversation is, and by which profile.
    #[must_use]
    pub fn conversation(&self) -> (ConversationKind, Option<&str>) {
        let (kind, profile) = self.conversation.kind();
        (kind, profile.map(|name| &**name))
    }

    /// Whether another worker can carry the conversation on.
    #[must_use]
    pub fn moves(&self) -> bool {
        self.settings.on_backend_loss == BackendLoss::Reattach && self.conversation.moves()
    }

    /// Accepts the message of `side` that the bytes pushed so far make whole, and takes note of what it means.
    pub(super) fn accept_read(&mut self, side: Side, message: Message, now: Time) {
        let lane = match side {
            Side::Client => &self.up,
            Side::Backend => &self.down,
        };
        let is_small = message.payload_bytes as usize <= self.settings.prologue.inspect_max;
        let is_read = is_small || self.conversation.prologue().is_some_and(Prologue::reads_all);
        let came = is_read.then(|| lane.buffer.coming(message).opened(side)).flatten();
        if matches!(self.conversation, Conversation::Undecided) {
            let plain = came.as_ref().and_then(|(kind, payload, compressed)| match compressed {
                true => Some((*kind, inflate(payload, self.settings.prologue.inspect_max)?)),
                false => Some((*kind, payload.clone())),
            });
            self.decide(side, plain);
        }
        let opened = came.filter(|(.., compressed)| !compressed).map(|(kind, payload, _)| (kind, payload));
        match side {
            Side::Client => self.client_said(message, opened),
            Side::Backend => self.worker_said(message, opened, now),
        }
    }

    /// The first message shows what this is, or that nothing shows it.
    fn decide(&mut self, side: Side, opened: Option<(Kind, Vec<u8>)>) {
        let bounds = self.settings.prologue;
        let profiles = &self.settings.profiles;
        let named = |name| Some(Conversation::Profiled(Box::new(Prologue::new(profiles.named(name)?, bounds))));
        let shown = opened.and_then(|(kind, payload)| shown_by(side, kind, &payload)).and_then(|shown| match shown {
            Shown::Profile(name) if self.compressed => {
                let opens_each_connection = profiles.named(name)?.opens_each_connection();
                Some((Conversation::Stateful { opens_each_connection }, BY_PROFILE_IN_VAIN))
            }
            Shown::Profile(name) => named(name).map(|it| (it, BY_FIRST_MESSAGE)),
            Shown::Stateful => Some((Conversation::Stateful { opens_each_connection: true }, BY_FIRST_MESSAGE)),
        });
        let (conversation, why) = match (shown, named(RULES)) {
            (Some(shown), _) => shown,
            (None, Some(_)) if self.compressed => {
                (Conversation::Stateful { opens_each_connection: false }, BY_PROFILE_IN_VAIN)
            }
            (None, Some(conversation)) => (conversation, "route"),
            (None, None) => (Conversation::Stateless, "unknown"),
        };
        self.converse(conversation, why);
    }

    fn client_said(&mut self, message: Message, opened: Option<(Kind, Vec<u8>)>) {
        let (seq, confirmed) = (self.up.buffer.accepted().plus(1), self.up.buffer.confirmed());
        let (kind, said) = match (self.conversation.prologue_mut(), opened) {
            (Some(prologue), Some((kind, payload))) => (kind, prologue.client_said(kind, &payload, seq, confirmed)),
            (None, _) | (_, None) => (Kind::Text, Said::default()),
        };
        match said.instead {
            Some(payload) => {
                self.up.buffer.discard_partial();
                self.up.payload_bytes += u64::from(message.payload_bytes);
                let (bytes, message) = self.framed_up(kind, &payload);
                self.up.buffer.insert(&bytes, message);
            }
            None => self.up.accept(message),
        }
        if said.overflows {
            self.report(Fact::PrologueFailed(PrologueFailure::Overflow));
        }
    }

    /// A message of ours for the lane up to the worker.
    fn framed_up(&mut self, kind: Kind, payload: &[u8]) -> (Vec<u8>, Message) {
        let mut bytes = Vec::with_capacity(frame::HEADER_BYTES_MAX + payload.len());
        frame::encode(&mut bytes, kind.opcode(), payload, Some(self.draw.key()));
        let message = Message { wire_bytes: bytes.len() as u32, payload_bytes: payload.len() as u32 };
        (bytes, message)
    }

    fn worker_said(&mut self, message: Message, opened: Option<(Kind, Vec<u8>)>, now: Time) {
        let sent = self.up.buffer.sent();
        let (kind, heard) = match (self.conversation.prologue_mut(), opened) {
            (Some(prologue), Some((kind, payload))) => (kind, prologue.worker_said(kind, &payload, sent)),
            (None, _) | (_, None) => (Kind::Text, Heard::default()),
        };
        if heard.cut {
            self.report(Fact::PrologueFailed(PrologueFailure::Cut));
        }
        match heard.left {
            Some(left) => {
                self.down.buffer.discard_partial();
                if heard.swallowed {
                    self.report(Fact::PrologueSwallowed);
                }
                if !left.is_empty() {
                    self.insert_down(kind, &left);
                }
            }
            None => self.down.accept(message),
        }
        if !heard.refused {
            self.worker_talked();
        }
        match heard.read_up_to {
            Some(seq) => self.confirm_up(seq, Level::Pong, now),
            None => self.part_if_settled(now),
        }
        self.play(now);
    }

    /// Tells a worker that has just been attached what it must know, but for the first `foretold` messages, which it has
    /// had while it waited.
    pub(super) fn begin_prologue(&mut self, foretold: u64, now: Time) {
        let sent = self.up.buffer.sent();
        if let Some(prologue) = self.conversation.prologue_mut() {
            prologue.begin(sent, now);
            for _ in 0..foretold {
                prologue.next(now);
            }
            if foretold > 0 {
                self.report(Fact::PrologueSent { messages: foretold });
            }
            self.play(now);
            self.withhold();
        }
    }

    /// What a worker that waits to take over hears at once, so that its answer proves it: the messages of the prologue up
    /// to the first that is answered before anything else is said.
    pub(super) fn foretold(&self) -> Vec<(Kind, Box<[u8]>)> {
        let sent = Seq(self.first_seq().0 - 1);
        self.conversation.prologue().map_or_else(Vec::new, |prologue| prologue.foretold(sent))
    }

    /// Sends what is due of the prologue, up to a gate or to its end.
    fn play(&mut self, now: Time) {
        let Some(prologue) = self.conversation.prologue_mut().filter(|prologue| prologue.is_playing()) else { return };
        let (mut bytes, mut messages) = (Vec::new(), 0);
        while let Some((kind, payload)) = prologue.next(now) {
            frame::encode(&mut bytes, kind.opcode(), payload, Some(self.draw.key()));
            messages += 1;
        }
        let over = !prologue.is_playing();
        if let Some(link) = self.backend.link_mut() {
            link.codec.open_with(&bytes);
        }
        if messages > 0 {
            self.report(Fact::PrologueSent { messages });
        }
        if over {
            self.rename_waiting();
            self.withhold();
        }
    }

    /// Rewrites what the client has said of something by the name that a lost worker gave it.
    fn rename_waiting(&mut self) {
        let outdated = self.conversation.prologue().map_or_else(Vec::new, Prologue::outdated);
        for seq in outdated {
            let held = self.up.buffer.messages_after(Seq(seq.0 - 1)).next().filter(|held| held.seq() == seq);
            let Some((kind, payload)) = held.and_then(|held| held.open(Side::Client)) else { continue };
            let renamed = self.conversation.prologue_mut().and_then(|it| it.renamed(seq, kind, &payload));
            if let Some(payload) = renamed {
                let (bytes, message) = self.framed_up(kind, &payload);
                self.up.buffer.replace_waiting(seq, &bytes, message);
            }
        }
    }

    /// Holds the lane's messages back from the worker, or lets them go.
    pub(super) fn withhold(&mut self) {
        let playing = self.conversation.prologue().is_some_and(Prologue::is_playing);
        let leaving = self.backend.leaves_for().is_some();
        if let Some(worker) = self.backend.worker_mut() {
            worker.link.codec.set_withheld(leaving || playing || worker.delayed_until.is_some());
        }
    }

    /// The worker that had been sent everything up to `sent` is gone, and the lane is rewound: an exchange that is over
    /// or must not begin again does not go to the next.
    pub(super) fn end_exchanges(&mut self, sent: Seq, confirmed: Seq, now: Time) {
        let Some(prologue) = self.conversation.prologue_mut() else { return };
        let moved = prologue.is_repeatable();
        let undone = prologue.worker_lost(sent, confirmed);
        if moved && !prologue.is_repeatable() {
            self.report(Fact::PrologueFailed(PrologueFailure::Cut));
        }
        for undone in undone {
            self.up.buffer.drop_waiting(undone.seq);
            let Some(regret) = undone.regret.filter(|_| self.client.is_open()) else { continue };
            self.report(Fact::PrologueFailed(PrologueFailure::Exchange));
            self.insert_down(Kind::Text, &regret);
            self.after_down(now);
        }
    }

    /// Puts a message of ours into the lane down to the client.
    pub(super) fn insert_down(&mut self, kind: Kind, payload: &[u8]) -> Seq {
        let mut bytes = Vec::with_capacity(frame::HEADER_BYTES_MAX + payload.len());
        frame::encode(&mut bytes, kind.opcode(), payload, None);
        let message = Message { wire_bytes: bytes.len() as u32, payload_bytes: payload.len() as u32 };
        self.down.payload_bytes += u64::from(message.payload_bytes);
        self.down.buffer.insert(&bytes, message)
    }

    /// Whether an exchange is under way that no other worker could end.
    pub(super) fn has_exchange(&self) -> bool {
        let sent = self.up.buffer.sent();
        self.conversation.prologue().is_some_and(|prologue| prologue.has_exchange(sent))
    }

    /// When the worker has taken too long to answer its prologue.
    pub(super) fn prologue_ends(&self) -> Option<Time> {
        self.conversation.prologue()?.deadline()
    }

    /// The worker did not answer: it is as good as one that could not be attached.
    pub(super) fn prologue_unanswered(&mut self, now: Time) {
        self.report(Fact::PrologueFailed(PrologueFailure::Unanswered));
        let frame = CloseFrame::new(1001, "the conversation could not go on here");
        if self.backend.state() == BackendState::Closing {
            self.lost_while_closing(Interruption::Unanswered, Some(&frame), now);
        } else {
            self.interrupt(Interruption::Unanswered, Some(&frame), now);
        }
    }
}
