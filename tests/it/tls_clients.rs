//! Certificates of clients, the admin API by TLS, tickets that nodes share, and answers to challenges.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{CertificateRevocationListParams, DnType, KeyIdMethod, RevokedCertParams, SerialNumber};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::tls::{
    Authority, Pem, TlsFiles, Tunnel, authority, believing, connect, params, pem, signed_by, signed_by_itself,
};
use crate::harness::{Proxy, StepWorker, Wire, ask, within};
use crate::tls::proxy;

const POOL: &str = "[[pools]]\nname = \"default\"\n";

/// A client's certificate, called `name`, with a serial number, until a year.
fn client(authority: &Authority, name: &str, serial: u64, until: i32) -> Pem {
    let mut params = params(&[&format!("{name}.clients.test")]);
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from(serial));
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    signed_by(authority, &params)
}

/// The list of the certificates that an authority has revoked, by their serial numbers.
fn revoking(authority: &Authority, serials: &[u64]) -> String {
    let revoked = |&serial: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(serial),
        revocation_time: rcgen::date_time_ymd(2024, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let list = CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2024, 1, 1),
        next_update: rcgen::date_time_ymd(2090, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    pem("X509 CRL", list.signed_by(authority).unwrap().der())
}

/// The status of the answer to a request for `host`, on a connection that asks for `name` and shows a certificate.
async fn status(proxy: &Proxy, name: &str, host: &str, shows: Option<&Pem>) -> std::io::Result<String> {
    status_by(proxy, name, host, &believing(shows)).await
}

/// The same for a client that may have been here before.
async fn status_by(proxy: &Proxy, name: &str, host: &str, config: &Arc<ClientConfig>) -> std::io::Result<String> {
    let mut stream = connect(proxy.tls, name, config).await?;
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    within("an answer", stream.read_to_end(&mut answer)).await?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    Ok(answer.split(' ').nth(1).unwrap_or_default().to_owned())
}

#[tokio::test]
async fn only_clients_with_a_good_certificate_are_let_in_and_workers_are_told_which() {
    let (files, ours, theirs) = (TlsFiles::new(), authority("ours"), authority("theirs"));
    let (good, revoked) = (client(&ours, "phone-7", 7, 2090), client(&ours, "phone-8", 8, 2090));
    let ca = files.write("ca.pem", &pem("CERTIFICATE", ours.der()));
    let crl = files.write("clients.crl", &revoking(&ours, &[8]));
    let own = files.pair("own", &signed_by_itself(&params(&["example.test"])));
    let server = format!("tls.client_auth = \"require\"\ntls.client_ca = \"{ca}\"\ntls.client_crl = \"{crl}\"");
    let route =
        format!("{POOL}[[routes]]\nname = \"ws\"\npath = \"/{{*rest}}\"\npool = \"default\"\nkey = \"{{tls.cn}}\"\n");
    let proxy = proxy(&own, &server, &route);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    for (why, shows) in [
        ("missing", None),
        ("expired", Some(client(&ours, "old", 9, 2021))),
        ("of another authority", Some(client(&theirs, "stranger", 7, 2090))),
        ("revoked", Some(revoked)),
    ] {
        let done = status(&proxy, "example.test", "example.test", shows.as_ref()).await;
        assert!(done.is_err(), "{why}: {done:?}");
    }
    let refused = [("result", "client_certificate")];
    assert_eq!(proxy.metrics().await.sum("tls_handshakes_total", &refused), 4.0);
    let tunnel = Tunnel::to(proxy.tls, "example.test", believing(Some(&good))).await;
    let forged = [("Client-Cert", ":Zm9yZ2Vk:"), ("Client-Cert-Chain", ":Zm9yZ2Vk:"), ("Client_Cert", ":Zm9yZ2Vk:")];
    let (_client, wire) = tokio::join!(Wire::connect(tunnel.address, "/ws", &forged), worker.accept());
    assert_eq!(wire.head.header("client-cert"), format!(":{}:", STANDARD.encode(&good.der)));
    assert!(!wire.head.has("client-cert-chain") && !wire.head.has("client_cert"), "{:?}", wire.head);
    proxy.pipe_that("its key is the name of the certificate", |pipe| pipe["key"] == "phone-7").await;
}

#[tokio::test]
async fn a_session_is_resumed_no_more_once_its_certificate_is_revoked() {
    let (files, ours) = (TlsFiles::new(), authority("ours"));
    let ca = files.write("ca.pem", &pem("CERTIFICATE", ours.der()));
    let crl = files.write("clients.crl", &revoking(&ours, &[8]));
    let own = files.pair("own", &signed_by_itself(&params(&["example.test"])));
    let server = format!(
        "tls.client_auth = \"require\"\ntls.client_ca = \"{ca}\"\ntls.client_crl = \"{crl}\"\n\
         tls.reload_interval = \"20ms\""
    );
    let proxy = proxy(&own, &server, POOL);
    let config = believing(Some(&client(&ours, "phone-7", 7, 2090)));
    let count = async |result| proxy.metrics().await.sum("tls_handshakes_total", &[("result", result)]);
    for result in ["full", "resumed"] {
        status_by(&proxy, "example.test", "example.test", &config).await.unwrap();
        assert_eq!(count(result).await, 1.0, "{result}");
    }
    files.write("clients.crl", &revoking(&ours, &[7, 8]));
    proxy.event_of(0, "tls_reloaded").await;
    let refused = status_by(&proxy, "example.test", "example.test", &config).await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(count("resumed").await, 1.0);
}

#[tokio::test]
async fn a_session_that_began_without_a_certificate_is_resumed_nowhere_that_requires_one() {
    let (files, ours) = (TlsFiles::new(), authority("ours"));
    let ca = files.write("ca.pem", &pem("CERTIFICATE", ours.der()));
    let own = files.pair("own", &signed_by_itself(&params(&["example.test"])));
    let config = |policy: &str| {
        format!(
            "[server]\ntls.listen = [\"127.0.0.1:0\"]\ntls.certificates = [{own}]\ntls.client_ca = \"{ca}\"\n\
             tls.client_auth = \"{policy}\"\n{POOL}"
        )
    };
    let proxy = Proxy::start(&config("off"));
    let client = believing(None);
    for _ in 0..2 {
        status_by(&proxy, "example.test", "example.test", &client).await.unwrap();
    }
    let count = async || proxy.metrics().await.sum("tls_handshakes_total", &[("result", "resumed")]);
    assert_eq!(count().await, 1.0);
    proxy.rewrite(&config("require"));
    proxy.api("POST", "/v1/config/reload", Some(serde_json::json!({}))).await.expect(200);
    let refused = status_by(&proxy, "example.test", "example.test", &client).await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(count().await, 1.0);
}

#[tokio::test]
async fn a_client_without_a_certificate_cannot_bring_one_in_a_header() {
    let files = TlsFiles::new();
    let proxy = proxy(&files.pair("own", &signed_by_itself(&params(&["example.test"]))), "", POOL);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let tunnel = Tunnel::to(proxy.tls, "example.test", believing(None)).await;
    // Kept open: the next dial of a lost worker's pipe would be taken for the next client's.
    let mut pairs = Vec::new();
    for address in [tunnel.address, proxy.public] {
        let forged = [("Client-Cert", ":Zm9yZ2Vk:"), ("Client-Cert-Chain", ":Zm9yZ2Vk:")];
        let (client, wire) = tokio::join!(Wire::connect(address, "/ws", &forged), worker.accept());
        assert!(!wire.head.has("client-cert") && !wire.head.has("client-cert-chain"), "{:?}", wire.head);
        pairs.push((client, wire));
    }
}

#[tokio::test]
async fn a_host_that_asks_for_certificates_is_not_reached_by_a_connection_to_one_that_does_not() {
    let (files, ours) = (TlsFiles::new(), authority("ours"));
    let ca = files.write("ca.pem", &pem("CERTIFICATE", ours.der()));
    let open = files.pair("open", &signed_by_itself(&params(&["open.test"])));
    let closed = files.pair("closed", &signed_by_itself(&params(&["closed.test"])));
    let closed = closed.replace(" }", ", client_auth = \"require\" }");
    let proxy = proxy(&format!("{open}, {closed}"), &format!("tls.client_ca = \"{ca}\""), POOL);
    let good = client(&ours, "phone-7", 7, 2090);
    for (name, host, shows, expected) in [
        ("open.test", "open.test", None, "503"),
        ("open.test", "closed.test", None, "421"),
        ("open.test", "CLOSED.test:443", None, "421"),
        ("open.test", "another.test", None, "503"),
        ("closed.test", "closed.test", Some(&good), "503"),
        ("closed.test", "open.test", Some(&good), "421"),
    ] {
        let status = status(&proxy, name, host, shows).await.unwrap();
        assert_eq!(status, expected, "{host} on a connection to {name}");
    }
    assert!(status(&proxy, "closed.test", "closed.test", None).await.is_err());
}

#[tokio::test]
async fn a_session_that_began_at_one_node_is_resumed_at_another_that_has_the_same_secrets() {
    let files = TlsFiles::new();
    let own = files.pair("own", &signed_by_itself(&params(&["example.test"])));
    let secrets = files.write("tickets", &"s".repeat(64));
    let server = format!("tls.tickets_file = \"{secrets}\"");
    let (one, other, stranger) = (proxy(&own, &server, POOL), proxy(&own, &server, POOL), proxy(&own, "", POOL));
    let off = proxy(&own, "tls.tickets = false", POOL);
    let config = believing(None);
    for (node, result) in [(&one, "full"), (&other, "resumed"), (&stranger, "full"), (&off, "full"), (&off, "full")] {
        let before = node.metrics().await.sum("tls_handshakes_total", &[("result", result)]);
        let mut stream = connect(node.tls, "example.test", &config).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        within("the answer", stream.read_to_end(&mut Vec::new())).await.unwrap();
        let after = node.metrics().await.sum("tls_handshakes_total", &[("result", result)]);
        assert_eq!(after - before, 1.0, "{result}");
    }
}

#[tokio::test]
async fn challenges_are_answered_from_their_directory_and_from_nowhere_else() {
    let files = TlsFiles::new();
    let directory = files.path("challenges");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("a-token_1"), "a-token_1.digest").unwrap();
    std::fs::write(directory.join("large"), "x".repeat(5000)).unwrap();
    std::fs::create_dir(directory.join("inner")).unwrap();
    files.write("secret", "secret");
    std::os::unix::fs::symlink(files.path("secret"), directory.join("link")).unwrap();
    let own = files.pair("own", &signed_by_itself(&params(&["example.test"])));
    let proxy = proxy(&own, &format!("tls.acme_challenges = {directory:?}"), POOL);
    let at = |token: &str| format!("/.well-known/acme-challenge/{token}");
    let answer = ask(proxy.public, "GET", &at("a-token_1"), &[], "").await.expect(200);
    assert_eq!(answer.text(), "a-token_1.digest");
    ask(proxy.public, "HEAD", &at("a-token_1"), &[], "").await.expect(200);
    ask(proxy.public, "POST", &at("a-token_1"), &[], "").await.expect(405);
    for token in ["", "gone", "link", "inner", "large", "../secret", "..%2Fsecret", "inner/../a-token_1", "a-token_1/"]
    {
        let refused = ask(proxy.public, "GET", &at(token), &[], "").await.expect(404);
        assert!(!refused.text().contains("secret"), "{token}: {}", refused.text());
    }
    let tunnel = Tunnel::to(proxy.tls, "example.test", believing(None)).await;
    let refused = ask(tunnel.address, "GET", &at("a-token_1"), &[], "").await;
    assert_eq!(refused.status, 503, "by TLS it is a request like any other: {}", refused.text());
}

#[tokio::test]
async fn the_admin_api_leaves_loopback_for_callers_with_certificates() {
    let (files, ours) = (TlsFiles::new(), authority("ours"));
    let ca = files.write("ca.pem", &pem("CERTIFICATE", ours.der()));
    files.pair("admin", &signed_by_itself(&params(&["admin.test"])));
    let (cert, key) = (files.path("admin.pem"), files.path("admin.key"));
    let config = format!("{POOL}[admin]\ntls.cert = {cert:?}\ntls.key = {key:?}\ntls.client_ca = \"{ca}\"\n");
    let proxy = Proxy::start_with(&config, &[("HOLDLINE_ADMIN__LISTEN", "0.0.0.0:0")]);
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], proxy.admin.port()));
    let operator = client(&ours, "operator-1", 1, 2090);
    let tunnel = Tunnel::to(at, "admin.test", believing(Some(&operator))).await;
    ask(tunnel.address, "GET", "/v1/pipes", &[], "").await.expect(200);
    let listed = ask(tunnel.address, "GET", "/v1/tls", &[], "").await.expect(200).json();
    assert_eq!(listed["certificates"][0]["listener"], "admin");
    let json = [("content-type", "application/json")];
    ask(tunnel.address, "PUT", "/v1/drain", &json, "{}").await.expect(200);
    let audited = proxy.logged("admin write", 1).await;
    assert_eq!((&audited[0]["who"], &audited[0]["role"]), (&"operator-1".into(), &"operator".into()));
    // Without a certificate there is no connection to say anything on.
    let mut stream = connect(at, "admin.test", &believing(None)).await.unwrap();
    // The alert may come before this is written, or after.
    let _ = stream.write_all(b"GET /v1/pipes HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(within("the alert", stream.read(&mut [0; 9])).await.is_err());
}

/// How a command of ours ended, and what it said.
async fn holdline(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_holdline"));
    command.args(arguments).envs(environment.iter().copied()).kill_on_drop(true);
    let output = within("the end of a command", command.output()).await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test]
async fn the_command_line_asks_the_admin_api_by_tls_and_says_what_is_missing() {
    let (files, ours) = (TlsFiles::new(), authority("ours"));
    let ca = files.write("ca.pem", &pem("CERTIFICATE", ours.der()));
    files.pair("admin", &signed_by_itself(&params(&["admin.test"])));
    files.pair("operator", &client(&ours, "operator-1", 1, 2090));
    let [cert, key, shown, its_key] =
        ["admin.pem", "admin.key", "operator.pem", "operator.key"].map(|name| files.path(name).display().to_string());
    let config = format!("{POOL}[admin]\ntls.cert = {cert:?}\ntls.key = {key:?}\ntls.client_ca = \"{ca}\"\n");
    let proxy = Proxy::start(&config);
    let file = proxy.config_file().display().to_string();
    let (address, target) = (proxy.admin.to_string(), format!("https://{}", proxy.admin));
    let plain = target.replace("https", "http");
    let listens = [("HOLDLINE_ADMIN__LISTEN", address.as_str())];
    let by_env = [listens[0], ("HOLDLINE_ADMIN_CERT", shown.as_str()), ("HOLDLINE_ADMIN_KEY", its_key.as_str())];
    let shows = ["--admin-cert", shown.as_str(), "--admin-key", its_key.as_str()];
    let ctl = ["ctl", "info"];
    for (arguments, environment, code, words) in [
        (vec!["-c", &file], &by_env[..], 0, "holdline"),
        ([&["-c", &file][..], &shows].concat(), &listens, 0, "holdline"),
        ([&["--admin", &target, "--admin-ca", &cert][..], &shows].concat(), &[], 0, "holdline"),
        ([&["--admin", &target][..], &shows].concat(), &[], 1, "name whom to trust with --admin-ca"),
        (vec!["--admin", &target, "--admin-ca", &ca], &[], 1, "name whom to trust with --admin-ca"),
        (vec!["-c", &file], &listens, 1, "does it ask for a certificate (--admin-cert, --admin-key)?"),
        (vec!["--admin", &plain], &[], 1, "With it, write https://"),
        (vec!["-c", &file, "--admin-cert", &shown], &listens, 2, "give both"),
        (vec!["-c", &file, "--admin-ca", "/gone.pem"], &listens, 2, "/gone.pem: cannot be read"),
    ] {
        let (ended, said) = holdline(&[&ctl[..], &arguments].concat(), environment).await;
        assert!(ended == Some(code) && said.contains(words), "{arguments:?}: {ended:?} {said}");
    }
    // Its certificate was renewed, and the process has not looked at it yet.
    files.pair("admin", &signed_by_itself(&params(&["admin.test"])));
    let (ended, said) = holdline(&["healthcheck", "--live", "-c", &file], &by_env).await;
    assert_eq!((ended, said.as_str()), (Some(0), "alive\n"));
}

#[tokio::test]
async fn an_admin_certificate_that_has_expired_makes_no_process_ill() {
    let files = TlsFiles::new();
    let mut old = params(&["admin.test"]);
    old.not_after = rcgen::date_time_ymd(2021, 1, 1);
    files.pair("admin", &signed_by_itself(&old));
    let (cert, key) = (files.path("admin.pem"), files.path("admin.key"));
    let proxy = Proxy::start(&format!("{POOL}[admin]\ntls.cert = {cert:?}\ntls.key = {key:?}\n"));
    let (file, address) = (proxy.config_file().display().to_string(), proxy.admin.to_string());
    let listens = [("HOLDLINE_ADMIN__LISTEN", address.as_str()), ("HOLDLINE_TOKEN", "a secret")];
    let (ended, said) = holdline(&["healthcheck", "--live", "-c", &file], &listens).await;
    assert_eq!((ended, said.as_str()), (Some(0), "alive\n"));
    let (ended, said) = holdline(&["ctl", "info", "-c", &file], &listens).await;
    assert!(ended == Some(1) && said.contains("xpired"), "whom a token is told is judged: {said}");
}
