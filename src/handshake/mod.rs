//! Both ends of an upgrade: what a client may ask, what a backend is told, and what each must answer.
//!
//! Reading order: [`check`] judges a client's request, [`forward`] makes the headers of the backend leg, [`dial`]
//! upgrades the backend, [`accept`] answers the client, [`refusal`] is every "no" in one form.

pub mod accept;
pub mod check;
pub mod dial;
pub mod forward;
pub mod refusal;
