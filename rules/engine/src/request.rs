//! A stage's question in the words of `rules/wit`. Texts are borrowed: nothing is copied before it goes into the sandbox.

use crate::bindings::exports::tillstream::rules as hooks;
use crate::bindings::tillstream::rules::types;
use tillstream_schemas::{Text, TextMap};
use tillstream_stage::rule::{
    AllocateInput, GoodsLine, MeasureInput, PriceInput, RiskInput, RuleOrder, ShipInput, rate_text,
};

/// The metadata that says something about the customer begins so.
const CUSTOMER_PREFIX: &str = "customer.";

/// Bytes a number or a mark of an option takes in the size of an input.
const FIXED: usize = 8;

/// Metadata, parted into what is the customer's and what is the order's.
pub(crate) struct Parted<'a> {
    customer: Vec<types::AttributeParam<'a>>,
    order: Vec<types::AttributeParam<'a>>,
}

impl<'a> Parted<'a> {
    pub(crate) fn new(metadata: &'a TextMap) -> Self {
        let (mut customer, mut order) = (Vec::new(), Vec::new());
        for (name, value) in metadata {
            match name.strip_prefix(CUSTOMER_PREFIX) {
                Some(name) => customer.push(types::AttributeParam { name, value }),
                None => order.push(types::AttributeParam { name, value }),
            }
        }
        Self { customer, order }
    }

    pub(crate) fn order(&'a self, id: &'a str, order: &'a RuleOrder, settings: &'a str) -> types::Order<'a> {
        types::Order {
            id,
            placed_at: order.placed_at_ms,
            currency: &order.currency,
            customer: order.customer.as_deref().map(|id| types::Customer { id, attributes: &self.customer }),
            destination: types::Destination {
                country: &order.country,
                region: order.region.as_deref(),
                city: order.city.as_deref(),
                postal_code: order.postal_code.as_deref(),
            },
            metadata: &self.order,
            settings,
        }
    }
}

pub(crate) fn rates(input: &PriceInput) -> Vec<Text> {
    input.lines.iter().map(|it| rate_text(it.tax_rate_bp)).collect()
}

pub(crate) fn price_lines<'a>(input: &'a PriceInput, rates: &'a [Text]) -> Vec<hooks::price::Line<'a>> {
    let line = |(it, tax_rate): (&'a tillstream_stage::rule::RuleLine, &'a Text)| hooks::price::Line {
        sku: &it.sku,
        quantity: it.quantity,
        unit_price: it.unit_price_minor,
        discount: it.discount_minor,
        tax_rate,
        category: it.category.as_deref(),
    };
    input.lines.iter().zip(rates).map(line).collect()
}

pub(crate) fn allocate_lines(input: &AllocateInput) -> Vec<hooks::allocate::Line<'_>> {
    let lines = input.lines.iter();
    lines
        .map(|it| hooks::allocate::Line {
            sku: &it.sku,
            quantity: it.quantity,
            category: it.category.as_deref(),
        })
        .collect()
}

pub(crate) fn held(input: &ShipInput) -> Vec<Vec<hooks::ship::Held<'_>>> {
    let lines = input.lines.iter();
    lines
        .map(|it| {
            it.held
                .iter()
                .map(|(location, quantity)| hooks::ship::Held { location, quantity: *quantity })
                .collect()
        })
        .collect()
}

pub(crate) fn ship_lines<'a>(
    input: &'a ShipInput,
    held: &'a [Vec<hooks::ship::Held<'a>>],
) -> Vec<hooks::ship::Line<'a>> {
    let line = |(it, held): (&'a tillstream_stage::rule::ShipLine, &'a Vec<hooks::ship::Held<'a>>)| {
        hooks::ship::Line {
            sku: &it.goods.sku,
            quantity: it.goods.quantity,
            category: it.goods.category.as_deref(),
            held,
        }
    };
    input.lines.iter().zip(held).map(line).collect()
}

pub(crate) fn measure_lines(input: &MeasureInput) -> Vec<hooks::measure::Line<'_>> {
    let lines = input.lines.iter();
    lines
        .map(|it| hooks::measure::Line {
            sku: &it.sku,
            quantity: it.quantity,
            gross: it.gross_minor,
            discount: it.discount_minor,
            category: it.category.as_deref(),
        })
        .collect()
}

/// The size of an input: every text's bytes, and eight per number.
pub(crate) fn size(call: &tillstream_stage::rule::RuleCall, order_id: &str, settings: &str) -> usize {
    use tillstream_stage::rule::RuleCall;
    let order = call.order();
    let metadata: usize = order.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    let option = |it: &Option<Text>| FIXED + it.as_ref().map_or(0, Text::len);
    let place = [&order.customer, &order.region, &order.city, &order.postal_code].map(option);
    let head = order_id.len() + settings.len() + order.currency.len() + order.country.len() + metadata;
    let head = head + place.iter().sum::<usize>() + FIXED;
    let goods = |it: &GoodsLine| it.sku.len() + option(&it.category) + FIXED;
    head + match call {
        RuleCall::Price(it) => {
            it.lines.iter().map(|it| it.sku.len() + option(&it.category) + 4 * FIXED).sum::<usize>()
        }
        RuleCall::Allocate(it) => it.lines.iter().map(goods).sum(),
        RuleCall::Risk(RiskInput { method, .. }) => method.len() + 3 * FIXED,
        RuleCall::Ship(it) => {
            let held = |it: &(Text, i64)| it.0.len() + FIXED;
            let lines = it.lines.iter().map(|it| goods(&it.goods) + it.held.iter().map(held).sum::<usize>());
            option(&it.carrier) + lines.sum::<usize>()
        }
        RuleCall::Measure(it) => {
            it.lines.iter().map(|it| it.sku.len() + option(&it.category) + 3 * FIXED).sum::<usize>() + FIXED
        }
    }
}
