//! Sockets: to workers, with where one may be, how it is reached, and why it was not; and those of clients.
//!
//! In reading order: `url` (what an address may be), `networks` (the addresses behind a name, and which of them are
//! allowed), `sockets` (the same for socket files), `own` (those that are ours), `parked` (connections that workers have opened to us) with `idle` (how the kernel watches those), `connect` (one connection within one
//! deadline), `tls` (the part of it for `wss://`) with `pinned` (certificates that are trusted as they are) and
//! `unsuspecting` (all of them are), `stream` (what comes out), `failure` (what else can come of it). `certificates` are the files behind TLS on both sides, `der` the way
//! into one, `validity` how long it is good and `names` whom it names; `identity` is what counts of a client's.
//! `client_stream` is what a listener accepts: a `bare` socket and perhaps a TLS `session`, which seals `pieces`; `hand_over` says why
//! one cannot go to another process. `peer` is who is at its other end; `bind_error` says why there is no listener. `send` chooses the
//! call by which slices are written. Nothing here speaks HTTP or WebSocket, or knows pools.

mod bare;
mod bind_error;
mod certificates;
mod client_stream;
mod connect;
mod der;
mod failure;
mod hand_over;
mod identity;
mod idle;
mod memory_stream;
mod names;
mod networks;
mod own;
mod parked;
mod peer;
mod pieces;
mod pinned;
mod proxy_header;
mod send;
mod session;
mod sockets;
mod stream;
mod tls;
mod unsuspecting;
mod url;
mod validity;

pub use bind_error::bind_error;
pub use certificates::{FileText, TlsFault, is_server_name, untimely};
pub use client_stream::{ClientStream, LeaveWatch, LooseStream};
pub use connect::{Connected, answer_instead_of_acknowledging, connect, connect_asking};
pub use failure::{ConnectError, DialFailure};
pub use hand_over::HandOverError;
pub use identity::{ClientCertificate, TlsIdentity};
pub use idle::{reset_at_drop, watch_spoken_on, watch_waiting};
pub use memory_stream::{MemoryStream, MemoryWatch};
pub use names::Names;
pub use networks::{Addresses, Networks, resolve};
pub use own::{OwnListener, OwnListeners};
pub use parked::{ParkedLines, TakeOrder, Taken, TakenLine};
pub use peer::Peer;
pub use proxy_header::{Announced, AnnouncedClient, Announcement, BadHeader, SendProxy, read_announcement};
pub use session::{HandshakeError, Session};
pub use sockets::SocketDirectories;
pub use stream::BackendStream;
pub use tls::{TlsClient, TlsFiles, TlsPeer};
pub use url::{BackendUrl, Host, UrlError};
pub use validity::Validity;
