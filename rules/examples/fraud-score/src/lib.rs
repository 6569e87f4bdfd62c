//! Points for what frauds have in common; many of them stop an order.
//!
//! The shop knows how often a customer, a card or an address came by lately, and says so in the order's metadata:
//!
//! | name | what |
//! |---|---|
//! | `velocity.orders_1h`, `velocity.orders_24h` | orders from the same customer, card or address |
//! | `velocity.cards_24h` | different cards from there |
//! | `ip_country` | where the caller seems to be, ISO 3166 alpha-2 |
//! | `customer.account_age_days` | how long the customer's account has been there |
//!
//! A number that is missing or cannot be read gives no points, but for the customer's: a guest has points of its own.
//!
//! Settings: `{"review_from": 50, "decline_from": 90, "high_total": 50000}`: points from which somebody looks at the order,
//! and from which it is declined; and the total, in minor units, that counts as high.

use serde::Deserialize;
use tillstream_rules::risk::{Answer, Request, Rule};
use tillstream_rules::{Order, Refusal, customer_attribute, export_risk, log, metadata, settings};

#[derive(Deserialize)]
#[serde(default)]
struct Settings {
    review_from: u32,
    decline_from: u32,
    high_total: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { review_from: 50, decline_from: 90, high_total: 50_000 }
    }
}

struct FraudScore;

impl Rule for FraudScore {
    fn decide(request: Request) -> Answer {
        let settings: Settings = settings(&request.order).unwrap_or_default();
        let signs = signs(&request, &settings);
        let points: u32 = signs.iter().map(|it| it.0).sum();
        let why = signs.iter().map(|it| it.1).collect::<Vec<_>>().join(", ");
        log(&format!("{points} points: {why}"));
        if points >= settings.decline_from {
            // The customer reads this: it must not say how to do better next time.
            let message = "the payment cannot be taken; another way to pay may work".into();
            return Answer::Decline(Refusal { code: "too_risky".into(), message });
        }
        if points >= settings.review_from {
            return Answer::Review(format!("{points} points: {why}"));
        }
        Answer::Approve
    }
}

/// What speaks against an order, with its points.
fn signs(request: &Request, settings: &Settings) -> Vec<(u32, &'static str)> {
    let order = &request.order;
    let at_least = |name: &str, most: i64| number(metadata(order, name)).is_some_and(|it| it >= most);
    let country = order.destination.country.as_str();
    let young = || number(customer_attribute(order, "account_age_days")).is_some_and(|it| it < 1);
    let all = [
        (30, "three orders within an hour", at_least("velocity.orders_1h", 3)),
        (20, "ten orders within a day", at_least("velocity.orders_24h", 10)),
        (40, "three cards within a day", at_least("velocity.cards_24h", 3)),
        (20, "the caller is in another country", elsewhere(order, country)),
        (10, "a guest", order.customer.is_none()),
        (15, "an account of today", young()),
        (20, "a high total", request.total >= settings.high_total),
    ];
    all.into_iter().filter(|it| it.2).map(|it| (it.0, it.1)).collect()
}

fn elsewhere(order: &Order, country: &str) -> bool {
    !country.is_empty() && metadata(order, "ip_country").is_some_and(|it| it != country)
}

fn number(text: Option<&str>) -> Option<i64> {
    text?.trim().parse().ok()
}

export_risk!(FraudScore);

#[cfg(test)]
mod tests {
    use super::*;
    use tillstream_rules::testing;

    fn decide(total: i64, order: Order) -> Answer {
        FraudScore::decide(Request {
            order,
            total,
            units: 1,
            lines: 1,
            payment_method: "pm_card_visa".into(),
        })
    }

    fn regular() -> Order {
        let customer = Some(testing::customer("c-1", &[("account_age_days", "700")]));
        Order { customer, ..testing::order("GB", "{}") }
    }

    #[test]
    fn an_order_like_any_other_goes_on() {
        assert!(matches!(decide(4_068, regular()), Answer::Approve));
        let readable = testing::attributes(&[("velocity.orders_1h", "many"), ("ip_country", "GB")]);
        assert!(matches!(decide(4_068, Order { metadata: readable, ..regular() }), Answer::Approve));
    }

    #[test]
    fn signs_add_up_to_a_look_and_to_a_refusal() {
        let hurried = testing::attributes(&[("velocity.orders_1h", "3"), ("ip_country", "BR")]);
        let Answer::Review(why) = decide(4_068, Order { metadata: hurried, ..regular() }) else {
            panic!("50 points are looked at")
        };
        assert_eq!(why, "50 points: three orders within an hour, the caller is in another country");
        let cards = testing::attributes(&[("velocity.orders_1h", "5"), ("velocity.cards_24h", "4")]);
        let order = Order { metadata: cards, ..regular() };
        assert!(matches!(decide(4_068, order.clone()), Answer::Review(_)), "70 points");
        let Answer::Decline(refusal) = decide(50_000, order) else { panic!("90 points are declined") };
        assert!(!refusal.message.contains("card"), "it does not say what was seen");
    }

    #[test]
    fn settings_move_the_bounds() {
        let order = testing::order("GB", r#"{"review_from":10}"#);
        assert!(matches!(decide(4_068, order), Answer::Review(_)), "a guest has 10 points");
    }
}
