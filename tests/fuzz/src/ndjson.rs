//! Bulk bodies: cut into lines the same way, in whatever parts they arrive.

use bytes::Bytes;
use tillstream_ingest_api::bare::{Cut, cut_lines};
use tokio::runtime::Runtime;

/// The longest line.
const LINE_BYTES_MAX: usize = 1 << 20;
/// What one byte 1 of the input stands for, so that short inputs make long lines.
const RUN_BYTES: usize = 300 << 10;

thread_local! {
    static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
}

fn cut_parts(parts: Vec<Bytes>) -> Vec<Cut> {
    RUNTIME.with(|it| it.block_on(cut_lines(parts)))
}

/// Line number and, where it is short enough, its bytes: by the plainest reading there is.
fn plainly(body: &[u8]) -> Vec<(u64, Option<&[u8]>)> {
    let lines = (1..).zip(body.split(|it| *it == b'\n'));
    let filled = lines.filter(|(_, line)| line.len() > LINE_BYTES_MAX || !line.trim_ascii().is_empty());
    filled.map(|(number, line)| (number, (line.len() <= LINE_BYTES_MAX).then_some(line))).collect()
}

/// How long the parts are (two bytes: one of 256, then a factor), then the body.
pub fn cut(input: &[u8]) {
    let Some((&[size, factor], rest)) = input.split_first_chunk::<2>() else { return };
    // Four long runs at most: a run is bounded by its own size.
    let mut runs = 0;
    let mut body = Vec::new();
    for byte in rest {
        if *byte == 1 && runs < 12 {
            runs += 1;
            body.resize(body.len() + RUN_BYTES, b'x');
        } else {
            body.push(*byte);
        }
    }
    let part =
        (1 + usize::from(size)) * if body.len() > 64 << 10 { 1_024 } else { 1 + usize::from(factor % 8) };
    let parts = body.chunks(part).map(Bytes::copy_from_slice).collect();
    let cut = cut_parts(parts);
    let found: Vec<_> = cut.iter().map(|(number, line)| (*number, line.as_deref().ok())).collect();
    let expected = plainly(&body);
    assert_eq!(found.len(), expected.len(), "lines");
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found.0, expected.0, "the number of a line");
        assert!(found.1 == expected.1, "line {} is another", found.0);
    }
}
