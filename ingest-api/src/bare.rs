//! The door's parsers without sockets, state or clock: what the fuzz targets of `tests/fuzz` call, and nobody else.

use crate::dead_letters::redrive;
use crate::orders::{actions, credits, input};
use crate::problem::Problem;
use crate::streams::place;
use crate::webhooks::input as webhooks;
use crate::{cursor, inventory, keys, products, sandbox, tenants};
use tillstream_schemas::Text;
use tillstream_schemas::order_command::PlaceOrder;

pub use crate::orders::bulk::{Cut, cut_lines};

/// Reads a body as one of the calls does, and forgets what it says.
pub type BodyReader = fn(&[u8]) -> Result<(), Problem>;

/// The bodies that are read by a shape alone, by call.
pub const BODIES: [(&str, BodyReader); 18] = [
    ("product", products::check_body),
    ("adjustment", inventory::check_body),
    ("credit", credits::check_body),
    ("key", keys::check_body),
    ("authenticate", sandbox::check_body),
    ("cancel", actions::check_cancel),
    ("capture", actions::check_capture),
    ("refund", actions::check_refund),
    ("return", actions::check_return),
    ("shipment", actions::check_shipment),
    ("deliver", actions::check_deliver),
    ("webhook", webhooks::check_create),
    ("webhook-change", webhooks::check_change),
    ("webhook-secret", webhooks::check_rotation),
    ("webhook-replay", webhooks::check_replay),
    ("key-rotation", keys::check_rotation),
    ("tenant", tenants::check_body),
    ("redrive", redrive::check_body),
];

/// Reads an order; with `bulk` a line of a bulk body. Answers the line's idempotency key (empty without `bulk`) and
/// the order.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn order(bytes: &[u8], now_ms: i64, bulk: bool) -> Result<(Text, PlaceOrder), Problem> {
    let parse = if bulk { input::parse_bulk_line } else { input::parse };
    parse(bytes, now_ms).map(|it| (it.key, it.order))
}

/// What the slow way says of an order: empty where it finds nothing wrong. The fast way must agree.
pub fn order_faults(bytes: &[u8], bulk: bool) -> Option<usize> {
    input::faults(bytes, bulk)
}

/// A cursor of a list, by the list's letter.
pub fn cursor_of(kind: char, place: &str) -> String {
    cursor::encode(kind, place)
}

/// The place that a cursor names.
///
/// # Errors
/// It is none of this list.
pub fn place_of(kind: char, text: &str) -> Result<String, Problem> {
    cursor::decode(kind, text)
}

/// A place in a tenant's stream of events, by partition.
pub fn stream_cursor_of(next: &[u64]) -> String {
    place::encode(next)
}

/// The place that a stream's cursor names.
///
/// # Errors
/// It is none of a stream over so many partitions.
pub fn stream_place_of(text: &str, partitions: usize) -> Result<Vec<u64>, Problem> {
    place::decode(text, partitions)
}
