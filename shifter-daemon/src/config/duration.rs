//! Durations as strings: `"500ms"`, `"1s"`, `"5m"`, `"2h"`.

use std::time::Duration;

/// Units and their length in milliseconds, longest first.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// There is no number in front.
    #[error("has no number")]
    NoNumber,
    /// The number has a sign.
    #[error("has a sign")]
    Signed,
    /// The number is not whole.
    #[error("is not a whole number of its unit")]
    Fraction,
    /// There is no unit.
    #[error("has no unit")]
    NoUnit,
    /// What follows the number is not one of the units.
    #[error("has an unknown unit")]
    UnknownUnit,
    /// It does not fit 64 bits of milliseconds.
    #[error("is too long")]
    TooLong,
}

/// Parses a whole number and a unit (ms, s, m, h) with nothing between, before or behind them.
///
/// # Errors
/// What is wrong, to be read after the text: "5" *has no unit*.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    if text.starts_with(['-', '+']) {
        return Err(DurationError::Signed);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(DurationError::NoNumber);
    }
    if unit.is_empty() {
        return Err(DurationError::NoUnit);
    }
    if unit.starts_with(['.', ',']) {
        return Err(DurationError::Fraction);
    }
    let unit_ms = UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or(DurationError::UnknownUnit)?
        .1;
    let count: u64 = number.parse().map_err(|_| DurationError::TooLong)?;
    count
        .checked_mul(unit_ms)
        .map(Duration::from_millis)
        .ok_or(DurationError::TooLong)
}

/// The duration with the longest unit that leaves a whole number. Parts of a millisecond are cut.
pub fn format_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    for (unit, unit_ms) in UNITS {
        let unit_ms = u128::from(unit_ms);
        if ms > 0 && ms.is_multiple_of(unit_ms) {
            return format!("{}{unit}", ms / unit_ms);
        }
    }
    "0s".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_of_every_unit() {
        for (text, ms, formatted) in [
            ("500ms", 500, "500ms"),
            ("1500ms", 1_500, "1500ms"),
            ("1s", 1_000, "1s"),
            ("90s", 90_000, "90s"),
            ("60s", 60_000, "1m"),
            ("5m", 300_000, "5m"),
            ("2h", 7_200_000, "2h"),
            ("0h", 0, "0s"),
            ("007s", 7_000, "7s"),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(ms)),
                "{text}"
            );
            assert_eq!(format_duration(Duration::from_millis(ms)), formatted);
        }
    }

    #[test]
    fn what_is_no_duration_says_why() {
        for (text, why) in [
            ("", "has no number"),
            ("s", "has no number"),
            (" 5s", "has no number"),
            ("-5s", "has a sign"),
            ("+5s", "has a sign"),
            ("1.5s", "is not a whole number of its unit"),
            ("1,5s", "is not a whole number of its unit"),
            ("5", "has no unit"),
            ("5 s", "has an unknown unit"),
            ("5d", "has an unknown unit"),
            ("5S", "has an unknown unit"),
            ("1m30s", "has an unknown unit"),
            ("5s ", "has an unknown unit"),
            ("٣s", "has no number"),
            ("99999999999999999999s", "is too long"),
            ("18446744073709551615h", "is too long"),
        ] {
            let error = parse_duration(text).expect_err(text);
            assert_eq!(error.to_string(), why, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_formatted_parses_to_the_same(ms: u64) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            if let Ok(duration) = parse_duration(&text) {
                prop_assert!(text.len() <= 25 || text.starts_with('0'), "{duration:?}");
            }
        }
    }
}
