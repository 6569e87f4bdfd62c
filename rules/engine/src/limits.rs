//! What one call may use. Enforced by counting, never by a clock, so that every machine stops a rule at the same place.

/// Lines up to which the limits of a call are fixed; above, input, output and fuel grow in proportion.
const LINES_BASE: usize = 200;

/// Bytes of linear memory a module may have, at most.
pub(crate) const MEMORY_BYTES_MAX: usize = 16 << 20;
/// Bytes of a module, at most.
pub(crate) const MODULE_BYTES_MAX: usize = 256 << 10;
/// Elements of a table, at most.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 10_000;
/// Bytes of the sandbox's stack, at most.
pub(crate) const STACK_BYTES_MAX: usize = 256 << 10;
/// Fuel for the start of a module that is being checked.
pub(crate) const START_FUEL: u64 = 11_000_000;
/// Fuel for compiling a source, once: enough for the largest that may be uploaded.
pub(crate) const COMPILE_FUEL: u64 = 400_000_000;
/// Bytes of code a source may become.
pub(crate) const CODE_BYTES_MAX: usize = 2 << 20;
/// Bytes of log that are kept of one call.
pub(crate) const LOG_BYTES_MAX: usize = 1 << 10;
/// Bytes a module may hand to the log in one call before the call ends.
pub(crate) const LOG_BYTES_TAKEN_MAX: usize = 64 << 10;
/// Fuel that a line of log costs beside a unit per byte: what the crossing costs the host.
pub(crate) const LOG_LINE_FUEL: u64 = 500;

/// The limits of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Units of fuel: about one per instruction, and one per byte that a bulk instruction moves.
    pub fuel: u64,
    /// Bytes of linear memory.
    pub memory_bytes: usize,
    /// Bytes of the input's texts and numbers.
    pub input_bytes: usize,
    /// Bytes of the output's texts and numbers.
    pub output_bytes: usize,
    /// Bytes of log that are kept.
    pub log_bytes: usize,
    /// Bytes of a module.
    pub module_bytes: usize,
}

impl Limits {
    /// Of a call with so many lines.
    pub fn of(lines: usize) -> Self {
        let grown = |base: usize| base.saturating_mul(lines.max(LINES_BASE)) / LINES_BASE;
        Self {
            fuel: grown(11_000_000) as u64,
            memory_bytes: MEMORY_BYTES_MAX,
            input_bytes: grown(64 << 10),
            output_bytes: grown(20 << 10),
            log_bytes: LOG_BYTES_MAX,
            module_bytes: MODULE_BYTES_MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_grow_with_the_lines_above_two_hundred() {
        assert_eq!(Limits::of(0), Limits::of(200));
        assert_eq!(Limits::of(3).fuel, 11_000_000);
        assert_eq!(Limits::of(1_000).fuel, 55_000_000);
        assert_eq!(Limits::of(1_000).input_bytes, 5 * (64 << 10));
        assert_eq!(Limits::of(1_000).memory_bytes, 16 << 20);
    }
}
