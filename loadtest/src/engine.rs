//! The loop of the hand-made driver: one thread, one ring, requests and the embedded origin.
//!
//! The ring's wait ends with a completion or exactly when the next request is due, so that open
//! loop requests leave on time without polling.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use io_uring::types::Timespec;

use crate::client::Client;
use crate::origin::Origin;
use crate::ring::{Buffers, Completion, Key, Op, Ring, Side};

/// Few enough to stay in the cache, large enough that a bulk body takes few turns.
const BUFFER_COUNT: u16 = 512;
const BUFFER_BYTES: u32 = 16 * 1024;

/// How often connections are opened and timeouts looked for.
const TICK_NS: u32 = 5_000_000;

/// The thread's ring, its buffers and its clock.
pub struct Engine {
    // Before the buffers: the kernel must let go of them first.
    ring: Ring,
    buffers: Buffers,
    epoch: Instant,
    done: Vec<Completion>,
    spin: bool,
    /// Time in turns that brought nothing (only when spinning).
    idle_ns: u64,
}

impl Engine {
    /// Builds the ring; with `spin` it never sleeps. Times count from `epoch`.
    pub fn new(spin: bool, epoch: Instant) -> io::Result<Self> {
        let mut ring = Ring::new()?;
        let buffers = Buffers::register(&ring, BUFFER_COUNT, BUFFER_BYTES)?;
        let period = Timespec::new().nsec(TICK_NS);
        let key = Key { side: Side::Client, index: u32::MAX, generation: 0 };
        ring.tick(Box::leak(Box::new(period)), key)?;
        // Timed waits end up to 50 us late otherwise.
        rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))?;
        let done = Vec::with_capacity(16 * 1024);
        Ok(Self { ring, buffers, epoch, done, spin, idle_ns: 0 })
    }

    fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// Answers requests until the process is killed.
    pub fn serve(&mut self, origin: &mut Origin) -> io::Result<()> {
        origin.start(&mut self.ring)?;
        loop {
            self.turn(None, Some(origin))?;
        }
    }

    /// Runs a whole course. An embedded origin answers until no thread is `running`: any of them
    /// may be using it.
    pub fn run(
        &mut self,
        client: &mut Client,
        mut origin: Option<&mut Origin>,
        running: &AtomicUsize,
    ) -> io::Result<()> {
        let ended = self.load(client, &mut origin);
        running.fetch_sub(1, Ordering::Relaxed);
        while origin.is_some() && ended.is_ok() && running.load(Ordering::Relaxed) > 0 {
            self.turn(Some(&mut *client), origin.as_deref_mut())?;
        }
        ended
    }

    fn load(&mut self, client: &mut Client, origin: &mut Option<&mut Origin>) -> io::Result<()> {
        if let Some(origin) = origin {
            origin.start(&mut self.ring)?;
        }
        loop {
            let now_ns = self.turn(Some(&mut *client), origin.as_deref_mut())?;
            if client.load.step(now_ns, self.idle_ns)? {
                return Ok(());
            }
            client.start_due(&mut self.ring, now_ns)?;
        }
    }

    /// One turn of the loop; returns the time its wait ended.
    fn turn(
        &mut self,
        mut client: Option<&mut Client>,
        mut origin: Option<&mut Origin>,
    ) -> io::Result<u64> {
        let wake_ns = client.as_deref().map_or(u64::MAX, Client::wake_ns);
        let wait_ns = match wake_ns {
            _ if self.spin => Some(0),
            u64::MAX => None,
            wake_ns => Some(wake_ns.saturating_sub(self.now_ns())),
        };
        let before_ns = if self.spin { self.now_ns() } else { 0 };
        self.ring.turn(wait_ns, &mut self.done)?;
        let now_ns = self.now_ns();
        if self.spin && self.done.is_empty() {
            self.idle_ns += now_ns - before_ns;
        }
        for done in self.done.drain(..) {
            let bytes = match done.buffer {
                Some(id) if done.result > 0 => self.buffers.bytes(id, done.result as usize),
                _ => &[],
            };
            match (done.op, done.key.side, &mut client, &mut origin) {
                (Op::Tick, _, Some(client), _) => client.tick(&mut self.ring, now_ns)?,
                (Op::Tick, ..) => {}
                (_, Side::Client, Some(client), _) => {
                    client.handle(&mut self.ring, done, bytes, now_ns)?;
                }
                (_, Side::Origin, _, Some(origin)) => {
                    origin.handle(&mut self.ring, done, bytes)?;
                }
                _ => {}
            }
            if let Some(id) = done.buffer {
                self.buffers.give_back(id);
            }
        }
        Ok(now_ns)
    }
}
