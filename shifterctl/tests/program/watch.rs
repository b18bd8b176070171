//! `status --watch` without a terminal.

use std::{
    io::{BufRead, BufReader, Lines, Read},
    path::Path,
    process::{Child, ChildStdout, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::support::{Answer, Fake, shifterctl};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

const STATUS: &str = include_str!("../data/status.json");

/// A watch that is running; killed if the test fails.
struct Watch {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watch {
    fn start(socket: &Path, args: &[&str]) -> Self {
        let mut child = shifterctl()
            .arg("--socket")
            .arg(socket)
            .args([
                "status",
                "-w",
                "--interval",
                "20ms",
                "--request-timeout",
                "5s",
            ])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line for which this holds.
    fn find(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        self.lines
            .by_ref()
            .map(Result::unwrap)
            .find(|line| wanted(line))
            .unwrap()
    }

    /// Ctrl-C; exit code and standard error.
    fn interrupt(mut self) -> (Option<i32>, String) {
        kill(
            Pid::from_raw(self.child.id().try_into().unwrap()),
            Signal::SIGINT,
        )
        .unwrap();
        let code = self.child.wait().unwrap().code();
        let mut err = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut err)
            .unwrap();
        (code, err)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn blocks_follow_each_other_until_ctrl_c() {
    let fake = Fake::ok(STATUS);
    let mut watch = Watch::start(&fake.socket, &["orders"]);
    let title = watch.find(|line| line.contains("every 20ms"));
    assert!(
        title.ends_with(", every 20ms, shares since the first use; Ctrl-C ends"),
        "{title}"
    );
    // The counters stand still, so that from the second block on there is no share.
    let row = |line: &str| line.starts_with("  a baseline");
    assert!(watch.find(row).contains(" 95.0 % "));
    let title = watch.find(|line| line.contains("every 20ms"));
    assert!(title.contains("shares of the last "), "{title}");
    assert!(watch.find(row).contains(" - "));
    assert_eq!(watch.interrupt(), (Some(0), String::new()));
}

#[test]
fn json_is_one_document_a_line() {
    let fake = Fake::ok(STATUS);
    let sent: Value = serde_json::from_str(STATUS).unwrap();
    let mut watch = Watch::start(&fake.socket, &["-o", "json"]);
    for _ in 0..2 {
        let line = watch.find(|_| true);
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), sent);
    }
    assert_eq!(watch.interrupt().0, Some(0));
    let mut watch = Watch::start(&fake.socket, &["-o", "json", "orders"]);
    let line = watch.find(|_| true);
    assert_eq!(
        serde_json::from_str::<Value>(&line).unwrap(),
        sent["services"][2]
    );
}

#[test]
fn a_daemon_that_restarts_is_waited_for() {
    let gone = Arc::new(AtomicBool::new(false));
    let hung_up_count = Arc::new(AtomicUsize::new(0));
    let (seen, hung_up) = (Arc::clone(&gone), Arc::clone(&hung_up_count));
    let fake = Fake::start_with(move |_| {
        if !seen.load(Ordering::SeqCst) {
            return Answer::Json(200, STATUS.into());
        }
        hung_up.fetch_add(1, Ordering::SeqCst);
        Answer::Raw(Vec::new())
    });
    let mut watch = Watch::start(&fake.socket, &[]);
    watch.find(|line| line.contains("every 20ms"));
    gone.store(true, Ordering::SeqCst);
    while hung_up_count.load(Ordering::SeqCst) < 2 {
        std::thread::sleep(Duration::from_millis(5));
    }
    gone.store(false, Ordering::SeqCst);
    watch.find(|line| line.contains("every 20ms"));
    let (code, err) = watch.interrupt();
    assert_eq!(code, Some(0));
    assert!(
        err.starts_with("error: shifterd closed the connection before it answered\n"),
        "{err}"
    );
}

#[test]
fn a_daemon_that_never_was_there_is_an_error() {
    let mut watch = Watch::start(Path::new("/tmp/no-such-directory/s"), &[]);
    assert_eq!(watch.child.wait().unwrap().code(), Some(5));
}
