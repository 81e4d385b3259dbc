//! One pipe, live: the sockets, timers and dials around `holdline_core::pipe::Pipe`.
//!
//! `attach` finds workers; `client_end` and `backend_end` are what the two legs hang on, by a `link` each, and `search` is
//! how the next worker is come by. `driver` moves bytes between the ends and carries out what the core decides: `reading`
//! is how it reads, `budget` how long it may, `alarm` what wakes it for the time, `report` says what happened (`life` to the
//! hooks), and `holding` what it waits for; `aware` is what clients come back by that number their messages; `books` is what
//! the process holds for it meanwhile.
//! One task owns one pipe: nothing here is shared but numbers and a mailbox ([`crate::pipes`]).

mod alarm;
pub mod attach;
mod aware;
mod backend_end;
mod books;
mod budget;
mod client_end;
mod driver;
mod holding;
mod life;
mod link;
mod reading;
mod report;
mod search;

pub use aware::{introduction, rejection};
pub use books::Guards;
pub use client_end::ClientLink;
pub use driver::{Arrived, Driver, Thawed};
pub use reading::{read_buffers_bytes, shed_read_buffers, shed_spare_read_buffers};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipes::PipeEntry;

    /// What an idle pipe costs besides two sockets; a change that lets it grow says so here. The driver is one piece of
    /// memory, and the allocator's next size above 2048 bytes is 2560.
    #[test]
    fn an_idle_pipe_stays_small() {
        let sizes = [
            ("core::Pipe", size_of::<holdline_core::pipe::Pipe>(), 1512),
            ("Driver", size_of::<Driver>(), 2048),
            ("PipeEntry", size_of::<PipeEntry>(), 496),
            ("Plan", size_of::<attach::Plan>(), 216),
        ];
        for (name, bytes, bytes_max) in sizes {
            assert!(bytes <= bytes_max, "{name} has {bytes} bytes: {sizes:?}");
        }
    }
}
