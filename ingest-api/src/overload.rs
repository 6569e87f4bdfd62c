//! When new work is refused: something behind the door has fallen too far behind, or memory runs out.
//!
//! Loads are measured a few times a second; each has a bound. Past it the door refuses new work, and takes it again
//! once the load is down to three quarters of the bound, so that it does not flap. Reads, operations, and commands to
//! orders that were accepted go on.

use crate::Ingest;
use crate::ports::Memory;
use crate::problem::{Code, Problem};
use parking_lot::Mutex;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use tillstream_stage::task::TaskKind;
use tokio::sync::watch;

/// How often loads are measured.
const INTERVAL: Duration = Duration::from_millis(100);
/// When to come again, s.
const RETRY_SECONDS: u32 = 2;

/// Past what the door refuses new work.
#[derive(Clone, Copy, Debug)]
pub struct LoadBounds {
    /// Records that may wait for all order tasks together.
    pub order_lag_records: u64,
    /// Records that may wait for all item tasks together.
    pub item_lag_records: u64,
    /// Requests that may wait for all effects executors together.
    pub effects_lag_records: u64,
    /// Deltas that may wait for all analytics tasks together; each holds a whole batch of the order task.
    pub analytics_lag_records: u64,
    /// Memory of this process, bytes.
    pub resident_bytes: u64,
    /// Commands that the log has not made durable yet, bytes.
    pub appending_bytes: u64,
}

impl Default for LoadBounds {
    fn default() -> Self {
        Self {
            order_lag_records: 400_000,
            item_lag_records: 800_000,
            effects_lag_records: 400_000,
            analytics_lag_records: 50_000,
            resident_bytes: u64::MAX,
            appending_bytes: 64 << 20,
        }
    }
}

/// What can be past its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strain {
    OrderLag,
    ItemLag,
    EffectsLag,
    AnalyticsLag,
    Memory,
    Log,
}

impl Strain {
    const ALL: [Self; 6] =
        [Self::OrderLag, Self::ItemLag, Self::EffectsLag, Self::AnalyticsLag, Self::Memory, Self::Log];

    /// Its label in metrics.
    fn as_str(self) -> &'static str {
        match self {
            Self::OrderLag => "order_lag",
            Self::ItemLag => "item_lag",
            Self::EffectsLag => "effects_lag",
            Self::AnalyticsLag => "analytics_lag",
            Self::Memory => "memory",
            Self::Log => "log",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::OrderLag => "the order tasks are too far behind",
            Self::ItemLag => "the item tasks are too far behind",
            Self::EffectsLag => "too many payments wait for their provider",
            Self::AnalyticsLag => "the analytics tasks are too far behind",
            Self::Memory => "this server is short of memory",
            Self::Log => "the log does not keep up",
        }
    }

    fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// One measurement, in the units of [`LoadBounds`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    order_lag_records: u64,
    item_lag_records: u64,
    effects_lag_records: u64,
    analytics_lag_records: u64,
    resident_bytes: u64,
    appending_bytes: u64,
}

impl Load {
    fn of(self, strain: Strain) -> u64 {
        match strain {
            Strain::OrderLag => self.order_lag_records,
            Strain::ItemLag => self.item_lag_records,
            Strain::EffectsLag => self.effects_lag_records,
            Strain::AnalyticsLag => self.analytics_lag_records,
            Strain::Memory => self.resident_bytes,
            Strain::Log => self.appending_bytes,
        }
    }
}

impl LoadBounds {
    fn of(&self, strain: Strain) -> u64 {
        match strain {
            Strain::OrderLag => self.order_lag_records,
            Strain::ItemLag => self.item_lag_records,
            Strain::EffectsLag => self.effects_lag_records,
            Strain::AnalyticsLag => self.analytics_lag_records,
            Strain::Memory => self.resident_bytes,
            Strain::Log => self.appending_bytes,
        }
    }

    /// What is refused for now, as bits, given what was refused before.
    fn judge(&self, load: Load, refused: u32) -> u32 {
        let strained = |it: &Strain| {
            let (load, bound) = (load.of(*it), self.of(*it));
            let release = bound - bound / 4;
            load > if refused & it.bit() == 0 { bound } else { release }
        };
        Strain::ALL.into_iter().filter(strained).fold(0, |bits, it| bits | it.bit())
    }
}

/// The door's gate.
pub(crate) struct Overload {
    bounds: LoadBounds,
    refused: AtomicU32,
    appending_bytes: AtomicU64,
    refusals: IntCounterVec,
    refusing: IntGaugeVec,
    /// One measurement at a time.
    measuring: Mutex<()>,
}

/// Bytes on their way into the log. Dropping it takes them off.
pub(crate) struct Appending<'a> {
    overload: &'a Overload,
    bytes: u64,
}

impl Drop for Appending<'_> {
    fn drop(&mut self) {
        self.overload.appending_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Overload {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When they are registered already.
    pub(crate) fn new(registry: &Registry, bounds: LoadBounds) -> prometheus::Result<Self> {
        let help = "Calls and bulk lines refused because of load, by what was past its bound";
        let refusals = IntCounterVec::new(Opts::new("tillstream_http_refusals_total", help), &["reason"])?;
        let help = "Whether new work is refused at this moment, by what is past its bound";
        let refusing = IntGaugeVec::new(Opts::new("tillstream_http_refusing", help), &["reason"])?;
        registry.register(Box::new(refusals.clone()))?;
        registry.register(Box::new(refusing.clone()))?;
        for strain in Strain::ALL {
            refusals.with_label_values(&[strain.as_str()]);
            refusing.with_label_values(&[strain.as_str()]).set(0);
        }
        Ok(Self {
            bounds,
            refused: AtomicU32::new(0),
            appending_bytes: AtomicU64::new(0),
            refusals,
            refusing,
            measuring: Mutex::default(),
        })
    }

    /// What is past its bound, if anything is.
    pub(crate) fn strain(&self) -> Option<Strain> {
        let refused = self.refused.load(Ordering::Relaxed);
        Strain::ALL.into_iter().find(|it| refused & it.bit() != 0)
    }

    /// The problem of work that is refused now; it is counted.
    pub(crate) fn refuse(&self, strain: Strain) -> Problem {
        self.refusals.with_label_values(&[strain.as_str()]).inc();
        problem(strain)
    }

    /// Notes bytes that go into the log, unless too many are on their way already.
    ///
    /// # Errors
    /// 503.
    pub(crate) fn begin_append(&self, bytes: u64) -> Result<Appending<'_>, Problem> {
        let before = self.appending_bytes.fetch_add(bytes, Ordering::Relaxed);
        let appending = Appending { overload: self, bytes };
        // A single append is always let through, however large.
        if before > 0 && before + bytes > self.bounds.appending_bytes {
            return Err(self.refuse(Strain::Log));
        }
        Ok(appending)
    }

    fn measured(&self, load: Load) {
        let _one = self.measuring.lock();
        let before = self.refused.load(Ordering::Relaxed);
        let after = self.bounds.judge(load, before);
        if after == before {
            return;
        }
        for strain in Strain::ALL {
            let (was, is) = (before & strain.bit() != 0, after & strain.bit() != 0);
            if was != is {
                let (load, bound) = (load.of(strain), self.bounds.of(strain));
                tracing::warn!(reason = strain.as_str(), load, bound, refusing = is, "new work");
                self.refusing.with_label_values(&[strain.as_str()]).set(i64::from(is));
            }
        }
        self.refused.store(after, Ordering::Relaxed);
    }
}

fn problem(strain: Strain) -> Problem {
    let detail = format!("{}; nothing that was accepted is lost", strain.sentence());
    Problem::new(Code::Overloaded, detail).retry_after(RETRY_SECONDS)
}

impl Ingest {
    /// Measures loads until `stopping` turns true. Without it nothing but the log's own bound is watched.
    pub async fn watch_load(&self, memory: Arc<dyn Memory>, mut stopping: watch::Receiver<bool>) {
        loop {
            self.overload.measured(self.load(&*memory));
            tokio::select! {
                biased;
                _ = stopping.wait_for(|it| *it) => return,
                () = self.clock.sleep(INTERVAL) => {}
            }
        }
    }

    fn load(&self, memory: &dyn Memory) -> Load {
        let mut load = Load {
            resident_bytes: memory.resident_bytes().unwrap_or(0),
            appending_bytes: self.overload.appending_bytes.load(Ordering::Relaxed),
            ..Load::default()
        };
        for (task, lag) in self.progress.lags() {
            let sum = match task.kind {
                TaskKind::Order => &mut load.order_lag_records,
                TaskKind::Item => &mut load.item_lag_records,
                TaskKind::Effects => &mut load.effects_lag_records,
                TaskKind::Analytics => &mut load.analytics_lag_records,
                // A receiver that is down for days must not close the door.
                TaskKind::OrderWebhooks | TaskKind::ItemWebhooks => continue,
            };
            *sum += lag;
        }
        load
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds() -> LoadBounds {
        LoadBounds { order_lag_records: 100, resident_bytes: 1_000, ..LoadBounds::default() }
    }

    #[test]
    fn what_was_refused_is_taken_again_only_well_below_the_bound() {
        let lags = |order_lag_records| Load { order_lag_records, ..Load::default() };
        let mut refused = 0;
        let mut seen = Vec::new();
        for lag in [100, 101, 100, 76, 75, 100, 101, 0] {
            refused = bounds().judge(lags(lag), refused);
            seen.push(refused & Strain::OrderLag.bit() != 0);
        }
        assert_eq!(seen, [false, true, true, true, false, false, true, false]);
    }

    #[test]
    fn each_strain_is_judged_by_itself_and_named() {
        let overload = Overload::new(&Registry::new(), bounds()).unwrap();
        assert_eq!(overload.strain(), None);
        overload.measured(Load { resident_bytes: 1_001, ..Load::default() });
        assert_eq!(overload.strain(), Some(Strain::Memory));
        let refused = overload.refuse(Strain::Memory);
        assert_eq!((refused.code, refused.retry_after_seconds), (Code::Overloaded, Some(RETRY_SECONDS)));
        assert_eq!(overload.refusals.with_label_values(&["memory"]).get(), 1);
        assert_eq!(overload.refusing.with_label_values(&["memory"]).get(), 1);
        overload.measured(Load { resident_bytes: 750, ..Load::default() });
        assert_eq!(overload.strain(), None);
        assert_eq!(overload.refusing.with_label_values(&["memory"]).get(), 0);
    }

    #[test]
    fn what_the_log_has_not_taken_is_bounded_and_an_ended_append_makes_room() {
        let bounds = LoadBounds { appending_bytes: 10, ..bounds() };
        let overload = Overload::new(&Registry::new(), bounds).unwrap();
        let large = overload.begin_append(50).unwrap();
        assert_eq!(overload.begin_append(1).err().unwrap().code, Code::Overloaded);
        drop(large);
        let _first = overload.begin_append(5).unwrap();
        let _second = overload.begin_append(5).unwrap();
        assert!(overload.begin_append(1).is_err());
        assert_eq!(overload.appending_bytes.load(Ordering::Relaxed), 10);
    }
}
