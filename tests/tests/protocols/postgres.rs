//! PostgreSQL: pgbench with sessions that last, and with one session a transaction.

use std::{
    os::unix::fs::chown,
    path::{Path, PathBuf},
};

use shifter_daemon::model::Plane;
use shifter_tests::process::Process;

use crate::stage::{Stage, server, vip};

/// PostgreSQL does not run as root.
const USER: &str = "postgres";

/// The directory of the newest server's programs, which Debian keeps off the path.
fn programs() -> PathBuf {
    let root = Path::new("/usr/lib/postgresql");
    let versions = std::fs::read_dir(root)
        .unwrap_or_else(|err| panic!("cannot run: {}: {err}", root.display()));
    let newest = versions
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").exists())
        .max();
    newest.unwrap_or_else(|| panic!("cannot run: no initdb below {}", root.display()))
}

fn as_user(arguments: &[&str]) -> Vec<String> {
    let first = ["--reuid", USER, "--regid", USER, "--clear-groups", "--"];
    first
        .iter()
        .chain(arguments)
        .map(ToString::to_string)
        .collect()
}

fn server_process(stage: &Stage, version: usize) -> Process {
    let user = nix::unistd::User::from_name(USER)
        .ok()
        .flatten()
        .unwrap_or_else(|| panic!("cannot run: no user {USER}"));
    let bin = programs();
    let data = stage.scratch.path().join(format!("data-{version}"));
    std::fs::create_dir(&data).expect("a directory");
    chown(&data, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("chown");
    let (data, addr) = (data.display().to_string(), server(version));
    let (host, port) = (addr.ip().to_string(), addr.port().to_string());
    let inside = stage.world.host().inside();
    let run = |program: &str, arguments: &[&str]| {
        let program = bin.join(program).display().to_string();
        let all = as_user(&[&[program.as_str()], arguments].concat());
        inside.tool(
            "setpriv",
            &all.iter().map(String::as_str).collect::<Vec<_>>(),
        )
    };
    run(
        "initdb",
        &["-D", &data, "-A", "trust", "-U", USER, "--no-sync"],
    );
    let allow = format!("{data}/pg_hba.conf");
    std::fs::write(&allow, "host all all 0.0.0.0/0 trust\n").expect("pg_hba.conf");
    let name = format!("postgres-{version}");
    let process = stage.serve(&name, "setpriv", |command| {
        let program = bin.join("postgres").display().to_string();
        command.args(as_user(&[
            &program, "-D", &data, "-h", &host, "-p", &port, "-k", &data, "-F",
        ]));
    });
    stage.await_server(&process, addr);
    run("pgbench", &["-i", "-q", "-h", &host, "-p", &port, USER]);
    process
}

/// Transactions that pgbench says were done, and those that failed.
fn transactions(said: &str) -> (u64, u64) {
    let number = |prefix: &str| -> u64 {
        let line = said.lines().find_map(|line| line.strip_prefix(prefix));
        let number = line.and_then(|rest| rest.trim().split([' ', '/']).next()?.parse().ok());
        number.unwrap_or_else(|| panic!("no line {prefix:?} in:\n{said}"))
    };
    (
        number("number of transactions actually processed:"),
        number("number of failed transactions:"),
    )
}

fn through(plane: Plane) {
    let mut stage = Stage::new("postgres");
    let _servers = [0, 1].map(|version| server_process(&stage, version));
    // A user is trusted by name where listeners are captured, and means nothing elsewhere.
    stage.steer_to_user(plane, (plane == Plane::Socket).then_some(USER));
    let (host, port) = (vip().ip().to_string(), vip().port().to_string());
    let program = programs().join("pgbench").display().to_string();
    let bench = |name: &str, more: &[&str]| {
        let to_vip = [program.as_str(), "-h", &host, "-p", &port, "-U", USER, "-n"];
        let all = as_user(&[&to_vip[..], more, &[USER]].concat());
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        stage.client(name, "setpriv", &all)
    };
    let lasting = bench("sessions", &["-c", "8", "-T", "5"]);
    let short = bench("reconnecting", &["-c", "2", "-C", "-S", "-T", "5"]);
    stage.shift_while(|| lasting.is_running() || short.is_running());
    for client in [lasting, short] {
        let (done, failed) = transactions(&stage.succeeds(client));
        assert!(done > 20 && failed == 0, "{done} done, {failed} failed");
    }
}

#[test]
fn nat_plane() {
    through(Plane::Nat);
}

#[test]
fn socket_plane() {
    through(Plane::Socket);
}
