//! `cargo xtask demo` as people run it, without a terminal: what it says at the end, and that it
//! leaves nothing behind, however it ends. What it shows is built already.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use shifter_tests::{
    process::Process,
    reap::Namespace,
    scratch::{self, Scratch},
};

/// A demo of one second for each weight takes some 15 s.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

/// A demo that runs.
struct Demo {
    process: Process,
    log: PathBuf,
    _scratch: Scratch,
}

/// What a demo has while it runs.
#[derive(Debug)]
struct Belongings {
    directory: PathBuf,
    namespaces: Vec<Namespace>,
    pids: Vec<Pid>,
}

/// Where xtask, shifterd, shifterctl and the load client are.
fn binaries() -> PathBuf {
    let given = env::var_os("SHIFTER_BIN_DIR").map(PathBuf::from);
    given.unwrap_or_else(|| {
        let own = env::current_exe().expect("a running test has a program");
        own.ancestors()
            .nth(2)
            .expect("it lies in DIRECTORY/deps")
            .to_owned()
    })
}

/// The command of a demo of what lies in a directory, a second for each weight.
fn command(shown: &Path) -> Command {
    let binaries = binaries();
    for name in ["xtask", "shifterd", "shifterctl", "shifter-load"] {
        let path = binaries.join(name);
        let help = "run: cargo build --workspace --exclude shifter-ebpf --bins";
        assert!(path.exists(), "{} is missing: {help}", path.display());
    }
    let mut command = Command::new(binaries.join("xtask"));
    command
        .args(["demo", "--seconds", "1", "--binaries"])
        .arg(shown);
    command
}

impl Demo {
    fn start(mut command: Command) -> Self {
        let scratch = Scratch::new("demo");
        let log = scratch.path().join("demo.log");
        let process = Process::spawn_logged("demo", &mut command, &log);
        Self {
            process,
            log,
            _scratch: scratch,
        }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until the demo has said something, and returns what it has then.
    fn wait_until_said(&self, text: &str) -> Belongings {
        self.wait_until(text, || self.said().contains(text));
        self.belongings()
    }

    fn wait_until(&self, what: &str, done: impl Fn() -> bool) {
        let begun = Instant::now();
        loop {
            // What is said last is said by a process that has ended when it is read.
            let going_on = self.process.is_running() && begun.elapsed() < PATIENCE;
            if done() {
                return;
            }
            assert!(
                going_on,
                "no \"{what}\" in what the demo says:\n{}",
                self.said()
            );
            thread::sleep(LOOK);
        }
    }

    /// The directory that is named after the process.
    fn directory(&self) -> Option<PathBuf> {
        let prefix = format!("shifter-demo-{}-", self.process.pid());
        let entries = fs::read_dir("/run").expect("there is a /run").flatten();
        let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names
            .find(|name| name.starts_with(&prefix))
            .map(|name| Path::new("/run").join(name))
    }

    fn belongings(&self) -> Belongings {
        Belongings::of(self.directory().expect("the demo has a directory"))
    }

    /// Waits for the end; returns the exit code and what was said.
    fn end(mut self) -> (Option<i32>, String) {
        let status = self.process.wait(PATIENCE);
        (status.code(), self.said())
    }
}

impl Belongings {
    fn of(directory: PathBuf) -> Self {
        let files = ["client.net", "host.net"].map(|name| directory.join(name));
        let namespaces: Vec<_> = files
            .iter()
            .filter_map(|file| Namespace::of(file))
            .collect();
        let pids = namespaces.iter().flat_map(|one| one.pids()).collect();
        Belongings {
            directory,
            namespaces,
            pids,
        }
    }

    /// A client and a host; two nginx with a worker each, shifterd and the load client.
    fn assert_complete(&self) {
        assert_eq!((self.namespaces.len(), self.pids.len()), (2, 6), "{self:?}");
        assert_eq!(scratch::mounts_below(&self.directory).len(), 3, "{self:?}");
    }

    #[track_caller]
    fn assert_gone(&self, said: &str) {
        assert!(!self.directory.exists(), "{self:?} after:\n{said}");
        let mounts = scratch::mounts_below(&self.directory);
        assert!(mounts.is_empty(), "{mounts:?} after:\n{said}");
        for namespace in &self.namespaces {
            assert_eq!(namespace.pids(), [], "{self:?} after:\n{said}");
        }
        for pid in &self.pids {
            assert!(!lives(*pid), "{pid} of {self:?} lives on after:\n{said}");
        }
    }
}

/// Whether a process does anything still. One that has ended, but whose new parent has not looked
/// at it yet, does not.
fn lives(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, fields)| !fields.starts_with('Z'))
}

/// The last lines that were said.
fn last(said: &str, count: usize) -> Vec<&str> {
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(count)..].to_vec()
}

/// A demo that is killed cannot clean up; its processes end with it, and the next demo removes the
/// rest. That one shows everything, and leaves nothing.
#[test]
fn a_whole_demo_after_one_that_was_killed() {
    let killed = Demo::start(command(&binaries()));
    let left = killed.wait_until_said("set-weight demo 25%");
    left.assert_complete();
    let killed_pid = killed.process.pid();
    killed.process.signal(Signal::SIGKILL);
    assert_eq!(killed.end().0, None);
    assert!(left.directory.exists(), "nobody was there to remove it");
    let begun = Instant::now();
    while left.pids.iter().any(|pid| lives(*pid)) {
        assert!(begun.elapsed() < PATIENCE, "{left:?} outlive the demo");
        thread::sleep(LOOK);
    }

    let demo = Demo::start(command(&binaries()));
    let belongings = demo.wait_until_said("set-weight demo 100%");
    belongings.assert_complete();
    let (code, said) = demo.end();
    assert_eq!(code, Some(0), "{said}");
    belongings.assert_gone(&said);
    left.assert_gone(&said);

    let line = format!("removed what a demo that was killed left behind (process {killed_pid})");
    assert_eq!(said.lines().next(), Some(&*line), "{said}");
    for (weight, share) in [("5%", "5 %"), ("25%", "25 %"), ("100%", "100 %")] {
        assert!(
            said.contains(&format!("\n$ shifterctl set-weight demo {weight}\n")),
            "{said}"
        );
        let seconds = said
            .lines()
            .filter(|line| line.contains(&format!(" s {share:>9} ")));
        assert!(seconds.count() >= 2, "two seconds with {share}:\n{said}");
    }
    assert!(
        said.contains("\nby: shifterd, reason: not ready\n"),
        "{said}"
    );
    assert!(
        said.contains("  version 2's share of new connections: 25 % -> 0 %\n"),
        "{said}"
    );
    let wide = said
        .lines()
        .find(|line| line.chars().count() > 80 && !line.contains("--watch"));
    assert_eq!(wide, None);
    assert!(
        !said.contains('\x1b'),
        "no escape sequences without a terminal:\n{said}"
    );

    let closing = last(&said, 5);
    assert!(closing[0].is_empty(), "{said}");
    let rollback = "rollback  by: shifterd, reason: not ready, ";
    assert!(closing[1].starts_with(rollback), "{said}");
    assert!(
        closing[2].starts_with("          version 2 accepted "),
        "{said}"
    );
    assert!(closing[3].starts_with("requests  "), "{said}");
    assert!(closing[3].contains(" sent, 0 failed, "), "{said}");
    assert_eq!(
        closing[4], "machine   as it was: everything the demo made is removed",
        "{said}"
    );

    // What the clients saw: all of it before, a quarter, nothing after.
    let table: Vec<Vec<&str>> = said
        .lines()
        .skip_while(|line| *line != "Summary")
        .skip(2)
        .take(6)
        .map(|line| line.split_whitespace().collect())
        .collect();
    let share = |row: usize| table[row][4].parse::<f64>().expect("a share of version 2");
    assert_eq!([share(0), share(3)], [0.0, 100.0], "{said}");
    assert!((15.0..35.0).contains(&share(2)), "{said}");
    assert!((15.0..35.0).contains(&share(4)), "{said}");
    assert!(share(5) < 0.5, "version 2 is out:\n{said}");
}

#[test]
fn an_interrupt_at_any_time_leaves_nothing() {
    let rows = [
        (Signal::SIGHUP, "steers new connections in the kernel"),
        (Signal::SIGINT, "set-weight demo 5%"),
        (Signal::SIGTERM, "Nobody touches the weight"),
    ];
    for (signal, text) in rows {
        let demo = Demo::start(command(&binaries()));
        let belongings = demo.wait_until_said(text);
        demo.process.signal(signal);
        let (code, said) = demo.end();
        assert_eq!(code, Some(130), "{signal} at \"{text}\":\n{said}");
        let closing = ["interrupted; everything the demo made is removed"];
        assert_eq!(last(&said, 1), closing, "{signal} at \"{text}\":\n{said}");
        belongings.assert_gone(&said);
    }
}

/// Interrupts while things are only half there.
#[test]
fn an_interrupt_during_the_start_leaves_nothing() {
    for file in ["", "host.net", "version-1", "bpf", "shifterd.log"] {
        let demo = Demo::start(command(&binaries()));
        let appeared = || {
            demo.directory()
                .is_some_and(|directory| directory.join(file).exists())
        };
        demo.wait_until(file, appeared);
        let belongings = demo.belongings();
        demo.process.signal(Signal::SIGINT);
        let (code, said) = demo.end();
        assert_eq!(code, Some(130), "at {file}:\n{said}");
        belongings.assert_gone(&said);
    }
}

#[test]
fn a_process_that_ends_too_early_is_named_with_its_log() {
    let demo = Demo::start(command(&binaries()));
    let belongings = demo.wait_until_said("set-weight demo 5%");
    let name = |pid: &Pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let shifterd = belongings
        .pids
        .iter()
        .find(|pid| name(pid).trim() == "shifterd");
    kill(*shifterd.expect("shifterd runs"), Signal::SIGKILL).expect("kill");
    let (code, said) = demo.end();
    assert_eq!(code, Some(1), "{said}");
    let error = "error: shifterd has ended (SIGKILL); the end of its log:\n  | ";
    assert!(said.contains(error), "{said}");
    belongings.assert_gone(&said);
}

/// On a terminal the table is redrawn in place. Requests that fail are counted, and are a failure.
#[test]
fn failed_requests_are_told_on_a_terminal_too() {
    let mut line = OsString::from("stty cols 80 rows 24; NO_COLOR=1 exec ");
    let command = command(&binaries());
    for word in std::iter::once(command.get_program()).chain(command.get_args()) {
        line.push("'");
        line.push(word);
        line.push("' ");
    }
    // script(1) gives its command a terminal.
    let mut script = Command::new("script");
    script
        .args(["--quiet", "--return", "--flush", "--command"])
        .arg(line)
        .arg("/dev/null");
    script.env("TERM", "xterm");
    let demo = Demo::start(script);
    // At 100 % nothing would be answered any more, which ends a demo at once.
    let back = "set-weight demo 25%";
    demo.wait_until("the way back", || demo.said().matches(back).count() == 2);
    let said = demo.said();
    let (_, rest) = said
        .split_once("SHIFTER_SOCKET=")
        .expect("the socket is shown");
    let socket = rest.lines().next().expect("a line").trim_end();
    let directory = Path::new(socket)
        .parent()
        .expect("it lies in the demo's directory");
    let belongings = Belongings::of(directory.to_owned());
    belongings.assert_complete();

    // From now on version 2 answers all but its probe with 500.
    let config = directory.join("version-2/nginx.conf");
    let text = fs::read_to_string(&config).expect("nginx has a configuration");
    let broken = text.replace("return 200 \"version 2", "return 500 \"version 2");
    assert_ne!(broken, text);
    fs::write(&config, broken).expect("write");
    let pid = fs::read_to_string(directory.join("version-2/nginx.pid")).expect("nginx runs");
    let pid = Pid::from_raw(pid.trim().parse().expect("a number"));
    kill(pid, Signal::SIGHUP).expect("kill");

    let (code, said) = demo.end();
    assert_eq!(code, Some(1), "{said}");
    belongings.assert_gone(&said);
    let error = last(&said, 1)[0].strip_prefix("error: ").expect("an error");
    let (count, rest) = error.split_once(' ').expect("words");
    assert_eq!(rest, "requests failed; none should", "{said}");
    assert!(count.parse::<u64>().expect("a count") > 100, "{said}");
    assert!(said.contains("\r\nrequests  "), "{said}");
    assert!(!said.contains(" sent, 0 failed"), "{said}");
    assert!(
        said.contains("status 500\r\n"),
        "the first failures are told:\n{said}"
    );
    assert!(said.contains("\x1b[4A\x1b[J  version   asked"), "{said}");
    assert!(!said.contains("\x1b[3"), "no colour:\n{said}");
}

#[test]
fn a_program_that_is_missing_is_named() {
    let demo = Demo::start(command(Path::new("/nonexistent")));
    let (code, said) = demo.end();
    assert_eq!(code, Some(1), "{said}");
    let error = "error: cannot start shifterd (/nonexistent/shifterd): No such file or directory";
    assert!(said.contains(error), "{said}");
}

/// `cargo xtask demo | head -3`
#[test]
fn nobody_who_reads_is_an_end_too() {
    let mut command = command(&binaries());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut process = Process::spawn("demo", &mut command);
    drop(process.child().stdout.take());
    let pid = process.pid();
    let status = process.wait(PATIENCE);
    assert_eq!(status.code(), Some(1));
    let mut said = String::new();
    let stderr = process.child().stderr.as_mut().expect("a pipe");
    std::io::Read::read_to_string(stderr, &mut said).expect("text");
    assert!(
        said.starts_with("error: nobody reads the demo any more: "),
        "{said}"
    );
    let prefix = format!("shifter-demo-{pid}-");
    let names = fs::read_dir("/run").expect("there is a /run").flatten();
    let mut names = names.filter_map(|entry| entry.file_name().into_string().ok());
    assert_eq!(names.find(|name| name.starts_with(&prefix)), None);
}
