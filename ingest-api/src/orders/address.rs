//! A postal address as the API shows it.

use schemars::JsonSchema;
use serde::Serialize;
use tillstream_schemas::order_command::Address;

/// A postal address.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Address")]
pub(super) struct ShownAddress<'a> {
    /// Recipient.
    name: Option<&'a str>,
    /// First line.
    line1: Option<&'a str>,
    /// Second line.
    line2: Option<&'a str>,
    /// City.
    city: Option<&'a str>,
    /// State or region.
    region: Option<&'a str>,
    /// Postal code.
    postal_code: Option<&'a str>,
    /// ISO 3166-1 alpha-2.
    country: Option<&'a str>,
}

impl<'a> From<&'a Address> for ShownAddress<'a> {
    fn from(address: &'a Address) -> Self {
        Self {
            name: address.name.as_deref(),
            line1: address.line1.as_deref(),
            line2: address.line2.as_deref(),
            city: address.city.as_deref(),
            region: address.region.as_deref(),
            postal_code: address.postal_code.as_deref(),
            country: address.country.as_deref(),
        }
    }
}
