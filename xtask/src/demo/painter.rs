//! Puts the demo on the screen: a table that is redrawn in place on a terminal, lines elsewhere.

use std::{
    io::{self, IsTerminal as _, Write as _},
    os::fd::AsRawFd as _,
};

use anyhow::Context;
use nix::libc;

use super::table::{self, COLUMNS, Frame, Ink};

/// Rows that the table needs to stay in place.
const ROWS: usize = 8;

/// How the screen is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Manner {
    /// The table is redrawn in place.
    live: bool,
    ink: Ink,
}

/// The screen.
#[derive(Debug)]
pub struct Painter {
    manner: Manner,
    /// Lines of the table that may be redrawn.
    drawn_count: usize,
    /// Whether the heading stands over the lines.
    headed: bool,
}

impl Painter {
    /// Looks at standard output and the environment.
    pub fn new() -> Self {
        let size = terminal_size();
        let variable = |name| std::env::var(name).unwrap_or_default();
        let manner = manner(size, &variable("TERM"), &variable("NO_COLOR"));
        Self {
            manner,
            drawn_count: 0,
            headed: false,
        }
    }

    /// The ink in use.
    pub fn ink(&self) -> Ink {
        self.manner.ink
    }

    /// Puts lines above the table, which is drawn again with the next second.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn say(&mut self, lines: &[String]) -> anyhow::Result<()> {
        let mut text = self.erasure();
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        self.drawn_count = 0;
        self.headed = false;
        put(&text)
    }

    /// Shows a second.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn frame(&mut self, frame: &Frame<'_>) -> anyhow::Result<()> {
        if self.manner.live {
            let lines = table::live(frame, self.manner.ink);
            let text = format!("{}{}\n", self.erasure(), lines.join("\n"));
            self.drawn_count = lines.len();
            return put(&text);
        }
        let heading = if self.headed {
            String::new()
        } else {
            table::heading() + "\n"
        };
        self.headed = true;
        put(&format!("{heading}{}\n", table::line(frame)))
    }

    /// Leaves the table as it is; the next one is drawn below it.
    pub fn keep(&mut self) {
        self.drawn_count = 0;
    }

    /// What takes the drawn table off the screen.
    fn erasure(&self) -> String {
        match self.drawn_count {
            0 => String::new(),
            count => format!("\x1b[{count}A\x1b[J"),
        }
    }
}

fn put(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("nobody reads the demo any more: cannot write to standard output")
}

/// How to use a screen of this size, if it is one.
fn manner(size: Option<(usize, usize)>, term: &str, no_color: &str) -> Manner {
    let obeys = size.is_some() && term != "dumb";
    let fits = size.is_some_and(|(columns, rows)| columns >= COLUMNS && rows >= ROWS);
    Manner {
        live: obeys && fits,
        ink: Ink {
            colour: obeys && no_color.is_empty(),
        },
    }
}

/// Columns and rows of the terminal on standard output, if it is one.
fn terminal_size() -> Option<(usize, usize)> {
    let out = io::stdout();
    if !out.is_terminal() {
        return None;
    }
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes one `winsize` to where its argument points.
    let done = unsafe { libc::ioctl(out.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    // A terminal that does not tell is taken for a small one: lines are right everywhere.
    Some(if done == 0 {
        (size.ws_col.into(), size.ws_row.into())
    } else {
        (0, 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_redrawn_only_where_that_works() {
        let rows = [
            (Some((80, 24)), "xterm", "", (true, true)),
            (Some((80, 24)), "xterm", "1", (true, false)),
            (Some((79, 24)), "xterm", "", (false, true)),
            (Some((80, 7)), "xterm", "", (false, true)),
            (Some((80, 24)), "dumb", "", (false, false)),
            (None, "xterm", "", (false, false)),
        ];
        for (size, term, no_color, (live, colour)) in rows {
            let expected = Manner {
                live,
                ink: Ink { colour },
            };
            assert_eq!(
                manner(size, term, no_color),
                expected,
                "{size:?} {term} {no_color}"
            );
        }
    }

    #[test]
    fn only_what_was_drawn_is_erased() {
        let manner = Manner {
            live: true,
            ink: Ink { colour: false },
        };
        let mut painter = Painter {
            manner,
            drawn_count: 4,
            headed: false,
        };
        assert_eq!(painter.erasure(), "\x1b[4A\x1b[J");
        painter.keep();
        assert_eq!(painter.erasure(), "");
    }
}
