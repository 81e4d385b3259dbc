//! The faults: which, where and when, drawn from the seed; and how each is healed.
//!
//! A fault never takes the last healthy worker, except for a moment: that would test patience, and grace is another test.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::books::Books;
use crate::dice::Dice;
use crate::fleet::Fleet;

/// The reason in close frames that workers are told to send.
pub const CLOSE_REASON: &str = "chaos";

/// Codes that interrupt a pipe, and codes that end it.
const INTERRUPTING: [u16; 5] = [1001, 1011, 1012, 1013, 1014];
const ENDING: [u16; 5] = [1000, 1003, 1008, 4000, 4321];

/// What can go wrong, each as often as it is listed.
const FAULTS: [&str; 22] = [
    "kill",
    "kill",
    "kill",
    "term",
    "term",
    "stop",
    "freeze",
    "fin",
    "fin session",
    "half-open session",
    "mute",
    "reject drop",
    "reject 4004",
    "reject 403",
    "reject 429",
    "close",
    "close session",
    "end session",
    "slow",
    "drain",
    "drain",
    "deregister",
];
const GENTLE: [&str; 6] = ["kill", "term", "fin session", "close session", "drain", "deregister"];

/// What is wrong at the moment, and with whom.
pub struct Faults {
    dice: Dice,
    gentle: bool,
    began: Instant,
    /// Places that are ill, until when, and what heals them.
    ill: Vec<Ill>,
    counts: BTreeMap<&'static str, u64>,
}

struct Ill {
    place: usize,
    until: Instant,
    cure: Cure,
}

/// How a place becomes healthy again.
#[derive(Debug, Clone, Copy)]
enum Cure {
    /// A new worker.
    Birth { same_id: bool },
    /// SIGCONT.
    Continue,
    /// A knob turned back.
    Knob(&'static str),
    /// Ready in the pool.
    Ready,
    /// Time alone.
    Rest,
}

impl Faults {
    pub fn new(dice: Dice, gentle: bool) -> Self {
        Self { dice, gentle, began: Instant::now(), ill: Vec::new(), counts: BTreeMap::new() }
    }

    /// How long until the next one.
    pub fn pause(&mut self) -> Duration {
        if self.gentle { self.dice.millis(1_000, 3_000) } else { self.dice.millis(100, 500) }
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.values().sum()
    }

    /// How many of each kind.
    pub fn kinds(&self) -> String {
        let kinds: Vec<String> = self.counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        kinds.join(", ")
    }

    /// Heals what is due, then injects one fault if enough workers are healthy.
    ///
    /// # Errors
    /// When the proxy refuses a right request, or a worker does not start.
    pub async fn inject(&mut self, fleet: &mut Fleet, books: &Arc<Books>) -> anyhow::Result<()> {
        self.cure(fleet, Instant::now()).await?;
        let kinds: &[&str] = if self.gentle { &GENTLE } else { &FAULTS };
        let fault = *self.dice.pick(kinds).unwrap_or(&"kill");
        let healthy: Vec<usize> =
            (0..fleet.places.len()).filter(|place| !self.ill.iter().any(|ill| ill.place == *place)).collect();
        let spare = if self.dice.is_one_in(20) { 1 } else { 2 };
        let place = self.dice.pick(&healthy).copied();
        let is_of_a_session = fault.ends_with(" session");
        let Some(place) = place.filter(|_| is_of_a_session || healthy.len() >= spare) else { return Ok(()) };
        *self.counts.entry(fault).or_default() += 1;
        self.turn(fault, place, fleet, books).await
    }

    /// Heals everything and waits until all workers take pipes.
    ///
    /// # Errors
    /// When they do not.
    pub async fn heal(&mut self, fleet: &mut Fleet) -> anyhow::Result<()> {
        self.cure(fleet, Instant::now() + Duration::from_secs(3_600)).await?;
        for place in 0..fleet.places.len() {
            for knob in ["/__mute?mode=off", "/__reject?mode=off", "/__slow?bps=0"] {
                fleet.turn(place, knob).await;
            }
            fleet.write(place, "PUT", "/state", r#"{"state":"ready"}"#).await?;
        }
        fleet.all_eligible().await
    }

    async fn cure(&mut self, fleet: &mut Fleet, now: Instant) -> anyhow::Result<()> {
        let (due, ill) = std::mem::take(&mut self.ill).into_iter().partition(|ill| ill.until <= now);
        self.ill = ill;
        let due: Vec<Ill> = due;
        for Ill { place, cure, .. } in due {
            match cure {
                Cure::Birth { same_id } => fleet.bear(place, same_id).await?,
                Cure::Continue => {
                    fleet.signal(place, Signal::CONT);
                }
                Cure::Knob(knob) => fleet.turn(place, knob).await,
                Cure::Ready => fleet.write(place, "PUT", "/state", r#"{"state":"ready"}"#).await?,
                Cure::Rest => {}
            }
        }
        Ok(())
    }

    async fn turn(
        &mut self,
        fault: &'static str,
        place: usize,
        fleet: &mut Fleet,
        books: &Arc<Books>,
    ) -> anyhow::Result<()> {
        let sessions = books.sessions();
        let session = self.dice.pick(&sessions).cloned().unwrap_or_default();
        let (time, same_id) = (self.dice.millis(300, 3_000), self.dice.is_one_in(2));
        let (interrupting, ending) = (self.code(&INTERRUPTING), self.code(&ENDING));
        let refusals = 1 + self.dice.below(4);
        let cure = match fault {
            "kill" | "term" => {
                fleet.signal(place, if fault == "kill" { Signal::KILL } else { Signal::TERM });
                fleet.take(place);
                Cure::Birth { same_id }
            }
            "stop" => {
                fleet.signal(place, Signal::STOP);
                Cure::Continue
            }
            "freeze" => {
                fleet.turn(place, &format!("/__freeze?ms={}", time.as_millis())).await;
                Cure::Rest
            }
            "fin" => return self.knob(fleet, place, "/__fin").await,
            "fin session" => return self.everywhere(fleet, &format!("/__fin?session={session}")).await,
            "half-open session" => return self.everywhere(fleet, &format!("/__halfopen?session={session}")).await,
            "mute" => {
                fleet.turn(place, "/__mute?mode=on").await;
                Cure::Knob("/__mute?mode=off")
            }
            "reject drop" | "reject 4004" | "reject 403" | "reject 429" => {
                let mode = fault.trim_start_matches("reject ");
                let code = mode.parse().unwrap_or(0);
                *books.open().told_to_refuse.entry(code).or_default() += refusals;
                fleet.turn(place, &format!("/__reject?mode={mode}&count={refusals}")).await;
                Cure::Knob("/__reject?mode=off")
            }
            "close" => {
                let knob = format!("/__close?code={interrupting}&reason={CLOSE_REASON}");
                return self.knob(fleet, place, &knob).await;
            }
            "close session" => {
                let knob = format!("/__close?code={interrupting}&reason={CLOSE_REASON}&session={session}");
                return self.everywhere(fleet, &knob).await;
            }
            "end session" => {
                books.open().told_to_close.entry(session.clone()).or_default().insert(ending);
                let knob = format!("/__close?code={ending}&reason={CLOSE_REASON}&session={session}");
                return self.everywhere(fleet, &knob).await;
            }
            "slow" => {
                fleet.turn(place, "/__slow?bps=2000").await;
                Cure::Knob("/__slow?bps=0")
            }
            "drain" => {
                fleet.write(place, "PUT", "/state", r#"{"state":"drain","pipes":"reattach"}"#).await?;
                Cure::Ready
            }
            _ => {
                fleet.write(place, "DELETE", "", "").await?;
                Cure::Rest
            }
        };
        println_fault(self.began, fault, place);
        self.ill.push(Ill { place, until: Instant::now() + time, cure });
        Ok(())
    }

    fn code(&mut self, of: &[u16]) -> u16 {
        self.dice.pick(of).copied().unwrap_or(1000)
    }

    async fn knob(&self, fleet: &Fleet, place: usize, knob: &str) -> anyhow::Result<()> {
        println_fault(self.began, knob, place);
        fleet.turn(place, knob).await;
        Ok(())
    }

    /// A session may be at any worker; those that do not have it do nothing.
    async fn everywhere(&self, fleet: &Fleet, knob: &str) -> anyhow::Result<()> {
        for place in 0..fleet.places.len() {
            if !self.ill.iter().any(|ill| ill.place == place) {
                fleet.turn(place, knob).await;
            }
        }
        println_fault(self.began, knob, usize::MAX);
        Ok(())
    }
}

/// For a person who reads along: `HOLDLINE_CHAOS_VERBOSE=1`.
fn println_fault(began: Instant, fault: &str, place: usize) {
    if std::env::var_os("HOLDLINE_CHAOS_VERBOSE").is_some() {
        let place = if place == usize::MAX { "all".to_owned() } else { format!("w{place}") };
        println!("{:8.3} s {place}: {fault}", began.elapsed().as_secs_f64());
    }
}
