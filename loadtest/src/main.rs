//! Load generator and origin for measuring Ringway beside other proxies.
//!
//! `loadtest load` sends requests, `loadtest hold` holds WebSockets and event streams,
//! `loadtest origin` answers, and `loadtest forward` stands between them and does nothing, as the
//! floor of what any proxy costs. `load --origin ADDRESS` sends and answers on one thread and one
//! io_uring, cheaply enough that the core it runs on can saturate a proxy on another.
//!
//! From the bottom: [`ring`] and [`http1`], [`response`]; what is sent and when ([`mix`],
//! [`request`], [`schedule`]); one thread's share of it ([`load`], [`tally`]); the two drivers
//! ([`engine`] with [`client`], and [`task`]); all threads ([`crew`], [`collect`], [`report`]).

mod body;
mod client;
mod collect;
mod cpu;
mod crew;
mod engine;
mod flags;
mod forward;
mod hold;
mod http1;
mod load;
mod mix;
mod origin;
mod report;
mod request;
mod response;
mod ring;
mod schedule;
mod serve;
mod tally;
mod task;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::flags::Flags;

#[derive(Parser)]
#[command(about = "Loads a target and answers for it", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send requests and report rate, latency, failures and CPU time
    Load(Box<Flags>),
    /// Hold WebSockets and event streams, and report how they fare
    Hold(Box<hold::Flags>),
    /// Only answer requests, until killed
    Origin(Box<serve::flags::Flags>),
    /// Only pass bytes on, until killed: the least that a proxy can cost
    Forward {
        /// Where to listen: IP:PORT
        #[arg(long)]
        listen: SocketAddr,
        /// Where to connect: IP:PORT
        #[arg(long)]
        to: SocketAddr,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("loadtest: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> io::Result<()> {
    match command {
        Command::Load(flags) => flags.run(),
        Command::Hold(flags) => flags.run(),
        Command::Origin(flags) => flags.run(),
        Command::Forward { listen, to } => forward::run(listen, to),
    }
}
