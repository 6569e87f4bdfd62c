use super::*;
use crate::codec::{CodecError, decode, encode, open};
use crate::item::AdjustmentState;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn locals() -> Vec<u32> {
    Version::all().map(|it| it.id).collect()
}

/// Every id of ours, `offset` higher.
fn shifted(offset: u32) -> WireIds {
    WireIds::new(locals().into_iter().map(|id| (id, id + offset))).unwrap()
}

fn header(id: u32) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), b"datum"].concat()
}

#[test]
fn without_a_registry_every_id_is_its_own() {
    let ids = WireIds::identity();
    for id in [0, 1, 16, 17, u32::MAX, FOREIGN | 1] {
        assert_eq!((ids.to_registry(id), ids.to_local(id)), (id, id));
    }
}

#[test]
fn a_value_goes_out_under_the_registrys_id_and_comes_back_under_ours() {
    let ids = shifted(1_000);
    let row = sample();
    let encoded = encode(&row).unwrap();
    let mut value = encoded.clone();
    ids.header_to_registry(&mut value);
    assert_eq!(value[1..5], (Schema::AdjustmentState as u32 + 1_000).to_be_bytes());
    assert!(matches!(decode::<AdjustmentState>(&value), Err(CodecError::UnknownSchema(1_013))));
    ids.header_to_local(&mut value);
    assert_eq!(value, encoded);
    assert_eq!(decode::<AdjustmentState>(&value).unwrap(), row);
}

#[test]
fn somebody_elses_id_is_never_taken_for_one_of_ours_and_is_named_as_the_registry_names_it() {
    let ids = shifted(8);
    let past = locals().into_iter().max().unwrap() + 9;
    for foreign in [1, 3, 8, past, 77_777] {
        let mut value = header(foreign);
        ids.header_to_local(&mut value);
        match open(&value) {
            Err(CodecError::UnknownSchema(named)) => assert_eq!(named, foreign),
            other => panic!("{foreign}: {other:?}"),
        }
        ids.header_to_registry(&mut value);
        assert_eq!(value, header(foreign));
    }
}

#[test]
fn all_ids_of_one_schema_are_understood_and_the_first_is_written() {
    let letter = Schema::DeadLetter as u32;
    let more = [(letter, 501), (letter, 7), (letter, 7)];
    let ids = WireIds::new(locals().into_iter().map(|id| (id, id + 100)).chain(more)).unwrap();
    assert_eq!([109, 501, 7].map(|id| ids.to_local(id)), [letter; 3]);
    assert_eq!(ids.to_registry(letter), 109);
}

#[test]
fn values_without_a_header_are_left_alone() {
    let ids = shifted(1_000);
    for value in [&b""[..], b"\0", b"\0\0\0\0", b"\x01\0\0\0\x01datum", b"{}"] {
        let mut turned = value.to_vec();
        ids.header_to_registry(&mut turned);
        ids.header_to_local(&mut turned);
        ids.header_to_local(&mut turned);
        assert_eq!(turned, value);
    }
}

#[test]
fn pairs_that_cannot_be_are_refused() {
    let all = |more: (u32, u32)| WireIds::new(locals().into_iter().map(|id| (id, id)).chain([more]));
    assert_eq!(all((999, 1)), Err(WireIdsError::Unknown(999)));
    assert_eq!(all((2, 1)), Err(WireIdsError::Shared { registry: 1, first: 1, second: 2 }));
    assert_eq!(all((2, FOREIGN)), Err(WireIdsError::OutOfRange(FOREIGN)));
    let missing = WireIds::new(locals().into_iter().skip(1).map(|id| (id, id)));
    assert_eq!(missing, Err(WireIdsError::Missing { schema: Schema::OrderCommand, local: 1 }));
}

fn sample() -> AdjustmentState {
    let lines = include_str!("../../golden/adjustment-state/v1/record.jsonl");
    serde_json::from_str(lines.lines().last().unwrap()).unwrap()
}

/// Distinct ids of a registry, many of them ids of ours too.
fn registrys_ids(count: usize) -> impl Strategy<Value = Vec<u32>> {
    let one = prop_oneof![0..40_u32, 1_000..1_040_u32, 0..FOREIGN];
    proptest::collection::btree_set(one, count)
        .prop_map(|it| it.into_iter().collect::<Vec<_>>())
        .prop_shuffle()
}

proptest! {
    #[test]
    fn ids_come_back_as_they_went(
        registry in registrys_ids(locals().len()),
        wild in proptest::collection::vec(any::<u32>(), 16),
    ) {
        let ids = WireIds::new(locals().into_iter().zip(registry.iter().copied())).unwrap();
        let small = (0..64).flat_map(|id| [id, id | FOREIGN]);
        let every: BTreeSet<u32> = small.chain(wild).chain(registry.iter().copied()).collect();
        for id in &every {
            let local = ids.to_local(*id);
            prop_assert_eq!(ids.to_registry(local), *id);
            prop_assert_eq!(Version::by_id(local).is_some(), registry.contains(id));
            if !registry.contains(id) && id & FOREIGN == 0 {
                prop_assert_eq!(foreign_id(local), *id);
            }
        }
        for id in locals() {
            prop_assert_eq!(ids.to_local(ids.to_registry(id)), id);
        }
    }
}
