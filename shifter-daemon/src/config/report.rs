//! The problems found in one file.

use std::{collections::BTreeSet, ops::Range};

use shifter_common::wire::Diagnostic;

use super::place::{Lines, Place};

/// Problems shown for one file; more of them only hide the first.
pub(super) const SHOWN_MAX_COUNT: usize = 100;

/// Collects the problems of one file while it is walked.
#[derive(Debug)]
pub(super) struct Report<'t> {
    file: &'t str,
    lines: Lines<'t>,
    problems: Vec<Problem>,
    /// Lines the TOML parser stumbled over: what was read from there is a guess.
    guessed_lines: BTreeSet<u32>,
    /// From here on the structure is a guess.
    guessed_from: usize,
}

#[derive(Debug)]
struct Problem {
    at: Option<Range<usize>>,
    rests_on: RestsOn,
    message: String,
    help: String,
}

/// What a problem was concluded from, hence whether it holds if the TOML is broken elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RestsOn {
    /// The parser itself.
    Syntax,
    /// The value it points to.
    Value,
    /// The file as a whole: something is missing, too many, or does not fit together.
    Whole,
}

impl<'t> Report<'t> {
    pub fn new(file: &'t str, text: &'t str) -> Self {
        Self {
            file,
            lines: Lines::new(text),
            problems: Vec::new(),
            guessed_lines: BTreeSet::new(),
            guessed_from: usize::MAX,
        }
    }

    /// A problem of the value at this place, whatever the rest of the file says.
    pub fn value(
        &mut self,
        at: &Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.push(
            Some(at.clone()),
            RestsOn::Value,
            message.into(),
            help.into(),
        );
    }

    /// A problem that rests on more of the file than the place it is shown at, such as a key that
    /// is missing from the section there.
    pub fn whole(
        &mut self,
        at: Option<&Range<usize>>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.push(at.cloned(), RestsOn::Whole, message.into(), help.into());
    }

    /// A problem of the TOML parser. If `local`, it understood the rest of the file.
    pub fn syntax(&mut self, at: usize, local: bool, message: String, help: String) {
        let line = self.lines.line(at);
        if at >= self.guessed_from || !self.guessed_lines.insert(line) {
            return;
        }
        if !local {
            self.guessed_from = at;
        }
        self.push(Some(at..at), RestsOn::Syntax, message, help);
    }

    fn push(&mut self, at: Option<Range<usize>>, rests_on: RestsOn, message: String, help: String) {
        self.problems.push(Problem {
            at,
            rests_on,
            message,
            help,
        });
    }

    /// Whether nothing is wrong so far.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// The line something stands in.
    pub fn line(&self, at: &Range<usize>) -> u32 {
        self.lines.line(at.start)
    }

    /// The value if there was no problem, all problems in the order of their places otherwise.
    pub fn finish<T>(mut self, value: T) -> Result<T, Vec<Diagnostic>> {
        if self.problems.is_empty() {
            return Ok(value);
        }
        self.drop_guesses();
        self.problems
            .sort_by_key(|problem| problem.at.as_ref().map_or(usize::MAX, |at| at.start));
        let hidden = self.problems.len().saturating_sub(SHOWN_MAX_COUNT);
        let mut diagnostics: Vec<_> = self
            .problems
            .into_iter()
            .take(SHOWN_MAX_COUNT)
            .map(|problem| {
                let place = problem
                    .at
                    .map_or_else(Place::default, |at| self.lines.place(at.start));
                Diagnostic {
                    file: self.file.to_owned(),
                    line: place.line,
                    column: place.column,
                    message: problem.message,
                    help: problem.help,
                }
            })
            .collect();
        if hidden > 0 {
            diagnostics.push(not_shown(self.file, hidden));
        }
        Err(diagnostics)
    }

    /// Where the TOML is broken, the parser goes on with a guess. What was concluded from a guess
    /// would only confuse.
    fn drop_guesses(&mut self) {
        if self.guessed_lines.is_empty() {
            return;
        }
        let (lines, guessed_lines, guessed_from) =
            (&self.lines, &self.guessed_lines, self.guessed_from);
        self.problems
            .retain(|problem| match (problem.rests_on, &problem.at) {
                (RestsOn::Syntax, _) => true,
                (RestsOn::Value, Some(at)) => {
                    at.end < guessed_from && !guessed_lines.contains(&lines.line(at.start))
                }
                (RestsOn::Value, None) | (RestsOn::Whole, _) => false,
            });
    }
}

/// Stands for the problems after the first [`SHOWN_MAX_COUNT`].
pub(super) fn not_shown(file: &str, count: usize) -> Diagnostic {
    Diagnostic {
        file: file.to_owned(),
        line: 0,
        column: 0,
        message: format!("{count} more problems are not shown"),
        help: "mend those above first".to_owned(),
    }
}

/// A text of the file as it is shown in a message: in quotes, see [`cut`].
pub(super) fn shown(text: &str) -> String {
    format!("\"{}\"", cut(text))
}

/// A text of the file without control characters, and not longer than a message can bear.
pub(super) fn cut(text: &str) -> String {
    const LENGTH_MAX_COUNT: usize = 48;
    let mut characters = text.chars();
    let start: String = characters.by_ref().take(LENGTH_MAX_COUNT).collect();
    let more = if characters.next().is_some() {
        "…"
    } else {
        ""
    };
    format!("{}{more}", start.escape_debug())
}
