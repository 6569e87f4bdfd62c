//! The door without sockets, state or clock: its parsers, which the fuzz targets of `tests/fuzz` call, and what its calls
//! write, which the simulated world of `tests/world` appends. Nobody else uses it.

use crate::dead_letters::redrive;
use crate::observe::Trace;
use crate::orders::place::Placement;
use crate::orders::written::{self as acts, Address};
use crate::orders::{credits, input};
use crate::problem::Problem;
use crate::streams::place;
use crate::webhooks::input as webhooks;
use crate::{cursor, inventory, keys, products, sandbox, tenants};
use tillstream_log::{Log, NewRecord, Record, TopicPartition};
use tillstream_schemas::Text;
use tillstream_schemas::order_command::PlaceOrder;

pub use crate::orders::bulk::{Cut, cut_lines};
pub use crate::orders::written::Act;
pub use crate::written::Written;

/// Reads a body as one of the calls does, and forgets what it says.
pub type BodyReader = fn(&[u8]) -> Result<(), Problem>;

/// The bodies that are read by a shape alone, by call.
pub const BODIES: [(&str, BodyReader); 18] = [
    ("product", products::check_body),
    ("adjustment", inventory::check_body),
    ("credit", credits::check_body),
    ("key", keys::check_body),
    ("authenticate", sandbox::check_body),
    ("cancel", acts::check_cancel),
    ("capture", acts::check_capture),
    ("refund", acts::check_refund),
    ("return", acts::check_return),
    ("shipment", acts::check_shipment),
    ("deliver", acts::check_deliver),
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

/// A call that writes a command.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    /// Whose.
    pub tenant: &'a Text,
    /// Its Idempotency-Key.
    pub idempotency_key: &'a str,
    /// Its body.
    pub body: &'a [u8],
    /// Its W3C trace context.
    pub traceparent: &'a str,
    /// When it is taken, ms since the epoch.
    pub now_ms: i64,
}

impl Sent<'_> {
    fn trace(&self) -> Trace {
        Trace(self.traceparent.into())
    }

    /// What `POST /v1/orders` writes.
    ///
    /// # Errors
    /// Everything that is wrong with the body, at once.
    pub fn order(&self) -> Result<Written, Problem> {
        let parsed = input::parse(self.body, self.now_ms)?;
        let placed = Placement::new(self.tenant, self.idempotency_key, parsed, &self.trace(), self.now_ms)?;
        let Placement { order_id, key, fingerprint, value } = placed;
        Ok(Written { id: order_id, fingerprint, key, value })
    }

    /// What a command to an order writes, and the id that the client gets.
    ///
    /// # Errors
    /// Everything that is wrong with the body, at once.
    pub fn act(&self, act: &Act, order_id: &str) -> Result<(Written, Text), Problem> {
        let address = Address::new(self.tenant.clone(), order_id, act, self.idempotency_key);
        let asked = act.read(self.body, &address, self.now_ms)?;
        let written = address.write(asked, &self.trace(), self.now_ms)?;
        Ok((written, address.resource_id))
    }

    /// What `POST /v1/inventory/{sku}/adjustments` writes.
    ///
    /// # Errors
    /// Everything that is wrong with the body, at once.
    pub fn adjustment(&self, sku: &str) -> Result<Written, Problem> {
        inventory::write(self.tenant, sku, self.idempotency_key, self.body, &self.trace(), self.now_ms)
    }

    /// What `PUT /v1/products/{sku}` writes; it has no Idempotency-Key.
    ///
    /// # Errors
    /// Everything that is wrong with the body, at once.
    pub fn product(&self, sku: &str) -> Result<Written, Problem> {
        let payload = products::read(self.body)?;
        Ok(products::write(self.tenant, sku, payload, self.trace(), self.now_ms)?)
    }
}

/// What a redrive of the letter that stands there writes.
///
/// # Errors
/// It is no letter, or one that cannot be sent back.
pub fn redriven(log: &dyn Log, at: TopicPartition, letter: Record) -> Result<NewRecord, Problem> {
    redrive::write(log, at, letter)
}
