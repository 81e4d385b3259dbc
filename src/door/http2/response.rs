//! An answer on its way to the client of a stream: sent as fast as the client takes it.
//!
//! Invariant: no more of it waits than [`STREAM_BYTES_MAX`](super::STREAM_BYTES_MAX), and not longer than
//! `server.send_timeout` without the client taking a byte.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::header::{CONTENT_LENGTH, DATE};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use tokio::time::timeout;

use crate::http::AnswerBody;

/// What belongs to a connection, and must not be said on a stream (RFC 9113 section 8.2.2).
const OF_CONNECTIONS: [&str; 5] = ["connection", "transfer-encoding", "upgrade", "keep-alive", "proxy-connection"];

/// Why an answer did not arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Broken {
    /// The client does not want it.
    Reset,
    /// It broke off on our side, or the client took nothing of it for too long.
    Off,
}

/// Sends an answer; the body of one to a HEAD stays here.
pub(super) async fn send(
    respond: &mut SendResponse<Bytes>,
    response: Response<AnswerBody>,
    is_head: bool,
    patience: Duration,
) -> Result<(), Broken> {
    let (mut parts, body) = response.into_parts();
    let ends = is_head || body.is_end_stream();
    complete(parts.status, &mut parts.headers, body.size_hint().exact().filter(|_| !is_head));
    parts.version = Version::HTTP_2;
    let head = Response::from_parts(parts, ());
    let mut stream = respond.send_response(head, ends).map_err(|_| Broken::Reset)?;
    if ends {
        return Ok(());
    }
    let sent = send_body(&mut stream, body, patience).await;
    if sent == Err(Broken::Off) {
        stream.send_reset(Reason::INTERNAL_ERROR);
    }
    sent
}

/// Makes of the headers of an answer those of an answer on a stream.
pub(super) fn complete(status: StatusCode, headers: &mut HeaderMap, length: Option<u64>) {
    for name in OF_CONNECTIONS {
        headers.remove(name);
    }
    let has_none = status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
    if let Some(length) = length.filter(|_| !has_none) {
        headers.entry(CONTENT_LENGTH).or_insert(HeaderValue::from(length));
    }
    if !headers.contains_key(DATE) {
        let now = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        headers.extend(HeaderValue::from_str(&now).ok().map(|now| (DATE, now)));
    }
}

async fn send_body(stream: &mut SendStream<Bytes>, body: AnswerBody, patience: Duration) -> Result<(), Broken> {
    let mut body = pin!(body);
    loop {
        let frame = tokio::select! {
            biased;
            _ = poll_fn(|cx| stream.poll_reset(cx)) => return Err(Broken::Reset),
            frame = body.frame() => frame,
        };
        let data = match frame.map(|frame| frame.map(Frame::into_data)) {
            None => return stream.send_data(Bytes::new(), true).map_err(|_| Broken::Reset),
            Some(Err(_)) => return Err(Broken::Off),
            Some(Ok(Ok(data))) => data,
            // Trailers are the end.
            Some(Ok(Err(frame))) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                return stream.send_trailers(trailers).map_err(|_| Broken::Reset);
            }
        };
        send_data(stream, data, patience).await?;
    }
}

async fn send_data(stream: &mut SendStream<Bytes>, mut data: Bytes, patience: Duration) -> Result<(), Broken> {
    while !data.is_empty() {
        let room = timeout(patience, poll_fn(|cx| poll_room(stream, data.len(), cx))).await;
        let Ok(room) = room else { return Err(Broken::Off) };
        let piece = data.split_to(room.ok_or(Broken::Reset)?);
        stream.send_data(piece, false).map_err(|_| Broken::Reset)?;
    }
    Ok(())
}

/// How much of `wanted` can be sent now, once that is something; nothing if the stream takes no more.
pub(super) fn poll_room(stream: &mut SendStream<Bytes>, wanted: usize, cx: &mut Context<'_>) -> Poll<Option<usize>> {
    stream.reserve_capacity(wanted);
    loop {
        let room = stream.capacity().min(wanted);
        if room > 0 {
            return Poll::Ready(Some(room));
        }
        let Some(Ok(_)) = ready!(stream.poll_capacity(cx)) else { return Poll::Ready(None) };
    }
}
