//! nginx's stream module, with weights changed as nginx has it: another file and a reload.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::unistd::Pid;

use super::{PORT, PORTS};
use crate::{
    http,
    netns::{Inside, Netns},
    process::Process,
    scratch::Scratch,
    world::{Family, OTHER, VIP},
};

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where Debian puts the module, for nginx builds that do not have it inside.
const MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// A running nginx that passes bytes.
pub struct NginxStream {
    host: Inside,
    process: Process,
    scratch: Scratch,
}

impl NginxStream {
    /// Starts it; all connections go to version a.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn start(host: &Netns) -> Self {
        let scratch = Scratch::new("stream");
        scratch.write("nginx.conf", config(scratch.path(), 0));
        let log = scratch.path().join("error.log");
        let mut command = command(&host.inside(), scratch.path());
        let process = Process::spawn_logged("nginx stream", &mut command, &log);
        wait_until_it_answers(host, VIP.port(Family::V4, PORT), &process);
        Self {
            host: host.inside(),
            process,
            scratch,
        }
    }

    /// Its first process.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Writes another file and tells nginx to read it, by `nginx -s reload`.
    ///
    /// # Panics
    /// If that fails.
    pub fn send_to(&self, version: usize) {
        let directory = self.scratch.path();
        self.scratch.write("nginx.conf", config(directory, version));
        let output = command(&self.host, directory)
            .args(["-s", "reload"])
            .output()
            .expect("nginx");
        assert!(output.status.success(), "nginx -s reload: {output:?}");
    }
}

fn command(host: &Inside, directory: &Path) -> std::process::Command {
    let mut command = host.command("nginx");
    let log: PathBuf = directory.join("error.log");
    command.arg("-e").arg(log).arg("-p").arg(directory);
    command.arg("-c").arg(directory.join("nginx.conf"));
    command
}

fn config(directory: &Path, version: usize) -> String {
    let load = if Path::new(MODULE).exists() {
        format!("load_module {MODULE};\n")
    } else {
        String::new()
    };
    // The other version stands there too, as a share would be given; nginx knows no weight 0.
    let server = |nth: usize| {
        let down = if nth == version { "" } else { " down" };
        format!("server {}:{}{down};", OTHER.v4, PORTS[nth])
    };
    format!(
        "{load}daemon off;\nworker_processes 1;\nworker_rlimit_nofile 65536;\nuser root;\n\
         worker_shutdown_timeout 5s;\npid {dir}/nginx.pid;\nerror_log {dir}/error.log warn;\n\
         events {{ worker_connections 32768; multi_accept on; }}\n\
         stream {{\n    upstream service {{ {} {} }}\n    \
         server {{ listen {}:{PORT} backlog=65535; proxy_pass service; }}\n}}\n",
        server(0),
        server(1),
        VIP.v4,
        dir = directory.display(),
    )
}

/// Waits until version a answers a request at an address.
///
/// # Panics
/// If it does not within 5 s, with the log of what stands before it.
pub fn wait_until_it_answers(host: &Netns, addr: SocketAddr, process: &Process) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = host.run(|| http::get(addr, "/ready"));
        if seen.as_ref().is_ok_and(|answer| answer.status == 200) {
            return;
        }
        assert!(
            process.is_running() && Instant::now() < deadline,
            "{} does not answer at {addr}: {seen:?}; its log:\n{}",
            process.name(),
            process.log()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
