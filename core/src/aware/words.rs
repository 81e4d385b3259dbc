//! Control words: a text message of `!` and one JSON object, whose `t` says what it is.
//!
//! Owns their form both ways. A member that is not known is read over, so that a later version may say more; one that is
//! missing or of another kind makes the word malformed. Invariant: what is written here is one object in one line.

use std::fmt::Write;

use super::NUMBER_MAX;
use super::json::Value;
use super::number::WORD_MARK;
use crate::close::{self, CloseFrame, NO_CODE, REASON_BYTES_MAX};
use crate::conversation::json::quote;
use crate::ids::{Generation, LaneName, PipeId};

/// Bytes of a control word at most, its mark included.
pub const WORD_BYTES_MAX: usize = 4096;

/// The version of the protocol that is spoken here.
pub const VERSION: u64 = 1;

/// What a client that comes back says of itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Hello {
    /// The pipe that it had.
    pub pipe: PipeId,
    /// What it has to show for it.
    pub token: String,
    /// Where it stands.
    pub position: Position,
}

/// Shows all but the token.
impl std::fmt::Debug for Hello {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hello({}, {:?})", self.pipe, self.position)
    }
}

/// Where a client stands that comes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// The pipe's epoch, as it knows it.
    pub epoch: u64,
    /// The last number that it has received.
    pub rx: u64,
    /// The first number that it can send again.
    pub tx_first: u64,
    /// The number of its next new message.
    pub tx_next: u64,
}

/// A word that a peer said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// It is there: anew, or to go on.
    Hello(Option<Box<Hello>>),
    /// It speaks another version.
    OtherVersion,
    /// It has everything up to `n`.
    Ack {
        /// The last number received.
        n: u64,
    },
    /// It has given up messages of its own.
    Gap {
        /// The first number missing, or the next one if it is not known how many are.
        from: u64,
        /// How many are missing, if that is known.
        count: Option<u64>,
        /// Why.
        why: GapWhy,
    },
    /// It ends the conversation in good order.
    Fin {
        /// What it would say in a close frame.
        frame: CloseFrame,
        /// The last number that it has sent.
        n: u64,
    },
    /// It asks whether we are there, or answers.
    Beat {
        /// Which question.
        n: u64,
    },
}

/// A word of a worker that was greeted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It has nothing of the conversation.
    Welcome,
    /// It has what came up to `rx` in its state.
    Resumed {
        /// The last number that it has.
        rx: u64,
    },
    /// It wants the pipe to go elsewhere.
    Reject,
    /// It will go, and wants to be left.
    Goaway,
    /// What any peer may say.
    Word(Heard),
}

impl Answer {
    /// Reads the word that a worker's text message `text` is.
    ///
    /// # Errors
    /// [`Malformed`] if it is none.
    pub fn read(text: &[u8]) -> Result<Self, Malformed> {
        let (name, value) = word(text)?;
        match name.as_str() {
            "welcome" => Ok(Self::Welcome),
            "resumed" => number(&value, "rx").map(|rx| Self::Resumed { rx }),
            "reject" => Ok(Self::Reject),
            "goaway" => Ok(Self::Goaway),
            "hello" => Err(UNKNOWN),
            name => Heard::of(name, &value, LaneName::Down).map(Self::Word),
        }
    }
}

/// A word that is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed(
    /// What its sender is told.
    pub &'static str,
);

const MALFORMED: Malformed = Malformed("malformed control message");
const UNKNOWN: Malformed = Malformed("unknown control message");

impl Heard {
    /// Reads the word that the text message `text` is.
    ///
    /// # Errors
    /// [`Malformed`] if it is none.
    pub fn read(text: &[u8]) -> Result<Self, Malformed> {
        let (name, value) = word(text)?;
        Self::of(&name, &value, LaneName::Up)
    }

    /// The word of this name of a peer that sends into `lane`.
    fn of(name: &str, value: &Value, lane: LaneName) -> Result<Self, Malformed> {
        match name {
            "hello" => hello(value),
            "ack" => number(value, "n").map(|n| Self::Ack { n }),
            "gap" => gap(value, lane),
            "fin" => fin(value),
            "hb" => number(value, "n").map(|n| Self::Beat { n }),
            _ => Err(UNKNOWN),
        }
    }
}

/// The name of the word that `text` is, and the word.
fn word(text: &[u8]) -> Result<(String, Value), Malformed> {
    let value = text.strip_prefix(&[WORD_MARK]).and_then(Value::read).ok_or(MALFORMED)?;
    let name = value.member("t").and_then(Value::text).ok_or(MALFORMED)?.clone();
    Ok((name, value))
}

fn number(value: &Value, name: &str) -> Result<u64, Malformed> {
    value.member(name).and_then(Value::number).filter(|&number| number <= NUMBER_MAX).ok_or(MALFORMED)
}

fn text<'a>(value: &'a Value, name: &str) -> Result<&'a String, Malformed> {
    value.member(name).and_then(Value::text).ok_or(MALFORMED)
}

fn hello(value: &Value) -> Result<Heard, Malformed> {
    if number(value, "v")? != VERSION {
        return Ok(Heard::OtherVersion);
    }
    let Some(resume) = value.member("resume") else { return Ok(Heard::Hello(None)) };
    let Some(Value::List(tx)) = resume.member("tx") else { return Err(MALFORMED) };
    let &[Value::Number(tx_first), Value::Number(tx_next)] = tx.as_slice() else { return Err(MALFORMED) };
    if tx_first == 0 || tx_first > tx_next || tx_next > NUMBER_MAX {
        return Err(MALFORMED);
    }
    Ok(Heard::Hello(Some(Box::new(Hello {
        pipe: PipeId::parse(text(resume, "id")?).ok_or(MALFORMED)?,
        token: text(resume, "token")?.clone(),
        position: Position { epoch: number(resume, "epoch")?, rx: number(resume, "rx")?, tx_first, tx_next },
    }))))
}

fn gap(value: &Value, lane: LaneName) -> Result<Heard, Malformed> {
    if text(value, "lane")? != lane.as_str() {
        return Err(MALFORMED);
    }
    let from = number(value, "from")?;
    let count = match value.member("count") {
        Some(Value::Null) => None,
        Some(_) => Some(number(value, "count")?),
        None => return Err(MALFORMED),
    };
    let why = text(value, "why")?;
    let why = GapWhy::ALL.into_iter().find(|known| known.as_str() == why).ok_or(MALFORMED)?;
    let is_sound = from > 0 && count.is_none_or(|count| count > 0 && from + count <= NUMBER_MAX);
    if is_sound { Ok(Heard::Gap { from, count, why }) } else { Err(MALFORMED) }
}

fn fin(value: &Value) -> Result<Heard, Malformed> {
    let code = u16::try_from(number(value, "code")?).map_err(|_| MALFORMED)?;
    let reason = text(value, "reason")?;
    let is_sound = close::is_sendable(code) && reason.len() <= REASON_BYTES_MAX || code == NO_CODE && reason.is_empty();
    if !is_sound {
        return Err(MALFORMED);
    }
    Ok(Heard::Fin { frame: CloseFrame { code, reason: reason.clone() }, n: number(value, "n")? })
}

/// Why a client may not go on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reject {
    /// There is no such pipe, or the token is not good for it: one answer for all of these.
    Unknown,
    /// Its numbers are not the pipe's.
    Epoch,
    /// Other connections of the same client take its place over and over.
    Taken,
    /// It may try again later.
    Busy,
    /// It speaks another version.
    Version,
}

impl Reject {
    /// Every reason, for metrics that list them.
    pub const ALL: [Self; 5] = [Self::Unknown, Self::Epoch, Self::Taken, Self::Busy, Self::Version];

    /// The name on the wire and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Epoch => "epoch",
            Self::Taken => "taken",
            Self::Busy => "busy",
            Self::Version => "version",
        }
    }
}

/// Why messages are missing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum GapWhy {
    /// There was no room for them.
    Overflow,
    /// They were too old.
    Ttl,
    /// They made way, as the route wants it.
    Policy,
    /// A worker had them, and was lost.
    BackendLost,
    /// A node had them, and was lost.
    NodeLost,
}

impl GapWhy {
    /// Every reason, for metrics that list them.
    pub const ALL: [Self; 5] = [Self::Overflow, Self::Ttl, Self::Policy, Self::BackendLost, Self::NodeLost];

    /// The name on the wire and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Overflow => "overflow",
            Self::Ttl => "ttl",
            Self::Policy => "policy",
            Self::BackendLost => "backend-lost",
            Self::NodeLost => "node-lost",
        }
    }
}

/// Where we stand when we come to a worker with a pipe that had one before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// The last number of a worker's message that was received.
    pub rx: u64,
    /// The first of the client's messages that can be sent again, and the next new one.
    pub tx: [u64; 2],
}

/// A word of ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said<'a> {
    /// The first word to a worker.
    Hello {
        /// The pipe.
        id: PipeId,
        /// Where a pipe stands that had a worker before.
        resume: Option<Standing>,
    },
    /// The answer to a hello that opens a pipe.
    Welcome {
        /// The pipe.
        id: PipeId,
        /// What to show on a resume.
        token: &'a str,
        /// The pipe's epoch.
        epoch: u64,
        /// Which of the client's attaches this is.
        generation: Generation,
        /// How long the pipe waits for a client that was lost.
        ttl_ms: u64,
        /// Bytes that may be unacknowledged.
        window_bytes: usize,
        /// Bytes that are kept for a client that is away.
        retain_bytes: usize,
        /// From one heartbeat to the next.
        heartbeat_ms: u64,
        /// How long a client waits at random before it comes back.
        jitter_ms: u64,
    },
    /// The answer to a hello that goes on with one.
    Resumed {
        /// The pipe's epoch.
        epoch: u64,
        /// Which of the client's attaches this is.
        generation: Generation,
        /// What to show on the next resume.
        token: &'a str,
        /// The last number received.
        rx: u64,
        /// The first number that is sent again, and the next new one.
        tx: [u64; 2],
    },
    /// The client may not go on.
    Reject(Reject),
    /// What was received, and what the backend has confirmed.
    Ack {
        /// The last number received.
        n: u64,
        /// The last number that the backend has confirmed.
        d: u64,
    },
    /// Messages are missing.
    Gap {
        /// Which way they were going.
        lane: LaneName,
        /// The first number missing, or the next one if it is not known how many are.
        from: u64,
        /// How many are missing, if that is known.
        count: Option<u64>,
        /// Why.
        why: GapWhy,
    },
    /// The replay is over.
    Live,
    /// The backend was lost.
    BackendLost {
        /// The attach that was lost.
        attach: u64,
        /// Why.
        cause: &'static str,
    },
    /// A backend is attached again.
    BackendAttached {
        /// The new attach.
        attach: u64,
        /// Whether it has the conversation's state: `ok`, `new` or `unknown`.
        resumed: &'static str,
    },
    /// The server will go.
    Goaway {
        /// When.
        after_ms: u64,
        /// How long to wait at random before coming back.
        jitter_ms: u64,
        /// Why.
        why: &'static str,
    },
    /// The conversation is over.
    Fin {
        /// What the close frame says.
        frame: &'a CloseFrame,
        /// The last number sent.
        n: u64,
    },
    /// A question whether the client is there, or an answer.
    Beat {
        /// Which question.
        n: u64,
    },
}

/// Who keeps what is not confirmed by the backend.
const CUSTODY: &str = "proxy";

impl Said<'_> {
    /// The word as the payload of a text message.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::from("!{\"t\":\"");
        // Writing to a string does not fail.
        let _ = self.write(&mut out);
        out.push('}');
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        match self {
            Self::Hello { id, resume } => {
                write!(out, "hello\",\"v\":{VERSION},\"id\":\"{id}\"")?;
                let Some(Standing { rx, tx: [first, next] }) = resume else { return Ok(()) };
                write!(
                    out,
                    ",\"resume\":{{\"id\":\"{id}\",\"token\":\"\",\"epoch\":1,\"rx\":{rx},\"tx\":[{first},{next}]}}"
                )
            }
            Self::Welcome {
                id,
                token,
                epoch,
                generation,
                ttl_ms,
                window_bytes,
                retain_bytes,
                heartbeat_ms,
                jitter_ms,
            } => {
                write!(out, "welcome\",\"id\":\"{id}\",\"token\":{},\"epoch\":{epoch}", Quoted(token))?;
                write!(out, ",\"gen\":{},\"ttl_ms\":{ttl_ms},\"window_bytes\":{window_bytes}", generation.0)?;
                write!(out, ",\"retain_bytes\":{retain_bytes},\"heartbeat_ms\":{heartbeat_ms}")?;
                write!(out, ",\"jitter_ms\":{jitter_ms},\"custody\":\"{CUSTODY}\"")
            }
            Self::Resumed { epoch, generation, token, rx, tx: [first, next] } => {
                write!(out, "resumed\",\"epoch\":{epoch},\"gen\":{},\"token\":{}", generation.0, Quoted(token))?;
                write!(out, ",\"rx\":{rx},\"tx\":[{first},{next}],\"custody\":\"{CUSTODY}\"")
            }
            Self::Reject(why @ Reject::Busy) => write!(out, "reject\",\"why\":\"{}\",\"retry_ms\":1000", why.as_str()),
            Self::Reject(why) => write!(out, "reject\",\"why\":\"{}\"", why.as_str()),
            Self::Ack { n, d } => write!(out, "ack\",\"n\":{n},\"d\":{d}"),
            Self::Gap { lane, from, count, why } => {
                write!(out, "gap\",\"lane\":\"{}\",\"from\":{from},\"count\":", lane.as_str())?;
                match count {
                    Some(count) => write!(out, "{count}")?,
                    None => out.push_str("null"),
                }
                write!(out, ",\"bytes\":null,\"why\":\"{}\"", why.as_str())
            }
            Self::Live => out.write_str("live\""),
            Self::BackendLost { attach, cause } => {
                write!(out, "backend\",\"state\":\"lost\",\"attach\":{attach},\"cause\":\"{cause}\"")
            }
            Self::BackendAttached { attach, resumed } => {
                write!(out, "backend\",\"state\":\"attached\",\"attach\":{attach},\"resumed\":\"{resumed}\"")
            }
            Self::Goaway { after_ms, jitter_ms, why } => {
                write!(out, "goaway\",\"after_ms\":{after_ms},\"jitter_ms\":{jitter_ms},\"why\":\"{why}\"")
            }
            Self::Fin { frame, n } => {
                write!(out, "fin\",\"code\":{},\"reason\":{},\"n\":{n}", frame.code, Quoted(&frame.reason))
            }
            Self::Beat { n } => write!(out, "hb\",\"n\":{n}"),
        }
    }
}

/// A text as a JSON string.
struct Quoted<'a>(&'a str);

impl std::fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&quote(self.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

    fn resume(tx: &str) -> String {
        format!(r#"!{{"t":"hello","v":1,"resume":{{"id":"{ID}","token":"hl1.x","epoch":3,"rx":7,"tx":{tx}}}}}"#)
    }

    #[test]
    fn each_word_of_a_client_is_read() {
        assert_eq!(Heard::read(br#"!{"t":"hello","v":1,"client":"js/1"}"#), Ok(Heard::Hello(None)));
        assert_eq!(Heard::read(br#"!{"t":"hello","v":2}"#), Ok(Heard::OtherVersion));
        let Ok(Heard::Hello(Some(hello))) = Heard::read(resume("[4,9]").as_bytes()) else { panic!("it is one") };
        assert_eq!(hello.position, Position { epoch: 3, rx: 7, tx_first: 4, tx_next: 9 });
        assert!(hello.token == "hl1.x" && !format!("{hello:?}").contains("hl1"));
        assert_eq!(Heard::read(br#"!{"t":"ack","n":5,"d":5}"#), Ok(Heard::Ack { n: 5 }));
        assert_eq!(Heard::read(br#"!{"t":"hb","n":0}"#), Ok(Heard::Beat { n: 0 }));
        let gap = |count| Ok(Heard::Gap { from: 3, count, why: GapWhy::Overflow });
        assert_eq!(Heard::read(br#"!{"t":"gap","lane":"up","from":3,"count":2,"why":"overflow"}"#), gap(Some(2)));
        assert_eq!(Heard::read(br#"!{"t":"gap","lane":"up","from":3,"count":null,"why":"overflow"}"#), gap(None));
        let fin = Heard::Fin { frame: CloseFrame::new(1000, "bye"), n: 4 };
        assert_eq!(Heard::read(br#"!{"t":"fin","code":1000,"reason":"bye","n":4}"#), Ok(fin));
    }

    #[test]
    fn a_word_that_lacks_something_is_malformed() {
        for text in [
            "!",
            "!{}",
            "!x",
            "{\"t\":\"live\"}",
            r#"!{"t":7}"#,
            r#"!{"t":"ack"}"#,
            r#"!{"t":"ack","n":-1}"#,
            r#"!{"t":"ack","n":9007199254740992}"#,
            r#"!{"t":"ack","n":1}x"#,
            r#"!{"t":"hello"}"#,
            r#"!{"t":"hello","v":1,"resume":7}"#,
            r#"!{"t":"gap","lane":"down","from":1,"count":1}"#,
            r#"!{"t":"gap","lane":"up","from":0,"count":1,"why":"ttl"}"#,
            r#"!{"t":"gap","lane":"up","from":1,"count":0,"why":"ttl"}"#,
            r#"!{"t":"gap","lane":"up","from":1,"why":"ttl"}"#,
            r#"!{"t":"gap","lane":"up","from":1,"count":1,"why":"mood"}"#,
            r#"!{"t":"fin","code":1006,"reason":"","n":0}"#,
            r#"!{"t":"fin","code":1000,"n":0}"#,
            &resume("[1]"),
            &resume("[0,1]"),
            &resume("[3,2]"),
            &resume("[1,2,3]"),
        ] {
            assert_eq!(Heard::read(text.as_bytes()), Err(MALFORMED), "{text}");
        }
        assert_eq!(Heard::read(br#"!{"t":"welcome"}"#), Err(Malformed("unknown control message")));
    }

    #[test]
    fn our_words_are_json_to_the_letter() {
        let frame = CloseFrame::new(1000, "say \"bye\"\n");
        for (said, wanted) in [
            (Said::Ack { n: 3, d: 1 }, r#"!{"t":"ack","n":3,"d":1}"#),
            (Said::Reject(Reject::Unknown), r#"!{"t":"reject","why":"unknown"}"#),
            (Said::Reject(Reject::Busy), r#"!{"t":"reject","why":"busy","retry_ms":1000}"#),
            (Said::Live, r#"!{"t":"live"}"#),
            (Said::Beat { n: 1 }, r#"!{"t":"hb","n":1}"#),
            (Said::Fin { frame: &frame, n: 2 }, r#"!{"t":"fin","code":1000,"reason":"say \"bye\"\u000a","n":2}"#),
            (
                Said::Gap { lane: LaneName::Down, from: 4, count: None, why: GapWhy::Policy },
                r#"!{"t":"gap","lane":"down","from":4,"count":null,"bytes":null,"why":"policy"}"#,
            ),
            (
                Said::Resumed { epoch: 1, generation: Generation(2), token: "t", rx: 3, tx: [4, 9] },
                r#"!{"t":"resumed","epoch":1,"gen":2,"token":"t","rx":3,"tx":[4,9],"custody":"proxy"}"#,
            ),
        ] {
            let text = said.text();
            assert_eq!(text, wanted);
            assert!(Value::read(&text.as_bytes()[1..]).is_some());
        }
    }
}
