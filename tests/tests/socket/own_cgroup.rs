//! A cgroup of this test's own, so that programs which are attached to "the root" see nobody else's sockets.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use shifter_daemon::doctor;
use shifter_tests::scratch::Scratch;

/// Lays the cgroup over the root that everybody else sees, and becomes the program behind it.
const WRAPPER: &str = r#"#!/bin/sh
exec unshare --mount sh -c 'mount --bind CGROUP ROOT && exec "$@"' wrapper PROGRAM "$@"
"#;

/// The cgroup; this process, and what it starts, is in it until it is dropped.
pub struct OwnCgroup {
    before: PathBuf,
    path: PathBuf,
    scratch: Scratch,
    root: PathBuf,
}

impl OwnCgroup {
    /// Makes it below the cgroup of this process, and goes there.
    #[track_caller]
    pub fn enter() -> Self {
        let root = PathBuf::from(doctor::cgroup2().expect("cgroup v2 is mounted"));
        let own = fs::read_to_string("/proc/self/cgroup").expect("readable");
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
        let before = root.join(own.expect("this process has a cgroup"));
        let path = before.join(format!("shifter-t-{}", std::process::id()));
        fs::create_dir(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
        let this = Self {
            before,
            path,
            scratch: Scratch::new("own-cgroup"),
            root,
        };
        go(&this.path);
        this
    }

    /// A program that runs another one as if this cgroup were the root.
    pub fn wrap(&self, program: &Path) -> PathBuf {
        let text = WRAPPER
            .replace("CGROUP", &self.path.display().to_string())
            .replace("ROOT", &self.root.display().to_string())
            .replace("PROGRAM", &program.display().to_string());
        let wrapper = self.scratch.write("wrapper", text);
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&wrapper, executable).expect("chmod");
        wrapper
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        go(&self.before);
        // What this process has started is gone by now, and so is its last mention in the cgroup.
        for _ in 0..100 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        eprintln!("{} is left behind", self.path.display());
    }
}

fn go(cgroup: &Path) {
    let members = cgroup.join("cgroup.procs");
    let own = std::process::id().to_string();
    fs::write(&members, own).unwrap_or_else(|err| panic!("{}: {err}", members.display()));
}
