//! The one directory of a demo, named after its process, so that a later demo can tell whether
//! whoever made it still lives.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};

use super::namespace;

/// Where the directories of demos are: owned by root all the way up, as shifterd wants it of the
/// files that steer traffic.
const ROOT: &str = "/run";
/// How their names begin; the process id and its start time follow.
const PREFIX: &str = "shifter-demo-";
/// How the files that stand for network namespaces end.
pub const NAMESPACE_SUFFIX: &str = "net";

/// A directory that vanishes with everything in it: processes in the namespaces that are kept in
/// it, those namespaces, mounts and files.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
}

impl Place {
    /// Makes the directory of this process.
    ///
    /// # Errors
    /// It cannot be made, which takes root.
    pub fn claim() -> anyhow::Result<Self> {
        let pid = std::process::id();
        let start_ticks = start_ticks(pid).context("/proc does not show this process")?;
        let path = Path::new(ROOT).join(name(pid, start_ticks));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a directory in it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn directory(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// Writes a file in it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, name: &str, content: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Mounts a BPF file system of its own in it: what is pinned there vanishes with it.
    ///
    /// # Errors
    /// The kernel refuses the mount.
    pub fn mount_bpffs(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.directory(name)?;
        mount(
            Some("bpf"),
            &path,
            Some("bpf"),
            MsFlags::empty(),
            None::<&str>,
        )
        .with_context(|| {
            format!(
                "cannot mount a BPF file system at {}: the kernel needs CONFIG_BPF_SYSCALL, \
                     and a container must be left",
                path.display()
            )
        })?;
        Ok(path)
    }

    /// Removes everything.
    ///
    /// # Errors
    /// Something cannot be removed; the error names each such thing.
    pub fn remove(self) -> anyhow::Result<()> {
        let complaints = remove(&self.path);
        if !complaints.is_empty() {
            bail!("cannot clean up:\n  {}", complaints.join("\n  "));
        }
        Ok(())
    }
}

impl Drop for Place {
    /// After a panic. Another one in here would end the process before all is removed.
    fn drop(&mut self) {
        complain(&remove(&self.path));
    }
}

fn complain(complaints: &[String]) {
    for complaint in complaints {
        let _ = writeln!(io::stderr(), "cannot clean up: {complaint}");
    }
}

/// Removes what demos left that were killed before they could clean up. Returns their process ids.
pub fn clear_leftovers() -> Vec<u32> {
    let entries = fs::read_dir(ROOT).into_iter().flatten().flatten();
    let mut cleared = Vec::new();
    for entry in entries {
        let Some((pid, started)) = entry.file_name().to_str().and_then(owner) else {
            continue;
        };
        // Another process may have got the number since.
        if start_ticks(pid) == Some(started) {
            continue;
        }
        let complaints = remove(&entry.path());
        complain(&complaints);
        if complaints.is_empty() {
            cleared.push(pid);
        }
    }
    cleared
}

/// Removes a demo's directory with everything in it; returns what could not be removed, and why.
fn remove(path: &Path) -> Vec<String> {
    let mut complaints = Vec::new();
    let files = fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    for file in files.filter(|file| file.extension().is_some_and(|end| end == NAMESPACE_SUFFIX)) {
        complaints.extend(namespace::remove(&file));
    }
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for mount in mounts_below(&table, path) {
        match umount2(&mount, MntFlags::MNT_DETACH) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(error) => complaints.push(format!("umount {}: {error}", mount.display())),
        }
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            complaints.push(format!("rm -r {}: {error}", path.display()));
        }
        _ => {}
    }
    complaints
}

fn name(pid: u32, start_ticks: u64) -> String {
    format!("{PREFIX}{pid}-{start_ticks}")
}

/// Process id and start time of the process that made a directory, by its name.
fn owner(name: &str) -> Option<(u32, u64)> {
    let (pid, start_ticks) = name.strip_prefix(PREFIX)?.split_once('-')?;
    Some((pid.parse().ok()?, start_ticks.parse().ok()?))
}

/// When a process began, in clock ticks since boot; `None` if there is no such process.
fn start_ticks(pid: u32) -> Option<u64> {
    parse_start(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The start time in the text of `/proc/PID/stat`; `None` for a process that has ended and only
/// waits for its parent to look at it.
fn parse_start(stat: &str) -> Option<u64> {
    // The name, in parentheses, may hold blanks and parentheses itself.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    let start_ticks = fields.nth(18)?.parse().ok()?;
    (!["Z", "X"].contains(&state)).then_some(start_ticks)
}

/// Mount points at or below a path in the text of a mountinfo file, innermost first.
fn mounts_below(table: &str, path: &Path) -> Vec<PathBuf> {
    let points = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from);
    let mut below: Vec<PathBuf> = points.filter(|point| point.starts_with(path)).collect();
    below.reverse();
    below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_their_owner() {
        assert_eq!(owner(&name(123, 4567)), Some((123, 4567)));
        for foreign in [
            "shifter-demo-",
            "shifter-demo-1",
            "shifter-demo-x-1",
            "shifter",
            "1-2",
        ] {
            assert_eq!(owner(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn start_times_are_read_from_stat() {
        let tail = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4567 20 21";
        let rows = [
            (format!("12 (xtask) S {tail}"), Some(4567)),
            (format!("12 (a) b (c)) R {tail}"), Some(4567)),
            (format!("12 (xtask) Z {tail}"), None),
            ("12 (xtask) S 1 2".to_owned(), None),
            (String::new(), None),
        ];
        for (stat, expected) in rows {
            assert_eq!(parse_start(&stat), expected, "{stat}");
        }
        let own = std::process::id();
        assert!(start_ticks(own).is_some_and(|ticks| ticks > 0));
    }

    #[test]
    fn mounts_are_listed_innermost_first() {
        let table = "22 1 8:1 / / rw - ext4 /dev/vda rw\n\
                     80 22 0:4 net:[1] /run/shifter-demo-1-2/host.net rw - nsfs nsfs rw\n\
                     81 22 0:5 / /run/shifter-demo-1-2/bpf rw - bpf bpf rw\n\
                     82 22 0:5 / /run/shifter-demo-1-23/bpf rw - bpf bpf rw\n";
        let expected =
            ["bpf", "host.net"].map(|name| Path::new("/run/shifter-demo-1-2").join(name));
        assert_eq!(
            mounts_below(table, Path::new("/run/shifter-demo-1-2")),
            expected
        );
    }
}
