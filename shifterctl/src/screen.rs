//! Standard output and standard error: writing, and what they are connected to.

use std::{
    io::{self, IsTerminal, Write},
    time::{SystemTime, UNIX_EPOCH},
};

use nix::libc;

use crate::{
    failure::Failure,
    render::{self, View},
};

/// How to render for standard output, now.
pub fn view() -> View {
    view_for(io::stdout().is_terminal())
}

fn view_for(is_terminal: bool) -> View {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    View {
        color: wants_color(is_terminal, |name| std::env::var(name).ok()),
        now_unix_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        zone: local_offset_s,
    }
}

/// Colour is for a terminal that has it and a user who has not said no (no-color.org).
fn wants_color(is_terminal: bool, env: impl Fn(&str) -> Option<String>) -> bool {
    let refused = env("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = env("TERM").is_some_and(|term| term == "dumb");
    is_terminal && !refused && !dumb
}

/// Writes to standard output.
///
/// # Errors
/// What the kernel says; `BrokenPipe` if the reader has seen enough.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| Failure::Io {
        what: "write to standard output",
        error,
    })
}

/// Writes to standard error.
pub fn complain(render: impl FnOnce(&View) -> String) {
    let text = render(&view_for(io::stderr().is_terminal()));
    // If standard error is gone, there is nobody left to tell.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Says on standard error what went wrong and what to do.
pub fn error(failure: &Failure) {
    if !failure.is_silent() {
        complain(|view| render::problem(view, &failure.to_string(), &failure.help()));
    }
}

/// Rows of the terminal on standard output; `None` if it is none.
pub fn rows() -> Option<usize> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes one `winsize`.
    let result = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_row > 0).then_some(size.ws_row.into())
}

/// Seconds that local time is ahead of UTC at a Unix time, by the host's time zone.
fn local_offset_s(unix_s: i64) -> i64 {
    let time: libc::time_t = unix_s;
    // SAFETY: `tm` is plain data, for which zeros are valid; `localtime_r` writes one `tm`. Nothing
    // here changes the environment while it runs: the program has one thread.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: as above; both pointers are valid for the call.
    let converted = unsafe { libc::localtime_r(&raw const time, &raw mut local) };
    if converted.is_null() {
        0
    } else {
        local.tm_gmtoff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_needs_a_terminal_and_consent() {
        type Environment = &'static [(&'static str, &'static str)];
        let rows: &[(bool, Environment, bool)] = &[
            (true, &[], true),
            (false, &[], false),
            (true, &[("NO_COLOR", "1")], false),
            (true, &[("NO_COLOR", "")], true),
            (true, &[("TERM", "xterm-256color")], true),
            (true, &[("TERM", "dumb")], false),
            (false, &[("TERM", "xterm")], false),
        ];
        for (is_terminal, env, expected) in rows {
            let env = |name: &str| {
                env.iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| (*value).to_owned())
            };
            assert_eq!(wants_color(*is_terminal, env), *expected);
        }
    }
}
