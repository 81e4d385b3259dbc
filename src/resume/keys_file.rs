//! `resume.keys_file`: a ring of keys that outlives the process, and that several processes may share.
//!
//! One key a line, `#` begins a comment; the first key signs, the others verify what they once signed:
//!
//! ```text
//! # id      secret                                       made
//! 7hQ_x2Lk  Zr0yQf2kq3mX0m7dF0b1cD2eF3gH4iJ5kL6mN7oP8qQ  2026-11-29T17:30:00Z
//! ```
//!
//! `holdline keys new` makes a file and `holdline keys rotate` puts a new key in front. Invariant: a secret is in no error,
//! and a rotation leaves the old file or the new one, with the owner that the old one had.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::ring::{KEYS_MAX, Key, KeyRing};
use crate::whole_file::{Ownership, replace, sync_directory};

/// Bytes of a keys file.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What every file begins with.
const HEAD: &str = "# The keys of Holdline's resume tokens: the first signs, all verify. Keep them secret.\n\
                    # id      secret                                       made\n";

/// A ring that was read from its file.
#[derive(Debug)]
pub struct KeysFile {
    /// The keys.
    pub ring: KeyRing,
    /// What its owner should know, if there is something.
    pub warning: Option<String>,
}

/// A keys file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It can't be read or written.
    #[error("the keys file {} {what}: {error}", path.display())]
    Io {
        /// What failed.
        what: &'static str,
        /// Why.
        error: io::Error,
        /// The path as it was named.
        path: PathBuf,
    },
    /// A line of it is wrong.
    #[error("the keys file, line {line}: {message}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong; the line itself is not quoted.
        message: &'static str,
    },
    /// Its keys make no ring.
    #[error("the keys file: {0}; make one with holdline keys new, or add a key with holdline keys rotate")]
    Ring(&'static str),
}

fn io_error(what: &'static str, error: io::Error, path: &Path) -> KeysError {
    KeysError::Io { what, error, path: path.to_owned() }
}

impl KeysFile {
    /// Reads the keys of the file at `path`.
    ///
    /// # Errors
    /// [`KeysError`] if it can't be read, or what it says is wrong.
    pub fn load(path: &Path) -> Result<Self, KeysError> {
        let (text, mode) = read(path).map_err(|error| io_error("can't be read", error, path))?;
        let ring = KeyRing::of(parse(&text)?).map_err(KeysError::Ring)?;
        let warning = (mode & 0o007 != 0).then(|| {
            "every user of this machine can read the keys and make resume tokens of their own; chmod o= the file"
                .to_owned()
        });
        Ok(Self { ring, warning })
    }
}

/// The text of a regular file, which alone can be opened without waiting for its other end, and its mode.
fn read(path: &Path) -> io::Result<(String, u32)> {
    let found = fs::metadata(path)?;
    if !found.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok((text, found.mode()))
}

fn parse(text: &str) -> Result<Vec<Key>, KeysError> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.split('#').next().unwrap_or("")));
    lines
        .filter(|(_, text)| !text.trim().is_empty())
        .map(|(line, text)| parse_line(text).map_err(|message| KeysError::Line { line, message }))
        .collect()
}

fn parse_line(line: &str) -> Result<Key, &'static str> {
    let mut words = line.split_whitespace();
    let (Some(id), Some(secret)) = (words.next(), words.next()) else {
        return Err("a key is an id and a secret, and when it was made");
    };
    // When a key was made is for people.
    if words.nth(1).is_some() {
        return Err("there is something after the time");
    }
    Key::parse(id, secret)
}

fn line_of(key: &Key, made: &str) -> String {
    format!("{:<9} {}  {made}\n", key.id.as_str(), key.written_secret())
}

/// Makes a keys file with one key, where there is none; the id of the key.
///
/// # Errors
/// When there is a file, or it can't be written.
pub fn new_file(path: &Path) -> Result<String, KeysError> {
    let key = Key::random();
    let text = format!("{HEAD}{}", line_of(&key, &now()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        sync_directory(path)
    })();
    match written {
        Ok(()) => Ok(key.id.as_str().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let hint = io::Error::other("there is a file already; holdline keys rotate adds a key to it");
            Err(io_error("can't be made", hint, path))
        }
        Err(error) => Err(io_error("can't be made", error, path)),
    }
}

/// What a rotation did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rotated {
    /// The id of the key that signs from now on.
    pub signs: String,
    /// Those that verify what they signed, newest first.
    pub verify: Vec<String>,
    /// The one that was too many and went.
    pub gone: Option<String>,
}

/// Puts a new key in front of those of a keys file; the last one goes if there are [`KEYS_MAX`] already.
///
/// # Errors
/// When the file can't be read, is wrong, or can't be replaced.
pub fn rotate_file(path: &Path) -> Result<Rotated, KeysError> {
    let fails = |what, error| io_error(what, error, path);
    // The file itself, if a link leads to it: the link stays.
    let file = path.canonicalize().map_err(|error| fails("can't be read", error))?;
    let (text, _) = read(&file).map_err(|error| fails("can't be read", error))?;
    let mut old = KeyRing::of(parse(&text)?).map_err(KeysError::Ring)?.keys().to_vec();
    let gone = if old.len() < KEYS_MAX { None } else { old.pop() };
    let key = Key::random();
    let mut new = format!("{HEAD}{}", line_of(&key, &now()));
    for kept in &old {
        let made = text.lines().find_map(|line| made(line, kept)).unwrap_or_default();
        new.push_str(&line_of(kept, made));
    }
    let ownership = ownership(&file).map_err(|error| fails("can't be read", error))?;
    replace(&file, new.as_bytes(), ownership).map_err(|error| fails("can't be replaced", error))?;
    let name = |key: &Key| key.id.as_str().to_owned();
    Ok(Rotated { signs: name(&key), verify: old.iter().map(name).collect(), gone: gone.as_ref().map(name) })
}

/// When the key was made, if this is its line.
fn made<'t>(line: &'t str, key: &Key) -> Option<&'t str> {
    let mut words = line.split_whitespace();
    words.next().filter(|id| *id == key.id.as_str())?;
    words.nth(1)
}

/// Those of the old file, so that the process that reads it still can; nothing for those who are no group of its own.
fn ownership(file: &Path) -> io::Result<Ownership> {
    let found = fs::metadata(file)?;
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let owner = Some((found.uid(), found.gid())).filter(|owner| *owner != own);
    Ok(Ownership { mode: 0o600 | found.mode() & 0o040, owner })
}

fn now() -> String {
    let now = jiff::Timestamp::now();
    now.round(jiff::Unit::Second).unwrap_or(now).to_string()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::tests::claims;
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_new_file_is_its_owners_alone_and_not_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let id = new_file(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        let file = KeysFile::load(&path).unwrap();
        assert_eq!((file.ring.keys().len(), file.ring.keys()[0].id.as_str()), (1, id.as_str()));
        assert_eq!(file.warning, None);
        let error = new_file(&path).unwrap_err().to_string();
        assert!(error.contains("holdline keys rotate"), "{error}");
    }

    #[test]
    fn a_rotation_signs_by_a_new_key_and_verifies_by_the_old_ones() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let first = new_file(&path).unwrap();
        let token = KeysFile::load(&path).unwrap().ring.mint(&claims(""));
        chmod(&path, 0o644);
        assert!(KeysFile::load(&path).unwrap().warning.is_some(), "all can read it");
        let rotated = rotate_file(&path).unwrap();
        assert_eq!((&rotated.verify, rotated.gone), (&vec![first.clone()], None));
        assert_eq!(mode(&path), 0o640, "its group keeps what it had, others do not");
        let ring = KeysFile::load(&path).unwrap().ring;
        assert_eq!(ring.keys()[0].id.as_str(), rotated.signs);
        assert!(ring.verify(token.as_str(), claims("").issued).is_ok());
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().filter(|line| line.ends_with('Z')).count(), 2, "each says when it was made: {text}");
        for turn in 2..KEYS_MAX {
            assert_eq!(rotate_file(&path).unwrap().gone, None, "{turn}");
        }
        assert_eq!(rotate_file(&path).unwrap().gone, Some(first), "the oldest");
        assert!(KeysFile::load(&path).unwrap().ring.verify(token.as_str(), claims("").issued).is_err());
    }

    #[test]
    fn a_link_to_the_file_stays_one() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("keys"), directory.path().join("link"));
        new_file(&path).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        rotate_file(&link).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(KeysFile::load(&path).unwrap().ring.keys().len(), 2);
    }

    #[test]
    fn a_wrong_line_is_named_and_not_quoted() {
        let secret = Key::random().written_secret();
        for line in ["onlyid", &format!("two.dots {secret}"), "id shortsecret", &format!("id {secret} when what")] {
            let error = parse(&format!("# one\n{line}\n")).unwrap_err().to_string();
            assert!(error.contains("line 2:") && !error.contains(&secret) && !error.contains("short"), "{error}");
        }
    }

    #[test]
    fn an_empty_a_missing_and_an_endless_file_make_no_ring() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let error = || KeysFile::load(&path).unwrap_err().to_string();
        assert!(error().contains("can't be read"), "{}", error());
        fs::write(&path, "# nothing\n").unwrap();
        assert!(error().contains("there is no key"), "{}", error());
        fs::write(&path, "#".repeat(1 << 17)).unwrap();
        assert!(error().contains("larger than"), "{}", error());
        assert!(KeysFile::load(directory.path()).unwrap_err().to_string().contains("not a regular file"));
    }
}
