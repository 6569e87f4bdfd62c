//! An order as a merchant sends it. A good body takes the fast way, one typed parse; a bad one is walked again to
//! name every field that cannot be taken.

use crate::countries::is_country;
use crate::idempotency;
use crate::moment;
use crate::problem::{FieldError, Problem};
use crate::shape::{
    self, CUSTOMER, ERRORS_MAX, Field, Kind, METADATA, QUANTITY, QUANTITY_MAX, SKU, Walk, is_prose, is_text,
    needed, optional,
};
use serde::Deserialize;
use tillstream_schemas::order_command::{
    Address, CaptureMode, Discount, OrderLine, PaymentInstruction, PlaceOrder, ShippingCharge,
};
use tillstream_schemas::{Text, TextMap};
use tillstream_stage::money::{AMOUNT_MINOR_MAX, currency_digits};

/// The most lines of one order.
pub(super) const LINES_MAX: usize = 1_000;
const DISCOUNTS_MAX: usize = 50;
const RATE_BP_MAX: i64 = 10_000;
/// The most that lines and shipping may come to: half of what an amount may be, so that tax stays within it too.
pub(super) const ORDER_GROSS_MINOR_MAX: i64 = AMOUNT_MINOR_MAX / 2;
/// How far ahead `placed_at` may be: a clock that is wrong, not a typing error in the year.
const AHEAD_MS_MAX: i64 = 86_400_000;

const LINE: Kind = Kind::Object(&[
    needed("sku", SKU),
    needed("quantity", QUANTITY),
    optional("unit_price", Kind::Amount { min: 0 })
        .about("Price of one in minor units; left out: the catalog's"),
    optional("discount", Kind::Amount { min: 0 }).about("Minor units off the line, at most what it comes to"),
]);
const DISCOUNT: Kind = Kind::Object(&[
    needed("code", Kind::Text { min: 1, max: 64 }),
    optional("amount", Kind::Amount { min: 0 }).about("Minor units off; exactly one of amount and rate_bp"),
    optional("rate_bp", Kind::Integer { min: 0, max: RATE_BP_MAX })
        .about("Basis points off (1,000 is 10 %); exactly one of amount and rate_bp"),
]);
const SHIPPING: Kind = Kind::Object(&[
    needed("amount", Kind::Amount { min: 0 }),
    optional("tax_class", Kind::Text { min: 1, max: 64 }).about("Left out: untaxed"),
]);
const PAYMENT: Kind = Kind::Object(&[
    needed("method", Kind::Text { min: 1, max: 255 })
        .about("The provider's payment method, such as pm_card_visa"),
    optional("capture", Kind::Choice(&["automatic", "manual"]))
        .about("When the money is taken; left out: automatic"),
]);
const ADDRESS_LINE: Kind = Kind::Text { min: 0, max: 255 };
const ADDRESS: Kind = Kind::Object(&[
    optional("name", ADDRESS_LINE),
    optional("line1", ADDRESS_LINE),
    optional("line2", ADDRESS_LINE),
    optional("city", ADDRESS_LINE),
    optional("region", ADDRESS_LINE),
    optional("postal_code", ADDRESS_LINE),
    optional("country", Kind::Country),
]);

macro_rules! order_fields {
    ($($first:expr)?) => {
        &[
            $($first,)?
            optional("customer", CUSTOMER).about("Your id of the customer"),
            needed("currency", Kind::Currency),
            optional("country", Kind::Country),
            optional("placed_at", Kind::Time)
                .about("Event time, at most a day ahead (RFC 3339, 1970 to 9999); left out: now"),
            needed("lines", Kind::List { of: &LINE, min: 1, max: LINES_MAX }),
            optional("discounts", Kind::List { of: &DISCOUNT, min: 0, max: DISCOUNTS_MAX })
                .about("On the whole order, one after the other, after those of the lines"),
            optional("shipping", SHIPPING).about("A shipping charge: it holds no stock"),
            needed("payment", PAYMENT),
            optional("metadata", METADATA),
            optional("ship_to", ADDRESS),
            optional("note", Kind::Prose { max: 5_000 }),
        ]
    };
}

pub(super) const FIELDS: &[Field] = order_fields!();
pub(super) const BULK_FIELDS: &[Field] =
    order_fields!(needed("idempotency_key", Kind::Text { min: 1, max: idempotency::KEY_CHARACTERS_MAX }));

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OrderInput {
    idempotency_key: Option<Text>,
    customer: Option<Text>,
    currency: Text,
    country: Option<Text>,
    placed_at: Option<Text>,
    lines: Vec<LineInput>,
    discounts: Option<Vec<DiscountInput>>,
    shipping: Option<ShippingInput>,
    payment: PaymentInput,
    metadata: Option<TextMap>,
    ship_to: Option<AddressInput>,
    note: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LineInput {
    sku: Text,
    quantity: i64,
    unit_price: Option<i64>,
    discount: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DiscountInput {
    code: Text,
    amount: Option<i64>,
    rate_bp: Option<i32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShippingInput {
    amount: i64,
    tax_class: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PaymentInput {
    method: Text,
    capture: Option<CaptureMode>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddressInput {
    name: Option<Text>,
    line1: Option<Text>,
    line2: Option<Text>,
    city: Option<Text>,
    region: Option<Text>,
    postal_code: Option<Text>,
    country: Option<Text>,
}

/// A body that can be taken.
#[derive(Debug, PartialEq)]
pub(crate) struct Parsed {
    /// The key inside a bulk line; empty otherwise.
    pub key: Text,
    /// The order.
    pub order: PlaceOrder,
    /// Whether the client said when it was placed.
    pub placed_at_given: bool,
}

/// Reads an order: the body of one call.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub(crate) fn parse(bytes: &[u8], now_ms: i64) -> Result<Parsed, Problem> {
    parse_as(bytes, now_ms, false)
}

/// Reads a line of a bulk body: an order with its `idempotency_key`.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub(crate) fn parse_bulk_line(bytes: &[u8], now_ms: i64) -> Result<Parsed, Problem> {
    parse_as(bytes, now_ms, true)
}

/// How many fields the walk refuses; `None` when the body is no JSON.
pub(crate) fn faults(bytes: &[u8], bulk: bool) -> Option<usize> {
    let value = shape::parse(bytes).ok()?;
    Some(Walk::over(&value, &Kind::Object(if bulk { BULK_FIELDS } else { FIELDS })).len())
}

fn parse_as(bytes: &[u8], now_ms: i64, bulk: bool) -> Result<Parsed, Problem> {
    let input: serde_json::Result<OrderInput> = serde_json::from_slice(bytes);
    match input {
        Ok(input) if input.is_sound(bulk) => {
            let errors = input.contradictions(now_ms);
            if errors.is_empty() {
                Ok(input.into_order(now_ms))
            } else {
                Err(Problem::invalid_fields(errors))
            }
        }
        input => Err(explain(bytes, input, now_ms, bulk)),
    }
}

/// The slow way: names every error of a body that the fast way did not take.
fn explain(bytes: &[u8], input: serde_json::Result<OrderInput>, now_ms: i64, bulk: bool) -> Problem {
    let value = match shape::parse(bytes) {
        Ok(value) => value,
        Err(problem) => return problem,
    };
    let mut errors = Walk::over(&value, &Kind::Object(if bulk { BULK_FIELDS } else { FIELDS }));
    if bulk
        && let Some(key) = value.get("idempotency_key").and_then(|it| it.as_str())
        && !idempotency::is_key(key)
        && !errors.iter().any(|it| it.field == "idempotency_key")
    {
        let fix = "send 1 to 255 visible ASCII characters";
        errors.push(FieldError::new("idempotency_key", "has other characters than visible ASCII", fix));
    }
    match input {
        Ok(input) => {
            errors.extend(input.contradictions(now_ms));
            errors.truncate(ERRORS_MAX);
        }
        // The walk sees no fault, so it is one that only the typed parse can see: a field that stands there twice.
        Err(error) if errors.is_empty() => return shape::malformed(&error),
        Err(_) => {}
    }
    Problem::invalid_fields(errors)
}

fn none_or<T>(value: Option<&T>, sound: impl FnOnce(&T) -> bool) -> bool {
    value.is_none_or(sound)
}

impl OrderInput {
    /// Whether every field can be taken by itself: what the walk says, without saying why.
    fn is_sound(&self, bulk: bool) -> bool {
        let key = match &self.idempotency_key {
            Some(key) => bulk && idempotency::is_key(key),
            None => !bulk,
        };
        key && currency_digits(&self.currency).is_some()
            && none_or(self.country.as_ref(), |it| is_country(it))
            && none_or(self.customer.as_ref(), |it| is_text(it, 1, 255))
            && none_or(self.placed_at.as_ref(), |it| moment::from_rfc3339(it).is_some())
            && (1..=LINES_MAX).contains(&self.lines.len())
            && self.lines.iter().all(LineInput::is_sound)
            && none_or(self.discounts.as_ref(), |discounts| {
                discounts.len() <= DISCOUNTS_MAX
                    && discounts.iter().all(|it| {
                        is_text(&it.code, 1, 64)
                            && none_or(it.amount.as_ref(), is_amount)
                            && none_or(it.rate_bp.as_ref(), |it| (0..=RATE_BP_MAX).contains(&i64::from(*it)))
                    })
            })
            && none_or(self.shipping.as_ref(), |it| {
                is_amount(&it.amount) && none_or(it.tax_class.as_ref(), |it| is_text(it, 1, 64))
            })
            && is_text(&self.payment.method, 1, 255)
            && none_or(self.metadata.as_ref(), is_sound_metadata)
            && none_or(self.ship_to.as_ref(), AddressInput::is_sound)
            && none_or(self.note.as_ref(), |it| is_prose(it, 5_000))
    }

    /// Fields that are fine by themselves but not together.
    fn contradictions(&self, now_ms: i64) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut sum = i128::from(self.shipping.as_ref().map_or(0, |it| it.amount));
        for (index, line) in self.lines.iter().enumerate().take(LINES_MAX) {
            // A line that is wrong by itself would only be wrong once more.
            let Some(price) = line.unit_price.filter(|_| line.is_sound()) else { continue };
            let gross = i128::from(price) * i128::from(line.quantity);
            sum += gross;
            if i128::from(line.discount.unwrap_or_default()) > gross {
                let fix = format!("send at most quantity × unit_price, here {gross}");
                errors.push(FieldError::new(
                    format!("lines[{index}].discount"),
                    "is more than the line comes to",
                    fix,
                ));
            }
        }
        if sum > i128::from(ORDER_GROSS_MINOR_MAX) {
            let fix = format!(
                "lines and shipping together may come to {ORDER_GROSS_MINOR_MAX} minor units: split the order"
            );
            errors.push(FieldError::new("lines", format!("come to {sum} minor units"), fix));
        }
        for (index, it) in self.discounts.iter().flatten().enumerate().take(DISCOUNTS_MAX) {
            if it.amount.is_some() == it.rate_bp.is_some() {
                let fix = "send exactly one of amount (minor units) and rate_bp (1,000 is 10 %)";
                errors.push(FieldError::new(
                    format!("discounts[{index}]"),
                    "has not exactly one of amount and rate_bp",
                    fix,
                ));
            }
        }
        let placed_at = self.placed_at.as_ref().and_then(|it| moment::from_rfc3339(it));
        if placed_at.is_some_and(|it| it > now_ms.saturating_add(AHEAD_MS_MAX)) {
            let fix = "send when the order was placed, at most a day ahead";
            errors.push(FieldError::new("placed_at", "is in the future", fix));
        }
        errors.truncate(ERRORS_MAX);
        errors
    }

    fn into_order(self, now_ms: i64) -> Parsed {
        let placed_at = self.placed_at.as_ref().and_then(|it| moment::from_rfc3339(it));
        let line = |it: LineInput| OrderLine {
            sku: it.sku,
            quantity: it.quantity,
            unit_price_minor: it.unit_price,
            discount_minor: it.discount.unwrap_or_default(),
        };
        let discount =
            |it: DiscountInput| Discount { code: it.code, amount_minor: it.amount, rate_bp: it.rate_bp };
        let order = PlaceOrder {
            customer: self.customer,
            currency: self.currency,
            country: self.country.unwrap_or_default(),
            placed_at_ms: placed_at.unwrap_or(now_ms),
            lines: self.lines.into_iter().map(line).collect(),
            discounts: self.discounts.into_iter().flatten().map(discount).collect(),
            shipping: self
                .shipping
                .map(|it| ShippingCharge { amount_minor: it.amount, tax_class: it.tax_class }),
            payment: PaymentInstruction {
                method: self.payment.method,
                capture: self.payment.capture.unwrap_or(CaptureMode::Automatic),
            },
            metadata: self.metadata.unwrap_or_default(),
            ship_to: self.ship_to.map(AddressInput::into_address),
            note: self.note,
        };
        Parsed { key: self.idempotency_key.unwrap_or_default(), order, placed_at_given: placed_at.is_some() }
    }
}

fn is_amount(amount: &i64) -> bool {
    (0..=AMOUNT_MINOR_MAX).contains(amount)
}

impl LineInput {
    fn is_sound(&self) -> bool {
        is_text(&self.sku, 1, 64)
            && (1..=QUANTITY_MAX).contains(&self.quantity)
            && none_or(self.unit_price.as_ref(), is_amount)
            && none_or(self.discount.as_ref(), is_amount)
    }
}

fn is_sound_metadata(metadata: &TextMap) -> bool {
    metadata.len() <= 50 && metadata.iter().all(|(name, value)| is_text(name, 1, 40) && is_prose(value, 500))
}

impl AddressInput {
    fn is_sound(&self) -> bool {
        [&self.name, &self.line1, &self.line2, &self.city, &self.region, &self.postal_code]
            .into_iter()
            .flatten()
            .all(|it| is_text(it, 0, 255))
            && none_or(self.country.as_ref(), |it| is_country(it))
    }

    fn into_address(self) -> Address {
        Address {
            name: self.name,
            line1: self.line1,
            line2: self.line2,
            city: self.city,
            region: self.region,
            postal_code: self.postal_code,
            country: self.country,
        }
    }
}

#[cfg(test)]
#[path = "input_tests.rs"]
mod tests;
