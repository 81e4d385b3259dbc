//! The closed sets that label values come from.
//!
//! What a peer can choose (an address, a path, a close code) is mapped into one of these before it becomes a
//! label, so that no peer can grow the number of series.

use holdline_core::limits::PipeLimit;
pub use holdline_core::pipe::{EndedBy, Interruption, Loss, PipeState, PrologueFailure};
use serde::Serialize;

pub use crate::backends::{EjectCause, Hold};
use crate::net::ClientStream;

/// A label of fixed values: an enum, all its values in order, and their text in metrics and JSON.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// Every value, in the order of their numbers.
            #[allow(dead_code, reason = "labels that index no array need no list")]
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$variant),+];

            /// The text of the label.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

pub(super) use label;

label! {
    /// Which listener a connection came in on.
    ListenerLabel {
        /// The one that clients use.
        Public = "public",
        /// The admin API.
        Admin = "admin",
        /// The one that workers dial in on.
        Attach = "attach",
    }
}

label! {
    /// What became of an accepted connection.
    ConnectionResult {
        /// It is served.
        Accepted = "accepted",
        /// There are `server.max_connections` already, or memory is out.
        Refused = "refused",
        /// No whole request head came in time.
        TimedOut = "timed_out",
        /// More came behind its last answer, or for longer, than is read and forgotten.
        Cut = "cut",
        /// It waited for a request when another one needed its place.
        Shed = "shed",
        /// What came was not HTTP.
        BadRequest = "bad_request",
        /// `accept` itself failed.
        AcceptFailed = "accept_failed",
    }
}

label! {
    /// What a connection began with, where a PROXY header was looked for.
    ProxyHeader {
        /// A header that names a client.
        Accepted = "accepted",
        /// A header of a connection that is the proxy's own, or of a client that it does not know.
        Local = "local",
        /// No header.
        Missing = "missing",
        /// A header that is none.
        Malformed = "malformed",
        /// Its peer is not in `server.trusted_proxies`, where each has to be.
        Untrusted = "untrusted",
        /// It did not come within `server.handshake_timeout`.
        TimedOut = "timed_out",
    }
}

label! {
    /// What is on a stream of HTTP/2.
    StreamKind {
        /// A request that is not a handshake, or is not answered yet.
        Request = "request",
        /// A WebSocket.
        WebSocket = "websocket",
    }
}

label! {
    /// What became of the request on a stream of HTTP/2.
    StreamResult {
        /// It is a WebSocket now.
        WebSocket = "websocket",
        /// It was answered, refusals included.
        Answered = "answered",
        /// The client took it back before its answer was whole.
        Reset = "reset",
        /// Its answer broke off: the worker's did, or the client took nothing of it for too long.
        Broken = "broken",
    }
}

label! {
    /// Why a connection that spoke HTTP/2 ended.
    Http2End {
        /// The client has closed it, or is gone.
        Closed = "closed",
        /// There was no stream for `server.keepalive_timeout`.
        Idle = "idle",
        /// The process takes nothing new.
        GoingAway = "going_away",
        /// There were `server.max_connections` already.
        Refused = "refused",
        /// The client took back more requests than is sensible.
        TakenBack = "taken_back",
        /// The client broke the protocol, or went beyond one of its bounds.
        Protocol = "protocol",
        /// It did not begin within `server.handshake_timeout`.
        TimedOut = "timed_out",
    }
}

label! {
    /// What became of a TLS handshake.
    TlsResult {
        /// A new session.
        Full = "full",
        /// A session that goes on by a ticket.
        Resumed = "resumed",
        /// The client went away.
        Gone = "gone",
        /// It was not over within `server.handshake_timeout`.
        TimedOut = "timed_out",
        /// No certificate has the name that the client asked for, and `server.tls.sni_strict` refuses it.
        UnknownName = "unknown_name",
        /// The client speaks no version or cipher that we do.
        Incompatible = "incompatible",
        /// The client's certificate is missing, expired, revoked or not trusted.
        ClientCertificate = "client_certificate",
        /// The client does not believe us.
        Distrusted = "distrusted",
        /// What came was no TLS, or broken.
        Bad = "bad",
    }
}

impl TlsResult {
    /// What `error` makes of a handshake.
    #[must_use]
    pub const fn of(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::PeerIncompatible(_) => Self::Incompatible,
            rustls::Error::InvalidCertificate(_)
            | rustls::Error::NoCertificatesPresented
            | rustls::Error::InvalidCertRevocationList(_) => Self::ClientCertificate,
            rustls::Error::AlertReceived(_) => Self::Distrusted,
            _ => Self::Bad,
        }
    }
}

label! {
    /// What became of changed files of certificates.
    ReloadResult {
        /// New handshakes use them.
        Loaded = "loaded",
        /// Some part of them is bad, and the old ones stay.
        Failed = "failed",
    }
}

label! {
    /// The version of TLS that was agreed on.
    TlsVersionLabel {
        /// 1.2.
        Tls12 = "1.2",
        /// 1.3.
        Tls13 = "1.3",
        /// It did not come to that.
        None = "none",
    }
}

label! {
    /// How the search for another backend ended.
    ReattachResult {
        /// A backend took the pipe.
        Attached = "attached",
        /// The grace ran out.
        Expired = "expired",
        /// A backend refused the client for good (401, 403).
        Refused = "refused",
        /// The client went away meanwhile.
        ClientGone = "client_gone",
        /// The pipe was closed by Holdline or an operator meanwhile.
        Closed = "closed",
        /// There was none: its route closes with its worker.
        CloseRoute = "close_route",
    }
}

label! {
    /// What became of a planned move that was begun.
    MoveResult {
        /// The next backend was attached before the old one was let go, and took over.
        Moved = "moved",
        /// The old backend was let go, and the search for another began then.
        Left = "left",
        /// No other could be attached, and the pipe is where it was.
        Stayed = "stayed",
    }
}

label! {
    /// Where a dial of a pipe that lost or leaves a backend stands.
    DialState {
        /// It waits until fewer of its backend run.
        Waiting = "waiting",
        /// It runs.
        Running = "running",
    }
}

label! {
    /// Why a message was dropped on purpose while its pipe lived on.
    DropReason {
        /// `down = "latest:N"`: a newer one took its place.
        Latest = "latest",
        /// Half a message of a backend that was lost.
        Incomplete = "incomplete",
        /// It came from a backend that the pipe had left already.
        Late = "late",
    }
}

label! {
    /// What a full replay buffer did.
    OverflowLabel {
        /// The client is not read until there is room.
        Pause = "pause",
        /// The client was closed with 1013.
        Close = "close",
    }
}

label! {
    /// Which limit a client met.
    LimitLabel {
        /// `limits.key_connections`.
        KeyConnections = "key_connections",
        /// `limits.key_connections_total`.
        KeyConnectionsTotal = "key_connections_total",
        /// `limits.key_rate`.
        KeyRate = "key_rate",
        /// `limits.address_connections`.
        AddressConnections = "address_connections",
        /// `limits.address_rate`.
        AddressRate = "address_rate",
        /// `limits.address_detached`.
        AddressDetached = "address_detached",
        /// `limits.resume_failures`.
        ResumeFailures = "resume_failures",
        /// `limits.pipe_messages`.
        PipeMessages = "pipe_messages",
        /// `limits.pipe_bytes`.
        PipeBytes = "pipe_bytes",
    }
}

impl From<PipeLimit> for LimitLabel {
    fn from(limit: PipeLimit) -> Self {
        match limit {
            PipeLimit::Messages => Self::PipeMessages,
            PipeLimit::Bytes => Self::PipeBytes,
        }
    }
}

label! {
    /// What became of a span that ended.
    SpanResult {
        /// The collector took it.
        Exported = "exported",
        /// There was no room in the queue.
        Dropped = "dropped",
        /// The collector was away, or rejected it.
        Failed = "failed",
    }
}

label! {
    /// What `routes.auth_url` said of a request.
    AuthResult {
        /// It may come in.
        Allowed = "allowed",
        /// It may not.
        Denied = "denied",
        /// Nothing that means either, or the server was away.
        Failed = "failed",
        /// Nothing in time.
        Timeout = "timeout",
        /// It was not asked, because too many were.
        Full = "full",
    }
}

label! {
    /// What became of an event for `hooks.url`.
    HookResult {
        /// The server has it.
        Delivered = "delivered",
        /// The server refused it.
        Refused = "refused",
        /// There was no room in the queue, or the process ended first.
        Dropped = "dropped",
    }
}

label! {
    /// What came of one request to `hooks.url`.
    HookAttempt {
        /// The server took it.
        Taken = "taken",
        /// The server will never take it.
        Refused = "refused",
        /// The server was away, or could not take it now.
        Failed = "failed",
    }
}

label! {
    /// What became of a client that came back, or should have.
    ResumeResult {
        /// It found its pipe.
        Resumed = "resumed",
        /// It found its pipe, and another connection of its own there, which it replaced.
        Replaced = "replaced",
        /// Another connection of its own was there, or spoke another subprotocol.
        Rejected = "rejected",
        /// Connections of its own had replaced each other too often.
        Taken = "taken",
        /// It did not come in time.
        Expired = "expired",
    }
}

label! {
    /// How a client is reached.
    Transport {
        /// By a WebSocket.
        Websocket = "websocket",
        /// By one answer after the other.
        LongPoll = "longpoll",
        /// By an answer that goes on.
        Sse = "sse",
    }
}

impl Transport {
    /// That of a client on `stream`, as far as the stream can tell: a long poll becomes a stream of events once its client asks.
    #[must_use]
    pub const fn of(stream: &ClientStream) -> Self {
        if stream.is_in_memory() { Self::LongPoll } else { Self::Websocket }
    }
}

label! {
    /// What a client without a socket was answered.
    PollResult {
        /// What its pipe has said.
        Lines = "lines",
        /// Nothing was said in time, or a newer poll has taken the place of this one.
        Empty = "empty",
        /// Events, as long as its connection holds.
        Stream = "stream",
        /// What it said was taken.
        Sent = "sent",
        /// What it said was not all taken: a message before it is missing, or the pipe takes nothing now.
        Held = "held",
        /// It was refused: no such pipe, a token that is no good, or a malformed request.
        Refused = "refused",
    }
}

label! {
    /// What became of a request that waited for a worker.
    WaitResult {
        /// A worker took it.
        Served = "served",
        /// None came in time, or the process took nothing new.
        Expired = "expired",
        /// Its client left, or it was refused for another reason.
        Gone = "gone",
        /// It did not wait, because too many did.
        Full = "full",
    }
}

label! {
    /// What came of an answer in which a worker's key was looked for.
    LearnResult {
        /// It names a key.
        Learned = "learned",
        /// It names none where one was looked for.
        Absent = "absent",
        /// It is no JSON object, or too long.
        Unreadable = "unreadable",
    }
}

label! {
    /// Where a worker that Holdline runs is in its life.
    WorkerStateLabel {
        /// Its process was started, and it is not ready.
        Starting = "starting",
        /// It is ready and has no pipes.
        Standby = "standby",
        /// It may have pipes.
        Serving = "serving",
        /// Its pipes are to leave.
        Draining = "draining",
        /// Its process was asked to end.
        Stopping = "stopping",
        /// Its process was killed.
        Killed = "killed",
        /// Its process failed, and the next one waits.
        Waiting = "waiting",
    }
}

label! {
    /// How a worker that Holdline runs failed.
    WorkerFailure {
        /// There was no process.
        NotStarted = "not_started",
        /// It did not become ready in time.
        NotReady = "not_ready",
        /// Its process ended without being asked to.
        Exited = "exited",
    }
}

label! {
    /// How a dial of a backend ended.
    ConnectResult {
        /// It answered 101.
        Attached = "attached",
        /// It answered something else.
        Rejected = "rejected",
        /// The connection was refused.
        Refused = "refused",
        /// No answer in time.
        TimedOut = "timed_out",
        /// Its address is not one that backends may have, or its name is unknown.
        Forbidden = "forbidden",
        /// Anything else: unreachable, reset, TLS.
        Failed = "failed",
    }
}

label! {
    /// Facts about a backend that are exported as `backend_state`, each 0 or 1.
    BackendStateLabel {
        /// Admin state: takes pipes.
        Ready = "ready",
        /// Admin state: takes nothing new.
        Drain = "drain",
        /// Admin state: out of service.
        Maint = "maint",
        /// Health: put aside for a while.
        Ejected = "ejected",
        /// Lease: not renewed in time.
        Expired = "expired",
    }
}

/// The label of a WebSocket close code: the code if it has a meaning here, else its range.
#[must_use]
pub fn close_code(code: u16) -> &'static str {
    match code {
        1000 => "1000",
        1001 => "1001",
        1002 => "1002",
        1003 => "1003",
        1005 => "1005",
        1006 => "1006",
        1007 => "1007",
        1008 => "1008",
        1009 => "1009",
        1010 => "1010",
        1011 => "1011",
        1012 => "1012",
        1013 => "1013",
        1014 => "1014",
        4004 => "4004",
        4900 => "4900",
        4901 => "4901",
        4902 => "4902",
        4903 => "4903",
        4904 => "4904",
        4905 => "4905",
        _ => match code / 1000 {
            3 => "3xxx",
            4 => "4xxx",
            _ => "other",
        },
    }
}

/// The label of an HTTP status: the status if it is one that Holdline answers itself, else its class.
#[must_use]
pub fn status_code(status: u16) -> &'static str {
    match status {
        101 => "101",
        200 => "200",
        201 => "201",
        202 => "202",
        204 => "204",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        405 => "405",
        408 => "408",
        409 => "409",
        410 => "410",
        413 => "413",
        415 => "415",
        421 => "421",
        422 => "422",
        426 => "426",
        429 => "429",
        431 => "431",
        499 => "499",
        500 => "500",
        501 => "501",
        502 => "502",
        503 => "503",
        504 => "504",
        507 => "507",
        508 => "508",
        _ => match status / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            5 => "5xx",
            _ => "other",
        },
    }
}
