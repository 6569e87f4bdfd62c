//! A start waits for what does not answer: a broker or a database may be starting too, as after a failure of all of them,
//! or may have died in the middle of this start.

use super::ServeError;
use crate::cluster::ClusterError;
use std::sync::Arc;
use std::time::Duration;
use tillstream_ingest_api::access::KeyError;
use tillstream_kafka::KafkaClientError;
use tillstream_log::LogError;
use tillstream_registry_log::RegistryError;
use tillstream_rule_host::RuleHostError;
use tillstream_runtime::Clock;

/// A start waits so long in all, and tries again so often.
const START_PATIENCE: Duration = Duration::from_secs(60);
const START_INTERVAL: Duration = Duration::from_secs(1);

/// How long a start still waits.
#[derive(Clone)]
pub struct Patience {
    clock: Arc<dyn Clock>,
    deadline_ns: u64,
}

impl Patience {
    /// The start begins now.
    pub fn begin(clock: Arc<dyn Clock>) -> Self {
        let deadline_ns = clock.deadline(START_PATIENCE);
        Self { clock, deadline_ns }
    }

    /// Asks until there is an answer. What is asked must do nothing twice.
    ///
    /// # Errors
    /// Anything but that something does not answer; and that, once the start has waited long enough.
    pub async fn ask<T>(&self, mut ask: impl AsyncFnMut() -> Result<T, ServeError>) -> Result<T, ServeError> {
        loop {
            match ask().await {
                Err(error) if is_away(&error) && self.clock.monotonic_ns() < self.deadline_ns => {
                    tracing::warn!(%error, "cannot start yet, tries again");
                    self.clock.sleep(START_INTERVAL).await;
                }
                outcome => return outcome,
            }
        }
    }
}

/// Whether the error says no more than that something does not answer now.
fn is_away(error: &ServeError) -> bool {
    match error {
        ServeError::Log(error) | ServeError::Cluster(ClusterError::Log(error)) => {
            matches!(error, LogError::Unavailable(_))
        }
        ServeError::Registry(error)
        | ServeError::Keys(KeyError::Registry(error))
        | ServeError::Rules(RuleHostError::Registry(error)) => {
            matches!(error, RegistryError::Log(LogError::Unavailable(_)) | RegistryError::NotFollowed { .. })
        }
        ServeError::Cluster(ClusterError::Kafka(error)) => matches!(error, KafkaClientError::Unreachable(_)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::BoxFuture;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Whoever sleeps wakes at once, and it is later.
    #[derive(Default)]
    struct Hasty(AtomicU64);

    impl Clock for Hasty {
        fn now_ms(&self) -> i64 {
            0
        }

        fn monotonic_ns(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }

        fn sleep_until(&self, deadline_ns: u64) -> BoxFuture<'static, ()> {
            self.0.store(deadline_ns, Ordering::Relaxed);
            Box::pin(std::future::ready(()))
        }
    }

    fn away() -> LogError {
        LogError::Unavailable("the database does not answer".to_owned())
    }

    /// How often it was asked, and what came of it.
    async fn asked(mut answer: impl FnMut(u32) -> Result<u32, ServeError>) -> (u32, Result<u32, ServeError>) {
        let (patience, mut times) = (Patience::begin(Arc::new(Hasty::default())), 0);
        let ask = async || {
            times += 1;
            answer(times)
        };
        let outcome = patience.ask(ask).await;
        (times, outcome)
    }

    #[tokio::test]
    async fn whatever_does_not_answer_is_asked_again() {
        let errors: [fn() -> ServeError; 4] = [
            || away().into(),
            || ClusterError::from(away()).into(),
            || KeyError::from(RegistryError::from(away())).into(),
            || RuleHostError::from(RegistryError::from(away())).into(),
        ];
        for error in errors {
            let (times, outcome) = asked(|times| if times < 4 { Err(error()) } else { Ok(times) }).await;
            assert!(times == 4 && outcome.is_ok(), "{outcome:?}");
        }
    }

    #[tokio::test]
    async fn a_start_does_not_wait_for_ever_nor_for_what_no_waiting_mends() {
        let (times, outcome) = asked(|_| Err(away().into())).await;
        assert!(times == 61 && matches!(outcome, Err(ServeError::Log(LogError::Unavailable(_)))), "{times}");
        let (times, outcome) = asked(|_| Err(ClusterError::Missing("--brokers").into())).await;
        assert!(times == 1 && outcome.is_err(), "{times}");
    }
}
