//! The memory of workers with all that they have started, read from `/proc` (proc_pid_stat(5)).

use std::collections::HashMap;
use std::fs;

/// What is read of one process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stat {
    parent: u32,
    group: u32,
    rss_pages: u64,
}

/// Resident bytes of each of these processes, with their descendants and those of their process group. One that is
/// gone has none.
pub(super) fn resident_bytes(leaders: &[u32]) -> HashMap<u32, u64> {
    let page_bytes = rustix::param::page_size() as u64;
    let pages = sum(&all(), leaders);
    pages.into_iter().map(|(leader, pages)| (leader, pages * page_bytes)).collect()
}

fn all() -> HashMap<u32, Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let process = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        Some((pid, parse(&fs::read_to_string(entry.path().join("stat")).ok()?)?))
    };
    entries.filter_map(process).collect()
}

/// The name of a program stands in parentheses and may hold any character, so the rest is found from its end.
fn parse(stat: &str) -> Option<Stat> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let rss: i64 = fields.get(21)?.parse().ok()?;
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        rss_pages: rss.max(0).cast_unsigned(),
    })
}

fn sum(all: &HashMap<u32, Stat>, leaders: &[u32]) -> HashMap<u32, u64> {
    let mut pages: HashMap<u32, u64> = HashMap::new();
    for (&pid, stat) in all {
        if let Some(leader) = leader_of(all, leaders, pid) {
            *pages.entry(leader).or_default() += stat.rss_pages;
        }
    }
    pages
}

/// The worker that a process belongs to.
fn leader_of(all: &HashMap<u32, Stat>, leaders: &[u32], pid: u32) -> Option<u32> {
    /// Ancestors that are looked at: what is read one by one may hold a loop.
    const DEPTH_MAX: usize = 64;
    let mut at = pid;
    for _ in 0..DEPTH_MAX {
        if leaders.contains(&at) {
            return Some(at);
        }
        let stat = all.get(&at)?;
        if leaders.contains(&stat.group) {
            return Some(stat.group);
        }
        at = stat.parent;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_is_passed_over() {
        let text = "77 (a ) (b) S 5 70 70 0 -1 4194304 1 0 0 0 1 2 0 0 20 0 1 0 99 1000 321 18446744073709551615 1";
        assert_eq!(parse(text), Some(Stat { parent: 5, group: 70, rss_pages: 321 }));
        assert_eq!(parse("77 (a"), None);
    }

    #[test]
    fn descendants_and_the_process_group_count_and_strangers_do_not() {
        let stat = |parent, group, rss_pages| Stat { parent, group, rss_pages };
        let all: HashMap<u32, Stat> = [
            (1, stat(0, 1, 1_000_000)),
            (10, stat(1, 10, 1)),
            (11, stat(10, 10, 10)),
            // a session of its own
            (12, stat(11, 12, 100)),
            // its parent is gone
            (13, stat(1, 10, 1000)),
            (20, stat(1, 20, 10_000)),
            (30, stat(31, 30, 7)),
            (31, stat(30, 30, 7)),
        ]
        .into();
        assert_eq!(sum(&all, &[10, 20, 99]), [(10, 1111), (20, 10_000)].into());
    }

    #[test]
    fn this_process_is_measured() {
        let own = std::process::id();
        let bytes = resident_bytes(&[own])[&own];
        assert!(bytes > 1 << 20, "{bytes}");
    }
}
