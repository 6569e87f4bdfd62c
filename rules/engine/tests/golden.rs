//! Modules as they were built against each released world: every later host runs them.
//!
//! `golden/<version>/` holds components of the examples as that version built them. A file is never touched once it is
//! there. `TILLSTREAM_WRITE_GOLDEN=1 cargo test -p tillstream-rule-engine --test golden` writes the ones that are missing,
//! from what `make rules` built.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use support::{engine, load, price_call};
use tillstream_rule_engine::Limits;
use tillstream_rule_modules::encode;
use tillstream_stage::rule::{
    AllocateInput, GoodsLine, Hook, Hooks, LineAdjustment, Parcel, RiskInput, RuleAnswer, RuleCall,
    RuleOrder, ShipInput, ShipLine,
};

fn golden(version: &str, name: &str) -> Vec<u8> {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path: PathBuf = rules.join("tests/golden").join(version).join(format!("{name}.wasm"));
    if !path.exists() && std::env::var("TILLSTREAM_WRITE_GOLDEN").is_ok_and(|it| it == "1") {
        let built = rules.join("../examples/target/wasm32-unknown-unknown/release");
        let module = fs::read(built.join(format!("{}.wasm", name.replace('-', "_")))).expect("make rules");
        fs::write(&path, encode(&module)).unwrap();
    }
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn golden_volume_discount_of_1_0_0_takes_a_tenth_off_many() {
    let module = load(&engine(), &golden("1.0.0", "volume-discount"));
    assert_eq!(module.hooks(), Hooks::NONE.with(Hook::Price));
    let run = module.run("ord_1", &price_call(3), "{}", u64::MAX);
    // A tenth of 12 × 339.
    let off = LineAdjustment { discount_minor: 407, tax_rate_bp: None };
    assert_eq!(run.result.unwrap().0, RuleAnswer::Adjust(vec![off; 3]));
    assert!(run.fuel * 100 < Limits::of(3).fuel, "{} units", run.fuel);
    let run = module.run("ord_1", &price_call(3), r#"{"from_quantity":13}"#, u64::MAX);
    assert_eq!(run.result.unwrap().0, RuleAnswer::Pass, "its settings reach it");
}

#[test]
fn golden_split_by_location_of_1_0_0_sends_from_where_goods_lie() {
    let module = load(&engine(), &golden("1.0.0", "split-by-location"));
    let line = ShipLine {
        goods: GoodsLine { sku: "71053".into(), quantity: 5, category: None },
        held: vec![("north".into(), 3), ("south".into(), 2)],
    };
    let call = RuleCall::Ship(ShipInput { order: RuleOrder::default(), lines: vec![line], carrier: None });
    let run = module.run("ord_1", &call, r#"{"carrier":"post"}"#, u64::MAX);
    let parcel = |location: &str, quantity| Parcel {
        location: Some(location.into()),
        carrier: Some("post".into()),
        promised_at_ms: None,
        contents: vec![(0, quantity)],
    };
    assert_eq!(run.result.unwrap().0, RuleAnswer::Split(vec![parcel("north", 3), parcel("south", 2)]));
}

#[test]
fn golden_nearest_first_of_1_0_0_names_the_nearest_that_keeps_a_line() {
    let module = load(&engine(), &golden("1.0.0", "nearest-first"));
    let settings = r#"{"most":1,"locations":[{"name":"leeds","lat_e2":5380,"lon_e2":-155},
        {"name":"london","lat_e2":5151,"lon_e2":-13}],"areas":[{"country":"GB","postal_code":"E","lat_e2":5151,"lon_e2":-5}]}"#;
    let order =
        RuleOrder { country: "GB".into(), postal_code: Some("E1 6AN".into()), ..RuleOrder::default() };
    let lines = vec![GoodsLine { sku: "71053".into(), quantity: 5, category: None }];
    let run = module.run("ord_1", &RuleCall::Allocate(AllocateInput { order, lines }), settings, u64::MAX);
    assert_eq!(run.result.unwrap().0, RuleAnswer::Place(vec![vec!["london".into()]]));
}

#[test]
fn golden_fraud_score_of_1_0_0_asks_for_a_look_and_logs_why() {
    let module = load(&engine(), &golden("1.0.0", "fraud-score"));
    let metadata = [("velocity.cards_24h".into(), "3".into())].into();
    let order = RuleOrder { country: "GB".into(), metadata, ..RuleOrder::default() };
    let method = "pm_card_visa".into();
    let input = RiskInput { order, total_minor: 339, units: 1, lines: 1, method };
    let run = module.run("ord_1", &RuleCall::Risk(input), "{}", u64::MAX);
    let why = "50 points: three cards within a day, a guest";
    assert_eq!(run.result.unwrap(), (RuleAnswer::Approve, Some(why.to_owned())));
    assert_eq!(run.log, format!("{why}\n"));
}

#[test]
fn golden_modules_import_nothing_but_the_log() {
    for name in ["volume-discount", "split-by-location", "nearest-first", "fraud-score"] {
        let bytes = golden("1.0.0", name);
        assert!(bytes.len() < Limits::of(0).module_bytes, "{name}");
        engine().compile(&bytes).unwrap();
    }
}
