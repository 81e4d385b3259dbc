//! The files behind `resume.keys_file` and `hooks.secret_file`: read where a configuration is to be used, and judged with
//! their places in it.

use super::Loaded;
use super::notice::{Invalid, Notice};
use crate::resume::{KeyRing, KeysFile};
use crate::secret::Secret;

impl Loaded {
    /// Reads the keys of `resume.keys_file`, if it names a file; and says what its owner should know of it.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn resume_keys(&self) -> Result<(Option<KeyRing>, Option<Notice>), Invalid> {
        let Some(path) = &self.config.resume.keys_file else { return Ok((None, None)) };
        let notice = |message: String| self.sources.notice("resume.keys_file".to_owned(), message);
        match KeysFile::load(path) {
            Ok(file) => Ok((Some(file.ring), file.warning.map(notice))),
            Err(error) => Err(Invalid { errors: vec![notice(error.to_string())] }),
        }
    }

    /// Reads the secret of `hooks.secret_file`, if it names a file.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn hooks_secret(&self) -> Result<Option<Secret>, Invalid> {
        let secret = self.config.hooks.secret_file.as_deref().map(Secret::load).transpose();
        secret.map_err(|error| {
            let errors = vec![self.sources.notice("hooks.secret_file".to_owned(), error.to_string())];
            Invalid { errors }
        })
    }
}
