//! Tax rates by destination country and tax class, in basis points.
//!
//! Meant as of 1 September 2025. What each entry was checked against (secondary tables; no authority's own page was read):
//! - EU, CH, GB, NO: vat-solutions.com, "VAT Rates 2025 in the European Union"; EE from July 2025 also
//!   calculariva.app, RO from August 2025 (21 %, 11 %) easytax.co, both "VAT rates 2025".
//! - AU, CA, IS: EY, "2017 Worldwide VAT, GST and Sales Tax Guide – rates": not newer than that.
//! - JP, LI, NZ, SG, ZA: not checked against a source.
//!
//! `reduced` is the lowest reduced rate; in the EU the lowest of at least 5 % (Article 99 of Directive 2006/112/EC):
//! super-reduced and parking rates are left out. CA is the federal part alone: a province is not a country.
//!
//! The United States have no tax of the whole country, so they are not listed: an unlisted country is untaxed.

/// What a country takes, basis points.
struct Country {
    code: &'static str,
    standard_bp: i32,
    reduced_bp: i32,
}

const fn country(code: &'static str, standard_bp: i32, reduced_bp: i32) -> Country {
    Country { code, standard_bp, reduced_bp }
}

/// Sorted by code. A country without a reduced rate has its standard rate twice.
const COUNTRIES: &[Country] = &[
    country("AT", 2_000, 1_000),
    country("AU", 1_000, 1_000),
    country("BE", 2_100, 600),
    country("BG", 2_000, 900),
    country("CA", 500, 500),
    country("CH", 810, 260),
    country("CY", 1_900, 500),
    country("CZ", 2_100, 1_200),
    country("DE", 1_900, 700),
    country("DK", 2_500, 2_500),
    country("EE", 2_400, 900),
    country("ES", 2_100, 1_000),
    country("FI", 2_550, 1_000),
    country("FR", 2_000, 550),
    country("GB", 2_000, 500),
    country("GR", 2_400, 600),
    country("HR", 2_500, 500),
    country("HU", 2_700, 500),
    country("IE", 2_300, 900),
    country("IS", 2_400, 1_100),
    country("IT", 2_200, 500),
    country("JP", 1_000, 800),
    country("LI", 810, 260),
    country("LT", 2_100, 500),
    country("LU", 1_700, 800),
    country("LV", 2_100, 500),
    country("MT", 1_800, 500),
    country("NL", 2_100, 900),
    country("NO", 2_500, 1_200),
    country("NZ", 1_500, 1_500),
    country("PL", 2_300, 500),
    country("PT", 2_300, 600),
    country("RO", 2_100, 1_100),
    country("SE", 2_500, 600),
    country("SG", 900, 900),
    country("SI", 2_200, 500),
    country("SK", 2_300, 500),
    country("ZA", 1_500, 1_500),
];

/// The tax classes a product may name. Any other class is untaxed.
pub const CLASSES: [&str; 3] = ["standard", "reduced", "zero"];

/// The rate for goods of `class` that go to `country` (ISO 3166 alpha-2), basis points; 0 when either is unknown.
pub fn rate_bp(country: &str, class: &str) -> i32 {
    let Ok(index) = COUNTRIES.binary_search_by(|it| it.code.cmp(country)) else {
        return 0;
    };
    match class {
        "standard" => COUNTRIES[index].standard_bp,
        "reduced" => COUNTRIES[index].reduced_bp,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_every_rate_can_be() {
        assert!(COUNTRIES.windows(2).all(|it| it[0].code < it[1].code));
        for it in COUNTRIES {
            assert!(
                it.code.len() == 2 && it.code.bytes().all(|byte| byte.is_ascii_uppercase()),
                "{}",
                it.code
            );
            assert!((200..=it.standard_bp).contains(&it.reduced_bp), "{}", it.code);
            assert!((500..=2_700).contains(&it.standard_bp), "{}", it.code);
        }
    }

    #[test]
    fn every_member_state_of_the_union_is_listed() {
        let members = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK";
        assert_eq!(members.split(' ').count(), 27);
        for code in members.split(' ') {
            // 15 % and 5 % are the floors of Directive 2006/112/EC, Articles 97 and 99.
            assert!(rate_bp(code, "standard") >= 1_500 && rate_bp(code, "reduced") >= 500, "{code}");
        }
    }

    #[test]
    fn rates_by_country_and_class() {
        let cases = [
            ("GB", "standard", 2_000),
            ("GB", "reduced", 500),
            ("GB", "zero", 0),
            ("DE", "reduced", 700),
            ("FI", "standard", 2_550),
            ("DK", "reduced", 2_500),
            ("CH", "standard", 810),
            ("US", "standard", 0),
            ("", "standard", 0),
            ("GB", "luxury", 0),
            ("gb", "standard", 0),
        ];
        for (country, class, rate) in cases {
            assert_eq!(rate_bp(country, class), rate, "{country} {class}");
        }
    }
}
