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
mod limits;
mod load;
mod mix;
mod origin;
mod plot;
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
    /// Ask for more than a rate limit allows, and compare what passes with what may
    Limits(limits::Flags),
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
        /// Bytes passed on at a time, each way
        #[arg(long, default_value_t = forward::BUFFER_BYTES)]
        buffer: usize,
    },
    /// Turn the raw data of scripts/compare into tables and plots
    Report(plot::Report),
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
        Command::Limits(flags) => flags.run(),
        Command::Origin(flags) => flags.run(),
        Command::Forward { listen, to, buffer } => forward::run(listen, to, buffer.max(1)),
        Command::Report(report) => report.run(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What README.md and the help texts tell a reader to type is understood.
    #[test]
    fn documented_commands_are_understood() {
        let readme = include_str!("../README.md");
        let texts =
            [readme, flags::EXAMPLES, hold::EXAMPLES, limits::EXAMPLES, serve::flags::EXAMPLES];
        let mut found = 0;
        for text in texts {
            let joined = text.replace("\\\n", " ");
            for line in joined.lines().map(str::trim).filter(|l| l.starts_with("loadtest ")) {
                // The README's first line names the program.
                let parsed = Arguments::try_parse_from(line.split_whitespace());
                assert!(
                    parsed.is_ok(),
                    "{line}: {}",
                    parsed.err().map_or_else(String::new, |e| e.to_string())
                );
                found += 1;
            }
        }
        assert!(found > 15, "{found} commands found");
    }

    #[test]
    fn the_example_of_a_mix_is_one() {
        let mix = mix::parse(include_str!("../mix.toml")).unwrap();
        assert_eq!(mix.len(), 3);
    }
}
