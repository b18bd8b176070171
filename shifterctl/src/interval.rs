//! Times as people write them.

use std::time::Duration;

const RIGHT: &str = "help: write 500ms, 2s or 1m (10ms to 24h)";

/// A time with its unit: `500ms`, `2s`, `0.5s`, `1m`, `1h`; a bare number is seconds.
///
/// # Errors
/// What is wrong and, on a line that starts with `help:`, what would be right.
pub fn parse(text: &str) -> Result<Duration, String> {
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit_ms = match unit.trim() {
        "ms" => 1.0,
        "" | "s" => 1_000.0,
        "m" | "min" => 60_000.0,
        "h" => 3_600_000.0,
        _ => return Err(format!("not a time\n{RIGHT}")),
    };
    let number: f64 = number.parse().map_err(|_| format!("not a time\n{RIGHT}"))?;
    let ms = number * unit_ms;
    if ms < 10.0 {
        return Err(format!("too short\n{RIGHT}"));
    }
    if ms > 24.0 * 3_600_000.0 {
        return Err(format!("too long\n{RIGHT}"));
    }
    Ok(Duration::from_micros((ms * 1_000.0).round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        let rows = [
            ("500ms", 500),
            ("1s", 1_000),
            ("1", 1_000),
            ("0.5", 500),
            ("2.5 s", 2_500),
            ("1m", 60_000),
            ("1min", 60_000),
            ("24h", 86_400_000),
            ("10ms", 10),
        ];
        for (text, ms) in rows {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn others_are_refused_with_what_would_be_right() {
        let right = "help: write 500ms, 2s or 1m (10ms to 24h)";
        let rows = [
            ("", "not a time"),
            ("s", "not a time"),
            ("fast", "not a time"),
            ("-1s", "not a time"),
            ("1.2.3s", "not a time"),
            ("5 weeks", "not a time"),
            ("0", "too short"),
            ("9ms", "too short"),
            ("25h", "too long"),
            ("99999999999999999999999999h", "too long"),
        ];
        for (text, message) in rows {
            assert_eq!(parse(text), Err(format!("{message}\n{right}")), "{text}");
        }
    }
}
