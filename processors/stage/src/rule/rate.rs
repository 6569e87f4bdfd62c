//! Rates as rules spell them: decimal strings, exact to a basis point.

use tillstream_schemas::Text;

/// The highest rate: 1,000 %.
pub const RATE_BP_MAX: i32 = 100_000;

/// A rate in basis points as a decimal string: 2,000 is "0.2".
pub fn rate_text(rate_bp: i32) -> Text {
    let (whole, rest) = (rate_bp / 10_000, (rate_bp % 10_000).unsigned_abs());
    if rest == 0 {
        return whole.to_string().into();
    }
    let sign = if rate_bp < 0 && whole == 0 { "-" } else { "" };
    Text::from(format!("{sign}{whole}.{rest:04}").trim_end_matches('0'))
}

/// A decimal string as basis points; `None` when it is no number from 0 to 10 with at most four places.
pub fn parse_rate(text: &str) -> Option<i32> {
    let (whole, places) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |it: &str, most: usize| {
        (1..=most).contains(&it.len()) && it.bytes().all(|byte| byte.is_ascii_digit())
    };
    if !digits(whole, 2) || !digits(places, 4) {
        return None;
    }
    let scale = 10_i32.pow(4 - u32::try_from(places.len()).ok()?);
    let rate_bp = whole.parse::<i32>().ok()? * 10_000 + places.parse::<i32>().ok()? * scale;
    (rate_bp <= RATE_BP_MAX).then_some(rate_bp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rate_survives_its_text() {
        for rate_bp in 0..=RATE_BP_MAX {
            assert_eq!(parse_rate(&rate_text(rate_bp)), Some(rate_bp));
        }
        assert_eq!(rate_text(2_000), "0.2");
        assert_eq!(rate_text(0), "0");
        assert_eq!(parse_rate("0.0550"), Some(550));
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in
            ["", ".", "0.", ".2", "-0.1", "+1", "1e1", "NaN", "0.12345", "10.0001", "11", "100", "0,2", " 1"]
        {
            assert_eq!(parse_rate(text), None, "{text}");
        }
    }
}
