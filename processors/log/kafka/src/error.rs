//! What can go wrong, and what the client library's errors mean to the protocol.

use crate::context::Connection;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use thiserror::Error;
use tillstream_log::broker::BrokerError;
use tillstream_log::{LogError, TopicPartition};
use tillstream_schemas::Topic;

/// What can go wrong outside of a task's life.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum KafkaClientError {
    /// The client library does not take the settings.
    #[error("TS0340: the Kafka client does not take its settings: {0}")]
    Settings(String),
    /// The broker does not let this client in, or not do that.
    #[error("TS0341: the broker refused: {0}")]
    Refused(String),
    /// No answer.
    #[error("TS0342: the broker cannot be reached: {0}")]
    Unreachable(String),
    /// A topic could not be created or described.
    #[error("TS0343: topic {topic}: {detail}")]
    Topic {
        /// Which.
        topic: Topic,
        /// The broker's words.
        detail: String,
    },
}

impl KafkaClientError {
    pub(crate) fn from_client(error: &KafkaError, connection: &Connection) -> Self {
        if let KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) = error {
            return Self::Settings(error.to_string());
        }
        match broker_error(error, connection) {
            BrokerError::Refused(detail) => Self::Refused(detail),
            other => Self::Unreachable(other.to_string()),
        }
    }
}

impl From<BrokerError> for KafkaClientError {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::Refused(detail) => Self::Refused(detail),
            other => Self::Unreachable(other.to_string()),
        }
    }
}

/// Whether trying again cannot help.
fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::UnsupportedVersion
            | Code::UnsupportedFeature
            | Code::InvalidTransactionTimeout
            | Code::InvalidGroupId
    )
}

fn is_fence(code: Code) -> bool {
    matches!(
        code,
        Code::Fenced
            | Code::ProducerFenced
            | Code::InvalidProducerEpoch
            | Code::InvalidProducerIdMapping
            | Code::UnknownProducerId
    )
}

/// An error of a question, or of a client that could not be made.
pub(crate) fn broker_error(error: &KafkaError, connection: &Connection) -> BrokerError {
    if let KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) | KafkaError::Nul(_) = error {
        return BrokerError::Refused(error.to_string());
    }
    if error.rdkafka_error_code().is_some_and(is_refusal) {
        return BrokerError::Refused(error.to_string());
    }
    match connection.refused() {
        Some(reason) => BrokerError::Refused(reason),
        None => BrokerError::Unavailable(connection.explain(error)),
    }
}

/// Which step of a transaction failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Init,
    Begin,
    Offsets,
    Commit,
    Abort,
}

/// An error of a transaction's step; `fatal` is what has ended the client, if anything has.
pub(crate) fn transaction_error(
    step: Step,
    error: &KafkaError,
    fatal: Option<(Code, String)>,
    connection: &Connection,
) -> BrokerError {
    let detail = format!("{step:?}: {error}");
    if let Some((code, words)) = fatal {
        return fatal_error(code, format!("{detail}; {words}"));
    }
    let KafkaError::Transaction(cause) = error else {
        return BrokerError::Unknown(detail);
    };
    let code = cause.code();
    if is_fence(code) {
        BrokerError::Fenced(detail)
    } else if cause.txn_requires_abort() {
        BrokerError::Abortable(detail)
    } else if is_refusal(code) {
        BrokerError::Refused(detail)
    } else if step == Step::Init {
        // Nothing can have happened that the next attempt does not do again.
        connection
            .refused()
            .map_or(BrokerError::Unavailable(connection.explain(&detail)), BrokerError::Refused)
    } else {
        BrokerError::Unknown(detail)
    }
}

/// A client that has ended.
pub(crate) fn fatal_error(code: Code, detail: String) -> BrokerError {
    if is_fence(code) {
        BrokerError::Fenced(detail)
    } else if is_refusal(code) {
        BrokerError::Refused(detail)
    } else {
        BrokerError::Unknown(detail)
    }
}

/// A record of a transaction that was not taken.
pub(crate) fn produce_error(
    to: TopicPartition,
    code: Option<Code>,
    detail: &str,
    fatal: Option<(Code, String)>,
) -> BrokerError {
    let detail = format!("a record to {to}: {detail}");
    match (fatal, code) {
        (Some((code, words)), _) => fatal_error(code, format!("{detail}; {words}")),
        (None, Some(code)) if is_fence(code) => BrokerError::Fenced(detail),
        (None, Some(Code::TopicAuthorizationFailed)) => BrokerError::Refused(detail),
        // Too large, unknown, timed out: the transaction cannot be committed, another one may.
        (None, _) => BrokerError::Abortable(detail),
    }
}

/// An error of a partition's fetch.
pub(crate) fn fetch_error(partition: TopicPartition, offset: u64, error: &KafkaError) -> Option<BrokerError> {
    let code = error.rdkafka_error_code()?;
    let detail = error.to_string();
    match code {
        Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::NoOffset => {
            Some(BrokerError::OutOfRange { partition, offset, detail })
        }
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
            Some(BrokerError::Refused(format!("{partition}: {detail}")))
        }
        code if is_refusal(code) => Some(BrokerError::Refused(format!("{partition}: {detail}"))),
        // Lost connections and the like: the library goes on by itself.
        _ => None,
    }
}

/// As an error of the log.
pub(crate) fn log_error(error: BrokerError) -> LogError {
    match error {
        BrokerError::Refused(detail) => LogError::Stopped(format!("TS0341: the broker refused: {detail}")),
        other => LogError::Unavailable(other.to_string()),
    }
}
