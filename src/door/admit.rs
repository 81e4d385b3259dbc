//! A handshake that is good, let in: to the pipe that its client left, or to a new one, whose worker is found first.
//!
//! Invariant: a client is answered only after a worker has answered us, so that the worker's own refusal reaches it; and
//! its pipe is in every list and metric before it is answered.

use std::sync::Arc;

use holdline_core::conversation::Conversation;
use holdline_core::ids::{BackendKey, Generation, PipeId};
use holdline_core::labels::{LabelError, Labels};
use holdline_core::memory::Pressure;
use holdline_core::settings::ReplayPolicy;
use http::StatusCode;
use http::header::SET_COOKIE;
use http::request::Parts;

use super::Door;
use super::cookie::{Returning, Slot};
use super::judge::busy;
use super::outcome::{Opened, Refused, Request, Verdict};
use super::share::join_or_open;
use crate::clients::{Claim, ClientName};
use crate::events::Fact;
use crate::handshake::aware::Offer;
use crate::handshake::check::host;
use crate::handshake::deflate::{Asked, Compression, Offer as Compressible};
use crate::handshake::forward::{changed_lines, upgrade_head_lines};
use crate::handshake::refusal::Refusal;
use crate::metrics::labels::{ConnectionResult, ListenerLabel, ResumeResult, Transport};
use crate::phase::Phase;
use crate::pipe::attach::{FirstAttach, NoWorker, Plan, first_attach};
use crate::pipe::{Driver, introduction};
use crate::pipes::{Command, PipeEntry, PipeFacts, Resume, Sharing, TAKEOVER_WINDOW, TAKEOVERS_MAX};
use crate::process::Process;
use crate::resume::Place;
use crate::routes::{Duplicate, Route, Uncompressed};
use crate::share::StreamKey;

impl Door {
    /// Lets the client of `request`, which offers these subprotocols, in.
    ///
    /// # Errors
    /// Why it stays outside.
    pub(super) async fn admit(
        &self,
        request: &mut Request,
        protocols: &[String],
        over: bool,
    ) -> Result<Verdict, Refused> {
        if !request.found.route.allows_origin(&request.parts.headers) {
            let detail = "this origin may not open a WebSocket here; see routes.origins";
            return Err(Refusal::new(StatusCode::FORBIDDEN, "origin", detail).into());
        }
        let offer = Offer::of(protocols);
        if let Some(verdict) = self.greet(request, &offer, || resume_of(request, 0))? {
            return Ok(verdict);
        }
        let protocols = offer.apps.as_slice();
        // One that numbers its messages has its pipe by a token, whatever else its route knows clients by.
        let numbers = offer.first_aware().is_some();
        let claim = match request.client_name().filter(|_| !numbers) {
            Some(name) => match self.claim(name).await? {
                Ok(claim) => Some(Box::new(claim)),
                Err(pipe) => return Ok(self.resume(request, protocols, pipe, None)?),
            },
            None => None,
        };
        let slot = match self.browser(request, protocols, numbers).await? {
            Returning::Back(pipe, generation) => {
                return Ok(self.resume(request, protocols, pipe, Some(generation))?);
            }
            Returning::New(slot) => slot,
        };
        if over {
            return Err(busy("too many connections").into());
        }
        request.found.comes_back |= slot.is_some();
        Ok(Verdict::Open(self.open(request, &offer, claim, slot).await?))
    }

    /// Which pipe the client comes back to, where its route knows browsers again.
    async fn browser(&self, request: &Request, protocols: &[String], numbers: bool) -> Result<Returning, Refusal> {
        if request.found.route.knows_browsers() && !numbers {
            self.returning(request, protocols).await
        } else {
            Ok(Returning::New(None))
        }
    }

    /// The client's name, or the pipe that it left; waits for another client of that name no longer than for a
    /// handshake.
    async fn claim(&self, name: ClientName) -> Result<Result<Claim, Arc<PipeEntry>>, Refusal> {
        let patience = self.process.rules.load().handshake_timeout;
        let claimed = tokio::time::timeout(patience, self.process.clients.claim(name)).await;
        claimed.map_err(|_| busy("another connection of this client is being opened"))
    }

    /// Sends the client back to the pipe that it left. It is answered by the thread that accepted it, and its link goes
    /// to the pipe's own thread; a pipe that has ended in between tells it so.
    /// If `over` is given, it replaces no other client than that of this attach.
    fn resume(
        &self,
        request: &Request,
        protocols: &[String],
        pipe: Arc<PipeEntry>,
        over: Option<Generation>,
    ) -> Result<Verdict, Refusal> {
        if self.process.phase.get() == Phase::Stopping {
            return Err(busy("going away; another instance may take this"));
        }
        let route = &request.found.route;
        let rejects = route.identity.as_ref().is_some_and(|it| it.duplicate == Duplicate::Reject);
        let conflict = if rejects && pipe.has_client() {
            Some(("duplicate", "this client is connected already; see routes.duplicate"))
        } else if pipe.protocol.as_ref().is_some_and(|spoken| !protocols.iter().any(|offer| **offer == **spoken)) {
            Some(("subprotocol", "the subprotocol of this client's open conversation is not among those offered"))
        } else if !may_compress_as(request, pipe.compression) {
            Some(("compression", "this client's open conversation is compressed in a way that is not offered"))
        } else {
            None
        };
        if let Some((slug, detail)) = conflict {
            self.process.metrics.route(&route.name).resume(Transport::Websocket, ResumeResult::Rejected).inc();
            return Err(Refusal::new(StatusCode::CONFLICT, slug, detail));
        }
        // A browser's tabs are told apart before.
        if over.is_none() && pipe.has_client() {
            self.may_take_over(&pipe)?;
        }
        let resume = Resume { over, ..resume_of(request, pipe.next_answer()) };
        Ok(Verdict::Resume(pipe, Box::new(resume)))
    }

    /// Whether a client may take the place of another connection of its name: not where the two do so over and over.
    fn may_take_over(&self, pipe: &PipeEntry) -> Result<(), Refusal> {
        let Err(taken) = pipe.takeovers.take(self.process.clock.now()) else { return Ok(()) };
        let route = pipe.route.name.as_str();
        self.process.metrics.route(route).resume(Transport::Websocket, ResumeResult::Taken).inc();
        if taken.is_first {
            tracing::warn!(pipe = %pipe.id, route, "pipe.client_taken");
            self.process.events.push(Fact::ClientTaken { pipe: pipe.id, route: route.into() });
        }
        let detail = format!(
            "connections of this client have replaced each other {TAKEOVERS_MAX} times within {}s, as two tabs with one \
             name do that both connect again; give each a name of its own (routes.client_id), or tell the client not to \
             connect again when it is closed as replaced (routes.replaced_code)",
            TAKEOVER_WINDOW.as_secs()
        );
        Err(Refusal::new(StatusCode::CONFLICT, "taken", detail).retry_after(taken.wait))
    }

    /// Opens a pipe, under the name that was claimed for it, or with a cookie in this slot, if there is one.
    async fn open(
        &self,
        request: &mut Request,
        offer: &Offer,
        mut claim: Option<Box<Claim>>,
        slot: Option<Slot>,
    ) -> Result<Opened, Refused> {
        let process = &self.process;
        // Before the phase is looked at, so that a stop either is seen here or waits for this.
        let expected = process.pipes.expect();
        self.may_open()?;
        let labels = process.pipes.labels.bounds();
        let labels = Labels::default().changed(&request.found.labels, labels).map_err(too_many_labels)?;
        let admitted = process.limits.admit(request.found.limited_key(), request.client.address, request.scope());
        let admitted = admitted.map_err(|exceeded| self.exceeds(&request.found.route.name, exceeded))?;
        let offered = offered(request, offer);
        let mut plan = plan(request, &offer.apps, Asked::first(offered));
        let had_before = self.had_before(request);
        request.note("holdline.pipe", plan.pipe.to_string().as_str());
        let (mut first, sharing) = find_worker(&plan, had_before, request.parts.uri.path(), process).await?;
        request.found.route.answer_headers.apply(&mut first.headers);
        self.keep_at(request, had_before, &mut first);
        if let Some(standing) = admitted.standing {
            standing.say(&mut first.headers);
        }
        plan.protocol = first.protocol.map(String::into_boxed_str);
        plan.numbers = first.attach.numbers;
        let compression = Compression::of(offered, first.compression);
        plan.compression = compression.to_ask();
        let cookie = slot.and_then(|slot| self.resume_cookie(request, slot, plan.pipe, plan.protocol.as_deref()));
        if let Some(cookie) = cookie {
            first.headers.append(SET_COOKIE, cookie);
        }
        let spoken = offer.spoken(plan.protocol.as_deref()).map(Box::from);
        if spoken.is_some() {
            plan.settings = plan.route.aware.clone();
        }
        let path = request.parts.uri.path();
        let place = spoken.is_some().then(|| Place::of(plan.host.as_deref(), path, plan.protocol.as_deref()));
        let facts = facts(request, &plan, spoken.is_some(), compression, sharing);
        let decided = decided(&plan, &facts.sharing, &request.parts);
        let said = first.attach.labels.take();
        let mut driver = Driver::new(first.attach, Arc::new(plan), facts, process.clone());
        driver.set_labels(labels);
        driver.heed_labels(said);
        if let Some(place) = place {
            let principal = request.principal();
            let pipe = driver.entry().id;
            driver.expect_hello(introduction(process, pipe, principal, place));
        }
        if let Some((conversation, why)) = decided {
            driver.converse(conversation, why);
        }
        drop(expected);
        if process.phase.get() == Phase::Stopping {
            // The clients may have been told before this one was there.
            driver.order(Command::going_away());
        }
        if let Some(claim) = &mut claim {
            claim.opened(driver.entry().clone());
        }
        Ok(Opened { driver, claim, admission: admitted.admission, spoken, headers: first.headers })
    }

    /// The worker that the client says it had, where its route keeps clients at theirs.
    fn had_before(&self, request: &Request) -> Option<BackendKey> {
        let route = &request.found.route;
        let headers = &request.parts.headers;
        if route.sticky { self.process.backends.had_before(&route.pool, headers) } else { None }
    }

    /// Has the client come back to the worker that it has got, where its route wants that.
    fn keep_at(&self, request: &Request, before: Option<BackendKey>, first: &mut FirstAttach) {
        let (route, backend) = (&request.found.route, first.attach.transport.key());
        if route.sticky
            && before != Some(backend)
            && let Some(cookie) = self.process.backends.sticky_cookie(&route.pool, backend, request.client.https)
        {
            first.headers.append(SET_COOKIE, cookie);
        }
    }

    /// Whether the process takes new pipes now.
    fn may_open(&self) -> Result<(), Refusal> {
        if !self.process.phase.takes_pipes() || !self.process.upgrade.takes_pipes() {
            return Err(busy("going away; another instance may take this"));
        }
        if self.process.memory.pressure() > Pressure::Low {
            self.process.metrics.connection_result(ListenerLabel::Public, ConnectionResult::Refused);
            return Err(busy("memory is short"));
        }
        Ok(())
    }
}

/// What a client that comes back has that may be another than before; `answer` is its place among the pipe's clients.
fn resume_of(request: &Request, answer: u64) -> Resume {
    Resume {
        answer,
        over: None,
        client: request.client.announced(),
        target: request.found.target.clone(),
        host: host(&request.parts).map(Box::from),
        head_lines: head_lines(request),
    }
}

/// 400: what the route makes of the request are more labels than a pipe may have.
fn too_many_labels(error: LabelError) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "label", format!("this route makes labels of what you send: {error}"))
}

/// The client's headers as workers get them.
fn head_lines(request: &Request) -> Box<[u8]> {
    let lines = upgrade_head_lines(&request.parts, &request.client);
    changed_lines(lines, &request.found.route.request_headers)
}

/// What its workers may be told of the compression that the client offers.
fn offered(request: &Request, offer: &Offer) -> Result<Compressible, Uncompressed> {
    if offer.first_aware().is_some() {
        return Err(Uncompressed::Numbered);
    }
    request.found.route.may_compress(&offer.apps, &request.parts)?;
    Compressible::of(&request.parts.headers).ok_or(Uncompressed::Client)
}

/// Whether a client that comes back can go on as its pipe was agreed to be compressed.
fn may_compress_as(request: &Request, compression: Compression) -> bool {
    let offer = || Compressible::of(&request.parts.headers);
    compression.agreed().is_none_or(|agreed| offer().is_some_and(|offer| offer.allows(agreed)))
}

fn plan(request: &Request, protocols: &[String], compression: Asked) -> Plan {
    let found = &request.found;
    let settings = found.settings();
    let is_read = found.route.conversations.may_be_read(protocols, &request.parts, &settings.profiles);
    Plan {
        numbers: found.route.share.is_none() && !is_read && settings.replay != ReplayPolicy::None,
        pipe: PipeId::from_bytes(rand::random()),
        settings: found.settings().clone(),
        route: found.route.clone(),
        key: found.key.as_deref().map(Arc::from),
        target: found.target.clone(),
        host: host(&request.parts).map(Box::from),
        announced: Some(request.client.announced()),
        head_lines: head_lines(request),
        protocols: protocols.into(),
        protocol: None,
        compression,
        trace: request.span.as_ref().map(|span| Box::new(span.context())),
    }
}

fn facts(request: &Request, plan: &Plan, aware: bool, compression: Compression, sharing: Sharing) -> PipeFacts {
    PipeFacts {
        id: plan.pipe,
        route: plan.route.clone(),
        key: plan.key.clone(),
        client: request.client.address_text(),
        named: request.found.comes_back || aware,
        aware,
        protocol: plan.protocol.clone(),
        compression,
        sharing,
        request_id: request.client.request_id.clone(),
    }
}

/// What kind of conversation begins, and what that is known by. To a worker that numbers its messages nothing is said again,
/// though it may be one that its pipes stay with; those that are shared are told apart elsewhere.
fn decided(plan: &Plan, sharing: &Sharing, parts: &Parts) -> Option<(Conversation, &'static str)> {
    if !matches!(sharing, Sharing::Alone) {
        return None;
    }
    let decided = plan.route.conversations.decide(plan.protocol.as_deref(), parts, &plan.settings);
    (!plan.numbers || matches!(decided.0, Conversation::Stateful { .. })).then_some(decided)
}

/// A worker for a pipe of its own, or a place in the stream that it shares.
async fn find_worker(
    plan: &Plan,
    had_before: Option<BackendKey>,
    path: &str,
    process: &Arc<Process>,
) -> Result<(FirstAttach, Sharing), Refused> {
    let Some(share) = &plan.route.share else {
        let first =
            first_attach(plan, had_before, process).await.map_err(|none| refuse_workerless(none, &plan.route))?;
        return Ok((first, Sharing::Alone));
    };
    let key = StreamKey::new(&plan.route, plan.key.clone(), &plan.target, path);
    let joined = join_or_open(plan, share, key, process).await?;
    Ok((joined.first, Sharing::Viewer(joined.hub.pipe.clone())))
}

/// What a client is told for whom there is no worker: the worker's own refusal as it is, or ours.
pub(super) fn refuse_workerless(none: NoWorker, route: &Route) -> Refused {
    match none {
        NoWorker::NoCandidate(none) => Refusal::no_backend(&route.pool, &none).into(),
        NoWorker::Dial(error) => match error.into() {
            Refused::Workers(mut answer) => {
                route.answer_headers.apply(&mut answer.headers);
                Refused::Workers(answer)
            }
            others @ (Refused::Ours(_) | Refused::Denied(_)) => others,
        },
    }
}
