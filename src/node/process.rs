//! What the kernel says about this process.

use std::fs;

/// Memory, descriptors and time of this process.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Usage {
    pub resident_memory_bytes: Option<u64>,
    pub open_fds: Option<u64>,
    pub cpu_seconds: Option<f64>,
}

/// Asks; what cannot be known is left out.
pub fn usage() -> Usage {
    Usage {
        resident_memory_bytes: fs::read_to_string("/proc/self/status").ok().and_then(|text| resident(&text)),
        // One of them is the directory itself.
        open_fds: fs::read_dir("/proc/self/fd").ok().map(|entries| (entries.count() as u64).saturating_sub(1)),
        // The main thread's, and there is no other.
        cpu_seconds: fs::read_to_string("/proc/self/schedstat").ok().and_then(|text| cpu(&text)),
    }
}

fn resident(status: &str) -> Option<u64> {
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?;
    Some(kib.trim().parse::<u64>().ok()? * 1024)
}

fn cpu(schedstat: &str) -> Option<f64> {
    Some(schedstat.split_whitespace().next()?.parse::<u64>().ok()? as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_understood() {
        assert_eq!(resident("Name:\tbaton\nVmRSS:\t    4096 kB\nThreads:\t1\n"), Some(4 << 20));
        assert_eq!(resident("VmRSS: many\n"), None);
        assert_eq!(cpu("2500000000 17 3\n"), Some(2.5));
        assert_eq!(cpu(""), None);
    }

    #[test]
    fn this_process_can_be_asked() {
        let usage = usage();
        assert!(usage.resident_memory_bytes.unwrap() > 100_000);
        assert!(usage.open_fds.unwrap() >= 3);
    }
}
