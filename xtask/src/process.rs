//! One child process: its output goes to a log, its last line to the screen, and it never
//! outlives its limit or an interrupt.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{Signal, kill, killpg},
    },
    unistd::Pid,
};

use crate::{
    descent, interrupt,
    screen::{self, Mark, Progress},
};

/// How often a running child is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// What a process group gets between being asked to end and being killed.
const GRACE: Duration = Duration::from_secs(3);
/// Enough of a log's end to hold its last line.
const TAIL_BYTES: u64 = 2048;
/// Lines of a failed child's log that the screen shows.
const EXCERPT_LINES: usize = 40;

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Exit code 0.
    Success,
    /// Another exit code.
    Code(i32),
    /// Killed by a signal that did not come from here.
    Signal(i32),
    /// Killed here, because it had reached its limit.
    Overran(Duration),
}

impl End {
    fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(0), _) => Self::Success,
            (Some(code), _) => Self::Code(code),
            (None, signal) => Self::Signal(signal.unwrap_or(0)),
        }
    }

    /// The ending in words, to follow the child's name.
    pub fn words(self) -> String {
        match self {
            Self::Success => "ended well".to_owned(),
            Self::Code(code) => format!("ended with exit code {code}"),
            Self::Signal(signal) => format!("was killed by signal {signal}"),
            Self::Overran(limit) => {
                format!("was killed: still running after {}", screen::seconds(limit))
            }
        }
    }
}

/// A child to run.
pub struct Job<'a> {
    /// What the screen calls it.
    pub subject: &'a str,
    /// The program, its arguments and environment.
    pub command: Command,
    /// Where its output goes; added to if the file is there.
    pub log: &'a Path,
    /// Where its standard output goes, if it is to be read by a program rather than a person.
    pub stdout: Option<&'a Path>,
    /// When to kill it.
    pub limit: Duration,
    /// Cut short, it would leave the system half changed: an interrupt waits for its end.
    pub whole: bool,
}

impl<'a> Job<'a> {
    /// A child all of whose output goes to `log`.
    pub fn new(subject: &'a str, command: Command, log: &'a Path, limit: Duration) -> Self {
        Self {
            subject,
            command,
            log,
            stdout: None,
            limit,
            whole: false,
        }
    }
}

/// What became of a child.
#[derive(Debug)]
pub struct Done {
    /// How it ended.
    pub end: End,
    /// How long it ran.
    pub took: Duration,
    /// Its log.
    pub log: PathBuf,
}

impl Done {
    /// An error, with the end of the log on the screen, unless the child ended well.
    pub fn success(self, subject: &str) -> anyhow::Result<Duration> {
        if self.end == End::Success {
            return Ok(self.took);
        }
        self.show(subject);
        bail!(
            "{subject} {}; its output is in {}",
            self.end.words(),
            self.log.display()
        )
    }

    /// Puts the end of the log on the screen.
    pub fn show(&self, subject: &str) {
        screen::line(Mark::Bad, subject, &format!("{}:", self.end.words()));
        if let Ok(text) = fs::read(&self.log) {
            screen::excerpt(&String::from_utf8_lossy(&text), EXCERPT_LINES);
        }
    }
}

/// Runs `job` to its end.
///
/// # Errors
/// The program cannot be started, its log cannot be written, or an interrupt came; in the last
/// case its process group has been ended.
pub fn run(job: Job<'_>) -> anyhow::Result<Done> {
    let Job {
        subject,
        mut command,
        log,
        stdout,
        limit,
        whole,
    } = job;
    if let Some(parent) = log.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot create the directory {}", parent.display()))?;
    }
    let file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot write the log {}", log.display()))?;
    let program = command.get_program().to_string_lossy().into_owned();
    let begun = Instant::now();
    let stdout = match stdout {
        Some(path) => {
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?
        }
        None => file.try_clone()?,
    };
    command
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(file)
        .process_group(0);
    if !whole {
        // SAFETY: prctl(2) is a bare system call, which is allowed between fork and exec.
        unsafe {
            // Killed outright, this process can end nobody: the kernel then asks the child to end.
            command.pre_exec(|| Ok(prctl::set_pdeathsig(Signal::SIGTERM)?));
        }
    }
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let mut progress = Progress::new(subject, begun);
    let end = loop {
        if let Some(status) = child.try_wait()? {
            break End::of(status);
        }
        let now = Instant::now();
        if interrupt::requested() && !whole {
            progress.end();
            end_group(&mut child)?;
            bail!("interrupted during {subject}");
        }
        if now.duration_since(begun) >= limit {
            end_group(&mut child)?;
            break End::Overran(limit);
        }
        progress.tell(now, &last_line(log));
        thread::sleep(LOOK);
    };
    progress.end();
    if whole && interrupt::requested() {
        bail!("interrupted; {subject} was let finish, because it changes the system");
    }
    Ok(Done {
        end,
        took: begun.elapsed(),
        log: log.to_owned(),
    })
}

/// Asks the child, its process group and everything that descends from it to end, then kills
/// what is left.
fn end_group(child: &mut Child) -> anyhow::Result<()> {
    let group = Pid::from_raw(i32::try_from(child.id()).context("a process id beyond i32")?);
    // Daemons have process groups of their own, and lose their descent with their parents.
    let descendants = descent::of(group);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        send(&format!("-{group}"), signal);
        for process in descendants.iter().filter(|process| process.runs()) {
            send(&process.pid.to_string(), signal);
        }
        let asked = Instant::now();
        while asked.elapsed() < GRACE {
            child.try_wait()?;
            let group_is_gone = killpg(group, None) == Err(Errno::ESRCH);
            if group_is_gone && !descendants.iter().any(descent::Process::runs) {
                return Ok(());
            }
            thread::sleep(LOOK);
        }
    }
    Ok(())
}

/// Sends `signal` to what kill(1) understands: a process, or with a sign before it a group. What
/// runs through sudo belongs to root, and takes signals from root only.
fn send(to: &str, signal: Signal) {
    let Ok(number) = to.parse() else { return };
    // It may be gone already, which is what is wanted.
    if kill(Pid::from_raw(number), signal) == Err(Errno::EPERM) {
        let mut command = Command::new("sudo");
        command.args([
            "-n",
            "kill",
            "-s",
            signal.as_str().trim_start_matches("SIG"),
            "--",
            to,
        ]);
        let _ = output(command);
    }
}

/// The last line of the file that says anything.
fn last_line(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let len_bytes = file.metadata()?.len();
        file.seek(SeekFrom::Start(len_bytes.saturating_sub(TAIL_BYTES)))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        Ok(String::from_utf8_lossy(&tail).into_owned())
    };
    // Progress is a courtesy: a log that cannot be read shows as an empty line.
    let tail = read().unwrap_or_default();
    tail.lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The standard output of a short command that is expected to succeed.
///
/// # Errors
/// It cannot be started or does not end with exit code 0; the error carries what it said.
pub fn output(mut command: Command) -> anyhow::Result<String> {
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let words = words.join(" ");
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{words}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{words}` {}: {}",
            End::of(output.status).words(),
            said.trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).expect("a directory");
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn endings_are_told_apart() {
        let scratch = Scratch::new("endings");
        let short = Duration::from_millis(200);
        let rows = [
            ("exit 0", LONG, End::Success),
            ("exit 7", LONG, End::Code(7)),
            ("kill -KILL $$", LONG, End::Signal(9)),
            ("sleep 1000", short, End::Overran(short)),
            // Deaf to being asked: killed after its grace.
            (
                "trap '' TERM; sleep 1000; sleep 1000",
                short,
                End::Overran(short),
            ),
        ];
        for (script, limit, expected) in rows {
            let log = scratch.0.join("log");
            let done = run(Job::new("test", shell(script), &log, limit)).expect("run");
            assert_eq!(done.end, expected, "{script}");
        }
    }

    #[test]
    fn what_a_child_has_started_ends_with_it() {
        let scratch = Scratch::new("descent");
        let rows = [
            "sleep 1000 & echo $!; wait",
            // In a group of its own, and deaf to being asked.
            "setsid sh -c \"trap '' TERM; echo \\$\\$; sleep 1000; sleep 1000\" & wait",
        ];
        for (index, script) in rows.into_iter().enumerate() {
            let log = scratch.0.join(index.to_string());
            run(Job::new(
                "test",
                shell(script),
                &log,
                Duration::from_millis(500),
            ))
            .expect("run");
            let grandchild = fs::read_to_string(&log).expect("a log");
            let pid = Pid::from_raw(grandchild.trim().parse().expect("a process id"));
            // An orphan that has ended may wait for its reaper; it runs no more.
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            assert!(stat.is_empty() || stat.contains(") Z "), "{script}: {stat}");
        }
    }

    #[test]
    fn output_is_kept_where_it_belongs() {
        let scratch = Scratch::new("output");
        let (log, stdout) = (scratch.0.join("deep/log"), scratch.0.join("stdout"));
        let command = || shell("echo to stdout; echo to stderr >&2");
        let job = Job {
            stdout: Some(&stdout),
            ..Job::new("test", command(), &log, LONG)
        };
        run(job).expect("run");
        assert_eq!(fs::read_to_string(&stdout).expect("stdout"), "to stdout\n");
        assert_eq!(fs::read_to_string(&log).expect("a log"), "to stderr\n");
        run(Job::new("test", command(), &log, LONG)).expect("run");
        let all = fs::read_to_string(&log).expect("a log");
        assert_eq!(all, "to stderr\nto stdout\nto stderr\n");
        assert_eq!(last_line(&log), "to stderr");
        assert_eq!(last_line(Path::new("/no/such/log")), "");
    }

    #[test]
    fn failures_say_what_and_how() {
        let scratch = Scratch::new("failures");
        let log = scratch.0.join("log");
        let done = run(Job::new("thing", shell("exit 3"), &log, LONG)).expect("run");
        let error = done.success("thing").expect_err("a failure").to_string();
        let expected = format!(
            "thing ended with exit code 3; its output is in {}",
            log.display()
        );
        assert_eq!(error, expected);
        let job = Job::new("thing", Command::new("/no/such/program"), &log, LONG);
        let error = run(job).expect_err("a failure").to_string();
        assert_eq!(error, "cannot start /no/such/program");
        let error = output(shell("echo why >&2; exit 3"))
            .expect_err("a failure")
            .to_string();
        assert_eq!(
            error,
            "`sh -c echo why >&2; exit 3` ended with exit code 3: why"
        );
        let rows = [
            (End::Code(1), "ended with exit code 1"),
            (End::Signal(9), "was killed by signal 9"),
            (
                End::Overran(LONG),
                "was killed: still running after 1 min 00 s",
            ),
        ];
        for (end, words) in rows {
            assert_eq!(end.words(), words);
        }
    }
}
