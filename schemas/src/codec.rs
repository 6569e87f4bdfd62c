//! The fast codec: Confluent header (a zero byte, the schema id as 4 bytes big-endian), then Avro.
//!
//! Values are written with the schemas in `schemas/avro`, and read back straight into the type. A value written by an
//! older build names an older id; [`HISTORY`] holds the schema it was written with, and the value is read by field
//! name: a field it does not have takes its serde default, a field this build no longer has is skipped.

use crate::Topic;
use crate::datum;
pub use crate::json::to_json;
use crate::wire_ids::foreign_id;
use serde_avro_fast::de::{DeserializerConfig, DeserializerState, read::SliceRead};
use serde_avro_fast::ser::SerializerConfig;
use std::cell::RefCell;
use std::io::BufRead;
use std::sync::OnceLock;
use thiserror::Error;

/// Bytes of the header: the zero byte and the schema id.
pub const HEADER_BYTES: usize = 5;

/// How a subject may change (Confluent's names). Every new version is checked against all older ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compatibility {
    /// New readers read old data: for commands and state, which only tillstream reads.
    BackwardTransitive,
    /// And old readers read new data: for events, which anybody may read at their own pace.
    FullTransitive,
}

impl Compatibility {
    /// As a schema registry spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BackwardTransitive => "BACKWARD_TRANSITIVE",
            Self::FullTransitive => "FULL_TRANSITIVE",
        }
    }
}

/// A type with a schema of its own.
pub trait Wire: serde::Serialize + serde::de::DeserializeOwned {
    /// Its schema.
    const SCHEMA: Schema;
    /// Whether the type has the fields, symbols and branches of its schema in the same order: then today's version is
    /// written and read straight from the type. The types here do, and a test holds each against its schema.
    const MIRRORS: bool = false;
}

macro_rules! schemas {
    ($($(#[$doc:meta])* $name:ident = $id:literal, $ty:path, $file:literal, $policy:ident, [$($subject:literal),+];)*) => {
        /// The schemas this build writes. The discriminant is the id the embedded registry gives it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Schema {
            $($(#[$doc])* $name = $id,)*
        }

        impl Schema {
            /// Every schema, by id.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name in file names: `avro/<name>.avsc`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $file,)* }
            }

            /// The schema itself, as JSON.
            pub fn avsc(self) -> &'static str {
                self.current().text
            }

            /// Every subject it stands under: `<topic>-value`, for rows that are no topic's value
            /// `<table>.state-value`. Only the dead letter has more than one.
            pub fn subjects(self) -> &'static [&'static str] {
                match self { $(Self::$name => &[$($subject),+],)* }
            }

            /// How its subjects may change.
            pub fn compatibility(self) -> Compatibility {
                match self { $(Self::$name => Compatibility::$policy,)* }
            }

            /// The version this build writes.
            pub fn current(self) -> &'static Version {
                match self {
                    $(Self::$name => {
                        static CURRENT: Version = Version::new(
                            Schema::$name, $id, include_str!(concat!("../avro/", $file, ".avsc")),
                        );
                        &CURRENT
                    })*
                }
            }

            /// The schema whose current version has this id.
            fn from_current_id(id: u32) -> Option<Self> {
                match id { $($id => Some(Self::$name),)* _ => None }
            }
        }

        $(impl Wire for $ty {
            const SCHEMA: Schema = Schema::$name;
            const MIRRORS: bool = true;
        })*
    };
}

schemas! {
    /// [`crate::order_command::OrderCommand`]
    OrderCommand = 1, crate::order_command::OrderCommand, "order-command",
        BackwardTransitive, ["orders.order.commands.v1-value"];
    /// [`crate::order_event::OrderEvent`]
    OrderEvent = 60, crate::order_event::OrderEvent, "order-event",
        FullTransitive, ["orders.order.events.v1-value"];
    /// [`crate::item::ItemCommand`]
    ItemCommand = 3, crate::item::ItemCommand, "item-command",
        BackwardTransitive, ["items.item.commands.v1-value"];
    /// [`crate::item::ItemEvent`]
    ItemEvent = 4, crate::item::ItemEvent, "item-event",
        FullTransitive, ["items.stock.events.v1-value"];
    /// [`crate::item::ProductState`]
    Product = 5, crate::item::ProductState, "product",
        FullTransitive, ["catalog.product.state.v1-value"];
    /// [`crate::effects::EffectRequest`]
    EffectRequest = 6, crate::effects::EffectRequest, "effect-request",
        BackwardTransitive, ["effects.payment.requests.v1-value"];
    /// [`crate::analytics::AnalyticsDelta`]
    AnalyticsDelta = 43, crate::analytics::AnalyticsDelta, "analytics-delta",
        FullTransitive, ["analytics.order.deltas.v1-value"];
    /// [`crate::analytics::WindowState`]
    AnalyticsWindow = 8, crate::analytics::WindowState, "analytics-window",
        FullTransitive, ["analytics.revenue.windows.v1-value"];
    /// [`crate::dead_letter::DeadLetter`]
    DeadLetter = 9, crate::dead_letter::DeadLetter, "dead-letter",
        FullTransitive, [
            "orders.order.commands.v1.dlq-value",
            "items.item.commands.v1.dlq-value",
            "effects.payment.requests.v1.dlq-value",
            "analytics.order.deltas.v1.dlq-value"
        ];
    /// [`crate::order_state::OrderState`]
    OrderState = 61, crate::order_state::OrderState, "order-state",
        BackwardTransitive, ["order.state-value"];
    /// [`crate::item::StockState`]
    StockState = 11, crate::item::StockState, "stock-state",
        BackwardTransitive, ["stock.state-value"];
    /// [`crate::item::HoldState`]
    HoldState = 12, crate::item::HoldState, "hold-state",
        BackwardTransitive, ["hold.state-value"];
    /// [`crate::item::AdjustmentState`]
    AdjustmentState = 13, crate::item::AdjustmentState, "adjustment-state",
        BackwardTransitive, ["adjustment.state-value"];
    /// [`crate::analytics::TopProductsState`]
    TopProductsState = 14, crate::analytics::TopProductsState, "top-products-state",
        BackwardTransitive, ["top_products.state-value"];
    /// [`crate::analytics::CorrectionState`]
    CorrectionState = 15, crate::analytics::CorrectionState, "correction-state",
        BackwardTransitive, ["correction.state-value"];
    /// [`crate::analytics::WatermarkState`]
    WatermarkState = 16, crate::analytics::WatermarkState, "watermark-state",
        BackwardTransitive, ["watermark.state-value"];
    /// [`crate::access::AccessEvent`]
    AccessEvent = 17, crate::access::AccessEvent, "access-event",
        BackwardTransitive, ["access.keys.v1-value"];
    /// [`crate::webhook::WebhookEndpointEvent`]
    WebhookEndpointEvent = 18, crate::webhook::WebhookEndpointEvent, "webhook-endpoint-event",
        BackwardTransitive, ["webhooks.endpoints.v1-value"];
    /// [`crate::webhook::WebhookFeedState`]
    WebhookFeedState = 40, crate::webhook::WebhookFeedState, "webhook-feed-state",
        BackwardTransitive, ["webhook_feed.state-value"];
    /// [`crate::webhook::WebhookLaneState`]
    WebhookLaneState = 41, crate::webhook::WebhookLaneState, "webhook-lane-state",
        BackwardTransitive, ["webhook_lane.state-value"];
    /// [`crate::webhook::WebhookDeliveryState`]
    WebhookDeliveryState = 42, crate::webhook::WebhookDeliveryState, "webhook-delivery-state",
        BackwardTransitive, ["webhook_delivery.state-value"];
    /// [`crate::rules::RuleEvent`]
    RuleEvent = 70, crate::rules::RuleEvent, "rule-event",
        BackwardTransitive, ["rules.registry.v1-value"];
    /// [`crate::rules::RuleModule`]
    RuleModule = 20, crate::rules::RuleModule, "rule-module",
        BackwardTransitive, ["rules.modules.v1-value"];
    /// [`crate::rule_sample::RuleSample`]
    RuleSample = 63, crate::rule_sample::RuleSample, "rule-sample",
        BackwardTransitive, ["rules.samples.v1-value"];
}

/// Versions older builds wrote and this one still reads. `schemas/avro/README.md` says when to add one, such as
/// `Version::new(Schema::StockState, 11, include_str!("../avro/history/stock-state/v1.avsc"))`.
pub static HISTORY: [Version; 7] = [
    Version::new(Schema::OrderEvent, 2, include_str!("../avro/history/order-event/v1.avsc")),
    Version::new(Schema::OrderState, 10, include_str!("../avro/history/order-state/v1.avsc")),
    Version::new(Schema::AnalyticsDelta, 7, include_str!("../avro/history/analytics-delta/v1.avsc")),
    Version::new(Schema::OrderEvent, 30, include_str!("../avro/history/order-event/v2.avsc")),
    Version::new(Schema::OrderState, 31, include_str!("../avro/history/order-state/v2.avsc")),
    Version::new(Schema::RuleEvent, 19, include_str!("../avro/history/rule-event/v1.avsc")),
    Version::new(Schema::RuleEvent, 62, include_str!("../avro/history/rule-event/v2.avsc")),
];

impl Schema {
    /// The subject it stands under; of a dead letter, which has several, the first. See [`Schema::subjects`].
    pub fn subject(self) -> &'static str {
        self.subjects().first().copied().unwrap_or_default()
    }

    /// The schema of a topic's values; a changelog holds rows of several, a topic nobody writes to yet has none.
    pub fn for_topic(topic: Topic) -> Option<Self> {
        Some(match topic {
            Topic::OrderCommands => Self::OrderCommand,
            Topic::OrderEvents => Self::OrderEvent,
            Topic::ItemCommands => Self::ItemCommand,
            Topic::ItemEvents => Self::ItemEvent,
            Topic::Products => Self::Product,
            Topic::EffectRequests => Self::EffectRequest,
            Topic::AnalyticsDeltas => Self::AnalyticsDelta,
            Topic::AnalyticsWindows => Self::AnalyticsWindow,
            Topic::OrderCommandsDlq
            | Topic::ItemCommandsDlq
            | Topic::EffectRequestsDlq
            | Topic::AnalyticsDeltasDlq => Self::DeadLetter,
            Topic::AccessKeys => Self::AccessEvent,
            Topic::WebhookEndpoints => Self::WebhookEndpointEvent,
            Topic::RuleRegistry => Self::RuleEvent,
            Topic::RuleModules => Self::RuleModule,
            Topic::RuleSamples => Self::RuleSample,
            Topic::OrderChangelog
            | Topic::ItemChangelog
            | Topic::AnalyticsChangelog
            | Topic::WebhooksChangelog
            | Topic::ItemWebhooksChangelog => return None,
        })
    }
}

/// One version of a schema, under the id its values carry.
#[derive(Debug)]
pub struct Version {
    /// Which schema.
    pub schema: Schema,
    /// The id in the header. An id is never given to another version.
    pub id: u32,
    /// The schema as JSON.
    pub text: &'static str,
    parsed: OnceLock<Result<serde_avro_fast::Schema, String>>,
}

impl Version {
    /// A version; it is parsed when first used.
    pub const fn new(schema: Schema, id: u32, text: &'static str) -> Self {
        Self { schema, id, text, parsed: OnceLock::new() }
    }

    /// The version with this id, current or old.
    pub fn by_id(id: u32) -> Option<&'static Self> {
        match Schema::from_current_id(id) {
            Some(schema) => Some(schema.current()),
            None => HISTORY.iter().find(|version| version.id == id),
        }
    }

    /// Every version this build can read: the current ones by id, then the old ones.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        Schema::ALL.iter().map(|it| it.current()).chain(HISTORY.iter())
    }

    fn parsed(&self) -> Result<&serde_avro_fast::Schema, &str> {
        let parsed = self.parsed.get_or_init(|| self.text.parse().map_err(|error| format!("{error}")));
        parsed.as_ref().map_err(String::as_str)
    }

    /// Reads one datum (no header) that was written with this version. Nothing may follow it.
    ///
    /// # Errors
    /// [`CodecError::Decode`] when the bytes do not fit, or bytes are left over.
    pub fn read<T: Wire>(&self, datum: &[u8]) -> Result<T, CodecError> {
        let refuse = |detail: String| CodecError::Decode { schema: self.schema, detail };
        if T::MIRRORS && std::ptr::eq(self, T::SCHEMA.current()) {
            return datum::read(datum).map_err(|error| refuse(error.to_string()));
        }
        let mut config = DeserializerConfig::new(self.parsed().map_err(|error| refuse(error.to_owned()))?);
        // Every element takes at least one byte, so a larger count is a lie. Most lies end at the last byte, but a
        // count of elements without bytes (nulls, empty records) would go on for a billion turns.
        config.max_seq_size = datum.len();
        let mut state = DeserializerState::with_config(SliceRead::new(datum), config);
        let value = T::deserialize(state.deserializer()).map_err(|error| refuse(error.to_string()))?;
        match state.into_reader().fill_buf() {
            Ok([]) => Ok(value),
            Ok(rest) => Err(refuse(format!("{} bytes follow the record", rest.len()))),
            Err(error) => Err(refuse(error.to_string())),
        }
    }
}

/// What can go wrong between bytes and values.
#[derive(Debug, Error)]
pub enum CodecError {
    /// The value is shorter than the header or does not start with 0.
    #[error("TS0101: not in Confluent wire format: {0}")]
    Header(&'static str),
    /// The schema id is not one this build knows.
    #[error("TS0102: schema id {0} is not known here")]
    UnknownSchema(u32),
    /// The bytes do not fit the schema.
    #[error("TS0103: {schema:?} cannot be decoded: {detail}")]
    Decode {
        /// Which schema.
        schema: Schema,
        /// The codec's words.
        detail: String,
    },
    /// The value does not fit the schema.
    #[error("TS0104: {schema:?} cannot be encoded: {detail}")]
    Encode {
        /// Which schema.
        schema: Schema,
        /// The codec's words.
        detail: String,
    },
    /// The value is a record, but of another schema than the one asked for.
    #[error("TS0105: a {expected:?} was expected, this is a {found:?}")]
    OtherSchema {
        /// What was asked for.
        expected: Schema,
        /// What the header names.
        found: Schema,
    },
}

thread_local! {
    /// Where a value is written before its size is known.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A scratch that one huge value blew up is given back.
const SCRATCH_BYTES_MAX: usize = 1 << 20;

/// Encodes a value behind its header. The vector is as large as what it holds.
///
/// # Errors
/// [`CodecError::Encode`] when the value does not fit its schema.
pub fn encode<T: Wire>(value: &T) -> Result<Vec<u8>, CodecError> {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.clear();
        encode_into(value, scratch)?;
        let exact = scratch.as_slice().to_vec();
        scratch.shrink_to(SCRATCH_BYTES_MAX);
        Ok(exact)
    })
}

/// Appends a value behind its header to `out`. On an error `out` is as it was.
///
/// # Errors
/// [`CodecError::Encode`] when the value does not fit its schema.
pub fn encode_into<T: Wire>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let start = out.len();
    let version = T::SCHEMA.current();
    out.push(0);
    out.extend_from_slice(&version.id.to_be_bytes());
    let written = if T::MIRRORS {
        datum::write(value, out).map_err(|error| error.to_string())
    } else {
        write_by_schema(value, version, out)
    };
    written.map_err(|detail| {
        out.truncate(start);
        CodecError::Encode { schema: T::SCHEMA, detail }
    })
}

fn write_by_schema<T: Wire>(value: &T, version: &Version, out: &mut Vec<u8>) -> Result<(), String> {
    let schema = version.parsed()?;
    // A new config allocates nothing: its buffers are for fields out of schema order, and ours are in order.
    match serde_avro_fast::to_datum(value, &mut *out, &mut SerializerConfig::new(schema)) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Decodes a value that this build or an older one wrote.
///
/// # Errors
/// [`CodecError::Header`] without a header, [`CodecError::UnknownSchema`] for an id that is not known here,
/// [`CodecError::OtherSchema`] when it is not a `T`, [`CodecError::Decode`] when the bytes do not fit the schema
/// or go on after it.
pub fn decode<T: Wire>(value: &[u8]) -> Result<T, CodecError> {
    let (version, datum) = open(value)?;
    if version.schema != T::SCHEMA {
        return Err(CodecError::OtherSchema { expected: T::SCHEMA, found: version.schema });
    }
    version.read(datum)
}

/// Reads the header: the version a value was written with, and the datum behind the header.
///
/// # Errors
/// [`CodecError::Header`] without a header, [`CodecError::UnknownSchema`] for an id that is not known here.
pub fn open(value: &[u8]) -> Result<(&'static Version, &[u8]), CodecError> {
    let Some((&[magic, a, b, c, d], datum)) = value.split_first_chunk::<HEADER_BYTES>() else {
        return Err(CodecError::Header("shorter than 5 bytes"));
    };
    if magic != 0 {
        return Err(CodecError::Header("the first byte is not 0"));
    }
    let id = u32::from_be_bytes([a, b, c, d]);
    Ok((Version::by_id(id).ok_or_else(|| CodecError::UnknownSchema(foreign_id(id)))?, datum))
}
