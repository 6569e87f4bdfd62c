//! What an order costs, worked out once more.

use crate::rules::line_discount_minor;
use tillstream_schemas::item::ProductState;
use tillstream_schemas::order_command::PlaceOrder;

/// What the model says of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The SKU.
    pub sku: String,
    /// Units.
    pub quantity: i64,
    /// Quantity times price.
    pub gross: i64,
    /// Everything taken off.
    pub off: i64,
    /// Tax.
    pub tax: i64,
    /// Whether it holds stock.
    pub goods: bool,
}

impl Line {
    /// What is paid for it.
    pub fn paid(&self) -> i64 {
        self.gross - self.off + self.tax
    }
}

/// `amount · part / whole`, half to even.
pub fn portion(amount: i64, part: i64, whole: i64) -> i64 {
    let (product, whole) = (i128::from(amount) * i128::from(part), i128::from(whole.max(1)));
    let (floor, rest) = (product.div_euclid(whole), product.rem_euclid(whole));
    let up = match (rest * 2).cmp(&whole) {
        std::cmp::Ordering::Less => 0,
        std::cmp::Ordering::Greater => 1,
        std::cmp::Ordering::Equal => floor.rem_euclid(2),
    };
    i64::try_from(floor + up).unwrap_or(i64::MAX)
}

/// Tax in basis points, of the countries and classes that the workload knows.
fn tax_bp(country: &str, class: Option<&str>) -> i64 {
    match (country, class) {
        ("GB", Some("standard")) => 2_000,
        ("GB", Some("reduced")) => 500,
        ("DE", Some("standard")) => 1_900,
        ("DE", Some("reduced")) => 700,
        _ => 0,
    }
}

/// The tax of a product, basis points.
pub fn tax_rate(country: &str, product: &ProductState) -> i64 {
    tax_bp(country, product.tax_class.as_deref())
}

/// Gives out `amount` over the lines by what is left of each; odd units go to the largest remainders, earlier ones first.
fn give_out(amount: i64, left: &[i64]) -> Vec<i64> {
    let whole: i128 = left.iter().map(|it| i128::from(*it)).sum();
    if whole == 0 {
        let mut first = vec![0; left.len()];
        if let Some(it) = first.first_mut() {
            *it = amount;
        }
        return first;
    }
    let product = |it: i64| i128::from(amount) * i128::from(it);
    let mut parts: Vec<i64> = left.iter().map(|it| (product(*it) / whole) as i64).collect();
    let mut order: Vec<usize> = (0..left.len()).collect();
    order.sort_by_key(|index| (-(product(left[*index]) % whole), *index));
    let odd = amount - parts.iter().sum::<i64>();
    for index in order.into_iter().take(usize::try_from(odd).unwrap_or(0)) {
        parts[index] += 1;
    }
    parts
}

/// The lines of an order with what they cost. `product` gives each line's product as it was used; `rule`: the version of
/// the rule that shaped the price.
pub fn lines<'a>(
    order: &PlaceOrder,
    product: impl Fn(usize) -> Option<&'a ProductState>,
    rule: u32,
) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut rates = Vec::new();
    for (index, line) in order.lines.iter().enumerate() {
        let product = product(index);
        let price = line.unit_price_minor.or_else(|| product?.prices.get("GBP").copied()).unwrap_or(0);
        let gross = price * line.quantity;
        let own = line.discount_minor.min(gross);
        let off = own + line_discount_minor(rule, line.quantity).min(gross - own);
        let goods = product.is_none_or(|it| it.stocked);
        lines.push(Line { sku: line.sku.to_string(), quantity: line.quantity, gross, off, tax: 0, goods });
        rates.push(tax_bp(&order.country, product.and_then(|it| it.tax_class.as_deref())));
    }
    for discount in &order.discounts {
        let left: Vec<i64> = lines.iter().map(|it| it.gross - it.off).collect();
        let all: i64 = left.iter().sum();
        let wanted = match (discount.amount_minor, discount.rate_bp) {
            (Some(amount), _) => amount,
            (None, rate) => portion(all, rate.unwrap_or(0).into(), 10_000),
        };
        for (line, part) in lines.iter_mut().zip(give_out(wanted.min(all), &left)) {
            line.off += part;
        }
    }
    if let Some(charge) = &order.shipping {
        let (quantity, gross) = (1, charge.amount_minor);
        lines.push(Line { sku: "SHIPPING".to_owned(), quantity, gross, off: 0, tax: 0, goods: false });
        rates.push(tax_bp(&order.country, charge.tax_class.as_deref()));
    }
    for (line, rate) in lines.iter_mut().zip(rates) {
        line.tax = portion(line.gross - line.off, rate, 10_000);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portions_round_half_to_even() {
        let halves: Vec<i64> = [1, 3, 5, 7, 2].into_iter().map(|it| portion(it, 1, 2)).collect();
        assert_eq!(halves, [0, 2, 2, 4, 1]);
    }

    #[test]
    fn what_is_given_out_sums_to_the_amount_and_odd_units_go_to_the_largest_remainders() {
        assert_eq!(give_out(10, &[1, 1, 1]), [4, 3, 3]);
        assert_eq!(give_out(5, &[2, 7, 1]), [1, 4, 0]);
        assert_eq!(give_out(7, &[0, 0]), [7, 0]);
    }
}
