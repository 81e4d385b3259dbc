//! An ordinary client: an independent WebSocket library, which checks every frame that it is given.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{Said, within};

/// A connected client.
#[derive(Debug)]
pub struct Client {
    socket: WebSocketStream<TcpStream>,
}

impl Client {
    /// A client that has been answered 101.
    pub async fn connect(address: SocketAddr, path: &str) -> Self {
        Self::open(address, path).await.unwrap_or_else(|status| panic!("{path}: {status}"))
    }

    /// A client that is answered 101, or the status that it got instead.
    pub async fn open(address: SocketAddr, path: &str) -> Result<Self, u16> {
        let request = format!("ws://{address}{path}").into_client_request().unwrap();
        let stream = within("connect", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let config = WebSocketConfig::default().read_buffer_size(32 << 10);
        let opening = tokio_tungstenite::client_async_with_config(request, stream, Some(config));
        match within(path, opening).await {
            Ok((socket, _)) => Ok(Self { socket }),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{path}: {error}"),
        }
    }

    /// Sends a text message.
    pub async fn text(&mut self, text: impl Into<String>) {
        within("room to write", self.socket.send(Message::text(text.into()))).await.unwrap();
    }

    /// Sends a binary message.
    pub async fn binary(&mut self, bytes: impl Into<Vec<u8>>) {
        within("room to write", self.socket.send(Message::binary(bytes.into()))).await.unwrap();
    }

    /// The next message or close.
    pub async fn hear(&mut self) -> Said {
        within("a message", self.hear_unbounded()).await
    }

    /// The same without an end.
    pub async fn hear_unbounded(&mut self) -> Said {
        loop {
            return match self.socket.next().await {
                Some(Ok(Message::Text(text))) => Said::Text(text.to_string()),
                Some(Ok(Message::Binary(bytes))) => Said::Binary(bytes.to_vec()),
                Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) => {
                    Said::Close(code.into(), reason.to_string())
                }
                Some(Ok(Message::Close(None))) => Said::Close(1005, String::new()),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Err(Error::Io(_) | Error::ConnectionClosed)) | None => Said::Gone,
                Some(Err(Error::Protocol(
                    tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
                ))) => Said::Gone,
                Some(Err(error)) => panic!("the client was sent something wrong: {error}"),
            };
        }
    }

    /// Sends a text and hears the answer.
    pub async fn exchange(&mut self, text: &str) -> String {
        self.text(text).await;
        self.hear().await.text()
    }

    /// Closes, and waits until the other side has agreed.
    pub async fn close(&mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: code.into(), reason: reason.to_owned().into() };
        within("room to write", self.socket.send(Message::Close(Some(frame)))).await.unwrap();
        while !matches!(self.hear().await, Said::Close(..) | Said::Gone) {}
    }
}
