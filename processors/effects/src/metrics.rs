//! What the executor counts beside the metrics every stage has.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

/// Metrics of effects. Clones share the same counters.
#[derive(Clone, Debug)]
pub struct EffectsMetrics {
    /// Requests performed, by `provider`, `operation` and `outcome`.
    pub requests: IntCounterVec,
    /// How long the provider took, by `provider`.
    pub request_seconds: HistogramVec,
    /// Requests begun and not answered, by `partition`.
    pub in_flight: IntGaugeVec,
    /// 1 while the breaker is not closed, by `provider`.
    pub breaker_open: IntGaugeVec,
}

impl EffectsMetrics {
    /// Makes the metrics and registers them.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let buckets = vec![0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
        let metrics = Self {
            requests: IntCounterVec::new(
                Opts::new("tillstream_effects_requests_total", "Requests made to a payment provider"),
                &["provider", "operation", "outcome"],
            )?,
            request_seconds: HistogramVec::new(
                HistogramOpts::new("tillstream_effects_request_seconds", "Time a payment provider took")
                    .buckets(buckets),
                &["provider"],
            )?,
            in_flight: IntGaugeVec::new(
                Opts::new("tillstream_effects_in_flight_requests", "Requests begun and not answered"),
                &["partition"],
            )?,
            breaker_open: IntGaugeVec::new(
                Opts::new("tillstream_effects_breaker_open", "1 while the provider's breaker is not closed"),
                &["provider"],
            )?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.request_seconds.clone()))?;
        registry.register(Box::new(metrics.in_flight.clone()))?;
        registry.register(Box::new(metrics.breaker_open.clone()))?;
        Ok(metrics)
    }
}
