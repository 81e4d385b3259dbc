//! Pipes on their way: what is written of those that stand still, and what is made of it again.
//!
//! Each pipe has five pieces in the memory of its batch: its passport, its snapshot, its client's headers, and what was read
//! of its client and of its worker and not taken in. Its sockets come as descriptors, and the passport names them by
//! inode. Invariant: a batch is taken as a whole or not at all, but for pipes that have no place in the new configuration.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::Bytes;

use super::sections::{Pieces, Sections};
use super::wire::DESCRIPTORS_MAX;
use crate::pipe::{Arrived, Thawed};
use crate::pipes::passport::{Carried, Frozen, Passport};
use crate::process::Process;

/// Pipes of one batch at most: two sockets each, and the memory.
pub const PIPES_MAX: usize = (DESCRIPTORS_MAX - 1) / 2;

/// What is to be written of pipes that stand still.
///
/// # Errors
/// None that is expected: all of it can be written.
pub fn written(frozen: &[Box<Frozen>]) -> serde_json::Result<Sections> {
    let mut sections = Sections::default();
    let unread = |carried: &Option<Carried>| carried.as_ref().map(|it| it.unread.clone()).unwrap_or_default();
    for pipe in frozen {
        sections.push(&serde_json::to_vec(&pipe.passport)?);
        sections.push(&pipe.snapshot);
        sections.push(&pipe.head_lines);
        sections.push(&unread(&pipe.client));
        sections.push(&unread(&pipe.backend));
    }
    Ok(sections)
}

/// The sockets of pipes that stand still.
pub fn sockets(frozen: &[Box<Frozen>]) -> Vec<BorrowedFd<'_>> {
    frozen.iter().flat_map(|pipe| [&pipe.client, &pipe.backend]).flatten().map(|it| it.socket.as_fd()).collect()
}

/// A batch that was looked at.
pub struct Looked {
    /// Pipes that can go on here.
    pub thawed: Vec<Thawed>,
    /// Those that cannot, and why.
    pub refused: Vec<(String, String)>,
}

/// Looks at a batch of so many `pipes`.
///
/// # Errors
/// Why it is none.
pub fn look(bytes: &[u8], pipes: usize, sockets: Vec<OwnedFd>, process: &Process) -> Result<Looked, String> {
    let mut sockets = by_inode(sockets)?;
    let mut pieces = Pieces(bytes);
    let mut looked = Looked { thawed: Vec::with_capacity(pipes.min(PIPES_MAX)), refused: Vec::new() };
    for _ in 0..pipes {
        let arrived = arrived(&mut pieces, &mut sockets)?;
        let name = arrived.passport.pipe.clone();
        match Thawed::new(arrived, process) {
            Ok(thawed) => looked.thawed.push(thawed),
            Err(why) => looked.refused.push((name, why)),
        }
    }
    match (pieces.is_empty(), sockets.is_empty()) {
        (true, true) => Ok(looked),
        (false, _) => Err("there is more than was said".to_owned()),
        (_, false) => Err("there are sockets that no pipe has".to_owned()),
    }
}

fn by_inode(sockets: Vec<OwnedFd>) -> Result<HashMap<u64, OwnedFd>, String> {
    let named = |socket: OwnedFd| Ok((rustix::fs::fstat(&socket)?.st_ino, socket));
    sockets.into_iter().map(named).collect::<rustix::io::Result<_>>().map_err(|error| error.to_string())
}

fn arrived(pieces: &mut Pieces<'_>, sockets: &mut HashMap<u64, OwnedFd>) -> Result<Arrived, String> {
    let mut next = || pieces.next().map_err(|error| error.to_string());
    let passport: Passport = serde_json::from_slice(next()?).map_err(|error| format!("a pipe's passport: {error}"))?;
    let (snapshot, head_lines) = (next()?.to_vec(), next()?.into());
    let (from_client, from_backend) = (Bytes::copy_from_slice(next()?), Bytes::copy_from_slice(next()?));
    let mut carried = |inode: Option<u64>, unread| {
        let Some(inode) = inode else { return Ok(None) };
        let socket = sockets.remove(&inode).ok_or_else(|| format!("the socket {inode} has not come"))?;
        Ok::<_, String>(Some(Carried { socket, unread }))
    };
    let client = carried(passport.client.as_ref().and_then(|client| client.inode), from_client)?;
    let backend = carried(passport.backend.as_ref().and_then(|backend| backend.inode), from_backend)?;
    Ok(Arrived { passport, snapshot, head_lines, client, backend })
}
