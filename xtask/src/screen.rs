//! What people see: one line per fact, colour only where a terminal reads it.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

/// Columns that a line of output may fill.
const COLUMNS: usize = 80;
/// Where facts begin: behind the column of subjects.
const INDENT: usize = 13;
/// A step that takes less than this is not worth a progress line.
const FIRST_PROGRESS: Duration = Duration::from_secs(1);
/// How often a terminal's progress line is redrawn.
const REDRAW: Duration = Duration::from_millis(500);
/// How often progress is told where there is no terminal to redraw.
const RETELL: Duration = Duration::from_secs(20);

/// What a line of output says about its subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It is there, or it worked.
    Good,
    /// It is missing, or it is being changed.
    Change,
    /// It failed.
    Bad,
}

/// True where escape sequences are welcome: a terminal, and `NO_COLOR` unset or empty.
fn colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && std::io::stdout().is_terminal()
}

/// `subject` in a column of its own, then `fact`, broken between words where it is too long.
pub fn line(mark: Mark, subject: &str, fact: &str) {
    let code = match mark {
        Mark::Good => "32",
        Mark::Change => "33",
        Mark::Bad => "31",
    };
    let subject = format!("{subject:<width$}", width = INDENT - 1);
    let fact = folded(fact);
    if colour() {
        println!("\x1b[{code}m{subject}\x1b[0m {fact}");
    } else {
        println!("{subject} {fact}");
    }
}

/// `text` in lines that fit beside the subjects. A word that is too long, such as a path, is
/// kept whole so that it can be copied.
fn folded(text: &str) -> String {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            let columns = line.chars().count() + 1 + word.chars().count();
            if !line.is_empty() && INDENT + columns > COLUMNS {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines.join(&format!("\n{:INDENT$}", ""))
}

/// A heading over the lines that follow it.
pub fn heading(text: &str) {
    if colour() {
        println!("\x1b[1m{text}\x1b[0m");
    } else {
        println!("{text}");
    }
}

/// The last lines of a log, indented, so that a failure is readable where it is reported.
pub fn excerpt(text: &str, lines_count: usize) {
    let lines: Vec<&str> = text.lines().collect();
    for line in &lines[lines.len().saturating_sub(lines_count)..] {
        println!("  | {line}");
    }
}

/// A duration the way a person says it.
pub fn seconds(took: Duration) -> String {
    let tenths = took.as_millis() / 100;
    match tenths {
        0..600 => format!("{}.{} s", tenths / 10, tenths % 10),
        _ => format!("{} min {:02} s", tenths / 600, tenths / 10 % 60),
    }
}

/// `text` cut to `columns` characters.
fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    let mut kept: String = text.chars().take(columns.saturating_sub(1)).collect();
    kept.push('…');
    kept
}

/// The progress of one step: redrawn in place on a terminal, told now and then elsewhere.
pub struct Progress {
    subject: String,
    begun: Instant,
    told: Option<Instant>,
    terminal: bool,
}

impl Progress {
    /// Begins at `now`; nothing is drawn before the step has lasted a second.
    pub fn new(subject: &str, now: Instant) -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self {
            subject: subject.to_owned(),
            begun: now,
            told: None,
            terminal,
        }
    }

    /// Draws the step's age and what it said last, if it is time to.
    pub fn tell(&mut self, now: Instant, last: &str) {
        let age = now.duration_since(self.begun);
        let pause = if self.terminal { REDRAW } else { RETELL };
        let since = self.told.map_or(age, |told| now.duration_since(told));
        let wait = if self.told.is_none() && self.terminal {
            FIRST_PROGRESS
        } else {
            pause
        };
        if since < wait {
            return;
        }
        self.told = Some(now);
        let clean: String = last.chars().filter(|c| !c.is_control()).collect();
        let text = format!("{:<12} … {}: {}", self.subject, seconds(age), clean.trim());
        let text = cut(text.trim_end_matches([':', ' ']), COLUMNS - 1);
        if self.terminal {
            print!("\r\x1b[K{text}");
            // A terminal that went away is not a reason to stop the step.
            let _ = std::io::stdout().flush();
        } else {
            println!("{text}");
        }
    }

    /// Clears the progress line.
    pub fn end(self) {
        if self.terminal && self.told.is_some() {
            print!("\r\x1b[K");
            let _ = std::io::stdout().flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_speech() {
        let rows = [
            (0, "0.0 s"),
            (1_250, "1.2 s"),
            (59_999, "59.9 s"),
            (60_000, "1 min 00 s"),
            (754_000, "12 min 34 s"),
        ];
        for (millis, expected) in rows {
            assert_eq!(
                seconds(Duration::from_millis(millis)),
                expected,
                "{millis} ms"
            );
        }
    }

    #[test]
    fn facts_are_folded_between_words() {
        let long = "x".repeat(90);
        let words = ["word"; 20].join(" ");
        let rows = [
            ("short", "short".to_owned()),
            ("two\nlines", format!("two\n{:13}lines", "")),
            (
                words.as_str(),
                format!(
                    "{}\n{:13}{}",
                    ["word"; 13].join(" "),
                    "",
                    ["word"; 7].join(" ")
                ),
            ),
            (long.as_str(), long.clone()),
        ];
        for (text, expected) in rows {
            assert_eq!(folded(text), expected);
        }
    }

    #[test]
    fn long_lines_are_cut_to_the_screen() {
        assert_eq!(cut("short", 10), "short");
        assert_eq!(cut("0123456789", 10), "0123456789");
        assert_eq!(cut("0123456789a", 10), "012345678…");
    }
}
