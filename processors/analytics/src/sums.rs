//! Adding sums. Amounts are bounded far below overflow by validation, so the additions saturate: a hostile
//! total pins a window at the limit instead of stopping every tenant's windows.

use tillstream_schemas::analytics::Sums;

/// Adds `more` to `sums`.
pub fn add(sums: &mut Sums, more: &Sums) {
    let Sums {
        orders,
        units,
        gross,
        discount,
        tax,
        refunded,
        refunds,
        placed,
        priced,
        reserved,
        paid,
        completed,
        failed,
        cancelled,
    } = more;
    for (sum, term) in [
        (&mut sums.orders, orders),
        (&mut sums.units, units),
        (&mut sums.gross, gross),
        (&mut sums.discount, discount),
        (&mut sums.tax, tax),
        (&mut sums.refunded, refunded),
        (&mut sums.refunds, refunds),
        (&mut sums.placed, placed),
        (&mut sums.priced, priced),
        (&mut sums.reserved, reserved),
        (&mut sums.paid, paid),
        (&mut sums.completed, completed),
        (&mut sums.failed, failed),
        (&mut sums.cancelled, cancelled),
    ] {
        *sum = sum.saturating_add(*term);
    }
}
