//! Goods come from the nearest locations, and from no more of them than wanted.
//!
//! Settings:
//!
//! ```json
//! {"most": 2,
//!  "locations": [{"name": "leeds", "lat_e2": 5380, "lon_e2": -155},
//!                {"name": "bristol", "lat_e2": 5145, "lon_e2": -259, "categories": ["furniture"]}],
//!  "areas": [{"country": "GB", "postal_code": "BS", "lat_e2": 5145, "lon_e2": -259}, {"country": "GB", "lat_e2": 5280, "lon_e2": -160}]}
//! ```
//!
//! Degrees are in hundredths: 5380 is 53.80° north. A location with `categories` keeps nothing else. The destination is the
//! area of its country whose `postal_code` is the longest beginning of the order's; an area without one stands for the rest
//! of the country. An order to no known area is placed as without this rule.
//!
//! `most` (2 when left out) bounds the locations named for the whole order, so that it leaves in few parcels: the nearest that
//! keep anything of it, and in the last place the one that keeps the most of what is still without, the nearer at a tie.
//! It is a wish: stock takes what the named locations lack from any other.

use serde::Deserialize;
use tillstream_rules::allocate::{Answer, Line, Placement, Request, Rule};
use tillstream_rules::{Destination, export_allocate, log, settings};

#[derive(Deserialize)]
struct Settings<'a> {
    #[serde(default = "two")]
    most: usize,
    #[serde(borrow, default)]
    locations: Vec<Location<'a>>,
    #[serde(borrow, default)]
    areas: Vec<Area<'a>>,
}

fn two() -> usize {
    2
}

#[derive(Deserialize)]
struct Location<'a> {
    #[serde(borrow)]
    name: &'a str,
    lat_e2: i64,
    lon_e2: i64,
    #[serde(borrow, default)]
    categories: Vec<&'a str>,
}

#[derive(Deserialize)]
struct Area<'a> {
    #[serde(borrow)]
    country: &'a str,
    #[serde(borrow, default)]
    postal_code: &'a str,
    lat_e2: i64,
    lon_e2: i64,
}

struct NearestFirst;

impl Rule for NearestFirst {
    fn decide(request: Request) -> Answer {
        let Some(settings) = settings::<Settings<'_>>(&request.order) else { return Answer::Pass };
        let Some(area) = area(&settings.areas, &request.order.destination) else {
            log("no area fits the destination");
            return Answer::Pass;
        };
        let mut locations: Vec<&Location<'_>> = settings.locations.iter().collect();
        locations.sort_by(|a, b| distance(a, area).total_cmp(&distance(b, area)));
        let chosen = choose(&locations, &request.lines, settings.most);
        let place = |(it, line): (&Line, u32)| {
            let keeping = chosen.iter().filter(|at| keeps(at, it));
            let locations: Vec<String> = keeping.map(|it| it.name.into()).collect();
            (!locations.is_empty()).then_some(Placement { line, locations })
        };
        let placements: Vec<_> = request.lines.iter().zip(0..).filter_map(place).collect();
        if placements.is_empty() { Answer::Pass } else { Answer::Place(placements) }
    }
}

/// At most so many locations, nearest first; `nearest_first` is in that order.
fn choose<'a, 'b>(nearest_first: &[&'b Location<'a>], lines: &[Line], most: usize) -> Vec<&'b Location<'a>> {
    let mut chosen = vec![false; nearest_first.len()];
    let mut open: Vec<&Line> = lines.iter().collect();
    for place in 1..=most {
        // The nearest that keeps anything; the last place is for the one that keeps the most of what is open.
        let mut best: Option<(usize, (usize, usize))> = None;
        for at in (0..nearest_first.len()).filter(|it| !chosen[*it]) {
            let of_all = lines.iter().filter(|line| keeps(nearest_first[at], line)).count();
            let of_open = open.iter().filter(|line| keeps(nearest_first[at], line)).count();
            let worth = if place < most { (0, of_all.min(1)) } else { (of_open, of_all) };
            // Not `max_by_key`, which takes the last of equals: the furthest.
            if best.is_none_or(|it| worth > it.1) {
                best = Some((at, worth));
            }
        }
        let Some((at, _)) = best else { break };
        chosen[at] = true;
        open.retain(|line| !keeps(nearest_first[at], line));
    }
    nearest_first.iter().zip(chosen).filter(|it| it.1).map(|it| *it.0).collect()
}

fn keeps(location: &Location<'_>, line: &Line) -> bool {
    let all = location.categories.is_empty();
    all || line.category.as_deref().is_some_and(|it| location.categories.contains(&it))
}

/// The area of a destination: the one that says most about its postal code.
fn area<'a, 'b>(areas: &'b [Area<'a>], destination: &Destination) -> Option<&'b Area<'a>> {
    let postal_code = destination.postal_code.as_deref().unwrap_or_default();
    let fits = |it: &&Area<'_>| it.country == destination.country && postal_code.starts_with(it.postal_code);
    areas.iter().filter(fits).max_by_key(|it| it.postal_code.len())
}

/// A number that grows with the distance: good enough to tell which is nearer.
fn distance(location: &Location<'_>, area: &Area<'_>) -> f64 {
    let degrees = |e2: i64| e2 as f64 / 100.0;
    let north = degrees(location.lat_e2 - area.lat_e2);
    // East and west lie closer together the further north they are.
    let narrowed = degrees(area.lat_e2).to_radians().cos();
    let east = degrees(location.lon_e2 - area.lon_e2) * narrowed;
    north * north + east * east
}

export_allocate!(NearestFirst);

#[cfg(test)]
mod tests {
    use super::*;
    use tillstream_rules::testing;

    const SETTINGS: &str = r#"{"most":2,"locations":[{"name":"glasgow","lat_e2":5586,"lon_e2":-425},
        {"name":"leeds","lat_e2":5380,"lon_e2":-155},{"name":"london","lat_e2":5151,"lon_e2":-13},
        {"name":"bristol","lat_e2":5145,"lon_e2":-259,"categories":["furniture"]}],
        "areas":[{"country":"GB","lat_e2":5280,"lon_e2":-160},{"country":"GB","postal_code":"E","lat_e2":5151,"lon_e2":-5},
        {"country":"GB","postal_code":"EH","lat_e2":5595,"lon_e2":-319},
        {"country":"GB","postal_code":"BS","lat_e2":5145,"lon_e2":-259}]}"#;

    fn decide(postal_code: &str, settings: &str, categories: &[&str]) -> Vec<(u32, String)> {
        let mut order = testing::order("GB", settings);
        order.destination.postal_code = Some(postal_code.into());
        let line = |it: &&str| Line { sku: "71053".into(), quantity: 1, category: Some((*it).into()) };
        match NearestFirst::decide(Request { order, lines: categories.iter().map(line).collect() }) {
            Answer::Place(it) => it.into_iter().map(|it| (it.line, it.locations.join(" "))).collect(),
            Answer::Pass | Answer::Refuse(_) => Vec::new(),
        }
    }

    #[test]
    fn the_nearest_comes_first_and_no_more_are_named_than_wanted() {
        assert_eq!(decide("E1 6AN", SETTINGS, &["lanterns"]), [(0, "london leeds".into())]);
        assert_eq!(decide("EH1 1BB", SETTINGS, &["lanterns"]), [(0, "glasgow leeds".into())], "EH is not E");
        let one = SETTINGS.replace(r#""most":2"#, r#""most":1"#);
        assert_eq!(decide("LS1 4AP", &one, &["lanterns"]), [(0, "leeds".into())], "the rest of the country");
    }

    #[test]
    fn the_last_place_is_for_one_that_keeps_what_the_nearer_do_not() {
        let both = decide("BS1 4DJ", SETTINGS, &["furniture", "lanterns"]);
        assert_eq!(both, [(0, "bristol london".into()), (1, "london".into())]);
    }

    #[test]
    fn one_that_keeps_all_is_better_than_two_that_are_nearer() {
        let one = SETTINGS.replace(r#""most":2"#, r#""most":1"#);
        let both = decide("BS1 4DJ", &one, &["furniture", "lanterns"]);
        assert_eq!(both, [(0, "london".into()), (1, "london".into())], "the nearest that keeps both");
    }

    #[test]
    fn a_line_that_no_named_location_keeps_is_placed_as_without_the_rule() {
        let only = r#"{"locations":[{"name":"bristol","lat_e2":5145,"lon_e2":-259,"categories":["furniture"]}],
            "areas":[{"country":"GB","lat_e2":5280,"lon_e2":-160}]}"#;
        assert_eq!(decide("BS1", only, &["lanterns", "furniture"]), [(1, "bristol".into())]);
        assert_eq!(decide("BS1", only, &["lanterns"]), []);
        assert_eq!(decide("BS1", "{}", &["lanterns"]), [], "no area");
    }
}
