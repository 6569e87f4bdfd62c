//! The tax rate of a line, by where it goes and what it is.
//!
//! Settings:
//!
//! ```json
//! {"seller": "GB",
//!  "rates": [{"country": "GB", "rate": "0.2"}, {"country": "GB", "category": "books", "rate": "0"},
//!            {"country": "FR", "rate": "0.2"}, {"country": "FR", "category": "books", "rate": "0.055"}],
//!  "elsewhere": "0"}
//! ```
//!
//! A line takes the rate of its country and category, else that of its country, else `elsewhere`; where that is left out,
//! it keeps the rate it has. A customer with the attribute `vat_id` in another country than the seller's accounts for the
//! tax itself: the rate is 0. An order that names no country keeps its rates.
//!
//! The rates above stand here to show the shape. Which rates hold is the seller's to know, so there are none built in: a
//! change of law is a change of settings.

use serde::Deserialize;
use tillstream_rules::price::{Adjustment, Answer, Line, Request, Rule};
use tillstream_rules::{Order, customer_attribute, export_price, settings};

#[derive(Default, Deserialize)]
struct Settings<'a> {
    #[serde(borrow, default)]
    seller: Option<&'a str>,
    #[serde(borrow, default)]
    rates: Vec<Rate<'a>>,
    #[serde(borrow, default)]
    elsewhere: Option<&'a str>,
}

#[derive(Deserialize)]
struct Rate<'a> {
    #[serde(borrow)]
    country: &'a str,
    #[serde(borrow, default)]
    category: Option<&'a str>,
    #[serde(borrow)]
    rate: &'a str,
}

struct Vat;

impl Rule for Vat {
    fn decide(request: Request) -> Answer {
        let settings: Settings<'_> = settings(&request.order).unwrap_or_default();
        let country = request.order.destination.country.as_str();
        if country.is_empty() {
            return Answer::Pass;
        }
        let accounts_itself = accounts_itself(&request.order, &settings);
        let adjustment = |(line, index): (&Line, u32)| {
            let rate = if accounts_itself { Some("0") } else { rate(&settings, country, line) };
            let rate = rate.filter(|it| *it != line.tax_rate)?;
            Some(Adjustment { line: index, discount: 0, tax_rate: Some(rate.into()) })
        };
        let adjustments: Vec<_> = request.lines.iter().zip(0..).filter_map(adjustment).collect();
        if adjustments.is_empty() { Answer::Pass } else { Answer::Adjust(adjustments) }
    }
}

/// Whether the customer is a business abroad, that accounts for the tax itself.
fn accounts_itself(order: &Order, settings: &Settings<'_>) -> bool {
    let abroad = settings.seller.is_some_and(|it| it != order.destination.country);
    abroad && customer_attribute(order, "vat_id").is_some_and(|it| !it.is_empty())
}

fn rate<'a>(settings: &Settings<'a>, country: &str, line: &Line) -> Option<&'a str> {
    let of = |category: Option<&str>| {
        let mut rates = settings.rates.iter();
        rates.find(|it| it.country == country && it.category == category).map(|it| it.rate)
    };
    let special = line.category.as_deref().and_then(|it| of(Some(it)));
    special.or_else(|| of(None)).or(settings.elsewhere)
}

export_price!(Vat);

#[cfg(test)]
mod tests {
    use super::*;
    use tillstream_rules::testing;

    const SETTINGS: &str = r#"{"seller":"GB","rates":[{"country":"GB","rate":"0.2"},
        {"country":"GB","category":"books","rate":"0"},{"country":"FR","rate":"0.2"},
        {"country":"FR","category":"books","rate":"0.055"}],"elsewhere":"0"}"#;

    fn line(category: Option<&str>, tax_rate: &str) -> Line {
        Line {
            sku: "71053".into(),
            quantity: 1,
            unit_price: 339,
            discount: 0,
            tax_rate: tax_rate.into(),
            category: category.map(Into::into),
        }
    }

    fn decide(order: Order, lines: Vec<Line>) -> Vec<(u32, String)> {
        match Vat::decide(Request { order, lines }) {
            Answer::Adjust(it) => {
                it.into_iter().map(|it| (it.line, it.tax_rate.unwrap_or_default())).collect()
            }
            Answer::Pass | Answer::Refuse(_) => Vec::new(),
        }
    }

    #[test]
    fn a_category_with_a_rate_of_its_own_takes_it_and_others_that_of_the_country() {
        let lines = || vec![line(Some("books"), "0.2"), line(Some("lanterns"), "0.1"), line(None, "0.2")];
        assert_eq!(decide(testing::order("FR", SETTINGS), lines()), [(0, "0.055".into()), (1, "0.2".into())]);
        assert_eq!(decide(testing::order("GB", SETTINGS), lines()), [(0, "0".into()), (1, "0.2".into())]);
    }

    #[test]
    fn elsewhere_and_without_a_country_the_settings_decide_and_the_rate_stays() {
        let lines = || vec![line(None, "0.2")];
        assert_eq!(decide(testing::order("US", SETTINGS), lines()), [(0, "0".into())]);
        assert_eq!(decide(testing::order("US", r#"{"rates":[]}"#), lines()), []);
        assert_eq!(decide(testing::order("", SETTINGS), lines()), []);
    }

    #[test]
    fn a_business_abroad_accounts_for_the_tax_itself_and_one_at_home_does_not() {
        let order = |country: &str| {
            let customer = Some(testing::customer("c-1", &[("vat_id", "FR40303265045")]));
            Order { customer, ..testing::order(country, SETTINGS) }
        };
        assert_eq!(decide(order("FR"), vec![line(Some("books"), "0.055")]), [(0, "0".into())]);
        assert_eq!(decide(order("GB"), vec![line(None, "0.2")]), []);
    }
}
