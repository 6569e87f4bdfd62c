//! Rows of the sandbox's ledger: a binary format of their own, compiled in here since its crate keeps it to itself.

#[allow(dead_code, unreachable_pub, reason = "the ledger uses the rest")]
#[path = "../../../processors/effects/src/sandbox/row.rs"]
mod row_format;

use row_format::{RequestRow, SandboxPayment};

/// A row, of either kind.
pub fn row(input: &[u8]) {
    if let Some(payment) = SandboxPayment::decode(input) {
        assert_eq!(SandboxPayment::decode(&payment.encode()).as_ref(), Some(&payment));
    }
    if let Some(request) = RequestRow::decode(input) {
        assert_eq!(RequestRow::decode(&request.encode()).as_ref(), Some(&request));
    }
}
