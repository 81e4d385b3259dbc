//! A plain tokio-tungstenite client for a foreign conformance suite: asks how many cases there are, and echoes in
//! each of them whatever comes. Used by `scripts/conformance`; it knows nothing about Holdline.
//!
//! Usage: `autobahn_client ws://HOST:PORT AGENT`

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Error, Message, client::IntoClientRequest, handshake::client::Request};
use tokio_tungstenite::{WebSocketStream, client_async};

/// The longest that one case may take, so that a peer that falls silent ends the case and not the run.
const CASE_TIMEOUT: Duration = Duration::from_secs(60);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let (Some(base), Some(agent)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: autobahn_client ws://HOST:PORT AGENT");
        std::process::exit(2);
    };
    let mut counting = open(&format!("{base}/getCaseCount")).await?;
    let Some(Ok(Message::Text(count))) = counting.next().await else {
        eprintln!("no case count");
        std::process::exit(1);
    };
    let count: u32 = count.parse().unwrap_or(0);
    for case in 1..=count {
        let ran = tokio::time::timeout(CASE_TIMEOUT, echo(&format!("{base}/runCase?case={case}&agent={agent}"))).await;
        match ran {
            // What a hostile case does to the socket is the suite's business; it is the judge.
            Ok(Ok(()) | Err(_)) => {}
            Err(_) => eprintln!("case {case} took longer than {CASE_TIMEOUT:?}"),
        }
    }
    let mut reports = open(&format!("{base}/updateReports?agent={agent}")).await?;
    reports.close(None).await
}

async fn open(url: &str) -> Result<WebSocketStream<tokio::net::TcpStream>, Error> {
    let request: Request = url.into_client_request()?;
    let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let stream = tokio::net::TcpStream::connect(authority).await?;
    Ok(client_async(request, stream).await?.0)
}

async fn echo(url: &str) -> Result<(), Error> {
    let mut socket = open(url).await?;
    while let Some(message) = socket.next().await {
        let message = match message {
            Ok(message) => message,
            Err(error) => return say_why(&mut socket, error).await,
        };
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}

/// A peer that broke a rule is told which; tungstenite leaves that to its user.
async fn say_why(socket: &mut WebSocketStream<tokio::net::TcpStream>, error: Error) -> Result<(), Error> {
    let code = match &error {
        Error::Utf8(_) => CloseCode::Invalid,
        Error::Protocol(_) => CloseCode::Protocol,
        _ => return Err(error),
    };
    socket.close(Some(CloseFrame { code, reason: Default::default() })).await?;
    // the peer's answer, so that leaving does not turn our close frame into a reset
    while let Some(Ok(_)) = socket.next().await {}
    Ok(())
}
