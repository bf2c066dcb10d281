//! What the system tells about this process: memory, descriptors, processor time.

use std::fs;

/// Resident memory in bytes; 0 when it cannot be read.
pub fn resident_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

/// Open descriptors, and how many there may be.
pub fn descriptors() -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    // Since Linux 6.2 the folder's size is their number; before, it is 0.
    let open = match fs::metadata("/proc/self/fd").map(|meta| meta.size()) {
        Ok(open) if open > 0 => open,
        _ => fs::read_dir("/proc/self/fd").map_or(0, |list| list.count() as u64),
    };
    let max = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    (open, max.unwrap_or(u64::MAX))
}

/// Processor time that a thread of this process has used, in seconds; 0 when it is gone.
pub fn cpu_seconds(tid: u64) -> f64 {
    let path = format!("/proc/self/task/{tid}/schedstat");
    let ns = fs::read_to_string(path).ok();
    let ns = ns.and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    ns.map_or(0.0, |ns| ns as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_what_a_process_has() {
        assert!(resident_bytes() > 1 << 20);
        let (before, max) = descriptors();
        let more: Vec<_> = (0..10).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        // Other tests open and close some too.
        assert!(before >= 3 && max > before && descriptors().0 >= 10, "{before} of {max}");
        drop(more);
        let tid = rustix::thread::gettid().as_raw_pid() as u64;
        let begun = cpu_seconds(tid);
        let mut sum = 0u64;
        while cpu_seconds(tid) <= begun {
            sum = sum.wrapping_add(1);
        }
        assert_eq!(cpu_seconds(u64::from(u32::MAX)), 0.0, "no such thread, after {sum} looks");
    }
}
