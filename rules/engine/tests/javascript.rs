//! Rules that are JavaScript source: what is taken, what a rule sees and may say, and what one that means harm comes to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::sync::OnceLock;
use support::{engine, load, price_call};
use tillstream_rule_engine::{
    Fault, Limits, Module, Refusal, Run, Source, engines, settings_schema, with_engine,
};
use tillstream_stage::rule::{
    AllocateInput, GoodsLine, Hook, Hooks, LineAdjustment, MeasureInput, MeasureLine, Parcel, RiskInput,
    RuleAnswer, RuleCall, RuleOrder, ShipInput, ShipLine,
};

/// The engine, compiled once for all tests, as it is once for all tenants.
fn javascript() -> &'static Module {
    static ENGINE: OnceLock<Module> = OnceLock::new();
    ENGINE.get_or_init(|| load(&engine(), with_engine("", None).as_bytes()))
}

fn taken(source: &str) -> Result<Module, Refusal> {
    let packed = with_engine(source, None);
    javascript().with_source(&Source::read(packed.as_bytes()).unwrap().unwrap())
}

/// Runs a price rule of this body on an order of three lines.
fn price(body: &str) -> Run {
    let module = taken(&format!("export function price(request) {{ {body} }}")).unwrap();
    module.run("ord_1", &price_call(3), r#"{"rate":{"bp":500}}"#, u64::MAX)
}

fn ask(module: &Module, call: &RuleCall) -> Run {
    module.run("ord_1", call, "{}", u64::MAX)
}

/// What `String(it)` is in the sandbox of a call.
fn said(expression: &str) -> String {
    let run = price(&format!("console.log({expression}); return 'pass';"));
    assert_eq!(run.result, Ok((RuleAnswer::Pass, None)), "{expression}");
    run.log.trim_end().to_owned()
}

/// Engines that are released: one that is there is never another, since rules name it.
#[test]
fn the_released_engines_are_as_they_were_released() {
    let found: Vec<_> = engines().collect();
    let released = [("javascript-1", "da9ee1c6edf6df048bb54313c0e1e35114ce987531122ea2565b9b662d7408ec")];
    assert_eq!(found, released);
}

#[test]
fn a_source_says_its_hooks_and_its_settings() {
    let module =
        taken("export const price = () => 'pass'; export function measure() {} export const ship = 1;")
            .unwrap();
    assert_eq!(module.hooks(), Hooks::NONE.with(Hook::Price).with(Hook::Measure));
    let packed = with_engine("export function risk() {}", Some("{\"type\":\"object\"}"));
    assert_eq!(settings_schema(packed.as_bytes()), Ok(Some("{\"type\":\"object\"}")));
}

#[test]
fn a_source_that_cannot_be_taken_in_is_refused_with_its_place() {
    let refused = |source: &str| match taken(source) {
        Err(Refusal::Source(text)) => text,
        other => panic!("{source}: {:?}", other.map(|it| it.hooks())),
    };
    let text = refused("let a = 1;\nexport function price( {");
    assert!(text.contains("SyntaxError") && text.contains("index.js:2"), "{text}");
    let text = refused("export function price() {}\nnothing.there;");
    assert!(text.contains("nothing is not defined") && text.contains("index.js:2"), "{text}");
    let text = refused("import { price } from './other.js'; export { price };");
    assert!(text.contains("other.js"), "{text}");
    assert!(refused("for (;;) {} export function price() {}").contains("11000000 units of fuel"));
    assert!(refused("await new Promise(() => {}); export function price() {}").contains("waits"));
    assert!(refused("const f = () => f(); f(); export function price() {}").contains("stack"));
    assert_eq!(taken("function price() {}").err(), Some(Refusal::NoHook), "it is not exported");
}

#[test]
fn a_question_comes_as_its_types_say() {
    let run = price(
        "console.log(JSON.stringify(request.order)); console.log(JSON.stringify(request.lines[2])); return 'pass'",
    );
    let order = concat!(
        r#"{"id":"ord_1","placedAt":1291192000000,"currency":"GBP","#,
        r#""customer":{"id":"c-17850","attributes":{"tier":"gold"}},"#,
        r#""destination":{"country":"GB","region":null,"city":null,"postalCode":null},"#,
        r#""metadata":{"source":"import"},"settings":{"rate":{"bp":500}}}"#
    );
    let line =
        r#"{"sku":"71052","quantity":12,"unitPrice":339,"discount":0,"taxRate":"0.2","category":"lanterns"}"#;
    assert_eq!((run.result.is_ok(), run.log), (true, format!("{order}\n{line}\n")));
}

#[test]
fn every_hook_may_say_what_its_world_has() {
    let order = RuleOrder { country: "GB".into(), ..RuleOrder::default() };
    let goods = GoodsLine { sku: "71053".into(), quantity: 5, category: None };
    let module = taken(
        "export const price = ({ lines }) => ({ adjust: lines.map((it, line) => ({ line, discount: it.quantity, taxRate: '0.05' })) });
         export const allocate = ({ lines }) => ({ place: [{ line: lines.length - 1, locations: ['north', 'süd'] }] });
         export const risk = ({ total, units, lines, paymentMethod }) => ({ review: [total, units, lines, paymentMethod].join() });
         export const ship = ({ lines, carrier }) => ({ split: lines[0].held.map((it) => ({ location: it.location, carrier: carrier + '!',
           promisedAt: 1291192000000, contents: [{ line: 0, quantity: it.quantity }] })) });
         export const measure = ({ total, lines }) => ({ total: String(total), gross: String(lines[0].gross) });",
    )
    .unwrap();
    let answer = |call: &RuleCall| ask(&module, call).result.unwrap();
    let adjusted = LineAdjustment { discount_minor: 12, tax_rate_bp: Some(500) };
    assert_eq!(answer(&price_call(2)), (RuleAnswer::Adjust(vec![adjusted; 2]), None));
    let call = RuleCall::Allocate(AllocateInput { order: order.clone(), lines: vec![goods.clone()] });
    assert_eq!(answer(&call).0, RuleAnswer::Place(vec![vec!["north".into(), "süd".into()]]));
    let method = "pm_card_visa".into();
    let call =
        RuleCall::Risk(RiskInput { order: order.clone(), total_minor: 339, units: 2, lines: 1, method });
    assert_eq!(answer(&call), (RuleAnswer::Approve, Some("339,2,1,pm_card_visa".to_owned())));
    let line = ShipLine { goods, held: vec![("north".into(), 3), ("south".into(), 2)] };
    let call =
        RuleCall::Ship(ShipInput { order: order.clone(), lines: vec![line], carrier: Some("van".into()) });
    let parcel = |location: &str, quantity| Parcel {
        location: Some(location.into()),
        carrier: Some("van!".into()),
        promised_at_ms: Some(1_291_192_000_000),
        contents: vec![(0, quantity)],
    };
    assert_eq!(answer(&call).0, RuleAnswer::Split(vec![parcel("north", 3), parcel("south", 2)]));
    let line =
        MeasureLine { sku: "a".into(), quantity: 1, gross_minor: 400, discount_minor: 61, category: None };
    let call = RuleCall::Measure(MeasureInput { order, total_minor: 339, lines: vec![line] });
    let dimensions = vec![("gross".into(), "400".into()), ("total".into(), "339".into())];
    assert_eq!(answer(&call).0, RuleAnswer::Dimensions(dimensions));
}

#[test]
fn a_refusal_a_pass_and_an_approval_are_words() {
    assert_eq!(price("return 'pass'").result.unwrap().0, RuleAnswer::Pass);
    let refused = price("return { refuse: { code: 'no_lanterns', message: 'Keine Laternen — 灯笼 🏮' } }")
        .result
        .unwrap()
        .0;
    let expected =
        RuleAnswer::Refuse { code: "no_lanterns".into(), message: "Keine Laternen — 灯笼 🏮".into() };
    assert_eq!(refused, expected);
}

#[test]
fn an_answer_of_another_shape_is_none() {
    for (body, says) in [
        ("", "returned nothing"),
        ("return null", "expected"),
        ("return 'maybe'", "unknown variant `maybe`"),
        ("return { adjust: [{ line: 0, discount: 1.5 }] }", "1.5"),
        ("return { adjust: [{ line: 0, discount: NaN }] }", "null"),
        ("return { adjust: [{ line: -1, discount: 1 }] }", "-1"),
        ("return { adjust: [{ line: 0, off: 1 }] }", "unknown field `off`"),
        ("return { adjust: [{ line: 7, discount: 1 }] }", "there is no such line"),
        ("return { adjust: [{ line: 0, discount: 1e300 }] }", "expected i64"),
        ("return { adjust: [], refuse: {} }", "expected"),
        ("return Promise.resolve('pass')", "expected"),
        ("return () => 'pass'", "returned nothing"),
    ] {
        match price(body).result {
            Err(Fault::Invalid(text)) => assert!(text.contains(says), "{body}: {text}"),
            other => panic!("{body}: {other:?}"),
        }
    }
}

#[test]
fn what_is_thrown_is_told_with_its_place() {
    let trapped = |body: &str| match price(body).result {
        Err(Fault::Trap(text)) => text,
        other => panic!("{body}: {other:?}"),
    };
    let text = trapped("\n\nreturn request.order.nobody.name");
    assert!(text.contains("TypeError") && text.contains("at price (index.js:3"), "{text}");
    assert_eq!(trapped("throw 'plain'"), "plain");
    assert!(trapped("return { get adjust() { throw new Error('in a getter') } }").contains("in a getter"));
    assert!(
        trapped("return new Proxy({}, { ownKeys() { throw new Error('in a trap') } })").contains("in a trap")
    );
    assert!(trapped("throw { toString() { throw 1 } }").contains("cannot be shown"));
    assert!(trapped("const a = {}; a.a = a; return a").contains("circular"));
    assert!(trapped("return { adjust: 1n }").contains("BigInt"));
}

#[test]
fn a_rule_that_means_harm_ends_at_its_limits() {
    let fault = |body: &str| price(body).result.unwrap_err();
    let fuel = Limits::of(3).fuel;
    assert_eq!(fault("for (;;) {}"), Fault::Fuel(fuel));
    assert_eq!(fault("for (;;) { try { throw 1 } catch {} }"), Fault::Fuel(fuel));
    assert_eq!(fault("return /^(a+)+$/.test('a'.repeat(40) + 'b') ? 'pass' : 'pass'"), Fault::Fuel(fuel));
    assert_eq!(fault("throw { toString() { for (;;) {} } }"), Fault::Fuel(fuel));
    assert_eq!(fault("return 'x'.repeat(1 << 29)"), Fault::Memory(16 << 20));
    // What it takes is filled with zeros, and that costs fuel: eleven at most of a MiB each.
    assert_eq!(fault("const all = []; for (;;) all.push(new ArrayBuffer(1 << 20))"), Fault::Fuel(fuel));
    assert_eq!(fault("let s = 'x'; for (;;) s = [s, s].join()"), Fault::Fuel(fuel));
    assert_eq!(fault("const f = () => 1 + f(); return f()"), Fault::Stack);
    assert_eq!(fault("JSON.parse('['.repeat(100000)); return 'pass'"), Fault::Stack);
    let refuse = |length: u32| format!("return {{ refuse: {{ code: 'x', message: 'x'.repeat({length}) }} }}");
    assert!(matches!(fault(&refuse(21 << 10)), Fault::Output(_)));
    assert!(matches!(fault(&refuse(4 << 20)), Fault::Output(_) | Fault::Fuel(_)));
}

#[test]
fn a_flood_of_log_is_cut_and_a_line_past_its_bound_ends_the_call() {
    let run = price("for (let i = 0; i < 200; i++) console.log('line', i, 'ä'); return 'pass'");
    assert_eq!(run.result, Ok((RuleAnswer::Pass, None)));
    assert!(run.log.starts_with("line 0 ä\nline 1 ä\n") && run.log.len() <= 1 << 10, "{}", run.log.len());
    // Making so long a line out of a value and handing it over takes more than a call has.
    let run = price("console.log('灯'.repeat(60000)); return 'pass'");
    assert_eq!((run.result, run.log.as_str()), (Err(Fault::Fuel(Limits::of(3).fuel)), ""));
    let run = price("for (;;) console.log('x')");
    assert_eq!((run.result, run.log.len()), (Err(Fault::Fuel(Limits::of(3).fuel)), 1 << 10));
}

#[test]
fn nothing_passes_from_one_order_to_the_next_or_to_another_rule() {
    let leaves = "globalThis.left = (globalThis.left ?? 0) + 1;
        Object.prototype.left = 7; Array.prototype.map = () => []; JSON.stringify = () => 'mine';
        Object.defineProperty(Object.prototype, 'order', { get() { return 'mine' } });
        count = count + 1;";
    let source = format!(
        "let count = 0;
         export function price(request) {{
           const before = [globalThis.left, {{}}.left, count, [1].map(String).length, JSON.stringify(1), typeof request.order];
           {leaves}
           console.log(before);
           return 'pass';
         }}"
    );
    let module = taken(&source).unwrap();
    let first = ask(&module, &price_call(3));
    assert_eq!(first.log, ",,0,1,1,object\n");
    for _ in 0..3 {
        assert_eq!(ask(&module, &price_call(3)), first);
    }
    assert_eq!(said("[globalThis.left, {}.left, [1].map(String).length]"), ",,1");
}

#[test]
fn the_same_call_is_the_same_to_the_last_unit_of_fuel() {
    let source = "export function price({ lines }) {
        const seen = new Map(lines.map((it) => [it.sku, Math.sin(it.unitPrice) * 1e6]));
        const text = [...seen].map(([sku, it]) => `${sku}=${it.toFixed(3)}`).sort().join();
        console.log(text, 0 / 0, new Float64Array([-(0 / 0)]), [3, 1, 2].sort(), text.replace(/7(\\d)/gu, '$1'));
        return { adjust: [{ line: 0, discount: Math.round(Math.abs(seen.get('71050'))) }] };
    }";
    let module = taken(source).unwrap();
    let first = ask(&module, &price_call(3));
    assert!(first.result.is_ok(), "{first:?}");
    assert_eq!(ask(&module, &price_call(3)), first);
    let elsewhere = load(&engine(), with_engine(source, None).as_bytes());
    let packed = with_engine(source, None);
    let again = elsewhere.with_source(&Source::read(packed.as_bytes()).unwrap().unwrap()).unwrap();
    assert_eq!(ask(&again, &price_call(3)), first, "compiled anew, in another sandbox");
}

#[test]
fn there_is_no_clock_no_randomness_and_no_way_out() {
    for (expression, says) in [
        ("new Date()", "a rule has no clock"),
        ("Date()", "a rule has no clock"),
        ("Date.now()", "a rule has no clock"),
        ("new (new Date(0).constructor)()", "a rule has no clock"),
        ("new (class extends Date {})()", "a rule has no clock"),
        ("Reflect.construct(Date, [])", "a rule has no clock"),
        ("Math.random()", "a rule has no randomness"),
    ] {
        let result = price(&format!("return String({expression})")).result;
        let Err(Fault::Trap(text)) = result else { panic!("{expression}: {result:?}") };
        assert!(text.contains(says), "{expression}: {text}");
    }
    for name in [
        "performance",
        "setTimeout",
        "queueMicrotask",
        "fetch",
        "require",
        "process",
        "std",
        "os",
        "WeakRef",
        "Atomics",
    ] {
        let kind = said(&format!("typeof {name}"));
        assert_eq!(kind, "undefined", "{name}");
    }
    assert_eq!(said("new Date(request.order.placedAt).toISOString()"), "2010-12-01T08:26:40.000Z");
    assert_eq!(said("[new Date(0).getHours(), new Date(0).getTimezoneOffset()]"), "0,0");
    assert_eq!(said("new Date(2010, 11, 1, 8) - Date.UTC(2010, 11, 1, 8)"), "0");
}

#[test]
fn texts_come_and_go_as_they_are() {
    let order = RuleOrder {
        country: "GB".into(),
        metadata: [("__proto__".into(), "mine".into()), ("größe".into(), "灯笼 🏮 \"\\\n".into())].into(),
        ..RuleOrder::default()
    };
    let call = RuleCall::Measure(MeasureInput { order, total_minor: 0, lines: Vec::new() });
    let module = taken(
        "export const measure = ({ order }) => ({ size: order.metadata['größe'].replace('\\n', '-'), length: String([...order.metadata['größe']].length),
           proto: Object.getOwnPropertyNames(order.metadata).join() + ({}).mine, lone: '\\ud83c'.toWellFormed() });",
    );
    let run = ask(&module.unwrap(), &call);
    let said = |name: &str, value: &str| (name.into(), value.into());
    let expected = vec![
        said("length", "8"),
        said("lone", "\u{fffd}"),
        said("proto", "__proto__,größeundefined"),
        said("size", "灯笼 🏮 \"\\-"),
    ];
    assert_eq!(run.result.unwrap().0, RuleAnswer::Dimensions(expected));
}

#[test]
fn a_call_of_a_small_rule_costs_a_small_part_of_what_it_may() {
    let source = include_str!("../../javascript/examples/volume-discount/index.js");
    let run = ask(&taken(source).unwrap(), &price_call(3));
    let off = LineAdjustment { discount_minor: 407, tax_rate_bp: None };
    assert_eq!(run.result.unwrap().0, RuleAnswer::Adjust(vec![off; 3]), "as its twin in Rust");
    let limits = Limits::of(3);
    assert!(run.fuel * 36 < limits.fuel, "{} units", run.fuel);
    assert!(run.memory_bytes * 8 < limits.memory_bytes, "{} bytes", run.memory_bytes);
    let many = ask(&taken(source).unwrap(), &price_call(200));
    assert!(many.result.is_ok() && many.fuel * 5 < Limits::of(200).fuel * 4, "{} units", many.fuel);
}

#[test]
fn the_largest_source_is_compiled_and_a_call_of_it_costs_its_code_and_not_its_text() {
    let comments = format!("// {}\n", "x".repeat(97)).repeat(2_500);
    let commented = taken(&format!("{comments}export const price = () => 'pass';")).unwrap();
    let bare = taken("export const price = () => 'pass';").unwrap();
    let fuel = |module: &Module| ask(module, &price_call(3)).fuel;
    assert!(fuel(&commented).abs_diff(fuel(&bare)) < 10_000, "{} {}", fuel(&commented), fuel(&bare));
    let function = |it: usize| {
        let case =
            |at: usize| format!("if (a.x === {at}) return [b, 'y{at}', {{ at: {at} }}].length * {it};");
        format!("function f{it}(a, b) {{ {} return 2; }}\n", (0..40).map(case).collect::<String>())
    };
    let dense: String = (0..100).map(function).collect();
    assert!(dense.len() > 220 << 10, "{}", dense.len());
    let dense =
        taken(&format!("{dense}export const price = () => f99({{ x: 99 }}, 1) === 2 && 'pass';")).unwrap();
    let run = ask(&dense, &price_call(3));
    assert_eq!(run.result, Ok((RuleAnswer::Pass, None)), "{} units", run.fuel);
}

#[test]
fn the_text_of_a_function_is_not_kept_and_its_name_is() {
    assert_eq!(said("(function named() { return 1 })"), "function named() {\n    [native code]\n}");
}
