//! How a pipe's client goes, and how it comes back on another socket.

use std::sync::Arc;
use std::task::Context;

use bytes::Bytes;
use holdline_core::aware::Reject;
use holdline_core::close::CloseFrame;
use holdline_core::frame::{self, Opcode};
use holdline_core::ids::Generation;
use holdline_core::pipe::Returning;
use holdline_core::time::Time;
use tokio::sync::oneshot;

use super::Driver;
use crate::limits::significant_bits;
use crate::metrics::labels::{LimitLabel, ListenerLabel};
use crate::net::LooseStream;
use crate::pipe::attach::Plan;
use crate::pipe::aware::{next_token, rejection};
use crate::pipe::client_end::{Away, ClientLink};
use crate::pipes::{Command, Resume, Returned, Stay};
use crate::routes::Duplicate;

impl Driver {
    /// The client is there on another socket, which takes the place of one that it may still have.
    pub(super) fn client_resumes(
        &mut self,
        socket: LooseStream,
        first: Bytes,
        resume: Resume,
        cx: &mut Context<'_>,
        now: Time,
    ) {
        let Some(link) = self.bind(socket, first) else { return };
        let (answer, over) = (resume.answer, resume.over);
        if over.is_some_and(|over| self.client.has_another_than(over)) {
            // Another one that was told apart from its client has come back before it.
            return self.turn_away(link, &CloseFrame::new(1012, "come again"), cx);
        }
        if self.client.is_outdated(answer) {
            return self.turn_away(link, &CloseFrame::new(self.plan.settings.replaced_code, "replaced"), cx);
        }
        let rejects = self.plan.route.identity.as_ref().is_some_and(|it| it.duplicate == Duplicate::Reject);
        if rejects && self.client.is_linked() {
            // Two came at once, and both found the pipe without a client.
            return self.turn_away(link, &CloseFrame::new(1008, "connected already"), cx);
        }
        let Some(generation) = self.pipe.client_attached(None, now) else {
            return self.turn_away(link, &CloseFrame::new(1012, "come again"), cx);
        };
        self.entry().set_transport(link.transport());
        // The old socket goes by the order that names it, before the new one is there.
        self.act(cx, now);
        self.client.attach(link, generation, answer);
        self.has_come_back(resume);
    }

    /// The link of a client that came back, on this thread; nothing if the system refuses it.
    fn bind(&self, socket: LooseStream, first: Bytes) -> Option<ClientLink> {
        match socket.bind() {
            Ok(stream) => Some(ClientLink::socket(stream, first)),
            Err(error) => {
                tracing::warn!(pipe = %self.entry().id, %error, "a client that came back could not be attached");
                None
            }
        }
    }

    /// An aware client is there on another socket: whether it may go on, the core says.
    pub(super) fn client_returns(
        &mut self,
        socket: LooseStream,
        first: Bytes,
        returned: Returned,
        cx: &mut Context<'_>,
        now: Time,
    ) {
        let Some(link) = self.bind(socket, first) else { return };
        let Returned { resume, claims, position, address } = returned;
        let token = next_token(&self.process, &claims, self.pipe.next_generation());
        let (generation, is_contested) = (claims.generation, self.client.is_attended());
        let returning = Returning { generation, position, token: token.as_str(), is_contested };
        let generation = match self.pipe.client_resumes(&returning, now) {
            Ok(generation) => generation,
            Err(why) => {
                if why == Reject::Unknown {
                    self.process.limits.resume_failed(address);
                }
                self.books.report.resume_rejected(why, link.transport());
                return self.client.part_from(link, rejection(why), self.plan.settings.close_timeout, cx);
            }
        };
        self.entry().set_transport(link.transport());
        // The old socket goes by the order that names it, before the new one is there.
        self.act(cx, now);
        let answer = self.entry().next_answer();
        self.client.attach(link, generation, answer);
        self.has_come_back(resume);
    }

    /// Takes note of what a client that is back has that is another than before.
    fn has_come_back(&mut self, resume: Resume) {
        let Resume { target, host, head_lines, client, answer: _, over: _ } = resume;
        self.entry().set_client(client.address.to_string());
        self.plan = Arc::new(Plan { target, host, announced: Some(client), head_lines, ..(*self.plan).clone() });
    }

    /// Asks the client whether it is there. One that cannot be asked, because nothing is read of it now, counts as there.
    pub(super) fn probe_client(&mut self, answer: oneshot::Sender<()>) {
        if !self.client.takes() {
            return;
        }
        if let Some(answer) = if self.pipe.ping_client() { self.client.probe(answer) } else { Some(answer) } {
            // The one that asked may have given up.
            let _ = answer.send(());
        }
    }

    /// Says whether the client is awaited, before either peer hears anything from which it could conclude otherwise.
    pub(super) fn say_who_is_awaited(&self) {
        if self.plan.settings.client_grace.is_some() {
            self.entry().set_awaits_client(self.pipe.awaits_client());
        }
    }

    /// Drops the client's link, if it is the one that is meant.
    pub(super) fn drop_client(&mut self, generation: Generation, last_words: Vec<u8>, cx: &mut Context<'_>) {
        let Some(link) = self.client.take_link(generation) else { return };
        if self.pipe.awaits_client() {
            let absent = self.process.metrics.absent(ListenerLabel::Public);
            let stay = self.linger();
            self.client.await_client(Away { absent, stay });
        }
        self.client.part_from(link, last_words, self.plan.settings.close_timeout, cx);
    }

    /// Puts the pipe among those that may have to make room; one of the same address may have to at once.
    pub(super) fn linger(&self) -> Stay {
        let address = self.entry().client().parse().map_or(0, significant_bits);
        let max = self.process.config.load().limits.address_detached as usize;
        let (stay, goes) = self.process.pipes.lingering.enter(self.entry().clone(), address, max);
        if let Some(pipe) = goes {
            self.process.metrics.route(&pipe.route.name).limited(LimitLabel::AddressDetached).inc();
            pipe.order(Command::make_room());
        }
        stay
    }

    fn turn_away(&mut self, link: ClientLink, frame: &CloseFrame, cx: &mut Context<'_>) {
        let mut words = Vec::new();
        frame::encode(&mut words, Opcode::Close, &frame.payload(), None);
        self.client.part_from(link, words, self.plan.settings.close_timeout, cx);
    }
}
