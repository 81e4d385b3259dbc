//! `routes.resume = "cookie"`: how a browser that knows nothing of Holdline comes back to its pipe.
//!
//! Each pipe of a browser on one path has a cookie of its own, whose value is a resume token; there are [`SLOTS`] of them,
//! one for each tab that is open at once. A browser sends all of them with each handshake and does not say which tab
//! asks, so that a pipe is given back only where that can be told: when just one of the browser's pipes has lost its
//! client. A client that is still linked is asked by a ping first, because a link that died in a tunnel looks alive.
//!
//! Invariant: the pipe of a client that answers is never given to another; where two pipes wait, neither is given; and no
//! cookie of ours reaches a worker.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::future::join_all;
use holdline_core::ids::{Generation, PipeId};
use http::HeaderMap;
use http::header::{COOKIE, HeaderValue};
use tokio::sync::oneshot;

use super::Door;
use super::outcome::Request;
use crate::handshake::check::host;
use crate::handshake::refusal::Refusal;
use crate::pipes::{Command, PipeEntry};
use crate::resume::{BadToken, Claims, Home, KeyRing, Place, ResumeToken, UnixTime};

/// Pipes of one browser on one path that it can come back to.
pub const SLOTS: u8 = 4;

/// How long a cookie is good: the pipe that it is for seldom lives that long.
const COOKIE_LIFE: Duration = Duration::from_secs(30 * 86_400);

/// Cookies of one request that are looked at.
const COOKIES_MAX: usize = 16;

/// What the names of our cookies begin with; the number of the slot follows.
const PREFIX: &str = "holdline-resume-";

/// The place of one of a browser's cookies among the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot(u8);

/// The resume cookies of a request; their values are secrets.
#[derive(Default)]
pub struct Jar(Vec<(Slot, Box<str>)>);

impl std::fmt::Debug for Jar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Jar({})", self.0.len())
    }
}

impl Jar {
    /// The resume cookies in `headers`.
    #[must_use]
    pub fn look(headers: &HeaderMap) -> Self {
        let lines = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
        let pairs = lines.flat_map(|line| line.split(|&byte| byte == b';')).filter_map(ours);
        Self(pairs.take(COOKIES_MAX).collect())
    }

    /// The same, and takes them out.
    pub fn take(headers: &mut HeaderMap) -> Self {
        let jar = Self::look(headers);
        if !jar.0.is_empty() {
            let lines: Vec<_> = headers.get_all(COOKIE).iter().filter_map(without_ours).collect();
            headers.remove(COOKIE);
            for line in lines {
                headers.append(COOKIE, line);
            }
        }
        jar
    }

    /// What their tokens say that are good, and whether one was made by another than us.
    fn open(&self, ring: &KeyRing, now: UnixTime) -> (Vec<(Slot, Claims)>, bool) {
        let (mut good, mut forged) = (Vec::new(), false);
        for (slot, token) in &self.0 {
            match ring.verify(token, now) {
                Ok(claims) => good.push((*slot, claims)),
                // Those of another process before us are daily life.
                Err(BadToken::Malformed | BadToken::UnknownKey | BadToken::Expired) => {}
                Err(BadToken::Forged) => forged = true,
            }
        }
        (good, forged)
    }
}

/// A cookie of ours, if this is one.
fn ours(pair: &[u8]) -> Option<(Slot, Box<str>)> {
    let (name, value) = str::from_utf8(pair).ok()?.trim().split_once('=')?;
    let slot = name.strip_prefix(PREFIX)?.parse().ok().filter(|slot| (1..=SLOTS).contains(slot))?;
    Some((Slot(slot), value.into()))
}

/// A line of cookies without ours; nothing if that is all it has.
fn without_ours(line: &HeaderValue) -> Option<HeaderValue> {
    let kept: Vec<&[u8]> = line
        .as_bytes()
        .split(|&byte| byte == b';')
        .map(<[u8]>::trim_ascii)
        .filter(|pair| !pair.starts_with(PREFIX.as_bytes()))
        .collect();
    let line = kept.join(&b"; "[..]);
    if line.is_empty() { None } else { HeaderValue::from_bytes(&line).ok() }
}

/// The header that gives a browser its token, for requests of this path alone.
fn set_cookie(slot: Slot, token: &ResumeToken, path: &str, secure: bool) -> Option<HeaderValue> {
    // A semicolon would end the path; the token says where it is good anyway.
    let path = if path.contains(';') { "/" } else { path };
    let secure = if secure { "; Secure" } else { "" };
    let (number, token) = (slot.0, token.as_str());
    let cookie = format!("{PREFIX}{number}={token}; Path={path}; HttpOnly; SameSite=Strict{secure}");
    let mut cookie = HeaderValue::from_str(&cookie).ok()?;
    cookie.set_sensitive(true);
    Some(cookie)
}

/// What becomes of a browser.
pub(super) enum Returning {
    /// It goes back to this pipe, in the place of no other client than that of this attach.
    Back(Arc<PipeEntry>, Generation),
    /// It gets a new pipe, and a cookie in this slot, if one is free.
    New(Option<Slot>),
}

impl Door {
    /// Which pipe a browser comes back to, that would speak one of these subprotocols.
    ///
    /// # Errors
    /// Too many resumes of its address have failed.
    pub(super) async fn returning(&self, request: &Request, protocols: &[String]) -> Result<Returning, Refusal> {
        if request.jar.0.is_empty() {
            return Ok(Returning::New(Some(Slot(1))));
        }
        let (route, address) = (&request.found.route.name, request.client.address);
        self.process.limits.may_resume(address).map_err(|exceeded| self.exceeds(route, exceeded))?;
        let (good, forged) = request.jar.open(&self.process.resume_keys.load(), UnixTime::now());
        if forged {
            self.process.limits.resume_failed(address);
        }
        let pipes: Vec<_> =
            good.into_iter().filter_map(|(slot, claims)| Some((slot, self.own_pipe(request, &claims)?))).collect();
        let patience = self.process.config.load().resume.probe_timeout;
        let asked = pipes.iter().map(|(_, pipe)| has_lost_its_client(pipe, patience));
        let lost = join_all(asked).await.into_iter().zip(&pipes).filter_map(|(lost, (_, pipe))| Some((lost?, pipe)));
        let speaks = |pipe: &PipeEntry| match &pipe.protocol {
            Some(spoken) => protocols.iter().any(|offer| **offer == **spoken),
            None => true,
        };
        let mut waiting = lost.filter(|(_, pipe)| speaks(pipe) && pipe.awaits_client());
        if let (Some((generation, pipe)), None) = (waiting.next(), waiting.next()) {
            return Ok(Returning::Back(pipe.clone(), generation));
        }
        let free = (1..=SLOTS).map(Slot).find(|free| pipes.iter().all(|(slot, _)| slot != free));
        Ok(Returning::New(free))
    }

    /// Whether a pipe without a client waits for a browser with these cookies, as far as can be seen at once.
    pub(super) fn is_browser_awaited(&self, headers: &HeaderMap) -> bool {
        let (good, _) = Jar::look(headers).open(&self.process.resume_keys.load(), UnixTime::now());
        let waits = |pipe: Arc<PipeEntry>| pipe.awaits_client() && !pipe.has_client();
        good.iter().any(|(_, claims)| self.process.pipes.get(claims.pipe).is_some_and(waits))
    }

    /// The live pipe that a token is for, if it was opened by such a request.
    fn own_pipe(&self, request: &Request, claims: &Claims) -> Option<Arc<PipeEntry>> {
        let pipe = self.process.pipes.get(claims.pipe).filter(|pipe| pipe.awaits_client())?;
        let is_own = pipe.route.name == request.found.route.name
            && pipe.key.as_deref() == request.found.key.as_deref()
            && claims.place == place(request, pipe.protocol.as_deref())
            && claims.principal == request.principal();
        is_own.then_some(pipe)
    }

    /// The cookie for the client of a pipe that opens now.
    pub(super) fn resume_cookie(
        &self,
        request: &Request,
        slot: Slot,
        pipe: PipeId,
        protocol: Option<&str>,
    ) -> Option<HeaderValue> {
        let issued = UnixTime::now();
        let token = self.process.resume_keys.load().mint(&Claims {
            pipe,
            epoch: 0,
            fence: 0,
            generation: Generation::FIRST,
            home: Home::default(),
            issued,
            expires: issued.plus(COOKIE_LIFE),
            principal: request.principal(),
            place: place(request, protocol),
        });
        set_cookie(slot, &token, request.parts.uri.path(), request.client.https)
    }
}

fn place(request: &Request, protocol: Option<&str>) -> Place {
    Place::of(host(&request.parts), request.parts.uri.path(), protocol)
}

/// The attach whose client the pipe has lost, which is so too when that client answers nothing within `patience`.
async fn has_lost_its_client(pipe: &PipeEntry, patience: Duration) -> Option<Generation> {
    let generation = Generation(pipe.generation.load(Relaxed));
    if !pipe.has_client() {
        return Some(generation);
    }
    let (answer, answered) = oneshot::channel();
    if !pipe.order(Command::Probe(answer)) {
        // One with so many orders is busy with its client.
        return None;
    }
    match tokio::time::timeout(patience, answered).await {
        Ok(Ok(())) => None,
        Ok(Err(_)) | Err(_) => Some(generation),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resume::{NodeName, Principal};

    fn headers(lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (COOKIE, line.parse().unwrap())).collect()
    }

    #[test]
    fn our_cookies_are_taken_out_and_the_others_stay() {
        let mut sent = headers(&["a=1; holdline-resume-2=x.y; b=2", "holdline-resume-1=z", "c=\"q;\""]);
        let jar = Jar::take(&mut sent);
        let seen: Vec<_> = jar.0.iter().map(|(slot, token)| (slot.0, &**token)).collect();
        assert_eq!(seen, [(2, "x.y"), (1, "z")]);
        let left: Vec<_> = sent.get_all(COOKIE).iter().map(|line| line.to_str().unwrap()).collect();
        assert_eq!(left, ["a=1; b=2", "c=\"q; \""]);
        let mut none = headers(&["a=1;b=2"]);
        assert!(Jar::take(&mut none).0.is_empty());
        assert_eq!(none[COOKIE], "a=1;b=2", "what is not ours is not touched");
    }

    #[test]
    fn what_is_no_slot_is_no_cookie_of_ours_and_their_number_is_bounded() {
        assert!(Jar::look(&headers(&["holdline-resume-0=a; holdline-resume-5=a; holdline-resume-x=a"])).0.is_empty());
        let many = "holdline-resume-1=a; ".repeat(100);
        assert_eq!(Jar::look(&headers(&[&many])).0.len(), COOKIES_MAX);
    }

    #[test]
    fn a_cookie_is_for_its_path_and_for_no_script() {
        let claims = Claims {
            pipe: PipeId::from_bytes([1; 16]),
            epoch: 0,
            fence: 0,
            generation: Generation::FIRST,
            home: Home { node: NodeName::default(), incarnation: 0 },
            issued: UnixTime { ms: 0 },
            expires: UnixTime { ms: 1000 },
            principal: Principal::of([]),
            place: Place::of(None, "/ws", None),
        };
        let ring = KeyRing::random();
        let token = ring.mint(&claims);
        let cookie = set_cookie(Slot(3), &token, "/ws", true).unwrap();
        let text = cookie.to_str().unwrap();
        assert!(text.ends_with("; Path=/ws; HttpOnly; SameSite=Strict; Secure"), "{text}");
        assert!(!format!("{cookie:?}").contains(token.as_str()), "it is shown nowhere");
        assert!(set_cookie(Slot(3), &token, "/a;b", false).unwrap().to_str().unwrap().contains("; Path=/; HttpOnly"));
        let jar = Jar::look(&headers(&[text.split(';').next().unwrap()]));
        assert_eq!(jar.open(&ring, UnixTime { ms: 0 }), (vec![(Slot(3), claims)], false));
        let other = KeyRing::random();
        assert_eq!(jar.open(&other, UnixTime { ms: 0 }), (vec![], false), "of a process before us");
        let (signed, _) = token.as_str().rsplit_once('.').unwrap();
        let forged = format!("{PREFIX}1={signed}.AAAA");
        assert_eq!(Jar::look(&headers(&[&forged])).open(&ring, UnixTime { ms: 0 }), (vec![], true));
    }
}
