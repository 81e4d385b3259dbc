//! What is on a connection once it was taken: bytes both ways, each at the pace of its reader, and both ends as they end.
//!
//! A worker may answer before it has read all that it is sent, and close: what comes for it is read and forgotten then, so
//! that its answer arrives. Invariant: an end that was cut off is passed on as one (a reset), and never as a proper end: the
//! other side would take half an answer for a whole one.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::time::timeout;

use super::worker::WorkerStream;
use crate::net::{BackendStream, reset_at_drop};

/// Bytes that are on their way in each direction.
const PIECE_BYTES: usize = 16 * 1024;

/// How long the other direction goes on once one has ended.
const LINGER: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// Nothing more comes.
    Proper,
    /// It was cut off.
    Broken,
}

/// Passes everything on between `proxy` and `worker`, beginning with what was read of the proxy already.
pub(super) async fn tunnel(proxy: BackendStream, worker: WorkerStream, first: Vec<u8>) {
    let (mut from_proxy, mut to_proxy) = split(proxy);
    let (mut from_worker, mut to_worker) = split(worker);
    let end = {
        let up = std::pin::pin!(up(&mut from_proxy, &mut to_worker, first));
        let down = std::pin::pin!(down(&mut from_worker, &mut to_proxy));
        let (mut up, mut down) = (up, down);
        tokio::select! {
            end = &mut up => match end {
                End::Proper => timeout(LINGER, down).await.unwrap_or(End::Broken),
                End::Broken => End::Broken,
            },
            end = &mut down => match end {
                // What is still on its way to the worker must not break its answer off.
                End::Proper => timeout(LINGER, up).await.map_or(End::Proper, |_| End::Proper),
                End::Broken => End::Broken,
            },
        }
    };
    if end == End::Broken {
        cut(from_proxy, to_proxy, from_worker, to_worker);
    }
}

/// To the worker; once it takes no more, nowhere.
async fn up(from: &mut ReadHalf<BackendStream>, to: &mut WriteHalf<WorkerStream>, first: Vec<u8>) -> End {
    let mut takes = to.write_all(&first).await.is_ok();
    drop(first);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match from.read(&mut piece).await {
            Ok(0) => break,
            Ok(bytes) => takes = takes && to.write_all(&piece[..bytes]).await.is_ok(),
            Err(_) => return End::Broken,
        }
    }
    // A worker that has gone needs no word.
    let _ = to.shutdown().await;
    End::Proper
}

/// To the proxy.
async fn down(from: &mut ReadHalf<WorkerStream>, to: &mut WriteHalf<BackendStream>) -> End {
    match pass(from, to).await {
        // An end of its own, which a proxy that has gone need not hear.
        Ok(()) => {
            let _ = to.shutdown().await;
            End::Proper
        }
        Err(_) => End::Broken,
    }
}

async fn pass(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let bytes = from.read(&mut piece).await?;
        if bytes == 0 {
            return Ok(());
        }
        to.write_all(&piece[..bytes]).await?;
        to.flush().await?;
    }
}

/// Ends both connections with a reset.
fn cut(
    from_proxy: ReadHalf<BackendStream>,
    to_proxy: WriteHalf<BackendStream>,
    from_worker: ReadHalf<WorkerStream>,
    to_worker: WriteHalf<WorkerStream>,
) {
    match from_proxy.unsplit(to_proxy) {
        // An end that TLS was not told of is no proper one, and loses nothing that is on its way.
        BackendStream::Tls(_) => {}
        plain => plain.socket().into_iter().for_each(reset_at_drop),
    }
    from_worker.unsplit(to_worker).reset_at_drop();
}
