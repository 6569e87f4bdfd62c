//! What an order costs: resolve the lines, take discounts off, add tax, sum up.

use crate::tax;
use std::collections::BTreeSet;
use tillstream_schemas::order_command::{Discount, OrderLine, PlaceOrder, ShippingCharge};
use tillstream_schemas::order_event::{OrderPriced, OrderRejected, RuleRef};
use tillstream_schemas::order_state::{LineKind, PricedLine};
use tillstream_schemas::{Text, TextMap};
use tillstream_stage::facts::Catalog;
use tillstream_stage::money::{self, AMOUNT_MINOR_MAX, MoneyOverflow};
use tillstream_stage::rule::{
    LineAdjustment, PriceInput, RATE_BP_MAX, RuleAnswer, RuleLine, RuleOrder, Verdict,
};

/// The SKU of the shipping charge's line.
pub const SHIPPING_SKU: &str = "SHIPPING";

/// The most units one line may have: sums over 1,000 lines stay far from overflow in every later stage.
pub const QUANTITY_MAX: i64 = 1_000_000_000;

/// Why a line cannot be priced. The order is the precedence when several lines fail for different reasons.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum LineFault {
    OutOfRange,
    UnknownProduct,
    ProductInactive,
    NoPrice,
}

impl LineFault {
    fn code(self) -> &'static str {
        match self {
            Self::OutOfRange => "amount_out_of_range",
            Self::UnknownProduct => "unknown_product",
            Self::ProductInactive => "product_inactive",
            Self::NoPrice => "no_price",
        }
    }

    fn message(self, currency: &str) -> String {
        match self {
            Self::OutOfRange => "a quantity or an amount is negative or too large".to_owned(),
            Self::UnknownProduct => {
                "the product is not in the catalog and the line has no unit_price".to_owned()
            }
            Self::ProductInactive => "the product is inactive or was removed".to_owned(),
            Self::NoPrice => format!("the product has no price in {currency} and the line has no unit_price"),
        }
    }
}

/// Prices an order from the catalog and a rule's verdict alone: what the stage decides, without its state.
///
/// # Errors
/// The business refusal, as the event that the order's history would show.
pub fn preview(
    order: &PlaceOrder,
    tenant: &str,
    catalog: &dyn Catalog,
    verdict: Option<&Verdict>,
) -> Result<OrderPriced, Box<OrderRejected>> {
    settle(order, resolve(order, tenant, catalog)?, verdict)
}

/// The lines of an order that was priced before, as they were when the price hook was asked: at the price of that day,
/// with their own discounts. A rate that a rule may have replaced is looked up in the catalog of now: the event does
/// not keep the one before.
///
/// `None` when the event is not of this order: its lines differ.
pub fn recorded_lines(
    order: &PlaceOrder,
    priced: &OrderPriced,
    tenant: &str,
    catalog: &dyn Catalog,
) -> Option<Vec<PricedLine>> {
    let goods = priced.lines.get(..order.lines.len())?;
    let line = |(asked, then): (&OrderLine, &PricedLine)| {
        let class_rate_bp = || {
            let product = catalog.product(tenant, &asked.sku);
            let class = product.as_deref().and_then(|it| it.tax_class.as_deref());
            class.map_or(0, |class| tax::rate_bp(&order.country, class))
        };
        (asked.sku == then.sku && asked.quantity == then.quantity).then(|| PricedLine {
            discount_minor: asked.discount_minor.min(then.gross_minor),
            tax_rate_bp: if priced.rule.is_some() { class_rate_bp() } else { then.tax_rate_bp },
            tax_minor: 0,
            ..then.clone()
        })
    };
    order.lines.iter().zip(goods).map(line).collect()
}

/// What resolved lines cost with a rule's verdict: discounts, the shipping charge, tax, sums.
///
/// # Errors
/// As [`preview`].
pub fn settle(
    order: &PlaceOrder,
    mut lines: Vec<PricedLine>,
    verdict: Option<&Verdict>,
) -> Result<OrderPriced, Box<OrderRejected>> {
    let rule = match verdict {
        Some(Verdict { rule, answer: RuleAnswer::Refuse { code, message }, .. }) => {
            return Err(Box::new(OrderRejected {
                code: code.clone(),
                message: message.clone(),
                skus: Vec::new(),
                placed_at_ms: order.placed_at_ms,
                rule: Some(rule.clone()),
            }));
        }
        Some(Verdict { rule, answer: RuleAnswer::Adjust(adjustments), .. }) => {
            adjust_lines(&mut lines, adjustments, rule)
        }
        _ => None,
    };
    let review = verdict.and_then(|it| it.review.clone());
    let rule = rule.or_else(|| verdict.filter(|_| review.is_some()).map(|it| it.rule.clone()));
    discount_order(&mut lines, &order.discounts).map_err(|_| out_of_range(order))?;
    if let Some(charge) = &order.shipping {
        // After the discounts: they are taken off what is bought, not off its carriage.
        lines.push(shipping_line(charge, &order.country).ok_or_else(|| out_of_range(order))?);
    }
    match total(order, lines) {
        Ok(priced) => Ok(OrderPriced { rule, review, ..priced }),
        Err(MoneyOverflow) => Err(out_of_range(order)),
    }
}

/// What the price hook is asked: the lines at their price, with their own discount.
///
/// # Errors
/// As [`preview`]: lines that cannot be priced.
pub(crate) fn rule_input(
    order: &PlaceOrder,
    tenant: &str,
    catalog: &dyn Catalog,
) -> Result<PriceInput, Box<OrderRejected>> {
    Ok(question(order, &resolve(order, tenant, catalog)?))
}

/// What the price hook is asked about resolved lines.
pub fn question(order: &PlaceOrder, lines: &[PricedLine]) -> PriceInput {
    let line = |it: &PricedLine| RuleLine {
        sku: it.sku.clone(),
        quantity: it.quantity,
        unit_price_minor: it.unit_price_minor,
        discount_minor: it.discount_minor,
        tax_rate_bp: it.tax_rate_bp,
        category: it.category.clone(),
    };
    PriceInput { order: RuleOrder::from(order), lines: lines.iter().map(line).collect() }
}

/// Every order line with its price and its own discount; tax amounts are still 0.
///
/// # Errors
/// Lines that cannot be priced.
pub fn resolve(
    order: &PlaceOrder,
    tenant: &str,
    catalog: &dyn Catalog,
) -> Result<Vec<PricedLine>, Box<OrderRejected>> {
    if order.lines.is_empty() {
        return Err(rejected(order, "no_lines", "the order has no lines".into(), Vec::new()));
    }
    let mut lines = Vec::with_capacity(order.lines.len() + usize::from(order.shipping.is_some()));
    let mut faults = Vec::new();
    for line in &order.lines {
        match resolve_line(line, order, tenant, catalog) {
            Ok(priced) => lines.push(priced),
            Err(fault) => faults.push((fault, &line.sku)),
        }
    }
    let Some(worst) = faults.iter().map(|(fault, _)| *fault).min() else {
        return Ok(lines);
    };
    let mut seen = BTreeSet::new();
    let skus = faults
        .into_iter()
        .filter(|(fault, sku)| *fault == worst && seen.insert(*sku))
        .map(|(_, sku)| sku.clone())
        .collect();
    Err(rejected(order, worst.code(), worst.message(&order.currency), skus))
}

fn resolve_line(
    line: &OrderLine,
    order: &PlaceOrder,
    tenant: &str,
    catalog: &dyn Catalog,
) -> Result<PricedLine, LineFault> {
    let product = catalog.product(tenant, &line.sku);
    let product = product.as_deref();
    if product.is_some_and(|it| it.removed || !it.active) {
        return Err(LineFault::ProductInactive);
    }
    let (unit_price_minor, product_version) = match (line.unit_price_minor, product) {
        (Some(own), _) => (own, None),
        (None, Some(product)) => {
            let price = product.prices.get(&order.currency).ok_or(LineFault::NoPrice)?;
            (*price, Some(product.version))
        }
        (None, None) => return Err(LineFault::UnknownProduct),
    };
    if !(1..=QUANTITY_MAX).contains(&line.quantity) || unit_price_minor < 0 || line.discount_minor < 0 {
        return Err(LineFault::OutOfRange);
    }
    let gross_minor = money::times(unit_price_minor, line.quantity).map_err(|_| LineFault::OutOfRange)?;
    let class = product.and_then(|it| it.tax_class.as_deref());
    Ok(PricedLine {
        sku: line.sku.clone(),
        kind: if product.is_none_or(|it| it.stocked) { LineKind::Goods } else { LineKind::Fee },
        quantity: line.quantity,
        unit_price_minor,
        gross_minor,
        discount_minor: line.discount_minor.min(gross_minor),
        tax_rate_bp: class.map_or(0, |class| tax::rate_bp(&order.country, class)),
        tax_minor: 0,
        product_version,
        category: product.and_then(|it| it.category.clone()),
    })
}

/// Takes a rule's discounts off, each capped by what its line has left, and puts its tax rates in force. Answers the
/// rule when it changed anything.
///
/// A verdict that does not fit the lines says nothing about them: it is passed over as a whole.
fn adjust_lines(lines: &mut [PricedLine], adjustments: &[LineAdjustment], rule: &RuleRef) -> Option<RuleRef> {
    let fits = |it: &LineAdjustment| {
        it.discount_minor >= 0 && it.tax_rate_bp.is_none_or(|it| (0..=RATE_BP_MAX).contains(&it))
    };
    if adjustments.len() != lines.len() || !adjustments.iter().all(fits) {
        return None;
    }
    let mut shaped = false;
    for (line, adjustment) in lines.iter_mut().zip(adjustments) {
        let taken = adjustment.discount_minor.min(line.gross_minor - line.discount_minor);
        line.discount_minor += taken;
        let rate_bp = adjustment.tax_rate_bp.unwrap_or(line.tax_rate_bp);
        shaped |= taken > 0 || rate_bp != line.tax_rate_bp;
        line.tax_rate_bp = rate_bp;
    }
    shaped.then(|| rule.clone())
}

/// Takes the order's discounts off, one after the other, each from what the ones before have left.
fn discount_order(lines: &mut [PricedLine], discounts: &[Discount]) -> Result<(), MoneyOverflow> {
    for discount in discounts {
        if discount.amount_minor.is_some_and(|it| it < 0) || discount.rate_bp.is_some_and(|it| it < 0) {
            return Err(MoneyOverflow);
        }
        let rest: Vec<i64> = lines.iter().map(|it| it.gross_minor - it.discount_minor).collect();
        let left = rest.iter().try_fold(0, |sum, it| money::plus(sum, *it))?;
        let wanted = match (discount.amount_minor, discount.rate_bp) {
            (Some(amount), _) => amount,
            (None, Some(rate)) => money::rate(left, rate),
            (None, None) => 0,
        };
        for (line, part) in lines.iter_mut().zip(money::split(wanted.min(left), &rest)) {
            line.discount_minor += part;
        }
    }
    Ok(())
}

fn shipping_line(charge: &ShippingCharge, country: &str) -> Option<PricedLine> {
    (0..=AMOUNT_MINOR_MAX).contains(&charge.amount_minor).then(|| PricedLine {
        sku: Text::const_new(SHIPPING_SKU),
        kind: LineKind::Shipping,
        quantity: 1,
        unit_price_minor: charge.amount_minor,
        gross_minor: charge.amount_minor,
        discount_minor: 0,
        tax_rate_bp: charge.tax_class.as_deref().map_or(0, |class| tax::rate_bp(country, class)),
        tax_minor: 0,
        product_version: None,
        category: None,
    })
}

/// Adds every line's tax, and sums up.
fn total(order: &PlaceOrder, mut lines: Vec<PricedLine>) -> Result<OrderPriced, MoneyOverflow> {
    let (mut gross_minor, mut discount_minor, mut tax_minor) = (0, 0, 0);
    for line in &mut lines {
        line.tax_minor = money::rate(line.gross_minor - line.discount_minor, line.tax_rate_bp);
        gross_minor = money::plus(gross_minor, line.gross_minor)?;
        discount_minor = money::plus(discount_minor, line.discount_minor)?;
        tax_minor = money::plus(tax_minor, line.tax_minor)?;
    }
    Ok(OrderPriced {
        customer: order.customer.clone(),
        currency: order.currency.clone(),
        country: order.country.clone(),
        placed_at_ms: order.placed_at_ms,
        lines,
        gross_minor,
        discount_minor,
        tax_minor,
        total_minor: money::plus(gross_minor - discount_minor, tax_minor)?,
        rule: None,
        review: None,
        dimensions: TextMap::new(),
    })
}

fn out_of_range(order: &PlaceOrder) -> Box<OrderRejected> {
    let fault = LineFault::OutOfRange;
    rejected(order, fault.code(), fault.message(&order.currency), Vec::new())
}

fn rejected(order: &PlaceOrder, code: &'static str, message: String, skus: Vec<Text>) -> Box<OrderRejected> {
    Box::new(OrderRejected {
        code: Text::const_new(code),
        message: message.into(),
        skus,
        placed_at_ms: order.placed_at_ms,
        rule: None,
    })
}
