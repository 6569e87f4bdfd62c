//! Avro: the codec that tillstream uses, held against apache-avro, the slow reference.

use apache_avro::types::Value;
use apache_avro::{Schema as Reference, from_avro_datum, to_avro_datum};
use std::sync::LazyLock;
use tillstream_schemas::codec::{self, CodecError, Schema, Version, Wire};
use tillstream_schemas::wire_ids::WireIds;
use tillstream_schemas::{
    access, analytics, dead_letter, effects, item, order_command, order_event, order_state, rules, webhook,
};

static REFERENCES: LazyLock<Vec<Reference>> = LazyLock::new(|| {
    // It counts elements, of up to 100 bytes each, and no input is longer than this.
    apache_avro::util::max_allocation_bytes(64 << 10);
    Schema::ALL.iter().map(|it| Reference::parse_str(it.avsc()).unwrap()).collect()
});

/// Decodes a value as its schema's type and encodes it again.
fn recode(schema: Schema, value: &[u8]) -> Result<Vec<u8>, CodecError> {
    fn call<T: Wire>(value: &[u8]) -> Result<Vec<u8>, CodecError> {
        codec::encode(&codec::decode::<T>(value)?)
    }
    match schema {
        Schema::OrderCommand => call::<order_command::OrderCommand>(value),
        Schema::OrderEvent => call::<order_event::OrderEvent>(value),
        Schema::ItemCommand => call::<item::ItemCommand>(value),
        Schema::ItemEvent => call::<item::ItemEvent>(value),
        Schema::Product => call::<item::ProductState>(value),
        Schema::EffectRequest => call::<effects::EffectRequest>(value),
        Schema::AnalyticsDelta => call::<analytics::AnalyticsDelta>(value),
        Schema::AnalyticsWindow => call::<analytics::WindowState>(value),
        Schema::DeadLetter => call::<dead_letter::DeadLetter>(value),
        Schema::OrderState => call::<order_state::OrderState>(value),
        Schema::StockState => call::<item::StockState>(value),
        Schema::HoldState => call::<item::HoldState>(value),
        Schema::AdjustmentState => call::<item::AdjustmentState>(value),
        Schema::TopProductsState => call::<analytics::TopProductsState>(value),
        Schema::CorrectionState => call::<analytics::CorrectionState>(value),
        Schema::WatermarkState => call::<analytics::WatermarkState>(value),
        Schema::AccessEvent => call::<access::AccessEvent>(value),
        Schema::WebhookEndpointEvent => call::<webhook::WebhookEndpointEvent>(value),
        Schema::WebhookFeedState => call::<webhook::WebhookFeedState>(value),
        Schema::WebhookLaneState => call::<webhook::WebhookLaneState>(value),
        Schema::WebhookDeliveryState => call::<webhook::WebhookDeliveryState>(value),
        Schema::RuleEvent => call::<rules::RuleEvent>(value),
        Schema::RuleSample => call::<tillstream_schemas::rule_sample::RuleSample>(value),
        Schema::RuleModule => call::<rules::RuleModule>(value),
    }
}

/// What the reference reads, if it reads all of it.
fn reference(schema: Schema, mut datum: &[u8]) -> Option<Value> {
    let at = Schema::ALL.iter().position(|it| *it == schema)?;
    let value = from_avro_datum(&REFERENCES[at], &mut datum, None).ok()?;
    datum.is_empty().then_some(value)
}

/// What the reference writes.
fn written(schema: Schema, value: Value) -> Option<Vec<u8>> {
    let at = Schema::ALL.iter().position(|it| *it == schema)?;
    to_avro_datum(&REFERENCES[at], value).ok()
}

fn framed(schema: Schema, datum: &[u8]) -> Vec<u8> {
    let mut value = vec![0];
    value.extend(schema.current().id.to_be_bytes());
    value.extend(datum);
    value
}

/// What must hold of any bytes behind a header of ours.
fn agree(schema: Schema, datum: &[u8]) {
    let value = framed(schema, datum);
    let theirs = reference(schema, datum);
    match recode(schema, &value) {
        Ok(ours) => {
            assert_eq!(
                recode(schema, &ours).unwrap(),
                ours,
                "{schema:?}: what was read, written and read is another"
            );
            let canonical =
                reference(schema, &ours[codec::HEADER_BYTES..]).expect("the reference reads what we write");
            let theirs = theirs.expect("the reference reads what we read");
            assert_eq!(canonical, theirs, "{schema:?}: the reference reads another value");
            assert!(codec::to_json(&value).unwrap().is_object(), "a record is shown as an object");
        }
        Err(error) => {
            assert!(error.to_string().starts_with("TS0103"), "{error}");
            // The reference takes a text that the end cuts off for none at all, and cannot write that again.
            let again = theirs.and_then(|it| written(schema, it));
            assert!(
                again.as_deref() != Some(datum),
                "{schema:?}: the reference reads and writes what we refuse: {error}"
            );
            assert!(codec::to_json(&value).is_err());
        }
    }
}

/// The schema's number, then a record of it.
pub fn datum(input: &[u8]) {
    let Some((schema, datum)) = input.split_first() else { return };
    agree(Schema::ALL[usize::from(*schema) % Schema::ALL.len()], datum);
}

/// A value with its header.
pub fn wire(input: &[u8]) {
    match codec::open(input) {
        Ok((version, datum)) => {
            assert_eq!(input[0], 0);
            assert_eq!(input[1..codec::HEADER_BYTES], version.id.to_be_bytes());
            agree(version.schema, datum);
        }
        Err(error) => {
            let code = if input.len() < codec::HEADER_BYTES || input[0] != 0 { "TS0101" } else { "TS0102" };
            assert!(error.to_string().starts_with(code), "{error}");
            assert!(codec::to_json(input).is_err());
        }
    }
}

/// A registry's id for each version of ours, then values that come from it.
pub fn wire_ids(input: &[u8]) {
    let mut numbers = input.chunks_exact(4).map(|it| u32::from_be_bytes(it.try_into().unwrap()));
    let ids: Vec<u32> = Version::all().map(|it| it.id).collect();
    let pairs: Vec<(u32, u32)> = ids.iter().copied().zip(&mut numbers).collect();
    let Ok(wire_ids) = WireIds::new(pairs.iter().copied()) else { return };
    for (local, registry) in &pairs {
        assert_eq!((wire_ids.to_registry(*local), wire_ids.to_local(*registry)), (*registry, *local));
    }
    for id in numbers.chain(ids).chain(pairs.iter().map(|it| it.1)) {
        let mut value = vec![0];
        value.extend(id.to_be_bytes());
        let came = value.clone();
        wire_ids.header_to_local(&mut value);
        if pairs.iter().all(|it| it.1 != id) {
            assert!(codec::open(&value).is_err(), "somebody else's {id} is taken for one of ours");
        }
        wire_ids.header_to_registry(&mut value);
        assert_eq!(value, came, "what came in goes out again");
    }
}
