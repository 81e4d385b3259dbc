//! The form of a link whose peer numbers its messages: the aware protocol (PROTOCOL section 7).
//!
//! `reader` takes the numbers off what comes, `writer` puts them before what goes out. Both know frames and numbers only:
//! what a number or a word means for the pipe is decided in `pipe/aware`.

mod reader;
mod writer;

pub(crate) use reader::{AwareReader, Broken, Came, Head};
pub(crate) use writer::AwareWriter;
