//! The keeper with real sockets, in real time: every wait is for something that the keeper tells.

use super::*;
use crate::net::DialFailure;
use holdline_core::health::Health;
use holdline_core::pool::NoCandidate;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// So long that nothing is probed a second time unless something asks for it.
const ONCE: Duration = Duration::from_secs(3600);

fn tcp(interval: Duration) -> ProbeSettings {
    ProbeSettings { interval, ..ProbeSettings::default() }
}

/// A port that refuses connections until it is told to listen.
fn closed_port() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

async fn open_port() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn is_up(event: &BackendEvent) -> bool {
    matches!(event, BackendEvent::Up { .. })
}

fn is_down(event: &BackendEvent) -> bool {
    matches!(event, BackendEvent::Down { .. })
}

#[tokio::test]
async fn a_tcp_probe_of_a_wss_worker_probes_what_pipes_use() {
    let (listener, address) = open_port().await;
    let probes = ProbeSettings { kind: ProbeKind::Tcp, interval: ONCE, timeout: PATIENCE };
    let health = HealthSettings { fall: 1, ..HealthSettings::default() };
    let mut world = World::new(vec![PoolSpec { health, ..pool("default", probes) }]);
    let _keeper = world.keep();
    world.put("a", spec(&format!("wss://127.0.0.1:{}", address.port()))).unwrap();
    let plain = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"not TLS").await.unwrap();
        stream.flush().await.unwrap();
        stream
    };
    let (_stream, down) = tokio::join!(plain, world.event(|event| is_up(event) || is_down(event)));
    let BackendEvent::Down { reason, .. } = down else { panic!("{down:?}") };
    assert!(reason.contains("TLS"), "{reason}");
}

/// The verdict of one probe of `kind` on a worker that answers each connection by `answer`.
async fn verdict<F>(kind: ProbeKind, answer: impl Fn(TcpStream) -> F) -> (Health, Option<String>)
where
    F: Future<Output = ()>,
{
    let (listener, address) = open_port().await;
    let probes = ProbeSettings { kind, interval: ONCE, timeout: Duration::from_millis(200) };
    let health = HealthSettings { fall: 1, ..HealthSettings::default() };
    let mut world = World::new(vec![PoolSpec { health, ..pool("default", probes) }]);
    let _keeper = world.keep();
    world.put("a", worker(address.port())).unwrap();
    let serve = async {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            answer(stream).await;
        }
    };
    tokio::select! {
        () = serve => unreachable!("it serves for ever"),
        _ = world.event(|event| is_up(event) || is_down(event)) => {}
    }
    let view = world.view("a");
    (view.health, view.last_probe.unwrap().problem)
}

/// Reads a head and answers it.
async fn reply(mut stream: TcpStream, answer: &str) {
    let mut head = [0; 4096];
    let read = stream.read(&mut head).await.unwrap();
    let key = String::from_utf8_lossy(&head[..read])
        .lines()
        .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ").map(str::to_owned));
    let accept = key.map(|key| super::super::probe::accept_of(&key)).unwrap_or_default();
    stream.write_all(answer.replace("{accept}", &accept).as_bytes()).await.unwrap();
    let _ = stream.shutdown().await;
    while stream.read(&mut head).await.is_ok_and(|read| read > 0) {}
}

#[tokio::test]
async fn ib_15_a_refused_port_is_out_within_one_probe_and_returns_by_itself() {
    let (socket, address) = closed_port();
    let mut world = World::new(vec![pool("default", tcp(ONCE))]);
    let _keeper = world.keep();
    world.put("a", worker(address.port())).unwrap();
    let down = world.event(is_down).await;
    assert!(matches!(down, BackendEvent::Down { reason, .. } if reason == "connection refused"));
    assert_eq!(world.choose().unwrap_err().reason, NoCandidate::NotEligible);
    let mut watch = world.backends.watch("default").unwrap();
    let _listener = socket.listen(8).unwrap();
    tokio::time::timeout(PATIENCE, watch.changed()).await.unwrap();
    assert!(world.choose().is_ok());
    world.event(is_up).await;
}

#[tokio::test]
async fn iw_11_a_backend_that_refused_a_thousand_dials_is_used_again_within_a_probe() {
    let (socket, address) = closed_port();
    let mut world = World::new(vec![pool("default", tcp(Duration::from_millis(200)))]);
    world.put("a", worker(address.port())).unwrap();
    let place = world.choose().unwrap();
    for _ in 0..1000 {
        place.report(None, Outcome::DialFailed(DialFailure::Refused));
    }
    assert_eq!(world.heard().iter().filter(|event| is_down(event)).count(), 1, "it is said once");
    let _keeper = world.keep();
    let mut watch = world.backends.watch("default").unwrap();
    let _listener = socket.listen(8).unwrap();
    tokio::time::timeout(PATIENCE, watch.changed()).await.unwrap();
    assert!(world.choose().is_ok());
}

#[tokio::test]
async fn a_new_backend_is_probed_at_once() {
    let (_listener, address) = open_port().await;
    let mut world = World::new(vec![pool("default", tcp(ONCE))]);
    let _keeper = world.keep();
    world.put("a", worker(address.port())).unwrap();
    world.event(is_up).await;
    assert_eq!(world.view("a").last_probe.unwrap().problem, None);
}

#[tokio::test]
async fn a_worker_that_says_it_is_there_is_looked_at_at_once() {
    let (socket, address) = closed_port();
    let health = HealthSettings { rise: 2, ..HealthSettings::default() };
    let mut world = World::new(vec![PoolSpec { health, ..pool("default", tcp(ONCE)) }]);
    let _keeper = world.keep();
    world.put("a", worker(address.port())).unwrap();
    world.event(is_down).await;
    let _listener = socket.listen(8).unwrap();
    assert_eq!(world.put("a", worker(address.port())), Ok(Put::Same));
    world.event(is_up).await;
}

#[tokio::test]
async fn only_a_2xx_is_a_healthy_page() {
    for (status, health) in
        [(200, Health::Up), (204, Health::Up), (301, Health::Down), (404, Health::Down), (503, Health::Down)]
    {
        let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
        let found = verdict(ProbeKind::Http("/health".into()), |stream| reply(stream, &answer)).await;
        let problem = (health == Health::Down).then(|| format!("answered {status}"));
        assert_eq!(found, (health, problem));
    }
}

#[tokio::test]
async fn a_websocket_probe_wants_a_whole_handshake() {
    let upgraded =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ";
    for (answer, problem) in [
        (format!("{upgraded}{{accept}}\r\n\r\n"), None),
        (format!("{upgraded}AAAA\r\n\r\n"), Some("101 with a wrong Sec-WebSocket-Accept")),
        ("HTTP/1.1 403 Forbidden\r\n\r\n".to_owned(), Some("answered 403 instead of 101")),
    ] {
        let (health, found) = verdict(ProbeKind::Ws("/".into()), |stream| reply(stream, &answer)).await;
        assert_eq!((health == Health::Up, found.as_deref()), (problem.is_none(), problem));
    }
}

#[tokio::test]
async fn a_websocket_probe_says_goodbye_with_1000() {
    let (heard, mut frames) = mpsc::unbounded_channel();
    let answer = |mut stream: TcpStream| {
        let heard = heard.clone();
        async move {
            let mut bytes = vec![0; 4096];
            let read = stream.read(&mut bytes).await.unwrap();
            let head = String::from_utf8_lossy(&bytes[..read]).into_owned();
            let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
            let accept = super::super::probe::accept_of(key);
            let answer = format!("HTTP/1.1 101 X\r\nSec-WebSocket-Accept: {accept}\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            let mut frame = [0; 8];
            stream.read_exact(&mut frame).await.unwrap();
            heard.send(frame).unwrap();
        }
    };
    assert_eq!(verdict(ProbeKind::Ws("/".into()), answer).await, (Health::Up, None));
    let [first, second, a, b, _, _, high, low] = frames.recv().await.unwrap();
    assert_eq!((first, second), (0x88, 0x82), "a masked close frame of two bytes");
    assert_eq!(u16::from_be_bytes([high ^ a, low ^ b]), 1000);
}

#[tokio::test]
async fn a_worker_that_answers_nonsense_too_much_or_nothing_is_not_healthy() {
    let page = || ProbeKind::Http("/".into());
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(20_000));
    let (health, problem) = verdict(page(), |stream| reply(stream, "SSH-2.0-OpenSSH\r\n")).await;
    assert!(health == Health::Down && problem.unwrap().starts_with("not HTTP"));
    let (health, problem) = verdict(page(), |stream| reply(stream, &endless)).await;
    assert!(health == Health::Down && problem.unwrap().starts_with("an answer's head of more than"));
    let (health, problem) = verdict(page(), |stream| async move { drop(stream) }).await;
    assert!(health == Health::Down && problem.is_some());
    let silent = verdict(page(), |stream| async move {
        let _held = stream;
        std::future::pending().await
    });
    assert_eq!(silent.await, (Health::Down, Some("no answer within 200ms".to_owned())));
}

#[tokio::test]
async fn a_name_that_leads_outside_of_the_networks_is_never_connected_to() {
    let (listener, address) = open_port().await;
    let mut world = World::in_networks(vec![pool("default", tcp(ONCE))], &["10.0.0.0/8"]);
    let _keeper = world.keep();
    world.put("a", spec(&format!("ws://localhost:{}", address.port()))).unwrap();
    let down = world.event(is_down).await;
    assert!(matches!(down, BackendEvent::Down { reason, .. } if reason.contains("outside of admin.backend_networks")));
    tokio::select! {
        biased;
        _ = listener.accept() => panic!("it was connected to"),
        () = std::future::ready(()) => {}
    }
}

#[tokio::test]
async fn an_expired_lease_and_a_failed_probe_free_the_pipes_at_once() {
    let (socket, address) = closed_port();
    let mut world = World::new(vec![pool("default", tcp(ONCE))]);
    world.put("a", leased(address.port(), 1)).unwrap();
    let place = world.choose().unwrap();
    let _keeper = world.keep();
    world.event(|event| matches!(event, BackendEvent::LeaseExpired { .. })).await;
    let order = tokio::time::timeout(PATIENCE, world.leaves.recv()).await.unwrap();
    assert_eq!(order, Some((place.key(), Leave { how: LeaveHow::Detach, cause: LeaveCause::LeaseExpired })));
    assert!(world.backends.get("a").is_some(), "it may still renew");
    drop(socket);
}

#[tokio::test]
async fn the_keeper_ends_when_it_is_told_to() {
    let world = World::new(vec![pool("default", tcp(ONCE))]);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let run = world.backends.run(async { _ = stopped.await });
    stop.send(()).unwrap();
    tokio::time::timeout(PATIENCE, run).await.unwrap();
}
