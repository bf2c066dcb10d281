//! The ring a worker runs on, chosen by a ladder: the cheapest set of flags the kernel grants,
//! down to epoll where io_uring is refused (container runtimes do that by default).

use std::{io, sync::Arc};

use io_uring::IoUring;
use monoio::{IoUringDriver, LegacyDriver, Runtime, RuntimeBuilder, time::TimeDriver};

use super::{clock, ring::RingView};
use crate::config::snapshot::{Io, Runtime as Rule};

/// Completion queue entries per submission queue entry: a burst of completions must fit.
const CQ_PER_SQ: u32 = 4;

/// A worker's runtime and the name of the rung it stands on.
pub struct Driver {
    runtime: Either,
    pub name: &'static str,
    /// The ring's own counts, where there is a ring.
    pub ring: Option<Arc<RingView>>,
}

enum Either {
    Uring(Runtime<TimeDriver<IoUringDriver>>),
    Epoll(Runtime<TimeDriver<LegacyDriver>>),
}

impl Driver {
    /// Builds the runtime on the calling thread, which must be the one that runs it.
    pub fn build(rule: &Rule) -> io::Result<Driver> {
        match rule.io {
            Io::Epoll => epoll(rule),
            Io::IoUring => uring(rule).map_err(|refused| {
                let advice =
                    "io_uring is not available here; write runtime.io = \"auto\" or \"epoll\"";
                io::Error::new(refused.kind(), format!("{advice} ({refused})"))
            }),
            Io::Auto => uring(rule).or_else(|refused| {
                tracing::warn!(error = %refused, "io_uring is not available here, using epoll");
                epoll(rule)
            }),
        }
    }

    pub fn is_epoll(&self) -> bool {
        matches!(self.runtime, Either::Epoll(_))
    }

    pub fn block_on<F: Future>(&mut self, future: F) -> F::Output {
        match &mut self.runtime {
            Either::Uring(runtime) => runtime.block_on(future),
            Either::Epoll(runtime) => runtime.block_on(future),
        }
    }
}

fn uring(rule: &Rule) -> io::Result<Driver> {
    type Flags = fn(&mut io_uring::Builder);
    let ladder: [(&'static str, bool, Flags); 3] = [
        ("io_uring, deferred task work", true, |b| {
            b.setup_single_issuer().setup_defer_taskrun();
        }),
        ("io_uring, cooperative task work", true, |b| {
            b.setup_coop_taskrun();
        }),
        ("io_uring", false, |_| {}),
    ];
    let entries = rule.ring_entries;
    let mut refused = io::Error::from(io::ErrorKind::Unsupported);
    for (name, waits_for_us, flags) in ladder {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(entries * CQ_PER_SQ);
        flags(&mut builder);
        if waits_for_us && !rule.spin.is_zero() {
            // The kernel completes when we come: whoever spins must see that there is something.
            builder.setup_taskrun_flag();
        }
        let built = RingView::of(|| {
            RuntimeBuilder::<IoUringDriver>::new()
                .uring_builder(builder)
                .with_entries(entries)
                .enable_timer()
                .build()
        });
        match built {
            Ok((runtime, ring)) => {
                let ring = ring.map(Arc::new);
                if let Some(ring) = &ring {
                    clock::follow(ring.clone());
                }
                return Ok(Driver { runtime: Either::Uring(runtime), name, ring });
            }
            Err(e) => refused = e,
        }
    }
    Err(refused)
}

fn epoll(rule: &Rule) -> io::Result<Driver> {
    let builder = RuntimeBuilder::<LegacyDriver>::new().with_entries(rule.ring_entries);
    let runtime = builder.enable_timer().build()?;
    Ok(Driver { runtime: Either::Epoll(runtime), name: "epoll", ring: None })
}
