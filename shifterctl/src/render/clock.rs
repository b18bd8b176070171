//! Times of day.

use super::{View, number};

/// Seconds that local time is ahead of UTC at a Unix time in seconds.
pub type Zone = fn(i64) -> i64;

/// A date and a time of day.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Local {
    year: i64,
    month: i64,
    day: i64,
    second_of_day: i64,
}

impl View {
    /// `14:03:22`, with the date in front if that is not today.
    pub fn time(&self, unix_ms: u64) -> String {
        let (then, now) = (self.local(unix_ms), self.local(self.now_unix_ms));
        if (then.year, then.month, then.day) == (now.year, now.month, now.day) {
            return then.time();
        }
        self.date_time(unix_ms)
    }

    /// `2026-11-21 14:03:22`.
    pub fn date_time(&self, unix_ms: u64) -> String {
        let then = self.local(unix_ms);
        let time = then.time();
        format!("{:04}-{:02}-{:02} {time}", then.year, then.month, then.day)
    }

    /// How long ago: `12 s`. Zero if the host's clock was set back since.
    pub fn age(&self, unix_ms: u64) -> String {
        number::span(self.now_unix_ms.saturating_sub(unix_ms))
    }

    fn local(&self, unix_ms: u64) -> Local {
        // Years past 200 million do not fit; such a stamp is shown wrong rather than not at all.
        let utc_s = i64::try_from(unix_ms / 1_000).unwrap_or(i64::MAX / 2);
        let local_s = utc_s.saturating_add((self.zone)(utc_s));
        let (year, month, day) = civil(local_s.div_euclid(86_400));
        Local {
            year,
            month,
            day,
            second_of_day: local_s.rem_euclid(86_400),
        }
    }
}

impl Local {
    fn time(&self) -> String {
        let second = self.second_of_day;
        format!(
            "{:02}:{:02}:{:02}",
            second / 3_600,
            second / 60 % 60,
            second % 60
        )
    }
}

/// Year, month and day of a count of days since 1970-01-01 in the Gregorian calendar. Years start
/// in March here, so that the leap day is the last of its year.
fn civil(days: i64) -> (i64, i64, i64) {
    const ERA_DAYS: i64 = 146_097;
    let from_march_of_0 = days + 719_468;
    let era = from_march_of_0.div_euclid(ERA_DAYS);
    let day_of_era = from_march_of_0.rem_euclid(ERA_DAYS);
    let leaps = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leaps) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        let rows = [
            (0, (1970, 1, 1)),
            (-1, (1969, 12, 31)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (789, (1972, 2, 29)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_776, (2026, 11, 19)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ];
        for (days, date) in rows {
            assert_eq!(civil(days), date, "{days}");
        }
        // Each day is the one after the day before.
        let mut before = civil(-200_000);
        for days in -199_999..200_000 {
            let date = civil(days);
            let next_day = (before.0, before.1, before.2 + 1);
            let next_month = (before.0, before.1 + 1, 1);
            let next_year = (before.0 + 1, 1, 1);
            assert!(
                [next_day, next_month, next_year].contains(&date),
                "{before:?} {date:?}"
            );
            before = date;
        }
    }

    #[test]
    fn times_are_local_and_dated_unless_today() {
        let view = View {
            color: false,
            now_unix_ms: 1_700_000_000_000,
            zone: |_| 3_600,
        };
        // 2023-11-14 22:13:20 UTC
        assert_eq!(view.time(1_700_000_000_000), "23:13:20");
        assert_eq!(
            view.time(1_700_000_000_000 - 86_400_000),
            "2023-11-13 23:13:20"
        );
        // The next day has begun here, not yet in UTC.
        assert_eq!(view.time(1_700_004_000_000), "2023-11-15 00:20:00");
        assert_eq!(view.time(0), "1970-01-01 01:00:00");
        let west = View {
            zone: |_| -10 * 3_600,
            ..view
        };
        assert_eq!(west.time(0), "1969-12-31 14:00:00");
        // No time stamp makes it panic.
        assert!(!west.time(u64::MAX).is_empty());
    }

    #[test]
    fn a_clock_that_was_set_back_gives_no_age() {
        let view = View {
            color: false,
            now_unix_ms: 10_000,
            zone: |_| 0,
        };
        assert_eq!(view.age(4_000), "6 s");
        assert_eq!(view.age(12_000), "0 s");
    }
}
