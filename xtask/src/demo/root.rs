//! The way to root for the part that needs it: this process, or another one through sudo.

use std::{
    ffi::{OsStr, OsString},
    io::{self, IsTerminal as _},
    path::Path,
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::Choice;
use crate::{
    identity::{Elevation, Identity},
    interrupt, screen,
};

/// How long the other process may take to clean up after an interrupt.
const CLEANUP_LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

/// How root is had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// This process is root.
    Here,
    /// Through sudo, which asks for nothing, or may ask on the terminal.
    Sudo {
        /// Whether there is somebody to ask.
        may_ask: bool,
    },
}

/// Finds the way, before anything takes long. Asks for a password now rather than in some minutes.
///
/// # Errors
/// There is none.
pub fn way(identity: &Identity) -> anyhow::Result<Way> {
    let may_ask = io::stdin().is_terminal();
    match identity.elevation() {
        Elevation::Root => return Ok(Way::Here),
        Elevation::Sudo => return Ok(Way::Sudo { may_ask }),
        Elevation::None => {}
    }
    if may_ask {
        println!("the demo makes network namespaces and loads programs, which takes root:");
        println!("$ sudo --validate");
        let asked = Command::new("sudo").arg("--validate").status();
        if asked.is_ok_and(|status| status.success()) {
            return Ok(Way::Sudo { may_ask });
        }
        if interrupt::requested() {
            bail!("interrupted");
        }
    }
    bail!(
        "the demo makes network namespaces and loads programs, which takes root,\n\
         and sudo gives none here. Run it as root, or on a terminal where sudo can\n\
         ask for a password"
    )
}

/// Runs the part that needs root through sudo and passes its exit code on.
///
/// # Errors
/// It cannot be started, or does not end after an interrupt.
pub fn run(may_ask: bool, binaries: &Path, choice: Choice) -> anyhow::Result<ExitCode> {
    let own = std::env::current_exe().context("this program does not know where it is")?;
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let words = words(may_ask, no_color, &own, binaries, choice);
    println!("\nroot is needed from here on:\n$ {}", line(&words));
    let (program, arguments) = words.split_first().context("a command without words")?;
    let mut command = Command::new(program);
    // Signals of an ordinary user do not reach what runs as root, but the end of a pipe does.
    let mut child = command
        .args(arguments)
        .stdin(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let mut interrupted = None;
    loop {
        if let Some(status) = child.try_wait()? {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            return Ok(code.map_or(ExitCode::FAILURE, ExitCode::from));
        }
        if interrupt::requested() && interrupted.is_none() {
            drop(child.stdin.take());
            interrupted = Some(Instant::now());
        }
        if interrupted.is_some_and(|at| at.elapsed() > CLEANUP_LIMIT) {
            bail!(
                "the part that runs as root has not ended {} after it was asked to:\n\
                 `sudo kill {}`",
                screen::seconds(CLEANUP_LIMIT),
                child.id()
            );
        }
        thread::sleep(LOOK);
    }
}

/// Ends this process in order when standard input ends, as if it was sent SIGTERM.
pub fn end_with_stdin() {
    // It ends with the process.
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        let _ = kill(Pid::this(), Signal::SIGTERM);
    });
}

/// The command that shows the binaries as root.
fn words(
    may_ask: bool,
    no_color: bool,
    own: &Path,
    binaries: &Path,
    choice: Choice,
) -> Vec<OsString> {
    let mut words = vec![OsString::from("sudo")];
    if !may_ask {
        words.push("--non-interactive".into());
    }
    words.push("--".into());
    if no_color {
        // sudo clears the environment.
        words.extend(["env".into(), "NO_COLOR=1".into()]);
    }
    words.extend([own.into(), "demo".into()]);
    words.extend(["--seconds".into(), choice.seconds.to_string().into()]);
    words.extend(["--plane".into(), choice.plane.name().into()]);
    words.extend([
        "--binaries".into(),
        binaries.into(),
        "--until-stdin-ends".into(),
    ]);
    words
}

/// The words as a person would type them in a shell.
fn line(words: &[OsString]) -> String {
    let quoted = |word: &OsString| {
        let text = OsStr::to_string_lossy(word).into_owned();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@%".contains(c);
        if !text.is_empty() && text.chars().all(plain) {
            text
        } else {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::Plane;

    #[test]
    fn the_command_is_shown_as_it_is_run() {
        let (own, binaries) = (Path::new("/a b/xtask"), Path::new("/t/release"));
        let tail = "demo --seconds 5 --plane nat --binaries /t/release --until-stdin-ends";
        let rows = [
            (true, false, format!("sudo -- '/a b/xtask' {tail}")),
            (
                false,
                false,
                format!("sudo --non-interactive -- '/a b/xtask' {tail}"),
            ),
            (
                true,
                true,
                format!("sudo -- env NO_COLOR=1 '/a b/xtask' {tail}"),
            ),
        ];
        let choice = Choice {
            seconds: 5,
            plane: Plane::Nat,
        };
        for (may_ask, no_color, expected) in rows {
            assert_eq!(
                line(&words(may_ask, no_color, own, binaries, choice)),
                expected
            );
        }
        assert_eq!(line(&["it's".into(), "".into()]), r"'it'\''s' ''");
    }
}
