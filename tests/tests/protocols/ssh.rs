//! SSH: a session that a shell talks through stays up.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use shifter_daemon::model::Plane;
use shifter_tests::process::Process;

use crate::stage::{Stage, server, vip};

/// Where OpenSSH's server wants an empty directory for its unprivileged half.
const EMPTY: &str = "/run/sshd";
/// Lines that the remote shell says, a tenth of a second apart.
const LINES: u32 = 40;

/// The directory, removed again if it was not there.
struct Empty(bool);

impl Empty {
    fn make() -> Self {
        let is_ours = !Path::new(EMPTY).exists();
        if is_ours {
            fs::create_dir(EMPTY).expect("a directory for sshd");
        }
        Self(is_ours)
    }
}

impl Drop for Empty {
    fn drop(&mut self) {
        if self.0 {
            // Another server may have begun to use it.
            let _ = fs::remove_dir(EMPTY);
        }
    }
}

fn key(stage: &Stage, name: &str) -> String {
    let path = stage.scratch.path().join(name).display().to_string();
    let arguments = ["-q", "-t", "ed25519", "-N", "", "-f", &path];
    stage.world.host().tool("ssh-keygen", &arguments);
    path
}

fn server_process(stage: &Stage, version: usize, host_key: &str, allowed: &str) -> Process {
    let addr = server(version);
    let config = stage.scratch.write(
        &format!("sshd-{version}.conf"),
        format!(
            "ListenAddress {addr}\nHostKey {host_key}\nAuthorizedKeysFile {allowed}\n\
             PermitRootLogin prohibit-password\nStrictModes no\nUsePAM no\nPidFile none\n\
             PrintMotd no\nPrintLastLog no\n"
        ),
    );
    let name = format!("sshd-{version}");
    // The server starts itself again for each connection and wants its whole path for that.
    let process = stage.serve(&name, "/usr/sbin/sshd", |command| {
        command.args(["-D", "-e", "-f"]).arg(config);
    });
    stage.await_server(&process, addr);
    process
}

fn through(plane: Plane) {
    let mut stage = Stage::new("ssh");
    let _empty = Empty::make();
    let (host_key, own_key) = (key(&stage, "host_key"), key(&stage, "own_key"));
    let allowed = format!("{own_key}.pub");
    fs::set_permissions(&own_key, fs::Permissions::from_mode(0o600)).expect("chmod");
    let _servers = [0, 1].map(|version| server_process(&stage, version, &host_key, &allowed));
    stage.steer(plane);

    let (host, port) = (format!("root@{}", vip().ip()), vip().port().to_string());
    let session = |name: &str| {
        let script = format!(
            "i=0; while [ $i -lt {LINES} ]; do echo line $i of $SSH_CONNECTION; i=$((i+1)); \
             sleep 0.1; done"
        );
        let mut arguments = vec!["-p", &port, "-i", &own_key, "-F", "none"];
        for option in [
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
        ] {
            arguments.extend(["-o", option]);
        }
        arguments.extend([&host, script.as_str()]);
        stage.client(name, "ssh", &arguments)
    };
    stage.send_to(0);
    let old = session("ssh-old");
    while !old.log().contains("line 0 ") {
        assert!(old.is_running(), "{}", old.log());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    stage.send_to(1);
    let new = session("ssh-new");
    while !new.log().contains("line 0 ") {
        assert!(new.is_running(), "{}", new.log());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let sessions = [old, new];
    stage.shift_while(|| sessions.iter().any(Process::is_running));
    for (version, session) in sessions.into_iter().enumerate() {
        let said = stage.succeeds(session);
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), LINES as usize, "version {version}:\n{said}");
        for (number, line) in lines.iter().enumerate() {
            assert!(line.starts_with(&format!("line {number} of ")), "{line}");
        }
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
