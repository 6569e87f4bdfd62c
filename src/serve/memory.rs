//! Memory of this process and its bound, as Linux tells them.

use crate::cli::Load;
use std::fs;
use tillstream_ingest_api::{Bounds, LoadBounds, ports};

/// Reads `/proc/self/status`.
pub struct ProcessMemory;

impl ports::Memory for ProcessMemory {
    fn resident_bytes(&self) -> Option<u64> {
        kib(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
    }
}

/// A line such as `VmRSS:  1234 kB`, in bytes.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|it| it.strip_prefix(name))?;
    let kib: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib * 1_024)
}

/// What the machine has, or what this process's cgroup may have of it.
fn available_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|it| kib(&it, "MemTotal:"));
    // `max` where there is no limit.
    let cgroup = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|it| it.trim().parse().ok());
    machine.into_iter().chain(cgroup).min()
}

/// The door's bounds out of its options.
pub fn bounds(options: &Load) -> Bounds {
    let resident_bytes = match options.memory_max_mib {
        0 => available_bytes().map_or(u64::MAX, |it| it / 5 * 4),
        mib => mib << 20,
    };
    Bounds {
        load: LoadBounds {
            order_lag_records: options.order_lag_records_max,
            item_lag_records: options.item_lag_records_max,
            effects_lag_records: options.effects_lag_records_max,
            analytics_lag_records: options.analytics_lag_records_max,
            resident_bytes,
            ..LoadBounds::default()
        },
        streams_per_tenant: options.streams_per_tenant_max as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ports::Memory;

    #[test]
    fn this_process_and_this_machine_have_memory() {
        let resident = ProcessMemory.resident_bytes().unwrap();
        assert!(resident > 100_000 && resident < available_bytes().unwrap());
        assert_eq!(kib("VmPeak:\t 9 kB\nVmRSS:\t    2 kB\n", "VmRSS:"), Some(2_048));
    }
}
