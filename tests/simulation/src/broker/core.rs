//! How a call goes: some waiting, the broker's answer, some waiting.

use super::call::{Call, Effect};
use super::world::{FaultEffect, World, nanos};
use parking_lot::{Mutex, MutexGuard};
use std::future::{Future, pending};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tillstream_log::broker::BrokerError;
use tillstream_runtime::Clock;
use tokio::sync::Notify;

pub(crate) struct Core {
    world: Mutex<World>,
    clock: Arc<dyn Clock>,
    control: Arc<Notify>,
}

/// Who calls what.
pub(crate) struct Site<'a> {
    pub(crate) call: Call,
    /// The transactional id, group or partition.
    pub(crate) scope: &'a str,
    /// The producer that calls, if one does.
    pub(crate) producer: Option<u64>,
    pub(crate) process: &'a Arc<str>,
    /// What the client says when the broker does not answer in time; `None` for a call that needs no broker.
    pub(crate) timed_out: Option<fn(String) -> BrokerError>,
}

/// What came of a try.
pub(crate) enum Attempt<T> {
    Done(Result<T, BrokerError>),
    /// Something else has to happen first.
    Wait,
}

impl<T> From<Result<T, BrokerError>> for Attempt<T> {
    fn from(result: Result<T, BrokerError>) -> Self {
        Self::Done(result)
    }
}

enum Turn<T> {
    Over(Result<T, BrokerError>),
    WaitUntil(Option<u64>),
}

impl Core {
    pub(crate) fn new(world: World, clock: Arc<dyn Clock>) -> Self {
        let control = world.control.clone();
        Self { world: Mutex::new(world), clock, control }
    }

    /// The world as it is now.
    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        let mut world = self.world.lock();
        world.go_on_to(self.clock.monotonic_ns());
        world
    }

    /// Does what is due once it is, as long as the broker is there: whoever waits for it is told, and need not look at
    /// the clock.
    pub(crate) async fn keep_time(core: Weak<Self>) {
        loop {
            let (clock, changed, due_ns) = {
                let Some(core) = core.upgrade() else { return };
                let world = core.lock();
                (core.clock.clone(), world.quiet.changed(), world.due_ns())
            };
            match due_ns {
                Some(due_ns) => tokio::select! {
                    biased;
                    () = changed.notified() => {}
                    () = clock.sleep_until(due_ns) => {}
                },
                None => changed.notified().await,
            }
        }
    }

    /// Makes a call.
    pub(crate) async fn call<T>(
        &self,
        site: Site<'_>,
        mut attempt: impl FnMut(&mut World) -> Attempt<T>,
    ) -> Result<T, BrokerError> {
        self.jitter().await;
        let begun_ns = {
            let mut world = self.lock();
            *world.counts.entry(site.call).or_default() += 1;
            world.count_down(site.process);
            world.now_ns
        };
        let mut strike = None;
        let result = loop {
            match self.turn(&site, begun_ns, &mut strike, &mut attempt) {
                Turn::Over(result) => break result,
                // On one thread nothing is told between the try and the wait.
                Turn::WaitUntil(due_ns) => self.either(self.control.notified(), due_ns).await,
            }
        };
        {
            let mut world = self.lock();
            world.count_down(site.process);
            world.stand_still(site.call, site.process);
        }
        self.jitter().await;
        self.while_paused(site.process).await;
        result
    }

    fn turn<T>(
        &self,
        site: &Site<'_>,
        begun_ns: u64,
        strike: &mut Option<(FaultEffect, BrokerError)>,
        attempt: &mut impl FnMut(&mut World) -> Attempt<T>,
    ) -> Turn<T> {
        let mut world = self.lock();
        let process = world.process(site.process);
        if process.killed || process.paused {
            return Turn::WaitUntil(None);
        }
        let deadline_ns = begun_ns.saturating_add(nanos(world.settings.call_timeout));
        let arrives_ns = begun_ns.saturating_add(nanos(world.slow));
        let under_way = world.now_ns < arrives_ns;
        let away = site.call.needs_coordinator() && world.now_ns < world.coordinator_away_until_ns;
        if site.timed_out.is_none() || (world.reaches(site.process) && !away && !under_way) {
            if strike.is_none() {
                *strike = world.strike(site.call, site.scope);
            }
            match strike {
                Some((FaultEffect::Now(Effect::None), error)) => return Turn::Over(Err(error.clone())),
                Some((FaultEffect::Later, error)) => {
                    site.producer.into_iter().for_each(|it| world.commit_later(it));
                    return Turn::Over(Err(error.clone()));
                }
                _ => {}
            }
            if let Attempt::Done(result) = attempt(&mut world) {
                let told = match strike.take() {
                    Some((_, error)) if result.is_ok() => Err(error),
                    _ => result,
                };
                world.note(&[site.call as u8, u8::from(told.is_ok())]);
                world.note(site.scope.as_bytes());
                return Turn::Over(told);
            }
        }
        if let Some(timed_out) = site.timed_out.filter(|_| world.now_ns >= deadline_ns) {
            return Turn::Over(Err(timed_out(format!(
                "{:?} of {} was not answered in time",
                site.call, site.scope
            ))));
        }
        let deadline_ns = site.timed_out.map(|_| deadline_ns);
        let back_ns = away.then_some(world.coordinator_away_until_ns);
        let arrives_ns = (under_way && site.timed_out.is_some()).then_some(arrives_ns);
        Turn::WaitUntil(deadline_ns.into_iter().chain(back_ns).chain(arrives_ns).min())
    }

    /// Waits until told, or until then.
    async fn either(&self, told: impl Future<Output = ()>, due_ns: Option<u64>) {
        let due = async {
            match due_ns {
                Some(due_ns) => self.clock.sleep_until(due_ns).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = told => {}
            () = due => {}
        }
    }

    /// Calls of others may come first.
    async fn jitter(&self) {
        let (yields, latency) = {
            let mut world = self.lock();
            let (yields_max, latency_max) = (world.settings.yields_max, world.settings.latency_max);
            let yields = if yields_max > 0 { world.random.below(yields_max + 1) } else { 0 };
            let latency_ns = match nanos(latency_max) {
                0 => 0,
                max => world.random.next_u64() % max,
            };
            (yields, Duration::from_nanos(latency_ns))
        };
        for _ in 0..yields {
            tokio::task::yield_now().await;
        }
        if !latency.is_zero() {
            self.clock.sleep(latency).await;
        }
    }

    /// A process that is stopped hears nothing, one that is killed never again.
    pub(crate) async fn while_paused(&self, process: &Arc<str>) {
        loop {
            let state = self.lock().process(process);
            if !state.paused && !state.killed {
                return;
            }
            self.control.notified().await;
        }
    }
}
