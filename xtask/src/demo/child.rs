//! A process of the demo, which ends with its guard.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{ChildStdout, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::{
    sys::{
        signal::{Signal, kill, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};

use crate::{interrupt, screen};

/// Lines of a log that are shown when its process fails.
const TAIL_LINES: usize = 20;
/// What a process gets between being asked to end and being killed.
const GRACE: Duration = Duration::from_secs(3);
/// How long the rest of a killed group is waited for.
const REST_LIMIT: Duration = Duration::from_secs(1);
/// How often something that is waited for is looked at.
pub const LOOK: Duration = Duration::from_millis(10);

/// A running process, the leader of a process group of its own.
#[derive(Debug)]
pub struct Child {
    name: String,
    process: std::process::Child,
    log: PathBuf,
    over: bool,
}

/// Where a process' standard output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Into its log, with its errors.
    Log,
    /// To this process.
    Pipe,
}

impl Child {
    /// Starts a command that makes itself a group leader.
    ///
    /// # Errors
    /// It cannot be started, or its log not be written.
    pub fn start(
        name: &str,
        mut command: Command,
        log: PathBuf,
        output: Output,
    ) -> anyhow::Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write the log {}", log.display()))?;
        let stdout = match output {
            Output::Log => Stdio::from(file.try_clone()?),
            Output::Pipe => Stdio::piped(),
        };
        command.stdin(Stdio::null()).stdout(stdout).stderr(file);
        let process = command.spawn().with_context(|| {
            format!(
                "cannot start {name} ({})",
                command.get_program().to_string_lossy()
            )
        })?;
        Ok(Self {
            name: name.to_owned(),
            process,
            log,
            over: false,
        })
    }

    /// Its standard output, if that is a pipe and was not taken before.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.process.stdout.take()
    }

    /// How it ended, if it has. The exit status is left in the kernel: as long as it is there, the
    /// number of the process, and of its group, cannot mean another one.
    fn ending(&self) -> anyhow::Result<Option<String>> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        Ok(match waitid(Id::Pid(self.group()), flags)? {
            WaitStatus::Exited(_, code) => Some(format!("exit code {code}")),
            WaitStatus::Signaled(_, signal, _) => Some(signal.to_string()),
            _ => None,
        })
    }

    /// Makes sure that it still runs.
    ///
    /// # Errors
    /// It has ended; the error carries the end of its log.
    pub fn check(&self) -> anyhow::Result<()> {
        match self.ending()? {
            None => Ok(()),
            Some(ending) => bail!("{} has ended ({ending}){}", self.name, self.tail()),
        }
    }

    /// The end of its log, to follow a sentence about it.
    pub fn tail(&self) -> String {
        tail(&self.log)
    }

    /// Sends a signal to the process alone.
    pub fn signal(&self, signal: Signal) {
        if !self.over {
            let _ = kill(self.group(), signal);
        }
    }

    fn group(&self) -> Pid {
        Pid::from_raw(self.process.id().cast_signed())
    }

    /// Waits until it has ended by itself; returns how.
    ///
    /// # Errors
    /// It still runs after `limit`.
    pub fn wait(&self, limit: Duration) -> anyhow::Result<String> {
        wait_for(
            limit,
            || self.ending(),
            || format!("{} still runs{}", self.name, self.tail()),
        )
    }

    /// Asks it to end, and kills what is left of its group after a while.
    pub fn stop(&mut self) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        let group = self.group();
        let _ = kill(group, Signal::SIGTERM);
        let begun = Instant::now();
        while begun.elapsed() < GRACE && matches!(self.ending(), Ok(None)) {
            thread::sleep(LOOK);
        }
        // What it has started is in its group.
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.process.wait();
        // Signal 0 disturbs nobody. Whoever is dead, but not yet looked at by init, counts too.
        let begun = Instant::now();
        while begun.elapsed() < REST_LIMIT && killpg(group, None).is_ok() {
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The last lines of a log, indented, on lines of their own; says so if there are none.
fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    if lines.is_empty() {
        return "; its log is empty".to_owned();
    }
    let last = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n  | ");
    format!("; the end of its log:\n  | {last}")
}

/// What a short command said.
#[derive(Debug)]
pub struct Said {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// Runs a short command to its end.
///
/// # Errors
/// It cannot be started, or still runs after `limit`; then it is killed.
pub fn run(mut command: Command, limit: Duration) -> anyhow::Result<Said> {
    let program = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let begun = Instant::now();
    while child.try_wait()?.is_none() {
        if begun.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            bail!(
                "{program} was killed: still running after {}",
                screen::seconds(limit)
            );
        }
        thread::sleep(LOOK);
    }
    let output = child.wait_with_output()?;
    Ok(Said {
        status: output.status,
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Asks again and again until there is an answer, or somebody asks this process to stop.
///
/// # Errors
/// `ask` fails, an interrupt came, or there is no answer within `limit`: then the error is what
/// `lacking` says.
pub fn wait_until<T>(
    limit: Duration,
    mut ask: impl FnMut() -> anyhow::Result<Option<T>>,
    lacking: impl FnOnce() -> String,
) -> anyhow::Result<T> {
    let ask = || {
        heed_interrupt()?;
        ask()
    };
    wait_for(limit, ask, lacking)
}

fn wait_for<T>(
    limit: Duration,
    mut ask: impl FnMut() -> anyhow::Result<Option<T>>,
    lacking: impl FnOnce() -> String,
) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if begun.elapsed() > limit {
            bail!("after {}, {}", screen::seconds(limit), lacking());
        }
        thread::sleep(LOOK);
    }
}

/// An error if somebody asked this process to stop.
///
/// # Errors
/// Somebody did.
pub fn heed_interrupt() -> anyhow::Result<()> {
    if interrupt::requested() {
        bail!("interrupted");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).process_group(0);
        command
    }

    fn log(name: &str) -> PathBuf {
        let name = format!("xtask-demo-child-{}-{name}", std::process::id());
        std::env::temp_dir().join(name)
    }

    #[test]
    fn an_early_end_is_told_with_the_log() {
        let rows = [
            ("exit 3", "sh has ended (exit code 3); its log is empty"),
            (
                "echo one; echo; echo two >&2; exit 1",
                "sh has ended (exit code 1); the end of its log:\n  | one\n  | two",
            ),
        ];
        for (index, (script, expected)) in rows.into_iter().enumerate() {
            let log = log(&format!("end-{index}"));
            let child =
                Child::start("sh", shell(script), log.clone(), Output::Log).expect("started");
            child.wait(Duration::from_secs(10)).expect("ended");
            assert_eq!(child.check().expect_err("it ended").to_string(), expected);
            std::fs::remove_file(log).expect("a log");
        }
    }

    #[test]
    fn the_group_ends_with_the_guard() {
        let log = log("group");
        // Only the leader gets the signal; its child would live on.
        let script = "sleep 60 & echo $!; exec sleep 60";
        let mut child =
            Child::start("sh", shell(script), log.clone(), Output::Pipe).expect("started");
        let mut line = String::new();
        let stdout = child.stdout().expect("a pipe");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)
            .expect("a line");
        let grandchild = Pid::from_raw(line.trim().parse().expect("a pid"));
        let leader = child.group();
        drop(child);
        assert!(kill(leader, None).is_err(), "the leader is gone");
        let alive = |pid: Pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ")
                .is_some_and(|(_, rest)| !rest.starts_with('Z'))
        };
        assert!(!alive(grandchild), "the rest of the group is killed");
        std::fs::remove_file(log).expect("a log");
    }

    #[test]
    fn waits_are_bounded() {
        let limit = Duration::from_millis(30);
        let none = wait_until(limit, || Ok(None::<()>), || "no answer".to_owned());
        assert_eq!(
            none.expect_err("bounded").to_string(),
            "after 0.0 s, no answer"
        );
        let mut asked_count = 0;
        let third = wait_until(
            Duration::from_secs(10),
            || {
                asked_count += 1;
                Ok((asked_count == 3).then_some("third"))
            },
            String::new,
        );
        assert_eq!(third.expect("an answer"), "third");
        let overrun = run(shell("sleep 60"), limit)
            .expect_err("bounded")
            .to_string();
        assert_eq!(overrun, "sh was killed: still running after 0.0 s");
    }
}
