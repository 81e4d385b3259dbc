//! What is passed on besides a head and a body: trailers, provisional answers, and headers that some answers keep.

use super::*;

/// Reads a chunked body with its trailers.
async fn chunked(connection: &mut Connection) -> String {
    let mut sent = Vec::new();
    while !(sent.ends_with(b"\r\n\r\n") && sent.windows(3).any(|three| three == b"0\r\n")) {
        sent.extend(connection.read(1).await);
    }
    String::from_utf8(sent).expect("text")
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let worker = Worker::new().await;
    let front = Front::plain(&[&worker]).await;
    let serve = async {
        let mut connection = worker.accept().await;
        let head = connection.head().await;
        for line in ["trailer: X-Sum", "te: trailers", "transfer-encoding: chunked"] {
            assert!(has_line(&head, line), "{line} is missing: {head}");
        }
        let body = chunked(&mut connection).await;
        let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Total, Holdline-X\r\n\r\n\
                      2\r\nok\r\n0\r\nX-Total: 7\r\nHoldline-X: 1\r\n\r\n";
        connection.write(answer).await;
        let again = connection.head().await;
        connection.write(OK).await;
        (body, again)
    };
    let ask = async {
        let mut client = front.connect().await;
        let request = "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\nTrailer: X-Sum\r\n\
                       Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 3\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n";
        client.write(request).await;
        let head = client.head().await;
        assert!(has_line(&head, "trailer: X-Total, Holdline-X"), "{head}");
        let body = chunked(&mut client).await;
        client.write("GET /again HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(status(&client.head().await), "200", "neither connection ends by it");
        body
    };
    let ((sent, again), answered) = soon(async { tokio::join!(serve, ask) }).await;
    assert_eq!(sent.to_lowercase(), "3\r\nabc\r\n0\r\nx-sum: 3\r\n\r\n");
    assert_eq!(answered.to_lowercase(), "2\r\nok\r\n0\r\nx-total: 7\r\n\r\n");
    assert!(again.starts_with("GET /again"), "{again}");
}

#[tokio::test]
async fn provisional_answers_reach_the_client_at_once_and_before_the_answer() {
    let worker = Worker::new().await;
    let front = Front::plain(&[&worker]).await;
    let mut client = front.connect().await;
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut backend = soon(worker.accept()).await;
    backend.head().await;
    backend
        .write("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nHoldline-X: 1\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n")
        .await;
    let early = soon(client.head()).await;
    assert_eq!(early, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>");
    backend.write("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(soon(client.head()).await, "HTTP/1.1 102 Processing");
    assert_eq!(status(&soon(client.head()).await), "200", "a 100 is between neighbours");
    assert_eq!(soon(client.read(2)).await, b"ok");
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_no_provisional_answer() {
    let worker = Worker::new().await;
    let front = Front::plain(&[&worker]).await;
    let ask = async {
        let mut client = front.connect().await;
        client.write("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
        client.rest().await
    };
    let sent = format!("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n{OK}");
    let (_, answer) = soon(async { tokio::join!(worker.answer(&sent), ask) }).await;
    assert_eq!((status(&answer), body(&answer)), ("200", "ok"));
}

#[tokio::test]
async fn a_426_keeps_its_upgrade_and_a_407_its_challenge() {
    let worker = Worker::new().await;
    let front = Front::plain(&[&worker]).await;
    let more = "Upgrade: TLS/1.2, HTTP/1.1\r\nConnection: Upgrade\r\nProxy-Authenticate: Basic realm=\"p\"\r\nContent-Length: 0\r\n\r\n";
    for (sent, upgrade, challenge) in [
        ("426 Upgrade Required", true, false),
        ("407 Proxy Authentication Required", false, true),
        ("200 OK", false, false),
    ] {
        let sent_whole = format!("HTTP/1.1 {sent}\r\n{more}");
        let (_, answer) = soon(async { tokio::join!(worker.answer(&sent_whole), front.get("/")) }).await;
        assert_eq!(has_line(&answer, "upgrade: TLS/1.2, HTTP/1.1"), upgrade, "{answer}");
        assert_eq!(answer.contains("connection: upgrade"), upgrade, "{answer}");
        assert_eq!(has_line(&answer, "proxy-authenticate: Basic realm=\"p\""), challenge, "{answer}");
    }
}

#[tokio::test]
async fn a_request_in_chunks_keeps_its_connection_unless_there_is_a_length_beside_them() {
    for (length, kept) in [("", true), ("Content-Length: 3\r\n", false)] {
        let worker = Worker::new().await;
        let front = Front::plain(&[&worker]).await;
        let ask = async {
            let mut client = front.connect().await;
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{length}Transfer-Encoding: chunked\r\n\r\n");
            client.write(&format!("{head}3\r\nabc\r\n0\r\n\r\n")).await;
            let answer = client.head().await;
            client.read(2).await;
            (has_line(&answer, "connection: close"), client.rest_if(!kept).await)
        };
        let serve = async {
            let mut connection = worker.accept().await;
            connection.head().await;
            chunked(&mut connection).await;
            connection.write(OK).await;
        };
        let ((), (closed, rest)) = soon(async { tokio::join!(serve, ask) }).await;
        assert_eq!((closed, rest.as_str()), (!kept, ""), "{length}");
    }
}
