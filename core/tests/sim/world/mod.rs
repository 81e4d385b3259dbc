//! The clock, the workers and their pool, and what strikes them.

use std::collections::BTreeMap;
use std::time::Duration;

use holdline_core::health::{Experience, HealthChange, Probed, YOUNG_DEATH};
use holdline_core::ids::{Attachment, Generation};
use holdline_core::pipe::{Input, LinkLoss, Peer};
use holdline_core::pool::{Choose, PoolSettings};
use holdline_core::time::Time;

use crate::client::Client;
use crate::driver::{Driver, Order};
use crate::marks::{Mark, Marks};
use crate::plan::{Fault, Plan, Rng};
use crate::state::State;
use crate::wire;
use crate::worker::Conn;
use crate::young::Young;

/// Steps of one run and pipe after which it is said never to end.
const STEPS_MAX: u64 = 400_000;

/// How long after the disaster everything must be in order again: every timeout of every plan fits in several times.
const CALM_MAX: Duration = Duration::from_secs(600);

/// From one probe of each worker to the next.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);

mod clients;
mod dials;
mod homes;
mod strikes;

use homes::{Home, YOUNG_DEATHS, id_of, key_of, worker_of};

#[derive(Clone, Copy, Debug)]
enum Event {
    ClientActs(usize),
    WorkerActs(usize, Attachment),
    DialDone(usize, Attachment, Answer),
    LateNews(usize, Attachment),
    LateClientNews(usize, Generation),
    ClientReturns(usize),
    EarlyTick(usize),
    Probe,
    Strike,
    WorkerReturns(usize),
    Calm,
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Refused,
    TimedOut,
    Unauthorized,
    /// It does not know the pipe.
    NotFound,
    Upgraded,
}

#[derive(Debug)]
struct Worker {
    up: bool,
    registered: bool,
    /// Pipes whose key it disowns.
    disowns: Vec<usize>,
    /// Pipes that it does not take over from another worker, nor from itself once it has lost them.
    refuses: Vec<usize>,
    /// Messages that it had received of each pipe, since it last started.
    knows: BTreeMap<usize, u64>,
    stale_ping: Option<Vec<u8>>,
    /// How often it has started; what it calls a key changes with it.
    generation: u32,
}

struct World {
    now: Time,
    rng: Rng,
    plan: Plan,
    marks: Marks,
    agenda: BTreeMap<(Time, u64), Event>,
    serial: u64,
    homes: Vec<Home>,
    young: Young,
    workers: Vec<Worker>,
    drivers: Vec<Driver>,
    cancelled: Vec<(usize, Attachment)>,
    /// What the worker of an attach was asked for: its name for the pipe's key.
    asked: BTreeMap<(usize, Attachment), Option<String>>,
    calm_since: Option<Time>,
    room: usize,
    trace: bool,
    /// Which pipes have said their last message, and which of them were closed.
    last_said: Vec<(bool, bool)>,
}

/// Runs the world of one seed to its end; it panics over the first thing that is not as it must be.
pub fn run(seed: u64) -> Marks {
    let mut rng = Rng::new(seed);
    let plan = Plan::draw(&mut rng, seed);
    let mut world = World::new(seed, rng, plan);
    world.run();
    world.marks
}

impl World {
    fn new(seed: u64, mut rng: Rng, plan: Plan) -> Self {
        let now = Time::from_micros(1_000_000);
        let max_pipes_per_backend = if plan.pipes < plan.workers { rng.pick(&[0, 0, 1]) } else { 0 };
        let mut workers = Vec::new();
        for index in 0..plan.workers {
            let late = index > 0 && plan.may(Fault::LateRegistration) && rng.once_in(2);
            let disowned = |rng: &mut Rng| index > 0 && plan.may(Fault::WrongWorker) && rng.once_in(2);
            let disowns = (0..plan.pipes).filter(|_| disowned(&mut rng)).collect();
            let mut apart = Rng::new(seed ^ (index as u64) << 40);
            let refuses = (0..plan.pipes).filter(|_| plan.refuses && apart.below(3) < 2).collect();
            let knows = BTreeMap::new();
            let (stale_ping, generation) = (None, 0);
            workers.push(Worker { up: true, registered: !late, disowns, refuses, knows, stale_ping, generation });
        }
        let mut world = Self {
            now,
            trace: std::env::var_os("HOLDLINE_SIM_TRACE").is_some(),
            rng,
            marks: Marks::default(),
            agenda: BTreeMap::new(),
            serial: 0,
            homes: Vec::new(),
            young: Young::new(YOUNG_DEATHS),
            workers,
            drivers: Vec::new(),
            cancelled: Vec::new(),
            asked: BTreeMap::new(),
            calm_since: None,
            room: usize::MAX,
            last_said: vec![(false, false); plan.pipes],
            plan,
        };
        world.begin_home(max_pipes_per_backend);
        for pipe in 0..world.plan.pipes {
            world.open(pipe, seed);
        }
        world.at(world.plan.disaster, Event::Calm);
        world.at(PROBE_INTERVAL, Event::Probe);
        world.at(world.plan.pace, Event::Strike);
        world
    }

    fn open(&mut self, pipe: usize, seed: u64) {
        let key = self.key_asked(pipe);
        let ask = Choose { key: key.as_deref(), random: self.rng.bits(), ..Choose::default() };
        let pool = &mut self.homes[0].pool;
        let chosen = pool.choose(&ask).or_else(|_| {
            // More pipes than the workers that are registered so far may have.
            pool.configure(PoolSettings { max_pipes_per_backend: 0, ..*pool.settings() });
            pool.choose(&ask)
        });
        let backend = chosen.expect("worker 0 is there and eligible").key;
        let wrong = self.workers[worker_of(backend)].disowns.contains(&pipe);
        let mut conn = Conn::new(pipe, 1, wrong, None, self.now, &self.plan, &mut self.rng);
        if self.plan.is_numbered(pipe) {
            conn.state = Some(State::new(None));
        }
        let client = Client::new(&self.plan, pipe, &mut self.rng);
        let mut driver = Driver::open(&self.plan, backend, conn, client, seed ^ pipe as u64, self.now);
        driver.traced_as = self.trace.then_some(pipe);
        self.drivers.push(driver);
        self.at(Duration::ZERO, Event::ClientActs(pipe));
        self.at(Duration::ZERO, Event::WorkerActs(pipe, Attachment::FIRST));
        if self.plan.may(Fault::EarlyTimers) {
            self.at(self.plan.pace, Event::EarlyTick(pipe));
        }
    }

    fn at(&mut self, wait: Duration, event: Event) {
        self.serial += 1;
        self.agenda.insert((self.now + wait, self.serial), event);
    }

    fn run(&mut self) {
        for steps in 0.. {
            assert!(steps < STEPS_MAX * self.plan.pipes as u64, "it never ends: {:?}", self.stuck());
            if self.drivers.iter().all(|driver| driver.finished) {
                break;
            }
            if let Some(calm) = self.calm_since {
                assert!(self.now < calm + CALM_MAX, "stuck {CALM_MAX:?} after the disaster: {:?}", self.stuck());
            }
            self.step();
        }
        for driver in &self.drivers {
            driver.model.check_end(&driver.pipe);
            assert!(driver.reserved.is_empty(), "places are still reserved: {:?}", driver.reserved);
        }
        let mut backends = self.homes.iter().flat_map(|home| home.pool.iter());
        assert!(backends.all(|backend| backend.pipes() == 0), "a pool still counts pipes");
    }

    fn stuck(&self) -> Vec<String> {
        let shown = |driver: &Driver| {
            format!("{:?} deadline {:?} current {:?}", driver.pipe.view(), driver.deadline(), driver.current())
        };
        self.drivers.iter().filter(|driver| !driver.finished).map(shown).collect()
    }

    /// The next thing that happens: an event, or a deadline of a pipe.
    fn step(&mut self) {
        let (&(next, serial), &event) = self.agenda.first_key_value().expect("there is always another probe");
        let deadlines = self.drivers.iter().enumerate().filter_map(|(pipe, it)| Some((it.deadline()?, pipe)));
        if let Some((deadline, pipe)) = deadlines.min()
            && deadline < next
        {
            self.now = self.now.max(deadline);
            return self.settle(pipe);
        }
        self.agenda.remove(&(next, serial));
        self.now = self.now.max(next);
        if self.trace && !matches!(event, Event::ClientActs(_) | Event::WorkerActs(..) | Event::Probe | Event::Strike) {
            eprintln!("{:?} {event:?}", self.now);
        }
        self.happens(event);
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::ClientActs(pipe) => self.client_acts(pipe),
            Event::WorkerActs(pipe, attachment) => self.worker_acts(pipe, attachment),
            Event::DialDone(pipe, attachment, answer) => self.dial_done(pipe, attachment, answer),
            Event::LateNews(pipe, attachment) => self.late_news(pipe, attachment),
            Event::LateClientNews(pipe, generation) => self.late_client_news(pipe, generation),
            Event::ClientReturns(pipe) => self.client_returns(pipe),
            Event::EarlyTick(pipe) => self.early_tick(pipe),
            Event::Probe => self.probe(),
            Event::Strike => self.strike(),
            Event::WorkerReturns(worker) => {
                self.workers[worker].up = true;
                self.registers_anew(worker);
            }
            Event::Calm => self.calm(),
        }
    }

    /// Until a peer acts again: now and then at once, and rarely when all is quiet.
    fn pause(&mut self) -> Duration {
        match self.calm_since {
            Some(since) if self.now.since(since) > Duration::from_secs(3) => self.plan.quiet_pace(),
            Some(_) => Duration::from_millis(20),
            None => Duration::from_micros(self.rng.below(self.plan.pace.as_micros() as u64 * 2) + 1),
        }
    }

    fn client_acts(&mut self, pipe: usize) {
        let calm = self.calm_since.is_some();
        let driver = &mut self.drivers[pipe];
        if driver.client.gone {
            self.settle(pipe);
            return self.client_is_gone(pipe);
        }
        driver.client_acts(&self.plan, &mut self.rng, calm, &mut self.marks);
        if calm {
            self.last_things(pipe);
        }
        self.settle(pipe);
        self.client_tries_again(pipe);
        let pause = self.pause();
        self.at(pause, Event::ClientActs(pipe));
    }

    /// When all is settled after the disaster, one more message each way, and then a goodbye.
    fn last_things(&mut self, pipe: usize) {
        let driver = &mut self.drivers[pipe];
        if !driver.client.may_talk() || !driver.model.is_settled(&driver.pipe) || !driver.client_knows() {
            return;
        }
        match self.last_said[pipe] {
            (false, _) => {
                self.last_said[pipe].0 = true;
                driver.client.say(&self.plan, &mut self.rng, &mut self.marks);
                if let Some(conn) = driver.conn() {
                    conn.say(&self.plan, &mut self.rng);
                }
            }
            (true, false) => {
                self.last_said[pipe].1 = true;
                self.marks.hit(Mark::TalkedAfterCalm);
                driver.client.close(&mut self.rng);
            }
            (true, true) => {}
        }
    }

    fn worker_acts(&mut self, pipe: usize, attachment: Attachment) {
        let driver = &mut self.drivers[pipe];
        let Some(conn) = driver.conns.get_mut(&attachment) else { return };
        conn.act(&self.plan, &mut self.rng, self.now, self.calm_since.is_some(), &mut self.marks);
        let gone = conn.dead && !driver.has(attachment);
        if gone {
            driver.conns.remove(&attachment);
        }
        self.settle(pipe);
        if !gone {
            let pause = self.pause();
            self.at(pause, Event::WorkerActs(pipe, attachment));
        }
    }

    /// Lets a pipe do all that it can do now, and carries out its orders.
    fn settle(&mut self, pipe: usize) {
        loop {
            let driver = &mut self.drivers[pipe];
            driver.pump(&mut self.rng, self.now, self.room, &mut self.marks);
            let Some(order) = driver.orders.pop_front() else { return };
            if self.trace {
                eprintln!("{:?} pipe {pipe} {order:?}", self.now);
            }
            match order {
                Order::Dial(order) => self.dial(pipe, &order),
                Order::Cancel(attachment) => {
                    self.release(pipe, attachment);
                    self.cancelled.push((pipe, attachment));
                }
                Order::Drop(attachment, died) => self.dropped(pipe, attachment, died),
                Order::LetGo(attachment) => self.release(pipe, attachment),
                Order::DropClient(generation) => self.client_dropped(pipe, generation),
            }
        }
    }

    fn release(&mut self, pipe: usize, attachment: Attachment) {
        let Some(backend) = self.drivers[pipe].reserved.remove(&attachment) else { return };
        self.release_place(self.drivers[pipe].home, backend);
    }

    fn dropped(&mut self, pipe: usize, attachment: Attachment, died: bool) {
        let attached = self.drivers[pipe].conns.get(&attachment).map(|conn| conn.since);
        if let (true, Some(&backend), Some(since)) = (died, self.drivers[pipe].reserved.get(&attachment), attached) {
            let (home, lived) = (self.drivers[pipe].home, self.now.since(since));
            if lived < YOUNG_DEATH {
                self.homes[home].deaths.died(id_of(pipe), backend, self.now);
                self.young.died(pipe, backend, self.now);
            }
            self.experienced(home, backend, Experience::Died { lived }, pipe);
        }
        let worker = self.drivers[pipe].reserved.get(&attachment).map(|&key| worker_of(key));
        if let (Some(worker), Some(conn)) = (worker, self.drivers[pipe].conns.get(&attachment)) {
            let worker = &mut self.workers[worker];
            worker.stale_ping = conn.last_ping();
            if worker.up {
                worker.knows.insert(conn.pipe, conn.received());
            }
        }
        self.release(pipe, attachment);
        if self.plan.may(Fault::LateNews) && self.rng.once_in(2) {
            let wait = self.rng.millis(0, 500);
            self.at(wait, Event::LateNews(pipe, attachment));
        }
        // A link that died is told of twice, now and then.
        if self.plan.may(Fault::LateNews) && self.rng.once_in(2) {
            self.marks.hit(Mark::DuplicateLoss);
            let now = self.now;
            self.drivers[pipe]
                .call(now, &mut self.marks, |it, now| it.lost(Peer::Backend(attachment), LinkLoss::Eof, now));
        }
    }

    fn late_news(&mut self, pipe: usize, attachment: Attachment) {
        let now = self.now;
        let driver = &mut self.drivers[pipe];
        let before = driver.pipe.view();
        if driver.is_foreign(attachment) {
            self.marks.hit(Mark::LateNewsOfTheOld);
        }
        if self.rng.once_in(2) {
            self.marks.hit(Mark::LateBytes);
            let bytes = wire::frame(0x81, b"from the grave", None);
            let from = Peer::Backend(attachment);
            driver.call(now, &mut self.marks, |it, now| it.receive(from, Input::Copy(&bytes), now));
        } else {
            self.marks.hit(Mark::LateLoss);
            driver.call(now, &mut self.marks, |it, now| it.lost(Peer::Backend(attachment), LinkLoss::Reset, now));
        }
        assert_eq!(driver.pipe.view(), before, "late news changed something");
        self.settle(pipe);
    }

    fn early_tick(&mut self, pipe: usize) {
        let now = self.now;
        self.marks.hit(Mark::EarlyTick);
        self.drivers[pipe].call(now, &mut self.marks, |it, now| it.tick(now));
        self.settle(pipe);
        if self.calm_since.is_none() {
            let pause = self.pause();
            self.at(pause, Event::EarlyTick(pipe));
        }
    }

    fn probe(&mut self) {
        for home in 0..self.homes.len() {
            let mut better = false;
            for (index, worker) in self.workers.iter().enumerate().filter(|(_, worker)| worker.registered) {
                let probed = if worker.up { Probed::Ok } else { Probed::Refused };
                let change = self.homes[home].pool.probed(key_of(home, index), probed);
                better |= matches!(change, Some(HealthChange::Up | HealthChange::Readmitted));
            }
            better |= !self.homes[home].pool.readmit(self.now).is_empty();
            if better {
                self.pool_changed(home);
            }
        }
        self.at(PROBE_INTERVAL.max(self.plan.pace), Event::Probe);
    }

    fn pool_changed(&mut self, home: usize) {
        let now = self.now;
        for pipe in 0..self.drivers.len() {
            if !self.drivers[pipe].finished && self.drivers[pipe].home == home {
                let driver = &mut self.drivers[pipe];
                driver.round.pool_changed(driver.dials());
                driver.call(now, &mut self.marks, |it, now| it.pool_changed(now));
            }
        }
    }

    fn registers(&mut self, worker: usize) {
        if !std::mem::replace(&mut self.workers[worker].registered, true) {
            self.marks.hit(Mark::LateRegistration);
            for home in 0..self.homes.len() {
                self.introduce(home, worker);
                self.pool_changed(home);
            }
            self.settle_all();
        }
    }

    fn settle_all(&mut self) {
        for pipe in 0..self.drivers.len() {
            self.settle(pipe);
        }
    }
}
