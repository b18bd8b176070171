//! Processes that end with their guard.

use std::{
    fs::File,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Once,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        prctl::set_child_subreaper,
        signal::{Signal, kill, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid},
    },
    unistd::Pid,
};

/// A running process, leader of its own group. The whole group is killed on drop.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: Option<PathBuf>,
}

impl Process {
    /// Starts a command in a process group of its own; standard streams are as the command says.
    ///
    /// # Panics
    /// If it cannot be started.
    #[track_caller]
    pub fn spawn(name: &str, command: &mut Command) -> Self {
        adopt_orphans();
        let child = command.process_group(0).spawn();
        let child = child.unwrap_or_else(|err| {
            panic!(
                "{name}: cannot start {}: {err}",
                command.get_program().display()
            )
        });
        Self {
            name: name.to_owned(),
            child,
            log: None,
        }
    }

    /// As [`Process::spawn`], without input and with everything it says appended to a file.
    ///
    /// # Panics
    /// If it cannot be started or the file not be opened.
    #[track_caller]
    pub fn spawn_logged(name: &str, command: &mut Command, log: &Path) -> Self {
        let file = || {
            let opened = File::options().append(true).create(true).open(log);
            opened.unwrap_or_else(|err| panic!("{}: {err}", log.display()))
        };
        command.stdin(Stdio::null()).stdout(file()).stderr(file());
        let mut process = Self::spawn(name, command);
        process.log = Some(log.to_owned());
        process
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id, which is its group's too.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// The started child, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends a signal to the process alone.
    ///
    /// # Panics
    /// If it is gone.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        assert!(
            self.is_running(),
            "{} has ended already\n{}",
            self.name,
            self.log()
        );
        kill(self.pid(), signal).unwrap_or_else(|err| panic!("kill {}: {err}", self.name));
    }

    /// Whether it has not ended. The exit status is left in the kernel: as long as it is there, the
    /// number of the process, and of its group, cannot mean another one.
    pub fn is_running(&self) -> bool {
        matches!(self.peek(), Ok(WaitStatus::StillAlive))
    }

    fn peek(&self) -> nix::Result<WaitStatus> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        waitid(Id::Pid(self.pid()), flags)
    }

    /// Waits for the end, and kills what is left of the group then.
    ///
    /// # Panics
    /// If it does not end in time, with its log.
    #[track_caller]
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        let deadline = Instant::now() + patience;
        while self.is_running() {
            assert!(
                Instant::now() < deadline,
                "{} still runs after {patience:?}\n{}",
                self.name,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        self.kill_group()
            .unwrap_or(ExitStatus::from_raw(Signal::SIGKILL as i32))
    }

    /// Everything it said so far; empty without a log file.
    pub fn log(&self) -> String {
        let bytes = self
            .log
            .as_ref()
            .and_then(|path| std::fs::read(path).ok())
            .unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Kills the group at once, collects the leader and waits for the others; `None` if that was done before, by this or by
    /// the guard of the namespace.
    pub fn kill_group(&mut self) -> Option<ExitStatus> {
        // Once the status is collected, the number may mean somebody else's group.
        self.peek().ok()?;
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let status = self.child.wait().ok();
        // The others are children now, see adopt_orphans().
        while waitpid(Pid::from_raw(-self.pid().as_raw()), None).is_ok() {}
        status
    }
}

/// Makes this process the parent of orphans below it, so that it can wait for grandchildren instead
/// of leaving zombies to an init that may take its time.
fn adopt_orphans() {
    static ADOPTING: Once = Once::new();
    ADOPTING.call_once(|| set_child_subreaper(true).expect("become a subreaper"));
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_group();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn the_whole_group_dies_with_the_guard() {
        let log = tempfile::NamedTempFile::new().expect("a file");
        let process =
            Process::spawn_logged("sh", &mut shell("sleep 60 & echo $!; wait"), log.path());
        while process.log().is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let grandchild = Pid::from_raw(process.log().trim().parse().expect("a pid"));
        let leader = process.pid();
        assert!(process.is_running());
        drop(process);
        assert!(kill(leader, None).is_err());
        assert!(kill(grandchild, None).is_err());
    }

    #[test]
    fn an_end_is_seen_with_its_status() {
        let mut process = Process::spawn("sh", &mut shell("exit 3"));
        assert_eq!(process.wait(Duration::from_secs(10)).code(), Some(3));
        assert!(!process.is_running());
    }

    #[test]
    #[should_panic(expected = "sleeper still runs after 10ms\nsaid before\n")]
    fn no_end_is_reported_with_the_log() {
        let log = tempfile::NamedTempFile::new().expect("a file");
        let mut command = shell("echo said before; sleep 60");
        let mut process = Process::spawn_logged("sleeper", &mut command, log.path());
        while process.log().is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
        process.wait(Duration::from_millis(10));
    }

    #[test]
    #[should_panic(expected = "thing: cannot start /no/such/thing: No such file or directory")]
    fn a_missing_program_is_named() {
        Process::spawn("thing", &mut Command::new("/no/such/thing"));
    }
}
