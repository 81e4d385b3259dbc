//! Resume tokens: how a client proves that a pipe is its own (`hl1.<kid>.<payload>.<mac>`).
//!
//! Owns the keys that sign them, in a [`KeyRing`]: the first key signs, all of them verify, so that a rotation breaks no
//! token that is out. It knows no pipe and no socket: what a token has to say of the pipe, and whether it is the newest
//! one, is judged where the pipe is. Invariant: neither a key nor a token is ever in a log or an error, and on the wire
//! each [`BadToken`] has the same answer.
//!
//! ```text
//! let ring = process.resume_keys.load();                  // Process::resume_keys, swapped by a reload
//! let token: ResumeToken = ring.mint(&Claims { pipe, epoch, fence, generation, home, issued, expires, principal, place });
//! token.as_str()                                          // for `welcome` and `resumed`; Debug hides it
//! let claims: Claims = ring.verify(text, UnixTime::now())?;   // BadToken::{Malformed, UnknownKey, Forged, Expired}
//! request.principal()                                    // whom auth_url, or else its credentials, name: door::outcome
//! Place::of(host, path, subprotocol)                      // where the pipe was opened
//! process.limits.may_resume(address)?                     // before the 101, and before a token is looked at: 429
//! process.limits.resume_failed(address)                   // after each failure
//! ```
//!
//! In reading order: `claims` is what a token says and its bytes, `ring` signs and verifies, `keys_file` is the ring on
//! disk.

mod claims;
mod keys_file;
mod ring;
#[cfg(test)]
mod tests;

pub use claims::{Claims, Home, NodeName, Place, Principal, UnixTime};
pub use keys_file::{KeysError, KeysFile, new_file, rotate_file};
pub use ring::{BadToken, KEYS_MAX, KeyRing, ResumeToken, SKEW};
