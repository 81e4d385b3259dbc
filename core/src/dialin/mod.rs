//! Workers that dial in: behind a NAT, they cannot be dialled, so they park connections in advance and each dial takes one.
//!
//! [`parking`] is the proxy's side: who is given which connection, who waits, how many are wanted. [`keeping`] is that of
//! the agent beside the worker: how many to open, and when after a failure.

pub mod keeping;
pub mod parking;
