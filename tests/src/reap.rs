//! Removes what test processes left that could not clean up themselves, because they were killed.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, umount2},
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::scratch;

/// Removes everything of processes that are no more: processes in their namespaces first, then the
/// namespaces, mounts and directories. What living processes made stays.
pub fn leftovers() {
    remove_if(|owner| !Path::new("/proc").join(owner.to_string()).exists());
}

/// What there is of a process: namespaces and directories.
pub fn belongings(pid: u32) -> Vec<PathBuf> {
    entries()
        .into_iter()
        .filter(|(owner, _)| *owner == pid)
        .map(|(_, path)| path)
        .collect()
}

fn entries() -> Vec<(u32, PathBuf)> {
    let entries = fs::read_dir(scratch::ROOT).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let owner = scratch::owner(entry.file_name().to_str()?)?;
            Some((owner, entry.path()))
        })
        .collect()
}

fn remove_if(is_dead: impl Fn(u32) -> bool) {
    let dead: Vec<PathBuf> = entries()
        .into_iter()
        .filter(|(owner, _)| is_dead(*owner))
        .map(|(_, path)| path)
        .collect();
    for path in dead.iter().filter(|path| path.is_file()) {
        remove_netns(path);
    }
    for path in dead.iter().filter(|path| path.is_dir()) {
        scratch::remove_dir(path);
    }
    if !dead.is_empty() {
        scratch::tidy();
    }
}

/// Kills the processes in a namespace kept at a path, unmounts and removes it. Says on stderr what
/// it could not do.
pub fn remove_netns(path: &Path) {
    if let Some(namespace) = Namespace::of(path) {
        namespace.kill_all();
    }
    match umount2(path, MntFlags::MNT_DETACH) {
        // EINVAL: not mounted, because its maker died between two steps. ENOENT: another process
        // was faster.
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(err) => eprintln!("umount {}: {err}", path.display()),
    }
    let _ = fs::remove_file(path);
}

/// The identity of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace {
    device: u64,
    inode: u64,
}

impl Namespace {
    /// The network namespace a file stands for; `None` if it stands for none.
    pub fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        let namespace = Self {
            device: meta.dev(),
            inode: meta.ino(),
        };
        // All namespaces live on one device; a plain file lives on another.
        let own = fs::metadata("/proc/self/ns/net").ok()?;
        (own.dev() == namespace.device).then_some(namespace)
    }

    /// Processes with their first thread in this namespace.
    pub fn pids(self) -> Vec<Pid> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid: &i32| Self::of(Path::new(&format!("/proc/{pid}/ns/net"))) == Some(self))
            .map(Pid::from_raw)
            .collect()
    }

    /// Kills all processes in this namespace, but never the caller, and waits until they are gone.
    pub fn kill_all(self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let pids: Vec<Pid> = self
                .pids()
                .into_iter()
                .filter(|pid| *pid != Pid::this())
                .collect();
            if pids.is_empty() {
                return;
            }
            if Instant::now() > deadline {
                eprintln!("processes that cannot be killed: {pids:?}");
                return;
            }
            for pid in pids {
                let _ = kill(pid, Signal::SIGKILL);
                collect(pid);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Takes the exit status of a killed process if it is a child, so that no zombie stays.
fn collect(pid: Pid) {
    let deadline = Instant::now() + Duration::from_secs(1);
    while let Ok(WaitStatus::StillAlive) = waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
        if Instant::now() > deadline {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
