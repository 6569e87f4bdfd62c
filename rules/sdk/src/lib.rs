//! Write a rule for Tillstream in Rust.
//!
//! Implement a hook's [`price::Rule`] (or that of [`allocate`], [`risk`], [`ship`], [`measure`]) and export it; a module
//! has the hooks it exports and no others.
//!
//! ```
//! use tillstream_rules::price::{Adjustment, Answer, Request, Rule};
//!
//! struct TenOff;
//!
//! impl Rule for TenOff {
//!     fn decide(request: Request) -> Answer {
//!         let lines = request.lines.iter().zip(0..);
//!         Answer::Adjust(
//!             lines
//!                 .map(|(it, line)| Adjustment { line, discount: it.unit_price * it.quantity / 10, tax_rate: None })
//!                 .collect(),
//!         )
//!     }
//! }
//!
//! tillstream_rules::export_price!(TenOff);
//! # fn main() {}
//! ```
//!
//! A rule is pure: the same request gives the same answer. It is called in a fresh sandbox every time, so a `static` that
//! one call writes is as it was in the next. It has no clock, no randomness, no files and no network; what it may use of
//! fuel, memory and bytes stands in `docs/RULES.md`.

#[allow(missing_docs, clippy::all, reason = "generated from rules/wit, which documents every field")]
#[doc(hidden)]
pub mod __bindings {
    pub mod price {
        wit_bindgen::generate!({
            path: "../wit",
            world: "price-rule",
            pub_export_macro: true,
            export_macro_name: "export",
            default_bindings_module: "tillstream_rules::__bindings::price",
            generate_all,
        });
    }
    pub mod allocate {
        wit_bindgen::generate!({
            path: "../wit",
            world: "allocate-rule",
            pub_export_macro: true,
            export_macro_name: "export",
            default_bindings_module: "tillstream_rules::__bindings::allocate",
            with: {
                "tillstream:rules/types@1.0.0": crate::__bindings::price::tillstream::rules::types,
                "tillstream:rules/log@1.0.0": crate::__bindings::price::tillstream::rules::log,
            },
        });
    }
    pub mod risk {
        wit_bindgen::generate!({
            path: "../wit",
            world: "risk-rule",
            pub_export_macro: true,
            export_macro_name: "export",
            default_bindings_module: "tillstream_rules::__bindings::risk",
            with: {
                "tillstream:rules/types@1.0.0": crate::__bindings::price::tillstream::rules::types,
                "tillstream:rules/log@1.0.0": crate::__bindings::price::tillstream::rules::log,
            },
        });
    }
    pub mod ship {
        wit_bindgen::generate!({
            path: "../wit",
            world: "ship-rule",
            pub_export_macro: true,
            export_macro_name: "export",
            default_bindings_module: "tillstream_rules::__bindings::ship",
            with: {
                "tillstream:rules/types@1.0.0": crate::__bindings::price::tillstream::rules::types,
                "tillstream:rules/log@1.0.0": crate::__bindings::price::tillstream::rules::log,
            },
        });
    }
    pub mod measure {
        wit_bindgen::generate!({
            path: "../wit",
            world: "measure-rule",
            pub_export_macro: true,
            export_macro_name: "export",
            default_bindings_module: "tillstream_rules::__bindings::measure",
            with: {
                "tillstream:rules/types@1.0.0": crate::__bindings::price::tillstream::rules::types,
                "tillstream:rules/log@1.0.0": crate::__bindings::price::tillstream::rules::log,
            },
        });
    }
}

pub use __bindings::price::tillstream::rules::types::{Attribute, Customer, Destination, Order, Refusal};
pub use serde;

macro_rules! hook {
    ($(#[$doc:meta])* $name:ident, $export:ident) => {
        $(#[$doc])*
        pub mod $name {
            pub use crate::__bindings::$name::exports::tillstream::rules::$name::{Guest as Rule, *};
        }

        /// Exports a type that implements this hook's `Rule`.
        #[macro_export]
        macro_rules! $export {
            ($rule:ident) => {
                $crate::__bindings::$name::export!($rule with_types_in $crate::__bindings::$name);
            };
        }
    };
}

hook!(
    /// The price hook: called once per order, before its total is made.
    price, export_price
);
hook!(
    /// The allocate hook: called once per order that has goods, before stock is held.
    allocate, export_allocate
);
hook!(
    /// The risk hook: called once per order, before money is asked for.
    risk, export_risk
);
hook!(
    /// The ship hook: called for every shipment command, before goods leave.
    ship, export_ship
);
hook!(
    /// The measure hook: called once per order, when it is priced.
    measure, export_measure
);

/// Adds a line to the call's log; beyond 1 KiB it is cut off. In a test on the author's machine it goes nowhere.
pub fn log(text: &str) {
    #[cfg(target_arch = "wasm32")]
    __bindings::price::tillstream::rules::log::line(text);
    #[cfg(not(target_arch = "wasm32"))]
    let _ = text;
}

/// Reads the rule's settings; `None` when they do not have this shape, so that a rule can fall back to what it was
/// written with.
pub fn settings<'a, T: serde::Deserialize<'a>>(order: &'a Order) -> Option<T> {
    serde_json_core::from_str(&order.settings).ok().map(|it: (T, usize)| it.0)
}

/// A part of an amount, rounded half to even: the way every amount is rounded here. `rate_bp` is in basis points, 1,000
/// is 10 %.
pub fn share(amount: i64, rate_bp: i64) -> i64 {
    let product = i128::from(amount) * i128::from(rate_bp);
    let (whole, rest) = (product.div_euclid(10_000), product.rem_euclid(10_000));
    let up = rest > 5_000 || (rest == 5_000 && whole.rem_euclid(2) == 1);
    i64::try_from(whole + i128::from(up)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn a_share_is_rounded_half_to_even() {
        for (amount, rate_bp, expected) in [
            (255, 1_000, 26),
            (245, 1_000, 24),
            (15, 5_000, 8),
            (25, 5_000, 12),
            (-15, 5_000, -8),
            (0, 10_000, 0),
        ] {
            assert_eq!(share(amount, rate_bp), expected, "{amount} at {rate_bp}");
        }
    }
}
