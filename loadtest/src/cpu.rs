//! CPU time of processes, and where threads run.

use std::fs;
use std::io;

use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::{Value, json};

/// CPU time of a process as the kernel keeps it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessCpu {
    /// On a CPU, summed over the living threads, nanoseconds.
    pub total_ns: u64,
    /// User part, clock ticks (10 ms each).
    pub user_ticks: u64,
    /// System part, clock ticks (10 ms each).
    pub system_ticks: u64,
}

impl ProcessCpu {
    /// Reads `/proc/PID/task/*/schedstat` and `/proc/PID/stat`.
    pub fn read(pid: u32) -> io::Result<Self> {
        let mut cpu = Self::default();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            cpu.total_ns += number(&text, 0);
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The command name may hold spaces; fields are counted after its closing parenthesis.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        cpu.user_ticks = number(fields, 11);
        cpu.system_ticks = number(fields, 12);
        Ok(cpu)
    }

    /// What was used between two readings, as JSON. A thread that ended in between takes its
    /// share of `cpu_ns` with it, which can leave less than before.
    pub fn since(self, earlier: Self) -> Value {
        json!({
            "cpu_ns": self.total_ns.saturating_sub(earlier.total_ns),
            "user_ticks": self.user_ticks - earlier.user_ticks,
            "system_ticks": self.system_ticks - earlier.system_ticks,
        })
    }
}

fn number(text: &str, field: usize) -> u64 {
    text.split_ascii_whitespace().nth(field).and_then(|f| f.parse().ok()).unwrap_or(0)
}

/// Binds the calling thread to one core.
pub fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    if core >= CpuSet::MAX_CPU {
        return Err(io::Error::other(format!("core {core} does not exist")));
    }
    set.set(core);
    sched_setaffinity(None, &set)
        .map_err(|e| io::Error::other(format!("cannot run on core {core}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_process() {
        let cpu = ProcessCpu::read(std::process::id()).expect("proc is mounted");
        assert!(cpu.total_ns > 0);
    }

    #[test]
    fn a_core_that_is_not_there_is_named() {
        let error = pin(100_000).unwrap_err();
        assert!(error.to_string().contains("core 100000"), "{error}");
    }
}
