//! HAProxy, with weights set through its runtime socket.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use nix::unistd::Pid;

use super::{PORT, PORTS, VERSIONS, nginx::wait_until_it_answers};
use crate::{
    netns::Netns,
    process::Process,
    scratch::Scratch,
    world::{Family, OTHER, VIP},
};

/// A running HAProxy.
pub struct Haproxy {
    process: Process,
    socket: PathBuf,
    _scratch: Scratch,
}

impl Haproxy {
    /// Starts it in a mode, `tcp` or `http`.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn start(host: &Netns, mode: &str) -> Self {
        let scratch = Scratch::new("haproxy");
        let socket = scratch.path().join("socket");
        let servers: String = (0..2)
            .map(|version| {
                format!(
                    "    server {} {}:{} weight {}\n",
                    VERSIONS[version], OTHER.v4, PORTS[version], WEIGHTS[0][version]
                )
            })
            .collect();
        let config = scratch.write(
            "haproxy.cfg",
            format!(
                "global\n    stats socket {socket} mode 600 level admin\n    maxconn 4000\n\
                 defaults\n    mode {mode}\n    timeout connect 5s\n    timeout client 60s\n    \
                 timeout server 60s\n\
                 listen service\n    bind {vip}:{PORT} backlog 65535\n    balance roundrobin\n\
                 {servers}",
                socket = socket.display(),
                vip = VIP.v4,
            ),
        );
        let log = scratch.path().join("log");
        let mut command = host.command("haproxy");
        command.arg("-db").arg("-f").arg(config);
        let process = Process::spawn_logged("haproxy", &mut command, &log);
        wait_until_it_answers(host, VIP.port(Family::V4, PORT), &process);
        Self {
            process,
            socket,
            _scratch: scratch,
        }
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Sets both weights by one command line.
    ///
    /// # Panics
    /// If the socket does not answer, or with a complaint.
    pub fn send_to(&self, version: usize) {
        let command = |server: usize| {
            let weight = WEIGHTS[version][server];
            format!("set server service/{} weight {weight}", VERSIONS[server])
        };
        // The new one first: no moment without a server.
        let (first, second) = (command(version), command(1 - version));
        let mut stream = UnixStream::connect(&self.socket).expect("HAProxy's socket");
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("a timeout");
        stream
            .write_all(format!("{first};{second}\n").as_bytes())
            .expect("HAProxy reads");
        let mut said = String::new();
        stream.read_to_string(&mut said).expect("HAProxy answers");
        assert!(said.trim().is_empty(), "HAProxy says: {said}");
    }
}

/// Weights of both servers when a version gets everything.
const WEIGHTS: [[u32; 2]; 2] = [[100, 0], [0, 100]];
