//! Which cores the workers run on.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::config::snapshot::Workers;

/// One core per worker, in order. Honours the process's affinity and its cgroup's CPU quota.
pub fn plan(workers: &Workers) -> Result<Vec<u32>, String> {
    let allowed = allowed().map_err(|e| format!("cannot read the CPU affinity: {e}"))?;
    let quota = std::thread::available_parallelism().map_or(1, |n| n.get());
    place(workers, &allowed, quota)
}

/// `allowed` cores by affinity, and how many of them the cgroup's `quota` pays for.
fn place(workers: &Workers, allowed: &[u32], quota: usize) -> Result<Vec<u32>, String> {
    match workers {
        Workers::Auto => Ok(allowed.iter().copied().take(quota.max(1)).collect()),
        Workers::Count(n) => Ok(allowed.iter().copied().cycle().take(*n as usize).collect()),
        Workers::Cores(cores) => match cores.iter().find(|core| !allowed.contains(core)) {
            None => Ok(cores.clone()),
            Some(core) => Err(format!(
                "core {core} is not available to this process (it may use {allowed:?}); \
                 change runtime.workers or the process's CPU affinity"
            )),
        },
    }
}

fn allowed() -> io::Result<Vec<u32>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).map(|core| core as u32).collect())
}

/// Pins the calling thread to `core`.
pub fn pin(core: u32) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core as usize);
    Ok(sched_setaffinity(None, &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_placed_on_allowed_cores_only() {
        let allowed = [2, 3, 6, 7];
        for (workers, quota, expected) in [
            (Workers::Auto, 16, vec![2, 3, 6, 7]),
            (Workers::Auto, 2, vec![2, 3]),
            (Workers::Auto, 0, vec![2]),
            (Workers::Count(1), 4, vec![2]),
            (Workers::Count(6), 4, vec![2, 3, 6, 7, 2, 3]),
            (Workers::Cores(vec![7, 2]), 1, vec![7, 2]),
        ] {
            assert_eq!(place(&workers, &allowed, quota), Ok(expected), "{workers:?}");
        }
        let refused = place(&Workers::Cores(vec![2, 5]), &allowed, 4);
        assert!(refused.is_err_and(|text| text.contains("core 5")));
    }
}
