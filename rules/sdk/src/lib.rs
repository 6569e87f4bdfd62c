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

#[cfg_attr(not(target_arch = "wasm32"), allow(dead_code, reason = "in use inside the sandbox alone"))]
mod allocator;

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
                // The names under which a sandbox finds a hook are none that every machine's linker takes.
                #[cfg(target_arch = "wasm32")]
                $crate::__bindings::$name::export!($rule with_types_in $crate::__bindings::$name);
                #[cfg(not(target_arch = "wasm32"))]
                const _: () = {
                    let _ = <$rule as $crate::$name::Rule>::decide;
                };
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

/// The value that the order's metadata has under a name; names that begin with `customer.` are the customer's attributes.
pub fn metadata<'a>(order: &'a Order, name: &str) -> Option<&'a str> {
    value(&order.metadata, name)
}

/// The value of a customer's attribute; `None` for a guest.
pub fn customer_attribute<'a>(order: &'a Order, name: &str) -> Option<&'a str> {
    value(&order.customer.as_ref()?.attributes, name)
}

fn value<'a>(attributes: &'a [Attribute], name: &str) -> Option<&'a str> {
    attributes.iter().find(|it| it.name == name).map(|it| it.value.as_str())
}

/// For the tests of a rule.
pub mod testing {
    use crate::{Attribute, Customer, Destination, Order};

    /// An order to a country, with these settings; placed 2010-12-01T08:26:00Z in GBP, by a guest.
    pub fn order(country: &str, settings: &str) -> Order {
        Order {
            id: "ord_1".into(),
            placed_at: 1_291_191_960_000,
            currency: "GBP".into(),
            customer: None,
            destination: Destination { country: country.into(), region: None, city: None, postal_code: None },
            metadata: Vec::new(),
            settings: settings.into(),
        }
    }

    /// A customer with these attributes.
    pub fn customer(id: &str, attributes: &[(&str, &str)]) -> Customer {
        Customer { id: id.into(), attributes: self::attributes(attributes) }
    }

    /// Names with their values.
    pub fn attributes(pairs: &[(&str, &str)]) -> Vec<Attribute> {
        pairs.iter().map(|it| Attribute { name: it.0.into(), value: it.1.into() }).collect()
    }
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
    use super::{customer_attribute, metadata, share, testing};

    #[test]
    fn an_attribute_is_found_by_its_name_and_a_guest_has_none() {
        let mut order = testing::order("GB", "{}");
        order.metadata = testing::attributes(&[("tier", "web")]);
        assert_eq!((metadata(&order, "tier"), customer_attribute(&order, "tier")), (Some("web"), None));
        order.customer = Some(testing::customer("c-1", &[("tier", "gold")]));
        assert_eq!(
            (customer_attribute(&order, "tier"), customer_attribute(&order, "age")),
            (Some("gold"), None)
        );
    }

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
