//! A worker in the test itself, stepped by hand: it does nothing that the test does not say.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::wire::{Head, Wire, read_head};
use super::within;

/// A listening worker.
#[derive(Debug)]
pub struct StepWorker {
    pub address: SocketAddr,
    listener: TcpListener,
}

/// A request whose head has come and which waits for its answer.
#[derive(Debug)]
pub struct Knock {
    pub head: Head,
    pub stream: TcpStream,
    pub buffer: BytesMut,
}

impl StepWorker {
    /// A worker on a free port.
    pub async fn start() -> Self {
        Self::at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await
    }

    /// A worker on a loopback address of its own, so that no other socket takes its port while it is away.
    pub async fn start_alone() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let [low, high, ..] = std::process::id().to_le_bytes();
        Self::at(SocketAddr::from(([127, 64 + NEXT.fetch_add(1, Relaxed), high, low.max(1)], 0))).await
    }

    /// A worker at exactly this address.
    pub async fn at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        Self { address: listener.local_addr().unwrap(), listener }
    }

    /// The next request; connections that end without one are probes.
    pub async fn knock(&self) -> Knock {
        within("a request to a worker", self.knock_unbounded()).await
    }

    /// The same without an end: for tasks that serve until they are dropped.
    pub async fn knock_unbounded(&self) -> Knock {
        loop {
            let (mut stream, _) = self.listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut buffer = BytesMut::new();
            if let Some(head) = read_head(&mut stream, &mut buffer).await {
                return Knock { head, stream, buffer };
            }
        }
    }

    /// The next request, to a worker that leaves Nagle's algorithm on.
    pub async fn knock_with_nagle(&self) -> Knock {
        let knock = self.knock().await;
        knock.stream.set_nodelay(false).unwrap();
        knock
    }

    /// The next WebSocket, upgraded.
    pub async fn accept(&self) -> Wire {
        self.knock().await.upgrade().await
    }

    /// Whether no request comes for this long.
    pub async fn is_left_alone_for(&self, time: Duration) -> bool {
        tokio::time::timeout(time, self.knock_unbounded()).await.is_err()
    }
}

impl Knock {
    /// Answers 101.
    pub async fn upgrade(self) -> Wire {
        self.upgrade_with("").await
    }

    /// Answers 101 with more header lines, each ended by CRLF.
    pub async fn upgrade_with(mut self, lines: &str) -> Wire {
        let accept = derive_accept_key(self.head.header("sec-websocket-key").as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n{lines}\r\n"
        );
        // a proxy that has gone meanwhile is found out by the next read
        let _ = self.stream.write_all(answer.as_bytes()).await;
        Wire::of_worker(self.stream, self.head, self.buffer)
    }

    /// Sends these bytes as the answer.
    pub async fn answer(&mut self, bytes: &str) {
        self.stream.write_all(bytes.as_bytes()).await.unwrap();
    }
}
