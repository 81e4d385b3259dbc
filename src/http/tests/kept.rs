//! Connections to workers: kept, stale, poisoned, and those that belong to one client.

use super::*;

#[tokio::test]
async fn a_connection_serves_one_get_after_another_and_a_stale_one_is_replaced() {
    let worker = Worker::new().await;
    let front = Front::plain(&[&worker]).await;
    let serve = async {
        let mut first = worker.accept().await;
        for _ in 0..2 {
            first.head().await;
            first.write(OK).await;
        }
        // The third request comes while the worker gives its idle connection up.
        first.head().await;
        drop(first);
        worker.answer(OK).await
    };
    let ask = async {
        for _ in 0..3 {
            assert_eq!(body(&front.get("/").await), "ok");
        }
    };
    soon(async { tokio::join!(serve, ask) }).await;
}

#[tokio::test]
async fn a_post_never_travels_on_a_connection_that_may_be_stale_and_is_never_repeated() {
    let worker = Worker::new().await;
    let front = Front::plain(&[&worker]).await;
    let serve = async {
        let mut kept = worker.accept().await;
        kept.head().await;
        kept.write(OK).await;
        let mut fresh = worker.accept().await;
        let head = fresh.head().await;
        drop(fresh);
        (kept, head)
    };
    let ask = async {
        front.get("/").await;
        front.ask("POST", "/tap", "Content-Length: 0\r\n").await
    };
    let ((_kept, head), answer) = soon(async { tokio::join!(serve, ask) }).await;
    assert!(head.starts_with("POST /tap"), "{head}");
    assert_eq!(status(&answer), "502");
}

#[tokio::test]
async fn ib_19_a_connection_that_is_refused_is_tried_elsewhere_whatever_the_method() {
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"] {
        let (alive, dead) = (Worker::new().await, Worker::new().await);
        let front = Front::keyed(&[&alive, &dead]).await;
        // Two pipes of two keys stand on two backends; the key of the dead one is asked for.
        let pipes = [front.pipe("a"), front.pipe("b")];
        let key = if pipes[0].id().as_ref() == "w1" { "a" } else { "b" };
        drop(dead);
        let path = format!("/?k={key}");
        let ask = front.ask(method, &path, "Content-Length: 0\r\n");
        let answer = tokio::select! {
            answer = soon(ask) => answer,
            head = async {
                let mut connection = alive.accept().await;
                let head = connection.head().await;
                connection.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                std::future::pending::<()>().await;
                head
            } => head,
        };
        assert_eq!(status(&answer), "200", "{method}: {answer}");
    }
}

#[tokio::test]
async fn a_kept_connection_that_turns_out_dead_is_replaced_for_what_may_be_asked_twice() {
    for method in ["GET", "HEAD", "OPTIONS"] {
        for begun in ["", "HTTP/1.1 2"] {
            let worker = Worker::new().await;
            let front = Front::plain(&[&worker]).await;
            let serve = async {
                let mut kept = worker.accept().await;
                kept.head().await;
                kept.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                kept.head().await;
                kept.write(begun).await;
                drop(kept);
                if begun.is_empty() {
                    worker.answer("HTTP/1.1 204 No Content\r\n\r\n").await;
                }
            };
            let ask = async {
                front.ask(method, "/", "").await;
                front.ask(method, "/", "").await
            };
            let ((), answer) = soon(async { tokio::join!(serve, ask) }).await;
            let expected = if begun.is_empty() { "204" } else { "502" };
            assert_eq!(status(&answer), expected, "{method} after {begun:?}: {answer}");
        }
    }
}

/// What a worker says that takes a body it did not expect for a second request.
const TWICE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn a_connection_is_not_used_again_after_a_body_that_a_worker_may_not_have_read() {
    for (method, kept) in
        [("GET", false), ("HEAD", false), ("OPTIONS", false), ("DELETE", false), ("POST", true), ("PUT", true)]
    {
        let worker = Worker::new().await;
        let front = Front::plain(&[&worker]).await;
        let serve = async {
            let mut connection = worker.accept().await;
            connection.head().await;
            connection.read(3).await;
            connection.write(if method == "HEAD" { "HTTP/1.1 200 OK\r\n\r\n" } else { TWICE }).await;
            let mut next = [0; 1];
            // The end of the connection, or the next request on it.
            let again = connection.0.read(&mut next).await.is_ok_and(|count| count > 0);
            if again {
                connection.write(TWICE).await;
            } else {
                worker.answer(TWICE).await;
            }
            again
        };
        let ask = async {
            front.ask(method, "/", "Content-Length: 3\r\n\r\nabc").await;
            front.get("/next").await
        };
        let (again, answer) = soon(async { tokio::join!(serve, ask) }).await;
        assert_eq!((again, status(&answer)), (kept, "200"), "{method}");
    }
}

#[tokio::test]
async fn bytes_that_come_early_on_a_kept_connection_are_no_answer_to_the_next_request() {
    let worker = Worker::new().await;
    let front = Front::plain(&[&worker]).await;
    let serve = async {
        let mut connection = worker.accept().await;
        connection.head().await;
        connection.write(&format!("{TWICE}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")).await;
        worker.answer(TWICE).await;
        let mut connection = worker.accept().await;
        connection.head().await;
        connection.write(TWICE).await;
        // Behind the answer, while no request is under way.
        connection.write("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison").await;
        worker.answer(TWICE).await;
    };
    let ask = async {
        for _ in 0..4 {
            assert_eq!(body(&front.get("/").await), "ok");
        }
    };
    soon(async { tokio::join!(serve, ask) }).await;
}

const CHALLENGE: &str = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: NTLM TlRMTVNTUAAC\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn a_connection_that_is_logged_in_stays_with_its_client() {
    let workers = [Worker::new().await, Worker::new().await];
    let front = Front::plain(&[&workers[0], &workers[1]]).await;
    let mut alice = front.connect().await;
    let accept = async || {
        tokio::select! {
            connection = workers[0].accept() => connection,
            connection = workers[1].accept() => connection,
        }
    };
    alice.write("POST /in HTTP/1.1\r\nHost: a\r\nAuthorization: NTLM TlRMTVNTUAAB\r\nContent-Length: 0\r\n\r\n").await;
    let mut hers = soon(accept()).await;
    hers.head().await;
    hers.write(CHALLENGE).await;
    assert_eq!(status(&soon(alice.head()).await), "401");
    for request in [
        "POST /in HTTP/1.1\r\nHost: a\r\nAuthorization: NTLM TlRMTVNTUAAD\r\nContent-Length: 2\r\n\r\nhi",
        "GET /page HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        alice.write(request).await;
        soon(hers.head()).await;
        hers.write(OK).await;
        assert_eq!(status(&soon(alice.head()).await), "200");
        alice.read(2).await;
        if request.starts_with("POST") {
            hers.read(2).await;
        }
        for _ in 0..2 {
            let serve = async {
                let mut other = accept().await;
                other.head().await;
                other.write("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").await;
            };
            let (_, answer) = soon(async { tokio::join!(serve, front.get("/page")) }).await;
            assert_eq!(status(&answer), "401", "bob is not alice");
        }
    }
    drop(alice);
    assert_eq!(soon(hers.rest()).await, "", "it ends with its client");
}
