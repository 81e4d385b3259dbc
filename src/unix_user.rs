//! The users of this machine, as far as a child process is run as one of them.
//!
//! Reads `/etc/passwd` alone: users that only a directory service knows are named by their numbers.

/// Where users are written down (passwd(5)).
const PASSWD: &str = "/etc/passwd";

/// A user and the group that it has first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnixUser {
    /// Its number.
    pub uid: u32,
    /// The number of its group.
    pub gid: u32,
}

impl UnixUser {
    /// The user called `name`, or `UID:GID`, if this process may run another as it.
    ///
    /// # Errors
    /// What to do about it.
    pub fn find(name: &str) -> Result<Self, String> {
        let user = Self::numbers(name).map_or_else(|| Self::look_up(name), Ok)?;
        let own = rustix::process::geteuid();
        if own.is_root() || own.as_raw() == user.uid {
            return Ok(user);
        }
        Err("only root can run a process as another user; run Holdline as root, or remove this".to_owned())
    }

    fn numbers(name: &str) -> Option<Self> {
        let (uid, gid) = name.split_once(':')?;
        Some(Self { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
    }

    fn look_up(name: &str) -> Result<Self, String> {
        let text = std::fs::read_to_string(PASSWD).map_err(|error| format!("cannot read {PASSWD}: {error}"))?;
        text.lines()
            .find_map(|line| Self::of_line(line, name))
            .ok_or_else(|| format!("there is no user {name:?} in {PASSWD}; write UID:GID for one that is elsewhere"))
    }

    /// The user of a line, if it is that of `name`.
    fn of_line(line: &str, name: &str) -> Option<Self> {
        let mut fields = line.split(':');
        let found = fields.next() == Some(name);
        let (_, uid, gid) = (fields.next()?, fields.next()?, fields.next()?);
        if found { Some(Self { uid: uid.parse().ok()?, gid: gid.parse().ok()? }) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_name_or_by_its_numbers() {
        let line = "www-data:x:33:34:www-data:/var/www:/usr/sbin/nologin";
        assert_eq!(UnixUser::of_line(line, "www-data"), Some(UnixUser { uid: 33, gid: 34 }));
        assert_eq!(UnixUser::of_line(line, "www"), None);
        assert_eq!(UnixUser::numbers("7:8"), Some(UnixUser { uid: 7, gid: 8 }));
        assert_eq!(UnixUser::numbers("seven"), None);
        let unknown = UnixUser::find("no such user").expect_err("a name with spaces");
        assert!(unknown.contains("no user \"no such user\""), "{unknown}");
    }
}
