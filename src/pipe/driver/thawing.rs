//! How a pipe that has come from another process begins here.
//!
//! First it is looked at as a whole ([`Thawed::new`]): the other process keeps what is refused. Then, once the other
//! process has given it up, it begins on a thread of its own ([`Thawed::begin`]). Invariant: until then nothing of it is
//! in any list, and its sockets are not touched.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use holdline_core::conversation::ConversationKind;
use holdline_core::ids::{Attachment, BackendKey, Generation, PipeId};
use holdline_core::pipe::{LinkLoss, Peer, Pipe};
use holdline_core::settings::PipeSettings;
use holdline_core::snapshot::Snapshot;
use holdline_core::time::Time;
use socket2::{Domain, SockRef};

use super::Driver;
use crate::clients::ClientName;
use crate::limits::Scope;
use crate::metrics::labels::ListenerLabel;
use crate::net::{BackendStream, ClientStream};
use crate::pipe::alarm::Alarm;
use crate::pipe::attach::Plan;
use crate::pipe::backend_end::{BackendEnd, Transport};
use crate::pipe::books::{Books, Guards};
use crate::pipe::client_end::{Away, ClientEnd, ClientLink};
use crate::pipe::link::Link;
use crate::pipe::report::Reporter;
use crate::pipe::search::Search;
use crate::pipes::passport::{Carried, LivesBy, Passport, Past};
use crate::pipes::{Decided, PipeFacts, Sharing};
use crate::process::Process;
use crate::routes::Route;

/// A pipe that has come from another process, and has not begun.
pub struct Thawed {
    pipe: Pipe,
    plan: Arc<Plan>,
    passport: Passport,
    client: Option<Carried>,
    backend: Option<Carried>,
}

/// What came of a pipe.
pub struct Arrived {
    /// What goes with its snapshot.
    pub passport: Passport,
    /// The snapshot.
    pub snapshot: Vec<u8>,
    /// Its client's headers.
    pub head_lines: Box<[u8]>,
    /// Its client's socket.
    pub client: Option<Carried>,
    /// Its worker's socket.
    pub backend: Option<Carried>,
}

impl Thawed {
    /// Looks at what has come of a pipe.
    ///
    /// # Errors
    /// Why it cannot go on here.
    pub fn new(arrived: Arrived, process: &Process) -> Result<Self, String> {
        let Arrived { passport, snapshot, head_lines, client, backend } = arrived;
        let pipe = PipeId::parse(&passport.pipe).ok_or("its id is none")?;
        let rules = process.rules.load();
        let route = rules.routes.named(&passport.route);
        let route = route.ok_or_else(|| format!("there is no route {:?} here", passport.route))?;
        let settings = settings(route, passport.settings).ok_or("its route gives clients no names here")?;
        let comes_along = passport.client.as_ref().is_some_and(|client| client.inode.is_some());
        demand_socket("client", comes_along, client.as_ref())?;
        let comes_along = passport.backend.as_ref().is_some_and(|backend| backend.inode.is_some());
        demand_socket("worker", comes_along, backend.as_ref())?;
        let snapshot = Snapshot::from_bytes(snapshot).map_err(|error| error.to_string())?;
        let (seed, frozen_at) = (rand::random(), Time::from_micros(passport.frozen_at));
        let restored = Pipe::restore(&snapshot, settings.clone(), seed, frozen_at);
        let plan = Plan {
            pipe,
            route: route.clone(),
            settings: settings.clone(),
            key: passport.key.clone(),
            target: passport.target.clone(),
            host: passport.host.clone(),
            announced: passport.announced,
            head_lines,
            protocols: passport.protocols.clone(),
            protocol: passport.protocol.clone(),
            numbers: passport.numbers,
            compression: passport.asked,
            // Its handshake was recorded by another process.
            trace: None,
        };
        let pipe = restored.map_err(|error| error.to_string())?;
        Ok(Self { pipe, plan: Arc::new(plan), passport, client, backend })
    }

    /// When it was frozen.
    #[must_use]
    pub fn frozen_at(&self) -> Time {
        Time::from_micros(self.passport.frozen_at)
    }

    /// Goes on with it on this thread. A link that cannot be taken up is lost, as one that has died.
    #[must_use]
    pub fn begin(self, process: &Arc<Process>) -> Box<Driver> {
        let Self { mut pipe, plan, passport, client, backend } = self;
        let now = process.clock.now();
        pipe.rename_backends(|key| process.backends.key_of_other(key));
        let registration = process.pipes.adopt(facts(&plan, &passport), &passport.past);
        registration.label(pipe.labels());
        let entry = registration.entry();
        if let Some(decided) = decided(&passport.past) {
            entry.set_conversation(decided);
        }
        let report = Reporter::resume(process, entry, &pipe.view(), &passport.past);
        let guards = Some(guards(process, &plan, &passport, entry));
        let mut driver = Box::new(Driver {
            pipe,
            client: ClientEnd::new(),
            backend: BackendEnd::default(),
            search: Search::default(),
            alarm: Alarm::default(),
            plan,
            process: process.clone(),
            handing: None,
            books: Books { report, registration, guards },
        });
        driver.resume_backend(&passport, backend, now);
        driver.resume_client(&passport, client, now);
        driver
    }
}

impl Driver {
    fn resume_backend(&mut self, passport: &Passport, carried: Option<Carried>, now: Time) {
        if let Some((key, id)) = &passport.last {
            self.backend.set_last(self.process.backends.key_of_other(BackendKey(*key)), id.clone());
        }
        let Some(link) = &passport.backend else {
            // It may wait for its pool to change, which that may have done on the way here.
            self.search.watch(&self.process.backends, &self.plan.route.pool);
            return self.pipe.pool_changed(now);
        };
        let key = self.process.backends.key_of_other(BackendKey(link.key));
        let place = carried.and_then(|carried| {
            let route_key = self.plan.key_to_ask(&self.process.backends);
            let reservation = self.process.backends.occupy(key, route_key)?;
            let stream = backend_stream(carried.socket).ok()?;
            Some(Transport::Worker(Link::new(stream, carried.unread), reservation))
        });
        match place {
            Some(transport) => {
                self.set_backend(Attachment(link.attachment), transport, now);
                self.backend.resume(link);
            }
            None => self.pipe.lost(Peer::Backend(Attachment(link.attachment)), LinkLoss::Reset, now),
        }
    }

    fn resume_client(&mut self, passport: &Passport, carried: Option<Carried>, now: Time) {
        let Some(link) = &passport.client else { return self.await_client() };
        let stream = carried.map(|Carried { socket, unread }| Ok::<_, io::Error>((client_stream(socket)?, unread)));
        let client = match stream.transpose() {
            Ok(stream) => stream.map(|(stream, unread)| ClientLink::socket(stream, unread)),
            Err(error) => {
                tracing::warn!(pipe = %self.entry().id, %error, "a client's socket could not be taken up");
                None
            }
        };
        let is_there = client.is_some();
        if let Some(client) = &client {
            self.entry().set_transport(client.transport());
        }
        self.client.resume(client, link);
        if !is_there {
            self.pipe.lost(Peer::Client(Generation(link.generation)), LinkLoss::Reset, now);
            self.await_client();
        }
    }
}

impl Driver {
    /// Notes that the client is away, if it may come back.
    fn await_client(&mut self) {
        if self.pipe.awaits_client() {
            let absent = self.process.metrics.absent(ListenerLabel::Public);
            let stay = self.linger();
            self.client.await_client(Away { absent, stay });
        }
    }
}

fn settings(route: &Route, by: LivesBy) -> Option<&Arc<PipeSettings>> {
    match by {
        LivesBy::Route => Some(&route.settings),
        LivesBy::Named => route.identity.as_ref().map(|identity| &identity.settings),
        LivesBy::Aware => Some(&route.aware),
    }
}

fn demand_socket(whose: &str, wanted: bool, carried: Option<&Carried>) -> Result<(), String> {
    match (wanted, carried.is_some()) {
        (true, true) | (false, false) => Ok(()),
        (true, false) => Err(format!("the socket of its {whose} is missing")),
        (false, true) => Err(format!("there is a socket of a {whose} that it does not have")),
    }
}

fn facts(plan: &Plan, passport: &Passport) -> PipeFacts {
    PipeFacts {
        id: plan.pipe,
        route: plan.route.clone(),
        key: plan.key.clone(),
        client: passport.address.clone(),
        named: passport.settings != LivesBy::Route,
        protocol: plan.protocol.clone(),
        aware: passport.aware,
        compression: passport.compression,
        sharing: Sharing::Alone,
        request_id: passport.request_id.clone().into(),
    }
}

fn guards(process: &Arc<Process>, plan: &Plan, passport: &Passport, entry: &Arc<crate::pipes::PipeEntry>) -> Guards {
    let route = &plan.route;
    let name = passport.name.map(|digest| process.clients.resume(ClientName::from_digest(digest), entry.clone()));
    let scope = Scope { route: &route.name, own: &route.limits };
    let admission = match passport.address.parse::<IpAddr>() {
        Ok(address) => process.limits.readmit(route.limited_key(plan.key.as_deref()), address, scope),
        Err(_) => Default::default(),
    };
    Guards {
        name: name.map(Box::new),
        slot: process.slots.take(),
        admission,
        connection: process.metrics.kept_connection(ListenerLabel::Public),
    }
}

fn decided(past: &Past) -> Option<Decided> {
    use ConversationKind::{Profile, Stateful, Stateless, Undecided};
    let (name, profile, why) = past.conversation.clone()?;
    let kind = [Undecided, Stateless, Profile, Stateful].into_iter().find(|kind| kind.as_str() == &*name)?;
    Some(Decided { kind, profile, why: String::from(why).into() })
}

fn is_unix(socket: &OwnedFd) -> io::Result<bool> {
    SockRef::from(socket).domain().map(|domain| domain == Domain::UNIX)
}

fn client_stream(socket: OwnedFd) -> io::Result<ClientStream> {
    if is_unix(&socket)? {
        return tokio::net::UnixStream::from_std(socket.into()).map(Into::into);
    }
    tokio::net::TcpStream::from_std(socket.into()).map(Into::into)
}

fn backend_stream(socket: OwnedFd) -> io::Result<BackendStream> {
    if is_unix(&socket)? {
        return tokio::net::UnixStream::from_std(socket.into()).map(BackendStream::Unix);
    }
    tokio::net::TcpStream::from_std(socket.into()).map(BackendStream::Tcp)
}
