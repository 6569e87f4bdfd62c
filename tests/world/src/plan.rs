//! A history before it happens: what clients do, what goes wrong, what operators do, and when. A plan is data, made from
//! a seed; every choice an action needs is drawn when the plan is made, so that the rest stays the same when some of it
//! is left out.

use crate::tuning::Tuning;
use std::fmt;

/// What a client does. Orders and SKUs are numbers; the client knows their names.
#[derive(Clone, Debug, PartialEq)]
pub enum Client {
    /// Places an order.
    Place(Place),
    /// Cancels an order.
    Cancel {
        /// Which order.
        order: u32,
    },
    /// Captures an authorized payment.
    Capture {
        /// Which order.
        order: u32,
        /// Minor units; all of it when absent.
        amount_minor: Option<i64>,
    },
    /// Asks for money back.
    Refund {
        /// Which order.
        order: u32,
        /// Minor units; all of it when absent.
        amount_minor: Option<i64>,
    },
    /// Ships.
    Ship {
        /// Which order.
        order: u32,
        /// One SKU and units of it; everything that is left when absent.
        line: Option<(u8, i64)>,
    },
    /// Says that a shipment has arrived.
    Deliver {
        /// Which order.
        order: u32,
        /// The step that shipped.
        shipped_by: u32,
    },
    /// Goods come back.
    Return {
        /// Which order.
        order: u32,
        /// What.
        sku: u8,
        /// How many.
        quantity: i64,
        /// Whether they are stock again.
        restock: bool,
    },
    /// Receives, loses or corrects stock.
    Adjust {
        /// The tenant.
        tenant: u8,
        /// What.
        sku: u8,
        /// By how many.
        delta: i64,
        /// Where: 0 or 1.
        location: u8,
    },
    /// Writes a product.
    Product {
        /// The tenant.
        tenant: u8,
        /// Which.
        sku: u8,
        /// Its price.
        price_minor: i64,
        /// Its tax class: 0 none, 1 standard, 2 reduced.
        class: u8,
        /// Whether it may be ordered.
        active: bool,
    },
    /// Another version of the tenants' rule is in force; 0: none.
    Rule {
        /// The version.
        version: u32,
    },
    /// The customer acts on a payment that asked for it; the provider tells by webhook, perhaps more than once.
    Act {
        /// Which order.
        order: u32,
        /// Whether the customer agrees.
        agrees: bool,
        /// How often the webhook comes.
        copies: u8,
        /// How late the last copy comes, ms.
        late_ms: u32,
    },
    /// Sends the record of an earlier step once more.
    Again {
        /// The step.
        step: u32,
        /// With another body under the same id.
        altered: bool,
    },
    /// A record that nobody can decode.
    Malformed {
        /// The items' topic instead of the orders'.
        items: bool,
        /// Makes its bytes.
        salt: u32,
    },
    /// A command that can be read and that no stage can take.
    Poison {
        /// To the items instead of the orders.
        items: bool,
    },
    /// A good command in a partition that is not its key's.
    Misplaced {
        /// Which order it cancels.
        order: u32,
    },
    /// Sends every dead letter so far back to where it came from.
    Redrive,
}

/// A new order.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// Its number.
    pub order: u32,
    /// SKU, units, own price if it has one, discount on the line.
    pub lines: Vec<(u8, i64, Option<i64>, i64)>,
    /// Minor units off the whole.
    pub discount_minor: Option<i64>,
    /// Basis points off the whole.
    pub discount_bp: Option<i32>,
    /// A shipping charge, minor units.
    pub shipping_minor: Option<i64>,
    /// Which payment method, an index of [`METHODS`].
    pub method: u8,
    /// Whether the merchant captures.
    pub manual: bool,
    /// Where it goes, an index of [`COUNTRIES`].
    pub country: u8,
    /// When it was placed, ms before it is sent (less than 0: after).
    pub age_ms: i64,
}

/// Payment methods, as the simulated provider knows them.
pub const METHODS: [&str; 3] = ["pm_card_visa", "pm_card_chargeDeclined", "pm_card_authenticationRequired"];
/// Destinations.
pub const COUNTRIES: [&str; 3] = ["GB", "DE", "US"];

/// What a disk has after its process has died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Everything: only the process is gone.
    Stays,
    /// What was synced.
    Nothing,
    /// What was synced, and some of the rest; the number decides what.
    Torn(u32),
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// A worker is killed, and starts again later.
    Kill {
        /// Which.
        worker: u8,
        /// After so many more of its calls; 0: now.
        calls: u32,
        /// How long it is down, ms.
        down_ms: u32,
    },
    /// A worker is asked to stop, and starts again later.
    Stop {
        /// Which.
        worker: u8,
        /// How long it is down, ms.
        down_ms: u32,
    },
    /// A worker stands still.
    Pause {
        /// Which.
        worker: u8,
        /// How long, ms.
        for_ms: u32,
    },
    /// The worker that makes a call stands still before it hears the answer.
    PauseAt {
        /// Which kind, by number.
        call: u8,
        /// After so many that do not.
        skip: u8,
        /// How long, ms.
        for_ms: u32,
    },
    /// A worker does not reach the broker.
    CutOff {
        /// Which.
        worker: u8,
        /// How long, ms.
        for_ms: u32,
    },
    /// A member loses its partitions, and is told so later.
    Expel {
        /// Which, of all members.
        member: u8,
        /// When it is told, ms.
        for_ms: u32,
    },
    /// Somebody ends a task's open transaction.
    StrayAbort {
        /// Which task.
        task: u8,
    },
    /// A commit is not answered: 0 it happened, 1 it never arrived, 2 it arrives later.
    UnknownCommit {
        /// Which task; all when absent.
        task: Option<u8>,
        /// What became of it.
        fate: u8,
    },
    /// Commits on their way arrive.
    LateCommits,
    /// The transactions' coordinator moves.
    CoordinatorMoves {
        /// How long nobody coordinates, ms.
        for_ms: u32,
    },
    /// A call of the broker fails.
    BrokerCall {
        /// Which kind, by number.
        call: u8,
        /// After so many that do not.
        skip: u8,
        /// Whether it takes effect.
        full: bool,
        /// How, by number.
        error: u8,
    },
    /// The ends of transactions are written late.
    MarkersHeld {
        /// How late, ms.
        for_ms: u32,
    },
    /// The broker answers nobody.
    BrokerAway {
        /// How long, ms.
        for_ms: u32,
    },
    /// Every request to the broker takes so long.
    BrokerSlow {
        /// Until it arrives, ms.
        call_ms: u32,
        /// How long, ms.
        for_ms: u32,
    },
    /// Topics that are compacted are.
    Compact,
    /// The database's node crashes, and loses what was not synced: all of it, or the newest.
    DatabaseCrash {
        /// All of it.
        all: bool,
    },
    /// The database answers nobody.
    DatabaseAway {
        /// How long, ms.
        for_ms: u32,
    },
    /// Every call of the database takes so long.
    DatabaseSlow {
        /// What a call takes, ms.
        call_ms: u32,
        /// How long, ms.
        for_ms: u32,
    },
    /// A call of the database fails.
    DatabaseCall {
        /// Which kind, by number.
        call: u8,
        /// 0 nothing is written, 1 some, 2 all, 3 later.
        fate: u8,
    },
    /// Writes wait, and arrive in any order.
    WritesHeld {
        /// How long, ms.
        for_ms: u32,
    },
    /// Writes that came too late arrive.
    LateWrites,
    /// The wall clock jumps.
    ClockJump {
        /// By so much, ms.
        by_ms: i64,
    },
    /// Every worker is killed.
    KillAll {
        /// How long they are down, ms.
        down_ms: u32,
    },
    /// The process on the embedded store dies at a call that changes a file, or when it should.
    Cut {
        /// Which call from now on; the process is killed at once when absent.
        calls: Option<u32>,
        /// 0 before the call, 1 in the middle of it, 2 after it.
        point: u8,
        /// What becomes of its files.
        power: Power,
        /// How long it is down, ms.
        down_ms: u32,
    },
    /// A sync of a file fails: the process must end by itself.
    SyncFails {
        /// Which sync from now on.
        syncs: u32,
        /// What becomes of its files then.
        power: Power,
        /// How long it is down, ms.
        down_ms: u32,
    },
    /// The disk is full.
    Full {
        /// From which call on.
        calls: u32,
        /// How long, ms.
        for_ms: u32,
    },
    /// The disk is nearly full: the store sees it, and refuses work.
    Scarce {
        /// How much is left, in percent of what the store keeps in reserve.
        percent: u8,
        /// How long, ms.
        for_ms: u32,
    },
    /// The provider: 0 is not reachable, 1 loses replies, 2 loses requests, 3 is slow.
    Provider {
        /// Which.
        kind: u8,
        /// How many calls.
        calls: u8,
    },
}

/// What an operator does.
#[derive(Clone, Debug, PartialEq)]
pub enum Operator {
    /// Takes a copy of the database.
    Backup,
    /// Nothing goes wrong from now on, and what every task has committed is noted.
    Peace,
    /// Notes once more what every task has committed.
    Note,
    /// Puts the copy back; the tables are rebuilt once that is noticed.
    Restore {
        /// The copy is so old that it must be noticed.
        noticed: bool,
    },
    /// Empties one table by hand; the tables are rebuilt once that is noticed.
    Truncate {
        /// Which, by number.
        table: u8,
    },
    /// Stops everything and fills the tables anew.
    Rebuild,
    /// Stops everything and lets a task kind go on from its input's beginning: 0 orders, 1 items.
    ResetOffsets {
        /// Which.
        kind: u8,
    },
    /// Stops everything, and makes a changelog anew: 0 orders, 1 items, 2 analytics.
    RecreateChangelog {
        /// Which.
        kind: u8,
    },
    /// Makes a changelog anew by mistake, under tasks that run.
    RecreateUnder {
        /// Which.
        kind: u8,
    },
    /// Stops everything, and writes changelogs anew that nobody has written since.
    Adopt,
}

/// What happens in a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// A client's doing.
    Client(Client),
    /// Something goes wrong.
    Fault(Fault),
    /// An operator's doing.
    Operator(Operator),
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Its number in the plan as it was made.
    pub number: u32,
    /// How long after the step before, ms.
    pub wait_ms: u32,
    /// What.
    pub action: Action,
}

impl Step {
    /// The number of a step before all others.
    pub const EARLY: u32 = u32::MAX;
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>4} +{:>5} ms  ", self.number, self.wait_ms)?;
        match &self.action {
            Action::Client(it) => write!(f, "{it:?}"),
            Action::Fault(it) => write!(f, "FAULT {it:?}"),
            Action::Operator(it) => write!(f, "OPERATOR {it:?}"),
        }
    }
}

/// A history before it happens.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The seed it was made from; it also decides what is left open while it runs.
    pub seed: u64,
    /// Settings.
    pub tuning: Tuning,
    /// Whether it is one process on the embedded store, and not three in a cluster.
    pub embedded: bool,
    /// What happens, in order.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Commands of clients in it.
    pub fn commands(&self) -> usize {
        self.steps.iter().filter(|it| matches!(it.action, Action::Client(_))).count()
    }

    /// Faults in it.
    pub fn faults(&self) -> usize {
        self.steps.iter().filter(|it| matches!(it.action, Action::Fault(_))).count()
    }
}
