//! What the demo shows, as lines of at most 80 columns.

use shifter_common::wire::Event;

use super::{
    load::Window,
    score::{Late, Score, shares},
};

/// Columns that no line exceeds.
pub const COLUMNS: usize = 80;
/// Columns of a bar that stands for the whole traffic.
const BAR_COLUMNS: u64 = 24;

/// Escape sequences, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ink {
    /// Whether to use them.
    pub colour: bool,
}

impl Ink {
    const FIRST: &str = "36";
    const SECOND: &str = "33";
    const GOOD: &str = "32";
    const BAD: &str = "31";
    const BOLD: &str = "1";

    fn with(self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// Text that should stand out.
    pub fn bold(self, text: &str) -> String {
        self.with(Self::BOLD, text)
    }

    /// A count that should be 0.
    fn failed(self, count: u64) -> String {
        let code = if count == 0 { Self::GOOD } else { Self::BAD };
        self.with(code, &format!("{} failed", grouped(count)))
    }
}

/// A second of the demo.
#[derive(Clone, Debug)]
pub struct Frame<'a> {
    /// Seconds of load so far.
    pub second: u64,
    /// The stretch it belongs to.
    pub score: &'a Score,
    /// What happened in it.
    pub window: &'a Window,
    /// Failed requests of all seconds.
    pub failed_count: u64,
}

/// The table that a terminal redraws each second.
pub fn live(frame: &Frame<'_>, ink: Ink) -> Vec<String> {
    let Frame { score, window, .. } = frame;
    let mut lines = vec![format!(
        "  version   asked       now  {:24}    so far     answers",
        ""
    )];
    let asked = [10_000 - score.asked_bp, score.asked_bp];
    let (now, so_far) = (shares(window.answered), shares(score.answered));
    for (index, code) in [Ink::FIRST, Ink::SECOND].into_iter().enumerate() {
        let bar = now.map_or(0, |now| (now[index] * BAR_COLUMNS + 5_000) / 10_000);
        let bar = format!("{:24}", "█".repeat(bar as usize));
        lines.push(format!(
            "  {:<7}  {:>6}  {:>8}  {}  {:>8}  {:>10}",
            index + 1,
            percent(asked[index]),
            share(now, index),
            ink.with(code, &bar),
            share(so_far, index),
            grouped(score.answered[index]),
        ));
    }
    lines.push(format!(
        "  {} s: {} requests/s, answers p50 {}, p99 {}, {} so far",
        frame.second,
        grouped(window.rate_per_s()),
        milliseconds(window.p50_us),
        milliseconds(window.p99_us),
        ink.failed(frame.failed_count),
    ));
    lines
}

/// The heading over [`line`]s.
pub fn heading() -> String {
    "   time  asked v2        v1        v2  requests/s  failed   p50 ms   p99 ms".to_owned()
}

/// The line a second leaves where there is no terminal.
pub fn line(frame: &Frame<'_>) -> String {
    let Frame {
        second,
        score,
        window,
        ..
    } = frame;
    let now = shares(window.answered);
    format!(
        "{second:>5} s  {:>8}  {:>8}  {:>8}  {:>10}  {:>6}  {:>7}  {:>7}",
        percent(score.asked_bp),
        share(now, 0),
        share(now, 1),
        grouped(window.rate_per_s()),
        grouped(window.failed_count),
        hundredths(window.p50_us),
        hundredths(window.p99_us),
    )
}

/// How shifterd took the second version out, in its own words and numbers.
pub fn taken_out(event: &Event, noticed_ms: u128, ink: Ink) -> Vec<String> {
    vec![
        ink.bold(&format!("by: {}, reason: {}", event.by, event.what)),
        format!("  {}", event.detail),
        format!(
            "  version 2's share of new connections: {} -> {}",
            percent(event.effective_before_bp),
            percent(event.effective_after_bp)
        ),
        format!(
            "  in the kernel {} after the first failed probe's answer",
            duration(event.took_ns)
        ),
        format!("  seen here {noticed_ms} ms after version 2 began to fail"),
    ]
}

/// What the closing summary tells.
#[derive(Clone, Debug)]
pub struct Summary<'a> {
    /// Each stretch of one weight.
    pub scores: &'a [Score],
    /// How the second version was taken out.
    pub event: &'a Event,
    /// Connections that it accepted nevertheless.
    pub late: Late,
    /// What the client saw in all.
    pub all: &'a Window,
}

/// The closing summary.
pub fn summary(summary: &Summary<'_>, ink: Ink) -> Vec<String> {
    let Summary {
        scores,
        event,
        late,
        all,
    } = summary;
    let mut lines = vec![
        ink.bold("Summary"),
        "  asked for version 2   version 1   version 2     answers".to_owned(),
    ];
    for score in *scores {
        let shares = shares(score.answered);
        let line = format!(
            "  {:>19}   {:>9}   {:>9}  {:>10}  {}",
            percent(score.asked_bp),
            share(shares, 0),
            share(shares, 1),
            grouped(score.answered.iter().sum()),
            score.remark,
        );
        lines.push(line.trim_end().to_owned());
    }
    lines.push(String::new());
    lines.push(format!(
        "rollback  by: {}, reason: {}, {} after the first failure",
        event.by,
        event.what,
        duration(event.took_ns)
    ));
    lines.push(match late.count {
        0 => "          version 2 accepted no connection after that".to_owned(),
        count => format!(
            "          version 2 accepted {} more, on their way already, the last {} ms later",
            grouped(count as u64),
            late.last_ms
        ),
    });
    lines.push(format!(
        "requests  {} sent, {}, answers p50 {}, p99 {}",
        grouped(all.sent_count),
        ink.failed(all.failed_count),
        milliseconds(all.p50_us),
        milliseconds(all.p99_us),
    ));
    lines.extend(
        all.examples
            .iter()
            .take(5)
            .map(|example| clipped(&format!("  {example}"))),
    );
    lines
}

/// A line cut to the screen.
pub fn clipped(text: &str) -> String {
    if text.chars().count() <= COLUMNS {
        return text.to_owned();
    }
    let mut kept: String = text.chars().take(COLUMNS - 1).collect();
    kept.push('…');
    kept
}

/// Basis points as people read them: `5 %`, `0.5 %`.
pub fn percent(bp: u16) -> String {
    match (bp / 100, bp % 100) {
        (whole, 0) => format!("{whole} %"),
        (whole, part) if part % 10 == 0 => format!("{whole}.{} %", part / 10),
        (whole, part) => format!("{whole}.{part:02} %"),
    }
}

/// An observed share, always with two digits; `-` if nothing was observed.
fn share(shares: Option<[u64; 2]>, index: usize) -> String {
    shares.map_or_else(
        || "-".to_owned(),
        |shares| format!("{}.{:02} %", shares[index] / 100, shares[index] % 100),
    )
}

/// `12,345`
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Microseconds as milliseconds with two digits: `0.31`.
fn hundredths(us: u64) -> String {
    let hundredths = us.saturating_add(5) / 10;
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

fn milliseconds(us: u64) -> String {
    format!("{} ms", hundredths(us))
}

/// Nanoseconds as people say them: `87 µs`, `1.25 ms`, `2.5 s`.
fn duration(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{} µs", ns.saturating_add(500) / 1_000),
        1_000_000..1_000_000_000 => milliseconds(ns / 1_000),
        _ => format!("{}.{} s", ns / 1_000_000_000, ns / 100_000_000 % 10),
    }
}

#[cfg(test)]
mod tests {
    use shifter_common::wire::Slot;

    use super::*;

    const PLAIN: Ink = Ink { colour: false };

    fn window() -> Window {
        Window {
            window_ms: 1_001,
            sent_count: 2_002,
            answered: [1_499, 501],
            failed_count: 2,
            p50_us: 314,
            p99_us: 12_345,
            examples: vec![format!("10.1.0.2:40000, v2: Reset: {}", "long ".repeat(20))],
        }
    }

    fn event() -> Event {
        Event {
            seq: 9,
            unix_ms: 1_700_000_000_000,
            service: "demo".to_owned(),
            by: "shifterd".to_owned(),
            what: "not ready".to_owned(),
            slot: Some(Slot::B),
            detail: "slot b: 10.0.0.20:8082 answered 503".to_owned(),
            effective_before_bp: 2_500,
            effective_after_bp: 0,
            took_ns: 87_400,
        }
    }

    fn assert_fits(lines: &[String]) {
        for line in lines {
            assert!(line.chars().count() <= COLUMNS, "{line}");
        }
    }

    #[test]
    fn the_live_table_is_drawn() {
        let score = Score {
            answered: [4_480, 1_520],
            ..Score::new(2_500, "")
        };
        let window = window();
        let frame = Frame {
            second: 12,
            score: &score,
            window: &window,
            failed_count: 2,
        };
        let lines = live(&frame, PLAIN);
        let expected = "  version   asked       now                              so far     answers
  1          75 %   74.95 %  ██████████████████         74.67 %       4,480
  2          25 %   25.05 %  ██████                     25.33 %       1,520
  12 s: 1,998 requests/s, answers p50 0.31 ms, p99 12.35 ms, 2 failed so far";
        assert_eq!(lines.join("\n"), expected);
        assert_fits(&lines);
        let coloured = live(&frame, Ink { colour: true });
        assert!(coloured[1].contains("\x1b[36m██"), "{}", coloured[1]);
        assert!(coloured[2].contains("\x1b[33m██"), "{}", coloured[2]);
        assert!(
            coloured[3].contains("\x1b[31m2 failed\x1b[0m"),
            "{}",
            coloured[3]
        );
    }

    #[test]
    fn a_table_without_answers_has_no_shares() {
        let (score, window) = (Score::new(10_000, ""), Window::default());
        let frame = Frame {
            second: 1,
            score: &score,
            window: &window,
            failed_count: 0,
        };
        let lines = live(&frame, PLAIN);
        assert_eq!(
            lines[1],
            "  1           0 %         -                                   -           0"
        );
        assert_eq!(
            lines[2],
            "  2         100 %         -                                   -           0"
        );
    }

    #[test]
    fn each_second_is_a_line() {
        let score = Score::new(2_500, "");
        let window = window();
        let frame = Frame {
            second: 12,
            score: &score,
            window: &window,
            failed_count: 2,
        };
        let lines = [heading(), line(&frame)];
        let expected = "   time  asked v2        v1        v2  requests/s  failed   p50 ms   p99 ms
   12 s      25 %   74.95 %   25.05 %       1,998       2     0.31    12.35";
        assert_eq!(lines.join("\n"), expected);
        assert_fits(&lines);
    }

    #[test]
    fn the_rollback_is_told_in_the_events_words() {
        let lines = taken_out(&event(), 339, PLAIN);
        let expected = "by: shifterd, reason: not ready
  slot b: 10.0.0.20:8082 answered 503
  version 2's share of new connections: 25 % -> 0 %
  in the kernel 87 µs after the first failed probe's answer
  seen here 339 ms after version 2 began to fail";
        assert_eq!(lines.join("\n"), expected);
    }

    #[test]
    fn the_summary_closes() {
        let scores = [
            Score {
                answered: [10_004, 0],
                ..Score::new(0, "")
            },
            Score {
                answered: [9_503, 497],
                ..Score::new(500, "")
            },
            Score {
                answered: [10_001, 0],
                ..Score::new(2_500, "version 2 not ready")
            },
        ];
        let (event, mut all) = (
            event(),
            Window {
                sent_count: 66_012,
                ..window()
            },
        );
        let late = Late {
            count: 2,
            last_ms: 3,
        };
        let lines = summary(
            &Summary {
                scores: &scores,
                event: &event,
                late,
                all: &all,
            },
            PLAIN,
        );
        let expected = "Summary
  asked for version 2   version 1   version 2     answers
                  0 %    100.00 %      0.00 %      10,004
                  5 %     95.03 %      4.97 %      10,000
                 25 %    100.00 %      0.00 %      10,001  version 2 not ready

rollback  by: shifterd, reason: not ready, 87 µs after the first failure
          version 2 accepted 2 more, on their way already, the last 3 ms later
requests  66,012 sent, 2 failed, answers p50 0.31 ms, p99 12.35 ms
  10.1.0.2:40000, v2: Reset: long long long long long long long long long long …";
        assert_eq!(lines.join("\n"), expected);
        assert_fits(&lines);
        let longest = Event {
            took_ns: 999_990_000,
            ..event.clone()
        };
        let lines = summary(
            &Summary {
                scores: &scores,
                event: &longest,
                late,
                all: &all,
            },
            PLAIN,
        );
        assert!(lines[6].contains("999.99 ms"), "{}", lines[6]);
        assert_fits(&lines);
        all.examples.clear();
        all.failed_count = 0;
        let (late, all) = (Late::default(), &all);
        let lines = summary(
            &Summary {
                scores: &[],
                event: &event,
                late,
                all,
            },
            PLAIN,
        );
        assert_eq!(
            lines[4],
            "          version 2 accepted no connection after that"
        );
        assert_eq!(
            lines[5],
            "requests  66,012 sent, 0 failed, answers p50 0.31 ms, p99 12.35 ms"
        );
    }

    #[test]
    fn numbers_read_well() {
        let counts = [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ];
        for (count, expected) in counts {
            assert_eq!(grouped(count), expected);
        }
        let weights = [
            (0, "0 %"),
            (50, "0.5 %"),
            (1_234, "12.34 %"),
            (10_000, "100 %"),
        ];
        for (bp, expected) in weights {
            assert_eq!(percent(bp), expected);
        }
        let durations = [
            (0, "0 µs"),
            (87_499, "87 µs"),
            (999_499, "999 µs"),
            (1_250_000, "1.25 ms"),
            (250_000_000, "250.00 ms"),
            (2_560_000_000, "2.5 s"),
        ];
        for (ns, expected) in durations {
            assert_eq!(duration(ns), expected, "{ns}");
        }
    }
}
