//! The stock row's arithmetic: the only place where its sums change.
//!
//! Every change keeps `received − sold = Σ on hand`, and `0 ≤ reserved ≤ on hand` at every location.

use tillstream_schemas::Text;
use tillstream_schemas::item::{ItemCommand, LocationStock, StockState};
use tillstream_schemas::order_command::Allocation;
use tillstream_stage::StageError;

/// The most units a location may hold, and a sum may reach: no sum over locations here can overflow.
pub const UNITS_MAX: i64 = 1_000_000_000_000_000;

/// The location that is meant where none is named.
pub(crate) const MAIN: &str = "main";

/// A number of units that cannot be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LevelError {
    /// Below zero, or below what is reserved.
    Negative,
    /// Above [`UNITS_MAX`].
    Overflow,
}

impl From<LevelError> for StageError {
    fn from(error: LevelError) -> Self {
        match error {
            LevelError::Overflow => Self::Overflow { stage: "stock", what: "a number of units" },
            LevelError::Negative => Self::Invariant {
                stage: "stock",
                what: "a location would hold fewer units than it must".to_owned(),
            },
        }
    }
}

/// What kind of move brings units to a location, or takes them away.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Book {
    /// From or to the outside: a delivery, a correction, a return without a sale.
    Received,
    /// To a customer; back from one with a negative number of units.
    Sold,
}

/// An empty row for the command's SKU.
pub(crate) fn empty(command: &ItemCommand) -> StockState {
    StockState { tenant: command.tenant.clone(), sku: command.sku.clone(), ..StockState::default() }
}

/// on hand − reserved, over all locations.
pub(crate) fn available(stock: &StockState) -> i64 {
    stock.locations.iter().map(|it| it.on_hand - it.reserved).sum()
}

fn location<'a>(stock: &'a mut StockState, name: &Text) -> &'a mut LocationStock {
    let index = match stock.locations.binary_search_by(|it| it.location.cmp(name)) {
        Ok(index) => index,
        Err(index) => {
            stock.locations.insert(index, LocationStock { location: name.clone(), on_hand: 0, reserved: 0 });
            index
        }
    };
    &mut stock.locations[index]
}

fn within(value: Option<i64>) -> Result<i64, LevelError> {
    value.filter(|it| (-UNITS_MAX..=UNITS_MAX).contains(it)).ok_or(LevelError::Overflow)
}

/// Changes a location's on hand by `delta` and books it; answers the location's new on hand.
pub(crate) fn book(stock: &mut StockState, name: &Text, delta: i64, book: Book) -> Result<i64, LevelError> {
    let received = within(match book {
        Book::Received => stock.received.checked_add(delta),
        Book::Sold => Some(stock.received),
    })?;
    let sold = within(match book {
        Book::Received => Some(stock.sold),
        Book::Sold => stock.sold.checked_sub(delta),
    })?;
    let on_hand = {
        let at = location(stock, name);
        let on_hand = within(at.on_hand.checked_add(delta))?;
        if on_hand < at.reserved || sold < 0 {
            return Err(LevelError::Negative);
        }
        at.on_hand = on_hand;
        on_hand
    };
    stock.received = received;
    stock.sold = sold;
    Ok(on_hand)
}

/// Changes what is reserved: by `sign` (1 or −1) times each allocation.
pub(crate) fn reserve(
    stock: &mut StockState,
    allocations: &[Allocation],
    sign: i64,
) -> Result<(), LevelError> {
    for allocation in allocations {
        let at = location(stock, &allocation.location);
        let reserved = at.reserved + sign * allocation.quantity;
        if reserved < 0 || reserved > at.on_hand {
            return Err(LevelError::Negative);
        }
        at.reserved = reserved;
    }
    Ok(())
}

/// Chooses locations for `quantity` units; `None` when there are not enough in all.
///
/// First the preferred locations, in their order; then `main`; then those with most available, then by name. The first
/// of these that has everything gives everything; only when none has are the units split.
pub(crate) fn allocate(
    stock: &StockState,
    quantity: i64,
    preferred: &[Allocation],
) -> Option<Vec<Allocation>> {
    if available(stock) < quantity {
        return None;
    }
    let mut candidates: Vec<(usize, i64, &Text)> = stock
        .locations
        .iter()
        .filter(|it| it.on_hand > it.reserved)
        .map(|it| (rank(&it.location, preferred), it.on_hand - it.reserved, &it.location))
        .collect();
    candidates.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)).then(a.2.cmp(b.2)));
    if let Some((_, _, name)) = candidates.iter().find(|it| it.1 >= quantity) {
        return Some(vec![Allocation { location: (*name).clone(), quantity }]);
    }
    let mut left = quantity;
    let mut allocations = Vec::new();
    for (_, units, name) in candidates {
        if left == 0 {
            break;
        }
        let taken = units.min(left);
        allocations.push(Allocation { location: name.clone(), quantity: taken });
        left -= taken;
    }
    Some(allocations)
}

/// Where a location stands in the order of preference: a smaller number is better.
fn rank(name: &Text, preferred: &[Allocation]) -> usize {
    let unnamed = preferred.len() + usize::from(name != MAIN);
    preferred.iter().position(|it| it.location == *name).unwrap_or(unnamed)
}
