//! Faults as they strike, and what undoes them.

use crate::house::{House, PARTITIONS};
use crate::plan::Fault;
use crate::provider::Trouble;
use std::time::Duration;
use tillstream_log::broker::BrokerError;
use tillstream_schemas::Topic;
use tillstream_simulation::broker::{Call, CommitFate, Effect, Faults, Hold, Notice};
use tillstream_simulation::rows::{Loss, RowCall, WriteFault};
use tillstream_state::TaskId;

/// Calls of the broker that are made to fail.
const CALLS: [Call; 10] = [
    Call::Drain,
    Call::SendOffset,
    Call::Deliver,
    Call::Init,
    Call::Replay,
    Call::FetchFrom,
    Call::Append,
    Call::Read,
    Call::GroupOffsets,
    Call::Bounds,
];

/// Calls of the broker at whose end a worker is made to stand still: those of a life's beginning, and of a transaction.
const PAUSE_CALLS: [Call; 8] = [
    Call::Init,
    Call::GroupOffsets,
    Call::Bounds,
    Call::Replay,
    Call::FetchFrom,
    Call::Drain,
    Call::SendOffset,
    Call::Commit,
];

/// Calls of the database that are made to fail.
const ROW_CALLS: [RowCall; 6] = [
    RowCall::Write,
    RowCall::Write,
    RowCall::GetMany,
    RowCall::PutCheckpoint,
    RowCall::PutFlushed,
    RowCall::Timers,
];

/// What ends a fault that lasts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Undo {
    Resume(String),
    Reach(String),
    Tell(u64),
    Broker,
    Requests,
    Database,
    Speed,
    Writes,
}

/// The transactional id of a task by number.
fn id_of(house: &House, task: u8) -> String {
    let kind = crate::KINDS[usize::from(task) / PARTITIONS as usize % crate::KINDS.len()];
    house.settings.transactional_id(TaskId { kind, partition: u32::from(task) % PARTITIONS })
}

/// A call of the broker fails: which, after how many, whether it takes effect, and how.
fn fail_call(broker: &Faults, (call, skip, full, error): (u8, u8, bool, u8)) {
    let errors = [
        BrokerError::Abortable("as asked".into()),
        BrokerError::Unknown("as asked".into()),
        BrokerError::Unavailable("as asked".into()),
    ];
    let call = CALLS[usize::from(call) % CALLS.len()];
    // A log's reads and appends know no transaction: they can only not be answered.
    let plain = matches!(call, Call::Append | Call::Read | Call::GroupOffsets | Call::Bounds);
    let error = if plain { errors[2].clone() } else { errors[usize::from(error) % 3].clone() };
    let effect = if full { Effect::Full } else { Effect::None };
    broker.fail_later(call, "", usize::from(skip), effect, error);
}

/// Strikes; tells what undoes it, and when. Faults of processes name them by `names`.
pub(crate) fn strike(house: &House, fault: &Fault, names: &[Option<String>]) -> Option<(u32, Undo)> {
    let broker = house.broker.faults();
    let name = |worker: u8| names.get(usize::from(worker)).cloned().flatten();
    match *fault {
        Fault::Pause { worker, for_ms } => {
            let name = name(worker)?;
            broker.pause(&name);
            return Some((for_ms, Undo::Resume(name)));
        }
        Fault::PauseAt { call, skip, for_ms } => {
            let call = PAUSE_CALLS[usize::from(call) % PAUSE_CALLS.len()];
            broker.pause_at(call, "p", usize::from(skip), for_ms);
        }
        Fault::BrokerSlow { call_ms, for_ms } => {
            broker.set_slow(Duration::from_millis(u64::from(call_ms)));
            return Some((for_ms, Undo::Requests));
        }
        Fault::CutOff { worker, for_ms } => {
            let name = name(worker)?;
            broker.set_reachable(&name, false);
            return Some((for_ms, Undo::Reach(name)));
        }
        Fault::Expel { member, for_ms } => {
            let kind = crate::KINDS[usize::from(member) % crate::KINDS.len()];
            let members = house.broker.members(&house.settings.group(kind));
            let chosen = members.get(usize::from(member) / crate::KINDS.len())?.member;
            broker.expel(chosen, if for_ms % 2 == 0 { Notice::Now } else { Notice::Later });
            return Some((for_ms, Undo::Tell(chosen)));
        }
        Fault::StrayAbort { task } => drop(broker.abort(&id_of(house, task))),
        Fault::UnknownCommit { task, fate } => {
            let fates = [CommitFate::Happened, CommitFate::NeverArrived, CommitFate::ArrivesLater];
            let scope = task.map(|it| id_of(house, it)).unwrap_or_default();
            broker.unknown_commit(&scope, fates[usize::from(fate) % 3]);
        }
        Fault::LateCommits => drop(broker.arrive_late_commits()),
        Fault::CoordinatorMoves { for_ms } => {
            broker.move_coordinator(Duration::from_millis(u64::from(for_ms)));
        }
        Fault::BrokerCall { call, skip, full, error } => fail_call(&broker, (call, skip, full, error)),
        Fault::MarkersHeld { for_ms } => {
            broker.hold_markers("", Hold::For(Duration::from_millis(u64::from(for_ms))));
        }
        Fault::BrokerAway { for_ms } => {
            broker.set_available(false);
            return Some((for_ms, Undo::Broker));
        }
        Fault::Compact => {
            Topic::every().filter(|it| it.is_changelog()).for_each(|it| broker.compact(it, false));
        }
        Fault::ClockJump { by_ms } => house.clock.jump_ms(by_ms),
        Fault::Provider { kind, calls } => {
            let troubles = [Trouble::Unavailable, Trouble::ReplyLost, Trouble::RequestLost, Trouble::Slow];
            house.provider.trouble(troubles[usize::from(kind) % 4], calls);
        }
        _ => return strike_database(house, fault),
    }
    None
}

/// Faults of the database; those of processes and of the other world are struck elsewhere.
fn strike_database(house: &House, fault: &Fault) -> Option<(u32, Undo)> {
    let rows = house.rows.faults();
    match *fault {
        Fault::DatabaseCrash { all } => rows.crash(if all { Loss::All } else { Loss::BySeed }),
        Fault::DatabaseAway { for_ms } => {
            rows.set_available(false);
            return Some((for_ms, Undo::Database));
        }
        Fault::DatabaseSlow { call_ms, for_ms } => {
            rows.set_slow(Duration::from_millis(u64::from(call_ms)));
            return Some((for_ms, Undo::Speed));
        }
        Fault::DatabaseCall { call, fate } => {
            let fates = [WriteFault::Nothing, WriteFault::Part, WriteFault::All, WriteFault::Late];
            let call = ROW_CALLS[usize::from(call) % ROW_CALLS.len()];
            rows.fail(call, fates[usize::from(fate) % 4]);
        }
        Fault::WritesHeld { for_ms } => {
            rows.hold_writes(true);
            return Some((for_ms, Undo::Writes));
        }
        Fault::LateWrites => drop(rows.arrive_late_writes()),
        _ => {}
    }
    None
}

/// Ends a fault that lasts.
pub(crate) fn undo(house: &House, undo: &Undo) {
    let (broker, rows) = (house.broker.faults(), house.rows.faults());
    match undo {
        Undo::Resume(name) => broker.resume(name),
        Undo::Reach(name) => broker.set_reachable(name, true),
        Undo::Tell(member) => broker.tell(*member),
        Undo::Broker => broker.set_available(true),
        Undo::Requests => broker.set_slow(Duration::ZERO),
        Undo::Database => rows.set_available(true),
        Undo::Speed => rows.set_slow(Duration::ZERO),
        Undo::Writes => rows.hold_writes(false),
    }
}

/// Nothing goes wrong from now on.
pub(crate) fn heal(house: &House) {
    let (broker, rows) = (house.broker.faults(), house.rows.faults());
    broker.forget();
    broker.set_available(true);
    broker.set_slow(Duration::ZERO);
    broker.arrive_late_commits();
    broker.release_markers();
    rows.forget();
    rows.set_available(true);
    rows.set_slow(Duration::ZERO);
    rows.hold_writes(false);
    rows.arrive_late_writes();
    house.provider.heal();
}
