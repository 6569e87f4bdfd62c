//! One target under libFuzzer, chosen by `TILLSTREAM_FUZZ_TARGET`; `make fuzz` builds and runs it.
#![no_main]

use std::sync::LazyLock;
use tillstream_fuzz::{Target, run};

#[allow(clippy::expect_used, reason = "there is nothing to do without a target")]
static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    Target::named(&std::env::var("TILLSTREAM_FUZZ_TARGET").expect("TILLSTREAM_FUZZ_TARGET names the target"))
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| run(&TARGET, input));
