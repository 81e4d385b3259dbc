//! Files that are replaced as a whole: written beside the old one, synced, renamed over it.
//!
//! Invariant: a crash leaves the old file or the new one, and a file is never readable by more than its owner before it
//! has been given the mode that is asked for.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// Who may do what with a file.
#[derive(Clone, Copy, Debug)]
pub struct Ownership {
    /// Its mode bits.
    pub mode: u32,
    /// Its user and group, if they are other ones than ours.
    pub owner: Option<(u32, u32)>,
}

impl Ownership {
    /// A file that is ours alone.
    pub const PRIVATE: Self = Self { mode: 0o600, owner: None };
}

/// The path that has `suffix` behind the whole of `path`.
#[must_use]
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Puts a whole new file in the place of the old one, or where there is none.
///
/// # Errors
/// When that fails; the old file is untouched then, unless only the last sync failed.
pub fn replace(path: &Path, bytes: &[u8], ownership: Ownership) -> io::Result<()> {
    let new = beside(path, ".new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    if let Some((user, group)) = ownership.owner {
        fchown(&file, Some(user), Some(group))?;
    }
    file.set_permissions(fs::Permissions::from_mode(ownership.mode))?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_directory(path)
}

/// Makes the name of the file as lasting as its contents.
///
/// # Errors
/// When its directory can't be synced.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}
