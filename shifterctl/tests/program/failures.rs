//! What goes wrong between the program and the daemon: every text and every exit code.

use std::{
    fs,
    os::{
        fd::AsRawFd,
        unix::{fs::PermissionsExt, net::UnixListener, process::CommandExt},
    },
    path::Path,
    process::Stdio,
};

use crate::support::{Answer, Fake, Ran, copy_to, program, shifterctl, short_dir};
use nix::{
    libc,
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
    unistd::{User, getuid},
};

const STATUS: &str = include_str!("../data/status.json");

fn ask(socket: &Path) -> Ran {
    Ran::of(
        shifterctl()
            .arg("--socket")
            .arg(socket)
            .args(["rollback", "orders"]),
    )
}

#[test]
fn no_socket() {
    let dir = short_dir();
    let socket = dir.path().join("s");
    let text = |path: &Path| {
        format!(
            "error: shifterd is not reachable: there is no socket {}
             help: systemctl start shifterd
             if it listens elsewhere: --socket PATH or SHIFTER_SOCKET",
            path.display()
        )
    };
    ask(&socket).failed(5, &text(&socket));
    let deep = dir.path().join("no/dir/s");
    ask(&deep).failed(5, &text(&deep));
    fs::write(&socket, "").unwrap();
    let below = socket.join("s");
    ask(&below).failed(5, &text(&below));
}

#[test]
fn a_socket_nobody_answers_on() {
    let dir = short_dir();
    let stale = dir.path().join("s");
    drop(UnixListener::bind(&stale).unwrap());
    let file = dir.path().join("f");
    fs::write(&file, "").unwrap();
    for path in [stale, file] {
        ask(&path).failed(
            5,
            &format!(
                "error: shifterd is not reachable: nobody answers on {}
                 help: systemctl restart shifterd; traffic stays steered as it was
                 why it ended: journalctl -u shifterd -e",
                path.display()
            ),
        );
    }
}

#[test]
fn a_socket_one_may_not_use() {
    let dir = short_dir();
    let socket = dir.path().join("s");
    let _listener = UnixListener::bind(&socket).unwrap();
    let mut command = program(&copy_to(dir.path()));
    let user = if getuid().is_root() {
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o660)).unwrap();
        command.uid(65_534).gid(65_534);
        User::from_uid(65_534.into())
            .unwrap()
            .map_or("65534".into(), |user| user.name)
    } else {
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o000)).unwrap();
        User::from_uid(getuid()).unwrap().unwrap().name
    };
    Ran::of(command.arg("--socket").arg(&socket).arg("status")).failed(
        5,
        &format!(
            "error: user {user} may not connect to {}
             help: to read: usermod -aG shifter-view {user}
             to change: usermod -aG shifter {user}
             then log in again",
            socket.display()
        ),
    );
}

#[test]
fn a_path_no_socket_can_have() {
    let path = format!("/tmp/{}", "x".repeat(120));
    let ran = ask(Path::new(&path));
    assert_eq!(ran.code, Some(5));
    let err = ran.err.replace("\n       ", "");
    assert!(
        err.starts_with("error: shifterd is not reachable: cannot connect to"),
        "{err}"
    );
    assert!(err.ends_with("help: systemctl status shifterd\n"), "{err}");
}

#[test]
fn a_daemon_that_hangs_up() {
    let texts = "error: shifterd closed the connection before it answered
                 help: a change may be in force or not: shifterctl status
                 why it ended: journalctl -u shifterd -e";
    let rows: [&[u8]; 3] = [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-type: app",
        b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"service\":",
    ];
    for bytes in rows {
        let fake = Fake::start(Answer::Raw(bytes.to_vec()));
        ask(&fake.socket).failed(5, texts);
    }
}

#[test]
fn a_daemon_that_does_not_answer() {
    let text = "error: shifterd did not answer within 200ms
                help: a change may be in force or not: shifterctl status
                more time: --request-timeout 60s
                what it does: journalctl -u shifterd -e";
    let rows: [&[u8]; 3] = [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{",
    ];
    for bytes in rows {
        let fake = Fake::start(Answer::Stall(bytes.to_vec()));
        fake.run(&["apply", "--request-timeout", "200ms"])
            .failed(3, text);
    }
}

#[test]
fn a_daemon_with_no_place_left() {
    let dir = short_dir();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    // SAFETY: plain system call on an open descriptor.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let mut waiting = Vec::new();
    loop {
        let client = socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::SOCK_NONBLOCK,
            None,
        )
        .unwrap();
        let full = connect(client.as_raw_fd(), &UnixAddr::new(&path).unwrap()).is_err();
        waiting.push(client);
        if full {
            break;
        }
        assert!(waiting.len() < 100, "the queue never fills");
    }
    let mut command = shifterctl();
    command
        .arg("--socket")
        .arg(&path)
        .args(["apply", "--request-timeout", "200ms"]);
    Ran::of(&mut command).failed(
        3,
        "error: shifterd did not answer within 200ms
         help: a change may be in force or not: shifterctl status
         more time: --request-timeout 60s
         what it does: journalctl -u shifterd -e",
    );
}

#[test]
fn an_answer_that_is_not_the_daemons() {
    let html = b"HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n<html>".to_vec();
    let ok_html = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n<html>".to_vec();
    let rows = [
        (
            Answer::Raw(b"220 mail.example.org ESMTP\r\n".to_vec()),
            "no HTTP (invalid HTTP version parsed)",
        ),
        (Answer::Raw(html), "HTTP 404 without JSON"),
        (Answer::Raw(ok_html), "HTTP 200 without JSON"),
        (
            Answer::Json(200, r#"{"service": "orders"}"#.into()),
            "missing field `weight_before_bp`",
        ),
        (
            Answer::Json(200, "[]".into()),
            "invalid length 0, expected struct Changed with 7 elements",
        ),
        (
            Answer::Json(502, r#"{"error": "x"}"#.into()),
            "HTTP 502 with missing field `code`",
        ),
    ];
    for (answer, what) in rows {
        let fake = Fake::start(answer);
        ask(&fake.socket).failed(
            1,
            &format!(
                "error: the answer on {} is not shifterd's: {what}
                 help: shifterctl and shifterd should have one version:
                 shifterctl --version; shifterd --version",
                fake.socket.display()
            ),
        );
    }
}

#[test]
fn a_command_line_that_is_wrong() {
    let percent = |text: &str, why: &str, help: &str| {
        format!("error: invalid value '{text}' for '<PERCENT>': {why}\nhelp: {help}")
    };
    let rows: &[(&[&str], String)] = &[
        (
            &["set-weight", "orders", "12.345"],
            percent("12.345", "finer than 0.01 %", "write 12.34 or 12.35"),
        ),
        (
            &["set-weight", "orders", "101%"],
            percent("101%", "more than 100 %", "the weight is 0 to 100 %"),
        ),
        (
            &["set-weight", "orders", "-1"],
            percent("-1", "less than 0 %", "the weight is 0 to 100 %"),
        ),
        (
            &["set-weight", "orders", "some"],
            percent("some", "not a percentage", "write 5, 0.5% or 12.34"),
        ),
        (
            &["set-weight", "orders", "0,5"],
            percent("0,5", "a decimal comma", "write 0.5"),
        ),
        (
            &["plan", "orders", "3 2"],
            "error: invalid value '3 2' for '<VERSION>': it cannot name a version
             help: use 1 to 64 letters, digits, \".\", \"_\", \"+\" and \"-\", such as 3.2.0"
                .into(),
        ),
        (
            &["set-weight", "", "5"],
            "error: invalid value '' for '<SERVICE>': a service has a name
             help: see which there are: shifterctl status"
                .into(),
        ),
        (
            &["set-weight", "orders"],
            "error: the following required arguments were not provided: <PERCENT>
             Usage: shifterctl set-weight <SERVICE> <PERCENT>
             help: shifterctl set-weight --help"
                .into(),
        ),
        (
            &["drain", "orders", "c"],
            "error: invalid value 'c' for '<SLOT>' [possible values: a, b]
             help: shifterctl --help"
                .into(),
        ),
        (
            &["rollback", "orders", "--established", "kill"],
            "error: invalid value 'kill' for '--established <POLICY>'
             [possible values: drain, reset, reset-idle]
             help: shifterctl --help"
                .into(),
        ),
        (
            &["flows", "orders", "--limit", "0"],
            "error: invalid value '0' for '--limit <N>': 0 is not in 1..=10000
             help: shifterctl --help"
                .into(),
        ),
        (
            &["status", "--watch", "--interval", "fast"],
            "error: invalid value 'fast' for '--interval <TIME>': not a time
             help: write 500ms, 2s or 1m (10ms to 24h)"
                .into(),
        ),
        (
            &["status", "--interval", "1s"],
            "error: the following required arguments were not provided: --watch
             Usage: shifterctl status --watch --interval <TIME> [SERVICE]
             help: shifterctl status --help"
                .into(),
        ),
        (
            &["doktor"],
            "error: unrecognized subcommand 'doktor'
             tip: a similar subcommand exists: 'doctor'
             Usage: shifterctl [OPTIONS] <COMMAND>
             help: shifterctl --help"
                .into(),
        ),
        (
            &["status", "-o", "yaml"],
            "error: invalid value 'yaml' for '--output <FORMAT>' [possible values: table, json, markdown]
             help: shifterctl --help"
                .into(),
        ),
    ];
    for (args, text) in rows {
        let ran = Ran::of(shifterctl().args(*args));
        ran.failed(2, text);
        assert_eq!(ran.out, "");
    }
    let nothing = Ran::of(&mut shifterctl());
    assert_eq!((nothing.code, nothing.out.as_str()), (Some(2), ""));
    assert!(
        nothing
            .err
            .contains("Usage: shifterctl [OPTIONS] <COMMAND>")
    );
    let help = Ran::of(shifterctl().arg("--help"));
    assert!(help.done().out.contains("5  shifterd is not reachable"));
    Ran::of(shifterctl().arg("--version")).done();
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let fake = Fake::ok(STATUS);
    let mut child = shifterctl()
        .arg("--socket")
        .arg(&fake.socket)
        .args(["status", "--watch", "--interval", "10ms"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(ended.stderr).unwrap(), "");
    assert_eq!(ended.status.code(), Some(0));
}
