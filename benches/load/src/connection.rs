//! One WebSocket of the bench: bytes in, whole frames out; bytes out, as the socket takes them; pings answered.

use std::cell::RefCell;
use std::io::ErrorKind;

use anyhow::bail;
use tokio::io::Interest;
use tokio::time::Instant;

use crate::link::Link;
use crate::wire::{self, BINARY, CLOSE, PING, PONG, TEXT};

const READ_BYTES: usize = 512 * 1024;
/// Bytes that wait to be written, beyond which nothing is read or made.
pub const OUTPUT_BYTES_MAX: usize = 512 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// What a peer said.
pub enum Heard<'a> {
    Data(&'a [u8]),
    Command(&'a [u8]),
}

pub struct Connection {
    link: Link,
    masked: bool,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    /// There is always more to say: `step` returns as soon as the socket has room.
    pub eager: bool,
    pub closed: bool,
    said_close: bool,
    /// The code and the reason of the peer's close frame.
    pub farewell: String,
}

impl Connection {
    pub fn new(link: impl Into<Link>, input: Vec<u8>, masked: bool) -> Self {
        Self {
            link: link.into(),
            masked,
            input,
            output: Vec::new(),
            written: 0,
            eager: false,
            closed: false,
            said_close: false,
            farewell: String::new(),
        }
    }

    pub const fn pending(&self) -> usize {
        self.output.len() - self.written
    }

    /// Queues a numbered message that says when it was meant to leave.
    pub fn put_data(&mut self, seq: u64, at_ns: u64, size: usize) {
        wire::put_header(&mut self.output, BINARY, size, self.masked);
        let start = self.output.len();
        self.output.extend_from_slice(&seq.to_le_bytes());
        self.output.extend_from_slice(&at_ns.to_le_bytes());
        self.output.resize(start + size.max(16), b'.');
    }

    /// The same with its number before it, which is one more.
    pub fn put_numbered(&mut self, seq: u64, at_ns: u64, size: usize) {
        let prefix = wire::number(seq + 1);
        wire::put_header(&mut self.output, BINARY, prefix.len() + size, self.masked);
        self.output.extend_from_slice(&prefix);
        let start = self.output.len();
        self.output.extend_from_slice(&seq.to_le_bytes());
        self.output.extend_from_slice(&at_ns.to_le_bytes());
        self.output.resize(start + size.max(16), b'.');
    }

    pub fn put(&mut self, opcode: u8, payload: &[u8]) {
        wire::put_header(&mut self.output, opcode, payload.len(), self.masked);
        self.output.extend_from_slice(payload);
    }

    pub fn put_close(&mut self) {
        self.said_close = true;
        self.put(CLOSE, &1000u16.to_be_bytes());
    }

    /// Waits until something happens or `until` has come, then moves what can be moved; frames go to `hear`.
    pub async fn step(
        &mut self,
        until: Option<Instant>,
        mut hear: impl FnMut(&mut Outgoing<'_>, Heard<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let eager = std::mem::take(&mut self.eager);
        let speaks = eager || self.pending() > 0 || self.link.owes();
        let interest = match (speaks, self.pending() < OUTPUT_BYTES_MAX) {
            (true, true) => Interest::READABLE | Interest::WRITABLE,
            (true, false) => Interest::WRITABLE,
            (false, _) => Interest::READABLE,
        };
        let ready = match until {
            None => self.link.ready(interest).await?,
            Some(until) => tokio::select! {
                biased;
                ready = self.link.ready(interest) => ready?,
                () = tokio::time::sleep_until(until) => return Ok(()),
            },
        };
        if ready.is_readable() {
            self.read(&mut hear)?;
        }
        self.flush()
    }

    fn read(
        &mut self,
        hear: &mut impl FnMut(&mut Outgoing<'_>, Heard<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        SCRATCH.with_borrow_mut(|scratch| {
            let count = match self.link.try_read(scratch) {
                Ok(0) => {
                    self.closed = true;
                    return Ok(());
                }
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            if self.input.is_empty() {
                let used = self.take(&mut scratch[..count], hear)?;
                self.input.extend_from_slice(&scratch[used..count]);
            } else {
                let mut input = std::mem::take(&mut self.input);
                input.extend_from_slice(&scratch[..count]);
                let used = self.take(&mut input, hear)?;
                input.drain(..used);
                self.input = if input.is_empty() { Vec::new() } else { input };
            }
            Ok(())
        })
    }

    fn take(
        &mut self,
        input: &mut [u8],
        hear: &mut impl FnMut(&mut Outgoing<'_>, Heard<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<usize> {
        let mut at = 0;
        while let Some(frame) = wire::split(&mut input[at..])? {
            let payload = &input[at + frame.start..at + frame.end];
            let mut outgoing = Outgoing { output: &mut self.output, masked: self.masked };
            match frame.opcode {
                BINARY => hear(&mut outgoing, Heard::Data(payload))?,
                TEXT => hear(&mut outgoing, Heard::Command(payload))?,
                PING => self.put(PONG, payload),
                PONG => {}
                CLOSE => {
                    self.farewell = farewell(payload);
                    if !self.said_close {
                        self.put_close();
                        self.flush()?;
                    }
                    self.closed = true;
                }
                other => bail!("opcode {other}"),
            }
            at += frame.end;
        }
        Ok(at)
    }

    pub fn flush(&mut self) -> anyhow::Result<()> {
        while self.pending() > 0 {
            match self.link.try_write(&self.output[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.link.push()?;
        if self.pending() == 0 {
            self.written = 0;
            self.output.clear();
            if self.output.capacity() > 2 * OUTPUT_BYTES_MAX {
                self.output = Vec::new();
            }
        }
        Ok(())
    }
}

fn farewell(payload: &[u8]) -> String {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else { return "no code".to_owned() };
    format!("{} {}", u16::from_be_bytes(*code), String::from_utf8_lossy(reason))
}

/// Where an answer to a frame goes.
pub struct Outgoing<'a> {
    output: &'a mut Vec<u8>,
    masked: bool,
}

impl Outgoing<'_> {
    pub fn put(&mut self, opcode: u8, payload: &[u8]) {
        wire::put_header(self.output, opcode, payload.len(), self.masked);
        self.output.extend_from_slice(payload);
    }
}

/// The number and the intended time in a message.
pub fn numbers(payload: &[u8]) -> anyhow::Result<(u64, u64)> {
    match (payload.first_chunk::<8>(), payload.get(8..16).and_then(|rest| rest.first_chunk::<8>())) {
        (Some(seq), Some(at)) => Ok((u64::from_le_bytes(*seq), u64::from_le_bytes(*at))),
        _ => bail!("a message of {} bytes", payload.len()),
    }
}

/// Nanoseconds since the epoch: both ends run on one machine.
pub fn now_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
