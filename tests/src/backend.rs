//! Real web servers as backends: nginx, with an answer that says who gave it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    http,
    netns::{Inside, Netns},
    process::Process,
    scratch::Scratch,
};

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest body that fits into nginx's configuration; longer ones come from a file.
const INLINE_BODY_BYTES: usize = 2_048;

/// Starts nginx by its whole path, which it wants for starting itself, from a shell that dies when it is up;
/// the group keeps a leader.
const LEAVE_ALONE: &str = r#"nginx=$(command -v nginx)
("$nginx" "$@" & until [ -s "$0" ]; do sleep 0.01; done)
exec sleep infinity"#;

/// What a backend is.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Name, answered in `X-Backend`.
    pub name: String,
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Length of the answer to `GET /`.
    pub body_bytes: usize,
    /// Whether `GET /ready` answers 200 from the start.
    pub ready: bool,
    /// Processes that accept.
    pub workers_count: u32,
    /// Whether each of them has listeners of its own (`reuseport`).
    pub is_shared: bool,
    /// Whether whoever started it leaves it alone, as a daemon: only then it exchanges its program.
    pub is_left_alone: bool,
    /// Whether the status of each answer is written down, for [`Backend::statuses`].
    pub logs: bool,
}

impl Spec {
    /// A ready backend with an answer of 128 bytes.
    pub fn new(name: &str, listen: &[SocketAddr]) -> Self {
        Self {
            name: name.to_owned(),
            listen: listen.to_vec(),
            body_bytes: 128,
            ready: true,
            workers_count: 1,
            is_shared: false,
            is_left_alone: false,
            logs: false,
        }
    }
}

/// A running nginx. `GET /` answers 200 with `X-Backend` (its name), `X-Connection` (a number that
/// belongs to one connection of one run), `X-Remote` (the client it sees) and a body; `GET /ready`
/// answers 200 or 503. It ends with this guard.
#[derive(Debug)]
pub struct Backend {
    netns: Inside,
    spec: Spec,
    scratch: Scratch,
    process: Option<Process>,
}

impl Backend {
    /// Starts nginx in a namespace and waits until it answers at every address.
    ///
    /// # Panics
    /// If it does not answer within 5 s, with its log.
    #[track_caller]
    pub fn start(netns: &Netns, spec: Spec) -> Self {
        let scratch = Scratch::new(&format!("nginx-{}", spec.name));
        if spec.body_bytes > INLINE_BODY_BYTES {
            scratch.write("index.html", vec![b'x'; spec.body_bytes]);
        }
        scratch.write("nginx.conf", config(&spec, &scratch));
        let mut backend = Self {
            netns: netns.inside(),
            spec,
            scratch,
            process: None,
        };
        backend.set_ready(backend.spec.ready);
        backend.start_again();
        backend
    }

    /// Starts it anew after [`Backend::kill`] or [`Backend::stop`].
    ///
    /// # Panics
    /// If it runs, or does not answer within 5 s, with its log.
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.spec.name);
        let mut command = self.netns.command(if self.spec.is_left_alone {
            "sh"
        } else {
            "nginx"
        });
        if self.spec.is_left_alone {
            // One that was killed leaves its file, and then there is none to remove.
            let _ = fs::remove_file(self.pid_path());
            command.args(["-c", LEAVE_ALONE]).arg(self.pid_path());
        }
        command
            .arg("-e")
            .arg(self.log_path())
            .arg("-p")
            .arg(self.scratch.path());
        command
            .arg("-c")
            .arg(self.scratch.path().join("nginx.conf"));
        let name = format!("nginx {}", self.spec.name);
        let process = Process::spawn_logged(&name, &mut command, &self.log_path());
        let deadline = Instant::now() + PATIENCE;
        for addr in &self.spec.listen {
            loop {
                // Another server may hold the address: only its own name counts.
                let seen = match self.netns.run(|| http::get(*addr, "/ready")) {
                    Ok(answer) if answer.backend == self.spec.name => break,
                    Ok(answer) => format!("{:?} does", answer.backend),
                    Err(err) => err.to_string(),
                };
                assert!(
                    process.is_running() && Instant::now() < deadline,
                    "{name} does not answer at {addr}: {seen}; its log:\n{}",
                    process.log()
                );
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        self.process = Some(process);
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Where it listens.
    pub fn listen(&self) -> &[SocketAddr] {
        &self.spec.listen
    }

    /// Makes `GET /ready` answer 200 or 503 from now on; connections stay.
    ///
    /// # Panics
    /// If the marker file cannot be made or removed.
    pub fn set_ready(&self, ready: bool) {
        let marker = self.marker();
        let done = if ready {
            fs::remove_file(&marker)
        } else {
            fs::write(&marker, "")
        };
        match done {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                panic!("{}: {err}", marker.display())
            }
            _ => {}
        }
    }

    /// Kills it as `kill -9` does: the kernel closes its sockets, clients see resets.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Asks it to end in order: it finishes the requests it is at, for at most 5 s.
    ///
    /// # Panics
    /// If it does not run, or not end.
    #[track_caller]
    pub fn stop(&mut self) {
        let mut process = self
            .process
            .take()
            .unwrap_or_else(|| panic!("{} is ended", self.spec.name));
        process.signal(Signal::SIGQUIT);
        process.wait(PATIENCE);
    }

    /// Lets it read its configuration again, with another number of workers, as `nginx -s reload` does.
    ///
    /// # Panics
    /// If it does not run.
    #[track_caller]
    pub fn reload(&mut self, workers_count: u32) {
        self.spec.workers_count = workers_count;
        self.scratch
            .write("nginx.conf", config(&self.spec, &self.scratch));
        self.signal(Signal::SIGHUP);
    }

    /// Exchanges its program while it runs: a new nginx takes over the listeners, then the old one ends in
    /// order.
    ///
    /// # Panics
    /// If there is no new one, or the old one does not end, within 5 s.
    #[track_caller]
    pub fn upgrade(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let wait = |what: &str, is_so: &dyn Fn() -> bool| {
            while !is_so() {
                assert!(
                    Instant::now() < deadline,
                    "{what}; its log:\n{}",
                    self.log()
                );
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        let old = self.first_pid();
        let workers_count = || self.log().matches("start worker process ").count();
        let expected = workers_count() + self.spec.workers_count as usize;
        self.signal(Signal::SIGUSR2);
        wait("the new program has no workers", &|| {
            workers_count() >= expected
        });
        self.signal_to(old, Signal::SIGQUIT);
        wait("the old process does not end", &|| {
            old.is_none_or(|pid| !is_alive(pid))
        });
    }

    /// The process that the others belong to: another one after [`Backend::upgrade`].
    fn first_pid(&self) -> Option<Pid> {
        self.read_pid().or_else(|| self.pid())
    }

    fn read_pid(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.pid_path()).ok()?;
        text.trim().parse().ok().map(Pid::from_raw)
    }

    #[track_caller]
    fn signal(&self, signal: Signal) {
        self.signal_to(self.first_pid(), signal);
    }

    #[track_caller]
    fn signal_to(&self, pid: Option<Pid>, signal: Signal) {
        assert!(self.process.is_some(), "{} is ended", self.spec.name);
        let pid = pid.unwrap_or_else(|| panic!("{} has no process", self.spec.name));
        kill(pid, signal).unwrap_or_else(|err| panic!("kill {}: {err}", self.spec.name));
    }

    /// Its first process, if it runs.
    pub fn pid(&self) -> Option<Pid> {
        self.process.as_ref().map(Process::pid)
    }

    /// What nginx said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// How many answers of each status it has written down since it was started last, when it is asked to. Unprobed
    /// worlds only: those of probes are among them.
    pub fn statuses(&self) -> BTreeMap<u16, u64> {
        let path = self.scratch.path().join("access.log");
        let text = fs::read_to_string(path).unwrap_or_default();
        let mut counts = BTreeMap::new();
        for status in text.lines().filter_map(|line| line.parse().ok()) {
            *counts.entry(status).or_default() += 1;
        }
        counts
    }

    fn log_path(&self) -> PathBuf {
        self.scratch.path().join("error.log")
    }

    fn pid_path(&self) -> PathBuf {
        self.scratch.path().join("nginx.pid")
    }

    fn marker(&self) -> PathBuf {
        self.scratch.path().join("not-ready")
    }
}

/// Whether a process has not ended. One that nobody has waited for yet has.
fn is_alive(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// nginx's configuration. Every path is below the scratch directory, so that any number of them run
/// beside each other and beside the machine's own.
fn config(spec: &Spec, scratch: &Scratch) -> String {
    let dir = scratch.path().display();
    let listen = spec.listen.iter().fold(String::new(), |mut lines, addr| {
        let only = if addr.is_ipv6() { " ipv6only=on" } else { "" };
        let shared = if spec.is_shared { " reuseport" } else { "" };
        let _ = writeln!(lines, "        listen {addr} backlog=65535{only}{shared};");
        lines
    });
    let answer = if spec.body_bytes > INLINE_BODY_BYTES {
        format!("root {dir}; try_files /index.html =500;")
    } else {
        format!("return 200 \"{}\";", "x".repeat(spec.body_bytes))
    };
    let access_log = if spec.logs {
        format!("log_format status \"$status\"; access_log {dir}/access.log status;")
    } else {
        "access_log off;".to_owned()
    };
    format!(
        r#"daemon off;
worker_processes {workers_count};
worker_rlimit_nofile 65536;
worker_shutdown_timeout 5s;
user root;
pid {dir}/nginx.pid;
error_log {dir}/error.log notice;
events {{ worker_connections 32768; multi_accept on; }}
http {{
    {access_log}
    default_type text/plain;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    server {{
{listen}        add_header X-Backend "{name}" always;
        add_header X-Connection "$pid-$connection" always;
        add_header X-Remote "$remote_addr $remote_port" always;
        location = /ready {{
            if (-f {dir}/not-ready) {{ return 503 "not ready\n"; }}
            return 200 "ready\n";
        }}
        location / {{ {answer} }}
    }}
}}
"#,
        name = spec.name,
        workers_count = spec.workers_count,
    )
}
