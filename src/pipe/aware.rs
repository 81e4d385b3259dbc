//! What the process adds to the aware protocol: the tokens by which its clients come back, and the words that reject one.

use std::time::Duration;

use holdline_core::aware::{Reject, Said, codes};
use holdline_core::close::CloseFrame;
use holdline_core::frame::{self, Opcode};
use holdline_core::ids::{Generation, PipeId};
use holdline_core::pipe::Introduction;

use crate::process::Process;
use crate::resume::{Claims, Home, Place, Principal, ResumeToken, UnixTime};

/// How long a token is good by its own words. How long its pipe waits for the client is `resume.grace`, counted by the
/// pipe's own clock; this only bounds what a token that was copied long ago is worth.
const TOKEN_LIFE: Duration = Duration::from_secs(30 * 86_400);

/// The epoch of each pipe: in one process nothing is lost that would begin another.
const EPOCH: u64 = 1;

/// The fence of each pipe: no other process can own it.
const FENCE: u64 = 1;

/// Who a new pipe is to its client, which has these credentials and came here.
#[must_use]
pub fn introduction(process: &Process, pipe: PipeId, principal: Principal, place: Place) -> Introduction {
    let issued = UnixTime::now();
    let token = process.resume_keys.load().mint(&Claims {
        pipe,
        epoch: EPOCH,
        fence: FENCE,
        generation: Generation::FIRST,
        home: Home::default(),
        issued,
        expires: issued.plus(TOKEN_LIFE),
        principal,
        place,
    });
    Introduction { id: pipe, epoch: EPOCH, token: token.as_str().to_owned() }
}

/// The token of the attach `generation`, for the client that has shown `claims`.
#[must_use]
pub fn next_token(process: &Process, claims: &Claims, generation: Generation) -> ResumeToken {
    let issued = UnixTime::now();
    let expires = issued.plus(TOKEN_LIFE);
    process.resume_keys.load().mint(&Claims { generation, issued, expires, ..claims.clone() })
}

/// What a client is told that may not go on.
#[must_use]
pub fn rejection(why: Reject) -> Vec<u8> {
    let mut words = Vec::new();
    frame::encode(&mut words, Opcode::Text, Said::Reject(why).text().as_bytes(), None);
    frame::encode(&mut words, Opcode::Close, &CloseFrame::new(codes::REJECTED, why.as_str()).payload(), None);
    words
}
