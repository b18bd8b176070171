//! What libtest prints, read back into numbers and names.

/// The numbers of all test binaries of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed_count: usize,
    /// Tests that failed.
    pub failed_count: usize,
    /// Tests marked `#[ignore]`.
    pub ignored_count: usize,
    /// The failed tests that are named.
    pub failures: Vec<Failure>,
    /// The ignored tests that are named.
    pub ignored: Vec<Ignored>,
}

/// A failed test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its path.
    pub name: String,
    /// What it printed.
    pub output: String,
}

impl Failure {
    /// Why the test could not run here, if that is why it failed: a test says so by panicking
    /// with a message that begins with `cannot run: `.
    pub fn obstacle(&self) -> Option<&str> {
        self.output
            .lines()
            .find_map(|line| line.trim().strip_prefix("cannot run: "))
    }
}

/// An ignored test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// Its path.
    pub name: String,
    /// The reason in its attribute.
    pub reason: Option<String>,
}

impl Tally {
    /// Reads the output of any number of test binaries, mixed with whatever cargo said.
    pub fn parse(log: &str) -> Self {
        let mut tally = Self::default();
        let mut lines = log.lines().peekable();
        let mut outputs: Vec<Failure> = Vec::new();
        while let Some(line) = lines.next() {
            if let Some(numbers) = line.strip_prefix("test result: ") {
                tally.add(numbers);
                tally.failures.append(&mut outputs);
            } else if let Some(ignored) = ignored(line) {
                tally.ignored.push(ignored);
            } else if let Some(name) = output_heading(line) {
                let mut output = String::new();
                // The section ends where the next begins, or before the closing list of names.
                while let Some(next) =
                    lines.next_if(|next| output_heading(next).is_none() && *next != "failures:")
                {
                    output.push_str(next);
                    output.push('\n');
                }
                outputs.push(Failure {
                    name: name.to_owned(),
                    output: output.trim_end().to_owned(),
                });
            } else if line == "failures:" {
                // The closing list names also what printed nothing.
                while let Some(next) = lines.next_if(|next| next.starts_with("    ")) {
                    let name = next.trim();
                    if !outputs.iter().any(|failure| failure.name == name) {
                        outputs.push(Failure {
                            name: name.to_owned(),
                            output: String::new(),
                        });
                    }
                }
            }
        }
        tally
    }

    /// Adds `ok. 3 passed; 0 failed; …`.
    fn add(&mut self, numbers: &str) {
        for part in numbers.split([';', '.']) {
            let mut words = part.split_whitespace();
            let (Some(number), Some(kind)) = (words.next(), words.next()) else {
                continue;
            };
            let Ok(number) = number.parse::<usize>() else {
                continue;
            };
            match kind {
                "passed" => self.passed_count += number,
                "failed" => self.failed_count += number,
                "ignored" => self.ignored_count += number,
                _ => {}
            }
        }
    }
}

/// `test NAME ... ignored, REASON`
fn ignored(line: &str) -> Option<Ignored> {
    let (name, ending) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let reason = ending.trim().strip_prefix("ignored")?;
    let reason = reason.strip_prefix(", ").map(str::to_owned);
    Some(Ignored {
        name: name.to_owned(),
        reason,
    })
}

/// `---- NAME stdout ----`
fn output_heading(line: &str) -> Option<&str> {
    line.strip_prefix("---- ")?.strip_suffix(" stdout ----")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIXED: &str = "\
   Compiling shifter-common v0.1.0
     Running unittests src/lib.rs (target/debug/deps/a-1)

running 4 tests
test one ... ok
test two::works ... FAILED
test slow ... ignored, takes an hour
test src/lib.rs - parse (line 3) ... ignored

failures:

---- two::works stdout ----
thread 'two::works' panicked at a.rs:1:1:
cannot run: no CAP_BPF
note: run with `RUST_BACKTRACE=1`


failures:
    two::works

test result: FAILED. 1 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s

     Running tests/b.rs (target/debug/deps/b-1)

running 2 tests
test three ... ok
test four ... ok

test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 5 filtered out; finished in 1.25s
error: 1 target failed:
";

    #[test]
    fn numbers_of_all_binaries_are_added_up() {
        let ok = "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        let rows = [
            ("", (0, 0, 0)),
            ("error: could not compile `shifter-common`", (0, 0, 0)),
            ("test result", (0, 0, 0)),
            (
                "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out",
                (0, 0, 0),
            ),
            (ok, (12, 0, 0)),
            (MIXED, (3, 1, 2)),
        ];
        for (log, expected) in rows {
            let tally = Tally::parse(log);
            let got = (tally.passed_count, tally.failed_count, tally.ignored_count);
            assert_eq!(got, expected, "{log}");
        }
    }

    #[test]
    fn failures_keep_their_names_and_words() {
        let tally = Tally::parse(MIXED);
        assert_eq!(tally.failures.len(), 1);
        assert_eq!(tally.failures[0].name, "two::works");
        assert_eq!(tally.failures[0].obstacle(), Some("no CAP_BPF"));
        assert!(
            tally.failures[0]
                .output
                .starts_with("thread 'two::works' panicked")
        );
        assert!(tally.failures[0].output.ends_with("RUST_BACKTRACE=1`"));
    }

    #[test]
    fn a_failure_without_output_is_named_too() {
        let log = "failures:\n\nfailures:\n    quiet\n    other\n\n\
                   test result: FAILED. 0 passed; 2 failed; 0 ignored; 0 measured\n";
        let names: Vec<_> = Tally::parse(log)
            .failures
            .into_iter()
            .map(|f| f.name)
            .collect();
        assert_eq!(names, ["quiet", "other"]);
    }

    #[test]
    fn ignored_tests_keep_their_reason() {
        let expected = [
            Ignored {
                name: "slow".to_owned(),
                reason: Some("takes an hour".to_owned()),
            },
            Ignored {
                name: "src/lib.rs - parse (line 3)".to_owned(),
                reason: None,
            },
        ];
        assert_eq!(Tally::parse(MIXED).ignored, expected);
    }

    #[test]
    fn a_failure_that_could_run_has_no_obstacle() {
        let failure = Failure {
            name: "a".to_owned(),
            output: "assertion failed".to_owned(),
        };
        assert_eq!(failure.obstacle(), None);
    }
}
