//! From a schema's name to its Rust type.

use crate::mirror;
use serde::{Deserialize, Serialize};
use tillstream_schemas::codec::{self, CodecError, Schema, Version, Wire};
use tillstream_schemas::{
    access, analytics, dead_letter, effects, item, order_command, order_event, order_state, rules, webhook,
};

macro_rules! with_type {
    ($schema:expr, $call:ident($($arg:expr),*)) => {
        match $schema {
            Schema::OrderCommand => $call::<order_command::OrderCommand>($($arg),*),
            Schema::OrderEvent => $call::<order_event::OrderEvent>($($arg),*),
            Schema::ItemCommand => $call::<item::ItemCommand>($($arg),*),
            Schema::ItemEvent => $call::<item::ItemEvent>($($arg),*),
            Schema::Product => $call::<item::ProductState>($($arg),*),
            Schema::EffectRequest => $call::<effects::EffectRequest>($($arg),*),
            Schema::AnalyticsDelta => $call::<analytics::AnalyticsDelta>($($arg),*),
            Schema::AnalyticsWindow => $call::<analytics::WindowState>($($arg),*),
            Schema::DeadLetter => $call::<dead_letter::DeadLetter>($($arg),*),
            Schema::OrderState => $call::<order_state::OrderState>($($arg),*),
            Schema::StockState => $call::<item::StockState>($($arg),*),
            Schema::HoldState => $call::<item::HoldState>($($arg),*),
            Schema::AdjustmentState => $call::<item::AdjustmentState>($($arg),*),
            Schema::TopProductsState => $call::<analytics::TopProductsState>($($arg),*),
            Schema::CorrectionState => $call::<analytics::CorrectionState>($($arg),*),
            Schema::WatermarkState => $call::<analytics::WatermarkState>($($arg),*),
            Schema::AccessEvent => $call::<access::AccessEvent>($($arg),*),
            Schema::RuleEvent => $call::<rules::RuleEvent>($($arg),*),
            Schema::RuleSample => $call::<tillstream_schemas::rule_sample::RuleSample>($($arg),*),
            Schema::RuleModule => $call::<rules::RuleModule>($($arg),*),
            Schema::WebhookEndpointEvent => $call::<webhook::WebhookEndpointEvent>($($arg),*),
            Schema::WebhookFeedState => $call::<webhook::WebhookFeedState>($($arg),*),
            Schema::WebhookLaneState => $call::<webhook::WebhookLaneState>($($arg),*),
            Schema::WebhookDeliveryState => $call::<webhook::WebhookDeliveryState>($($arg),*),
        }
    };
}

/// Decodes a value as the schema's type and encodes it again.
pub fn recode(schema: Schema, value: &[u8]) -> Result<Vec<u8>, CodecError> {
    fn call<T: Wire>(value: &[u8]) -> Result<Vec<u8>, CodecError> {
        codec::encode(&codec::decode::<T>(value)?)
    }
    with_type!(schema, call(value))
}

/// Decodes a datum written with `version` as the schema's type and encodes it with today's.
pub fn upgrade(version: &Version, datum: &[u8]) -> Result<Vec<u8>, CodecError> {
    fn call<T: Wire>(version: &Version, datum: &[u8]) -> Result<Vec<u8>, CodecError> {
        codec::encode(&version.read::<T>(datum)?)
    }
    with_type!(version.schema, call(version, datum))
}

/// Whether two values decode to the same Rust value.
pub fn same(schema: Schema, left: &[u8], right: &[u8]) -> bool {
    fn call<T: Wire + PartialEq>(left: &[u8], right: &[u8]) -> bool {
        codec::decode::<T>(left).unwrap() == codec::decode::<T>(right).unwrap()
    }
    with_type!(schema, call(left, right))
}

/// What straight from the type and by the schema make of the same bytes: what they encode again, or `None`.
pub fn both_ways(schema: Schema, value: &[u8]) -> [Option<Vec<u8>>; 2] {
    fn call<T: Wire + PartialEq>(value: &[u8]) -> [Option<Vec<u8>>; 2] {
        const { assert!(T::MIRRORS && !BySchema::<T>::MIRRORS) };
        match (codec::decode::<T>(value), codec::decode::<BySchema<T>>(value)) {
            (Ok(straight), Ok(by_schema)) if straight == by_schema.0 => {
                [codec::encode(&straight).ok(), codec::encode(&by_schema).ok()]
            }
            (Ok(straight), Ok(by_schema)) => {
                // Never the same: two values that read alike would not come here.
                [Some(codec::encode(&straight).unwrap()), codec::encode(&by_schema).ok().map(|_| Vec::new())]
            }
            (straight, by_schema) => [
                straight.ok().map(|it| codec::encode(&it).unwrap()),
                by_schema.ok().map(|it| codec::encode(&it).unwrap()),
            ],
        }
    }
    with_type!(schema, call(value))
}

/// A wire type that is read and written by the schema, whatever it mirrors.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct BySchema<T>(T);

impl<T: Wire> Wire for BySchema<T> {
    const SCHEMA: Schema = T::SCHEMA;
}

/// Walks the Rust type and the schema side by side; see [`mirror`].
pub fn mirror(schema: Schema, walk: mirror::Walk<'_>) -> Result<(), String> {
    fn call<T: Wire>(walk: mirror::Walk<'_>) -> Result<(), String> {
        T::deserialize(walk).map(|_| ()).map_err(|error| error.to_string())
    }
    with_type!(schema, call(walk))
}

/// The header of today's values.
pub fn header(schema: Schema) -> Vec<u8> {
    let mut header = vec![0];
    header.extend(schema.current().id.to_be_bytes());
    header
}
