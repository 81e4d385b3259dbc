//! What others may want of a pipe: the orders that its mailbox holds, and the answers to them.

use bytes::Bytes;
use holdline_core::close::CloseFrame;
use holdline_core::frame::Kind;
use holdline_core::ids::{Attachment, BackendKey, Seq};
use holdline_core::labels::{LabelError, Relabel};
use holdline_core::memory::Evict;
use holdline_core::pipe::{EndedBy, Unsaid};
use tokio::sync::{mpsc, oneshot};

use super::passport::Freeze;
use super::{Resume, Returned, Tap};
use crate::backends::Leave;
use crate::net::LooseStream;

/// Commands that wait for one pipe at most; the next one is refused.
pub const COMMANDS_MAX: usize = 16;

/// An order to one pipe.
#[derive(Debug)]
pub enum Command {
    /// Move to another worker in good order.
    Reattach,
    /// Leave this backend, in the way that its operator wishes.
    Leave(BackendKey, Leave),
    /// Close the client.
    Close(EndedBy, CloseFrame),
    /// Free what the pipe holds and close the client with 1013: memory is out.
    Evict(Evict),
    /// Here is the client, on another socket, and what it sent behind its handshake.
    Resume(LooseStream, Bytes, Box<Resume>),
    /// Ask the client whether it is there: it is if this is answered, and has gone if it is dropped.
    Probe(oneshot::Sender<()>),
    /// Here is an aware client, on another socket, and what it sent behind its hello.
    Return(LooseStream, Bytes, Box<Returned>),
    /// Say this to the client.
    Say(Kind, Bytes, Ticket),
    /// Change its labels, if they are in this version still.
    Label(Box<Relabel>, Option<u64>, oneshot::Sender<Result<(), NotLabelled>>),
    /// The worker of this attach has committed everything up to there; the answer is what is confirmed now.
    Commit(Attachment, Seq, oneshot::Sender<Option<Seq>>),
    /// Let an operator look on.
    Tap(Box<Tap>, oneshot::Sender<Result<(), AlreadyTapped>>),
    /// Stand still for another process.
    Freeze(Box<Freeze>),
}

/// Another operator looks on already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AlreadyTapped;

/// Why the labels of a pipe are as they were.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotLabelled {
    /// They are in another version than the one that was to be changed.
    Changed,
    /// They would be more than a pipe may have.
    Refused(LabelError),
}

/// What became of a message for one client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hearing {
    /// It is in the lane down to the client.
    Taken,
    /// The pipe would not take it.
    Refused(Unsaid),
    /// The pipe's mailbox was full.
    Busy,
    /// The pipe was gone before it could answer.
    Gone,
}

/// Where the answer about one message goes. It is given exactly once, even when the pipe ends first.
#[derive(Debug)]
pub struct Ticket(Option<mpsc::Sender<Hearing>>);

impl Ticket {
    /// A ticket whose answer goes to `answers`, which must have room for it.
    #[must_use]
    pub const fn new(answers: mpsc::Sender<Hearing>) -> Self {
        Self(Some(answers))
    }

    /// Gives the answer.
    pub fn answer(mut self, hearing: Hearing) {
        self.send(hearing);
    }

    fn send(&mut self, hearing: Hearing) {
        if let Some(answers) = self.0.take() {
            // The asker may have given up.
            let _ = answers.try_send(hearing);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.send(Hearing::Gone);
    }
}

impl Command {
    /// The end of a pipe whose client is away, for the sake of one that is there.
    #[must_use]
    pub fn make_room() -> Self {
        Self::Close(EndedBy::Holdline, CloseFrame::new(1013, "its place was needed"))
    }

    /// The close of a process whose pipes have gone to another one, which this pipe could not.
    #[must_use]
    pub fn left_behind() -> Self {
        Self::Close(EndedBy::Operator, CloseFrame::new(1012, "service restart"))
    }

    /// The close of a process on its way down.
    #[must_use]
    pub fn going_away() -> Self {
        Self::Close(EndedBy::Operator, CloseFrame::new(1001, "server is going away"))
    }
}
