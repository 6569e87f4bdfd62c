//! Which event types an endpoint wants.

use thiserror::Error;
use tillstream_schemas::Text;
use tillstream_schemas::order_event::OrderEventPayload;

/// The most patterns of one endpoint.
pub const PATTERNS_MAX: usize = 50;

/// Event types of items that are sent.
pub const ITEM_KINDS: [&str; 4] =
    ["inventory.low_stock", "inventory.level_changed", "inventory.adjusted", "inventory.adjustment_refused"];

/// The type of a message that only tests an endpoint.
pub const PING_KIND: &str = "webhook.ping";

/// Every event type that can be sent.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    OrderEventPayload::KINDS.iter().copied().chain(ITEM_KINDS)
}

/// Why a pattern cannot be one.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FilterError {
    /// No event has that type.
    #[error("no event has the type {0:?}")]
    UnknownType(String),
    /// No type begins like that.
    #[error("no event type begins with {0:?}")]
    UnknownPrefix(String),
    /// A star stands elsewhere than behind the last dot.
    #[error("{0:?} has a star in a place where none can be")]
    Star(String),
}

/// One pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    All,
    Exact(Text),
    /// With its dot.
    Prefix(Text),
}

/// Patterns, any of which lets an event through: an exact type, a prefix such as `order.*`, or `*` for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventFilter(Vec<Pattern>);

impl EventFilter {
    /// Reads one pattern each.
    ///
    /// # Errors
    /// The index of the first that cannot be a pattern, and why.
    pub fn parse<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, (usize, FilterError)> {
        let one = |(index, text)| pattern(text).map_err(|error| (index, error));
        patterns.into_iter().enumerate().map(one).collect::<Result<_, _>>().map(Self)
    }

    /// Whether events of this type are wanted.
    pub fn matches(&self, kind: &str) -> bool {
        self.0.iter().any(|it| match it {
            Pattern::All => true,
            Pattern::Exact(exact) => exact == kind,
            Pattern::Prefix(prefix) => kind.starts_with(prefix.as_str()),
        })
    }
}

fn pattern(text: &str) -> Result<Pattern, FilterError> {
    if text == "*" {
        return Ok(Pattern::All);
    }
    let Some(prefix) = text.strip_suffix('*') else {
        return match kinds().any(|it| it == text) {
            true => Ok(Pattern::Exact(text.into())),
            false if text.contains('*') => Err(FilterError::Star(text.to_owned())),
            false => Err(FilterError::UnknownType(text.to_owned())),
        };
    };
    if !prefix.ends_with('.') || prefix.contains('*') {
        return Err(FilterError::Star(text.to_owned()));
    }
    match kinds().any(|it| it.starts_with(prefix)) {
        true => Ok(Pattern::Prefix(prefix.into())),
        false => Err(FilterError::UnknownPrefix(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_let_through_what_they_name() {
        let cases: [(&[&str], &str, bool); 8] = [
            (&["*"], "order.priced", true),
            (&["order.*"], "order.priced", true),
            (&["order.*"], "payment.captured", false),
            (&["order.priced"], "order.priced", true),
            (&["order.priced"], "order.rejected", false),
            (&["payment.*", "inventory.low_stock"], "inventory.low_stock", true),
            (&["payment.*", "inventory.low_stock"], "inventory.adjusted", false),
            (&[], "order.priced", false),
        ];
        for (patterns, kind, expected) in cases {
            let filter = EventFilter::parse(patterns.iter().copied()).unwrap();
            assert_eq!(filter.matches(kind), expected, "{patterns:?} {kind}");
        }
    }

    #[test]
    fn what_no_event_can_match_is_refused() {
        let cases = [
            ("order.pricd", FilterError::UnknownType("order.pricd".into())),
            ("orders.*", FilterError::UnknownPrefix("orders.*".into())),
            ("order*", FilterError::Star("order*".into())),
            ("*.priced", FilterError::Star("*.priced".into())),
            ("order.*.*", FilterError::Star("order.*.*".into())),
            ("", FilterError::UnknownType(String::new())),
        ];
        for (text, expected) in cases {
            assert_eq!(EventFilter::parse(["*", text]), Err((1, expected)), "{text}");
        }
    }

    #[test]
    fn every_type_can_be_named() {
        for kind in kinds() {
            assert!(EventFilter::parse([kind]).unwrap().matches(kind));
        }
    }
}
