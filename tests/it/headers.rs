//! What a route changes about the headers that cross it.

use std::process::Command;

use crate::harness::{KEYED, Proxy, StepWorker, Wire, ask};

const PATH: &str = "/ws/s1/control";

const RULES: &str = r#"
[routes.headers.request]
set = { x-env = "prod", User-Agent = "one" }
add = { x-seen = "holdline" }
remove = ["Cookie", "X-Forwarded-For"]
[routes.headers.response]
set = { strict-transport-security = "max-age=1" }
add = { set-cookie = "lb=1" }
remove = ["server"]
"#;

const SENT: [(&str, &str); 4] =
    [("x-env", "forged"), ("cookie", "a=1"), ("x-seen", "client"), ("user-agent", "another")];

fn check_request(head: &crate::harness::wire::Head) {
    let all = |wanted: &str| {
        let found = head.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.clone()).collect::<Vec<_>>()
    };
    assert_eq!(all("x-env"), ["prod"]);
    assert_eq!(all("user-agent"), ["one"]);
    assert_eq!(all("x-seen"), ["client", "holdline"]);
    assert!(all("cookie").is_empty() && all("x-forwarded-for").is_empty(), "{head:?}");
    assert_eq!(all("x-forwarded-proto"), ["http"], "what is not named is as ever");
}

#[tokio::test]
async fn headers_are_set_added_and_removed_on_plain_requests_and_their_answers() {
    let proxy = Proxy::start(&format!("{KEYED}{RULES}"));
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (reply, ()) = tokio::join!(ask(proxy.public, "GET", PATH, &SENT, ""), async {
        let mut knock = worker.knock().await;
        check_request(&knock.head);
        let headers = "Server: x\r\nStrict-Transport-Security: none\r\nSet-Cookie: own=1\r\n";
        knock.answer(&format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: 0\r\n\r\n")).await;
    });
    assert_eq!((reply.header("strict-transport-security"), reply.headers.contains_key("server")), ("max-age=1", false));
    let cookies: Vec<_> = reply.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["own=1", "lb=1"]);
}

#[tokio::test]
async fn headers_are_changed_on_a_handshake_its_101_and_each_reattach() {
    let proxy = Proxy::start(&format!("{KEYED}{RULES}"));
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let upgrade = async {
        let knock = worker.knock().await;
        check_request(&knock.head);
        knock.upgrade_with("Server: x\r\n").await
    };
    let (client, wire) = tokio::join!(Wire::connect(proxy.public, PATH, &SENT), upgrade);
    assert_eq!(
        (client.head.header("strict-transport-security"), client.head.header("set-cookie")),
        ("max-age=1", "lb=1")
    );
    assert!(!client.head.has("server"));
    wire.reset();
    check_request(&worker.knock().await.head);
    let refuse = async {
        worker.knock().await.answer("HTTP/1.1 403 Forbidden\r\nServer: x\r\nContent-Length: 0\r\n\r\n").await;
    };
    let (refused, ()) = tokio::join!(Wire::open(proxy.public, PATH, &[]), refuse);
    let refused = refused.unwrap_err().expect(403);
    assert_eq!((refused.header("strict-transport-security"), refused.header("server")), ("max-age=1", ""));
}

#[tokio::test]
async fn the_worker_gets_the_host_that_its_route_says() {
    let worker = StepWorker::start().await;
    // A worker that is lost before its client would be followed by another dial, which the next accept would take.
    let mut kept = Vec::new();
    for (rule, wanted) in [
        ("client", None),
        ("backend", Some(worker.address.to_string())),
        ("app.example:81", Some("app.example:81".into())),
    ] {
        let proxy = Proxy::start(&format!("{KEYED}host = \"{rule}\"\n"));
        proxy.register("w", worker.address).await;
        let wanted = wanted.unwrap_or_else(|| proxy.public.to_string());
        let (client, wire) = tokio::join!(Wire::connect(proxy.public, PATH, &[]), worker.accept());
        assert_eq!(wire.head.header("host"), wanted, "{rule}");
        assert_eq!(wire.head.header("x-forwarded-host"), proxy.public.to_string(), "the client's is told all the same");
        let (_, knock) = tokio::join!(ask(proxy.public, "GET", PATH, &[], ""), async {
            let mut knock = worker.knock().await;
            knock.answer("HTTP/1.1 204 No Content\r\n\r\n").await;
            knock
        });
        assert_eq!(knock.head.header("host"), wanted, "{rule}");
        kept.push((proxy, client, wire));
    }
}

#[test]
fn check_refuses_headers_that_are_ours_to_say_with_their_line_and_key() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("proxy.toml");
    for (line, wanted) in [
        (
            "headers.request.set = { Connection = \"x\" }",
            "routes[0].headers.request.set: `Connection` is spoken between",
        ),
        (
            "headers.response.remove = [\"Sec-WebSocket-Accept\"]",
            "routes[0].headers.response.remove: `Sec-WebSocket-Accept`",
        ),
        ("headers.request.add = { Host = \"x\" }", "routes[0].headers.request.add: `Host` is decided by routes.host"),
        ("host = \"http://a\"", "routes[0].host: cannot use \"http://a\"; use \"client\", \"backend\", or a host"),
    ] {
        std::fs::write(&file, format!("[[routes]]\n{line}\n")).unwrap();
        let check = Command::new(env!("CARGO_BIN_EXE_holdline")).args(["check", "-c"]).arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&check.stderr).into_owned() + &String::from_utf8_lossy(&check.stdout);
        assert_eq!(check.status.code(), Some(2), "{said}");
        assert!(said.contains(wanted) && said.contains("proxy.toml:2:"), "{said}");
    }
}
