//! The sandbox ledger's rows: a small binary format of its own (a version byte, varints, length-prefixed text).
//!
//! The ledger is the other side of the wall, as Stripe's database would be, so it shares no schema with the pipeline.

use serde::{Deserialize, Serialize};
use tillstream_schemas::Text;
use tillstream_schemas::order_command::{CaptureMode, PaymentOperation, PaymentOutcome};

/// Of both rows, as first written. A payment's had no charges and refunds then.
const VERSION: u8 = 1;
/// Of a payment's row, with its charges and refunds.
const PAYMENT_VERSION: u8 = 2;

/// Where a payment stands, as the provider sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxStatus {
    /// The customer must act.
    RequiresAction,
    /// Authorized, not captured.
    Authorized,
    /// Captured, perhaps refunded since.
    Captured,
    /// Given up before it was captured.
    Cancelled,
    /// Declined.
    Declined,
}

impl SandboxStatus {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RequiresAction => "requires_action",
            Self::Authorized => "authorized",
            Self::Captured => "captured",
            Self::Cancelled => "cancelled",
            Self::Declined => "declined",
        }
    }
}

/// Money that moved once: a charge or a refund.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxMove {
    /// The idempotency key of the request that moved it.
    pub request_key: Text,
    /// How much, minor units.
    pub amount_minor: i64,
}

/// A payment in the sandbox's ledger. Amounts are minor units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxPayment {
    /// The tenant it was asked for.
    pub tenant: Text,
    /// The order it was asked for.
    pub order_id: Text,
    /// ISO 4217.
    pub currency: Text,
    /// The payment method.
    pub method: Text,
    /// The idempotency key of its `Authorize`.
    pub request_key: Text,
    /// Where it stands.
    pub status: SandboxStatus,
    /// Whether it captures at once.
    pub capture: CaptureMode,
    /// Whether it ever asked the customer to act.
    pub asked_action: bool,
    /// What was asked for.
    pub amount_minor: i64,
    /// Authorized and not yet captured or given up.
    pub authorized_minor: i64,
    /// Captured.
    pub captured_minor: i64,
    /// Refunded.
    pub refunded_minor: i64,
    /// Every time money was taken, oldest first; a sound ledger has one at most.
    pub charges: Vec<SandboxMove>,
    /// Every time money was given back, oldest first.
    pub refunds: Vec<SandboxMove>,
}

/// A request key's memory: what was asked, and what was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestRow {
    /// Over everything the request asks for.
    pub fingerprint: u128,
    pub payment_id: Text,
    pub operation: PaymentOperation,
    pub outcome: PaymentOutcome,
    pub amount_minor: i64,
    pub code: Option<Text>,
}

/// Writes the parts of a row.
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn new(version: u8) -> Self {
        let mut bytes = Vec::with_capacity(200);
        bytes.push(version);
        Self { bytes }
    }

    fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    /// An amount ≥ 0, or a length.
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    fn amount(&mut self, amount_minor: i64) {
        self.number(amount_minor.cast_unsigned());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn moves(&mut self, moves: &[SandboxMove]) {
        self.number(moves.len() as u64);
        for it in moves {
            self.text(&it.request_key);
            self.amount(it.amount_minor);
        }
    }
}

/// Reads the parts of a row; `None` when they are not there.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader behind the row's version.
    fn new(bytes: &'a [u8]) -> Option<(u8, Self)> {
        let mut reader = Self { rest: bytes };
        Some((reader.byte()?, reader))
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn amount(&mut self) -> Option<i64> {
        Some(self.number()?.cast_signed())
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    fn text(&mut self) -> Option<Text> {
        let len = usize::try_from(self.number()?).ok()?;
        std::str::from_utf8(self.take(len)?).ok().map(Text::new)
    }

    fn moves(&mut self) -> Option<Vec<SandboxMove>> {
        let count = self.number()?;
        // Not reserved ahead: the count may be any number.
        let mut moves = Vec::new();
        for _ in 0..count {
            moves.push(SandboxMove { request_key: self.text()?, amount_minor: self.amount()? });
        }
        Some(moves)
    }
}

const STATUSES: [SandboxStatus; 5] = [
    SandboxStatus::RequiresAction,
    SandboxStatus::Authorized,
    SandboxStatus::Captured,
    SandboxStatus::Cancelled,
    SandboxStatus::Declined,
];

const OPERATIONS: [PaymentOperation; 4] = [
    PaymentOperation::Authorize,
    PaymentOperation::Capture,
    PaymentOperation::Cancel,
    PaymentOperation::Refund,
];

/// Outcomes that are remembered; transport failures never are.
const OUTCOMES: [PaymentOutcome; 6] = [
    PaymentOutcome::Authorized,
    PaymentOutcome::Captured,
    PaymentOutcome::Cancelled,
    PaymentOutcome::Refunded,
    PaymentOutcome::RequiresAction,
    PaymentOutcome::Declined,
];

/// The place of a value in its table; the tables hold every value that is written.
fn place<T: PartialEq>(table: &[T], value: &T) -> u8 {
    table.iter().position(|it| it == value).map_or(u8::MAX, |it| it as u8)
}

impl SandboxPayment {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(PAYMENT_VERSION);
        writer.byte(place(&STATUSES, &self.status));
        writer.byte(u8::from(self.capture == CaptureMode::Manual) | u8::from(self.asked_action) << 1);
        for amount in [self.amount_minor, self.authorized_minor, self.captured_minor, self.refunded_minor] {
            writer.amount(amount);
        }
        for text in [&self.tenant, &self.order_id, &self.currency, &self.method, &self.request_key] {
            writer.text(text);
        }
        writer.moves(&self.charges);
        writer.moves(&self.refunds);
        writer.bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, mut reader) = Reader::new(bytes)?;
        if !(VERSION..=PAYMENT_VERSION).contains(&version) {
            return None;
        }
        let status = *STATUSES.get(usize::from(reader.byte()?))?;
        let flags = reader.byte()?;
        let mut amount = || reader.amount();
        let (amount_minor, authorized_minor) = (amount()?, amount()?);
        let (captured_minor, refunded_minor) = (amount()?, amount()?);
        let mut payment = Self {
            tenant: reader.text()?,
            order_id: reader.text()?,
            currency: reader.text()?,
            method: reader.text()?,
            request_key: reader.text()?,
            status,
            capture: if flags & 1 == 0 { CaptureMode::Automatic } else { CaptureMode::Manual },
            asked_action: flags & 2 != 0,
            amount_minor,
            authorized_minor,
            captured_minor,
            refunded_minor,
            charges: Vec::new(),
            refunds: Vec::new(),
        };
        if version == PAYMENT_VERSION {
            (payment.charges, payment.refunds) = (reader.moves()?, reader.moves()?);
        } else {
            payment.imply_moves();
        }
        Some(payment)
    }

    /// A row of the first version held sums only: what they imply. The requests' keys are not known from it.
    fn imply_moves(&mut self) {
        let implied = |amount_minor| SandboxMove { request_key: Text::default(), amount_minor };
        self.charges.extend((self.captured_minor > 0).then(|| implied(self.captured_minor)));
        self.refunds.extend((self.refunded_minor > 0).then(|| implied(self.refunded_minor)));
    }
}

impl RequestRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(VERSION);
        writer.byte(place(&OPERATIONS, &self.operation));
        writer.byte(place(&OUTCOMES, &self.outcome));
        writer.bytes.extend_from_slice(&self.fingerprint.to_le_bytes());
        writer.amount(self.amount_minor);
        writer.text(&self.payment_id);
        writer.text(self.code.as_deref().unwrap_or_default());
        writer.bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, mut reader) = Reader::new(bytes)?;
        if version != VERSION {
            return None;
        }
        let operation = *OPERATIONS.get(usize::from(reader.byte()?))?;
        let outcome = *OUTCOMES.get(usize::from(reader.byte()?))?;
        let fingerprint = u128::from_le_bytes(reader.take(16)?.try_into().ok()?);
        let amount_minor = reader.amount()?;
        let payment_id = reader.text()?;
        let code = Some(reader.text()?).filter(|it| !it.is_empty());
        Some(Self { fingerprint, payment_id, operation, outcome, amount_minor, code })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn payment(numbers: [i64; 4], texts: [String; 5], status: usize, flags: (bool, bool)) -> SandboxPayment {
        let [tenant, order_id, currency, method, request_key] = texts.map(Text::from);
        SandboxPayment {
            tenant,
            order_id,
            currency,
            method,
            request_key,
            status: STATUSES[status],
            capture: if flags.0 { CaptureMode::Manual } else { CaptureMode::Automatic },
            asked_action: flags.1,
            amount_minor: numbers[0],
            authorized_minor: numbers[1],
            captured_minor: numbers[2],
            refunded_minor: numbers[3],
            charges: Vec::new(),
            refunds: Vec::new(),
        }
    }

    fn moved(amounts: &[i64]) -> Vec<SandboxMove> {
        let one = |it: &i64| SandboxMove { request_key: format!("req_{it}").into(), amount_minor: *it };
        amounts.iter().map(one).collect()
    }

    proptest! {
        #[test]
        fn payments_come_back_as_they_were(
            numbers: [i64; 4], texts in prop::array::uniform5(".{0,40}"), status in 0usize..5, flags: (bool, bool),
            charges in prop::collection::vec(any::<i64>(), 0..3), refunds in prop::collection::vec(any::<i64>(), 0..9),
        ) {
            let mut row = payment(numbers, texts, status, flags);
            (row.charges, row.refunds) = (moved(&charges), moved(&refunds));
            prop_assert_eq!(SandboxPayment::decode(&row.encode()), Some(row));
        }

        #[test]
        fn requests_come_back_as_they_were(
            fingerprint: u128, amount_minor: i64, payment_id in ".{0,40}", operation in 0usize..4, outcome in 0usize..6,
            code in prop::option::of("[a-z_]{1,30}"),
        ) {
            let row = RequestRow {
                fingerprint,
                payment_id: payment_id.into(),
                operation: OPERATIONS[operation],
                outcome: OUTCOMES[outcome],
                amount_minor,
                code: code.map(Text::from),
            };
            prop_assert_eq!(RequestRow::decode(&row.encode()), Some(row));
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes: Vec<u8>) {
            let _ = SandboxPayment::decode(&bytes);
            let _ = RequestRow::decode(&bytes);
        }
    }

    /// A row as the first version wrote it: the same, without charges and refunds.
    #[test]
    fn a_row_of_the_first_version_is_read_with_what_its_sums_imply() {
        let row = payment([9, 0, 7, 3], ["a", "b", "c", "d", "e"].map(String::from), 2, (false, false));
        let mut bytes = row.encode();
        assert_eq!(bytes.split_off(bytes.len() - 2), [0, 0], "no charges, no refunds");
        bytes[0] = VERSION;
        let read = SandboxPayment::decode(&bytes).unwrap();
        let amounts = |it: &[SandboxMove]| it.iter().map(|it| it.amount_minor).collect::<Vec<_>>();
        assert_eq!((amounts(&read.charges), amounts(&read.refunds)), (vec![7], vec![3]));
        assert_eq!(SandboxPayment { charges: Vec::new(), refunds: Vec::new(), ..read }, row);
    }

    #[test]
    fn a_cut_row_is_refused() {
        let mut row = payment([1, 2, 3, 4], ["a", "b", "c", "d", "e"].map(String::from), 2, (true, false));
        (row.charges, row.refunds) = (moved(&[3]), moved(&[1, 3]));
        let row = row.encode();
        for len in 0..row.len() {
            assert_eq!(SandboxPayment::decode(&row[..len]), None, "cut at {len}");
        }
    }
}
