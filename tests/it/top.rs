//! `holdline ctl top` on a terminal of its own.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::process::{Child, Command};

use crate::harness::{Client, DemoWorker, Proxy, eventually, within};

/// A program on a terminal.
pub(crate) struct Terminal {
    program: Child,
    keys: File,
    said: Arc<Mutex<String>>,
}

impl Terminal {
    pub(crate) fn start(mut command: Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        tcsetwinsize(&master, Winsize { ws_row: 40, ws_col: 150, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap();
        let slave: OwnedFd = rustix::fs::open(&*path, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        command.stdin(end()).stdout(end()).stderr(end()).env("TERM", "xterm-256color").kill_on_drop(true);
        let program = command.spawn().unwrap();
        let (keys, said) = (File::from(master), Arc::new(Mutex::new(String::new())));
        let (mut screen, heard) = (keys.try_clone().unwrap(), said.clone());
        // it ends when the last descriptor of the other end is closed
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = screen.read(&mut bytes) {
                heard.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..read]));
            }
        });
        Self { program, keys, said }
    }

    pub(crate) async fn shows(&self, words: &str) {
        eventually(words, async || self.said.lock().unwrap().contains(words).then_some(())).await;
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }
}

fn top(proxy: &Proxy) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdline"));
    command.args(["ctl", "top", "--every", "0.2"]).env("HOLDLINE_ADMIN", proxy.admin.to_string());
    command
}

#[tokio::test]
async fn a_key_drains_a_backend_and_another_moves_a_pipe() {
    let proxy = Proxy::start("");
    let workers = [DemoWorker::start("a", &[]), DemoWorker::start("b", &[])];
    proxy.register("w-a", workers[0].address).await;
    let mut client = Client::connect(proxy.public, "/ws/s1/echo").await;
    assert_eq!(client.exchange("hello").await, "hello");
    let pipe = proxy.pipe_that("a pipe", |_| true).await["id"].as_str().unwrap().to_owned();
    proxy.register("w-b", workers[1].address).await;
    let mut terminal = Terminal::start(top(&proxy));
    terminal.shows("w-b").await;
    terminal.shows(&pipe).await;
    // to the pipes, and move the one there is
    terminal.press("\tm");
    proxy.pipe_that("it is on the other one", |pipe| pipe["backend"] == "w-b").await;
    // back to the backends, down to the second, and drain it
    terminal.press("\x1b[Z\x1b[Bd");
    terminal.shows("move (y/n)").await;
    assert_eq!(proxy.get("/v1/backends/w-b").await["state"], "ready", "not before a yes");
    terminal.press("y");
    proxy.pipe_that("it is back", |pipe| pipe["backend"] == "w-a").await;
    assert_eq!(proxy.get("/v1/backends/w-b").await["state"], "drain");
    terminal.shows("w-b drains").await;
    terminal.press("r");
    terminal.shows("takes pipes").await;
    assert_eq!(proxy.get("/v1/backends/w-b").await["state"], "ready");
    // a search of all pipes, which escape takes back; then the events, and the help
    terminal.press("/s1\r");
    terminal.shows("with \"s1\"").await;
    terminal.press("\x1b");
    terminal.shows("backend.state_changed").await;
    terminal.press("?");
    terminal.shows("any key closes this").await;
    terminal.press(" q");
    assert!(within("the end", terminal.program.wait()).await.unwrap().success());
    // the screen that was there before comes back
    terminal.shows("\x1b[?1049l").await;
    assert_eq!(client.exchange("still here").await, "still here");
}

#[tokio::test]
async fn without_a_terminal_it_says_what_does_without() {
    let proxy = Proxy::start("");
    let done = within("the end", top(&proxy).stdin(Stdio::null()).output()).await.unwrap();
    assert_eq!(done.status.code(), Some(2));
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(said.contains("needs a terminal") && said.contains("--once"), "{said}");
}

#[tokio::test]
async fn once_it_prints_a_look_and_leaves() {
    let proxy = Proxy::start("");
    let worker = DemoWorker::start("a", &[]);
    proxy.register("w-a", worker.address).await;
    let mut client = Client::connect(proxy.public, "/ws/s1/echo").await;
    assert_eq!(client.exchange("hello").await, "hello");
    let done = within("the end", top(&proxy).arg("--once").stdin(Stdio::null()).output()).await.unwrap();
    assert!(done.status.success(), "{done:?}");
    let said = String::from_utf8(done.stdout).unwrap();
    for part in ["holdline ", "1 pipes", "w-a", "1 of 1 pipes by id", "backend.registered"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains('\x1b'), "no colours and no cursor: {said}");
    assert_eq!(client.exchange("still here").await, "still here");
}
