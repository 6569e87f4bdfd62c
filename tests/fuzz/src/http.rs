//! Bodies of HTTP calls, by the parsers of the door.

use serde_json::Value;
use tillstream_ingest_api::bare::{self, BODIES};
use tillstream_ingest_api::problem::{Code, Problem};
use tillstream_schemas::codec;
use tillstream_schemas::order_command::{OrderCommand, OrderCommandPayload};

const NOW_MS: i64 = 1_700_000_000_000;
/// The most that is wrong with one body, as far as its sender hears of it.
const ERRORS_MAX: usize = 100;
const ANSWER_BYTES_MAX: usize = 128 << 10;

/// What must hold of every refusal: it names place and fix, and is bounded.
fn check_refusal(problem: &Problem, body: &[u8], again: impl Fn(&[u8]) -> Option<Code>) {
    let answer = serde_json::to_vec(problem).unwrap();
    assert!(answer.len() <= ANSWER_BYTES_MAX, "an answer of {} bytes to {}", answer.len(), body.len());
    let json = serde_json::from_slice::<Value>(body);
    match problem.code {
        Code::MalformedJson => {
            if let Ok(json) = json {
                // Only a field that stands there twice is refused as JSON: without the first of the two it is not.
                let once = serde_json::to_vec(&json).unwrap();
                assert_ne!(again(&once), Some(Code::MalformedJson), "this is JSON: {}", problem.detail);
            }
            assert!(
                problem.detail.contains("line ") && problem.detail.contains("column "),
                "{}",
                problem.detail
            );
        }
        Code::InvalidFields => {
            assert!(json.is_ok(), "fields of what is no JSON: {:?}", problem.errors);
            assert!((1..=ERRORS_MAX).contains(&problem.errors.len()), "{} errors", problem.errors.len());
            for error in &problem.errors {
                let said = [&error.field, &error.message, &error.fix];
                assert!(said.iter().all(|it| !it.trim().is_empty() && it.len() < 1_000), "{error:?}");
            }
        }
        other => panic!("{other:?}: {}", problem.detail),
    }
}

fn check_order(input: &[u8], bulk: bool) {
    match bare::order(input, NOW_MS, bulk) {
        Ok((key, order)) => {
            assert_eq!(
                bare::order_faults(input, bulk),
                Some(0),
                "the fast way takes what the slow one refuses"
            );
            assert_eq!(key.is_empty(), !bulk);
            let command = OrderCommand {
                id: "ord_1".into(),
                tenant: "demo".into(),
                order_id: "ord_1".into(),
                accepted_at_ms: NOW_MS,
                traceparent: None,
                fingerprint: key,
                payload: OrderCommandPayload::PlaceOrder(Box::new(order)),
            };
            let bytes = codec::encode(&command).expect("an order that was taken can be written");
            assert_eq!(codec::decode::<OrderCommand>(&bytes).unwrap(), command);
        }
        Err(problem) => {
            check_refusal(&problem, input, |it| bare::order(it, NOW_MS, bulk).err().map(|it| it.code))
        }
    }
}

/// The body of `POST /v1/orders`.
pub fn order(input: &[u8]) {
    check_order(input, false);
}

/// A line of `POST /v1/orders/bulk`.
pub fn bulk_line(input: &[u8]) {
    check_order(input, true);
}

/// The number of a call, then its body.
pub fn body(input: &[u8]) {
    let Some((call, body)) = input.split_first() else { return };
    let (_, read) = BODIES[usize::from(*call) % BODIES.len()];
    if let Err(problem) = read(body) {
        check_refusal(&problem, body, |it| read(it).err().map(|it| it.code));
    } else {
        assert!(serde_json::from_slice::<Value>(body).unwrap().is_object());
    }
}
