//! Records as JSON, for people: tailing a topic, showing a dead letter.

use crate::codec::{self, CodecError, Schema, Version, Wire};
use crate::dead_letter::DeadLetter;
use serde_json::{Value, json};

/// Any record as JSON, read by the schema its header names. A payload is an object with one entry, named by the
/// branch: `{"tillstream.OrderPriced": {…}}`. A dead letter's value is shown as the record it holds, else in hex.
///
/// # Errors
/// As [`codec::decode`].
pub fn to_json(value: &[u8]) -> Result<Value, CodecError> {
    let (version, datum) = codec::open(value)?;
    match version.schema {
        Schema::DeadLetter => dead_letter(&version.read::<DeadLetter>(datum)?),
        _ => record(version, datum),
    }
}

fn record(version: &Version, datum: &[u8]) -> Result<Value, CodecError> {
    use crate::{access, analytics, effects, item, order_command, order_event, order_state, rules, webhook};
    match version.schema {
        Schema::OrderCommand => typed::<order_command::OrderCommand>(version, datum),
        Schema::OrderEvent => typed::<order_event::OrderEvent>(version, datum),
        Schema::ItemCommand => typed::<item::ItemCommand>(version, datum),
        Schema::ItemEvent => typed::<item::ItemEvent>(version, datum),
        Schema::Product => typed::<item::ProductState>(version, datum),
        Schema::EffectRequest => typed::<effects::EffectRequest>(version, datum),
        Schema::AnalyticsDelta => typed::<analytics::AnalyticsDelta>(version, datum),
        Schema::AnalyticsWindow => typed::<analytics::WindowState>(version, datum),
        Schema::DeadLetter => typed::<DeadLetter>(version, datum),
        Schema::OrderState => typed::<order_state::OrderState>(version, datum),
        Schema::StockState => typed::<item::StockState>(version, datum),
        Schema::HoldState => typed::<item::HoldState>(version, datum),
        Schema::AdjustmentState => typed::<item::AdjustmentState>(version, datum),
        Schema::TopProductsState => typed::<analytics::TopProductsState>(version, datum),
        Schema::CorrectionState => typed::<analytics::CorrectionState>(version, datum),
        Schema::WatermarkState => typed::<analytics::WatermarkState>(version, datum),
        Schema::AccessEvent => typed::<access::AccessEvent>(version, datum),
        Schema::RuleEvent => typed::<rules::RuleEvent>(version, datum),
        Schema::RuleModule => typed::<rules::RuleModule>(version, datum),
        Schema::RuleSample => typed::<crate::rule_sample::RuleSample>(version, datum),
        Schema::WebhookEndpointEvent => {
            shown(&version.read::<webhook::WebhookEndpointEvent>(datum)?.redacted())
        }
        Schema::WebhookFeedState => typed::<webhook::WebhookFeedState>(version, datum),
        Schema::WebhookLaneState => typed::<webhook::WebhookLaneState>(version, datum),
        Schema::WebhookDeliveryState => typed::<webhook::WebhookDeliveryState>(version, datum),
    }
}

fn typed<T: Wire>(version: &Version, datum: &[u8]) -> Result<Value, CodecError> {
    shown(&version.read::<T>(datum)?)
}

fn shown<T: Wire>(value: &T) -> Result<Value, CodecError> {
    serde_json::to_value(value)
        .map_err(|error| CodecError::Encode { schema: T::SCHEMA, detail: error.to_string() })
}

/// A dead letter inside a dead letter stays hex, so that hostile nesting ends here.
fn dead_letter(letter: &DeadLetter) -> Result<Value, CodecError> {
    let mut shown = shown(&DeadLetter { key: Vec::new(), value: Vec::new(), ..letter.clone() })?;
    shown["key"] = match std::str::from_utf8(&letter.key) {
        Ok(key) => json!(key),
        Err(_) => json!({ "hex": hex(&letter.key) }),
    };
    shown["value"] = match codec::open(&letter.value) {
        Ok((version, datum)) if version.schema != Schema::DeadLetter => record(version, datum).ok(),
        _ => None,
    }
    .unwrap_or_else(|| json!({ "hex": hex(&letter.value) }));
    Ok(shown)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
