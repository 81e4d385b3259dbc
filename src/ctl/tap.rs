//! `holdline ctl tap`: the messages of one pipe as they come.

use serde_json::{Value, json};

use super::ask::{Kind, Thing};
use super::output::{Output, text};
use super::table::{bytes, to_the_millisecond};
use super::{CallError, Client};

pub(super) async fn run(
    client: &Client,
    out: Output,
    id: &str,
    bytes: Option<u32>,
    time: Option<String>,
) -> anyhow::Result<()> {
    let mut body = json!({});
    if let Some(bytes) = bytes {
        body["bytes"] = bytes.into();
    }
    if let Some(time) = time {
        body["for"] = time.into();
    }
    let path = format!("{}/tap", Thing::new(Kind::Pipe, id).path());
    let mut broken = None;
    let followed = client
        .follow(&path, &body, |line| {
            let printed = out.print(&if out.json { format!("{line}\n") } else { readable(line) });
            broken = printed.err();
            broken.is_none()
        })
        .await;
    match (broken, followed) {
        (Some(error), _) => Err(error),
        (None, Err(error @ CallError::NotFound(_))) => {
            Err(anyhow::anyhow!("{error}; `holdline ctl pipes` lists what there is"))
        }
        (None, followed) => Ok(followed?),
    }
}

/// `10:13:37.123 up 12 text 1.5 KiB hello…`.
fn readable(line: &Value) -> String {
    if let Some(missed) = line["missed"].as_u64() {
        return format!("{missed} messages came too fast to be shown\n");
    }
    if let Some(end) = line["end"].as_str() {
        return format!("the end: {}\n", if end == "time" { "the time is over" } else { "the pipe has ended" });
    }
    if line["for_ms"].is_u64() {
        let seconds = line["for_ms"].as_u64().unwrap_or_default() / 1000;
        return format!(
            "{} for {seconds} s, the first {} bytes of each message\n",
            text(&line["pipe"]),
            line["bytes_max"]
        );
    }
    let at = to_the_millisecond(&text(&line["at"]));
    let size = bytes(line["payload_bytes"].as_u64().unwrap_or_default());
    let payload =
        if line["text"].is_string() { text(&line["text"]) } else { format!("base64 {}", text(&line["base64"])) };
    let more = if line["cut"] == true { "…" } else { "" };
    let packed = if line["compressed"] == true { " compressed" } else { "" };
    let (lane, kind) = (text(&line["lane"]), text(&line["kind"]));
    format!("{at} {lane} {} {kind} {size}{packed} {payload}{more}\n", line["seq"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_a_line_that_cannot_draw() {
        let line = json!({"at": "2026-11-21T10:13:37.1234Z", "lane": "up", "seq": 3, "kind": "text", "payload_bytes": 1536,
            "cut": true, "text": "a\u{1b}[2J"});
        assert_eq!(readable(&line), "2026-11-21T10:13:37.123Z up 3 text 1.5 KiB a\\u{1b}[2J…\n");
        let line = json!({"at": "2026-11-21T10:13:37Z", "lane": "down", "seq": 4, "kind": "binary", "payload_bytes": 1,
            "compressed": true, "base64": "AA=="});
        assert_eq!(readable(&line), "2026-11-21T10:13:37Z down 4 binary 1 B compressed base64 AA==\n");
        assert!(readable(&json!({"missed": 3})).starts_with("3 messages"));
        assert!(readable(&json!({"end": "pipe"})).contains("has ended"));
        assert_eq!(
            readable(&json!({"pipe": "p", "for_ms": 30_000, "bytes_max": 9})),
            "p for 30 s, the first 9 bytes of each message\n"
        );
    }
}
