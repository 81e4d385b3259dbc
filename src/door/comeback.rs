//! A client that comes under a name: whether its pipe is there, and how it gets to it.
//!
//! It is answered here, by the thread that accepted it, and its socket goes to the pipe's own thread. A pipe that has
//! ended in between tells the client so.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};

use super::http1::{Connection, Opened, busy};
use crate::clients::{ClientName, Found as Behind, Home};
use crate::handshake::accept::switching_protocols;
use crate::handshake::check::{UpgradeRequest, host};
use crate::handshake::client_address::ClientAddress;
use crate::handshake::forward::upgrade_head_lines;
use crate::handshake::refusal::Refusal;
use crate::http::Body;
use crate::metrics::labels::ResumeResult;
use crate::net::{ClientStream, LooseStream};
use crate::phase::Phase;
use crate::pipes::{Command, PipeEntry, Resume};
use crate::routes::Duplicate;
use crate::routes::Found;

/// A client that has been answered, and the pipe that it goes to.
pub(super) struct Back {
    pub pipe: Arc<PipeEntry>,
    pub resume: Resume,
}

impl Back {
    /// Sends the client's socket to the thread of its pipe. One that can't be sent is closed, and the client tries again.
    pub fn bring(self, stream: ClientStream, first: Bytes) {
        match LooseStream::loosen(stream) {
            Ok(socket) => {
                self.pipe.order(Command::Resume(socket, first, Box::new(self.resume)));
            }
            Err(error) => tracing::warn!(pipe = %self.pipe.id, %error, "a client that came back could not be attached"),
        }
    }
}

/// Who asks, if its route gives clients names and it has one.
pub(super) fn name_of(found: &Found, parts: &Parts) -> Option<ClientName> {
    let id = found.client_id.as_deref()?;
    Some(ClientName::new(&found.route.name, parts.uri.path(), found.key.as_deref(), id))
}

impl Connection {
    /// Whether a client that is one too many comes back to its pipe.
    pub(super) fn comes_back(&self, parts: &Parts) -> bool {
        let found = self.front.process.rules.load().routes.find(host(parts), parts);
        let name = found.ok().and_then(|found| name_of(&found, parts));
        name.is_some_and(|name| self.front.process.clients.has_home(&name))
    }

    /// What is behind a client's name; waits no longer than for a handshake.
    pub(super) async fn behind(&self, name: ClientName) -> Result<Behind, Refusal> {
        let patience = self.front.process.rules.load().handshake_timeout;
        let found = tokio::time::timeout(patience, self.front.process.clients.find(name)).await;
        found.map_err(|_| busy("another connection of this client is being opened"))
    }

    /// Answers a client that comes back.
    pub(super) fn welcome_back(
        &self,
        parts: &Parts,
        upgrade: &UpgradeRequest,
        found: Found,
        client: &ClientAddress,
        home: Home,
    ) -> Response<Body> {
        if self.front.process.phase.get() == Phase::Stopping {
            return busy("going away; another instance may take this").into_response();
        }
        let metrics = self.front.process.metrics.route(&found.route.name);
        let rejects = found.route.identity.as_ref().is_some_and(|it| it.duplicate == Duplicate::Reject);
        let is_taken = rejects && home.pipe.has_client();
        if is_taken {
            metrics.resume(ResumeResult::Rejected).inc();
            let detail = "this client is connected already; see routes.duplicate";
            return Refusal::new(StatusCode::CONFLICT, "duplicate", detail).into_response();
        }
        if home.protocol.as_ref().is_some_and(|spoken| !upgrade.protocols.contains(spoken)) {
            metrics.resume(ResumeResult::Rejected).inc();
            let detail = "the subprotocol of this client's open conversation is not among those offered";
            return Refusal::new(StatusCode::CONFLICT, "subprotocol", detail).into_response();
        }
        let response =
            switching_protocols(upgrade, home.protocol.as_deref(), &HeaderMap::new()).map(|()| Body::empty());
        let resume = Resume {
            target: found.target,
            host: host(parts).map(Box::from),
            head_lines: upgrade_head_lines(parts, client),
            client: client.address.to_string(),
            answer: home.pipe.next_answer(),
        };
        self.opens(Opened::Back(Back { pipe: home.pipe, resume }));
        response
    }
}
