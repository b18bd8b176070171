//! What the stages came to: numbers, reasons, and the closing line.

use std::time::Duration;

use super::libtest::Tally;

/// Lines of a failed test's output that the screen shows.
pub const OUTPUT_LINES: usize = 30;

/// What became of one stage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Tests that passed.
    pub passed_count: usize,
    /// One complaint for each test that failed.
    pub failures: Vec<Complaint>,
    /// What was allowed to be skipped, and was, with the reason.
    pub skips: Vec<Complaint>,
}

/// A test that did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The test, or the stage where the stage itself did not come to its tests.
    pub name: String,
    /// Why, in a line.
    pub reason: String,
    /// What it printed.
    pub output: String,
}

impl Complaint {
    /// A complaint without output.
    pub fn new(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            reason: reason.into(),
            output: String::new(),
        }
    }
}

impl Report {
    /// A stage that counts as one test and passed.
    pub fn passed() -> Self {
        Self {
            passed_count: 1,
            ..Self::default()
        }
    }

    /// A stage that failed as a whole.
    pub fn failed(complaint: Complaint) -> Self {
        Self {
            failures: vec![complaint],
            ..Self::default()
        }
    }

    /// A stage that could not run: a failure, unless it is allowed to be skipped.
    pub fn obstructed(stage: &str, reason: &str, allowed: &[String]) -> Self {
        let complaint = Complaint::new(stage, format!("cannot run: {reason}"));
        if allowed.iter().any(|name| name == stage) {
            return Self {
                skips: vec![complaint],
                ..Self::default()
            };
        }
        Self::failed(complaint)
    }

    /// Weighs libtest's numbers. Ignored tests and tests that could not run are failures unless
    /// they are allowed to be skipped; so is a stage that ran nothing, or whose process ended
    /// badly (`ending`) without any test to blame.
    pub fn of(stage: &str, tally: Tally, ending: Option<String>, allowed: &[String]) -> Self {
        let allowed = |name: &str| allowed.iter().any(|allowed| allowed == name);
        let mut report = Self {
            passed_count: tally.passed_count,
            ..Self::default()
        };
        let named_count = tally.failures.len();
        for failure in tally.failures {
            let skip = failure.obstacle().is_some() && allowed(&failure.name);
            let reason = match failure.obstacle() {
                Some(obstacle) => format!("cannot run: {obstacle}"),
                None => "failed".to_owned(),
            };
            let complaint = Complaint {
                name: failure.name,
                reason,
                output: failure.output,
            };
            if skip {
                &mut report.skips
            } else {
                &mut report.failures
            }
            .push(complaint);
        }
        for number in named_count..tally.failed_count {
            let name = format!("{stage}, failure {}", number + 1);
            report
                .failures
                .push(Complaint::new(name, "failed, and the log does not name it"));
        }
        let named_count = tally.ignored.len();
        for ignored in tally.ignored {
            let reason = ignored
                .reason
                .unwrap_or_else(|| "no reason given".to_owned());
            let skip = allowed(&ignored.name);
            let complaint = Complaint::new(ignored.name, format!("ignored: {reason}"));
            if skip {
                &mut report.skips
            } else {
                &mut report.failures
            }
            .push(complaint);
        }
        for number in named_count..tally.ignored_count {
            let name = format!("{stage}, ignored {}", number + 1);
            report.failures.push(Complaint::new(
                name,
                "ignored, and the log does not name it",
            ));
        }
        match ending {
            Some(ending) if tally.failed_count == 0 => {
                report.failures.push(Complaint::new(stage, ending));
            }
            None if report.passed_count + report.failures.len() + report.skips.len() == 0 => {
                report
                    .failures
                    .push(Complaint::new(stage, "ran no test at all"));
            }
            _ => {}
        }
        report
    }

    /// The stage's numbers in words.
    pub fn numbers(&self) -> String {
        numbers(self.passed_count, self.failures.len(), self.skips.len())
    }
}

/// `N passed, N failed`, and skips only where there are any.
pub fn numbers(passed_count: usize, failed_count: usize, skipped_count: usize) -> String {
    match skipped_count {
        0 => format!("{passed_count} passed, {failed_count} failed"),
        _ => format!("{passed_count} passed, {failed_count} failed, {skipped_count} skipped"),
    }
}

/// A stage's time against its budget.
pub fn time(took: Duration, budget: Duration) -> String {
    let time = format!("{} of {} s", crate::screen::seconds(took), budget.as_secs());
    if took > budget {
        format!("{time}: over budget")
    } else {
        time
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::libtest::{Failure, Ignored};

    fn tally() -> Tally {
        Tally {
            passed_count: 3,
            failed_count: 2,
            ignored_count: 1,
            failures: vec![
                Failure {
                    name: "broken".to_owned(),
                    output: "assertion failed".to_owned(),
                },
                Failure {
                    name: "obstructed".to_owned(),
                    output: "cannot run: no veth".to_owned(),
                },
            ],
            ignored: vec![Ignored {
                name: "slow".to_owned(),
                reason: Some("an hour".to_owned()),
            }],
        }
    }

    fn names(complaints: &[Complaint]) -> Vec<&str> {
        complaints
            .iter()
            .map(|complaint| complaint.name.as_str())
            .collect()
    }

    #[test]
    fn what_did_not_run_fails_unless_it_is_allowed() {
        let rows: [(&[&str], &[&str], &[&str]); 4] = [
            (&[], &["broken", "obstructed", "slow"], &[]),
            (&["slow"], &["broken", "obstructed"], &["slow"]),
            (
                &["obstructed", "slow"],
                &["broken"],
                &["obstructed", "slow"],
            ),
            // What ran and failed cannot be allowed away.
            (&["broken"], &["broken", "obstructed", "slow"], &[]),
        ];
        for (allowed, failed, skipped) in rows {
            let allowed: Vec<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
            let report = Report::of("unit", tally(), Some("exit code 101".to_owned()), &allowed);
            assert_eq!(report.passed_count, 3);
            assert_eq!(names(&report.failures), failed, "{allowed:?}");
            assert_eq!(names(&report.skips), skipped, "{allowed:?}");
        }
    }

    #[test]
    fn reasons_are_kept() {
        let report = Report::of("unit", tally(), None, &[]);
        let reasons: Vec<&str> = report.failures.iter().map(|f| f.reason.as_str()).collect();
        assert_eq!(
            reasons,
            ["failed", "cannot run: no veth", "ignored: an hour"]
        );
    }

    #[test]
    fn a_stage_without_tests_fails() {
        let one = Tally {
            passed_count: 1,
            ..Tally::default()
        };
        let failed = Tally {
            failed_count: 1,
            ..Tally::default()
        };
        let rows = [
            (Tally::default(), None, (0, vec!["ran no test at all"])),
            (
                Tally::default(),
                Some("exit code 101"),
                (0, vec!["exit code 101"]),
            ),
            (one.clone(), None, (1, vec![])),
            (
                one,
                Some("killed by signal 11"),
                (1, vec!["killed by signal 11"]),
            ),
            (
                failed,
                Some("exit code 101"),
                (0, vec!["failed, and the log does not name it"]),
            ),
        ];
        for (tally, ending, (passed, reasons)) in rows {
            let report = Report::of("unit", tally, ending.map(str::to_owned), &[]);
            assert_eq!(report.passed_count, passed);
            let got: Vec<&str> = report.failures.iter().map(|f| f.reason.as_str()).collect();
            assert_eq!(got, reasons, "{ending:?}");
        }
    }

    #[test]
    fn a_stage_that_cannot_run_fails_unless_it_is_allowed() {
        let allowed = ["e2e".to_owned()];
        let expected = Complaint::new("e2e", "cannot run: no root");
        let report = Report::obstructed("e2e", "no root", &[]);
        assert_eq!(
            (report.failures, report.skips.len()),
            (vec![expected.clone()], 0)
        );
        let report = Report::obstructed("e2e", "no root", &allowed);
        assert_eq!((report.failures.len(), report.skips), (0, vec![expected]));
    }

    #[test]
    fn closing_lines_are_exact() {
        let rows = [
            ((12, 0, 0), "12 passed, 0 failed"),
            ((0, 1, 0), "0 passed, 1 failed"),
            ((12, 1, 2), "12 passed, 1 failed, 2 skipped"),
        ];
        for ((passed, failed, skipped), expected) in rows {
            assert_eq!(numbers(passed, failed, skipped), expected);
        }
    }

    #[test]
    fn times_say_when_a_budget_is_exceeded() {
        let budget = Duration::from_secs(15);
        assert_eq!(time(Duration::from_secs(3), budget), "3.0 s of 15 s");
        assert_eq!(
            time(Duration::from_secs(16), budget),
            "16.0 s of 15 s: over budget"
        );
    }
}
