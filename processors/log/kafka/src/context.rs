//! What the client library tells besides its answers: log lines and errors of its connections.

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The last reason why the broker did not let a client in. Connections are tried again for ever, so a call only sees
/// a timeout; this says why. Once the broker has let this process in, a refusal is an outage like any other: a broker
/// that starts again refuses for a moment what it took before.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    refused: Mutex<Option<String>>,
    last: Mutex<String>,
    let_in: AtomicBool,
}

impl Connection {
    /// Why the broker refused, if it never did otherwise.
    pub(crate) fn refused(&self) -> Option<String> {
        if self.let_in.load(Ordering::Relaxed) { None } else { self.refused.lock().clone() }
    }

    /// The broker has answered.
    pub(crate) fn answered(&self) {
        self.let_in.store(true, Ordering::Relaxed);
        self.last.lock().clear();
    }

    /// A call's words, with what happened to the connections since the last answer.
    pub(crate) fn explain(&self, words: &impl std::fmt::Display) -> String {
        let last = self.last.lock();
        if last.is_empty() { words.to_string() } else { format!("{words}; {last}") }
    }

    /// Notes an error of a client.
    pub(crate) fn note(&self, error: &KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        let refused = match code {
            Some(
                RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::UnsupportedSASLMechanism,
            ) => true,
            // A handshake also fails when the other side just goes away; and a server that wants a certificate says
            // so after the handshake.
            _ => reason.contains("certificate"),
        };
        if refused {
            *self.refused.lock() = Some(reason.to_owned());
        }
        *self.last.lock() = reason.to_owned();
        tracing::debug!(code = ?code, reason, "Kafka client");
    }
}

/// Forwards a log line of the library.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, line: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning => tracing::warn!(facility, line, "Kafka client"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::debug!(facility, line, "Kafka client");
        }
    }
}

/// The context of clients that are only asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plain(pub(crate) Arc<Connection>);

impl ClientContext for Plain {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.note(&error, reason);
    }
}

impl ConsumerContext for Plain {}
