//! What one pipe has learned about backends: who does not own its key, who keeps dying under it, and whether a
//! replayed message is what kills them.

use std::time::Duration;

use crate::ids::{BackendKey, Seq};
use crate::snapshot::{Read, Reader, Writer, demand};
use crate::time::Time;

/// An attach that ends sooner than this counts as a quick death.
pub const QUICK_DEATH: Duration = Duration::from_secs(2);

/// Quick deaths in a row after which a backend is left alone for a while, or a replayed message is blamed.
pub const QUICK_DEATHS_MAX: u32 = 3;

/// What the death of a worker that had the message counts against it: [`QUICK_DEATHS_MAX`] such deaths are enough.
const DEATH_WEIGHT: u32 = 3;

/// What a cut counts of which nothing says that the worker had read the message. A network that cuts thrice is no proof,
/// but nothing is sent again for ever.
const CUT_WEIGHT: u32 = 1;

/// How long a backend that keeps dying under this pipe is left alone at first; it doubles each time.
const SUSPENSION_MIN: Duration = Duration::from_secs(1);

/// How long a backend is left alone at most.
const SUSPENSION_MAX: Duration = Duration::from_secs(60);

/// Backends that one pipe remembers; beyond that the one remembered longest is forgotten.
const SUSPECTS_MAX: usize = 64;

/// What came of a dial that brought no attach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tried {
    /// It failed, or was answered with something that may change.
    Failed,
    /// Nothing was there to answer.
    Absent,
    /// It was answered with this HTTP status, which is the backend's last word.
    Refused(u16),
}

/// How a worker went that had been sent a message whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// As one that had read it: it had said something, or ended the link itself. A process that dies with bytes unread
    /// resets its link, so one that ends in good order had read them all.
    Died,
    /// The link was reset, or fell silent, under a worker that had said nothing: that may have been the network.
    Cut,
}

#[derive(Debug)]
struct Suspect {
    backend: BackendKey,
    quick_deaths: u32,
    suspensions: u32,
    suspended_until: Option<Time>,
    /// It said during this outage that the key is not its own.
    wrong: bool,
    /// It was dialled in this round and could not be attached, or is left out of it.
    tried: Option<Tried>,
    /// The message that it last died of, as far as we know, and how often. Not handed over: it only words a reason.
    died_of: Option<(Seq, u32)>,
}

/// One pipe's memory of backends. Empty, and without memory of its own, until something goes wrong.
#[derive(Debug, Default)]
pub struct Suspects {
    list: Vec<Suspect>,
    /// The first replayed message of the last quick death, and what those in a row that began with it weigh.
    killer: Option<Box<(Seq, u32)>>,
}

impl Suspects {
    fn entry(&mut self, backend: BackendKey) -> &mut Suspect {
        let index = match self.list.iter().position(|suspect| suspect.backend == backend) {
            Some(index) => index,
            None => {
                if self.list.len() == SUSPECTS_MAX {
                    self.list.remove(0);
                }
                self.list.push(Suspect {
                    backend,
                    quick_deaths: 0,
                    suspensions: 0,
                    suspended_until: None,
                    wrong: false,
                    tried: None,
                    died_of: None,
                });
                self.list.len() - 1
            }
        };
        &mut self.list[index]
    }

    /// Notes what came of a dial of `backend` in this round.
    pub fn tried(&mut self, backend: BackendKey, tried: Tried) {
        self.entry(backend).tried = Some(tried);
    }

    /// Whether any dial of this round has failed.
    #[must_use]
    pub fn any_tried(&self) -> bool {
        self.list.iter().any(|suspect| suspect.tried.is_some())
    }

    /// The last refusal of this round, if nothing but refusals was heard in it.
    #[must_use]
    pub fn refused_by_all(&self) -> Option<u16> {
        let mut refused = None;
        for suspect in &self.list {
            match suspect.tried {
                Some(Tried::Failed) => return None,
                Some(Tried::Refused(status)) => refused = Some(status),
                Some(Tried::Absent) | None => {}
            }
        }
        refused
    }

    /// Starts a new round: every backend may be dialled again.
    pub fn new_round(&mut self) {
        for suspect in &mut self.list {
            suspect.tried = None;
        }
    }

    /// Notes that `backend` does not own the pipe's key.
    pub fn wrong(&mut self, backend: BackendKey) {
        self.entry(backend).wrong = true;
    }

    /// Notes that a backend proved to be the right one, by talking: the outage is over. It may talk and still die at once,
    /// or of the message that killed others, so that is remembered.
    pub fn settled(&mut self, backend: BackendKey) {
        for suspect in &mut self.list {
            suspect.wrong = false;
            suspect.tried = None;
        }
        let is_known = |it: &Suspect| it.quick_deaths > 0 || it.suspensions > 0 || it.died_of.is_some();
        self.list.retain(|suspect| suspect.backend != backend || is_known(suspect));
    }

    /// Notes that `backend` was lost within [`QUICK_DEATH`] of its attach, having been replayed messages from `first` on.
    ///
    /// The answer says whether that message has now been the first one of [`QUICK_DEATHS_MAX`] such deaths in a row, or
    /// of three times as many cuts.
    pub fn died_quickly(&mut self, backend: BackendKey, first: Option<Seq>, end: End, now: Time) -> bool {
        let suspect = self.entry(backend);
        suspect.quick_deaths += 1;
        if suspect.quick_deaths >= QUICK_DEATHS_MAX {
            let wait = SUSPENSION_MIN.saturating_mul(1 << suspect.suspensions.min(10)).min(SUSPENSION_MAX);
            suspect.suspended_until = Some(now + wait);
            suspect.suspensions += 1;
            suspect.quick_deaths = 0;
        }
        let before = self.killer.take().filter(|killer| Some(killer.0) == first).map_or(0, |killer| killer.1);
        let weight = match end {
            End::Died => DEATH_WEIGHT,
            End::Cut => CUT_WEIGHT,
        };
        self.killer = first.map(|first| Box::new((first, before + weight)));
        self.killer.as_ref().is_some_and(|killer| killer.1 >= QUICK_DEATHS_MAX * DEATH_WEIGHT)
    }

    /// Notes that `backend` died, the first message that it had not confirmed being `first`.
    pub fn died_of(&mut self, backend: BackendKey, first: Seq) {
        let died_of = &mut self.entry(backend).died_of;
        let before = died_of.filter(|known| known.0 == first).map_or(0, |known| known.1);
        *died_of = Some((first, before + 1));
    }

    /// What the message `first` has done, in words.
    #[must_use]
    pub fn deeds_of(&self, first: Seq) -> String {
        let deaths = self.list.iter().filter_map(|suspect| suspect.died_of).filter(|known| known.0 == first);
        let (workers, times) = deaths.fold((0, 0), |(workers, times), (_, deaths)| (workers + 1, times + deaths));
        let first = first.0;
        match workers {
            // Some of them were seen by another process.
            _ if times < QUICK_DEATHS_MAX => format!("message {first} ended workers {QUICK_DEATHS_MAX} times in a row"),
            1 => format!("message {first} ended its worker {times} times in a row"),
            _ if workers == times => format!("message {first} ended {workers} workers in a row"),
            _ => format!("message {first} ended {workers} workers {times} times in a row"),
        }
    }

    /// Notes that an attach to `backend` outlived [`QUICK_DEATH`].
    pub fn lived(&mut self, backend: BackendKey) {
        if let Some(suspect) = self.list.iter_mut().find(|suspect| suspect.backend == backend) {
            suspect.quick_deaths = 0;
        }
        for suspect in &mut self.list {
            suspect.died_of = None;
        }
        self.killer = None;
    }

    /// The backends that must not be dialled at `now`.
    #[must_use]
    pub fn excluded(&self, now: Time) -> Vec<BackendKey> {
        let barred = |suspect: &&Suspect| {
            suspect.wrong || suspect.tried.is_some() || suspect.suspended_until.is_some_and(|until| now < until)
        };
        self.list.iter().filter(barred).map(|suspect| suspect.backend).collect()
    }

    /// When the next suspension of a backend that may own the key ends.
    #[must_use]
    pub fn next_return(&self, now: Time) -> Option<Time> {
        self.list
            .iter()
            .filter(|suspect| !suspect.wrong)
            .filter_map(|suspect| suspect.suspended_until)
            .filter(|&until| until > now)
            .min()
    }

    /// Memory that the list occupies, in bytes.
    #[must_use]
    pub const fn memory_bytes(&self) -> usize {
        self.list.capacity() * size_of::<Suspect>()
    }

    /// Calls each backend by the name that `rename` gives it.
    pub fn rename(&mut self, mut rename: impl FnMut(BackendKey) -> BackendKey) {
        for suspect in &mut self.list {
            suspect.backend = rename(suspect.backend);
        }
    }

    pub(crate) fn freeze(&self, out: &mut Writer) {
        let Self { list, killer } = self;
        out.size(list.len());
        for Suspect { backend, quick_deaths, suspensions, suspended_until, wrong, tried, died_of: _ } in list {
            out.backend(*backend);
            out.u32(*quick_deaths);
            out.u32(*suspensions);
            out.option(*suspended_until, Writer::time);
            out.flag(*wrong);
            // What it said stays behind: the next process asks once more before it believes that all refuse.
            out.flag(tried.is_some());
        }
        out.option(killer.as_deref().copied(), |out, (first, weight)| {
            out.seq(first);
            out.u32(weight);
        });
    }

    pub(crate) fn thaw(input: &mut Reader<'_>) -> Read<Self> {
        const PART: &str = "suspects";
        let mut suspects = Self::default();
        for _ in 0..input.entries(SUSPECTS_MAX, SUSPECT_BYTES_MIN)? {
            let backend = input.backend()?;
            demand(suspects.list.iter().all(|known| known.backend != backend), PART)?;
            let suspect = Suspect {
                backend,
                quick_deaths: input.u32()?,
                suspensions: input.u32()?,
                suspended_until: input.option(Reader::time)?,
                wrong: input.flag()?,
                tried: input.flag()?.then_some(Tried::Failed),
                died_of: None,
            };
            demand(suspect.quick_deaths < QUICK_DEATHS_MAX && suspect.suspensions < u32::MAX / 2, PART)?;
            suspects.list.push(suspect);
        }
        let killer = input.option(|input| Ok((input.seq()?, input.u32()?)))?;
        demand(killer.is_none_or(|(_, weight)| weight < u32::MAX / 2), PART)?;
        suspects.killer = killer.map(Box::new);
        Ok(suspects)
    }
}

/// Bytes of the smallest entry in a snapshot.
const SUSPECT_BYTES_MIN: usize = 19;

#[cfg(test)]
mod tests {
    use super::*;

    const A: BackendKey = BackendKey(1);

    fn at(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn three_quick_deaths_in_a_row_suspend_a_backend_for_a_while() {
        let mut suspects = Suspects::default();
        for second in 0..3 {
            assert!(suspects.excluded(at(second)).is_empty());
            assert!(!suspects.died_quickly(A, None, End::Died, at(second)));
        }
        assert_eq!(suspects.excluded(at(2)), [A]);
        assert_eq!(suspects.next_return(at(2)), Some(at(3)));
        assert!(suspects.excluded(at(3)).is_empty());
    }

    #[test]
    fn an_attach_that_lived_breaks_the_row() {
        let mut suspects = Suspects::default();
        suspects.died_quickly(A, None, End::Died, at(0));
        suspects.died_quickly(A, None, End::Cut, at(1));
        suspects.lived(A);
        suspects.died_quickly(A, None, End::Died, at(2));
        assert!(suspects.excluded(at(3)).is_empty());
    }

    #[test]
    fn talking_does_not_break_the_row() {
        let mut suspects = Suspects::default();
        for second in 0..3 {
            suspects.settled(A);
            suspects.died_quickly(A, None, End::Died, at(second));
        }
        assert_eq!(suspects.excluded(at(2)), [A]);
    }

    #[test]
    fn a_message_that_was_first_in_three_deaths_is_blamed_though_another_worker_died_each_time() {
        let mut suspects = Suspects::default();
        assert!(!suspects.died_quickly(BackendKey(1), Some(Seq(9)), End::Died, at(0)));
        assert!(!suspects.died_quickly(BackendKey(2), Some(Seq(9)), End::Died, at(1)));
        assert!(suspects.died_quickly(BackendKey(3), Some(Seq(9)), End::Died, at(2)));
    }

    #[test]
    fn cuts_weigh_a_third_of_deaths() {
        let mut suspects = Suspects::default();
        let blamed = |suspects: &mut Suspects, end| suspects.died_quickly(A, Some(Seq(9)), end, at(0));
        assert!((1..9).all(|_| !blamed(&mut suspects, End::Cut)));
        assert!(blamed(&mut suspects, End::Cut), "the ninth");
        suspects.lived(A);
        assert!(!blamed(&mut suspects, End::Died) && !blamed(&mut suspects, End::Died));
        assert!(!blamed(&mut suspects, End::Cut) && !blamed(&mut suspects, End::Cut));
        assert!(blamed(&mut suspects, End::Cut));
    }

    #[test]
    fn a_wrong_worker_stays_out_over_rounds_until_another_settles() {
        let mut suspects = Suspects::default();
        suspects.wrong(A);
        suspects.tried(BackendKey(2), Tried::Failed);
        suspects.new_round();
        assert_eq!(suspects.excluded(at(0)), [A]);
        suspects.settled(BackendKey(2));
        assert!(suspects.excluded(at(0)).is_empty());
    }

    #[test]
    fn all_refuse_when_no_dial_of_the_round_came_to_anything_else() {
        let mut suspects = Suspects::default();
        suspects.tried(A, Tried::Absent);
        assert_eq!(suspects.refused_by_all(), None, "no worker has answered");
        suspects.tried(BackendKey(2), Tried::Refused(404));
        suspects.wrong(BackendKey(3));
        assert_eq!(suspects.refused_by_all(), Some(404));
        suspects.tried(BackendKey(4), Tried::Failed);
        assert_eq!(suspects.refused_by_all(), None);
        suspects.new_round();
        assert_eq!(suspects.refused_by_all(), None);
    }
}
