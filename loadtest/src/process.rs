//! CPU time and memory of a process, from procfs.

use crate::BenchError;
use std::collections::BTreeMap;

/// Clock ticks per second in procfs: part of Linux's interface to user space, whatever the kernel's own rate is.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process has used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// User and system time of all its threads, seconds.
    pub cpu_seconds: f64,
    /// Peak resident memory, bytes.
    pub peak_rss_bytes: u64,
}

/// User and system ticks out of a `stat` line. The command's name is in parentheses and may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn peak_rss_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|it| it.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib * 1_024)
}

fn read(path: &str) -> Result<String, BenchError> {
    std::fs::read_to_string(path).map_err(BenchError::io(path))
}

/// What a process has used so far.
pub fn usage(pid: u32) -> Result<Usage, BenchError> {
    let unreadable = || BenchError::Server(format!("/proc/{pid} has an unknown form"));
    let ticks = ticks(&read(&format!("/proc/{pid}/stat"))?).ok_or_else(unreadable)?;
    let peak_rss_bytes = peak_rss_bytes(&read(&format!("/proc/{pid}/status"))?).ok_or_else(unreadable)?;
    Ok(Usage { cpu_seconds: ticks as f64 / TICKS_PER_SECOND, peak_rss_bytes })
}

/// CPU seconds that all processes of the machine have used since it started.
pub fn machine_cpu_seconds() -> Result<f64, BenchError> {
    let unreadable = || BenchError::Server("/proc/stat has an unknown form".into());
    let busy = busy_ticks(&read("/proc/stat")?).ok_or_else(unreadable)?;
    Ok(busy as f64 / TICKS_PER_SECOND)
}

/// All but idle and waiting for a disk, out of the first line of `/proc/stat`.
fn busy_ticks(stat: &str) -> Option<u64> {
    let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
    let fields: Vec<u64> = fields.map_while(|it| it.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = fields[..] else { return None };
    Some(user + nice + system + irq + softirq + steal)
}

/// The name of a pool's threads without their numbers.
fn pool(name: &str) -> &str {
    let plain = name.trim_end_matches(|it: char| it.is_ascii_digit() || matches!(it, '-' | '#' | ':'));
    if plain.is_empty() { name } else { plain }
}

/// CPU seconds per thread name, numbers at its end left out; threads that have ended are not in it.
pub fn threads(pid: u32) -> Result<BTreeMap<String, f64>, BenchError> {
    let path = format!("/proc/{pid}/task");
    let mut seconds = BTreeMap::new();
    for entry in std::fs::read_dir(&path).map_err(BenchError::io(&path))?.flatten() {
        // A thread may end between the listing and the read.
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let name = stat.split_once('(').and_then(|it| it.1.rsplit_once(')')).map_or("?", |it| it.0);
        let spent = ticks(&stat).unwrap_or(0) as f64 / TICKS_PER_SECOND;
        *seconds.entry(pool(name).to_owned()).or_insert(0.0) += spent;
    }
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_fields_behind_a_name_with_parentheses_and_spaces() {
        let stat = "42 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 150 25 0 0 20 0 1 0 100";
        assert_eq!(ticks(stat), Some(175));
        assert_eq!(ticks("42 (a"), None);
        assert_eq!(busy_ticks("cpu  1 2 4 1000 1000 8 16 32 0 0\ncpu0 9"), Some(63));
        assert_eq!(
            ["ReadStage-12", "GC Thread#1", "task", "7"].map(pool),
            ["ReadStage", "GC Thread", "task", "7"]
        );
        assert_eq!(peak_rss_bytes("VmPeak:\t 9 kB\nVmHWM:\t    2048 kB\n"), Some(2_097_152));
    }

    #[test]
    fn this_process_has_memory_and_threads() {
        let usage = usage(std::process::id()).unwrap();
        assert!(usage.peak_rss_bytes > 100_000);
        assert!(!threads(std::process::id()).unwrap().is_empty());
    }
}
