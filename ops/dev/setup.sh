#!/usr/bin/env bash
# Brings a fresh machine to where `make test` can run: toolchain components and cargo-deny.
# Needs: rustup or cargo with Rust 1.95, a C compiler.
set -euo pipefail

need() { command -v "$1" >/dev/null 2>&1 || { echo "setup: '$1' is missing: $2" >&2; exit 1; }; }
need cargo "install Rust 1.95 (https://rustup.rs)"
need cc "install a C toolchain, such as the package build-essential"

have=$(rustc --version | sed -E 's/^rustc ([0-9]+)\.([0-9]+).*/\1 \2/')
read -r major minor <<<"$have"
if [ "$major" -lt 1 ] || { [ "$major" -eq 1 ] && [ "$minor" -lt 95 ]; }; then
    echo "setup: Rust 1.95 or newer is needed, this is $(rustc --version)" >&2
    exit 1
fi

if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
    need rustup "rustfmt and clippy are missing and rustup is not here to add them"
    rustup component add rustfmt clippy
fi

if ! rustc --print target-libdir --target wasm32-unknown-unknown 2>/dev/null | xargs -I{} test -d {}; then
    need rustup "the target wasm32-unknown-unknown is missing and rustup is not here to add it"
    rustup target add wasm32-unknown-unknown
fi

if ! cargo deny --version >/dev/null 2>&1; then
    echo "setup: installing cargo-deny (some minutes, once)"
    cargo install cargo-deny --locked --version 0.20.2
fi
