//! Why an address cannot be bound, in words that say what to do: who has it, or what is missing.
//!
//! Who has it is looked up in `/proc` and known only as far as this user may see other processes' descriptors.

use std::collections::HashSet;
use std::fmt::Display;
use std::io;
use std::path::Path;

/// Ports below this one are the administrator's.
const PRIVILEGED_PORTS: u16 = 1024;

/// The error of binding `listen`, which the key `key` says, with its port if it has one.
pub fn bind_error(key: &str, listen: impl Display, port: Option<u16>, error: &io::Error) -> io::Error {
    let hint = match (error.kind(), port) {
        (io::ErrorKind::AddrInUse, Some(port)) => format!("; {}, or use another port in {key}", in_use(port)),
        (io::ErrorKind::AddrInUse, None) => {
            format!("; another process listens on that file: see `ss -lxp`, or use another in {key}")
        }
        (io::ErrorKind::AddrNotAvailable, _) => {
            "; this machine has no such address: `ip address` lists what it has".to_owned()
        }
        (io::ErrorKind::PermissionDenied, Some(port)) if port < PRIVILEGED_PORTS => format!(
            "; ports below {PRIVILEGED_PORTS} need CAP_NET_BIND_SERVICE (AmbientCapabilities= of systemd, `setcap`), or use another port in {key}"
        ),
        _ => String::new(),
    };
    io::Error::new(error.kind(), format!("{key} {listen}: {error}{hint}"))
}

fn in_use(port: u16) -> String {
    match holder(port) {
        Some(holder) => format!("{holder} listens there: stop it"),
        None => format!("another process listens there, `ss -ltnp sport = :{port}` as root says which: stop it"),
    }
}

/// The name and the id of a process that listens on a port of this machine.
fn holder(port: u16) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let sockets: HashSet<String> = tables.iter().flat_map(|table| listening(table, port)).collect();
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    // Beside processes by their ids, there is `self`.
    let has_id = |name: &std::ffi::OsStr| name.to_str().is_some_and(|name| name.parse::<u32>().is_ok());
    let mut processes = processes.filter(|entry| has_id(&entry.file_name())).map(|entry| entry.path());
    let found = processes.find(|process| has_one_of(process, &sockets))?;
    let name = std::fs::read_to_string(found.join("comm")).ok()?;
    Some(format!("{} (process {})", name.trim().escape_debug(), found.file_name()?.to_str()?))
}

/// The sockets that listen on `port`, as `/proc/PID/fd` calls them, by a table of proc(5).
fn listening(table: &str, port: u16) -> Vec<String> {
    const LISTENS: &str = "0A";
    let socket = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, local, _, state, _, _, _, _, _, inode, ..] = fields[..] else { return None };
        let here = local.rsplit_once(':').and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
        (state == LISTENS && here == Some(port)).then(|| format!("socket:[{inode}]"))
    };
    table.lines().filter_map(socket).collect()
}

fn has_one_of(process: &Path, sockets: &HashSet<String>) -> bool {
    let Ok(descriptors) = std::fs::read_dir(process.join("fd")) else { return false };
    let mut targets = descriptors.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    targets.any(|target| target.to_str().is_some_and(|target| sockets.contains(target)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_that_has_a_port_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let ours = format!("(process {})", std::process::id());
        assert!(holder(port).is_some_and(|holder| holder.ends_with(&ours)));
        let error =
            bind_error("server.listen", "127.0.0.1:1", Some(port), &io::ErrorKind::AddrInUse.into()).to_string();
        assert!(error.starts_with("server.listen 127.0.0.1:1: ") && error.contains(&ours), "{error}");
        assert!(error.ends_with(" listens there: stop it, or use another port in server.listen"), "{error}");
    }

    #[test]
    fn what_is_missing_is_said() {
        let said = |kind: io::ErrorKind, port| bind_error("k", "a", port, &kind.into()).to_string();
        assert!(said(io::ErrorKind::PermissionDenied, Some(80)).contains("CAP_NET_BIND_SERVICE"));
        assert!(!said(io::ErrorKind::PermissionDenied, Some(8080)).contains("CAP_NET_BIND_SERVICE"));
        assert!(said(io::ErrorKind::AddrNotAvailable, Some(8080)).contains("no such address"));
        assert!(said(io::ErrorKind::AddrInUse, None).contains("ss -lxp"));
    }
}
