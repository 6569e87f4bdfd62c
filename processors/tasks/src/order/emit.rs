//! The order task's records.

use tillstream_schemas::effects::{EffectPayload, EffectRequest, PaymentRequest};
use tillstream_schemas::item::{ItemCommand, ItemCommandPayload};
use tillstream_schemas::order_event::OrderEvent;
use tillstream_schemas::{Text, Topic, codec};
use tillstream_stage::ids::{key, output_id};
use tillstream_stage::task::{Output, TaskError};

/// What the outputs of one input have in common.
pub(super) struct Cause<'a> {
    /// The tenant.
    pub tenant: &'a Text,
    /// The input's id.
    pub input_id: &'a str,
    /// W3C trace context.
    pub traceparent: Option<&'a Text>,
    /// The wall clock, ms since the epoch.
    pub now_ms: i64,
}

/// An event of the public history.
pub(super) fn event(event: OrderEvent) -> Result<Output, TaskError> {
    Ok(Output {
        topic: Topic::OrderEvents,
        key: key(&event.tenant, &event.order_id),
        value: codec::encode(&event)?,
        kind: event.payload.kind(),
        id: event.id,
        traceparent: event.traceparent,
    })
}

/// The `n`th item command of an input.
pub(super) fn item_command(
    cause: &Cause<'_>,
    n: u32,
    sku: Text,
    payload: ItemCommandPayload,
) -> Result<Output, TaskError> {
    let command = ItemCommand {
        id: output_id("cmd_", cause.input_id, n),
        tenant: cause.tenant.clone(),
        sku,
        accepted_at_ms: cause.now_ms,
        traceparent: cause.traceparent.cloned(),
        payload,
    };
    Ok(Output {
        topic: Topic::ItemCommands,
        key: key(&command.tenant, &command.sku),
        value: codec::encode(&command)?,
        id: command.id,
        kind: "",
        traceparent: command.traceparent,
    })
}

/// The `n`th payment request of an input.
pub(super) fn payment_request(
    cause: &Cause<'_>,
    n: u32,
    order_id: &Text,
    request: PaymentRequest,
) -> Result<Output, TaskError> {
    let effect = EffectRequest {
        id: output_id("eff_", cause.input_id, n),
        tenant: cause.tenant.clone(),
        order_id: order_id.clone(),
        requested_at_ms: cause.now_ms,
        traceparent: cause.traceparent.cloned(),
        payload: EffectPayload::Payment(request),
    };
    Ok(Output {
        topic: Topic::EffectRequests,
        key: key(&effect.tenant, &effect.order_id),
        value: codec::encode(&effect)?,
        id: effect.id,
        kind: "",
        traceparent: effect.traceparent,
    })
}
