//! CPU time and resident memory of process trees, from `/proc`.

use std::collections::HashMap;
use std::fs;

/// The processes in `roots` and all their descendants.
fn tree(roots: &[u32]) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // The command's name is in parentheses and may hold anything.
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut pids = roots.to_vec();
    let mut at = 0;
    while at < pids.len() {
        pids.extend(children.get(&pids[at]).into_iter().flatten());
        at += 1;
    }
    pids
}

/// Nanoseconds on a CPU, user and system, of all threads.
pub fn cpu_ns(roots: &[u32]) -> u64 {
    let of_task = |path: std::path::PathBuf| -> u64 {
        let text = fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        text.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
    };
    tree(roots)
        .into_iter()
        .flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten())
        .map(|task| of_task(task.path()))
        .sum()
}

/// Resident bytes.
pub fn resident_bytes(roots: &[u32]) -> u64 {
    tree(roots).into_iter().map(|pid| status_bytes(pid, "VmRSS:")).sum()
}

/// A line of `/proc/PID/status`, which counts in KiB.
fn status_bytes(pid: u32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// The most resident bytes since [`forget_peak`], of the processes that still live.
pub fn peak_bytes(roots: &[u32]) -> u64 {
    tree(roots).into_iter().map(|pid| status_bytes(pid, "VmHWM:")).sum()
}

/// Begins to watch for the most resident bytes from now on (`man 5 proc`, clear_refs).
pub fn forget_peak(roots: &[u32]) -> anyhow::Result<()> {
    for pid in tree(roots) {
        fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
    }
    Ok(())
}

/// Descriptors that a process may open, by the limit that its children inherit.
pub fn descriptors_max() -> usize {
    let text = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok()).unwrap_or(1024)
}

/// As many of `wanted` pipes as a proxy can hold at `each` descriptors, with some to spare for its other needs.
pub fn pipes_max(wanted: usize, each: usize) -> usize {
    wanted.min(descriptors_max().saturating_sub(200) / each)
}
