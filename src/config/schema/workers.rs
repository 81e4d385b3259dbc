//! The keys of `[[workers]]`.

use std::time::Duration;

use super::super::workers::{Backoff, WorkerGroup};
use super::root::{DAY, GIB, HOUR, MILLISECOND};
use super::{Key, any, key, name, off_or, range};

/// Bytes of a name, which with a number behind it is the id of a worker.
const NAME_BYTES_MAX: usize = 56;
/// Processes of one group.
const COUNT_MAX: u32 = 1000;
/// Bytes of one argument or value; the system's own bound is 128 KiB.
const TEXT_BYTES_MAX: usize = 64 * 1024;

pub(super) fn keys() -> Vec<Key<WorkerGroup>> {
    let mut keys = what_runs();
    keys.extend(how_it_is_reached());
    keys.extend(how_it_is_kept());
    keys.extend(when_it_is_replaced());
    keys
}

fn what_runs() -> Vec<Key<WorkerGroup>> {
    vec![
        key(
            "name",
            |w: &mut WorkerGroup| &mut w.name,
            |text| short_name(text),
            "what the API, metrics and the log call it; its workers are called name-1, name-2, …",
        )
        .required("\"api\""),
        key(
            "command",
            |w: &mut WorkerGroup| &mut w.command,
            |command| runnable(command),
            "the program and its arguments; {index}, {port}, {fd} and {socket} stand for what one worker gets, here, in env and in serves",
        )
        .required("[\"uvicorn\", \"app:app\", \"--port\", \"{port}\"]"),
        key("count", |w: &mut WorkerGroup| &mut w.count, range(0, COUNT_MAX), "workers that serve"),
        key("pool", |w: &mut WorkerGroup| &mut w.pool, any, "the pool they stand in; ready is what its health check says"),
        key(
            "standby",
            |w: &mut WorkerGroup| &mut w.standby,
            range(0, COUNT_MAX),
            "ready workers besides, without pipes until one is needed: a crash costs no start-up time",
        ),
        key(
            "env",
            |w: &mut WorkerGroup| &mut w.env,
            |env| variables(env),
            "variables besides those of Holdline's own environment, of which HOLDLINE_* are left out",
        ),
        key("cwd", |w: &mut WorkerGroup| &mut w.cwd, any, "the directory they are started in").or("\"/srv/api\""),
        key(
            "user",
            |w: &mut WorkerGroup| &mut w.user,
            any,
            "the user they run as, with its group; only where Holdline itself runs as root",
        )
        .or("\"api\""),
    ]
}

fn how_it_is_reached() -> Vec<Key<WorkerGroup>> {
    vec![
        key(
            "listen",
            |w: &mut WorkerGroup| &mut w.listen,
            any,
            "a worker binds \"port\" (or PORT), is given a socket that listens as \"fd\" (LISTEN_FDS=1), or binds the socket file of \"unix\"",
        ),
        key("ports", |w: &mut WorkerGroup| &mut w.ports, any, "the ports on 127.0.0.1 of workers that bind one"),
        key(
            "serves",
            |w: &mut WorkerGroup| &mut w.serves,
            any,
            "the route keys they take, as for a backend; [\"device-{index}\"] gives each its own",
        ),
    ]
}

fn how_it_is_kept() -> Vec<Key<WorkerGroup>> {
    vec![
        key(
            "start_timeout",
            |w: &mut WorkerGroup| &mut w.start_timeout,
            range(MILLISECOND, HOUR),
            "how long a process has to become ready; then it is stopped, and another is tried later",
        ),
        key(
            "stop_signal",
            |w: &mut WorkerGroup| &mut w.stop_signal,
            any,
            "asks a process to end once its pipes have left: \"TERM\", \"INT\", \"QUIT\", \"HUP\", \"USR1\" or \"USR2\"",
        ),
        key(
            "stop_timeout",
            |w: &mut WorkerGroup| &mut w.stop_timeout,
            range(MILLISECOND, HOUR),
            "from that signal to SIGKILL for the process and all that it has started",
        ),
        key(
            "drain_timeout",
            |w: &mut WorkerGroup| &mut w.drain_timeout,
            range(Duration::ZERO, DAY),
            "how long the pipes of a worker that is replaced have to move; then they are taken away",
        ),
        key(
            "restart_backoff",
            |w: &mut WorkerGroup| &mut w.restart_backoff,
            backoff,
            "the wait after a first failure, and the longest after many; 60s as a ready worker forget them",
        ),
    ]
}

fn when_it_is_replaced() -> Vec<Key<WorkerGroup>> {
    vec![
        key(
            "recycle_pipes",
            |w: &mut WorkerGroup| &mut w.recycle_pipes,
            any,
            "pipes after which a worker is replaced; 0 is never",
        ),
        key(
            "recycle_age",
            |w: &mut WorkerGroup| &mut w.recycle_age,
            off_or(Duration::from_secs(1), DAY * 366),
            "age at which a worker is replaced; 0 is never",
        ),
        key(
            "recycle_rss",
            |w: &mut WorkerGroup| &mut w.recycle_rss,
            off_or(1024 * 1024, 1024 * GIB),
            "resident memory, with all that it has started, at which a worker is replaced; 0 is never",
        ),
        key(
            "recycle_jitter",
            |w: &mut WorkerGroup| &mut w.recycle_jitter,
            |part| unit(*part),
            "by which part these three are lower for one worker than for another, so that not all are due at once",
        ),
        key(
            "replace",
            |w: &mut WorkerGroup| &mut w.replace,
            any,
            "\"first\" has the replacement ready before the old one is emptied; \"after\" is for workers that own a device",
        ),
    ]
}

/// An id of a backend is made of it.
fn short_name(text: &str) -> Result<(), String> {
    name(text)?;
    if text.len() <= NAME_BYTES_MAX { Ok(()) } else { Err(format!("a name here has at most {NAME_BYTES_MAX} bytes")) }
}

fn runnable(command: &[String]) -> Result<(), String> {
    if command.first().is_none_or(String::is_empty) {
        return Err("names no program; write [\"PROGRAM\", \"ARGUMENT\", …]".to_owned());
    }
    if command[0].contains(char::is_control) {
        return Err("the name of a program holds no control characters".to_owned());
    }
    command.iter().try_for_each(|text| printable(text))
}

fn variables<'a>(env: impl IntoIterator<Item = (&'a String, &'a String)>) -> Result<(), String> {
    env.into_iter().try_for_each(|(name, value)| {
        if name.is_empty() || name.contains('=') || name.contains('\0') {
            return Err("the name of a variable is not empty and holds no \"=\"".to_owned());
        }
        printable(value)
    })
}

/// What the system takes as an argument or a value.
fn printable(text: &str) -> Result<(), String> {
    match text {
        text if text.contains('\0') => Err("cannot hold a NUL".to_owned()),
        text if text.len() > TEXT_BYTES_MAX => Err(format!("holds more than {TEXT_BYTES_MAX} bytes")),
        _ => Ok(()),
    }
}

fn backoff(backoff: &Backoff) -> Result<(), String> {
    range(MILLISECOND, HOUR)(&backoff.min)?;
    range(MILLISECOND, HOUR)(&backoff.max)?;
    if backoff.min > backoff.max {
        return Err("begins with a longer wait than it ends with; write the shorter one first".to_owned());
    }
    Ok(())
}

fn unit(part: f64) -> Result<(), String> {
    if (0.0..=1.0).contains(&part) { Ok(()) } else { Err(format!("{part} is out of range; use 0 to 1")) }
}
