//! From what a provider said to a record for the order task; from what cannot be read to a dead letter.

use super::{ExecutorError, key_bytes};
use bytes::Bytes;
use tillstream_log::headers::{self, header};
use tillstream_log::{Headers, NewRecord, Record, TopicPartition};
use tillstream_schemas::codec::{self, CodecError};
use tillstream_schemas::dead_letter::DeadLetter;
use tillstream_schemas::effects::{EffectPayload, EffectRequest};
use tillstream_schemas::order_command::{
    OrderCommand, OrderCommandPayload, PaymentOperation, PaymentOutcome, PaymentResult,
};
use tillstream_schemas::{Text, Topic};
use tillstream_stage::ids::derived_id;
use tillstream_stage::partition::partition_of;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const STAGE: &str = "effects";

/// What all answers of one moment share.
pub(super) struct Facts {
    pub now_ms: i64,
    pub command_partitions: u32,
    pub dlq_partitions: u32,
}

pub(super) fn operation_label(operation: PaymentOperation) -> &'static str {
    match operation {
        PaymentOperation::Authorize => "authorize",
        PaymentOperation::Capture => "capture",
        PaymentOperation::Cancel => "cancel",
        PaymentOperation::Refund => "refund",
    }
}

/// The `outcome` label that all stages share.
pub(super) fn stage_outcome(outcome: PaymentOutcome) -> &'static str {
    match outcome {
        PaymentOutcome::Declined => "refused",
        PaymentOutcome::Unavailable | PaymentOutcome::Unknown => "unanswered",
        PaymentOutcome::Authorized
        | PaymentOutcome::Captured
        | PaymentOutcome::Cancelled
        | PaymentOutcome::Refunded
        | PaymentOutcome::RequiresAction => "applied",
    }
}

pub(super) fn outcome_label(outcome: PaymentOutcome) -> &'static str {
    match outcome {
        PaymentOutcome::Authorized => "authorized",
        PaymentOutcome::Captured => "captured",
        PaymentOutcome::Cancelled => "cancelled",
        PaymentOutcome::Refunded => "refunded",
        PaymentOutcome::RequiresAction => "requires_action",
        PaymentOutcome::Declined => "declined",
        PaymentOutcome::Unavailable => "unavailable",
        PaymentOutcome::Unknown => "unknown",
    }
}

/// The command that brings a result to its order. The same request, attempt and outcome give the same id.
pub(super) fn command(
    request: EffectRequest,
    result: PaymentResult,
    facts: &Facts,
) -> Result<NewRecord, ExecutorError> {
    let EffectPayload::Payment(payment) = &request.payload;
    let attempt = payment.attempt.to_string();
    let id = derived_id("cmd_", &[&request.id, &attempt, outcome_label(result.outcome)]);
    let key = key_bytes(&request.tenant, &request.order_id);
    let mut headers = Headers::new();
    if let Some(traceparent) = &request.traceparent {
        headers.push(header(headers::TRACEPARENT, Bytes::copy_from_slice(traceparent.as_bytes())));
    }
    let command = OrderCommand {
        id,
        tenant: request.tenant,
        order_id: request.order_id,
        accepted_at_ms: facts.now_ms,
        traceparent: request.traceparent,
        fingerprint: Text::default(),
        payload: OrderCommandPayload::PaymentResult(result),
    };
    let partition = partition_of(&key, facts.command_partitions);
    let to = TopicPartition::new(Topic::OrderCommands, partition);
    Ok(NewRecord { to, key, value: codec::encode(&command)?.into(), headers })
}

fn code_of(error: &CodecError) -> &'static str {
    match error {
        CodecError::Header(_) => "TS0101",
        CodecError::UnknownSchema(_) => "TS0102",
        CodecError::Decode { .. } => "TS0103",
        CodecError::Encode { .. } => "TS0104",
        CodecError::OtherSchema { .. } => "TS0105",
    }
}

/// Why a request was given up.
pub(super) struct Failure {
    pub code: &'static str,
    /// Bounded label.
    pub reason: &'static str,
    pub message: String,
}

impl From<&CodecError> for Failure {
    fn from(error: &CodecError) -> Self {
        Self { code: code_of(error), reason: "decode", message: error.to_string() }
    }
}

/// The dead letter of a request that cannot be read.
pub(super) fn dead_letter(
    input: TopicPartition,
    record: &Record,
    failure: &Failure,
    facts: &Facts,
) -> Result<NewRecord, ExecutorError> {
    let Failure { code, reason, message } = failure;
    let origin = format!("{}/{}/{}", input.topic, input.partition, record.offset);
    let letter = DeadLetter {
        id: derived_id("dlq_", &[&origin]),
        topic: input.topic.name().into(),
        partition: i32::try_from(input.partition).unwrap_or(i32::MAX),
        offset: i64::try_from(record.offset).unwrap_or(i64::MAX),
        appended_at_ms: record.timestamp_ms,
        failed_at_ms: facts.now_ms,
        stage: STAGE.into(),
        code: Text::const_new(code),
        reason: Text::const_new(reason),
        message: message.as_str().into(),
        attempts: 1,
        version: VERSION.into(),
        key: record.key.to_vec(),
        value: record.value.to_vec(),
    };
    let mut headers: Headers = [
        header(headers::ORIGIN, origin),
        header(headers::ERROR_CODE, Bytes::from_static(code.as_bytes())),
        header(headers::ERROR_REASON, Bytes::from_static(reason.as_bytes())),
        header(headers::STAGE, Bytes::from_static(STAGE.as_bytes())),
        header(headers::VERSION, Bytes::from_static(VERSION.as_bytes())),
    ]
    .into_iter()
    .collect();
    headers.extend(record.headers.iter().filter(|it| headers::is_history(&it.name)).cloned());
    let partition = partition_of(&record.key, facts.dlq_partitions);
    let to = TopicPartition::new(Topic::EffectRequestsDlq, partition);
    Ok(NewRecord { to, key: record.key.clone(), value: codec::encode(&letter)?.into(), headers })
}
