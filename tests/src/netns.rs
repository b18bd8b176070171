//! Network namespaces that vanish with their guard.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::Write as _,
    ops::Deref,
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use nix::{
    libc,
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

use crate::{
    reap::{self, Namespace},
    scratch,
};

/// A network namespace with its loopback interface up. It is kept by a bind mount, so that
/// `nsenter --net=FILE` works, and removed on drop, together with every process in it.
#[derive(Debug)]
pub struct Netns {
    path: PathBuf,
    inside: Inside,
}

/// A handle to a namespace, for those who act in it. It keeps the namespace's sockets and interfaces
/// alive, not its name or its processes.
#[derive(Clone, Debug)]
pub struct Inside {
    file: Arc<File>,
}

impl Netns {
    /// A new namespace. The label is for people who look at the file's name.
    ///
    /// # Panics
    /// If it cannot be made, which takes the root user.
    pub fn new(label: &str) -> Self {
        let path = scratch::claim(label);
        scratch::create(&path, |path| File::create_new(path));
        // Unsharing changes the calling thread alone: a thread of its own takes that with it.
        let file = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .unwrap_or_else(|err| panic!("unshare(CLONE_NEWNET): {err}; it takes root"));
            let own = Path::new("/proc/thread-self/ns/net");
            mount(
                Some(own),
                &path,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
            .unwrap_or_else(|err| panic!("bind mount at {}: {err}", path.display()));
            File::open(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
        });
        let inside = Inside {
            file: Arc::new(file),
        };
        let netns = Self { path, inside };
        netns.ip("link set lo up");
        netns
    }

    /// The file that stands for the namespace.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A handle that may outlive this guard.
    pub fn inside(&self) -> Inside {
        self.inside.clone()
    }

    /// Processes inside.
    pub fn pids(&self) -> Vec<nix::unistd::Pid> {
        Namespace::of(&self.path)
            .map(Namespace::pids)
            .unwrap_or_default()
    }
}

impl Deref for Netns {
    type Target = Inside;

    fn deref(&self) -> &Inside {
        &self.inside
    }
}

impl Inside {
    /// Runs a closure on a thread of its own inside the namespace. Sockets it makes stay inside
    /// wherever they are used later.
    ///
    /// # Panics
    /// If the closure does.
    pub fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        on_thread(|| {
            setns(&self.file, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
            act()
        })
    }

    /// A command that will run inside the namespace, as the leader of a process group of its own.
    /// Nothing else is changed: /sys, and with it bpffs, stays as it is outside.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let file = Arc::clone(&self.file);
        let mut command = Command::new(program);
        command.process_group(0);
        // SAFETY: between fork and exec only setns is called, a plain system call; the descriptor
        // lives as long as the closure that owns it.
        unsafe {
            command.pre_exec(
                move || match libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                },
            );
        }
        command
    }

    /// Runs a tool inside the namespace and returns what it printed.
    ///
    /// # Panics
    /// If it cannot be run or fails, with what it said.
    #[track_caller]
    pub fn tool(&self, program: &str, args: &[&str]) -> String {
        self.tool_with_input(program, args, "")
    }

    /// As [`Inside::tool`], with text on its standard input.
    ///
    /// # Panics
    /// If it cannot be run or fails, with what it said.
    #[track_caller]
    pub fn tool_with_input(&self, program: &str, args: &[&str], input: &str) -> String {
        let mut command = self.command(program);
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|err| panic!("{program}: {err}"));
        // A tool that failed at once has closed its input; its own message says why.
        let _ = child
            .stdin
            .take()
            .expect("piped")
            .write_all(input.as_bytes());
        let output = child.wait_with_output().expect("wait for a child");
        assert!(
            output.status.success(),
            "{program} {}: {}\n{}{}{}",
            args.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr),
            if input.is_empty() { "" } else { "input was:\n" },
            input,
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs `ip` with blank-separated arguments and returns what it printed.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn ip(&self, args: &str) -> String {
        self.tool("ip", &args.split_whitespace().collect::<Vec<_>>())
    }

    /// Sets a sysctl, named as sysctl(8) does, such as `net.ipv4.ip_forward`.
    ///
    /// # Panics
    /// If there is no such sysctl or it refuses the value.
    #[track_caller]
    pub fn sysctl(&self, name: &str, value: &str) {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        let written = self.run(|| fs::write(&path, value));
        written.unwrap_or_else(|err| panic!("{} = {value}: {err}", path.display()));
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        reap::remove_netns(&self.path);
        scratch::tidy();
    }
}

/// Runs a closure on a thread of its own and passes on its panic.
fn on_thread<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    let name = thread::current().name().unwrap_or("netns").to_owned();
    thread::scope(|scope| {
        let spawned = thread::Builder::new().name(name).spawn_scoped(scope, act);
        match spawned.expect("start a thread").join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::process::Process;

    #[test]
    fn closures_and_commands_run_inside() {
        let netns = Netns::new("inside");
        let link = |path: &str| fs::read_link(path).expect("a namespace").into_os_string();
        let outside = link("/proc/thread-self/ns/net");
        let inside = netns.run(|| link("/proc/thread-self/ns/net"));
        assert_ne!(inside, outside);
        let seen = netns.tool("readlink", &["/proc/self/ns/net"]);
        assert_eq!(seen.trim(), inside.to_string_lossy());
        let path = format!("--net={}", netns.path().display());
        let entered = Command::new("nsenter")
            .args([&path, "readlink", "/proc/self/ns/net"])
            .output();
        let entered = entered.expect("nsenter").stdout;
        assert_eq!(
            String::from_utf8_lossy(&entered).trim(),
            inside.to_string_lossy()
        );
        assert_eq!(
            link("/proc/thread-self/ns/net"),
            outside,
            "the caller stays outside"
        );
    }

    #[test]
    fn sockets_stay_in_the_namespace_they_were_made_in() {
        let netns = Netns::new("sockets");
        let listener = netns
            .run(|| TcpListener::bind("127.0.0.1:0"))
            .expect("lo is up");
        let addr = listener.local_addr().expect("bound");
        assert!(netns.run(|| TcpStream::connect(addr)).is_ok());
        let other = Netns::new("other");
        let refused = other
            .run(|| TcpStream::connect(addr))
            .expect_err("nobody listens there");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn sysctls_are_those_of_the_namespace() {
        let (one, other) = (Netns::new("one"), Netns::new("other"));
        one.sysctl("net.ipv4.ip_forward", "1");
        other.sysctl("net.ipv4.ip_forward", "0");
        let read = |netns: &Netns| netns.tool("cat", &["/proc/sys/net/ipv4/ip_forward"]);
        assert_eq!((read(&one).trim(), read(&other).trim()), ("1", "0"));
    }

    #[test]
    #[should_panic(expected = "/proc/sys/net/ipv4/no_such_thing = 1: No such file or directory")]
    fn an_unknown_sysctl_is_named() {
        Netns::new("sysctl").sysctl("net.ipv4.no_such_thing", "1");
    }

    #[test]
    #[should_panic(expected = "ip link set nothing up: exit status: 1\nCannot find device")]
    fn a_failed_tool_says_why() {
        Netns::new("tool").ip("link set nothing up");
    }

    #[test]
    #[should_panic(expected = "no-such-program: No such file or directory")]
    fn a_missing_tool_is_named() {
        Netns::new("tool").tool("no-such-program", &[]);
    }

    #[test]
    #[should_panic(expected = "said inside")]
    fn a_panic_inside_comes_out() {
        Netns::new("panic").run(|| panic!("said inside"));
    }

    /// Processes die with the namespace: those with a guard, those without, those in a group of
    /// their own.
    #[test]
    fn dropping_removes_the_file_the_mount_and_the_processes() {
        let netns = Netns::new("drop");
        let path = netns.path().to_owned();
        let guarded = Process::spawn("guarded", netns.command("sleep").arg("60"));
        let mut loose = netns
            .command("sh")
            .args(["-c", "setsid sleep 60 & sleep 60"])
            .spawn()
            .expect("sh");
        let namespace = Namespace::of(&path).expect("mounted");
        while namespace.pids().len() < 4 {
            thread::sleep(std::time::Duration::from_millis(1));
        }
        drop(netns);
        assert!(!path.exists());
        assert!(scratch::mounts_below(&path).is_empty());
        assert!(!guarded.is_running());
        assert_eq!(namespace.pids(), []);
        // The namespace's guard has taken the exit status already.
        assert!(loose.wait().is_err());
    }

    #[test]
    fn a_panic_removes_the_namespace_too() {
        let path = thread::spawn(|| {
            let netns = Netns::new("unwound");
            let path = netns.path().to_owned();
            std::panic::panic_any(path);
        });
        let path = path
            .join()
            .expect_err("it panics")
            .downcast::<PathBuf>()
            .expect("a path");
        assert!(!path.exists());
        assert!(scratch::mounts_below(&path).is_empty());
    }
}
