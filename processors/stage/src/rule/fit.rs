//! Whether an answer fits its question. A stage may rely on what is checked here.

use super::{Parcel, RATE_BP_MAX, RuleAnswer, RuleCall, ShipLine};
use crate::money::AMOUNT_MINOR_MAX;
use std::collections::BTreeSet;
use thiserror::Error;
use tillstream_schemas::Text;

/// Dimensions of one order, at most.
pub const DIMENSIONS_MAX: usize = 8;
/// Locations named for one line, at most.
pub const LOCATIONS_MAX: usize = 32;
/// Shipments one command may become, at most.
pub const PARCELS_MAX: usize = 32;
/// Characters of a sentence or a value, at most.
pub const TEXT_CHARS_MAX: usize = 500;
const NAME_CHARS_MAX: usize = 64;

/// Why an answer does not fit.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Misfit {
    /// It belongs to another hook.
    #[error("the answer is not one of the {0} hook")]
    Hook(&'static str),
    /// A count.
    #[error("{what}: {found}, at most {most}")]
    Count {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        most: usize,
    },
    /// A value.
    #[error("{what}: {why}")]
    Value {
        /// Where.
        what: &'static str,
        /// What is wrong, and how to mend it.
        why: &'static str,
    },
    /// The parcels do not hold what is to be shipped.
    #[error("the parcels hold {found} units of {sku}, {asked} are to be shipped")]
    Units {
        /// Which SKU.
        sku: Text,
        /// In the parcels.
        found: i64,
        /// In the command.
        asked: i64,
    },
}

/// Checks an answer against its call.
///
/// # Errors
/// The first thing that does not fit.
pub fn fit(call: &RuleCall, answer: &RuleAnswer) -> Result<(), Misfit> {
    match (call, answer) {
        (RuleCall::Measure(_), RuleAnswer::Refuse { .. }) => Err(Misfit::Hook("measure")),
        (_, RuleAnswer::Pass) | (RuleCall::Risk(_), RuleAnswer::Approve) => Ok(()),
        (_, RuleAnswer::Refuse { code, message }) => {
            name("refuse.code", code)?;
            text("refuse.message", message)
        }
        (RuleCall::Price(input), RuleAnswer::Adjust(lines)) => {
            same("adjust", lines.len(), input.lines.len())?;
            lines.iter().try_for_each(|it| {
                if !(0..=AMOUNT_MINOR_MAX).contains(&it.discount_minor) {
                    return Err(value("adjust.discount", "it must be 0 or more, and an amount of money"));
                }
                match it.tax_rate_bp {
                    Some(rate) if !(0..=RATE_BP_MAX).contains(&rate) => {
                        Err(value("adjust.tax-rate", "it must be from \"0\" to \"10\""))
                    }
                    _ => Ok(()),
                }
            })
        }
        (RuleCall::Allocate(input), RuleAnswer::Place(lines)) => {
            same("place", lines.len(), input.lines.len())?;
            lines.iter().try_for_each(|it| {
                at_most("place.locations", it.len(), LOCATIONS_MAX)?;
                it.iter().try_for_each(|it| location("place.locations", it))
            })
        }
        (RuleCall::Ship(input), RuleAnswer::Split(parcels)) => split(&input.lines, parcels),
        (RuleCall::Measure(_), RuleAnswer::Dimensions(it)) => dimensions(it),
        (call, _) => Err(Misfit::Hook(call.hook().as_str())),
    }
}

fn split(lines: &[ShipLine], parcels: &[Parcel]) -> Result<(), Misfit> {
    if parcels.is_empty() {
        return Err(value("split", "it needs a parcel; say pass for one shipment as the command says"));
    }
    at_most("split", parcels.len(), PARCELS_MAX)?;
    let mut units = vec![0_i64; lines.len()];
    for parcel in parcels {
        if parcel.contents.is_empty() {
            return Err(value("split.contents", "a parcel must hold something"));
        }
        for (line, quantity) in &parcel.contents {
            let held = units.get_mut(*line as usize);
            let held = held.ok_or(value("split.contents.line", "there is no such line"))?;
            if *quantity < 1 {
                return Err(value("split.contents.quantity", "it must be at least 1"));
            }
            *held = held.saturating_add(*quantity);
        }
        for (what, it) in [("split.location", &parcel.location), ("split.carrier", &parcel.carrier)] {
            it.as_ref().map_or(Ok(()), |it| location(what, it))?;
        }
    }
    for (line, found) in lines.iter().zip(units) {
        if found != line.goods.quantity {
            return Err(Misfit::Units { sku: line.goods.sku.clone(), found, asked: line.goods.quantity });
        }
    }
    Ok(())
}

fn dimensions(pairs: &[(Text, Text)]) -> Result<(), Misfit> {
    at_most("dimensions", pairs.len(), DIMENSIONS_MAX)?;
    let mut names = BTreeSet::new();
    for (key, it) in pairs {
        name("dimensions.name", key)?;
        location("dimensions.value", it)?;
        if !names.insert(key) {
            return Err(value("dimensions.name", "every name stands once"));
        }
    }
    Ok(())
}

fn same(what: &'static str, found: usize, lines: usize) -> Result<(), Misfit> {
    if found == lines { Ok(()) } else { Err(Misfit::Count { what, found, most: lines }) }
}

fn at_most(what: &'static str, found: usize, most: usize) -> Result<(), Misfit> {
    if found <= most { Ok(()) } else { Err(Misfit::Count { what, found, most }) }
}

fn value(what: &'static str, why: &'static str) -> Misfit {
    Misfit::Value { what, why }
}

/// snake_case, not empty.
fn name(what: &'static str, it: &str) -> Result<(), Misfit> {
    at_most(what, it.len(), NAME_CHARS_MAX)?;
    let snake = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if it.is_empty() || !it.bytes().all(snake) {
        return Err(value(what, "it must be snake_case: a to z, 0 to 9 and _"));
    }
    Ok(())
}

/// A short word for a place, a carrier or a value: not empty, and without control characters or slashes, which part
/// the keys of rows.
fn location(what: &'static str, it: &str) -> Result<(), Misfit> {
    at_most(what, it.chars().count(), NAME_CHARS_MAX)?;
    if it.is_empty() || it.chars().any(|it| it.is_control() || it == '/') {
        return Err(value(what, "it must not be empty, nor have control characters or slashes"));
    }
    Ok(())
}

fn text(what: &'static str, it: &str) -> Result<(), Misfit> {
    at_most(what, it.chars().count(), TEXT_CHARS_MAX)?;
    if it.chars().any(|it| it.is_control() && it != '\n') {
        return Err(value(what, "it must not have control characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
