//! Today's values are read and written straight from the type: as the library that goes by the schema does it, for every
//! value and for whatever is none.

use crate::avsc::Type;
use crate::reference::{runner, write};
use crate::values::{any_value, samples};
use crate::wire;
use apache_avro::Schema as Reference;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestCaseError;
use tillstream_schemas::codec::{HEADER_BYTES, Schema};

fn agree(schema: Schema, value: &[u8]) -> bool {
    let [straight, by_schema] = wire::both_ways(schema, value);
    assert_eq!(straight, by_schema, "{schema:?} of {value:02x?}");
    straight.is_some()
}

#[test]
fn every_sample_and_arbitrary_values_are_the_same_bytes_either_way() {
    for &schema in Schema::ALL {
        let (ty, reference) = (Type::parse(schema.avsc()), Reference::parse_str(schema.avsc()).unwrap());
        for branch in 0..ty.branches() {
            for value in samples(&ty, branch) {
                assert!(agree(schema, &write(schema, &reference, value)));
            }
            runner(24)
                .run(&any_value(&ty, branch), |value| {
                    assert!(agree(schema, &write(schema, &reference, value)));
                    Ok::<_, TestCaseError>(())
                })
                .unwrap();
        }
    }
}

/// Numbers of every length, and of more bits than there may be.
#[test]
fn what_is_refused_by_the_schema_is_refused_straight_and_the_other_way_round() {
    const NUMBERS: [&[u8]; 9] = [
        &[0x01],
        &[0x02],
        &[0x80, 0x00],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0x80, 0x80, 0x80, 0x80, 0x10],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
        &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
        &[0xc3],
    ];
    let (mut taken, mut refused) = (0, 0);
    for &schema in Schema::ALL {
        let (ty, reference) = (Type::parse(schema.avsc()), Reference::parse_str(schema.avsc()).unwrap());
        let all = (0..ty.branches()).flat_map(|branch| samples(&ty, branch));
        let values: Vec<_> = all.map(|value| write(schema, &reference, value)).collect();
        for value in &values {
            for at in HEADER_BYTES..value.len() {
                // Three at each place, others at the next.
                for number in (0..3).map(|turn| NUMBERS[(at * 3 + turn) % NUMBERS.len()]) {
                    let changed = [&value[..at], number, &value[at + 1..]].concat();
                    *(if agree(schema, &changed) { &mut taken } else { &mut refused }) += 1;
                }
            }
        }
        let mutations = vec((any::<Index>(), any::<u8>()), 1..6);
        runner(128)
            .run(&(any::<Index>(), mutations), |(pick, mutations)| {
                let mut value = pick.get(&values).clone();
                for (at, byte) in mutations {
                    let at = HEADER_BYTES + at.index(value.len() - HEADER_BYTES);
                    value[at] = byte;
                }
                agree(schema, &value);
                Ok::<_, TestCaseError>(())
            })
            .unwrap();
    }
    assert!(taken > 1_000 && refused > 1_000, "{taken} were taken, {refused} refused");
}

/// Blocks of arrays as other writers cut them: several, and with their size in front.
#[test]
fn arrays_in_several_blocks_and_with_sizes_are_read() {
    let stock = Schema::StockState;
    let header = wire::header(stock);
    let location: &[u8] = &[2, b'a', 2, 4];
    let tail: &[u8] = &[0, 0, 0, 0, 0];
    let start = [&header[..], &[2, b't', 2, b's']].concat();
    let whole = [&start[..], &[4], location, location, &[0], tail].concat();
    let cut = [&start[..], &[2], location, &[2], location, &[0], tail].concat();
    let sized = [&start[..], &[3, 8], location, location, &[0], tail].concat();
    for value in [&whole, &cut, &sized] {
        assert!(agree(stock, value));
        assert!(wire::same(stock, value, &whole));
    }
}
