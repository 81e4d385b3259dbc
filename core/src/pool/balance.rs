//! Which of several candidates gets the next pipe: one function per way of balancing, none of which allocates.
//!
//! Candidates are eligible, serve the key, are not full and not excluded. Those of the best standing are picked from: a
//! backend in doubt is asked after the others, the avoided one after those, and one that rests when there is no other.
//! The preferred one is picked if it is among them.

use super::{Backend, Choose, NoCandidate};
use crate::settings::Balance;

/// What it takes for a backend not to be full.
#[derive(Clone, Copy)]
pub(super) enum Room {
    /// Fewer pipes than its own limit or, if it has none, than this one of its pool; zero is no limit.
    Below(u32),
    /// Nothing: the asker needs no place.
    Any,
}

impl Room {
    const fn is_in(self, backend: &Backend) -> bool {
        match self {
            Self::Below(pool_limit) => !backend.is_full(pool_limit),
            Self::Any => true,
        }
    }
}

pub(super) fn pick<'a>(
    backends: &'a mut [Backend],
    balance: Balance,
    room: Room,
    ask: &Choose<'_>,
) -> Result<&'a mut Backend, NoCandidate> {
    let Some(standing) = backends.iter().filter_map(|backend| standing(backend, room, ask)).min() else {
        return Err(backends.iter().map(|backend| hindrance(backend, room, ask)).max().unwrap_or(NoCandidate::Empty));
    };
    let filter = Filter { room, ask, standing };
    let preferred = filter.candidates(backends).find(|(_, backend)| Some(backend.key()) == ask.prefer);
    if let Some((index, _)) = preferred {
        return Ok(&mut backends[index]);
    }
    let index = match (balance, ask.key) {
        (Balance::RoundRobin, _) => round_robin(backends, &filter),
        (Balance::Random2, _) => random2(backends, &filter),
        (Balance::Hash, Some(key)) => rendezvous(backends, &filter, key),
        (Balance::LeastPipes, _) | (Balance::Hash, None) => least_pipes(backends, &filter),
    };
    Ok(&mut backends[index])
}

/// How gladly a candidate is taken; the least is the best.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Good,
    Doubted,
    Avoided,
    Resting,
}

/// The standing of a backend that may be picked; nothing if it may not.
fn standing(backend: &Backend, room: Room, ask: &Choose<'_>) -> Option<Standing> {
    let candidate = backend.serves().takes(ask.key) && room.is_in(backend) && !ask.exclude.contains(&backend.key());
    let standing = if backend.only_rests() {
        Standing::Resting
    } else if ask.avoid == Some(backend.key()) {
        Standing::Avoided
    } else if backend.doubted_until.is_some() {
        Standing::Doubted
    } else {
        Standing::Good
    };
    (candidate && (backend.is_eligible() || standing == Standing::Resting)).then_some(standing)
}

/// The first thing that keeps a backend from being a candidate.
fn hindrance(backend: &Backend, room: Room, ask: &Choose<'_>) -> NoCandidate {
    if !backend.serves().takes(ask.key) {
        NoCandidate::NoOwner
    } else if !backend.is_eligible() && !backend.only_rests() {
        NoCandidate::NotEligible
    } else if !room.is_in(backend) {
        NoCandidate::Full
    } else {
        NoCandidate::Excluded
    }
}

struct Filter<'a> {
    room: Room,
    ask: &'a Choose<'a>,
    standing: Standing,
}

impl Filter<'_> {
    fn admits(&self, backend: &Backend) -> bool {
        standing(backend, self.room, self.ask) == Some(self.standing)
    }

    fn candidates<'b>(&'b self, backends: &'b [Backend]) -> impl Iterator<Item = (usize, &'b Backend)> {
        backends.iter().enumerate().filter(|(_, backend)| self.admits(backend))
    }
}

/// The load that a backend would have with one more pipe, for its weight, as a fraction compared crosswise.
#[derive(Clone, Copy)]
struct Load {
    pipes: u64,
    weight: u64,
}

impl Load {
    fn of(backend: &Backend) -> Self {
        Self { pipes: u64::from(backend.pipes()) + 1, weight: backend.weight() }
    }

    fn compare(self, other: Self) -> std::cmp::Ordering {
        (self.pipes * other.weight).cmp(&(other.pipes * self.weight))
    }
}

/// The least loaded one; among equals, the random number decides.
fn least_pipes(backends: &[Backend], filter: &Filter<'_>) -> usize {
    let mut best: Option<(usize, Load)> = None;
    let mut equals = 0;
    for (index, backend) in filter.candidates(backends) {
        let load = Load::of(backend);
        let ordering = best.map_or(std::cmp::Ordering::Less, |(_, least)| load.compare(least));
        match ordering {
            std::cmp::Ordering::Less => {
                best = Some((index, load));
                equals = 1;
            }
            std::cmp::Ordering::Equal => {
                equals += 1;
                // Reservoir sampling: each of the equals is left standing with the same chance.
                if mix(filter.ask.random ^ equals).is_multiple_of(equals) {
                    best = Some((index, load));
                }
            }
            std::cmp::Ordering::Greater => {}
        }
    }
    best.map_or(0, |(index, _)| index)
}

/// Smooth weighted round robin, as in nginx: everyone earns their weight, the richest pays for all.
fn round_robin(backends: &mut [Backend], filter: &Filter<'_>) -> usize {
    let mut total = 0;
    let mut best: Option<(usize, i64)> = None;
    for (index, backend) in backends.iter_mut().enumerate() {
        if !filter.admits(backend) {
            continue;
        }
        let weight = i64::try_from(backend.weight()).unwrap_or(i64::MAX);
        total += weight;
        backend.credit += weight;
        if best.is_none_or(|(_, most)| backend.credit > most) {
            best = Some((index, backend.credit));
        }
    }
    let index = best.map_or(0, |(index, _)| index);
    backends[index].credit -= total;
    index
}

/// The less loaded of two different candidates drawn at random.
fn random2(backends: &[Backend], filter: &Filter<'_>) -> usize {
    let count = filter.candidates(backends).count() as u64;
    let first = filter.ask.random % count;
    let second = if count == 1 { first } else { (first + 1 + mix(filter.ask.random) % (count - 1)) % count };
    let nth = |n: u64| filter.candidates(backends).nth(n as usize);
    match (nth(first), nth(second)) {
        (Some((_, a)), Some((index, b))) if Load::of(b).compare(Load::of(a)).is_lt() => index,
        (Some((index, _)), _) => index,
        (None, _) => 0,
    }
}

/// Weighted rendezvous hashing: losing a backend moves only its own keys.
fn rendezvous(backends: &[Backend], filter: &Filter<'_>, key: &str) -> usize {
    filter
        .candidates(backends)
        .map(|(index, backend)| (index, score(key, backend)))
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .map_or(0, |(index, _)| index)
}

/// `weight / -ln(hash)`, with the hash as a number in (0, 1): the highest score wins in proportion to the weights. Only the
/// weights that were said count, so that keys do not wander with what workers report.
fn score(key: &str, backend: &Backend) -> f64 {
    let hash = mix(fnv1a(fnv1a(FNV_OFFSET, key.as_bytes()), backend.id().as_bytes()));
    let uniform = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    f64::from(backend.settings().weight.get()) / -uniform.ln()
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, 64 bits: fixed for ever, so that two releases agree on who owns a key.
fn fnv1a(seed: u64, bytes: &[u8]) -> u64 {
    // 0xff ends each part: it is in no UTF-8 text, so ("a", "bc") and ("ab", "c") differ.
    bytes.iter().chain(&[0xff]).fold(seed, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The finalizer of splitmix64: spreads FNV's weak high bits.
const fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
