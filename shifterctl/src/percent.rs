//! Percentages as people write them.

const RIGHT: &str = "help: write 5, 0.5% or 12.34";

/// Basis points of a percentage: `5`, `5%`, `0.5 %`, `12.34`.
///
/// # Errors
/// What is wrong and, on a line that starts with `help:`, what would be right.
pub fn parse(text: &str) -> Result<u16, String> {
    let number = text.trim();
    let number = number.strip_suffix('%').unwrap_or(number).trim_end();
    if number.contains(',') {
        return Err(format!(
            "a decimal comma\nhelp: write {}",
            number.replace(',', ".")
        ));
    }
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let negative = number.starts_with('-') && digits(whole.trim_start_matches('-'));
    if negative && digits(fraction) && number.len() > 1 {
        return Err("less than 0 %\nhelp: the weight is 0 to 100 %".into());
    }
    if whole.is_empty() || !digits(whole) || !digits(fraction) || number.ends_with('.') {
        return Err(format!("not a percentage\n{RIGHT}"));
    }
    let fraction = fraction.trim_end_matches('0');
    let too_much = || "more than 100 %\nhelp: the weight is 0 to 100 %".to_owned();
    let whole: u32 = whole.parse().map_err(|_| too_much())?;
    let two: String = fraction.chars().chain("00".chars()).take(2).collect();
    let hundredths: u32 = two
        .parse()
        .map_err(|_| format!("not a percentage\n{RIGHT}"))?;
    let bp = whole
        .checked_mul(100)
        .and_then(|bp| bp.checked_add(hundredths));
    let bp = bp.filter(|bp| *bp <= 10_000).ok_or_else(too_much)?;
    if fraction.len() > 2 {
        if bp == 10_000 {
            return Err(too_much());
        }
        let (below, above) = (show(bp), show(bp + 1));
        return Err(format!("finer than 0.01 %\nhelp: write {below} or {above}"));
    }
    u16::try_from(bp).map_err(|_| too_much())
}

/// A percentage without its sign: `5`, `0.5`, `12.34`.
fn show(bp: u32) -> String {
    match (bp / 100, bp % 100) {
        (whole, 0) => format!("{whole}"),
        (whole, part) if part % 10 == 0 => format!("{whole}.{}", part / 10),
        (whole, part) => format!("{whole}.{part:02}"),
    }
}

/// Basis points for people: `5 %`, `0.5 %`, `12.34 %`.
pub fn of_bp(bp: u16) -> String {
    format!("{} %", show(bp.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_become_basis_points() {
        let rows = [
            ("0", 0),
            ("5", 500),
            ("5%", 500),
            ("5 %", 500),
            (" 5 % ", 500),
            ("05", 500),
            ("0.5%", 50),
            ("0.05", 5),
            ("0.01", 1),
            ("12.34", 1234),
            ("12.3", 1230),
            ("12.3400", 1234),
            ("99.99%", 9999),
            ("100", 10_000),
            ("100.00%", 10_000),
        ];
        for (text, bp) in rows {
            assert_eq!(parse(text), Ok(bp), "{text}");
        }
    }

    #[test]
    fn others_are_refused_with_what_would_be_right() {
        let rows = [
            ("", "not a percentage\nhelp: write 5, 0.5% or 12.34"),
            ("%", "not a percentage\nhelp: write 5, 0.5% or 12.34"),
            ("abc", "not a percentage\nhelp: write 5, 0.5% or 12.34"),
            ("5%%", "not a percentage\nhelp: write 5, 0.5% or 12.34"),
            ("5.", "not a percentage\nhelp: write 5, 0.5% or 12.34"),
            (".5", "not a percentage\nhelp: write 5, 0.5% or 12.34"),
            ("1.2.3", "not a percentage\nhelp: write 5, 0.5% or 12.34"),
            ("+5", "not a percentage\nhelp: write 5, 0.5% or 12.34"),
            ("1e1", "not a percentage\nhelp: write 5, 0.5% or 12.34"),
            ("-", "not a percentage\nhelp: write 5, 0.5% or 12.34"),
            ("--5", "less than 0 %\nhelp: the weight is 0 to 100 %"),
            ("٥", "not a percentage\nhelp: write 5, 0.5% or 12.34"),
            ("0,5", "a decimal comma\nhelp: write 0.5"),
            ("-5", "less than 0 %\nhelp: the weight is 0 to 100 %"),
            ("-0.5%", "less than 0 %\nhelp: the weight is 0 to 100 %"),
            ("100.01", "more than 100 %\nhelp: the weight is 0 to 100 %"),
            ("100.001", "more than 100 %\nhelp: the weight is 0 to 100 %"),
            ("500", "more than 100 %\nhelp: the weight is 0 to 100 %"),
            (
                "99999999999999999999",
                "more than 100 %\nhelp: the weight is 0 to 100 %",
            ),
            (
                "42949672.96",
                "more than 100 %\nhelp: the weight is 0 to 100 %",
            ),
            ("12.345", "finer than 0.01 %\nhelp: write 12.34 or 12.35"),
            ("0.001%", "finer than 0.01 %\nhelp: write 0 or 0.01"),
            ("99.999", "finer than 0.01 %\nhelp: write 99.99 or 100"),
        ];
        for (text, message) in rows {
            assert_eq!(parse(text), Err(message.into()), "{text}");
        }
    }

    #[test]
    fn what_is_shown_can_be_typed() {
        for bp in 0..=10_000 {
            assert_eq!(parse(&of_bp(bp)), Ok(bp));
        }
        assert_eq!(of_bp(500), "5 %");
        assert_eq!(of_bp(50), "0.5 %");
        assert_eq!(of_bp(1234), "12.34 %");
        assert_eq!(of_bp(1), "0.01 %");
    }
}
