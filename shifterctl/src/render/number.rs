//! Counts, shares and spans for people.

/// A count in at most six columns: exact up to 99999, then three or four digits.
pub fn count(n: u64) -> String {
    const UNITS: [(u64, &str); 5] = [
        (1_000_000_000_000_000_000, "E"),
        (1_000_000_000_000_000, "P"),
        (1_000_000_000_000, "T"),
        (1_000_000_000, "G"),
        (1_000_000, "M"),
    ];
    for (unit, name) in UNITS {
        if n >= unit {
            let tenths = n / (unit / 10);
            return match tenths {
                ..1000 => format!("{}.{}{name}", tenths / 10, tenths % 10),
                _ => format!("{}{name}", tenths / 10),
            };
        }
    }
    if n >= 100_000 {
        format!("{}k", n / 1_000)
    } else {
        n.to_string()
    }
}

/// A count with its noun: `1 flow`, `2 flows`.
pub fn counted(n: u64, noun: &str) -> String {
    if n == 1 {
        format!("1 {noun}")
    } else {
        format!("{} {noun}s", count(n))
    }
}

/// A part of a whole, to a tenth of a percent; `-` if there is no whole.
pub fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".into();
    }
    format!("{:.1} %", 100.0 * part as f64 / whole as f64)
}

/// How long something took.
pub fn took(ns: u64) -> String {
    let real = ns as f64;
    match ns {
        ..1_000 => format!("{ns} ns"),
        1_000..10_000 => format!("{:.1} µs", real / 1e3),
        10_000..1_000_000 => format!("{} µs", ns / 1_000),
        1_000_000..10_000_000 => format!("{:.1} ms", real / 1e6),
        10_000_000..1_000_000_000 => format!("{} ms", ns / 1_000_000),
        1_000_000_000..60_000_000_000 => format!("{:.1} s", real / 1e9),
        _ => span(ns / 1_000_000),
    }
}

/// A time that has passed, in its two largest units.
pub fn span(ms: u64) -> String {
    let seconds = ms / 1_000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let two = |large: u64, name: &str, small: u64, less: &str| match small {
        0 => format!("{large} {name}"),
        _ => format!("{large} {name} {small} {less}"),
    };
    match seconds {
        ..60 => format!("{seconds} s"),
        60..3_600 => two(minutes, "min", seconds % 60, "s"),
        3_600..86_400 => two(hours, "h", minutes % 60, "min"),
        _ => two(days, "d", hours % 24, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_short() {
        let rows = [
            (0, "0"),
            (99_999, "99999"),
            (100_000, "100k"),
            (999_999, "999k"),
            (1_000_000, "1.0M"),
            (99_950_000, "99.9M"),
            (100_000_000, "100M"),
            (12_345_678_901, "12.3G"),
            (999_999_999_999, "999G"),
            (1_000_000_000_000, "1.0T"),
            (u64::MAX, "18.4E"),
        ];
        for (n, text) in rows {
            assert_eq!(count(n), text);
            assert!(count(n).len() <= 6);
        }
        assert_eq!(counted(1, "flow"), "1 flow");
        assert_eq!(counted(0, "flow"), "0 flows");
    }

    #[test]
    fn shares_have_a_tenth() {
        assert_eq!(share(1, 3), "33.3 %");
        assert_eq!(share(0, 7), "0.0 %");
        assert_eq!(share(7, 7), "100.0 %");
        assert_eq!(share(0, 0), "-");
    }

    #[test]
    fn times_have_the_unit_that_tells() {
        let rows = [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_500, "1.5 µs"),
            (41_000, "41 µs"),
            (999_999, "999 µs"),
            (1_240_000, "1.2 ms"),
            (342_000_000, "342 ms"),
            (1_500_000_000, "1.5 s"),
            (61_000_000_000, "1 min 1 s"),
        ];
        for (ns, text) in rows {
            assert_eq!(took(ns), text);
        }
        let rows = [
            (0, "0 s"),
            (59_999, "59 s"),
            (60_000, "1 min"),
            (3_599_000, "59 min 59 s"),
            (3_600_000, "1 h"),
            (11_040_000, "3 h 4 min"),
            (86_400_000, "1 d"),
            (273_600_000, "3 d 4 h"),
        ];
        for (ms, text) in rows {
            assert_eq!(span(ms), text);
        }
    }
}
