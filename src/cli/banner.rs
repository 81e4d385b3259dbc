//! What `holdline serve` says at a terminal once it listens: where clients come, where they go, and where to look.

use std::fmt::Write as _;

use crate::config::{Config, Pool, Sources};
use crate::serve::Places;

/// Routes that are listed; a person reads no more at a start.
const ROUTES_MAX: usize = 12;
/// Where the admin API is without a configuration, which is where `holdline ctl` looks.
const ADMIN_DEFAULT: &str = "http://127.0.0.1:9000";

/// The lines, without a newline behind the last one.
pub(super) fn banner(config: &Config, sources: &Sources, places: &Places) -> String {
    let by = match (&sources.file, &sources.arguments) {
        (Some(file), _) => file.display().to_string(),
        (None, Some(_)) => "its arguments".to_owned(),
        (None, None) => "the defaults: `holdline config example > proxy.toml` begins a file".to_owned(),
    };
    let mut text = format!("\nholdline {}, configured by {by}\n", env!("CARGO_PKG_VERSION"));
    let clients: Vec<String> = places.public.iter().map(|(address, tls)| url(address, *tls, ["ws", "wss"])).collect();
    let _ = writeln!(text, "  clients    {}", clients.join("  "));
    text.push_str(&routes(config, &places.admin));
    if places.admin.starts_with("http") {
        let _ = writeln!(text, "  dashboard  {}/", places.admin);
    }
    let _ = writeln!(text, "  watch      {}", ctl(&places.admin, "top"));
    text
}

/// One line for each route, the longest pattern setting the width.
fn routes(config: &Config, admin: &str) -> String {
    let shown = config.routes.iter().take(ROUTES_MAX);
    let left: Vec<(String, String)> = shown
        .map(|route| {
            let pool = config.pool(&route.pool);
            (route.path.0.join(", "), pool.map_or(String::new(), |pool| reached(config, pool, admin)))
        })
        .collect();
    let width = left.iter().map(|(paths, _)| paths.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (index, (paths, pool)) in left.iter().enumerate() {
        let heading = if index == 0 { "routes" } else { "" };
        let _ = writeln!(text, "  {heading:<9}  {paths:<width$}  to {pool}");
    }
    let more = config.routes.len().saturating_sub(ROUTES_MAX);
    if more > 0 {
        let _ = writeln!(text, "  {:<9}  and {more} more: {}", "", ctl(admin, "config"));
    }
    text
}

/// A pool with who is in it, or how one gets into it.
fn reached(config: &Config, pool: &Pool, admin: &str) -> String {
    let groups = config.workers.iter().filter(|group| group.pool == pool.name);
    let supervised: u32 = groups.map(|group| group.count).sum();
    let name = &pool.name;
    match (pool.backends.len(), supervised) {
        (0, 0) => format!("pool {name}, which has no worker yet: {}", ctl(admin, &added(name))),
        (backends, 0) => format!("pool {name}: {}", counted(backends, "backend")),
        (0, workers) => format!("pool {name}: {} that Holdline runs", counted(workers as usize, "worker")),
        (backends, workers) => {
            format!(
                "pool {name}: {}, {} that Holdline runs",
                counted(backends, "backend"),
                counted(workers as usize, "worker")
            )
        }
    }
}

fn added(pool: &str) -> String {
    let pool = if pool == "default" { String::new() } else { format!(" --pool {pool}") };
    format!("backends add ws://127.0.0.1:9001{pool}")
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// The command that asks this process.
fn ctl(admin: &str, command: &str) -> String {
    if admin == ADMIN_DEFAULT {
        format!("holdline ctl {command}")
    } else {
        format!("holdline ctl --admin {admin} {command}")
    }
}

fn url(address: &str, tls: bool, [plain, secured]: [&str; 2]) -> String {
    match (address.starts_with("unix:"), tls) {
        (true, _) => address.to_owned(),
        (false, true) => format!("{secured}://{address}"),
        (false, false) => format!("{plain}://{address}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(admin: &str) -> Places {
        let public = vec![("127.0.0.1:8000".to_owned(), false), ("0.0.0.0:443".to_owned(), true)];
        Places { public, admin: admin.to_owned() }
    }

    #[test]
    fn a_start_without_a_worker_says_how_to_add_one() {
        let text = banner(&Config::default(), &Sources::default(), &places(ADMIN_DEFAULT));
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            text,
            format!(
                "\nholdline {version}, configured by the defaults: `holdline config example > proxy.toml` begins a file\n\
                 \x20 clients    ws://127.0.0.1:8000  wss://0.0.0.0:443\n\
                 \x20 routes     /{{*path}}  to pool default, which has no worker yet: holdline ctl backends add ws://127.0.0.1:9001\n\
                 \x20 dashboard  http://127.0.0.1:9000/\n\
                 \x20 watch      holdline ctl top\n"
            )
        );
    }

    #[test]
    fn routes_are_aligned_counted_and_bounded() {
        let mut file = "[[pools]]\nname = \"default\"\n[[pools.backends]]\nurl = \"ws://a:1\"\n".to_owned();
        for index in 0..ROUTES_MAX + 3 {
            file.push_str(&format!("[[routes]]\nname = \"r{index}\"\npath = \"/r{index}\"\n"));
        }
        let config = Config::read(Some(("f", &file)), []).unwrap().config;
        let text =
            banner(&config, &Sources { file: Some("p.toml".into()), ..Sources::default() }, &places("unix:/a.sock"));
        assert!(text.contains("\n  routes     /r0   to pool default: 1 backend\n             /r1   to"), "{text}");
        assert!(text.contains("and 3 more: holdline ctl --admin unix:/a.sock config\n"), "{text}");
        assert!(!text.contains("dashboard") && text.contains("configured by p.toml\n"), "{text}");
    }
}
