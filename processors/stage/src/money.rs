//! Money is integer minor units with an ISO 4217 code; rates are basis points; rounding is half-even, once.

use thiserror::Error;

/// The largest amount of one line or order, minor units: ten trillion, far below overflow of any sum here.
pub const AMOUNT_MINOR_MAX: i64 = 10_000_000_000_000;

/// Money that cannot be.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("amount is out of range")]
pub struct MoneyOverflow;

/// `quantity × unit price`.
pub fn times(unit_price_minor: i64, quantity: i64) -> Result<i64, MoneyOverflow> {
    unit_price_minor.checked_mul(quantity).filter(|it| it.abs() <= AMOUNT_MINOR_MAX).ok_or(MoneyOverflow)
}

/// A sum within range.
pub fn plus(a: i64, b: i64) -> Result<i64, MoneyOverflow> {
    a.checked_add(b).filter(|it| it.abs() <= AMOUNT_MINOR_MAX).ok_or(MoneyOverflow)
}

/// `amount × numerator / denominator`, rounded half to even; `denominator > 0`.
pub fn share(amount_minor: i64, numerator: i64, denominator: i64) -> i64 {
    let product = i128::from(amount_minor) * i128::from(numerator);
    let denominator = i128::from(denominator);
    let floor = product.div_euclid(denominator);
    let twice = product.rem_euclid(denominator) * 2;
    let up = twice > denominator || (twice == denominator && floor % 2 != 0);
    let rounded = floor + i128::from(up);
    i64::try_from(rounded).unwrap_or(if rounded > 0 { i64::MAX } else { i64::MIN })
}

/// `amount × rate`, the rate in basis points, rounded half to even.
pub fn rate(amount_minor: i64, basis_points: i32) -> i64 {
    share(amount_minor, i64::from(basis_points), 10_000)
}

/// Splits an amount over weights so that the parts sum to it exactly: the largest remainders get the odd units,
/// the earlier line first. Weights are ≥ 0; when all are 0 the first part gets everything.
pub fn split(amount_minor: i64, weights: &[i64]) -> Vec<i64> {
    let total: i128 = weights.iter().map(|it| i128::from(*it)).sum();
    if weights.is_empty() {
        return Vec::new();
    }
    if total == 0 {
        let mut parts = vec![0; weights.len()];
        parts[0] = amount_minor;
        return parts;
    }
    let mut parts = Vec::with_capacity(weights.len());
    let mut remainders = Vec::with_capacity(weights.len());
    let mut given = 0;
    for (index, weight) in weights.iter().enumerate() {
        let product = i128::from(amount_minor) * i128::from(*weight);
        let part = product.div_euclid(total) as i64;
        given += part;
        parts.push(part);
        remainders.push((product.rem_euclid(total), index));
    }
    remainders.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    for (_, index) in remainders.into_iter().take((amount_minor - given).max(0) as usize) {
        parts[index] += 1;
    }
    parts
}

const ZERO: &str = " BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF ";
const THREE: &str = " BHD IQD JOD KWD LYD OMR TND ";
const TWO: &str = " AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BTN BWP BYN BZD \
    CAD CDF CHF CNY COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD \
    HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK \
    MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB \
    SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD \
    UYU UZS VED VES WST XCD YER ZAR ZMW ZWG ";

/// Every code that [`currency_digits`] knows, in order.
pub fn currencies() -> impl Iterator<Item = &'static str> {
    let mut codes: Vec<&str> = [ZERO, TWO, THREE].into_iter().flat_map(str::split_whitespace).collect();
    codes.sort_unstable();
    codes.into_iter()
}

/// Active ISO 4217 codes with their minor-unit digits (source: ISO 4217 list one; funds and metals left out).
pub fn currency_digits(code: &str) -> Option<u8> {
    if code.len() != 3 || !code.bytes().all(|it| it.is_ascii_uppercase()) {
        return None;
    }
    let within = |list: &str| list.split(' ').any(|it| it == code);
    if within(TWO) {
        Some(2)
    } else if within(ZERO) {
        Some(0)
    } else if within(THREE) {
        Some(3)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn halves_go_to_even() {
        assert_eq!(share(5, 1, 2), 2);
        assert_eq!(share(7, 1, 2), 4);
        assert_eq!(rate(250, 2_000), 50);
        assert_eq!(share(-5, 1, 2), -2);
    }

    #[test]
    fn currencies_are_the_listed_ones() {
        assert_eq!(currency_digits("GBP"), Some(2));
        assert_eq!(currency_digits("JPY"), Some(0));
        assert_eq!(currency_digits("KWD"), Some(3));
        assert!(currencies().all(|it| currency_digits(it).is_some()) && currencies().count() > 150);
        assert_eq!(currency_digits("gbp"), None);
        assert_eq!(currency_digits("XYZ"), None);
        assert_eq!(currency_digits(" GB"), None);
    }

    proptest! {
        #[test]
        fn parts_sum_to_the_whole(amount in 0i64..AMOUNT_MINOR_MAX, weights in prop::collection::vec(0i64..1_000_000, 1..50)) {
            let parts = split(amount, &weights);
            prop_assert_eq!(parts.iter().sum::<i64>(), amount);
            prop_assert!(parts.iter().all(|it| *it >= 0));
        }
    }
}
