//! Doing the work of a stage within its time.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde::Deserialize;

use super::{
    libtest::Tally,
    licences,
    need::Provisions,
    report::{Complaint, Report},
    stage::{Stage, Targets, Work},
};
use crate::{
    build::{self, Profile},
    process::{self, Done, End, Job},
    workspace::Workspace,
};

/// Lines of a failed command's log that the screen shows.
const EXCERPT_LINES: usize = 60;
/// The package whose tests run as root.
const ROOT_TESTS: &str = "shifter-tests";

/// A stage that is under way.
pub struct Running<'a> {
    workspace: &'a Workspace,
    stage: &'a Stage,
    allowed: &'a [String],
    begun: Instant,
    log: PathBuf,
}

/// Runs `stage`, whose needs are met.
///
/// # Errors
/// An interrupt came. Everything else that goes wrong is a failure of the stage.
pub fn run(
    workspace: &Workspace,
    stage: &Stage,
    provisions: &mut Provisions<'_>,
    allowed: &[String],
) -> anyhow::Result<Report> {
    let log = workspace.log(stage.name);
    let running = Running {
        workspace,
        stage,
        allowed,
        begun: Instant::now(),
        log,
    };
    let result = match stage.work {
        Work::Cargo(arguments) => running.cargo(arguments),
        Work::Libtest(arguments) => running.libtest(arguments),
        Work::Kernel => running.kernel(provisions),
        Work::Licences => running.licences(),
        Work::Root {
            targets,
            binaries,
            arguments,
        } => {
            let built = if binaries {
                running.binaries()
            } else {
                Ok(None)
            };
            match built {
                Ok(Some(failed)) => Ok(failed),
                Ok(None) => running.root(targets, arguments),
                Err(error) => Err(error),
            }
        }
    };
    match result {
        Err(error) if crate::interrupt::requested() => Err(error),
        Err(error) => Ok(Report::failed(Complaint::new(
            stage.name,
            format!("{error:#}"),
        ))),
        Ok(report) => Ok(report),
    }
}

impl Running<'_> {
    /// The stage's time that is left.
    fn left(&self) -> Duration {
        self.stage.limit().saturating_sub(self.begun.elapsed())
    }

    fn job(&self, command: Command, stdout: Option<&Path>) -> anyhow::Result<Done> {
        let (subject, log, limit) = (self.stage.name, self.log.as_path(), self.left());
        process::run(Job {
            stdout,
            ..Job::new(subject, command, log, limit)
        })
    }

    /// The log as text.
    fn logged(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The report of a command that counts as one test.
    fn single(&self, end: End) -> Report {
        if end == End::Success {
            return Report::passed();
        }
        Report::failed(self.blame(end))
    }

    /// A complaint with the end of the log.
    fn blame(&self, end: End) -> Complaint {
        let log = self.logged();
        let lines: Vec<&str> = log.lines().collect();
        let output = lines[lines.len().saturating_sub(EXCERPT_LINES)..].join("\n");
        Complaint {
            output,
            ..Complaint::new(self.stage.name, end.words())
        }
    }

    fn cargo(&self, arguments: &[&str]) -> anyhow::Result<Report> {
        let mut command = self.workspace.cargo();
        command.args(arguments);
        Ok(self.single(self.job(command, None)?.end))
    }

    fn libtest(&self, arguments: &[&str]) -> anyhow::Result<Report> {
        let mut command = self.workspace.cargo();
        command.args(arguments);
        let done = self.job(command, None)?;
        Ok(self.weigh(&self.logged(), done.end))
    }

    /// The report of test binaries that ended like this.
    fn weigh(&self, log: &str, end: End) -> Report {
        let tally = Tally::parse(log);
        let untold = end != End::Success && tally.failed_count == 0;
        let mut report = Report::of(
            self.stage.name,
            tally,
            (end != End::Success).then(|| end.words()),
            self.allowed,
        );
        if untold && let Some(last) = report.failures.last_mut() {
            last.output = self.blame(end).output;
        }
        report
    }

    /// Builds the kernel object; then lets clippy look at its source, where the toolchain has
    /// clippy.
    fn kernel(&self, provisions: &mut Provisions<'_>) -> anyhow::Result<Report> {
        provisions.object(self.left()).map_err(anyhow::Error::msg)?;
        let toolchain = provisions.toolchain().map_err(anyhow::Error::msg)?;
        let mut command = build::kernel_cargo(self.workspace, &toolchain, "clippy");
        if !toolchain.compiler.has_clippy() {
            command = build::kernel_cargo(self.workspace, &toolchain, "check");
        }
        command.arg("--release");
        if toolchain.compiler.has_clippy() {
            command.args(["--", "-Dwarnings"]);
        }
        Ok(self.single(self.job(command, None)?.end))
    }

    fn licences(&self) -> anyhow::Result<Report> {
        let (count, complaints) = licences::check(self.workspace)?;
        if complaints.is_empty() {
            fs::create_dir_all(self.log.parent().context("a log without a directory")?)?;
            fs::write(&self.log, format!("{count} packages, all allowed\n"))?;
            return Ok(Report::passed());
        }
        let reason = format!("{} of {count} packages are not allowed", complaints.len());
        let output = complaints.join("\n");
        Ok(Report::failed(Complaint {
            output,
            ..Complaint::new(self.stage.name, reason)
        }))
    }

    /// Builds what the tests start; a report only if that fails.
    fn binaries(&self) -> anyhow::Result<Option<Report>> {
        let done = self.job(build::binaries_cargo(self.workspace, Profile::Debug), None)?;
        Ok((done.end != End::Success).then(|| Report::failed(self.blame(done.end))))
    }

    /// Compiles the test binaries as whoever compiles, then runs each as root.
    fn root(&self, targets: Targets, arguments: &[&str]) -> anyhow::Result<Report> {
        let messages = self.log.with_extension("json");
        let mut command = self.workspace.cargo();
        command.args([
            "test",
            "--package",
            ROOT_TESTS,
            "--lib",
            "--tests",
            "--no-run",
        ]);
        command.arg("--message-format=json-render-diagnostics");
        let done = self.job(command, Some(&messages))?;
        if done.end != End::Success {
            return Ok(Report::failed(self.blame(done.end)));
        }
        let messages = fs::read_to_string(&messages)?;
        let binaries = executables(&messages, targets);
        if binaries.is_empty() {
            bail!("{ROOT_TESTS} has no such test target");
        }
        let mut end = End::Success;
        for binary in binaries {
            let done = self.job(self.elevated(&binary, arguments)?, None)?;
            if done.end != End::Success {
                end = done.end;
            }
            if matches!(done.end, End::Overran(_)) {
                break;
            }
        }
        let mut report = self.weigh(&self.logged(), end);
        // A binary that was killed has no test to blame, but others may have failed before it.
        if matches!(end, End::Overran(_) | End::Signal(_))
            && !report
                .failures
                .iter()
                .any(|failure| failure.name == self.stage.name)
        {
            report.failures.push(self.blame(end));
        }
        Ok(report)
    }

    /// A test binary as root, in its package's directory, as cargo would run it.
    fn elevated(&self, binary: &Path, arguments: &[&str]) -> anyhow::Result<Command> {
        let package = self.workspace.root.join("tests");
        let binaries = self.workspace.target.join(Profile::Debug.directory());
        let path = std::env::var_os("PATH").unwrap_or_default();
        let variables = [
            ("CARGO_MANIFEST_DIR", package.as_os_str()),
            ("PATH", path.as_os_str()),
            ("SHIFTER_BIN_DIR", binaries.as_os_str()),
            ("SHIFTER_CACHE", self.workspace.cache.as_os_str()),
        ];
        let elevated = self
            .workspace
            .identity
            .elevate(binary.as_os_str(), &variables);
        let mut command = elevated.context("there is no way to be root any more")?;
        command.current_dir(package).args(arguments);
        Ok(command)
    }
}

/// A line of cargo's messages, as far as it matters.
#[derive(Deserialize)]
struct Message {
    target: Option<Target>,
    profile: Option<Build>,
    executable: Option<PathBuf>,
}

/// The profile that something was built with.
#[derive(Deserialize)]
struct Build {
    test: bool,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// The test binaries that cargo says it has built; other binaries come along for the tests' use.
fn executables(messages: &str, targets: Targets) -> Vec<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| message.profile.as_ref().is_some_and(|profile| profile.test))
        .filter(|message| {
            message
                .target
                .as_ref()
                .is_some_and(|one| targets.contain(&one.name))
        })
        .filter_map(|message| message.executable)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_binaries_are_found_in_cargos_messages() {
        let messages = r#"{"target":{"name":"aya"},"profile":{"test":false},"executable":null}
not a message
{"target":{"name":"packets"},"profile":{"test":true},"executable":"/t/packets-1"}
{"target":{"name":"load"},"profile":{"test":false},"executable":"/t/load"}
{"target":{"name":"e2e"},"profile":{"test":true},"executable":"/t/e2e-1"}
{"reason":"build-finished","success":true}
"#;
        let rows = [
            (Targets::Only(&["packets"]), vec!["/t/packets-1"]),
            (Targets::Except(&["packets"]), vec!["/t/e2e-1"]),
            (Targets::Only(&["other"]), vec![]),
        ];
        for (targets, expected) in rows {
            let expected: Vec<PathBuf> = expected.into_iter().map(PathBuf::from).collect();
            assert_eq!(executables(messages, targets), expected, "{targets:?}");
        }
    }
}
