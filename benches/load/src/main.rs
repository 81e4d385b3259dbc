//! The bench's three roles: a backend, a load generator, and the comparison that starts both beside each proxy.
//!
//! Every run verifies sequence numbers and totals on both ends; a run that lost, doubled or reordered a message fails.

mod backend;
mod bench;
mod connection;
mod fanout;
mod generator;
mod idle;
mod load;
mod measure;
mod peers;
mod reattach;
mod table;
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
    Backend,
    /// Puts one load on one address and prints what it measured as JSON.
    Run(generator::Options),
    /// Kills a worker under many pipes.
    Reattach(reattach::Options),
    /// Many viewers of one device, with and without a shared stream.
    Fanout(fanout::Options),
    /// Compares proxies.
    Bench(bench::Options),
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    match Args::parse().role {
        Role::Backend => local.block_on(&runtime, backend::serve()),
        Role::Run(options) => local.block_on(&runtime, generator::run(options)),
        Role::Reattach(options) => local.block_on(&runtime, reattach::run(options)),
        Role::Fanout(options) => local.block_on(&runtime, fanout::run(options)),
        Role::Bench(options) => bench::run(&options),
    }
}
