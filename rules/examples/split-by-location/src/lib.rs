//! Goods that lie in two places leave in two parcels.
//!
//! Every unit leaves from where the order holds it. Units of which no place is known, because an earlier shipment may have
//! taken them, go into the first parcel.
//!
//! Settings: `{"carrier": "post"}` names the carrier of every parcel.

use serde::Deserialize;
use tillstream_rules::ship::{Answer, Content, Parcel, Request, Rule};
use tillstream_rules::{export_ship, settings};

#[derive(Default, Deserialize)]
struct Settings<'a> {
    #[serde(borrow, default)]
    carrier: Option<&'a str>,
}

struct SplitByLocation;

impl Rule for SplitByLocation {
    fn decide(request: Request) -> Answer {
        let settings: Settings<'_> = settings(&request.order).unwrap_or_default();
        let mut parcels: Vec<Parcel> = Vec::new();
        let mut nowhere = Vec::new();
        for (it, line) in request.lines.iter().zip(0..) {
            let mut left = it.quantity;
            for held in &it.held {
                let quantity = held.quantity.min(left);
                if quantity > 0 {
                    put(&mut parcels, &held.location, Content { line, quantity });
                    left -= quantity;
                }
            }
            if left > 0 {
                nowhere.push(Content { line, quantity: left });
            }
        }
        match parcels.first_mut() {
            Some(first) => first.contents.append(&mut nowhere),
            None => return Answer::Pass,
        }
        if parcels.len() == 1 && settings.carrier.is_none() {
            return Answer::Pass;
        }
        for parcel in &mut parcels {
            parcel.carrier = settings.carrier.map(Into::into);
        }
        Answer::Split(parcels)
    }
}

/// Into the parcel of its location, which begins with the first unit from there.
fn put(parcels: &mut Vec<Parcel>, location: &str, content: Content) {
    match parcels.iter_mut().find(|it| it.location.as_deref() == Some(location)) {
        Some(parcel) => parcel.contents.push(content),
        None => parcels.push(Parcel {
            location: Some(location.into()),
            carrier: None,
            promised_at: None,
            contents: vec![content],
        }),
    }
}

export_ship!(SplitByLocation);

#[cfg(test)]
mod tests {
    use super::*;
    use tillstream_rules::ship::{Held, Line};
    use tillstream_rules::testing;

    fn decide(lines: &[(i64, &[(&str, i64)])]) -> Vec<(String, Vec<(u32, i64)>)> {
        let held = |it: &(&str, i64)| Held { location: it.0.into(), quantity: it.1 };
        let line = |it: &(i64, &[(&str, i64)])| Line {
            sku: "71053".into(),
            quantity: it.0,
            category: None,
            held: it.1.iter().map(held).collect(),
        };
        let order = testing::order("GB", "{}");
        let lines = lines.iter().map(line).collect();
        match SplitByLocation::decide(Request { order, lines, carrier: None }) {
            Answer::Split(it) => it
                .into_iter()
                .map(|it| {
                    let contents = it.contents.iter().map(|it| (it.line, it.quantity)).collect();
                    (it.location.unwrap_or_default(), contents)
                })
                .collect(),
            Answer::Pass | Answer::Refuse(_) => Vec::new(),
        }
    }

    #[test]
    fn two_places_are_two_parcels() {
        let parcels = decide(&[(5, &[("north", 3), ("south", 2)]), (1, &[("south", 1)])]);
        assert_eq!(parcels, [("north".into(), vec![(0, 3)]), ("south".into(), vec![(0, 2), (1, 1)])]);
    }

    #[test]
    fn one_place_is_one_parcel() {
        assert_eq!(decide(&[(5, &[("north", 5)])]), []);
        assert_eq!(decide(&[(5, &[])]), []);
    }

    #[test]
    fn units_of_no_known_place_go_along() {
        let parcels = decide(&[(5, &[("north", 2)]), (1, &[("south", 1)])]);
        assert_eq!(parcels, [("north".into(), vec![(0, 2), (0, 3)]), ("south".into(), vec![(1, 1)])]);
    }
}
