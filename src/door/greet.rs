//! A client that says which pipe it comes back to (PROTOCOL section 7): it is answered at once, heard, and sent to its pipe.
//!
//! The pipe that it names is not looked for before it has shown its token, and no backend is asked for anything. Invariant:
//! whatever is wrong with what it shows, it is told the same, and each failure counts against its address.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use holdline_core::aware::first::{First, first_word};
use holdline_core::aware::{Heard, Hello, Position, Reject, codes};
use holdline_core::close::CloseFrame;
use holdline_core::frame::{self, Opcode};
use holdline_core::ids::PipeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::Door;
use super::judge::busy;
use super::outcome::{Refused, Request, Verdict};
use crate::handshake::aware::Offer;
use crate::metrics::labels::{ResumeResult, Transport};
use crate::net::{ClientStream, LooseStream};
use crate::phase::Phase;
use crate::pipe::rejection;
use crate::pipes::{Command, PipeEntry, Resume, Returned};
use crate::process::Process;
use crate::resume::{Claims, Place, Principal, UnixTime};
use crate::routes::Route;

/// A client that is to be answered and then heard.
#[derive(Debug)]
pub struct Greeting {
    /// The entry of its offer that is picked.
    pub protocol: String,
    pipe: PipeId,
    route: Arc<Route>,
    address: IpAddr,
    principal: Principal,
    place: Place,
    resume: Resume,
    process: Arc<Process>,
}

impl Door {
    /// What becomes of a client that names its pipe, if it does.
    ///
    /// # Errors
    /// It may not try now.
    pub(super) fn greet(
        &self,
        request: &Request,
        offer: &Offer,
        resume: impl FnOnce() -> Resume,
    ) -> Result<Option<Verdict>, Refused> {
        let (Some(pipe), Some((protocol, app))) = (offer.pipe, offer.first_aware()) else { return Ok(None) };
        let process = &self.process;
        let route = &request.found.route;
        if process.phase.get() == Phase::Stopping {
            return Err(busy("going away; another instance may take this").into());
        }
        let address = request.client.address;
        process.limits.may_resume(address).map_err(|exceeded| self.exceeds(&route.name, exceeded))?;
        let host = crate::handshake::check::host(&request.parts);
        Ok(Some(Verdict::Greet(Box::new(Greeting {
            protocol: protocol.to_owned(),
            pipe,
            route: route.clone(),
            address,
            principal: request.principal(),
            place: Place::of(host, request.parts.uri.path(), app),
            resume: resume(),
            process: process.clone(),
        }))))
    }
}

/// How a greeting ends on its own link.
enum Farewell {
    /// The client has broken the protocol.
    Close(CloseFrame),
    /// It may not go on.
    Reject(Reject),
}

impl Greeting {
    /// The pipe that the client names.
    pub const fn pipe(&self) -> PipeId {
        self.pipe
    }

    /// Hears the client out, and sends it to its pipe.
    pub async fn hear(self, mut stream: ClientStream, unread: Bytes) {
        let mut read = BytesMut::from(unread);
        let patience = self.route.settings.aware.hello_timeout;
        let word = match timeout(patience, first_of(&mut stream, &mut read)).await {
            Ok(Ok(word)) => word,
            // It is gone.
            Ok(Err(_)) => return,
            Err(_) => First::Other(CloseFrame::new(codes::PROTOCOL, "no hello in time")),
        };
        let farewell = match word {
            First::Word(Heard::Hello(Some(hello)), len) => {
                match (self.claims(&hello), self.process.pipes.get(self.pipe)) {
                    (Some(claims), Some(pipe)) => {
                        let rest = read.split_off(len).freeze();
                        return self.send_to(&pipe, stream, rest, claims, hello.position);
                    }
                    _ => {
                        self.process.limits.resume_failed(self.address);
                        Farewell::Reject(Reject::Unknown)
                    }
                }
            }
            First::Word(Heard::Hello(None), _) => Farewell::Close(protocol("hello without resume")),
            First::Word(Heard::OtherVersion, _) => Farewell::Reject(Reject::Version),
            First::Word(..) | First::More => Farewell::Close(protocol("hello expected")),
            First::Other(frame) => Farewell::Close(frame),
        };
        let transport = Transport::of(&stream);
        self.process.metrics.route(&self.route.name).resume(transport, ResumeResult::Rejected).inc();
        say_farewell(&mut stream, &farewell, self.route.settings.close_timeout).await;
    }

    /// What the client's token says, if it is good for the pipe that it names, here and for its credentials.
    fn claims(&self, hello: &Hello) -> Option<Claims> {
        let claims = self.process.resume_keys.load().verify(&hello.token, UnixTime::now()).ok()?;
        let is_own = claims.pipe == self.pipe && hello.pipe == self.pipe;
        (is_own && claims.principal == self.principal && claims.place == self.place).then_some(claims)
    }

    fn send_to(self, pipe: &PipeEntry, stream: ClientStream, rest: Bytes, claims: Claims, position: Position) {
        let socket = match LooseStream::loosen(stream) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(pipe = %self.pipe, %error, "a client that came back could not be attached");
                return;
            }
        };
        let returned = Returned { resume: self.resume, claims, position, address: self.address };
        // A pipe that takes no order drops it: the client is closed without a word, and tries again.
        pipe.order(Command::Return(socket, rest, Box::new(returned)));
    }
}

fn protocol(reason: &str) -> CloseFrame {
    CloseFrame::new(codes::PROTOCOL, reason)
}

/// Reads until the first word is whole.
async fn first_of(stream: &mut ClientStream, read: &mut BytesMut) -> io::Result<First> {
    loop {
        match first_word(read) {
            First::More => {}
            word => return Ok(word),
        }
        if stream.read_buf(read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Tells a client why it may not go on, and waits within `patience` until it has closed.
async fn say_farewell(stream: &mut ClientStream, farewell: &Farewell, patience: Duration) {
    let words = farewell_words(farewell);
    let saying = async {
        stream.write_all(&words).await?;
        stream.shutdown().await?;
        let mut sink = [0; 512];
        while stream.read(&mut sink).await? > 0 {}
        io::Result::Ok(())
    };
    // One that does not listen is left.
    let _ = timeout(patience, saying).await;
}

fn farewell_words(farewell: &Farewell) -> Vec<u8> {
    match farewell {
        Farewell::Close(close) => {
            let mut words = Vec::new();
            frame::encode(&mut words, Opcode::Close, &close.payload(), None);
            words
        }
        Farewell::Reject(why) => rejection(*why),
    }
}
