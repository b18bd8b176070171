//! Control groups of machines.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::scratch;

/// A control group below the caller's own, in every hierarchy that systemd uses: nspawn divides the
/// one it is in between itself and the machine, so two machines must not share one. Empty, and
/// nothing is done, where a systemd rules the groups.
#[derive(Debug)]
pub struct Group {
    dirs: Vec<PathBuf>,
}

impl Group {
    /// A new group, without processes.
    ///
    /// # Panics
    /// If the kernel refuses it.
    pub fn new(name: &str) -> Self {
        if systemd_rules() {
            return Self { dirs: Vec::new() };
        }
        let own = own_groups();
        leftovers(&own);
        let dirs: Vec<PathBuf> = own.iter().map(|dir| dir.join(name)).collect();
        for dir in &dirs {
            fs::create_dir(dir).unwrap_or_else(|err| panic!("{}: {err}", dir.display()));
        }
        Self { dirs }
    }

    /// Lets a command run in it.
    ///
    /// # Panics
    /// If it is gone.
    pub fn enter(&self, command: &mut Command) {
        let open = |dir: &PathBuf| {
            let path = dir.join("cgroup.procs");
            let opened = File::options().write(true).open(&path);
            opened.unwrap_or_else(|err| panic!("{}: {err}", path.display()))
        };
        let files: Vec<File> = self.dirs.iter().map(open).collect();
        // SAFETY: between fork and exec only write is called, a plain system call, on descriptors
        // that live as long as the closure that owns them.
        unsafe {
            command.pre_exec(move || files.iter().try_for_each(|mut file| file.write_all(b"0")));
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.dirs.iter().for_each(|dir| remove(dir));
    }
}

/// Whether PID 1 of this machine is systemd, which owns the control groups then.
pub fn systemd_rules() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Removes groups of test processes that are no more.
fn leftovers(own: &[PathBuf]) {
    for dir in own {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let owner = entry.file_name().to_str().and_then(scratch::owner);
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
                remove(&entry.path());
            }
        }
    }
}

/// Removes a group with those below it, as soon as the last process has left them. Says on stderr
/// if that does not happen.
fn remove(dir: &Path) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Err(err) = remove_tree(dir) {
        if Instant::now() > deadline {
            eprintln!("rmdir {}: {err}", dir.display());
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Files of a group vanish with its directory; only directories can be removed.
fn remove_tree(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}

/// Directories of the caller's groups.
fn own_groups() -> Vec<PathBuf> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    groups(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"))
}

/// The same, from the texts of `cgroup` and `mountinfo`.
fn groups(membership: &str, mounts: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let mounted = mounts.lines().find_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mut left = left.split(' ').skip(3);
            let (root, point) = (left.next()?, left.next()?);
            let mut right = right.split(' ');
            let (kind, options) = (right.next()?, right.nth(1)?);
            let is_it = match controllers {
                "" => kind == "cgroup2",
                "name=systemd" => {
                    kind == "cgroup" && options.split(',').any(|word| word == controllers)
                }
                _ => false,
            };
            is_it.then(|| (root.to_owned(), PathBuf::from(point)))
        });
        let (root, point) = mounted?;
        // A path outside of what is mounted cannot be named; the top of it can.
        let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
        Some(point.join(below))
    };
    membership.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_groups_are_found_in_every_arrangement() {
        const BOTH: &str = "\
30 29 0:26 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
31 29 0:27 / /sys/fs/cgroup/systemd rw,relatime shared:4 - cgroup cgroup rw,name=systemd
32 29 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
        const UNIFIED: &str = "32 29 0:28 /outer /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw\n";
        let rows: &[(&str, &str, &[&str])] = &[
            (
                "8:cpu:/a\n9:name=systemd:/\n0::/b\n",
                BOTH,
                &["/sys/fs/cgroup/systemd/", "/sys/fs/cgroup/unified/b"],
            ),
            ("0::/outer/c\n", UNIFIED, &["/sys/fs/cgroup/c"]),
            ("0::/elsewhere\n", UNIFIED, &["/sys/fs/cgroup/"]),
            ("8:cpu:/a\n", BOTH, &[]),
            ("0::/b\n", "", &[]),
        ];
        for (membership, mounts, expected) in rows {
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(groups(membership, mounts), expected, "{membership}{mounts}");
        }
    }
}
