//! The process: what it says about itself, what it logs, and how it goes.

use serde_json::json;

use crate::harness::{Client, DemoWorker, Proxy, Said, StepWorker, Wire, eventually, within};

#[tokio::test]
async fn st_14_the_log_has_one_record_for_each_step_of_a_pipes_life_and_no_payload_or_secret() {
    let proxy = Proxy::start_with("", &[("HOLDLINE_LOG__LEVEL", "debug")]);
    let first = StepWorker::start().await;
    proxy.register("first", first.address).await;
    let secrets = [("Authorization", "Bearer t0p-s3cret"), ("Cookie", "session=c00kie-s3cret")];
    let path = "/ws?token=qu3ry-s3cret";
    let (mut client, wire) = tokio::join!(Wire::connect(proxy.public, path, &secrets), first.accept());
    let pipe = wire.head.header("holdline-pipe").to_owned();
    let second = StepWorker::start().await;
    proxy.register("second", second.address).await;
    client.text("payl0ad-s3cret").await;
    drop(first);
    wire.reset();
    let mut wire = second.accept().await;
    assert_eq!(wire.hear().await.text(), "payl0ad-s3cret");
    client.close(1000, "bye").await;
    assert_eq!(wire.hear().await, Said::Close(1000, "bye".into()));
    wire.close(1000, "bye").await;
    proxy.logged("pipe.close", 1).await;
    for message in ["pipe.open", "pipe.interrupted", "pipe.reattached", "pipe.close"] {
        let records = proxy.records(message);
        assert_eq!(records.len(), 1, "{message}");
        assert_eq!(records[0]["pipe"], pipe, "{message}");
        assert_eq!(records[0]["level"], "INFO", "{message}");
    }
    let close = proxy.records("pipe.close").remove(0);
    assert_eq!((&close["by"], &close["code"], &close["interruptions"]), (&json!("client"), &json!(1000), &json!(1)));
    assert_eq!((&close["up"], &close["up_lost"]), (&json!(1), &json!(0)), "{close}");
    let leaked: Vec<_> = proxy.log().into_iter().filter(|line| line.contains("s3cret")).collect();
    assert!(leaked.is_empty(), "{leaked:#?}");
}

#[tokio::test]
async fn px_01_the_cpu_percent_is_real() {
    let proxy = Proxy::start("");
    let worker = DemoWorker::start("w", &[]);
    proxy.register("w", worker.address).await;
    let cpu = async || proxy.get("/health").await["cpu_percent"].as_f64().unwrap();
    eventually("idle", async || {
        // the meter looks back over a few seconds
        tokio::task::yield_now().await;
        (cpu().await < 60.0).then_some(())
    })
    .await;
    let mut client = Client::connect(proxy.public, "/ws/s1/echo").await;
    let began = proxy.cpu_time();
    let busy = eventually("busy", async || {
        for n in 0..50 {
            client.exchange(&n.to_string()).await;
        }
        let percent = cpu().await;
        // The kernel counts in hundredths of a second, and the meter looks back at the start.
        (percent > 5.0 && proxy.cpu_time() > began).then_some(percent)
    })
    .await;
    assert!(busy <= 100.0 * 16.0, "{busy}");
}

#[tokio::test]
async fn a_start_that_fails_says_why_once_and_whose_fault_it_is() {
    let taken = StepWorker::start().await;
    let start = async |name: &str, value: &str| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_holdline"));
        command.arg("serve").env("HOLDLINE_SERVER__LISTEN", r#"["127.0.0.1:0"]"#).kill_on_drop(true);
        command.env("HOLDLINE_ADMIN__LISTEN", "127.0.0.1:0").env("HOLDLINE_LOG__LEVEL", "off").env(name, value);
        let ended = within("the end", command.output()).await.unwrap();
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
    };
    let (code, said) = start("HOLDLINE_ADMIN__TOKENS_FILE", "/nowhere/tokens").await;
    assert_eq!((code, said.matches("os error 2").count()), (Some(2), 1), "{said}");
    assert!(said.starts_with("holdline: the tokens file /nowhere/tokens"), "{said}");
    let (code, said) = start("HOLDLINE_SERVER__LISTEN", &format!("[\"{}\"]", taken.address)).await;
    assert_eq!((code, said.matches("already in use").count()), (Some(1), 1), "{said}");
    assert!(said.starts_with(&format!("holdline: server.listen {}", taken.address)), "{said}");
}
