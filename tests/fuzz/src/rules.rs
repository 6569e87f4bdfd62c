//! Values that cross the sandbox's wall: what the host makes of the memory a rule calls its answer, and whether what goes
//! in comes out again.
//!
//! The modules here do nothing but copy: one numbers of the request into the memory of its answer, so that the input
//! decides every byte the host reads there; one answers with the metadata it was given. A reader of its own, which knows
//! the canonical ABI's layouts and nothing of the host's code, reads the same memory, and both must agree.

use crate::canonical::{Memory, Read, Said};
use std::sync::LazyLock;
use tillstream_rule_engine::{ArtifactKey, Fault, Limits, Module, Pool, RuleEngine, Run};
use tillstream_rule_modules::component;
use tillstream_schemas::{Text, TextMap};
use tillstream_stage::rule::{
    AllocateInput, GoodsLine, Hook, MeasureInput, MeasureLine, PriceInput, RiskInput, RuleAnswer, RuleCall,
    RuleLine, RuleOrder, ShipInput, ShipLine, TEXT_CHARS_MAX, fit,
};

/// Where a module puts its answer.
const ANSWER_AT: u32 = 4_096;
/// Where the request's texts and lists begin: before it stands nothing but the answer.
const REQUEST_AT: u32 = 65_536;
/// Bytes of a module's memory.
const MEMORY_BYTES: u32 = 8 * 65_536;
/// Where the record of the order ends in every request.
const ORDER_BYTES: u32 = 104;
/// Where the order's metadata stands in it.
const METADATA_AT: u32 = 88;
/// Numbers of the input that are carried over.
const CARRIED_MAX: usize = 512;
/// Units of the one line that is to be shipped.
const UNITS: i64 = 3;

struct Modules {
    /// By hook.
    copying: Vec<Module>,
    telling: Module,
}

static MODULES: LazyLock<Modules> = LazyLock::new(|| {
    let engine = RuleEngine::new(Pool::Slots(2)).expect("an engine");
    let key = ArtifactKey::new([7; 32]);
    let load = |bytes: Vec<u8>| {
        let code = engine.compile(&bytes).expect("a module that compiles");
        key.open(&engine, "digest", &key.seal(&engine, "digest", &code)).expect("a module that loads")
    };
    Modules {
        copying: Hook::ALL.into_iter().map(|hook| load(module(hook, &copies(hook)))).collect(),
        telling: load(module(Hook::Measure, &format!("(i32.add (local.get 0) (i32.const {METADATA_AT}))"))),
    }
});

/// A module with one hook, whose `decide` has this body.
fn module(hook: Hook, body: &str) -> Vec<u8> {
    let name = hook.as_str();
    let text = format!(
        r#"(module
  (memory (export "memory") {})
  (global $next (mut i32) (i32.const {REQUEST_AT}))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and
      (i32.add (global.get $next) (i32.sub (local.get 2) (i32.const 1)))
      (i32.sub (i32.const 0) (local.get 2))))
    (global.set $next (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
  (func (export "tillstream:rules/{name}@1.0.0#decide") (param i32) (result i32)
    (local $from i32) (local $to i32) (local $left i32)
    {body}))"#,
        MEMORY_BYTES / 65_536
    );
    component(&format!("{name}-rule"), &text)
}

/// Copies numbers of the request into the answer.
fn copies(hook: Hook) -> String {
    // Where the list stands that the numbers are in, bytes of an element, and where in it the number is.
    let (list, element, number) = match hook {
        Hook::Price => (format!("(local.get 0) (i32.const {ORDER_BYTES})"), 56, 16),
        Hook::Allocate => (format!("(local.get 0) (i32.const {ORDER_BYTES})"), 32, 8),
        // The list of what is held, in the first line.
        Hook::Ship => (format!("(i32.load offset={ORDER_BYTES} (local.get 0)) (i32.const 28)"), 16, 8),
        Hook::Measure => (format!("(local.get 0) (i32.const {})", ORDER_BYTES + 8), 48, 16),
        Hook::Risk => {
            return format!(
                "(i64.store (i32.const {ANSWER_AT}) (i64.load offset={ORDER_BYTES} (local.get 0)))
                 (i64.store offset=8 (i32.const {ANSWER_AT}) (i64.load offset={} (local.get 0)))
                 (i32.store offset=16 (i32.const {ANSWER_AT}) (i32.load offset={} (local.get 0)))
                 (i32.const {ANSWER_AT})",
                ORDER_BYTES + 8,
                ORDER_BYTES + 16
            );
        }
    };
    format!(
        "(local.set $from (i32.add {list}))
         (local.set $left (i32.load offset=4 (local.get $from)))
         (local.set $from (i32.load (local.get $from)))
         (local.set $to (i32.const {ANSWER_AT}))
         (block $done (loop $more
           (br_if $done (i32.eqz (local.get $left)))
           (i64.store (local.get $to) (i64.load offset={number} (local.get $from)))
           (local.set $from (i32.add (local.get $from) (i32.const {element})))
           (local.set $to (i32.add (local.get $to) (i32.const 8)))
           (local.set $left (i32.sub (local.get $left) (i32.const 1)))
           (br $more)))
         (i32.const {ANSWER_AT})"
    )
}

/// A request that carries these numbers.
fn request(hook: Hook, carried: &[i64]) -> RuleCall {
    let order = RuleOrder { currency: "GBP".into(), country: "GB".into(), ..RuleOrder::default() };
    let sku = || Text::const_new("s");
    let goods = |quantity: i64| GoodsLine { sku: sku(), quantity, category: None };
    let numbers = carried.iter().copied();
    match hook {
        Hook::Price => {
            let lines = numbers.map(|unit_price_minor| RuleLine {
                sku: sku(),
                quantity: 1,
                unit_price_minor,
                discount_minor: 0,
                tax_rate_bp: 2_000,
                category: None,
            });
            RuleCall::Price(PriceInput { order, lines: lines.collect() })
        }
        Hook::Allocate => RuleCall::Allocate(AllocateInput { order, lines: numbers.map(goods).collect() }),
        Hook::Risk => {
            let number = |at: usize| carried.get(at).copied().unwrap_or_default();
            RuleCall::Risk(RiskInput {
                order,
                total_minor: number(0),
                units: number(1),
                lines: number(2) as u32,
                method: "pm_card_visa".into(),
            })
        }
        Hook::Ship => {
            let held = numbers.map(|it| (Text::const_new("main"), it)).collect();
            RuleCall::Ship(ShipInput {
                order,
                lines: vec![ShipLine { goods: goods(UNITS), held }],
                carrier: None,
            })
        }
        Hook::Measure => {
            let line = |gross_minor| MeasureLine {
                sku: sku(),
                quantity: 1,
                gross_minor,
                discount_minor: 0,
                category: None,
            };
            RuleCall::Measure(MeasureInput { order, total_minor: 0, lines: numbers.map(line).collect() })
        }
    }
}

/// The first byte says which hook (or that texts are told back); what follows is the answer's memory.
pub fn values(input: &[u8]) {
    let Some((selector, rest)) = input.split_first() else { return };
    // By position: what is new comes last.
    match Hook::ALL.get(usize::from(*selector) % (Hook::ALL.len() + 1)) {
        Some(hook) => answers(*hook, rest),
        None => texts(rest),
    }
}

fn run(module: &Module, call: &RuleCall) -> Run {
    let limits = Limits::of(call.lines());
    let once = module.run("ord_1", call, "{}", u64::MAX);
    let twice = module.run("ord_1", call, "{}", u64::MAX);
    assert_eq!(once, twice, "the same request, two answers");
    assert!(once.fuel <= limits.fuel && once.memory_bytes <= limits.memory_bytes, "{once:?}");
    if let Ok((answer, review)) = &once.result {
        assert!(once.output_bytes <= limits.output_bytes, "{once:?}");
        assert_eq!(fit(call, answer), Ok(()), "an answer that stages may not rely on");
        assert!(review.as_ref().is_none_or(|it| it.chars().count() <= TEXT_CHARS_MAX));
    }
    once
}

fn answers(hook: Hook, bytes: &[u8]) {
    let mut carried: Vec<i64> = bytes
        .chunks(8)
        .take(CARRIED_MAX)
        .map(|chunk| {
            let mut eight = [0; 8];
            eight[..chunk.len()].copy_from_slice(chunk);
            i64::from_le_bytes(eight)
        })
        .collect();
    if hook == Hook::Risk {
        carried.resize(3, 0);
        carried[2] = i64::from(carried[2] as u32);
    }
    let call = request(hook, &carried);
    let image: Vec<u8> = carried.iter().flat_map(|it| it.to_le_bytes()).collect();
    let run = run(&MODULES.copying[hook as usize], &call);
    let memory = Memory::new(ANSWER_AT, &image, REQUEST_AT, MEMORY_BYTES);
    match (memory.answer(hook, ANSWER_AT, call.lines()), &run.result) {
        // What lies in the request's memory, or is too much to be worth reading, is the host's alone to judge.
        (Read::Unknown, _) => {}
        (Read::Trap, result) => {
            assert!(matches!(result, Err(Fault::Trap(_) | Fault::Output(_))), "no value, and yet {result:?}");
        }
        (Read::Value(Said { answer, review, bytes }), result) => {
            let expected = answer.filter(|it| fit(&call, it).is_ok());
            let review_fits = review.as_ref().is_none_or(|it| it.chars().count() <= TEXT_CHARS_MAX);
            match (expected.filter(|_| review_fits), result) {
                _ if bytes > Limits::of(call.lines()).output_bytes => {
                    assert!(matches!(result, Err(Fault::Output(_))), "too much, and yet {result:?}");
                }
                (Some(expected), result) => assert_eq!(result, &Ok((expected, review))),
                (None, result) => {
                    assert!(matches!(result, Err(Fault::Invalid(_))), "no fit, and yet {result:?}");
                }
            }
        }
    }
}

/// Metadata as it was given, but for what says something of the customer.
fn texts(bytes: &[u8]) {
    let words: Vec<String> =
        bytes.split(|it| *it == 0).map(|it| String::from_utf8_lossy(it).into_owned()).collect();
    let metadata: TextMap =
        words.chunks(2).map(|it| (Text::from(&*it[0]), Text::from(it.get(1).map_or("", |it| it)))).collect();
    let expected: Vec<(Text, Text)> = metadata
        .iter()
        .filter(|(name, _)| !name.starts_with("customer."))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let order = RuleOrder { metadata, customer: Some("c".into()), ..RuleOrder::default() };
    let call = RuleCall::Measure(MeasureInput { order, total_minor: 0, lines: Vec::new() });
    let answer = RuleAnswer::Dimensions(expected);
    match run(&MODULES.telling, &call).result {
        Ok((told, None)) => assert_eq!(told, answer),
        Err(Fault::Invalid(_)) => assert!(fit(&call, &answer).is_err(), "{answer:?} fits"),
        // What went in is within the limit of an input, which is above that of an output.
        Err(Fault::Output(_) | Fault::Input { .. }) => {}
        other => panic!("{other:?}"),
    }
}
