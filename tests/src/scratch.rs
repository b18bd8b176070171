//! Where tests keep what must vanish again: namespaces and directories, all below one root and named
//! after the process that made them, so that a later run can tell which belong to the dead.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::mount::{MntFlags, umount2};

use crate::reap;

/// Directory of everything below.
pub const ROOT: &str = "/run/shifter-tests";
/// How names in it begin; the process id, a number and a label follow.
const PREFIX: &str = "shifter-t-";

/// The name of something in [`ROOT`], `shifter-t-PID-N-LABEL`, not yet used. The first call of a
/// process removes what dead processes left.
///
/// # Panics
/// If the root cannot be made, which takes the root user.
pub fn claim(label: &str) -> PathBuf {
    static REAPED: Once = Once::new();
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    REAPED.call_once(reap::leftovers);
    if let Err(err) = fs::create_dir_all(ROOT) {
        panic!("{ROOT}: {err}; these tests make network namespaces: run them as root");
    }
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    Path::new(ROOT).join(format!("{PREFIX}{}-{number}-{label}", std::process::id()))
}

/// The process that made an entry of [`ROOT`], by the entry's name.
pub fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// Makes something at a claimed path. Another process may remove the root just then, because it
/// looked empty: that is seen as `NotFound` and repaired.
pub fn create<T>(path: &Path, make: impl Fn(&Path) -> io::Result<T>) -> T {
    for _ in 0..100 {
        match make(path) {
            Ok(made) => return made,
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                let _ = fs::create_dir_all(ROOT);
            }
            Err(err) => panic!("{}: {err}", path.display()),
        }
    }
    panic!(
        "{}: the directory above it vanished again and again",
        path.display()
    );
}

/// Removes the root if nothing is left in it.
pub fn tidy() {
    // Not empty means that somebody still needs it.
    let _ = fs::remove_dir(ROOT);
}

/// A directory that is removed with everything in it, mounts included.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// A new, empty directory.
    ///
    /// # Panics
    /// If it cannot be made, which takes the root user.
    pub fn new(label: &str) -> Self {
        let path = claim(label);
        create(&path, |path| fs::create_dir(path));
        Self { path }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file in it and returns the file's path.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path.join(name);
        fs::write(&path, contents).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove_dir(&self.path);
        tidy();
    }
}

/// Unmounts what is mounted below a directory and removes it. Says on stderr what it could not do:
/// it runs where a panic would hide the first one.
pub fn remove_dir(path: &Path) {
    for mount in mounts_below(path) {
        if let Err(err) = umount2(&mount, MntFlags::MNT_DETACH) {
            eprintln!("umount {}: {err}", mount.display());
        }
    }
    match fs::remove_dir_all(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            eprintln!("rm -r {}: {err}", path.display());
        }
        _ => {}
    }
}

/// Mount points at or below a path, innermost first.
pub fn mounts_below(path: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mount_points(&table)
        .filter(|mount| mount.starts_with(path))
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .collect()
}

/// Mount points in the text of a mountinfo file, in its order.
fn mount_points(table: &str) -> impl Iterator<Item = PathBuf> {
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|field| {
            // Blanks and backslashes stand as octal escapes; shifter's own names have none.
            PathBuf::from(field.replace("\\040", " ").replace("\\134", "\\"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_their_owner() {
        let rows = [
            ("shifter-t-123-0-client", Some(123)),
            ("shifter-t-123-7-a-label-with-dashes", Some(123)),
            ("shifter-t-x-0-client", None),
            ("shifter-t-", None),
            ("another-123-0", None),
        ];
        for (name, expected) in rows {
            assert_eq!(owner(name), expected, "{name}");
        }
        let path = claim("x");
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name");
        assert_eq!(owner(name), Some(std::process::id()));
        assert_ne!(claim("x"), path);
    }

    #[test]
    fn mount_points_are_read_from_mountinfo() {
        let table = "22 1 8:1 / / rw - ext4 /dev/vda rw\n\
                     80 22 0:4 net:[4026532000] /run/shifter-tests/a rw shared:3 - nsfs nsfs rw\n\
                     81 22 0:5 / /mnt/with\\040blank rw - tmpfs tmpfs rw\n";
        let points: Vec<_> = mount_points(table).collect();
        assert_eq!(
            points,
            ["/", "/run/shifter-tests/a", "/mnt/with blank"].map(PathBuf::from)
        );
    }

    #[test]
    fn a_directory_vanishes_with_its_files_and_mounts() {
        let scratch = Scratch::new("gone");
        let path = scratch.path().to_owned();
        scratch.write("file", "text");
        let inner = path.join("mounted");
        fs::create_dir(&inner).expect("mkdir");
        nix::mount::mount(
            Some("none"),
            &inner,
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            None::<&str>,
        )
        .expect("mount a tmpfs");
        assert_eq!(mounts_below(&path), [inner]);
        drop(scratch);
        assert!(!path.exists());
        assert!(mounts_below(&path).is_empty());
    }
}
