//! `holdline demo`: the main job, shown from outside. A proxy process, worker processes and clients; workers are killed
//! (SIGKILL) and drained (SIGTERM, or over the admin API) all the while, and at the end everything is counted.
//!
//! The invariant: the verdict rests on what the two ends saw, not on what the proxy says. Every executed command is in a
//! journal file that outlives its worker, every client knows what it sent and got; the proxy's own numbers serve as
//! the bound on duplicates and as one more witness. The workers read a command only when the last one is executed, so
//! that the pong that confirms a message means that it was executed (the table of confirm levels says why that matters).
//!
//! `--json` prints one object on stdout:
//!
//! | field | is |
//! |---|---|
//! | `verdict` | `"kept"` or `"broken"`; the exit code is 0 or 1 |
//! | `broken` | the broken promises, a sentence each |
//! | `sent`, `received` | commands sent; commands executed, each counted once |
//! | `lost.up`, `lost.down` | commands executed nowhere; answers and video frames that did not arrive whole |
//! | `duplicated`, `in_doubt` | executions beyond the first, which may be as many as the proxy had in doubt |
//! | `out_of_order` | commands executed after a later one of the same attachment |
//! | `frames` | video frames that arrived whole, their SHA-256 checked |
//! | `interruptions`, `kills`, `drains` | times that a pipe lost its worker; workers killed; workers drained |
//! | `reattach_ms.p50`, `.p99`, `.max` | from losing a worker to having the next, as the proxy's events say; null without any |
//! | `client_closes` | client sockets that closed before the end |
//! | `workers`, `clients`, `seconds` | what was run, and for how long clients sent |
//!
//! Read [`verdict`] (what is promised), [`run`] (the story), `clients` (by TLS with a `certificate` of its own, if wanted) and `workers` (the two ends), `tunnel` (what is without Holdline), `board` (the
//! books), `journals` and `witness` (who fills them), then `page`, `viewer` and `table` (who shows them).

mod board;
mod certificate;
mod children;
mod clients;
mod journals;
mod numbers;
mod options;
mod page;
mod percentile;
mod run;
mod table;
mod tunnel;
mod verdict;
mod viewer;
mod witness;
mod workers;

pub use options::Options;
pub use run::run;
