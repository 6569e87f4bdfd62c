//! What became of the records of a transaction.

use crate::context::{self, Connection};
use crate::convert::offset;
use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;
use std::sync::Arc;

/// A record that was not taken.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    /// Its place in the order of handing over.
    pub(crate) index: usize,
    /// Why.
    pub(crate) code: Option<RDKafkaErrorCode>,
    /// The library's words.
    pub(crate) detail: String,
}

#[derive(Debug, Default)]
struct Open {
    /// Which transaction the entries are of: reports of an older one may still come in.
    transaction: u32,
    offsets: Vec<u64>,
    acknowledged: usize,
    failed: Option<Failed>,
}

/// The context of a transactional producer.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    pub(crate) connection: Arc<Connection>,
    open: Mutex<Open>,
}

impl Deliveries {
    pub(crate) fn new(connection: Arc<Connection>) -> Self {
        Self { connection, open: Mutex::default() }
    }

    /// Forgets the transaction before.
    pub(crate) fn begin(&self) {
        let mut open = self.open.lock();
        let transaction = open.transaction.wrapping_add(1);
        *open = Open { transaction, ..Open::default() };
    }

    /// The mark of the next record: its transaction above its place.
    pub(crate) fn next(&self) -> usize {
        let mut open = self.open.lock();
        let index = open.offsets.len();
        open.offsets.push(0);
        ((open.transaction as usize) << 32) | index
    }

    /// Takes back a mark that was not used.
    pub(crate) fn take_back(&self) {
        self.open.lock().offsets.pop();
    }

    /// How many are acknowledged, and whether those are all.
    pub(crate) fn acknowledged(&self) -> (usize, bool) {
        let open = self.open.lock();
        (open.acknowledged, open.acknowledged == open.offsets.len())
    }

    /// The first record that was not taken, if any.
    pub(crate) fn failed(&self) -> Option<Failed> {
        self.open.lock().failed.clone()
    }

    /// The offsets, in the order of handing over.
    pub(crate) fn offsets(&self) -> Vec<u64> {
        self.open.lock().offsets.clone()
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        context::log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.connection.note(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, mark: usize) {
        let mut open = self.open.lock();
        if (mark >> 32) != open.transaction as usize {
            return;
        }
        let index = mark & 0xffff_ffff;
        match result {
            Ok(message) => {
                if let Some(slot) = open.offsets.get_mut(index) {
                    *slot = offset(message);
                    open.acknowledged += 1;
                }
            }
            Err((error, _)) => {
                let failed = || Failed { index, code: error.rdkafka_error_code(), detail: error.to_string() };
                open.failed.get_or_insert_with(failed);
            }
        }
    }
}
