//! The examples of `rules/examples`, as they stand there, with their fixtures.

/// A rule to begin from.
pub(super) struct Example {
    pub name: &'static str,
    pub source: &'static str,
    pub fixtures: &'static [Fixture],
}

/// A question, and what the example says to it.
pub(super) struct Fixture {
    pub name: &'static str,
    pub input: &'static str,
    pub snapshot: &'static str,
}

macro_rules! example {
    ($name:literal, [$($fixture:literal),*]) => {
        Example {
            name: $name,
            source: include_str!(concat!("../../../rules/examples/", $name, "/src/lib.rs")),
            fixtures: &[$(Fixture {
                name: $fixture,
                input: include_str!(concat!("../../../rules/examples/", $name, "/fixtures/", $fixture, ".json")),
                snapshot: include_str!(concat!("../../../rules/examples/", $name, "/fixtures/", $fixture, ".snap.json")),
            }),*],
        }
    };
}

pub(super) const EXAMPLES: &[Example] = &[
    example!("volume-discount", ["from-five", "many-of-one", "one-of-each"]),
    example!("split-by-location", ["one-place", "two-places"]),
    example!("tiered-discount", ["bundle-of-two", "bundle-within-a-tier", "half-a-bundle", "tiers"]),
    example!("vat", ["books-at-home", "books-to-france", "business-in-germany", "export", "no-settings"]),
    example!("nearest-first", ["abroad", "bristol-and-one-more", "london", "one-parcel-from-bristol"]),
    example!("fraud-score", ["guest", "hurried-from-abroad", "many-cards", "regular"]),
    example!(
        "carrier-choice",
        [
            "heavy-from-two-places",
            "light-and-slow",
            "named-by-the-command",
            "tomorrow",
            "tomorrow-in-australia"
        ]
    ),
];
