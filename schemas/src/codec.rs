//! The fast codec: Confluent header (a zero byte, the schema id as 4 bytes big-endian), then Avro.

use thiserror::Error;

/// The schemas this build writes. The discriminant is the id the embedded registry gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Schema {
    /// [`crate::order_command::OrderCommand`]
    OrderCommand = 1,
    /// [`crate::order_event::OrderEvent`]
    OrderEvent = 2,
    /// [`crate::item::ItemCommand`]
    ItemCommand = 3,
    /// [`crate::item::ItemEvent`]
    ItemEvent = 4,
    /// [`crate::item::ProductState`]
    Product = 5,
    /// [`crate::effects::EffectRequest`]
    EffectRequest = 6,
    /// [`crate::analytics::AnalyticsDelta`]
    AnalyticsDelta = 7,
    /// [`crate::analytics::WindowState`]
    AnalyticsWindow = 8,
    /// [`crate::dead_letter::DeadLetter`]
    DeadLetter = 9,
    /// [`crate::order_state::OrderState`]
    OrderState = 10,
    /// [`crate::item::StockState`]
    StockState = 11,
    /// [`crate::item::HoldState`]
    HoldState = 12,
    /// [`crate::item::AdjustmentState`]
    AdjustmentState = 13,
    /// [`crate::analytics::TopProductsState`]
    TopProductsState = 14,
    /// [`crate::analytics::CorrectionState`]
    CorrectionState = 15,
    /// [`crate::analytics::WatermarkState`]
    WatermarkState = 16,
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
}

/// A type with a schema of its own.
pub trait Wire: serde::Serialize + serde::de::DeserializeOwned {
    /// Its schema.
    const SCHEMA: Schema;
}

macro_rules! wire {
    ($($ty:path = $schema:ident,)*) => { $(impl Wire for $ty { const SCHEMA: Schema = Schema::$schema; })* };
}

wire! {
    crate::order_command::OrderCommand = OrderCommand,
    crate::order_event::OrderEvent = OrderEvent,
    crate::item::ItemCommand = ItemCommand,
    crate::item::ItemEvent = ItemEvent,
    crate::item::ProductState = Product,
    crate::effects::EffectRequest = EffectRequest,
    crate::analytics::AnalyticsDelta = AnalyticsDelta,
    crate::analytics::WindowState = AnalyticsWindow,
    crate::dead_letter::DeadLetter = DeadLetter,
    crate::order_state::OrderState = OrderState,
    crate::item::StockState = StockState,
    crate::item::HoldState = HoldState,
    crate::item::AdjustmentState = AdjustmentState,
    crate::analytics::TopProductsState = TopProductsState,
    crate::analytics::CorrectionState = CorrectionState,
    crate::analytics::WatermarkState = WatermarkState,
}
