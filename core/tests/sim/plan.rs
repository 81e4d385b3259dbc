//! What a seed decides before anything happens: the settings, and which faults may strike.

use std::time::Duration;

use holdline_core::limits::Rate;
use holdline_core::settings::{
    BackendLoss, Balance, DownPolicy, Heartbeat, LimitedLanes, OnExceed, OnTooBig, OverflowPolicy, PipeLimits,
    PipeSettings, Refusal, ReplayPolicy, ReplayTail,
};

/// SplitMix64, written out again so that a change of the core's own generator changes no seed here.
#[derive(Debug)]
pub struct Rng(u64);

impl Rng {
    pub const fn new(seed: u64) -> Self {
        Self(seed ^ 0x5DEE_CE66_D1CE_4E5B)
    }

    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from 0 up to, but not including, `end`.
    pub const fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.bits() % end }
    }

    pub const fn size(&mut self, low: usize, high: usize) -> usize {
        low + self.below((high - low + 1) as u64) as usize
    }

    /// True once in `times`.
    pub const fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    pub const fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_micros(low * 1000 + self.below((high - low) * 1000 + 1))
    }

    /// A length as the network cuts bytes: often a few, mostly many.
    pub const fn chunk(&mut self) -> usize {
        match self.below(8) {
            0 => self.size(1, 3),
            1 => self.size(1, 40),
            2 | 3 => self.size(1, 600),
            _ => 65_536,
        }
    }
}

/// What may go wrong in a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    DialRefused,
    DialHangs,
    DialUnauthorized,
    LateAttach,
    WorkerCrash,
    WorkerClose,
    WorkerEnds,
    WorkerFreezes,
    WorkerHalfOpen,
    WorkerSlow,
    WorkerNoPong,
    WorkerSilent,
    WorkerTooBig,
    WrongWorker,
    NoCloseAnswer,
    StalePong,
    LateNews,
    ClientSlow,
    ClientVanishes,
    ClientCloses,
    ClientHalfOpen,
    ClientViolates,
    BigMessages,
    Drain,
    OperatorMoves,
    OperatorCloses,
    OperatorSays,
    LateRegistration,
    EarlyTimers,
    MemoryPressure,
    Poison,
    Budget,
    SmallLimits,
    ClockJumps,
    /// The pipe goes through a snapshot, at any step.
    Freezes,
    /// Its backend link does not come along.
    FreezeLosesLink,
    /// A second Holdline takes pipes over, and gives them back.
    HandOver,
    /// Pipes have keys, workers say which they serve and what they call them.
    Keys,
}

impl Fault {
    const ALL: [Self; 38] = [
        Self::DialRefused,
        Self::DialHangs,
        Self::DialUnauthorized,
        Self::LateAttach,
        Self::WorkerCrash,
        Self::WorkerClose,
        Self::WorkerEnds,
        Self::WorkerFreezes,
        Self::WorkerHalfOpen,
        Self::WorkerSlow,
        Self::WorkerNoPong,
        Self::WorkerSilent,
        Self::WorkerTooBig,
        Self::WrongWorker,
        Self::NoCloseAnswer,
        Self::StalePong,
        Self::LateNews,
        Self::ClientSlow,
        Self::ClientVanishes,
        Self::ClientCloses,
        Self::ClientHalfOpen,
        Self::ClientViolates,
        Self::BigMessages,
        Self::Drain,
        Self::OperatorMoves,
        Self::OperatorCloses,
        Self::OperatorSays,
        Self::LateRegistration,
        Self::EarlyTimers,
        Self::MemoryPressure,
        Self::Poison,
        Self::Budget,
        Self::SmallLimits,
        Self::ClockJumps,
        Self::Freezes,
        Self::FreezeLosesLink,
        Self::HandOver,
        Self::Keys,
    ];
}

/// How clients that are lost come back, where they may.
#[derive(Clone, Copy, Debug)]
pub struct Returns {
    /// A second connection of a client that is there is refused; else it takes the place of the first.
    pub rejects: bool,
}

/// Everything that is decided at the start of a run.
#[derive(Debug)]
pub struct Plan {
    pub settings: PipeSettings,
    faults: u64,
    pub workers: usize,
    pub pipes: usize,
    pub balance: Balance,
    /// How long faults strike.
    pub disaster: Duration,
    /// Time from one action of a peer to its next, on average.
    pub pace: Duration,
    /// Chance of a fault at each action, as one in so many.
    pub rarity: u64,
    pub link_bytes: usize,
    /// Down messages: one in so many actions.
    pub talk: u64,
    pub returns: Option<Returns>,
    /// Fragments without a byte that a client puts into some of its messages.
    pub empty_fragments: usize,
    /// Workers refuse pipes that they do not know.
    pub refuses: bool,
    /// The peers compress some of their messages.
    pub compressed: bool,
    /// All pipes have one key, and there are many of them.
    pub one_key: bool,
    /// The pipes whose clients speak the aware protocol, a bit for each, and those whose workers do.
    aware: u64,
    numbered: u64,
}

/// One seed in so many has many pipes of one key, which take as long as ten others.
const CROWD_RARITY: u64 = 20;

impl Plan {
    pub fn draw(rng: &mut Rng, seed: u64) -> Self {
        let faults = Fault::ALL.iter().enumerate().fold(0, |set, (bit, _)| set | (rng.below(2) << bit));
        let disaster = Duration::from_millis(rng.pick(&[800, 4_000, 4_000, 15_000, 40_000]));
        let mut plan = Self {
            settings: PipeSettings::default(),
            faults,
            workers: rng.size(1, 4),
            pipes: rng.size(1, 3),
            balance: rng.pick(&[Balance::LeastPipes, Balance::RoundRobin, Balance::Random2, Balance::Hash]),
            disaster,
            pace: disaster / 120,
            rarity: rng.pick(&[40, 80, 200]),
            link_bytes: rng.pick(&[64, 600, 5_000, 65_536]),
            talk: rng.pick(&[2, 5, 20, 1000]),
            returns: None,
            empty_fragments: 0,
            refuses: false,
            compressed: Rng::new(seed.rotate_left(16) ^ 0x7692).once_in(3),
            one_key: false,
            aware: 0,
            numbered: 0,
        };
        plan.settings = settings(rng, plan.may(Fault::SmallLimits));
        plan.settings.limits = limits(&mut Rng::new(rng.bits()));
        // Drawn apart, so that the seeds whose clients do not come back mean what they meant before.
        let mut apart = Rng::new(!seed);
        if apart.below(5) < 2 {
            plan.returns = Some(Returns { rejects: apart.once_in(3) });
            plan.settings.client_grace = Some(apart.pick(&[300, 2_000, 20_000].map(Duration::from_millis)));
        }
        if apart.once_in(4) {
            plan.empty_fragments = apart.pick(&[3, 100, 2_000]);
        }
        if apart.once_in(2) {
            plan.settings.on_too_big = OnTooBig::Drop;
        }
        let mut apart = Rng::new(seed.rotate_left(32) ^ 0x0EF5);
        plan.settings.prove = apart.pick(&[0, 0, 100, 500].map(Duration::from_millis));
        plan.refuses = apart.once_in(4);
        if apart.once_in(3) {
            plan.settings.refusal = Refusal::Wait;
        }
        plan.draw_aware(&mut Rng::new(seed.rotate_left(40) ^ 0xA3A6));
        plan.draw_numbered(&mut Rng::new(seed.rotate_left(41) ^ 0x3A6B));
        if Rng::new(seed.rotate_left(17) ^ 0x13C).once_in(CROWD_RARITY) {
            plan.crowd(seed);
        }
        plan
    }

    /// Which clients that come back number their messages, and what is agreed with them.
    fn draw_aware(&mut self, apart: &mut Rng) {
        if self.returns.is_none() || apart.once_in(3) {
            return;
        }
        self.aware = apart.bits() | u64::from(apart.once_in(2));
        let aware = &mut self.settings.aware;
        aware.window_bytes = apart.pick(&[300, 4_000, 256 << 10]);
        aware.retain_bytes = apart.pick(&[2_000, 20_000, 256 << 10]).max(aware.window_bytes);
        aware.ack_delay = apart.pick(&[0, 200, 2_000].map(Duration::from_millis));
        aware.ack_messages = apart.pick(&[1, 3, 16]);
        aware.hello_timeout = apart.pick(&[1, 5].map(Duration::from_secs));
    }

    /// Which pipes' workers number their messages: none where nothing is kept, or more than that.
    fn draw_numbered(&mut self, apart: &mut Rng) {
        let settings = &self.settings;
        let keeps = settings.replay != ReplayPolicy::None && settings.replay_tail == ReplayTail::default();
        if keeps && apart.once_in(4) {
            self.numbered = apart.bits();
        }
    }

    /// Whether the workers of a pipe may number their messages.
    pub const fn is_numbered(&self, pipe: usize) -> bool {
        self.numbered & 1 << (pipe % 64) != 0
    }

    /// Whether the client of a pipe numbers its messages.
    pub const fn is_aware(&self, pipe: usize) -> bool {
        self.aware & 1 << (pipe % 64) != 0
    }

    /// Whether the peers of a pipe compress some of their messages.
    pub const fn compresses(&self, pipe: usize) -> bool {
        self.compressed && !self.is_aware(pipe) && !self.is_numbered(pipe)
    }

    /// Many pipes of one key, whose workers' young deaths are counted.
    fn crowd(&mut self, seed: u64) {
        self.one_key = true;
        self.pipes = Rng::new(seed ^ 0xC20D).size(8, 24);
        self.faults |= 1 << Fault::Keys as u64 | 1 << Fault::Budget as u64;
    }

    /// Which key a pipe has.
    pub const fn key_number(&self, pipe: usize) -> usize {
        if self.one_key { 0 } else { pipe }
    }

    /// Time from one action of a peer to its next when all is quiet: soon enough for every heartbeat to be answered.
    pub fn quiet_pace(&self) -> Duration {
        let patience = self.settings.client_heartbeat.timeout.min(self.settings.backend_heartbeat.timeout);
        Duration::from_millis(900).min(patience * 3 / 4)
    }

    pub const fn may(&self, fault: Fault) -> bool {
        self.faults & (1 << fault as u64) != 0
    }
}

fn settings(rng: &mut Rng, small: bool) -> PipeSettings {
    let tail = ReplayTail {
        bytes: rng.pick(&[0, 0, 200, 5_000]),
        messages: rng.pick(&[0, 0, 3, 40]),
        age: rng.pick(&[Duration::ZERO, Duration::ZERO, Duration::from_millis(200)]),
    };
    PipeSettings {
        replay: rng.pick(&[
            ReplayPolicy::Unconfirmed,
            ReplayPolicy::Unconfirmed,
            ReplayPolicy::Unsent,
            ReplayPolicy::None,
        ]),
        replay_bytes_max: if small { rng.pick(&[400, 2_000, 20_000]) } else { 5 << 20 },
        window_bytes: if small { rng.pick(&[1, 300, 4_000]) } else { rng.pick(&[1_000, 64 << 10, 256 << 10]) },
        overflow: rng.pick(&[OverflowPolicy::Pause, OverflowPolicy::Pause, OverflowPolicy::Close]),
        replay_tail: if rng.once_in(4) { tail } else { ReplayTail::default() },
        replay_delay: rng.pick(&[Duration::ZERO, Duration::ZERO, Duration::from_millis(300), Duration::from_secs(2)]),
        down: match rng.below(3) {
            0 => DownPolicy::Latest(rng.pick(&[1, 3]).try_into().expect("not zero")),
            _ => DownPolicy::Keep,
        },
        stall_max: rng.pick(&[Duration::from_secs(1), Duration::from_secs(15)]),
        on_backend_loss: if rng.once_in(8) { BackendLoss::Close } else { BackendLoss::Reattach },
        message_bytes_max: rng.pick(&[3_000, 100_000]),
        message_incomplete_timeout: rng.pick(&[Duration::from_secs(2), Duration::from_secs(30)]),
        grace: Some(rng.pick(&[Duration::from_millis(700), Duration::from_secs(5), Duration::from_secs(30)])),
        backoff_max: rng.pick(&[Duration::from_millis(200), Duration::from_secs(2)]),
        first_message_timeout: rng.once_in(4).then(|| Duration::from_secs(3)),
        move_timeout: rng.pick(&[Duration::from_millis(500), Duration::from_secs(10)]),
        settle: rng.pick(&[Duration::ZERO, Duration::from_millis(30), Duration::from_secs(1)]),
        close_timeout: rng.pick(&[Duration::from_millis(300), Duration::from_secs(5)]),
        client_heartbeat: heartbeat(rng),
        backend_heartbeat: heartbeat(rng),
        ..PipeSettings::default()
    }
}

/// Mostly none; else rates that a run meets now and then, and that are done with what it leaves before the calm ends.
fn limits(rng: &mut Rng) -> PipeLimits {
    const SECOND: Duration = Duration::from_secs(1);
    if !rng.once_in(4) {
        return PipeLimits::OFF;
    }
    PipeLimits {
        messages: rng.pick(&[Rate::OFF, Rate::new(5, SECOND), Rate::new(40, SECOND)]),
        bytes: rng.pick(&[Rate::OFF, Rate::new(20_000, SECOND), Rate::new(200_000, SECOND)]),
        on_exceed: rng.pick(&[OnExceed::Throttle, OnExceed::Throttle, OnExceed::Throttle, OnExceed::Close]),
        lanes: LimitedLanes::Both,
    }
}

/// Never none: half-open peers must be found.
fn heartbeat(rng: &mut Rng) -> Heartbeat {
    let interval = rng.pick(&[500, 5_000, 20_000]);
    Heartbeat {
        interval: Duration::from_millis(interval),
        timeout: Duration::from_millis(interval * rng.pick(&[1, 2, 4])),
    }
}
