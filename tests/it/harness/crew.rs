//! Configurations of workers that the proxy runs itself, and looks at their processes.

use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use rustix::process::{Pid, test_kill_process_group};
use serde_json::Value;

use super::{Proxy, eventually};

/// Ports of one group; below those that the system gives out by itself.
const PORTS: u16 = 12;
const PORTS_FROM: u16 = 18_000;
const BLOCKS: u16 = 1000;

/// Ports that no other test of this process uses.
pub fn ports() -> (u16, u16) {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let block = (std::process::id() as u16 ^ NEXT.fetch_add(1, Relaxed)) % BLOCKS;
    let first = PORTS_FROM + block * PORTS;
    (first, first + PORTS - 1)
}

/// The command of a demo worker that executes commands at once, as TOML.
pub fn demo(more: &[&str]) -> String {
    let own = ["--name", "w{index}", "--listen", "127.0.0.1:{port}", "--size", "160x160", "--command-ms", "0"];
    let words = [env!("CARGO_BIN_EXE_holdline"), "worker"].into_iter().chain(own).chain(more.iter().copied());
    format!("[{}]", words.map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", "))
}

/// A shell script as a command, as TOML.
pub fn shell(script: &str) -> String {
    format!("[\"sh\", \"-c\", {script:?}]")
}

/// One pool that is probed often and a group `w` of these workers, with more keys.
pub fn group(command: &str, keys: &str) -> String {
    let (first, last) = ports();
    format!(
        "[limits]\nkey_connections = 0\nkey_rate = 0\n[[pools]]\nname = \"default\"\n\
         health = {{ interval = \"100ms\", timeout = \"5s\" }}\n\
         [[routes]]\nname = \"ws\"\npath = \"/ws/{{session}}/{{channel}}\"\nkey = \"{{session}}\"\npool = \"default\"\n\
         [[workers]]\nname = \"w\"\ncommand = {command}\nports = \"{first}-{last}\"\n{keys}\n"
    )
}

/// The workers of the proxy, by their index.
pub async fn workers(proxy: &Proxy) -> Vec<Value> {
    let mut list = proxy.get("/v1/workers").await;
    list["items"].take().as_array().cloned().unwrap_or_default()
}

/// Those in this state, once there are so many of them and no others.
pub async fn settled(proxy: &Proxy, state: &str, count: usize) -> Vec<Value> {
    eventually(&format!("{count} workers and all of them {state}"), async || {
        let workers = workers(proxy).await;
        let calm = |worker: &Value| worker["state"] == state && worker["due"].is_null();
        (workers.len() == count && workers.iter().all(calm)).then_some(workers)
    })
    .await
}

/// The number of a worker's process.
pub fn pid(worker: &Value) -> Pid {
    Pid::from_raw(worker["pid"].as_i64().unwrap() as i32).unwrap()
}

/// Waits until no process of this group is left.
pub async fn gone(group: Pid) {
    eventually("the end of a process group", async || test_kill_process_group(group).is_err().then_some(())).await;
}
