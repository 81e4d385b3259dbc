//! Browsers that know nothing of Holdline come back to their pipes by cookies, and no tab gets another's conversation.

use serde_json::Value;

use crate::harness::{Proxy, Said, StepWorker, Wire, ask, eventually};

/// A route that knows browsers again, with no limits of keys.
fn config(more: &str) -> String {
    format!(
        "[resume]\ngrace = \"10m\"\n{more}\n[[pools]]\nname = \"default\"\n[[routes]]\nname = \"ws\"\npath = \"/ws/{{*rest}}\"\n\
         pool = \"default\"\nresume = \"cookie\"\n[[routes]]\nname = \"rest\"\npool = \"default\"\n"
    )
}

/// What a browser keeps of the cookies of one path: one value for each name.
#[derive(Default)]
struct Browser(Vec<(String, String)>);

impl Browser {
    fn keep(&mut self, wire: &Wire) {
        let set = wire.head.header("set-cookie");
        if set.is_empty() {
            return;
        }
        let (name, value) = set.split(';').next().unwrap().split_once('=').unwrap();
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.to_owned(), value.to_owned()));
    }

    fn cookies(&self) -> String {
        let pairs = self.0.iter().map(|(name, value)| format!("{name}={value}"));
        ["theme=dark".to_owned()].into_iter().chain(pairs).collect::<Vec<_>>().join("; ")
    }

    /// Opens a tab's socket, which is let in.
    async fn open(&mut self, proxy: &Proxy, path: &str) -> Wire {
        let wire = Wire::connect(proxy.public, path, &[("cookie", &self.cookies())]).await;
        self.keep(&wire);
        wire
    }

    /// The same, with a worker that must take it as a new pipe.
    async fn open_anew(&mut self, proxy: &Proxy, worker: &StepWorker, path: &str) -> (Wire, Wire) {
        let cookies = self.cookies();
        let headers = [("cookie", cookies.as_str())];
        let (wire, workers) = tokio::join!(Wire::connect(proxy.public, path, &headers), worker.accept());
        self.keep(&wire);
        (wire, workers)
    }
}

async fn started(more: &str) -> (Proxy, StepWorker, Browser) {
    let proxy = Proxy::start(&config(more));
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    (proxy, worker, Browser::default())
}

async fn pipes_in(proxy: &Proxy, state: &str, count: usize) {
    let is_in = |pipe: &&Value| pipe["state"] == state;
    eventually(state, async || (proxy.pipes().await.iter().filter(is_in).count() == count).then_some(())).await;
}

fn text(text: &str) -> Said {
    Said::Text(text.into())
}

#[tokio::test]
async fn a_browser_that_was_lost_comes_back_to_its_pipe_and_its_worker_sees_no_cookie_of_ours() {
    let (proxy, worker, mut browser) = started("").await;
    let (client, mut wire) = browser.open_anew(&proxy, &worker, "/ws/a").await;
    let set = client.head.header("set-cookie");
    assert!(set.ends_with("; Path=/ws/a; HttpOnly; SameSite=Strict"), "{set}");
    wire.text("before").await;
    client.reset();
    pipes_in(&proxy, "client_detached", 1).await;
    let mut client = browser.open(&proxy, "/ws/a").await;
    assert_eq!(client.hear().await, text("before"));
    client.text("back").await;
    assert_eq!(wire.hear().await, text("back"));
    let resumed = [("route", "ws"), ("transport", "websocket"), ("result", "resumed")];
    assert_eq!(proxy.metrics().await.sum("client_resumes_total", &resumed), 1.0);
    assert!(proxy.log().iter().all(|line| !line.contains("hl1.")), "a token is in no log");
    client.close(1000, "bye").await;
    assert_eq!(wire.hear().await, Said::Close(1000, "bye".into()));
    drop(wire);
    proxy.emptied().await;
    let (cookies, knock) = (browser.cookies(), worker.knock());
    let headers = [("cookie", cookies.as_str())];
    let (_, knock) = tokio::join!(ask(proxy.public, "GET", "/ws/a", &headers, String::new()), async {
        let mut knock = knock.await;
        knock.answer("HTTP/1.1 204 No Content\r\n\r\n").await;
        knock
    });
    assert_eq!(knock.head.header("cookie"), "theme=dark");
}

#[tokio::test]
async fn a_page_that_is_loaded_again_comes_back_to_its_pipe() {
    let (proxy, worker, mut browser) = started("").await;
    let (mut client, mut wire) = browser.open_anew(&proxy, &worker, "/ws/a").await;
    client.close(1001, "").await;
    assert_eq!(client.hear().await, Said::Close(1001, String::new()));
    pipes_in(&proxy, "client_detached", 1).await;
    wire.text("meanwhile").await;
    let mut client = browser.open(&proxy, "/ws/a").await;
    assert_eq!(client.hear().await, text("meanwhile"));
    client.text("again").await;
    assert_eq!(wire.hear().await, text("again"));
}

#[tokio::test]
async fn a_second_tab_gets_a_pipe_of_its_own_and_each_tab_comes_back_to_its_own() {
    let (proxy, worker, mut browser) = started("").await;
    let (mut first, mut first_wire) = browser.open_anew(&proxy, &worker, "/ws/a").await;
    // A browser answers pings by itself, whatever its page does.
    let probed = async {
        first.pong_once().await;
        first
    };
    let (first, (second, mut second_wire)) = tokio::join!(probed, browser.open_anew(&proxy, &worker, "/ws/a"));
    second_wire.text("for the second tab").await;
    drop(second);
    pipes_in(&proxy, "client_detached", 1).await;
    let mut first = first;
    let probed = async {
        first.pong_once().await;
        first
    };
    let (mut first, mut second) = tokio::join!(probed, browser.open(&proxy, "/ws/a"));
    assert_eq!(second.hear().await, text("for the second tab"));
    first.text("one").await;
    second.text("two").await;
    assert_eq!((first_wire.hear().await, second_wire.hear().await), (text("one"), text("two")));
}

#[tokio::test]
async fn two_tabs_that_are_lost_at_once_get_new_pipes_because_they_cannot_be_told_apart() {
    let (proxy, worker, mut browser) = started("").await;
    let (mut first, _first_wire) = browser.open_anew(&proxy, &worker, "/ws/a").await;
    let probed = async {
        first.pong_once().await;
        first
    };
    let (first, (second, _second_wire)) = tokio::join!(probed, browser.open_anew(&proxy, &worker, "/ws/a"));
    first.reset();
    second.reset();
    pipes_in(&proxy, "client_detached", 2).await;
    let (mut client, mut wire) = browser.open_anew(&proxy, &worker, "/ws/a").await;
    client.text("anew").await;
    assert_eq!(wire.hear().await, text("anew"));
}

#[tokio::test]
async fn a_client_that_answers_no_ping_makes_way_for_the_one_that_has_its_cookie() {
    let (proxy, worker, mut browser) = started("probe_timeout = \"200ms\"").await;
    let (_in_a_tunnel, mut wire) = browser.open_anew(&proxy, &worker, "/ws/a").await;
    let mut client = browser.open(&proxy, "/ws/a").await;
    client.text("by another network").await;
    assert_eq!(wire.hear().await, text("by another network"));
    let replaced = [("route", "ws"), ("transport", "websocket"), ("result", "replaced")];
    assert_eq!(proxy.metrics().await.sum("client_resumes_total", &replaced), 1.0);
}

#[tokio::test]
async fn another_path_another_user_and_another_process_find_no_pipe_by_the_cookie() {
    let (proxy, worker, mut browser) = started("").await;
    let (client, _wire) = browser.open_anew(&proxy, &worker, "/ws/a").await;
    client.reset();
    pipes_in(&proxy, "client_detached", 1).await;
    let cookies = browser.cookies();
    let mut strangers = Vec::new();
    for (path, user) in [("/ws/b", None), ("/ws/a", Some("Basic b3RoZXI="))] {
        let headers: Vec<_> =
            [("cookie", cookies.as_str())].into_iter().chain(user.map(|user| ("authorization", user))).collect();
        let (mut client, mut wire) = tokio::join!(Wire::connect(proxy.public, path, &headers), worker.accept());
        client.text("new").await;
        assert_eq!(wire.hear().await, text("new"), "{path}");
        strangers.push((client, wire));
    }
    let (other, other_worker, _) = started("").await;
    let headers = [("cookie", cookies.as_str())];
    let (client, _) = tokio::join!(Wire::connect(other.public, "/ws/a", &headers), other_worker.accept());
    assert!(client.head.has("set-cookie"), "it has one of the new process");
}

#[tokio::test]
async fn forged_cookies_are_told_nothing_and_meet_a_limit() {
    let (proxy, worker, mut browser) = started("[limits]\nresume_failures = \"2/h\"").await;
    let (client, _wire) = browser.open_anew(&proxy, &worker, "/ws/a").await;
    client.reset();
    pipes_in(&proxy, "client_detached", 1).await;
    let good = browser.cookies();
    let forged = format!("{}AAAA", &good[..good.len() - 4]);
    let headers = [("cookie", forged.as_str())];
    let mut open = Vec::new();
    for _ in 0..2 {
        let (client, wire) = tokio::join!(Wire::connect(proxy.public, "/ws/a", &headers), worker.accept());
        assert!(client.head.has("set-cookie"), "as one without a cookie");
        open.push((client, wire));
    }
    let refused = Wire::open(proxy.public, "/ws/a", &headers).await.unwrap_err();
    assert_eq!(refused.status, 429);
    assert_eq!(proxy.metrics().await.sum("rate_limited_total", &[("limit", "resume_failures")]), 1.0);
    let _without = tokio::join!(Wire::connect(proxy.public, "/ws/a", &[]), worker.accept());
}

#[tokio::test]
async fn st_10_cookies_outlive_a_rotation_of_the_keys() {
    let files = tempfile::tempdir().unwrap();
    let keys = files.path().join("keys");
    make_keys("new", &keys);
    let (proxy, worker, mut browser) = started(&format!("keys_file = {:?}", keys.to_str().unwrap())).await;
    let (client, mut wire) = browser.open_anew(&proxy, &worker, "/ws/a").await;
    client.reset();
    pipes_in(&proxy, "client_detached", 1).await;
    make_keys("rotate", &keys);
    proxy.api("POST", "/v1/config/reload", Some(serde_json::json!({}))).await.expect(200);
    let mut client = browser.open(&proxy, "/ws/a").await;
    client.text("back").await;
    assert_eq!(wire.hear().await, text("back"));
}

#[tokio::test]
async fn st_10_cookies_of_an_earlier_start_are_genuine_where_both_have_read_the_same_keys() {
    let files = tempfile::tempdir().unwrap();
    let keys = files.path().join("keys");
    make_keys("new", &keys);
    let settings = format!("keys_file = {:?}\n[limits]\nresume_failures = \"1/min\"", keys.to_str().unwrap());
    let (first, worker, mut browser) = started(&settings).await;
    drop(browser.open_anew(&first, &worker, "/ws/a").await);
    drop((first, worker));
    let (second, worker, _) = started(&settings).await;
    let cookies = browser.cookies();
    let mut open = Vec::new();
    for _ in 0..3 {
        // Its pipe went with the process, and it counts as no failure.
        let headers = [("cookie", cookies.as_str())];
        open.push(tokio::join!(Wire::connect(second.public, "/ws/a", &headers), worker.accept()));
    }
    assert_eq!(second.metrics().await.sum("rate_limited_total", &[("limit", "resume_failures")]), 0.0);
}

#[tokio::test]
async fn a_library_that_waits_for_a_greeting_on_each_connection_gets_one_from_a_new_pipe() {
    let (proxy, worker, mut browser) = started("").await;
    for sid in ["a", "b"] {
        let (mut client, mut wire) = browser.open_anew(&proxy, &worker, "/ws/a").await;
        let greeting = format!(r#"0{{"sid":"{sid}"}}"#);
        wire.text(&greeting).await;
        assert_eq!(client.hear().await, text(&greeting));
        client.reset();
        assert!(matches!(wire.hear().await, Said::Close(1001, _)), "its worker is told at once");
    }
}

#[tokio::test]
async fn a_client_of_a_byte_stream_begins_anew_unless_the_route_says_that_it_can_go_on_amid_it() {
    for (more, is_new) in [("", true), ("conversation = \"stateful\"\n", false)] {
        let proxy = Proxy::start(&config("").replace("resume =", &format!("{more}resume =")));
        let worker = StepWorker::start().await;
        proxy.register("w", worker.address).await;
        let mut browser = Browser::default();
        let offer = [("sec-websocket-protocol", "binary")];
        let accept = async || worker.knock().await.upgrade_with("Sec-WebSocket-Protocol: binary\r\n").await;
        let (mut client, mut wire) = tokio::join!(Wire::connect(proxy.public, "/ws/vnc", &offer), accept());
        browser.keep(&client);
        wire.text("RFB 003.008").await;
        assert_eq!(client.hear().await, text("RFB 003.008"));
        client.reset();
        if is_new {
            assert!(matches!(wire.hear().await, Said::Close(1001, _)), "its worker is told at once");
            proxy.emptied().await;
        } else {
            pipes_in(&proxy, "client_detached", 1).await;
        }
        let cookies = browser.cookies();
        let headers = [offer[0], ("cookie", cookies.as_str())];
        let again = Wire::connect(proxy.public, "/ws/vnc", &headers);
        if is_new {
            let (mut client, mut wire) = tokio::join!(again, accept());
            wire.text("RFB 003.008").await;
            assert_eq!(client.hear().await, text("RFB 003.008"));
        } else {
            let mut client = again.await;
            client.text("goes on").await;
            assert_eq!(wire.hear().await, text("goes on"));
        }
    }
}

/// `holdline keys new FILE` or `rotate`.
fn make_keys(action: &str, file: &std::path::Path) {
    let made = std::process::Command::new(env!("CARGO_BIN_EXE_holdline")).args(["keys", action]).arg(file).output();
    assert!(made.unwrap().status.success(), "{action}");
}
