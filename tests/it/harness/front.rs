//! A socket file, or TLS, in front of a worker that listens on a port.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// Serves until it is dropped, which breaks every connection through it.
#[derive(Debug)]
pub struct Front(JoinHandle<()>);

impl Front {
    /// A socket file for the worker at `address`; one that is there is replaced.
    pub fn unix(path: &Path, address: SocketAddr) -> Self {
        // most often there is none
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).unwrap();
        Self(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(join(stream, address));
            }
        }))
    }

    /// A port with TLS for the worker at `address`.
    pub async fn tls(config: ServerConfig, address: SocketAddr) -> (Self, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        join(stream, address).await;
                    }
                });
            }
        });
        (Self(serving), port)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn join(mut stream: impl AsyncRead + AsyncWrite + Unpin, address: SocketAddr) {
    let Ok(mut worker) = TcpStream::connect(address).await else { return };
    // it ends with one of its ends
    let _ = copy_bidirectional(&mut stream, &mut worker).await;
}
