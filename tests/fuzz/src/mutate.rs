//! Random changes to an input, by a seed: what the short runs try without knowing what they cover.

use tillstream_random::Random;

/// Bytes at the edges of what parsers expect.
const EDGES: [&[u8]; 14] = [
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x80\x80\x80\x80\x10",
    b"-1",
    b"9223372036854775807",
    b"null",
    b"1e999",
    b"\"",
    b"\\u0000",
    b"\n",
    b"\xed\xa0\x80",
];

/// Changes `input` in one to eight places; `other` is a second input to take pieces from.
pub fn mutate(random: &mut Random, input: &mut Vec<u8>, other: &[u8], bytes_max: usize) {
    for _ in 0..=random.below(8) {
        let (at, kind) = (random.below(input.len() + 1), random.below(9));
        let end = (at + 1 + random.below(16)).min(input.len());
        match kind {
            0 | 1 if at < input.len() => input[at] ^= 1 << random.below(8),
            2 if at < input.len() => input[at] = random.next_u64() as u8,
            3 => drop(input.drain(at..end)),
            4 => {
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece);
            }
            5 => {
                let edge = EDGES[random.below(EDGES.len())];
                input.splice(at..end.min(at + random.below(3)).max(at), edge.iter().copied());
            }
            6 => {
                let from = random.below(other.len() + 1);
                let piece = other[from..(from + random.below(64)).min(other.len())].to_vec();
                input.splice(at..at, piece);
            }
            7 => input.truncate(at),
            _ if at < input.len() => {
                input[at] = input[at].wrapping_add(random.below(32) as u8).wrapping_sub(16)
            }
            _ => {}
        }
    }
    input.truncate(bytes_max);
}
