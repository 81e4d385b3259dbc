//! What the kernel says about this process: memory, CPU, descriptors, and the memory it may use.
//!
//! Nothing here fails: a number that can't be read is 0, and no limit is `None`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// What the process uses right now.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Resident memory.
    pub rss_bytes: u64,
    /// Address space.
    pub virtual_bytes: u64,
    /// User and system CPU time since the start.
    pub cpu_seconds: f64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// File descriptors it may open.
    pub max_fds: u64,
    /// Threads.
    pub threads: u64,
}

impl Usage {
    /// Reads all of it; a few system calls.
    #[must_use]
    pub fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            rss_bytes: status_field(&status, "VmRSS:") * 1024,
            virtual_bytes: status_field(&status, "VmSize:") * 1024,
            cpu_seconds: cpu_time().as_secs_f64(),
            // One of them is the descriptor that the directory is read through.
            open_fds: std::fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count().saturating_sub(1) as u64),
            max_fds: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
            threads: status_field(&status, "Threads:"),
        }
    }
}

/// Resident memory of this process, from the shortest file that has it, which stays open: it is read several times a
/// second, and the kernel writes it anew for each read.
#[must_use]
pub fn resident_bytes() -> u64 {
    static STATM: OnceLock<Option<File>> = OnceLock::new();
    let mut text = [0; 128];
    let read =
        STATM.get_or_init(|| File::open("/proc/self/statm").ok()).as_ref().map(|file| file.read_at(&mut text, 0));
    let text = str::from_utf8(&text[..read.and_then(Result::ok).unwrap_or(0)]).unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

fn status_field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// User and system CPU time of the whole process.
#[must_use]
pub fn cpu_time() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(spent.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(spent.tv_nsec).unwrap_or(0))
}

/// When the process started, as Unix seconds; the first call decides.
#[must_use]
pub fn start_time_seconds() -> f64 {
    static STARTED: OnceLock<f64> = OnceLock::new();
    *STARTED.get_or_init(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.as_secs_f64()
    })
}

/// CPU use over a window of time, in percent of one core.
#[derive(Debug)]
pub struct CpuMeter {
    at: Instant,
    spent: Duration,
    percent: Option<f64>,
}

/// A window shorter than this says nothing: the clocks are too coarse for it.
const CPU_WINDOW_MIN: Duration = Duration::from_millis(100);

impl Default for CpuMeter {
    fn default() -> Self {
        Self { at: Instant::now(), spent: cpu_time(), percent: None }
    }
}

impl CpuMeter {
    /// Ends the window and begins the next; call it every few seconds.
    pub fn sample(&mut self) {
        if let Some(percent) = self.since_last() {
            *self = Self { percent: Some(percent), ..Self::default() };
        }
    }

    /// The use in the last whole window; in the running one while there is no other.
    #[must_use]
    pub fn percent(&self) -> f64 {
        self.percent.or_else(|| self.since_last()).unwrap_or(0.0)
    }

    fn since_last(&self) -> Option<f64> {
        let window = self.at.elapsed();
        let spent = cpu_time().saturating_sub(self.spent);
        (window >= CPU_WINDOW_MIN).then(|| spent.as_secs_f64() / window.as_secs_f64() * 100.0)
    }
}

/// The memory this process may use: the tightest limit of its cgroup (v1, v2 or hybrid), else the machine's RAM.
#[must_use]
pub fn memory_limit_bytes() -> u64 {
    let ram = ram_bytes(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default());
    let membership = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    cgroup_limit(&membership, Path::new("/sys/fs/cgroup")).map_or(ram, |limit| limit.min(ram))
}

/// The files that count what the kernel holds in socket buffers for the process's cgroup, where one counts that: other
/// processes of the same cgroup are counted with it. Found once, since finding costs more than reading.
#[derive(Debug, Default)]
pub struct SocketFiles {
    /// `memory.stat` of v2, and v1's file of its own.
    files: Vec<PathBuf>,
}

impl SocketFiles {
    /// Finds them.
    #[must_use]
    pub fn find() -> Self {
        let membership = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self::find_in(&membership, Path::new("/sys/fs/cgroup"))
    }

    /// In a container that sees only its own part of the tree, the mount's root is its group.
    fn find_in(membership: &str, mount: &Path) -> Self {
        let files = membership.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?.trim_start_matches('/'));
            let counts = |root: PathBuf, file: &str| {
                [root.join(path), root].into_iter().map(|group| group.join(file)).find(|file| counted(file).is_some())
            };
            if controllers.split(',').any(|controller| controller == "memory") {
                return counts(mount.join("memory"), "memory.kmem.tcp.usage_in_bytes");
            }
            let roots = [mount.to_path_buf(), mount.join("unified")];
            roots.into_iter().filter(|_| controllers.is_empty()).find_map(|root| counts(root, "memory.stat"))
        });
        Self { files: files.collect() }
    }

    /// What they say now; `None` where none counts it.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        self.files.iter().filter_map(|file| counted(file)).max()
    }
}

/// What one of [`SocketFiles`] says: the whole of it, or its line `sock`.
fn counted(file: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("sock "));
    line.unwrap_or(&text).trim().parse().ok()
}

fn ram_bytes(meminfo: &str) -> u64 {
    status_field(meminfo, "MemTotal:").saturating_mul(1024)
}

/// The tightest memory limit on the way from the process's cgroup to the root of the hierarchy.
///
/// `membership` is `/proc/self/cgroup`: `ID:CONTROLLERS:PATH` lines, of which v2's has neither controllers nor an id
/// other than 0. In the hybrid layout both exist and the memory controller sits in one of them, so both are looked
/// at. In a container the path may be the host's while the mount shows only our own part: then the mount's root is ours.
fn cgroup_limit(membership: &str, mount: &Path) -> Option<u64> {
    let groups = membership.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let path = path.trim_start_matches('/');
        if controllers.split(',').any(|controller| controller == "memory") {
            return Some(tightest(&mount.join("memory"), path, "memory.limit_in_bytes"));
        }
        let unified = [mount.to_path_buf(), mount.join("unified")];
        controllers.is_empty().then(|| unified.iter().filter_map(|root| tightest(root, path, "memory.max")).min())
    });
    groups.flatten().min()
}

fn tightest(root: &Path, path: &str, file: &str) -> Option<u64> {
    let mut group: PathBuf = root.join(path);
    let mut limit: Option<u64> = None;
    loop {
        if let Some(found) = std::fs::read_to_string(group.join(file)).ok().and_then(|text| parse_limit(&text)) {
            limit = Some(limit.map_or(found, |known| known.min(found)));
        }
        if group == root || !group.pop() || !group.starts_with(root) {
            return limit;
        }
    }
}

/// `max`, and v1's page-aligned 2^63, mean that there is none.
fn parse_limit(text: &str) -> Option<u64> {
    const V1_UNLIMITED_FROM: u64 = 1 << 62;
    text.trim().parse().ok().filter(|&limit| limit < V1_UNLIMITED_FROM)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn a_v2_limit_is_the_tightest_on_the_way_up() {
        let dir = tree(&[("a/b/memory.max", "max\n"), ("a/memory.max", "1000\n"), ("memory.max", "2000\n")]);
        assert_eq!(cgroup_limit("0::/a/b\n", dir.path()), Some(1000));
    }

    #[test]
    fn a_v1_limit_is_found_and_its_unlimited_is_none() {
        let membership = "5:cpu,cpuacct:/x\n4:memory:/x\n";
        let dir = tree(&[
            ("memory/x/memory.limit_in_bytes", "4096\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        assert_eq!(cgroup_limit(membership, dir.path()), Some(4096));
        let dir = tree(&[("memory/memory.limit_in_bytes", "9223372036854771712\n")]);
        assert_eq!(cgroup_limit(membership, dir.path()), None);
    }

    #[test]
    fn hybrid_layouts_take_whichever_hierarchy_limits() {
        let membership = "4:memory:/x\n0::/x\n";
        let dir = tree(&[("memory/memory.limit_in_bytes", "9000\n"), ("unified/x/memory.max", "max\n")]);
        assert_eq!(cgroup_limit(membership, dir.path()), Some(9000));
    }

    #[test]
    fn a_container_that_sees_only_its_own_part_of_the_tree_takes_the_root() {
        let dir = tree(&[("memory.max", "777\n")]);
        assert_eq!(cgroup_limit("0::/docker/abcdef\n", dir.path()), Some(777));
    }

    #[test]
    fn the_memory_of_sockets_is_found_in_either_version_and_where_only_the_root_is_seen() {
        let stat = "anon 1\nfile 2\nsock 4096\nshmem 3\n";
        let own = tree(&[("a/b/memory.stat", stat), ("memory.stat", "sock 9\n")]);
        assert_eq!(SocketFiles::find_in("0::/a/b\n", own.path()).bytes(), Some(4096));
        let container = tree(&[("memory.stat", stat)]);
        assert_eq!(SocketFiles::find_in("0::/docker/abcdef\n", container.path()).bytes(), Some(4096));
        let v1 = tree(&[("memory/x/memory.kmem.tcp.usage_in_bytes", "8192\n")]);
        assert_eq!(SocketFiles::find_in("4:memory:/x\n3:cpu:/x\n", v1.path()).bytes(), Some(8192));
        assert_eq!(SocketFiles::find_in("0::/a\n", tree(&[("a/memory.stat", "anon 1\n")]).path()).bytes(), None);
    }

    #[test]
    fn usage_of_this_process_is_not_zero() {
        let usage = Usage::read();
        assert!(usage.rss_bytes > 0 && usage.virtual_bytes > usage.rss_bytes);
        assert!(usage.open_fds > 0 && usage.max_fds >= usage.open_fds && usage.threads > 0);
        assert!(usage.cpu_seconds > 0.0 && memory_limit_bytes() > 0);
    }
}
