//! TLS towards the workers of one pool: whom to trust, what to show, and what a reload makes of new files.

use std::path::Path;
use std::process::Command;

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::json;
use tempfile::TempDir;

use crate::harness::wire::CLOSE;
use crate::harness::{DemoWorker, Front, Proxy, Wire, ask};

type Pair = (CertificateDer<'static>, KeyPair);

/// What `openssl req -x509` makes: an authority that signs itself, without a name.
fn alone(years: std::ops::Range<i32>) -> Pair {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().der().clone(), key)
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

fn builder() -> rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier> {
    let provider = rustls::crypto::ring::default_provider().into();
    ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap()
}

fn server((certificate, key): &Pair) -> ServerConfig {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    builder().with_no_client_auth().with_single_cert(vec![certificate.clone()], key).unwrap()
}

struct Files(TempDir);

impl Files {
    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

/// A pool of one TLS worker, with these keys of `pools.tls`.
fn pool(host: &str, port: u16, keys: &str) -> String {
    format!(
        "[[pools]]\nname = \"default\"\nhealth.interval = \"50ms\"\nhealth.kind = \"http\"\nhealth.path = \"/health\"\n\
         {keys}[[pools.backends]]\nid = \"w\"\nurl = \"wss://{host}:{port}\"\n"
    )
}

async fn echoes(proxy: &Proxy) {
    let mut client = Wire::connect(proxy.public, "/ws/s1/echo", &[]).await;
    client.text("secret").await;
    assert_eq!(client.hear().await.text(), "secret");
    client.frame_out(true, CLOSE, &1000_u16.to_be_bytes()).await;
}

#[tokio::test]
async fn a_certificate_of_openssl_req_x509_is_trusted_where_the_pool_names_it_and_a_reload_reads_it_again() {
    let (files, worker) = (Files(tempfile::tempdir().unwrap()), DemoWorker::start("w", &[]));
    let (own, next) = (alone(2020..2090), alone(2020..2090));
    let (front, port) = Front::tls(server(&own), worker.address).await;
    let ca = files.write("ca.pem", &pem("CERTIFICATE", &own.0));
    let proxy = Proxy::start(&pool("127.0.0.1", port, &format!("tls.ca = \"{ca}\"\n")));
    proxy.event_of(0, "backend.up").await;
    echoes(&proxy).await;
    ask(proxy.public, "GET", "/health", &[], "").await.expect(200);

    // The worker comes back with another certificate, of which the pool knows nothing yet.
    drop(front);
    let (_front, port) = Front::tls(server(&next), worker.address).await;
    proxy.rewrite(&pool("127.0.0.1", port, &format!("tls.ca = \"{ca}\"\n")));
    files.write("ca.pem", "half a file");
    let refused = proxy.api("POST", "/v1/config/reload", Some(json!({}))).await;
    assert!(refused.status >= 400 && refused.text().contains("there is no certificate in PEM"), "{}", refused.text());
    files.write("ca.pem", &pem("CERTIFICATE", &own.0));
    proxy.api("POST", "/v1/config/reload", Some(json!({}))).await.expect(200);
    let refused = Wire::open(proxy.public, "/ws/s1/echo", &[]).await.unwrap_err();
    assert!(matches!(refused.status, 502 | 503), "{}", refused.text());
    files.write("ca.pem", &pem("CERTIFICATE", &next.0));
    let seen = proxy.get("/v1/events").await["last"].as_u64().unwrap();
    proxy.api("POST", "/v1/config/reload", Some(json!({}))).await.expect(200);
    proxy.event_of(seen, "backend.up").await;
    echoes(&proxy).await;
}

#[tokio::test]
async fn a_worker_that_asks_for_our_certificate_gets_that_of_its_pool_and_only_there() {
    let (files, worker) = (Files(tempfile::tempdir().unwrap()), DemoWorker::start("w", &[]));
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let signed = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &authority).unwrap().der().clone(), key)
    };
    let (own, ours) = (signed("worker.internal"), signed("holdline"));
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let provider = rustls::crypto::ring::default_provider().into();
    let asks = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
    let key = PrivateKeyDer::try_from(own.1.serialize_der()).unwrap();
    let config = builder().with_client_cert_verifier(asks).with_single_cert(vec![own.0.clone()], key).unwrap();
    let (_front, port) = Front::tls(config, worker.address).await;
    let ca = files.write("ca.pem", &pem("CERTIFICATE", authority.der()));
    let cert = files.write("cert.pem", &pem("CERTIFICATE", &ours.0));
    let key = files.write("key.pem", &pem("PRIVATE KEY", &ours.1.serialize_der()));
    let trust = format!("tls.ca = \"{ca}\"\ntls.server_name = \"worker.internal\"\n");
    let shown = format!("{trust}tls.cert = \"{cert}\"\ntls.key = \"{key}\"\n");
    let proxy = Proxy::start(&pool("127.0.0.1", port, &shown));
    proxy.event_of(0, "backend.up").await;
    echoes(&proxy).await;
    for keys in [trust.as_str(), &shown.replace("worker.internal", "another.internal")] {
        let proxy = Proxy::start(&pool("127.0.0.1", port, keys));
        proxy.event_of(0, "backend.down").await;
        let refused = Wire::open(proxy.public, "/ws/s1/echo", &[]).await.unwrap_err();
        assert!(matches!(refused.status, 502 | 503), "{}", refused.text());
    }
}

fn check(config: &Path) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_holdline")).args(["check", "-c"]).arg(config).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn check_reads_the_files_of_a_pools_tls_and_says_where_they_are_named() {
    let files = Files(tempfile::tempdir().unwrap());
    let (own, old) = (alone(2020..2090), alone(2020..2021));
    let ca = files.write("ca.pem", &pem("CERTIFICATE", &own.0));
    let expired = files.write("old.pem", &pem("CERTIFICATE", &old.0));
    let key = files.write("key.pem", &pem("PRIVATE KEY", &old.1.serialize_der()));
    for (keys, place, words) in [
        (format!("tls.ca = \"{ca}\""), None, ""),
        (format!("tls.ca = \"{ca}.gone\""), Some("3:10: pools[0].tls.ca: "), "cannot be read: No such file"),
        (format!("tls.ca = \"{key}\""), Some("3:10: pools[0].tls.ca: "), "there is no certificate in PEM"),
        (format!("tls.ca = \"{expired}\""), Some("3:10: pools[0].tls.ca: "), "expired on 2021-01-01T00:00:00Z"),
        (format!("tls.cert = \"{ca}\""), Some("3:12: pools[0].tls.cert: "), "needs tls.key beside it"),
        (
            format!("tls.key = \"{key}\"\ntls.cert = \"{ca}\""),
            Some("3:11: pools[0].tls.key: "),
            "key.pem is not the key of the certificate",
        ),
        (
            "tls.server_name = \"https://w\"".to_owned(),
            Some("3:19: pools[0].tls.server_name: "),
            "without scheme and port",
        ),
    ] {
        let config = files.write("proxy.toml", &format!("[[pools]]\nname = \"default\"\n{keys}\n"));
        let (code, said) = check(Path::new(&config));
        assert_eq!(code, Some(if place.is_some() { 2 } else { 0 }), "{keys}: {said}");
        assert!(said.contains(place.unwrap_or_default()) && said.contains(words), "{keys}: {said}");
    }
}

#[tokio::test]
async fn an_expired_certificate_is_a_warning_at_a_start_and_stops_only_handshakes() {
    let (files, worker) = (Files(tempfile::tempdir().unwrap()), DemoWorker::start("w", &[]));
    let own = alone(2020..2021);
    let (_front, port) = Front::tls(server(&own), worker.address).await;
    let ca = files.write("ca.pem", &pem("CERTIFICATE", &own.0));
    let proxy = Proxy::start(&pool("127.0.0.1", port, &format!("tls.ca = \"{ca}\"\n")));
    let down = proxy.event_of(0, "backend.down").await;
    assert!(down["reason"].as_str().unwrap().contains("Expired"), "{down}");
    let warned = |line: &String| line.contains("\"WARN\"") && line.contains("expired on 2021-01-01T00:00:00Z");
    assert!(proxy.log().iter().any(warned), "{:#?}", proxy.log());
}
