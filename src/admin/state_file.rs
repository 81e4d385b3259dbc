//! `admin.state_file`: what was registered through the API outlives the process.
//!
//! The file holds what workers said about themselves and the admin state that operators put them in; what was found out
//! about them is found out again. It is replaced as a whole (written beside it, synced, renamed), so that a crash leaves
//! the old one or the new one. A write through the API is answered once the file has it; where a disk fails or hangs, the
//! answer says so. A file that makes no sense is set aside, never overwritten and never a reason not to start. Invariant:
//! one process has the file, by a lock beside it; two would each forget what the other was told.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::registration::Registration;
use crate::backends::{BackendView, Backends, Origin};
use crate::whole_file::{Ownership, beside, replace};

/// Bytes of a state file: what `admin.registry_bytes_max` lets be said, written out, fits.
pub const STATE_BYTES_MAX: usize = 256 << 20;

/// How long the answer to a write waits for the disk.
pub const CATCH_UP_MAX: Duration = Duration::from_secs(2);

/// From one attempt to write to the next while they fail; doubles up to [`RETRY_MAX`].
pub const RETRY_MIN: Duration = Duration::from_millis(250);
/// The longest wait between two attempts.
pub const RETRY_MAX: Duration = Duration::from_secs(30);

/// The only form of the file that there has been.
const FORM: u32 = 1;

/// The file of one process.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    /// What it was opened with.
    digest: [u8; 32],
    tried: watch::Sender<Tried>,
    /// Held for as long as the process lives.
    lock: File,
}

/// The last attempt to write.
#[derive(Debug)]
struct Tried {
    /// Up to which index of the backends.
    index: u64,
    /// Why the file does not have it.
    failure: Option<String>,
}

/// A state file that a process cannot start with.
#[derive(Debug, thiserror::Error)]
#[error("admin.state_file {}: {source}", path.display())]
pub struct StateFileError {
    /// The path as configured.
    pub path: PathBuf,
    /// Why it can be neither read nor written.
    pub source: io::Error,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    holdline_state: u32,
    backends: BTreeMap<String, Registration>,
}

/// What stood in the file.
enum Stored {
    Nothing,
    Nonsense(String),
    Contents(Contents),
}

impl StateFile {
    /// Registers in `backends` what the file at `path` holds, and makes sure that it can be written. Its lock may have been
    /// `inherited` from another process.
    ///
    /// # Errors
    /// When the file can be neither read nor replaced.
    pub fn open(path: &Path, backends: &Backends, inherited: Option<File>) -> Result<Self, StateFileError> {
        let fails = |source| StateFileError { path: path.to_owned(), source };
        let lock = inherited.map_or_else(|| lock(path), Ok).map_err(fails)?;
        match read(path).map_err(fails)? {
            Stored::Nothing => {}
            Stored::Nonsense(why) => {
                let aside = set_aside(path).map_err(fails)?;
                let (file, aside) = (path.display(), aside.display());
                tracing::error!(%file, %aside, why, "the state file makes no sense and was set aside; workers must register again");
            }
            Stored::Contents(contents) => {
                if !restore(contents, backends) {
                    set_aside(path).map_err(fails)?;
                }
            }
        }
        let index = *backends.index().borrow();
        let digest = write(path, &backends.list(), None).map_err(fails)?;
        let tried = watch::Sender::new(Tried { index, failure: None });
        Ok(Self { path: path.to_owned(), digest, tried, lock })
    }

    /// Its lock, for another process.
    #[must_use]
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// Writes the file whenever what it holds has changed, and never ends.
    pub async fn keep(&self, backends: &Backends) {
        let mut changes = backends.index();
        let (mut written, mut patience) = (Some(self.digest), RETRY_MIN);
        loop {
            let index = *changes.borrow_and_update();
            let (path, list, before) = (self.path.clone(), backends.list(), written);
            let writing = tokio::task::spawn_blocking(move || write(&path, &list, before));
            let outcome = writing.await.unwrap_or_else(|error| Err(io::Error::other(error)));
            let failure = outcome.as_ref().err().map(ToString::to_string);
            self.tried.send_replace(Tried { index, failure });
            match outcome {
                Ok(digest) => {
                    if patience > RETRY_MIN {
                        tracing::info!("the state file is written again");
                    }
                    (written, patience) = (Some(digest), RETRY_MIN);
                    // The sender lives as long as the backends that we hold.
                    let _ = changes.changed().await;
                }
                Err(error) => {
                    let file = self.path.display();
                    tracing::warn!(%file, %error, "the state file can't be written; what is registered now would not survive a restart");
                    let _ = tokio::time::timeout(patience, changes.changed()).await;
                    patience = (patience * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// Waits until the file has what `index` stands for.
    ///
    /// # Errors
    /// Why it does not have it, or will not have it soon.
    pub async fn catch_up(&self, index: u64) -> Result<(), String> {
        let mut tried = self.tried.subscribe();
        match tokio::time::timeout(CATCH_UP_MAX, tried.wait_for(|tried| tried.index >= index)).await {
            Ok(Ok(tried)) => tried.failure.clone().map_or(Ok(()), Err),
            Ok(Err(_)) => Err("the process is stopping".to_owned()),
            Err(_) => Err(format!("the disk did not take it within {}s", CATCH_UP_MAX.as_secs())),
        }
    }
}

/// Makes this process the one that has the file.
fn lock(path: &Path) -> io::Result<File> {
    let beside = beside(path, ".lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&beside)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let other = format!("another process has it (by its lock on {})", beside.display());
            Err(io::Error::new(io::ErrorKind::ResourceBusy, other))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn read(path: &Path) -> io::Result<Stored> {
    // To open a pipe would wait for its other end.
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Stored::Nothing),
        Err(error) => return Err(error),
        Ok(found) if found.is_file() => {}
        Ok(_) => return Err(io::Error::other("it is not a regular file; name one, or a path where there is none")),
    }
    let file = File::open(path)?;
    let mut text = Vec::new();
    file.take(STATE_BYTES_MAX as u64 + 1).read_to_end(&mut text)?;
    if text.len() > STATE_BYTES_MAX {
        return Ok(Stored::Nonsense(format!("it is larger than {STATE_BYTES_MAX} bytes")));
    }
    Ok(match serde_json::from_slice::<Contents>(&text) {
        Ok(contents) if contents.holdline_state == FORM => Stored::Contents(contents),
        Ok(contents) => Stored::Nonsense(format!("its form is {}, not {FORM}", contents.holdline_state)),
        // serde_json quotes what it does not know, but only names and not values.
        Err(error) => Stored::Nonsense(format!("line {}, column {}", error.line(), error.column())),
    })
}

/// Whether all of it is registered again.
fn restore(contents: Contents, backends: &Backends) -> bool {
    let count = contents.backends.len();
    let mut restored = 0;
    for (id, said) in contents.backends {
        let outcome = said.parse().map_err(|problem| problem.detail);
        match outcome.and_then(|spec| backends.restore(&id, spec).map_err(|error| error.to_string())) {
            Ok(()) => restored += 1,
            Err(why) => tracing::warn!(backend = id, why, "a backend of the state file was not restored"),
        }
    }
    tracing::info!(restored, "backends of the state file are registered again");
    restored == count
}

/// Renames the file, over one that was set aside before.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = beside(path, ".aside");
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// Writes what is registered, unless that has the digest `before`; its digest.
fn write(path: &Path, list: &[BackendView], before: Option<[u8; 32]>) -> io::Result<[u8; 32]> {
    let text = render(list)?;
    let digest = Sha256::digest(&text).into();
    if before != Some(digest) {
        // Addresses of workers may hold secrets.
        replace(path, &text, Ownership::PRIVATE)?;
    }
    Ok(digest)
}

fn render(list: &[BackendView]) -> io::Result<Vec<u8>> {
    let kept = list.iter().filter(|view| view.origin == Origin::Registered && !view.removing);
    let backends = kept.map(|view| (view.id.to_string(), Registration::in_force(view))).collect();
    let mut text = serde_json::to_vec_pretty(&Contents { holdline_state: FORM, backends })?;
    text.push(b'\n');
    if text.len() > STATE_BYTES_MAX {
        return Err(io::Error::other(format!("it would be larger than {STATE_BYTES_MAX} bytes")));
    }
    Ok(text)
}
