//! The header by which a proxy in front says whose connection it passes on, before TLS and HTTP.
//!
//! Invariant: only `server.trusted_proxies` are heard; of everyone else no byte is looked at here.

use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::listen::Arrival;
use crate::config::ProxyProtocol;
use crate::metrics::labels::{ConnectionResult, ListenerLabel, ProxyHeader};
use crate::net::{AnnouncedClient, Announcement, BadHeader, ClientStream, read_announcement};
use crate::process::Process;

/// How many bytes are read at first: more than most headers have.
const ROOM_BYTES: usize = 256;

/// What a connection began with.
enum Began {
    With(Option<AnnouncedClient>),
    WithoutHeader,
    Badly(BadHeader),
    NotAtAll,
}

/// Takes a trusted proxy's word for whose connection this is; false if it is to be closed. The header has to come
/// within `server.handshake_timeout`, which began with the connection.
pub(super) async fn announced(process: &Process, arrival: &mut Arrival) -> bool {
    let (mode, is_trusted, patience) = {
        let rules = process.rules.load();
        (rules.proxy_protocol, rules.trusted.trusts(arrival.peer.address), rules.handshake_timeout)
    };
    if mode == ProxyProtocol::Off || mode == ProxyProtocol::Accept && !is_trusted {
        return true;
    }
    let patience = patience.saturating_sub(arrival.began.elapsed());
    let (result, goes_on) = if is_trusted {
        match timeout(patience, begin(arrival)).await {
            Ok(Began::With(Some(client))) => {
                (arrival.peer.address, arrival.peer.secure) = (client.address, client.secure);
                (ProxyHeader::Accepted, true)
            }
            Ok(Began::With(None)) => (ProxyHeader::Local, true),
            Ok(Began::WithoutHeader) => (ProxyHeader::Missing, mode == ProxyProtocol::Accept),
            Ok(Began::Badly(error)) => {
                tracing::info!(peer = %arrival.peer.address, %error, "a connection was closed");
                (ProxyHeader::Malformed, false)
            }
            Ok(Began::NotAtAll) => (ProxyHeader::Missing, false),
            Err(_) => {
                process.metrics.connection_result(ListenerLabel::Public, ConnectionResult::TimedOut);
                (ProxyHeader::TimedOut, false)
            }
        }
    } else {
        (ProxyHeader::Untrusted, false)
    };
    process.metrics.proxy_header(ListenerLabel::Public, result);
    goes_on
}

/// Reads the header, and leaves what stands behind it.
async fn begin(arrival: &mut Arrival) -> Began {
    arrival.read.reserve(ROOM_BYTES);
    loop {
        match read_announcement(&arrival.read) {
            Ok(Announcement::Partial) => {}
            Ok(Announcement::Absent) => return Began::WithoutHeader,
            Ok(Announcement::Header(len, client)) => {
                let _header = arrival.read.split_to(len);
                return Began::With(client);
            }
            Err(error) => return Began::Badly(error),
        }
        let stream: &mut ClientStream = &mut arrival.stream;
        if !stream.read_buf(&mut arrival.read).await.is_ok_and(|bytes| bytes > 0) {
            return Began::NotAtAll;
        }
    }
}
