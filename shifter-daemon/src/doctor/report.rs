//! What the doctor found, for people and for programs.

use serde::{Deserialize, Serialize};

/// Columns the table fits in.
const WIDTH: usize = 80;
/// Columns of the status.
const STATUS_WIDTH: usize = 5;
/// Columns of a check's name: "interface " and the 15 characters an interface may have.
const NAME_WIDTH: usize = 26;

/// How a check ended, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// shifterd runs, but something may not go as expected.
    Warn,
    /// shifterd cannot run, or steered traffic will not arrive.
    Fail,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }

    fn colour(self) -> &'static str {
        match self {
            Self::Ok => "\x1b[32m",
            Self::Warn => "\x1b[33m",
            Self::Fail => "\x1b[31m",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How it ended.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What it is needed for.
    pub why: String,
    /// The command that mends it; empty if nothing is to be mended.
    pub remedy: String,
}

impl Check {
    /// A check that found what it should.
    pub fn ok(name: impl Into<String>, found: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            status: Status::Ok,
            found: found.into(),
            why: why.into(),
            remedy: String::new(),
        }
    }

    /// The same check as a warning, mended by `remedy`.
    #[must_use]
    pub fn warn(self, remedy: impl Into<String>) -> Self {
        Self {
            status: Status::Warn,
            remedy: remedy.into(),
            ..self
        }
    }

    /// The same check as a failure, mended by `remedy`.
    #[must_use]
    pub fn fail(self, remedy: impl Into<String>) -> Self {
        Self {
            status: Status::Fail,
            remedy: remedy.into(),
            ..self
        }
    }
}

/// All checks, in the order they are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The checks.
    pub checks: Vec<Check>,
}

impl Report {
    /// The worst status; `Ok` if nothing was checked.
    pub fn worst(&self) -> Status {
        self.checks
            .iter()
            .map(|check| check.status)
            .max()
            .unwrap_or(Status::Ok)
    }

    /// Whether something keeps shifterd from running or steered traffic from arriving.
    pub fn has_failures(&self) -> bool {
        self.worst() == Status::Fail
    }

    /// The report as a table of at most 80 columns (a single word that is longer stays whole), with
    /// a closing line of counts.
    pub fn render(&self) -> String {
        self.table(false)
    }

    /// As [`Report::render`], with terminal colours on the status.
    pub fn render_in_colour(&self) -> String {
        self.table(true)
    }

    fn table(&self, colour: bool) -> String {
        let mut text = String::new();
        for check in &self.checks {
            let word = format!("{:<STATUS_WIDTH$}", check.status.word());
            let status = if colour {
                format!("{}{word}\x1b[0m", check.status.colour())
            } else {
                word
            };
            let start = format!("{status}{:<NAME_WIDTH$} ", check.name);
            push_wrapped(
                &mut text,
                &start,
                STATUS_WIDTH + NAME_WIDTH + 1,
                &check.found,
            );
            if check.status != Status::Ok {
                push_wrapped(&mut text, "     why  ", 10, &check.why);
                push_wrapped(&mut text, "     fix  ", 10, &check.remedy);
            }
        }
        let count = |status| {
            self.checks
                .iter()
                .filter(|check| check.status == status)
                .count()
        };
        let (ok, warnings, failed) = (count(Status::Ok), count(Status::Warn), count(Status::Fail));
        let plural = if warnings == 1 { "" } else { "s" };
        text.push_str(&format!(
            "\n{ok} ok, {warnings} warning{plural}, {failed} failed\n"
        ));
        text
    }

    /// The report as JSON: `{"checks":[{"name","status":"ok|warn|fail","found","why","remedy"}]}`.
    ///
    /// # Errors
    /// Never with the types of this module; the writer's error otherwise.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }
}

/// Appends `start` and the words of `body`; further lines begin below the first word.
fn push_wrapped(text: &mut String, start: &str, indent: usize, body: &str) {
    text.push_str(start);
    let mut column = indent;
    for (index, word) in body.split_whitespace().enumerate() {
        let len = word.chars().count();
        if index > 0 && column + 1 + len > WIDTH {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else if index > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += len;
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let bpffs = Check::ok(
            "bpffs",
            "/sys/fs/bpf is not a BPF file system",
            "maps and programs are pinned there, so that the kernel keeps steering while the \
             daemon is away",
        );
        Report {
            checks: vec![
                Check::ok("kernel", "6.18.0", "shown only"),
                bpffs.clone().fail("mount -t bpf bpf /sys/fs/bpf"),
                Check {
                    name: "interface enp0s31f6np0".into(),
                    ..bpffs
                }
                .warn("ip link"),
            ],
        }
    }

    #[test]
    fn the_table_fits_80_columns() {
        let expected = "\
ok   kernel                     6.18.0
FAIL bpffs                      /sys/fs/bpf is not a BPF file system
     why  maps and programs are pinned there, so that the kernel keeps steering
          while the daemon is away
     fix  mount -t bpf bpf /sys/fs/bpf
warn interface enp0s31f6np0     /sys/fs/bpf is not a BPF file system
     why  maps and programs are pinned there, so that the kernel keeps steering
          while the daemon is away
     fix  ip link

1 ok, 1 warning, 1 failed
";
        assert_eq!(report().render(), expected);
        assert!(expected.lines().all(|line| line.chars().count() <= WIDTH));
    }

    #[test]
    fn wrapping_stops_at_the_80th_column() {
        let mut text = String::new();
        push_wrapped(&mut text, "12345", 5, &format!("{} bb", "a".repeat(72)));
        assert_eq!(text, format!("12345{} bb\n", "a".repeat(72)));
        text.clear();
        push_wrapped(&mut text, "12345", 5, &format!("{} bbb", "a".repeat(72)));
        assert_eq!(text, format!("12345{}\n     bbb\n", "a".repeat(72)));
        text.clear();
        push_wrapped(&mut text, "name  ", 6, "");
        assert_eq!(text, "name\n");
    }

    #[test]
    fn colour_is_on_the_status_alone() {
        let (plain, colour) = (report().render(), report().render_in_colour());
        assert!(!plain.contains('\x1b'));
        let stripped = ["\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[0m"]
            .iter()
            .fold(colour.clone(), |text, code| text.replace(code, ""));
        assert_eq!(stripped, plain);
        assert!(colour.contains("\x1b[31mFAIL \x1b[0mbpffs"));
    }

    #[test]
    fn json_names_every_part() {
        let json = report().to_json().unwrap_or_default();
        assert_eq!(serde_json::from_str::<Report>(&json).ok(), Some(report()));
        let value: serde_json::Value = serde_json::from_str(&json).unwrap_or_default();
        assert_eq!(value["checks"][1]["status"], "fail");
        assert_eq!(value["checks"][1]["remedy"], "mount -t bpf bpf /sys/fs/bpf");
        assert_eq!(value["checks"][0]["remedy"], "");
    }

    #[test]
    fn the_worst_status_counts() {
        assert_eq!(report().worst(), Status::Fail);
        assert!(report().has_failures());
        assert_eq!(Report::default().worst(), Status::Ok);
        assert!(!Report::default().has_failures());
    }
}
