//! The cheapest carrier that takes the weight and keeps the promise.
//!
//! Settings:
//!
//! ```json
//! {"carriers": [{"name": "post", "grams_max": 2000, "days": 3, "price": 320},
//!               {"name": "courier", "grams_max": 30000, "days": 1, "price": 990, "countries": ["GB"]}],
//!  "weights": [{"category": "lanterns", "grams": 450}, {"sku": "71053", "grams": 600}],
//!  "grams": 300, "promise_days": 5}
//! ```
//!
//! Goods leave from where they are held, one parcel per location; units of which no place is known go into the first. A unit
//! weighs what `weights` says of its SKU, else of its category, else `grams`. The promise is the order's metadata
//! `promise_days`, else the settings': days from when the order was placed, and each parcel's `promised-at` says so. A
//! carrier without `countries` goes everywhere. If none takes the weight within the promise, the fastest that takes it
//! does; if none takes it at all, the parcel keeps the command's carrier. A command that names a carrier means it, and
//! nothing is changed.

use serde::Deserialize;
use tillstream_rules::ship::{Answer, Content, Line, Parcel, Request, Rule};
use tillstream_rules::{Order, export_ship, log, metadata, settings};

const DAY_MS: i64 = 86_400_000;

#[derive(Deserialize)]
struct Settings<'a> {
    #[serde(borrow, default)]
    carriers: Vec<Carrier<'a>>,
    #[serde(borrow, default)]
    weights: Vec<Weight<'a>>,
    #[serde(default)]
    grams: i64,
    #[serde(default)]
    promise_days: Option<i64>,
}

#[derive(Deserialize)]
struct Carrier<'a> {
    #[serde(borrow)]
    name: &'a str,
    grams_max: i64,
    days: i64,
    price: i64,
    #[serde(borrow, default)]
    countries: Vec<&'a str>,
}

#[derive(Deserialize)]
struct Weight<'a> {
    #[serde(borrow, default)]
    sku: Option<&'a str>,
    #[serde(borrow, default)]
    category: Option<&'a str>,
    grams: i64,
}

struct CarrierChoice;

impl Rule for CarrierChoice {
    fn decide(request: Request) -> Answer {
        let Some(settings) = settings::<Settings<'_>>(&request.order) else { return Answer::Pass };
        if request.carrier.is_some() || settings.carriers.is_empty() {
            return Answer::Pass;
        }
        let days = promise_days(&request.order, &settings);
        let mut parcels = by_location(&request.lines);
        for parcel in &mut parcels {
            let grams = parcel.contents.iter().map(|it| grams(it, &request.lines, &settings)).sum();
            let carrier = carrier(&settings.carriers, &request.order.destination.country, grams, days);
            log(&format!("{grams} g: {}", carrier.map_or("nobody takes it", |it| it.name)));
            parcel.carrier = carrier.map(|it| it.name.into());
            parcel.promised_at =
                days.map(|it| request.order.placed_at.saturating_add(it.saturating_mul(DAY_MS)));
        }
        Answer::Split(parcels)
    }
}

fn promise_days(order: &Order, settings: &Settings<'_>) -> Option<i64> {
    let of_order = metadata(order, "promise_days").and_then(|it| it.trim().parse().ok());
    of_order.or(settings.promise_days).filter(|it| (0..=365).contains(it))
}

fn grams(content: &Content, lines: &[Line], settings: &Settings<'_>) -> i64 {
    let Some(line) = lines.get(content.line as usize) else { return 0 };
    let of_sku = |it: &&Weight<'_>| it.sku.is_some_and(|sku| sku == line.sku);
    let of_category = |it: &&Weight<'_>| it.category.is_some() && it.category == line.category.as_deref();
    let weight = settings.weights.iter().find(of_sku).or_else(|| settings.weights.iter().find(of_category));
    weight.map_or(settings.grams, |it| it.grams).saturating_mul(content.quantity)
}

fn carrier<'a, 'b>(
    carriers: &'b [Carrier<'a>],
    country: &str,
    grams: i64,
    days: Option<i64>,
) -> Option<&'b Carrier<'a>> {
    let goes_there = |it: &&Carrier<'_>| it.countries.is_empty() || it.countries.contains(&country);
    let able = || carriers.iter().filter(|it| it.grams_max >= grams).filter(goes_there);
    let in_time = able().filter(|it| days.is_none_or(|days| it.days <= days));
    in_time.min_by_key(|it| (it.price, it.days)).or_else(|| able().min_by_key(|it| (it.days, it.price)))
}

/// A parcel for each location, in the order in which the lines name them.
fn by_location(lines: &[Line]) -> Vec<Parcel> {
    let mut parcels: Vec<Parcel> = Vec::new();
    let mut nowhere = Vec::new();
    for (it, line) in lines.iter().zip(0..) {
        let mut left = it.quantity;
        for held in &it.held {
            let quantity = held.quantity.min(left);
            if quantity > 0 {
                put(&mut parcels, Some(&held.location), Content { line, quantity });
                left -= quantity;
            }
        }
        if left > 0 {
            nowhere.push(Content { line, quantity: left });
        }
    }
    match parcels.first_mut() {
        Some(first) => first.contents.append(&mut nowhere),
        None => nowhere.into_iter().for_each(|it| put(&mut parcels, None, it)),
    }
    parcels
}

fn put(parcels: &mut Vec<Parcel>, location: Option<&str>, content: Content) {
    match parcels.iter_mut().find(|it| it.location.as_deref() == location) {
        Some(parcel) => parcel.contents.push(content),
        None => parcels.push(Parcel {
            location: location.map(Into::into),
            carrier: None,
            promised_at: None,
            contents: vec![content],
        }),
    }
}

export_ship!(CarrierChoice);

#[cfg(test)]
mod tests {
    use super::*;
    use tillstream_rules::ship::Held;
    use tillstream_rules::testing;

    const SETTINGS: &str = r#"{"carriers":[{"name":"post","grams_max":2000,"days":3,"price":320},
        {"name":"courier","grams_max":30000,"days":1,"price":990,"countries":["GB"]}],
        "weights":[{"category":"lanterns","grams":450},{"sku":"71053","grams":600}],"grams":300}"#;

    fn request(quantity: i64, held: &[(&str, i64)], promise_days: Option<&str>) -> Request {
        let mut order = testing::order("GB", SETTINGS);
        order.metadata =
            testing::attributes(&promise_days.map(|it| ("promise_days", it)).into_iter().collect::<Vec<_>>());
        let held = held.iter().map(|it| Held { location: it.0.into(), quantity: it.1 }).collect();
        let line = Line { sku: "71053".into(), quantity, category: Some("lanterns".into()), held };
        Request { order, lines: vec![line], carrier: None }
    }

    fn parcels(request: Request) -> Vec<(Option<String>, Option<String>, Option<i64>)> {
        match CarrierChoice::decide(request) {
            Answer::Split(it) => it.into_iter().map(|it| (it.location, it.carrier, it.promised_at)).collect(),
            Answer::Pass | Answer::Refuse(_) => Vec::new(),
        }
    }

    fn chosen(request: Request) -> Vec<String> {
        parcels(request).into_iter().map(|it| it.1.unwrap_or_default()).collect()
    }

    #[test]
    fn the_cheapest_takes_what_it_can_carry_in_time() {
        assert_eq!(chosen(request(3, &[("main", 3)], None)), ["post"]);
        assert_eq!(
            chosen(request(4, &[("main", 4)], None)),
            ["courier"],
            "2,400 g are too much for the post"
        );
        assert_eq!(chosen(request(1, &[("main", 1)], Some("2"))), ["courier"], "the post needs three days");
    }

    #[test]
    fn what_nobody_carries_in_time_goes_with_the_fastest_and_what_nobody_carries_with_the_commands() {
        let mut far = request(1, &[("main", 1)], Some("0"));
        assert_eq!(chosen(request(1, &[("main", 1)], Some("0"))), ["courier"]);
        far.order.destination.country = "AU".into();
        assert_eq!(chosen(far), ["post"], "the courier does not go there");
        assert_eq!(chosen(request(60, &[("main", 60)], None)), [""]);
    }

    #[test]
    fn each_location_sends_its_own_parcel_with_the_promise() {
        let sent = parcels(request(5, &[("north", 2), ("south", 2)], Some("2")));
        let promised = Some(1_291_191_960_000 + 2 * DAY_MS);
        assert_eq!(sent.len(), 2);
        assert_eq!(sent[0], (Some("north".into()), Some("courier".into()), promised));
        assert_eq!(sent[1], (Some("south".into()), Some("courier".into()), promised));
    }

    #[test]
    fn goods_of_no_known_place_are_one_parcel_and_a_named_carrier_stays() {
        assert_eq!(parcels(request(1, &[], None)), [(None, Some("post".into()), None)]);
        let named = Request { carrier: Some("van".into()), ..request(1, &[], None) };
        assert_eq!(parcels(named), []);
    }
}
