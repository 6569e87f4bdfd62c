//! A hook's answer as a rule in JavaScript gives it. A field that no answer has is refused, so that a slip of the pen is
//! found and not overlooked.

use crate::bindings::exports::tillstream::rules as hooks;
use crate::bindings::tillstream::rules::types;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    code: String,
    message: String,
}

impl From<Refusal> for types::Refusal {
    fn from(it: Refusal) -> Self {
        Self { code: it.code, message: it.message }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Adjustment {
    line: u32,
    #[serde(default)]
    discount: i64,
    #[serde(default)]
    tax_rate: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Price {
    Pass,
    Adjust(Vec<Adjustment>),
    Refuse(Refusal),
}

impl From<Price> for hooks::price::Answer {
    fn from(it: Price) -> Self {
        let adjustment = |it: Adjustment| hooks::price::Adjustment {
            line: it.line,
            discount: it.discount,
            tax_rate: it.tax_rate,
        };
        match it {
            Price::Pass => Self::Pass,
            Price::Adjust(it) => Self::Adjust(it.into_iter().map(adjustment).collect()),
            Price::Refuse(it) => Self::Refuse(it.into()),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    line: u32,
    locations: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Allocate {
    Pass,
    Place(Vec<Placement>),
    Refuse(Refusal),
}

impl From<Allocate> for hooks::allocate::Answer {
    fn from(it: Allocate) -> Self {
        let placement = |it: Placement| hooks::allocate::Placement { line: it.line, locations: it.locations };
        match it {
            Allocate::Pass => Self::Pass,
            Allocate::Place(it) => Self::Place(it.into_iter().map(placement).collect()),
            Allocate::Refuse(it) => Self::Refuse(it.into()),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Risk {
    Pass,
    Approve,
    Review(String),
    Decline(Refusal),
}

impl From<Risk> for hooks::risk::Answer {
    fn from(it: Risk) -> Self {
        match it {
            Risk::Pass => Self::Pass,
            Risk::Approve => Self::Approve,
            Risk::Review(it) => Self::Review(it),
            Risk::Decline(it) => Self::Decline(it.into()),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    line: u32,
    quantity: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Parcel {
    #[serde(default)]
    location: Option<String>,
    #[serde(default)]
    carrier: Option<String>,
    #[serde(default)]
    promised_at: Option<i64>,
    contents: Vec<Content>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Ship {
    Pass,
    Split(Vec<Parcel>),
    Refuse(Refusal),
}

impl From<Ship> for hooks::ship::Answer {
    fn from(it: Ship) -> Self {
        let content = |it: Content| hooks::ship::Content { line: it.line, quantity: it.quantity };
        let parcel = |it: Parcel| hooks::ship::Parcel {
            location: it.location,
            carrier: it.carrier,
            promised_at: it.promised_at,
            contents: it.contents.into_iter().map(content).collect(),
        };
        match it {
            Ship::Pass => Self::Pass,
            Ship::Split(it) => Self::Split(it.into_iter().map(parcel).collect()),
            Ship::Refuse(it) => Self::Refuse(it.into()),
        }
    }
}

/// Dimensions by name.
pub type Measure = BTreeMap<String, String>;
