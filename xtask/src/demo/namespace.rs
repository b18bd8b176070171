//! A network namespace, kept by a bind mount so that people can look inside with nsenter(1).

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    os::{
        fd::AsRawFd as _,
        unix::{
            fs::MetadataExt as _,
            process::{CommandExt as _, parent_id},
        },
    },
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::{
    errno::Errno,
    libc,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::{
        prctl::set_pdeathsig,
        signal::{Signal, kill},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};

use super::place::{NAMESPACE_SUFFIX, Place};

/// How long killed processes may take to go.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(5);

/// A handle to a network namespace. The namespace is removed with its [`Place`].
#[derive(Clone, Debug)]
pub struct Namespace {
    path: PathBuf,
    file: Arc<File>,
}

impl Namespace {
    /// A new namespace, kept in `place` under `name`.
    ///
    /// # Errors
    /// The kernel refuses it, which takes root outside of a container.
    pub fn new(place: &Place, name: &str) -> anyhow::Result<Self> {
        let path = place.path().join(name).with_extension(NAMESPACE_SUFFIX);
        File::create_new(&path).with_context(|| format!("cannot make {}", path.display()))?;
        // Unsharing changes the calling thread alone; that thread ends here.
        let made = thread::scope(|scope| {
            let made = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).context(
                    "the kernel refuses a network namespace: the demo needs root, outside of a \
                     container",
                )?;
                let own = Path::new("/proc/thread-self/ns/net");
                mount(
                    Some(own),
                    &path,
                    None::<&str>,
                    MsFlags::MS_BIND,
                    None::<&str>,
                )
                .with_context(|| format!("cannot mount a namespace at {}", path.display()))
            });
            made.join()
        });
        match made {
            Ok(result) => result?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self {
            path,
            file: Arc::new(file),
        })
    }

    /// The file that stands for it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs a closure inside, on a thread of its own.
    ///
    /// # Errors
    /// The kernel refuses to enter.
    pub fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        let done = thread::scope(|scope| {
            let inside = scope.spawn(|| -> anyhow::Result<T> {
                setns(&*self.file, CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("cannot enter {}", self.path.display()))?;
                Ok(act())
            });
            inside.join()
        });
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// A command that will run inside, as the leader of a process group of its own, and end with
    /// this process. Only the network is another one: /sys, and with it bpffs, stays as it is.
    ///
    /// It must be started by the main thread: the kernel ends it when the thread that started it
    /// is gone.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.process_group(0).env("PATH", search_path());
        let (file, parent) = (Arc::clone(&self.file), std::process::id());
        let enter = move || {
            set_pdeathsig(Signal::SIGTERM)?;
            // The parent may have ended before the line above.
            if parent_id() != parent {
                return Err(Errno::ESRCH.into());
            }
            // SAFETY: a system call on a descriptor that the closure keeps open.
            match unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: between fork and exec, the closure makes plain system calls only.
        unsafe { command.pre_exec(enter) };
        command
    }
}

/// `PATH`, and the directories of system services where a user's PATH does not reach.
fn search_path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin");
    path
}

/// Kills the processes in the namespace that is kept at `path`, unmounts and removes it. Returns
/// what could not be done.
pub fn remove(path: &Path) -> Vec<String> {
    let mut complaints = Vec::new();
    if let Some(identity) = identity(path)
        && let Err(error) = kill_all(identity)
    {
        complaints.push(format!("{error:#}"));
    }
    match umount2(path, MntFlags::MNT_DETACH) {
        // EINVAL: not mounted, because its maker died between two steps.
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(error) => complaints.push(format!("umount {}: {error}", path.display())),
    }
    complaints
}

/// Device and inode of the network namespace that a file stands for; `None` if it stands for none.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = fs::metadata(path).ok()?;
    // All namespaces live on one device, plain files on others.
    let own = fs::metadata("/proc/self/ns/net").ok()?;
    (own.dev() == found.dev()).then(|| (found.dev(), found.ino()))
}

/// Processes in a network namespace.
fn inhabitants(namespace: (u64, u64)) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| identity(Path::new(&format!("/proc/{pid}/ns/net"))) == Some(namespace))
        .map(Pid::from_raw)
        .collect()
}

fn kill_all(namespace: (u64, u64)) -> anyhow::Result<()> {
    if identity(Path::new("/proc/self/ns/net")) == Some(namespace) {
        bail!("this process is inside the namespace that it should remove");
    }
    let begun = Instant::now();
    loop {
        let pids = inhabitants(namespace);
        if pids.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            bail!("processes that cannot be killed: {pids:?}");
        }
        for pid in pids {
            // It may be gone already, and need not be a child of this process.
            let _ = kill(pid, Signal::SIGKILL);
            let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
        }
        thread::sleep(LOOK);
    }
}
