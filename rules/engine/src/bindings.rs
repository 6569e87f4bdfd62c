//! The types of `rules/wit`, written by wasmtime's macro.
#![allow(
    unsafe_code,
    missing_docs,
    clippy::all,
    reason = "the macro writes `unsafe impl` for the traits that say how a type lies in memory, and takes their layout \
              from the same WIT file that modules are checked against"
)]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "rules",
    ownership: Borrowing { duplicate_if_necessary: true },
});
