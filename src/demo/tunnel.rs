//! The plain tunnel beside Holdline: a TCP port for each worker's place, joined to the worker that serves there now.
//!
//! The page's second row goes through it, to show what a kill does without Holdline. It keeps nothing and tries nothing
//! again: when the worker's end closes, the viewer's end closes. It listens on loopback only, as the workers do.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::board::Board;

/// Connections through one tunnel; more wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// After a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Opens a tunnel to each worker's place and writes its URL into the books; they close when the set is dropped.
///
/// # Errors
/// When there is no free port.
pub(super) async fn open(board: &Arc<Board>) -> anyhow::Result<JoinSet<()>> {
    let mut tunnels = JoinSet::new();
    let count = board.books().workers.len();
    for index in 0..count {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no port for a tunnel")?;
        board.books().workers[index].tunnel = format!("ws://{}", listener.local_addr()?);
        tunnels.spawn(serve(board.clone(), index, listener));
    }
    Ok(tunnels)
}

async fn serve(board: Arc<Board>, index: usize, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((viewer, _)) => {
                    let worker = board.books().addresses[index];
                    connections.spawn(join(viewer, worker));
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
            _ = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// Carries bytes both ways until one end closes; without a worker the viewer is closed at once.
async fn join(mut viewer: TcpStream, worker: Option<SocketAddr>) {
    let Some(address) = worker else { return };
    let Ok(mut worker) = TcpStream::connect(address).await else { return };
    // However it ends, both sockets close with it.
    let _ = copy_bidirectional(&mut viewer, &mut worker).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::board::Subject;
    use crate::demo::options::Options;
    use clap::Parser;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        options: Options,
    }

    fn board() -> Arc<Board> {
        let options = Alone::parse_from(["demo", "--workers", "2"]).options;
        let subject = Subject { proxy: String::new(), dashboard: String::new(), screens: Vec::new(), waits: false };
        Arc::new(Board::new(&options, subject))
    }

    async fn dial(board: &Board, index: usize) -> TcpStream {
        let url = board.books().workers[index].tunnel.clone();
        TcpStream::connect(url.strip_prefix("ws://").unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn a_tunnel_ends_with_its_worker_and_leads_to_the_next_one() {
        let board = board();
        let _tunnels = open(&board).await.unwrap();
        let mut nowhere = dial(&board, 1).await;
        assert_eq!(nowhere.read(&mut [0; 8]).await.unwrap_or(0), 0, "there is no worker");

        let worker = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        board.books().addresses[1] = Some(worker.local_addr().unwrap());
        let mut viewer = dial(&board, 1).await;
        let (mut served, _) = worker.accept().await.unwrap();
        viewer.write_all(b"ping").await.unwrap();
        let mut heard = [0; 4];
        served.read_exact(&mut heard).await.unwrap();
        served.write_all(b"pong").await.unwrap();
        viewer.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"pong");
        drop(served);
        assert_eq!(viewer.read(&mut [0; 8]).await.unwrap_or(0), 0, "nothing is tried again");
    }
}
