//! What `holdline serve` will need beside its configuration: every file and folder that it names, opened as it will be.
//!
//! Nothing is written, bound or locked here, so that a running process does not notice.

use std::path::Path;

use rustix::fs::{Access, access};

use crate::config::{Invalid, Listen, Loaded, Notice};
use crate::tls::Sets;
use crate::tokens::Tokens;

/// What was found: what would keep a process from starting or from working, and what is odd.
#[derive(Default)]
pub(super) struct Found {
    pub(super) errors: Vec<Notice>,
    pub(super) warnings: Vec<Notice>,
}

/// Opens what `loaded` names. What only time has done to a certificate is an error here, where a person looks.
pub(super) fn look(loaded: &Loaded) -> Found {
    let mut found = Found::default();
    found.take(loaded.pools_tls().map(|(_, untimely)| untimely), |found, untimely| found.errors.extend(untimely));
    found.take(Sets::load(loaded).map(|(_, concerns)| concerns), |found, concerns| found.errors.extend(concerns));
    found.take(loaded.worker_commands(), |_, ()| {});
    found.take(loaded.hooks_secret(), |_, _| {});
    found.take(loaded.resume_keys(), |found, (_, exposed)| found.warnings.extend(exposed));
    found.warnings.extend(loaded.worker_ports());
    for (key, message) in tokens(loaded).into_iter().chain(folders(loaded)) {
        found.errors.push(loaded.sources.notice(key, message));
    }
    found
}

impl Found {
    fn take<T>(&mut self, read: Result<T, Invalid>, keep: impl FnOnce(&mut Self, T)) {
        match read {
            Ok(value) => keep(self, value),
            Err(invalid) => self.errors.extend(invalid.errors),
        }
    }
}

type Fault = (String, String);

fn tokens(loaded: &Loaded) -> Option<Fault> {
    let error = Tokens::load(loaded.config.admin.tokens_file.as_deref()?).err()?;
    Some(("admin.tokens_file".to_owned(), error.to_string()))
}

/// Folders in which files are made or looked for.
fn folders(loaded: &Loaded) -> Vec<Fault> {
    let config = &loaded.config;
    let listeners = [
        ("server.listen", config.server.listen.as_slice()),
        ("server.tls.listen", config.server.tls.listen.as_slice()),
        ("admin.listen", std::slice::from_ref(&config.admin.listen)),
    ];
    let mut faults = Vec::new();
    for (key, listen) in listeners {
        for listen in listen {
            if let Listen::Unix(path) = listen {
                faults.extend(unwritable(path).map(|why| (key.to_owned(), format!("{listen} cannot be made: {why}"))));
            }
        }
    }
    if let Some(path) = &config.admin.state_file {
        let fault = unwritable(path).or_else(|| unusable(path));
        faults.extend(
            fault.map(|why| ("admin.state_file".to_owned(), format!("{} cannot be written: {why}", path.display()))),
        );
    }
    if let Some(path) = config.server.tls.acme_challenges.as_deref().filter(|path| !path.is_dir()) {
        let message =
            format!("there is no folder {}; make it, or name the one that the ACME client writes to", path.display());
        faults.push(("server.tls.acme_challenges".to_owned(), message));
    }
    faults
}

/// Why no file can be made at `path`.
fn unwritable(path: &Path) -> Option<String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Some(format!("there is no folder {}; make it", folder.display()));
    }
    let why = access(folder, Access::WRITE_OK | Access::EXEC_OK).err()?;
    Some(format!("this user may not write in {}: {why}", folder.display()))
}

/// Why a file that is there already is of no use.
fn unusable(path: &Path) -> Option<String> {
    if path.is_dir() {
        return Some("it is a folder; name a file in it".to_owned());
    }
    let why = path.exists().then(|| access(path, Access::READ_OK | Access::WRITE_OK).err()).flatten()?;
    Some(format!("this user may not read and write it: {why}"))
}
