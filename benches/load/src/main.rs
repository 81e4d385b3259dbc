//! The bench's roles: a backend, a load generator, the comparison that starts both beside each proxy, and the runs in
//! which workers are lost.
//!
//! Every run verifies sequence numbers and totals on both ends; a run that lost, doubled or reordered a message fails.

mod about;
mod admin;
mod aware;
mod backend;
mod bench;
mod connection;
mod count;
mod crash;
mod fanout;
mod generator;
mod grid;
mod holdline;
mod http2;
mod idle;
mod link;
mod load;
mod markdown;
mod measure;
mod peers;
mod pipes;
mod plot;
mod reattach;
mod report;
mod row;
mod scale;
mod secured;
mod single;
mod stats;
mod table;
mod threads;
mod wire;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Load generator, backend and comparison")]
struct Args {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Echoes, streams and counts on a port that it prints.
    Backend(backend::Options),
    /// Puts one load on one address and prints what it measured as JSON.
    Run(generator::Options),
    /// One worker with all pipes dies or is drained.
    Reattach(reattach::Options),
    /// One pipe, whose workers die one after the other.
    Single(single::Options),
    /// Many viewers of one device, with and without a shared stream.
    Fanout(fanout::Options),
    /// One data thread and two.
    Threads(threads::Options),
    /// Clients that number their messages, clients that are away, and polls that wait.
    Aware(aware::Options),
    /// Instructions of the hot paths, under valgrind.
    Count(count::Options),
    /// Cost over more and more pipes, and over more and more that is kept.
    Scale(scale::Options),
    /// Kills workers under load: nothing may be lost.
    Crash(crash::Options),
    /// Compares proxies, and does all of the above but the last.
    Bench(Box<bench::Options>),
    /// Prints, draws and fills in anew what an earlier comparison found.
    Report(report::Outputs),
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    match Args::parse().role {
        Role::Backend(options) => local.block_on(&runtime, backend::serve(options)),
        Role::Run(options) => local.block_on(&runtime, generator::run(options)),
        Role::Reattach(options) => local.block_on(&runtime, reattach::run(options)),
        Role::Single(options) => local.block_on(&runtime, single::run(options)),
        Role::Fanout(options) => local.block_on(&runtime, fanout::run(options)),
        Role::Threads(options) => local.block_on(&runtime, threads::run(options)),
        Role::Aware(options) => local.block_on(&runtime, aware::run(options)),
        Role::Count(options) => local.block_on(&runtime, count::run(options)),
        Role::Scale(options) => local.block_on(&runtime, scale::run(options)),
        Role::Crash(options) => local.block_on(&runtime, crash::run(options)),
        Role::Bench(options) => bench::run(&options),
        Role::Report(outputs) => report::run(&outputs),
    }
}
