//! Socket files that workers listen on, and which of them a registration may name.
//!
//! A registration that names a socket file could point our dials at any service of this machine that listens on one, a
//! container engine's among them. So what counts is the file that a path leads to when it is dialled, links followed: the
//! file is opened first, judged by where it really is, and connected to through that descriptor, so that no swap in between
//! matters. Socket files of the configuration file are trusted.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use super::failure::{ConnectError, DialFailure};

/// `O_PATH` of Linux: the file itself, not what it holds.
const PATH_ONLY: i32 = 0o10_000_000;

/// The directories whose socket files a registered backend may be, with all that is below them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SocketDirectories(Vec<PathBuf>);

/// A socket file to connect to.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// What `path` leads through, where the file was judged.
    _judged: Option<File>,
}

impl SocketDirectories {
    /// Exactly these directories.
    #[must_use]
    pub const fn new(directories: Vec<PathBuf>) -> Self {
        Self(directories)
    }

    /// Whether a backend may be at `path`, as far as the path itself tells.
    #[must_use]
    pub fn allow(&self, path: &Path) -> bool {
        let straight = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        straight && self.0.iter().any(|directory| path.starts_with(directory))
    }

    /// Whether the file at this place, which no link leads on from, is in one of them.
    fn hold(&self, place: &Path) -> bool {
        let is_in = |directory: &PathBuf| {
            // A directory may itself be reached by a link: /var/run is one.
            place.starts_with(directory) || fs::canonicalize(directory).is_ok_and(|real| place.starts_with(real))
        };
        self.0.iter().any(is_in)
    }
}

impl SocketFile {
    /// The socket file at `path`; nothing for `allowed` trusts every one.
    ///
    /// # Errors
    /// When it is not there or elsewhere than in the directories.
    pub fn find(path: &Path, allowed: Option<&SocketDirectories>) -> Result<Self, ConnectError> {
        let Some(allowed) = allowed else {
            return Ok(Self { path: path.to_owned(), _judged: None });
        };
        if !allowed.allow(path) {
            return Err(outside(path));
        }
        let file = OpenOptions::new().read(true).custom_flags(PATH_ONLY).open(path).map_err(socket_error)?;
        let through = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let place = fs::read_link(&through)?;
        if !allowed.hold(&place) {
            return Err(outside(&place));
        }
        Ok(Self { path: through, _judged: Some(file) })
    }

    /// What to connect to while this lives.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn outside(place: &Path) -> ConnectError {
    ConnectError::with(DialFailure::SocketNotAllowed, place.display().to_string())
}

/// A file that is not there is to a socket file what a closed port is to an address.
pub(super) fn socket_error(error: io::Error) -> ConnectError {
    match error.kind() {
        io::ErrorKind::NotFound => ConnectError { kind: DialFailure::Refused, detail: Some(error) },
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn a_registered_socket_file_is_judged_by_where_it_really_is() {
        let home = tempfile::tempdir().unwrap();
        let (inside, secret) = (home.path().join("workers"), home.path().join("engine"));
        fs::create_dir(&inside).unwrap();
        fs::create_dir(&secret).unwrap();
        let (own, engine) = (inside.join("w.sock"), secret.join("engine.sock"));
        let (_own, _engine) = (UnixListener::bind(&own).unwrap(), UnixListener::bind(&engine).unwrap());
        let allowed = SocketDirectories::new(vec![inside.clone()]);
        let found = SocketFile::find(&own, Some(&allowed)).unwrap();
        assert!(UnixStream::connect(found.path()).is_ok());
        symlink(&engine, inside.join("link.sock")).unwrap();
        symlink(&own, inside.join("own.sock")).unwrap();
        assert!(SocketFile::find(&inside.join("own.sock"), Some(&allowed)).is_ok());
        for bad in [engine.clone(), inside.join("../engine/engine.sock"), inside.join("link.sock")] {
            let error = SocketFile::find(&bad, Some(&allowed)).unwrap_err();
            assert_eq!(error.kind, DialFailure::SocketNotAllowed, "{bad:?}");
        }
        assert_eq!(SocketFile::find(&inside.join("gone.sock"), Some(&allowed)).unwrap_err().kind, DialFailure::Refused);
        assert!(SocketFile::find(&engine, None).is_ok(), "the configuration file is trusted");
    }

    #[test]
    fn a_directory_that_a_link_leads_to_is_the_same_by_both_names() {
        let home = tempfile::tempdir().unwrap();
        let (real, name) = (home.path().join("run"), home.path().join("var-run"));
        fs::create_dir(&real).unwrap();
        symlink(&real, &name).unwrap();
        let _listening = UnixListener::bind(real.join("w.sock")).unwrap();
        let allowed = SocketDirectories::new(vec![name.clone()]);
        assert!(SocketFile::find(&name.join("w.sock"), Some(&allowed)).is_ok());
    }

    #[test]
    fn a_directory_is_not_one_that_only_begins_like_it() {
        let allowed = SocketDirectories::new(vec!["/run/holdline".into()]);
        for (path, sound) in [
            ("/run/holdline/w.sock", true),
            ("/run/holdline/a/w.sock", true),
            ("/run/holdline-else/w.sock", false),
            ("/run/holdline/../docker.sock", false),
            ("/run/docker.sock", false),
        ] {
            assert_eq!(allowed.allow(Path::new(path)), sound, "{path}");
        }
    }
}
