//! New files of certificates: taken as a whole or not at all, told, and no concern of clients that are there already.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use crate::harness::tls::{Pem, TlsFiles, Tunnel, believing, connect, params, shown, signed_by_itself};
use crate::harness::{DemoWorker, Proxy, Said, Wire, eventually};

const POOL: &str = "[[pools]]\nname = \"default\"\n";

fn proxy(certificates: &str, interval: &str) -> Proxy {
    Proxy::start(&config(certificates, interval))
}

fn config(certificates: &str, interval: &str) -> String {
    format!(
        "[server]\ntls.listen = [\"127.0.0.1:0\"]\ntls.certificates = [{certificates}]\n\
         tls.reload_interval = \"{interval}\"\n{POOL}"
    )
}

fn example() -> Pem {
    signed_by_itself(&params(&["example.test"]))
}

/// Waits until new clients are shown this certificate.
async fn shows(proxy: &Proxy, pem: &Pem) {
    eventually("the new certificate", async || {
        let stream = connect(proxy.tls, "example.test", &believing(None)).await.unwrap();
        (shown(&stream) == pem.der).then_some(())
    })
    .await;
}

fn counted(reloads: &crate::harness::metrics::Metrics, result: &str) -> f64 {
    reloads.sum("tls_reloads_total", &[("result", result)])
}

#[tokio::test]
async fn files_that_do_not_fit_change_nothing_and_those_that_do_are_taken_while_clients_stay() {
    let (files, worker) = (TlsFiles::new(), DemoWorker::start("w", &[]));
    let (first, second) = (example(), example());
    let proxy = proxy(&files.pair("own", &first), "20ms");
    proxy.register("w", worker.address).await;
    let tunnel = Tunnel::to(proxy.tls, "example.test", believing(None)).await;
    let mut client = Wire::connect(tunnel.address, "/ws/s1/echo", &[]).await;

    // The certificate has come, and its key has not.
    files.write("own.pem", &second.cert);
    let failed = proxy.event_of(0, "tls_reload_failed").await;
    assert!(failed["error"].as_str().unwrap().contains("it is not the key of the certificate"), "{failed}");
    // Half of it has come.
    files.write("own.pem", &second.cert[..second.cert.len() / 2]);
    let failed = proxy.event_of(failed["seq"].as_u64().unwrap(), "tls_reload_failed").await;
    assert!(failed["error"].as_str().unwrap().contains("not PEM, or damaged"), "{failed}");
    let stream = connect(proxy.tls, "example.test", &believing(None)).await.unwrap();
    assert_eq!(shown(&stream), first.der);
    let metrics = proxy.metrics().await;
    assert!(counted(&metrics, "failed") >= 2.0 && counted(&metrics, "loaded") == 0.0);
    assert_eq!(metrics.sum("config_last_reload_successful", &[]), 1.0);

    // A reload of a configuration that says nothing new of them is none of their concern.
    proxy.api("POST", "/v1/config/reload", Some(json!({}))).await.expect(200);

    files.pair("own", &second);
    shows(&proxy, &second).await;
    let reloaded = proxy.event_of(0, "tls_reloaded").await;
    assert_eq!(reloaded["certificates"], json!(["example.test"]));
    client.text("still here").await;
    assert_eq!(client.hear().await, Said::Text("still here".into()));
    assert_eq!(counted(&proxy.metrics().await, "loaded"), 1.0);
}

#[tokio::test]
async fn a_link_that_is_swapped_is_followed_each_time() {
    use std::os::unix::fs::symlink;
    let files = TlsFiles::new();
    let made = [example(), example(), example()];
    let link = |number: usize| {
        // As a container's volume is swapped: a new link beside the old one, and renamed over it.
        let directory = files.path(&format!("v{number}"));
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("tls.pem"), &made[number].cert).unwrap();
        std::fs::write(directory.join("tls.key"), &made[number].key).unwrap();
        symlink(&directory, files.path("next")).unwrap();
        std::fs::rename(files.path("next"), files.path("data")).unwrap();
    };
    link(0);
    let data = files.path("data").display().to_string();
    let proxy = proxy(&format!("{{ cert = \"{data}/tls.pem\", key = \"{data}/tls.key\" }}"), "20ms");
    shows(&proxy, &made[0]).await;
    for (number, pem) in made.iter().enumerate().skip(1) {
        link(number);
        shows(&proxy, pem).await;
    }
}

#[tokio::test]
async fn a_configuration_with_other_certificates_is_taken_or_refused_with_its_files() {
    let files = TlsFiles::new();
    let (first, second) = (example(), example());
    let own = files.pair("own", &first);
    let proxy = proxy(&own, "1h");
    let other = files.pair("other", &second);
    proxy.rewrite(&config(&other.replace("other.key", "own.key"), "1h"));
    let refused = proxy.api("POST", "/v1/config/reload", Some(json!({}))).await;
    assert!(refused.status >= 400 && refused.text().contains("it is not the key"), "{}", refused.text());
    shows(&proxy, &first).await;
    proxy.rewrite(&config(&format!("{other}, {own}"), "1h"));
    proxy.api("POST", "/v1/config/reload", Some(json!({}))).await.expect(200);
    shows(&proxy, &second).await;
    // Signals have their files read again as well.
    let third = example();
    files.pair("other", &third);
    proxy.signal(rustix::process::Signal::HUP);
    shows(&proxy, &third).await;
}

#[tokio::test]
async fn a_rehearsal_warns_of_bad_files_and_tells_nothing_of_them_as_if_it_were_a_reload() {
    let files = TlsFiles::new();
    let proxy = proxy(&files.pair("own", &example()), "1h");
    files.write("own.pem", &example().cert);
    let rehearsed = proxy.api("POST", "/v1/config/validate", Some(json!({}))).await.expect(200).json();
    assert!(rehearsed["warnings"][0]["message"].as_str().unwrap().contains("it is not the key"), "{rehearsed}");
    let reloads = |metrics: crate::harness::metrics::Metrics| counted(&metrics, "failed");
    assert_eq!(reloads(proxy.metrics().await), 0.0);
    proxy.api("POST", "/v1/config/reload", Some(json!({}))).await.expect(200);
    assert_eq!(reloads(proxy.metrics().await), 1.0);
    let events = proxy.get("/v1/events").await;
    let failed = events["items"].as_array().unwrap().iter().filter(|event| event["type"] == "tls_reload_failed");
    assert_eq!(failed.count(), 1, "{events}");
}

#[tokio::test]
async fn an_end_that_is_near_is_told_and_lets_nothing_fall() {
    let files = TlsFiles::new();
    let soon = |days: i64| {
        let mut params = params(&["example.test"]);
        params.not_after =
            rcgen::date_time_ymd(1970, 1, 1) + (now() + Duration::from_secs(days.unsigned_abs() * 86_400 + 60));
        params
    };
    let mut expired = params(&["old.test"]);
    expired.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let old = signed_by_itself(&expired);
    let list = [files.pair("old", &old), files.pair("soon", &signed_by_itself(&soon(10)))].join(", ");
    let proxy = proxy(&list, "20ms");
    let told = proxy.event(0, "the expired one", |event| event["type"] == "tls_expires" && event["days"] == 0).await;
    assert_eq!((&told["name"], &told["not_after"]), (&json!("old.test"), &json!(1_609_459_200)));
    let told = proxy.event(0, "the one that expires", |event| event["name"] == "example.test").await;
    assert_eq!(told["days"], 10);
    let stream = connect(proxy.tls, "old.test", &believing(None)).await.unwrap();
    assert_eq!(shown(&stream), old.der);
    files.pair("soon", &signed_by_itself(&soon(2)));
    proxy.event(told["seq"].as_u64().unwrap(), "the nearer one", |event| event["days"] == 2).await;

    let listed = proxy.get("/v1/tls").await;
    let [first, _] = listed["certificates"].as_array().unwrap().as_slice() else { panic!("{listed}") };
    let about = ["listener", "default", "names", "not_after"].map(|key| first[key].clone());
    assert_eq!(about, [json!("public"), json!(true), json!(["old.test"]), json!("2021-01-01T00:00:00Z")]);
    assert_eq!(first["fingerprint"].as_str().map(str::len), Some(64));
    let ends = [("listener", "public"), ("name", "old.test")];
    let seconds = proxy.metrics().await.sum("tls_certificate_not_after_timestamp_seconds", &ends);
    assert_eq!(seconds, 1_609_459_200.0);
}

fn now() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap()
}

#[tokio::test]
async fn clients_and_handshakes_do_not_notice_certificates_that_are_swapped_under_traffic() {
    let (files, worker) = (TlsFiles::new(), DemoWorker::start("w", &[]));
    let made: Vec<Pem> = (0..4).map(|_| example()).collect();
    let proxy = proxy(&files.pair("own", &made[0]), "20ms");
    proxy.register("w", worker.address).await;
    let tunnel = Tunnel::to(proxy.tls, "example.test", believing(None)).await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(Wire::connect(tunnel.address, "/ws/s1/echo", &[]).await);
    }
    let mut seen = 0;
    for round in 1..40 {
        if round % 10 == 0 {
            // Every tenth set is broken: a certificate without its key.
            files.write("own.pem", &made[round % 4].cert);
            files.write("own.key", &made[(round + 1) % 4].key);
        } else {
            files.pair("own", &made[round % 4]);
        }
        let mut handshakes = JoinSet::new();
        for _ in 0..5 {
            let (address, config) = (proxy.tls, believing(None));
            handshakes
                .spawn(async move { connect(address, "example.test", &config).await.map(|stream| shown(&stream)) });
        }
        for client in &mut clients {
            client.text("to and fro").await;
        }
        for client in &mut clients {
            assert_eq!(client.hear().await, Said::Text("to and fro".into()), "round {round}");
        }
        while let Some(done) = handshakes.join_next().await {
            // A pair that does not match fails the handshake: its signature is not the certificate's.
            let der = done.unwrap().unwrap();
            assert!(made.iter().any(|pem| pem.der == der));
            seen += 1;
        }
    }
    assert_eq!(seen, 39 * 5);
    let pipes = proxy.pipes().await;
    assert_eq!(pipes.len(), 50);
    assert!(counted(&proxy.metrics().await, "loaded") >= 1.0);
}

fn check(config: &Path) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_holdline")).args(["check", "-c"]).arg(config).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn check_says_exactly_what_is_wrong_with_a_certificate() {
    use std::os::unix::fs::PermissionsExt;
    let files = TlsFiles::new();
    let (good, other) = (example(), example());
    let nameless = signed_by_itself(&params(&[]));
    let mut old = params(&["example.test"]);
    old.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let old = files.pair("old", &signed_by_itself(&old));
    let open = files.pair("open", &good);
    std::fs::set_permissions(files.path("open.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let own = files.pair("own", &good);
    let crossed = Pem { key: other.key.clone(), ..good.clone() };
    let half = Pem { cert: good.cert[..good.cert.len() / 2].to_owned(), ..good.clone() };
    for (certificates, words) in [
        (own.clone(), ""),
        (own.replace("own.key", "gone.key"), "gone.key: cannot be read: No such file"),
        (own.replace("own.key", "own.pem"), "there is no private key in PEM"),
        (files.pair("crossed", &crossed), "crossed.key: it is not the key of the certificate"),
        (files.pair("half", &half), "half.pem: it is not PEM, or damaged"),
        (old, "expired on 2021-01-01T00:00:00Z"),
        (files.pair("nameless", &nameless), "it has no name (subjectAltName)"),
        (open, "every user of this machine can read the key"),
        ("{ cert = \"own.pem\" }".to_owned(), "use a table such as { cert"),
        (String::new(), "needs server.tls.certificates beside it"),
    ] {
        let config = files.write("proxy.toml", &config(&certificates, "10s"));
        let (code, said) = check(Path::new(&config));
        assert_eq!(code, Some(if words.is_empty() { 0 } else { 2 }), "{certificates}: {said}");
        assert!(said.contains(words), "{certificates}: {said}");
        assert!(words.is_empty() || said.contains("server.tls."), "{said}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_bad_at_the_start_is_said_and_nothing_listens() {
    let files = TlsFiles::new();
    let own = files.pair("own", &example());
    let config = files.write("proxy.toml", &config(&own.replace("own.key", "gone.key"), "10s"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdline"));
    let output = command.args(["serve", "-c", &config]).env("HOLDLINE_LOG__FORMAT", "json").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("gone.key: cannot be read"), "{said}");
}
