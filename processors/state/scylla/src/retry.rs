//! When a request is tried again within itself.

use scylla::errors::{DbError, RequestAttemptError};
use scylla::policies::retry::{RequestInfo, RetryDecision, RetryPolicy, RetrySession};

/// Once, on another node, and only when the first cannot have been asked or cannot be reached any more. All else is the
/// protocol's: it waits and asks again.
#[derive(Debug)]
pub(crate) struct OnceElsewhere;

impl RetryPolicy for OnceElsewhere {
    fn new_session(&self) -> Box<dyn RetrySession> {
        Box::new(Tries { used: false })
    }
}

struct Tries {
    used: bool,
}

impl RetrySession for Tries {
    fn decide_should_retry(&mut self, request: RequestInfo<'_>) -> RetryDecision {
        let elsewhere = match request.error {
            RequestAttemptError::UnableToAllocStreamId => true,
            RequestAttemptError::BrokenConnectionError(_)
            | RequestAttemptError::DbError(DbError::Overloaded | DbError::IsBootstrapping, _) => {
                request.is_idempotent
            }
            _ => false,
        };
        if elsewhere && !std::mem::replace(&mut self.used, true) {
            return RetryDecision::RetryNextTarget(None);
        }
        RetryDecision::DontRetry
    }

    fn reset(&mut self) {
        self.used = false;
    }
}
