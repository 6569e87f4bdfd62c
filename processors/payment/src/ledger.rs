//! The double-entry ledger of one order: every posting sums to zero.
//!
//! Debit positive, credit negative. Money a customer promised stands on [`PROVIDER_AUTHORIZED`] against
//! [`CUSTOMER_AUTHORIZATION`]; money taken stands on [`PROVIDER_CLEARING`] against [`MERCHANT_PAYABLE`]. An automatic
//! capture is one provider call and posts no authorization.

use tillstream_schemas::Text;
use tillstream_schemas::order_state::{LedgerLine, PaymentState};

/// What the provider holds for us, authorized and not captured.
pub const PROVIDER_AUTHORIZED: &str = "provider_authorized";
/// What the customer promised.
pub const CUSTOMER_AUTHORIZATION: &str = "customer_authorization";
/// What the provider owes us.
pub const PROVIDER_CLEARING: &str = "provider_clearing";
/// What we owe the merchant.
pub const MERCHANT_PAYABLE: &str = "merchant_payable";

/// One posting: `amount_minor` from the second account to the first.
fn post(state: &mut PaymentState, debit: &'static str, credit: &'static str, amount_minor: i64, at_ms: i64) {
    let posting = state.ledger.last().map_or(0, |it| it.posting + 1);
    let line = |account, amount_minor| LedgerLine {
        posting,
        account: Text::const_new(account),
        amount_minor,
        at_ms,
    };
    state.ledger.extend([line(debit, amount_minor), line(credit, -amount_minor)]);
}

/// The customer's money is promised.
pub(crate) fn authorize(state: &mut PaymentState, amount_minor: i64, at_ms: i64) {
    state.authorized_minor += amount_minor;
    post(state, PROVIDER_AUTHORIZED, CUSTOMER_AUTHORIZATION, amount_minor, at_ms);
}

/// All that is still promised is given up; returns how much it was.
pub(crate) fn release(state: &mut PaymentState, at_ms: i64) -> i64 {
    let amount_minor = std::mem::take(&mut state.authorized_minor);
    if amount_minor > 0 {
        post(state, CUSTOMER_AUTHORIZATION, PROVIDER_AUTHORIZED, amount_minor, at_ms);
    }
    amount_minor
}

/// Money is taken: what was promised of it is no promise any more, and the rest of the promise is released.
pub(crate) fn capture(state: &mut PaymentState, amount_minor: i64, at_ms: i64) {
    let promised = state.authorized_minor.min(amount_minor);
    if promised > 0 {
        state.authorized_minor -= promised;
        post(state, CUSTOMER_AUTHORIZATION, PROVIDER_AUTHORIZED, promised, at_ms);
    }
    state.captured_minor += amount_minor;
    post(state, PROVIDER_CLEARING, MERCHANT_PAYABLE, amount_minor, at_ms);
    release(state, at_ms);
}

/// Money went back.
pub(crate) fn refund(state: &mut PaymentState, amount_minor: i64, at_ms: i64) {
    state.refunded_minor += amount_minor;
    post(state, MERCHANT_PAYABLE, PROVIDER_CLEARING, amount_minor, at_ms);
}

/// Whether this payment was ever authorized, captured or not: a provider authorizes a payment once, so a second
/// "authorized" is the first one again.
pub(crate) fn was_authorized(state: &PaymentState) -> bool {
    state.captured_minor > 0
        || state.ledger.iter().any(|it| it.account == PROVIDER_AUTHORIZED && it.amount_minor > 0)
}

/// The sum of one account.
pub fn balance(ledger: &[LedgerLine], account: &str) -> i64 {
    ledger.iter().filter(|it| it.account == account).map(|it| it.amount_minor).sum()
}

/// The first posting whose lines do not sum to zero; `None` when the ledger is sound.
pub fn unbalanced(ledger: &[LedgerLine]) -> Option<i32> {
    ledger
        .chunk_by(|a, b| a.posting == b.posting)
        .find(|lines| lines.iter().map(|it| it.amount_minor).sum::<i64>() != 0)
        .map(|lines| lines[0].posting)
}
