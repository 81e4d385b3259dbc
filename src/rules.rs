//! What a reload changes for those who connect from then on: routes, trust and time limits, swapped as a whole.
//!
//! A reader takes them once for what it is about to do, so that none lives by half of two configurations. A pipe
//! keeps the route that it was opened with; only its dials look here again.

use std::time::Duration;

use crate::config::{AccessLog, Config, ProxyProtocol};
use crate::handshake::client_address::TrustedProxies;
use crate::handshake::dial::DialTimeouts;
use crate::http::{HttpTimeouts, LingerLimits, Patience};
use crate::routes::{RouteError, RouteTable};

/// What holds for everyone who connects.
#[derive(Debug)]
pub struct Rules {
    /// Which request goes where.
    pub routes: RouteTable,
    /// Whose forwarding headers are believed.
    pub trusted: TrustedProxies,
    /// Whether trusted proxies say whose connections they pass on.
    pub proxy_protocol: ProxyProtocol,
    /// How long one of several handshakes of the same client waits for another.
    pub handshake_timeout: Duration,
    /// How long a client may be silent before and between its requests.
    pub patience: Patience,
    /// What is read of a client behind its last answer.
    pub linger: LingerLimits,
    /// How long an answer may wait for a client that takes nothing of it.
    pub send_timeout: Duration,
    /// Whether each answer is told, and how.
    pub access: AccessLog,
    /// Bytes of one request head.
    pub header_bytes_max: usize,
    /// Bounds of one dial of a worker.
    pub dial: DialTimeouts,
    /// Bounds of one plain request to a worker.
    pub http: HttpTimeouts,
}

impl Rules {
    /// The rules of a configuration.
    ///
    /// # Errors
    /// None for a configuration that was read: the same compilation checked its routes.
    pub fn from_config(config: &Config) -> Result<Self, RouteError> {
        let server = &config.server;
        Ok(Self {
            routes: config.route_table()?,
            trusted: TrustedProxies::new(server.trusted_proxies.clone()),
            proxy_protocol: server.proxy_protocol,
            handshake_timeout: server.handshake_timeout,
            patience: Patience { head: server.handshake_timeout, next: server.keepalive_timeout },
            linger: LingerLimits { time: server.linger_timeout, bytes_max: server.linger_bytes_max as u64 },
            send_timeout: server.send_timeout,
            access: config.log.access,
            header_bytes_max: server.header_bytes_max,
            dial: DialTimeouts { connect: server.backend_connect_timeout, handshake: server.backend_handshake_timeout },
            http: HttpTimeouts { connect: server.backend_connect_timeout, answer: server.response_header_timeout },
        })
    }
}
