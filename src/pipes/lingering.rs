//! The pipes whose clients are away: which of them ends first when its place is needed.
//!
//! A client that leaves costs nothing, and its pipe keeps a connection's place for the whole grace; so a client that opens and
//! leaves in quick succession would have all places. Invariant: each pipe is in the table from when its client goes until
//! the client is back, or the pipe is over, or it was told to end for the sake of others.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use super::{PipeEntry, lock};

/// The table; share it by `Arc`.
#[derive(Debug, Default)]
pub struct Lingering(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    last: u64,
    /// By the significant part of the client's address, then in the order in which clients went.
    away: HashMap<u64, BTreeMap<u64, Arc<PipeEntry>>>,
}

/// A pipe's time without its client; dropped when that is over.
#[derive(Debug)]
pub struct Stay {
    lingering: Arc<Lingering>,
    address: u64,
    number: u64,
}

impl Lingering {
    /// Notes that the client of `pipe` has gone, and answers which pipe of the same `address` has to end for it: the one
    /// that has been left for longest, if there are more than `address_max`. Zero is no limit.
    pub fn enter(
        self: &Arc<Self>,
        pipe: Arc<PipeEntry>,
        address: u64,
        address_max: usize,
    ) -> (Stay, Option<Arc<PipeEntry>>) {
        let mut table = self.table();
        table.last += 1;
        let number = table.last;
        let of_address = table.away.entry(address).or_default();
        of_address.insert(number, pipe);
        let is_too_many = address_max > 0 && of_address.len() > address_max;
        let goes = if is_too_many { of_address.pop_first().map(|(_, pipe)| pipe) } else { None };
        (Stay { lingering: self.clone(), address, number }, goes)
    }

    /// The pipe that has to end so that another client finds a place: of the address that has left most, the one that was
    /// left first.
    pub fn shed(&self) -> Option<Arc<PipeEntry>> {
        let mut table = self.table();
        let first = |pipes: &BTreeMap<u64, _>| pipes.first_key_value().map_or(u64::MAX, |(number, _)| *number);
        let most = table.away.iter().max_by_key(|(_, pipes)| (pipes.len(), std::cmp::Reverse(first(pipes))));
        let address = most.map(|(&address, _)| address)?;
        let of_address = table.away.get_mut(&address)?;
        let (_, pipe) = of_address.pop_first()?;
        if of_address.is_empty() {
            table.away.remove(&address);
        }
        Some(pipe)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.0)
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let mut table = self.lingering.table();
        if let Some(of_address) = table.away.get_mut(&self.address) {
            of_address.remove(&self.number);
            if of_address.is_empty() {
                table.away.remove(&self.address);
            }
        }
    }
}
