//! Bytes nobody honest would send: no panic, no allocation beyond what the bytes themselves can pay for.

use crate::avsc::Type;
use crate::reference::{runner, write};
use crate::values::samples;
use crate::wire;
use apache_avro::Schema as Reference;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestCaseError;
use tillstream_schemas::codec::{self, CodecError, Schema};

fn valid(schema: Schema) -> Vec<Vec<u8>> {
    let (ty, reference) = (Type::parse(schema.avsc()), Reference::parse_str(schema.avsc()).unwrap());
    let values = (0..ty.branches()).flat_map(|branch| samples(&ty, branch));
    values.map(|value| write(schema, &reference, value)).collect()
}

/// Whatever decodes must be a value like any other: it encodes, and decodes to itself.
fn survives(schema: Schema, value: &[u8]) {
    let _ = codec::to_json(value);
    match wire::recode(schema, value) {
        Ok(again) => assert!(wire::same(schema, value, &again)),
        Err(CodecError::Decode { schema: named, detail }) => {
            assert_eq!(named, schema);
            assert!(!detail.is_empty());
        }
        Err(CodecError::Header(_) | CodecError::UnknownSchema(_) | CodecError::OtherSchema { .. }) => {}
        Err(error) => panic!("{schema:?}: what decodes must encode: {error}"),
    }
}

#[test]
fn random_bytes_behind_any_header_do_no_harm() {
    for &schema in Schema::ALL {
        runner(256)
            .run(&vec(any::<u8>(), 0..200), |bytes| {
                survives(schema, &[wire::header(schema), bytes.clone()].concat());
                survives(schema, &bytes);
                Ok::<_, TestCaseError>(())
            })
            .unwrap();
    }
}

#[test]
fn every_truncation_and_every_trailing_byte_is_refused() {
    for &schema in Schema::ALL {
        for value in valid(schema) {
            for end in 0..value.len() {
                let refused = wire::recode(schema, &value[..end]);
                assert!(
                    matches!(refused, Err(CodecError::Header(_) | CodecError::Decode { .. })),
                    "{schema:?} {end} of {} bytes: {refused:?}",
                    value.len()
                );
            }
            for tail in [&[0][..], &[1], &[0, 0, 0, 0, 1], &[255; 20]] {
                let refused = wire::recode(schema, &[&value[..], tail].concat());
                assert!(matches!(refused, Err(CodecError::Decode { .. })), "{schema:?}: {refused:?}");
            }
        }
    }
}

#[test]
fn mutated_values_do_no_harm() {
    for &schema in Schema::ALL {
        let values = valid(schema);
        let mutations = vec((any::<Index>(), any::<u8>()), 1..6);
        runner(512)
            .run(&(any::<Index>(), mutations), |(pick, mutations)| {
                let mut value = pick.get(&values).clone();
                for (at, byte) in mutations {
                    let at = at.index(value.len());
                    value[at] = byte;
                }
                survives(schema, &value);
                Ok::<_, TestCaseError>(())
            })
            .unwrap();
    }
}

/// Every byte of a valid value, so every length and count in it, is replaced by a lie.
#[test]
fn a_lying_length_anywhere_costs_nothing() {
    const LIES: [&[u8]; 5] = [
        &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], // i64::MAX
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], // i64::MIN
        &[0x80, 0xa0, 0xb7, 0x87, 0xe9, 0x05],                         // 100 billion
        &[0xff, 0x9f, 0xb7, 0x87, 0xe9, 0x05, 0x00],                   // a block of −100 billion
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], // no number at all
    ];
    for &schema in Schema::ALL {
        for value in valid(schema) {
            for at in codec::HEADER_BYTES..value.len() {
                for lie in LIES {
                    survives(schema, &[&value[..at], lie, &value[at + 1..]].concat());
                }
            }
        }
    }
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(peak_kib < 512 * 1024, "{peak_kib} KiB at the peak");
    }
}
