//! What answers are made of, besides each call's own structs.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::Value;
use std::borrow::Cow;
use std::marker::PhantomData;

/// One page of a list.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "{T}List")]
pub(crate) struct Page<T> {
    /// The rows of this page.
    pub data: Vec<T>,
    /// Send it, unchanged, as `cursor` for the page that follows; null: there is none.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// The only page of a list.
    pub(crate) fn whole(data: Vec<T>) -> Self {
        Self { data, next_cursor: None }
    }
}

/// An enum of the wire, with every value it has; made by [`one_of!`].
pub(crate) trait Enumerated: Serialize + Sized + 'static {
    /// Every value.
    const ALL: &'static [Self];
    /// Its name in the contract.
    const NAME: &'static str;
}

/// Lists the values of enums of the wire, and does not compile when one is left out.
macro_rules! one_of {
    ($($of:ident { $($value:ident),+ $(,)? })+) => {
        $(
            impl $crate::openapi::answer::Enumerated for $of {
                const ALL: &'static [Self] = &[$(Self::$value),+];
                const NAME: &'static str = stringify!($of);
            }
            const _: fn($of) = |it| match it {
                $($of::$value => (),)+
            };
        )+
    };
}
pub(crate) use one_of;

/// The schema of an [`Enumerated`] as its serialization spells it: `#[schemars(with = "OneOf<OrderStatus>")]`.
pub(crate) struct OneOf<T>(PhantomData<T>);

impl<T: Enumerated> JsonSchema for OneOf<T> {
    fn schema_name() -> Cow<'static, str> {
        T::NAME.into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        let words: Vec<Value> = T::ALL.iter().filter_map(|it| serde_json::to_value(it).ok()).collect();
        json_schema!({ "type": "string", "enum": words })
    }
}

/// Any JSON at all.
pub(crate) struct AnyJson;

impl JsonSchema for AnyJson {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "AnyJson".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({})
    }
}
