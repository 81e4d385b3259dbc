//! Both ends of an upgrade: what a client may ask, what a backend is told, and what each must answer.
//!
//! Reading order: [`check`] judges a client's request, [`aware`] what it offers of ours, [`client_address`] says who asks, [`forward`] makes the headers of the backend leg, [`dial`]
//! upgrades the backend, [`deflate`] is what both agree on, [`accept`] answers the client, [`refusal`] is every "no" in one form.

pub mod accept;
pub mod aware;
pub mod check;
pub mod client_address;
#[cfg(test)]
mod cost;
pub mod deflate;
pub mod dial;
pub mod forward;
pub mod refusal;

pub use crate::net::Peer;
