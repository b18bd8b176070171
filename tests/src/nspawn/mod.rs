//! Machines with a real systemd as PID 1: containers of systemd-nspawn in a network namespace of a
//! world, gone with everything that was written in them.

mod group;
mod image;

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MsFlags, mount},
    sys::{
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::Pid,
};

use self::group::Group;
use crate::{netns::Netns, process::Process, scratch::Scratch};

/// How long a boot, or going down, may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a command inside may take, seconds.
const COMMAND_LIMIT_S: &str = "100";
/// With this exit code nspawn tells that the machine wants to be started again.
const WANTS_REBOOT: i32 = 133;
/// systemd mounts it where it runs on bare metal, and leaves it out in containers; a mount unit for
/// it is refused.
const BPFFS_UNIT: &str = "\
[Unit]
DefaultDependencies=no
Before=sysinit.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/mount -t bpf -o mode=700 bpf /sys/fs/bpf
";

/// A machine. Its processes end with this guard, and its files go.
#[derive(Debug)]
pub struct Machine {
    netns: PathBuf,
    nspawn: Option<Process>,
    leader: Option<Pid>,
    // Dropped after the processes.
    group: Group,
    scratch: Scratch,
}

/// How a command inside ended, and what it said.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Its exit status.
    pub status: ExitStatus,
    /// Standard output and standard error, in this order.
    pub said: String,
}

impl Machine {
    /// The files of a machine that will live in a namespace; nothing runs yet. The first machine
    /// on a host takes a minute or two, in which its system is downloaded.
    ///
    /// # Panics
    /// If there is no debootstrap, it fails, or the kernel refuses a mount.
    pub fn prepare(netns: &Netns) -> Self {
        let image = image::ensure();
        let scratch = Scratch::new("machine");
        // On a file system of its own, because what /run is made of may not do for an overlay.
        let on = |source, target: &Path, kind, options: &str| {
            let mounted = mount(
                Some(source),
                target,
                Some(kind),
                MsFlags::empty(),
                Some(options),
            );
            mounted.unwrap_or_else(|err| panic!("mount {kind} at {}: {err}", target.display()));
        };
        on("machine", scratch.path(), "tmpfs", "size=1g,mode=700");
        let [upper, work, root] = ["upper", "work", "root"].map(|name| {
            let dir = scratch.path().join(name);
            // The machine's / is what "upper" is: open to all, whatever this process's umask says.
            fs::create_dir(&dir)
                .and_then(|()| fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)))
                .unwrap_or_else(|err| panic!("{}: {err}", dir.display()));
            dir
        });
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            image.display(),
            upper.display(),
            work.display()
        );
        on("machine", &root, "overlay", &options);
        let name = scratch.path().file_name().unwrap_or_default();
        let machine = Self {
            netns: netns.path().to_owned(),
            nspawn: None,
            leader: None,
            group: Group::new(&name.to_string_lossy()),
            scratch,
        };
        machine.write("/etc/systemd/system/bpffs.service", BPFFS_UNIT);
        let wants = machine.path("/etc/systemd/system/sysinit.target.wants");
        fs::create_dir_all(&wants)
            .and_then(|()| symlink("../bpffs.service", wants.join("bpffs.service")))
            .unwrap_or_else(|err| panic!("{}: {err}", wants.display()));
        machine
    }

    /// Where a file of the machine is, seen from outside. What is mounted inside does not show.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.scratch
            .path()
            .join("root")
            .join(inside.trim_start_matches('/'))
    }

    /// Where anything in the machine is, seen from outside, with what is mounted inside.
    ///
    /// # Panics
    /// If it does not run.
    #[track_caller]
    pub fn live_path(&self, inside: &str) -> PathBuf {
        Path::new("/proc")
            .join(self.leader().to_string())
            .join("root")
            .join(inside.trim_start_matches('/'))
    }

    /// Writes a file in a directory that exists.
    ///
    /// # Panics
    /// If it cannot be written.
    #[track_caller]
    pub fn write(&self, inside: &str, text: &str) {
        let path = self.path(inside);
        fs::write(&path, text).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
    }

    /// Copies a file into a directory that exists, for everybody to read, as `install` does.
    ///
    /// # Panics
    /// If it cannot be copied.
    #[track_caller]
    pub fn install(&self, from: &Path, inside: &str, mode: u32) {
        let path = self.path(inside);
        fs::copy(from, &path)
            .and_then(|_| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
            .unwrap_or_else(|err| panic!("{} to {}: {err}", from.display(), path.display()));
    }

    /// Starts PID 1 and waits until it has started everything.
    ///
    /// # Panics
    /// If it runs, or does not come up in time, with the last words of its console.
    #[track_caller]
    pub fn boot(&mut self) {
        assert!(self.nspawn.is_none(), "the machine runs already");
        let mut command = launcher();
        command
            .args(["--quiet", "--boot", "--keep-unit", "--register=no"])
            .args(["--capability=all", "--system-call-filter=bpf"])
            .args(["--console=pipe", "--link-journal=no", "--timezone=off"])
            .args(["--resolv-conf=off", "--machine", &self.name(), "-D"])
            .arg(self.path("/"));
        command.arg(format!("--network-namespace-path={}", self.netns.display()));
        self.group.enter(&mut command);
        let log = self.scratch.path().join("console");
        self.nspawn = Some(Process::spawn_logged("systemd-nspawn", &mut command, &log));
        let deadline = Instant::now() + PATIENCE;
        let mut seen = "no PID 1".to_owned();
        while !["running", "degraded"].contains(&seen.trim()) {
            let console = self.nspawn.as_ref().expect("just started");
            assert!(
                console.is_running() && Instant::now() < deadline,
                "the machine does not come up: {seen}; its console:\n{}",
                console.log()
            );
            thread::sleep(Duration::from_millis(50));
            self.leader = first_process(console.pid());
            if self.leader.is_some() {
                seen = self.run(&["systemctl", "is-system-running"]).said;
            }
        }
    }

    /// Goes down as `systemctl reboot` lets it, and comes up again.
    ///
    /// # Panics
    /// If it does not go down, or not come up, in time.
    #[track_caller]
    pub fn reboot(&mut self) {
        // It may be killed by what it has asked for, before it can say that all is well.
        let _ = self.run(&["systemctl", "reboot"]);
        self.leader = None;
        let nspawn = self.nspawn.take();
        let ended = nspawn.expect("it runs").wait(PATIENCE);
        assert_eq!(ended.code(), Some(WANTS_REBOOT), "systemd-nspawn: {ended}");
        self.boot();
    }

    /// Runs a command inside.
    ///
    /// # Panics
    /// If the machine does not run.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> Ran {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.leader()))
            .args(["--mount", "--uts", "--ipc", "--net", "--pid"])
            .args(["--root", "--wd", "--", "timeout", COMMAND_LIMIT_S])
            .args(words);
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .env("SYSTEMD_PAGER", "cat")
            .stdin(Stdio::null());
        let output = command
            .output()
            .unwrap_or_else(|err| panic!("nsenter: {err}"));
        let [out, err] = [output.stdout, output.stderr]
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Ran {
            status: output.status,
            said: out + &err,
        }
    }

    /// Runs a command inside that must succeed, and returns what it said, without the last line's
    /// end.
    ///
    /// # Panics
    /// If it fails, with what it said.
    #[track_caller]
    pub fn tool(&self, words: &[&str]) -> String {
        let Ran { status, said } = self.run(words);
        assert!(status.success(), "{}: {status}\n{said}", words.join(" "));
        said.trim_end().to_owned()
    }

    /// What a unit has said since the machine came up.
    pub fn journal(&self, unit: &str) -> String {
        let words = ["journalctl", "--boot", "--output=cat", "--unit", unit];
        self.run(&words).said
    }

    fn name(&self) -> String {
        let name = self.scratch.path().file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    #[track_caller]
    fn leader(&self) -> Pid {
        self.leader
            .unwrap_or_else(|| panic!("the machine does not run"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if thread::panicking() && self.leader.is_some() {
            let words = ["journalctl", "--boot", "--no-hostname", "--lines=200"];
            eprintln!("---- journal ----\n{}---- end ----", self.run(&words).said);
        }
        // PID 1 first: with it go all processes inside, and nspawn tidies up. The other way round
        // they would live on.
        let leader = self.leader.take();
        if let Some(leader) = leader {
            let _ = kill(leader, Signal::SIGKILL);
        }
        if let Some(nspawn) = self.nspawn.take() {
            let deadline = Instant::now() + Duration::from_secs(10);
            while leader.is_some() && nspawn.is_running() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
        }
        if let Some(leader) = leader {
            // Only if nspawn had to be killed is it ours to collect.
            let _ = waitpid(leader, None);
        }
        let propagated = Path::new("/run/systemd/nspawn/propagate").join(self.name());
        let _ = fs::remove_dir(propagated);
    }
}

/// systemd-nspawn as the leader of a control group that it may divide. Where systemd rules, it is
/// asked for one; elsewhere [`Group`] makes it.
fn launcher() -> Command {
    if !group::systemd_rules() {
        return Command::new("systemd-nspawn");
    }
    let mut command = Command::new("systemd-run");
    command
        .args(["--quiet", "--scope", "--collect", "--property=Delegate=yes"])
        .args(["--", "systemd-nspawn"]);
    command
}

/// The child of a process that is PID 1 in a namespace of its own, once it is systemd.
fn first_process(parent: Pid) -> Option<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let found = pids.find(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |name: &str| {
            let mut lines = status.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        };
        field("PPid").map(str::trim) == Some(&parent.to_string())
            && field("NSpid")
                .is_some_and(|pids| pids.split_whitespace().skip(1).last() == Some("1"))
            && field("Name").map(str::trim) == Some("systemd")
    });
    found.map(Pid::from_raw)
}
