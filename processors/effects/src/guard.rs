//! A provider behind a time limit and a circuit breaker.

use crate::breaker::{Breaker, BreakerSettings, BreakerState};
use crate::metrics::EffectsMetrics;
use crate::provider::{Lookup, PaymentProvider, ProviderReply};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use prometheus::IntGauge;
use std::sync::Arc;
use std::time::Duration;
use tillstream_runtime::{Clock, timeout};
use tillstream_schemas::effects::PaymentRequest;

/// A provider that is not called while it is known to be down, and not waited for without end.
///
/// All partitions share one guard per provider, so that one partition's failures spare the others the wait.
pub struct GuardedProvider {
    provider: Arc<dyn PaymentProvider>,
    breaker: Mutex<Breaker>,
    clock: Arc<dyn Clock>,
    timeout: Duration,
    open_gauge: IntGauge,
}

impl GuardedProvider {
    /// Puts a guard before a provider. A call longer than `timeout` answers `Unknown`: it may have happened.
    pub fn new(
        provider: Arc<dyn PaymentProvider>,
        settings: BreakerSettings,
        timeout: Duration,
        clock: Arc<dyn Clock>,
        metrics: &EffectsMetrics,
    ) -> Self {
        let open_gauge = metrics.breaker_open.with_label_values(&[provider.name()]);
        open_gauge.set(0);
        Self { provider, breaker: Mutex::new(Breaker::new(settings)), clock, timeout, open_gauge }
    }

    /// Where the breaker stands.
    pub fn breaker_state(&self) -> BreakerState {
        self.breaker.lock().state()
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.clock.monotonic_ns() / 1_000_000).unwrap_or(i64::MAX)
    }
}

impl PaymentProvider for GuardedProvider {
    fn name(&self) -> &'static str {
        self.provider.name()
    }

    fn execute<'a>(
        &'a self,
        tenant: &'a str,
        order_id: &'a str,
        request: &'a PaymentRequest,
    ) -> BoxFuture<'a, ProviderReply> {
        Box::pin(async move {
            let Some(leave) = self.breaker.lock().admit(self.now_ms()) else {
                return ProviderReply::unavailable(
                    "breaker_open",
                    "The payment provider is known to be down.",
                );
            };
            let call = self.provider.execute(tenant, order_id, request);
            let reply = timeout(&*self.clock, self.clock.deadline(self.timeout), call).await;
            let reply = reply.unwrap_or_else(|| {
                ProviderReply::unknown("timeout", "The payment provider did not answer in time.")
            });
            let mut breaker = self.breaker.lock();
            breaker.report(leave, reply.is_transport_failure(), self.now_ms());
            self.open_gauge.set(i64::from(!matches!(breaker.state(), BreakerState::Closed { .. })));
            drop(breaker);
            reply
        })
    }

    fn lookup<'a>(&'a self, request_key: &'a str) -> BoxFuture<'a, Lookup> {
        Box::pin(async move {
            let deadline_ns = self.clock.deadline(self.timeout);
            let found = timeout(&*self.clock, deadline_ns, self.provider.lookup(request_key)).await;
            found.unwrap_or(Lookup::Unavailable)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ManualClock, ScriptedProvider, request};
    use tillstream_schemas::order_command::PaymentOperation;

    #[tokio::test]
    async fn an_open_breaker_answers_without_calling() {
        let provider = Arc::new(ScriptedProvider::default());
        let clock = Arc::new(ManualClock::default());
        let settings = BreakerSettings { failures_max: 2, window_ms: 1_000, open_ms: 100 };
        let metrics = EffectsMetrics::register(&prometheus::Registry::new()).unwrap();
        let guard =
            GuardedProvider::new(provider.clone(), settings, Duration::from_secs(5), clock.clone(), &metrics);
        let request = request("k1", PaymentOperation::Authorize, 100);

        provider.fail_next(2);
        for _ in 0..2 {
            assert!(guard.execute("demo", "ord_1", &request).await.is_transport_failure());
        }
        let refused = guard.execute("demo", "ord_1", &request).await;
        assert!(matches!(&refused, ProviderReply::Unavailable { code, .. } if code == "breaker_open"));
        assert_eq!(provider.calls(), 2, "the provider was not called");
        assert_eq!(metrics.breaker_open.with_label_values(&["scripted"]).get(), 1);

        clock.advance_ms(100);
        assert!(!guard.execute("demo", "ord_1", &request).await.is_transport_failure());
        assert!(matches!(guard.breaker_state(), BreakerState::Closed { .. }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_end_becomes_unknown() {
        let provider = Arc::new(ScriptedProvider::default());
        provider.hang_next(1);
        let clock = Arc::new(ManualClock::default());
        let metrics = EffectsMetrics::register(&prometheus::Registry::new()).unwrap();
        let settings = BreakerSettings::default();
        let guard = GuardedProvider::new(provider, settings, Duration::from_secs(5), clock, &metrics);
        let request = request("k1", PaymentOperation::Authorize, 100);
        let reply = guard.execute("demo", "ord_1", &request).await;
        assert!(matches!(reply, ProviderReply::Unknown { code, .. } if code == "timeout"));
    }
}
