//! The tables must be what the changelogs say, row by row and timer by timer; and every record that nobody can take is one
//! dead letter.

use super::seen::{Input, Seen};
use super::{Checked, expect};
use crate::house::House;
use bytes::Bytes;
use std::collections::BTreeMap;
use tillstream_schemas::Topic;
use tillstream_stage::task::TaskKind;

/// Counts dead letters.
pub(super) fn letters(seen: &Seen) -> Checked {
    letters_of(seen, TaskKind::Order, &seen.orders)?;
    letters_of(seen, TaskKind::Item, &seen.items)?;
    let others = seen.letters.keys().find(|it| !matches!(it.0, Topic::OrderCommands | Topic::ItemCommands));
    expect(others.is_none(), || format!("a dead letter of {others:?}"))
}

/// Whether the tables are what the changelogs say.
pub(crate) fn same(house: &House, seen: &Seen) -> Checked {
    let mut expected: BTreeMap<Bytes, Bytes> = BTreeMap::new();
    for ((_, key), value) in &seen.rows {
        if let Some(value) = value.as_ref().filter(|_| key != "incarnation") {
            // A timer's value says nothing.
            let timer = key.starts_with(b"timer/");
            expected.insert(key.clone(), if timer { Bytes::new() } else { value.clone() });
        }
    }
    for (key, row) in house.rows.rows() {
        let key = format!("{}/{}", key.table.name(), key.key);
        let found = expected.remove(key.as_bytes());
        expect(found.as_ref() == Some(&row.value), || {
            let what = if found.is_some() { "another value than" } else { "a row that is not in" };
            format!("the table has {what} the changelog: {key}")
        })?;
    }
    for (_, timer) in house.rows.all_timers().into_keys() {
        let key = format!("timer/{:014}/{}/{}", timer.due_ms, timer.name.as_str(), timer.key);
        let found = expected.remove(key.as_bytes());
        expect(found.is_some(), || format!("the table has a timer that is not in the changelog: {key}"))?;
    }
    if let Some(missing) = expected.keys().next() {
        let (key, count) = (String::from_utf8_lossy(missing), expected.len());
        return expect(false, || format!("the tables miss {count} rows of the changelogs: {key}"));
    }
    Ok(())
}

fn letters_of<T>(seen: &Seen, kind: TaskKind, inputs: &[Vec<Input<T>>]) -> Checked {
    for (partition, inputs) in inputs.iter().enumerate() {
        let mut expected: BTreeMap<u64, u32> = BTreeMap::new();
        for input in seen.sequence(kind, partition as u32, inputs) {
            *expected.entry(input.offset).or_default() += u32::from(input.command.is_none());
        }
        for (offset, count) in expected {
            let found = seen.letters.get(&(kind.input(), partition as u32, offset)).copied().unwrap_or(0);
            expect(found == count, || {
                format!(
                    "{} {partition}/{offset} has {found} dead letters, it should have {count}",
                    kind.input()
                )
            })?;
        }
    }
    Ok(())
}
