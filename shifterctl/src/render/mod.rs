//! From values to text of 80 columns. Pure: no terminal, no clock, no time zone of its own.

mod apply;
mod audit;
mod change;
mod clock;
mod deployment;
mod event;
mod explain;
mod flows;
mod history;
mod interface;
mod local;
mod number;
mod plan;
mod rollout;
mod service;
mod status;
mod text;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod golden_test;

pub use apply::{apply, apply_problems};
pub use audit::{audit, verified};
pub use change::{bypassed, changed, detached, drained};
pub use clock::Zone;
pub use deployment::{deployment, deployment_markdown};
pub use explain::explain;
pub use flows::flows;
pub use history::history;
pub use number::counted;
pub use plan::plan;
pub use rollout::{replied, rollout};
pub use status::status;
pub use text::problem;

/// Columns of everything that is printed.
pub const WIDTH: usize = 80;

/// What rendering depends on besides the value.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Whether escape sequences for colour may be used.
    pub color: bool,
    /// Now, milliseconds of Unix time.
    pub now_unix_ms: u64,
    /// Local time.
    pub zone: Zone,
}

/// What a piece of text means; decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Not as it should be, but looked after.
    Warning,
    /// Not as it should be.
    Bad,
    /// A name to find again.
    Strong,
    /// A heading.
    Faint,
}

impl View {
    /// The text in the colour of its tone, if colours are used. Pad before painting: escape
    /// sequences have no width on the screen but many characters.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        if !self.color {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "31",
            Tone::Strong => "1",
            Tone::Faint => "2",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}
