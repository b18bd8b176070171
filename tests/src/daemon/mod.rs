//! The real shifterd in a namespace, with files, state and bpffs of its own.

mod client;
mod files;

use std::{
    env, fs,
    net::SocketAddr,
    ops::Deref,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use nix::{sys::signal::Signal, unistd::Pid};
use shifter_common::wire::Status;
use shifter_daemon::model::{
    HookSpec, IdleSpec, InterfaceSpec, LocalClientsSpec, NodeSpec, ServiceSpec, SizeSpec,
};

pub use self::{
    client::{Called, Client},
    files::{node_toml, service, service_toml},
};
use crate::{
    bpffs::Bpffs,
    http::{self, Answer},
    netns::{Inside, Netns},
    process::Process,
    scratch::Scratch,
    world::HOST_IF,
};

/// Patience unless a test has its own.
const PATIENCE: Duration = Duration::from_secs(10);

/// Address of the metrics endpoint, in the namespace.
const METRICS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9977);

/// What of a node a test chooses; all paths are the harness's.
#[derive(Clone, Debug)]
pub struct Node {
    /// The program.
    pub program: PathBuf,
    /// Interfaces clients come in by.
    pub interfaces: Vec<InterfaceSpec>,
    /// Whether clients on the host itself are steered.
    pub local_clients: LocalClientsSpec,
    /// Sizes of the kernel tables.
    pub sizes: SizeSpec,
    /// How long flows may be silent.
    pub idle: IdleSpec,
    /// Whether there is a metrics endpoint.
    pub metrics: bool,
    /// What is logged, as `SHIFTER_LOG` says it.
    pub log: String,
    /// How long a start, an end or a change that must come may take.
    pub patience: Duration,
}

impl Node {
    /// One interface, [`HOST_IF`], with a hook; tables for a few services and 65,536 flows.
    ///
    /// # Panics
    /// If there is no shifterd, see [`shifterd`].
    #[track_caller]
    pub fn new(hook: HookSpec) -> Self {
        Self {
            program: shifterd(),
            interfaces: vec![InterfaceSpec {
                name: HOST_IF.to_owned(),
                hook,
                checksums_complete: false,
            }],
            local_clients: LocalClientsSpec::default(),
            sizes: SizeSpec {
                services_count: 64,
                backends_count: 4_096,
                flows_count: 65_536,
                pending_count: 16_384,
                table_entries_count: 1 << 20,
            },
            idle: IdleSpec::default(),
            metrics: true,
            log: "info".to_owned(),
            patience: PATIENCE,
        }
    }
}

/// The program under test: what `SHIFTERD` names, else the one built beside the running test.
///
/// # Panics
/// If there is none.
#[track_caller]
pub fn shifterd() -> PathBuf {
    let (program, said_by) = match env::var_os("SHIFTERD") {
        Some(named) => (PathBuf::from(named), "SHIFTERD names it"),
        None => {
            let own = env::current_exe().expect("a running test has a program");
            // target/debug/deps/TEST-HASH, and target/debug/shifterd
            let target = own.ancestors().nth(2).expect("tests run from deps/");
            (
                target.join("shifterd"),
                "build it with: cargo build --package shifter-daemon",
            )
        }
    };
    assert!(
        program.is_file(),
        "no shifterd at {}; {said_by}",
        program.display()
    );
    program
}

/// The shifterd of a version to come, with other maps; see the feature `rehearsal` of shifter-daemon. What
/// its environment may say is in the daemon's `dataplane/bpf/rehearsal.rs`.
///
/// # Panics
/// If there is none.
#[track_caller]
pub fn rehearsal() -> PathBuf {
    let program = shifterd().with_file_name("shifterd-rehearsal");
    assert!(
        program.is_file(),
        "no {}; `cargo xtask test --stage e2e` builds it",
        program.display()
    );
    program
}

/// A running shifterd. It is killed on drop, and its bpffs unmounted; if the test has panicked, the
/// log is shown. Calls of the API are those of [`Client`].
#[derive(Debug)]
pub struct Daemon {
    netns: Inside,
    node: Node,
    environment: Vec<(String, String)>,
    process: Option<Process>,
    client: Client,
    // Dropped after the process.
    bpffs: Bpffs,
    scratch: Scratch,
}

impl Daemon {
    /// Starts shifterd with some services and waits until it answers.
    ///
    /// # Panics
    /// If it does not answer in time, with its log.
    #[track_caller]
    pub fn start(netns: &Netns, node: Node, services: &[ServiceSpec]) -> Self {
        let mut daemon = Self::prepare(netns, node, services);
        daemon.start_again();
        daemon
    }

    /// Writes the files and mounts bpffs, but starts nothing yet.
    pub fn prepare(netns: &Netns, node: Node, services: &[ServiceSpec]) -> Self {
        let scratch = Scratch::new("shifterd");
        let dir = scratch.path();
        fs::create_dir(dir.join("services.d")).expect("a directory for the service files");
        fs::create_dir(dir.join("state")).expect("a directory for the state");
        let daemon = Self {
            netns: netns.inside(),
            node,
            environment: Vec::new(),
            process: None,
            client: Client::new(&dir.join("shifter.sock")),
            bpffs: Bpffs::mount("bpffs"),
            scratch,
        };
        daemon.write_node(&node_toml(&daemon.node_spec()));
        for service in services {
            daemon.write_service(service);
        }
        daemon
    }

    /// Starts it anew, after [`Daemon::kill9`], [`Daemon::stop`] or [`Daemon::prepare`], and waits until
    /// it answers.
    ///
    /// # Panics
    /// If it runs, or does not answer in time, with its log.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.spawn();
        let deadline = Instant::now() + self.node.patience;
        while let Err(err) = self.client.ask("GET", "/v1/status", None) {
            let is_running = self.process.as_ref().is_some_and(Process::is_running);
            assert!(
                is_running && Instant::now() < deadline,
                "shifterd does not answer at its socket: {err}; its log:\n{}",
                self.logs()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// How long a start, an end or a change that must come may take from now on.
    pub const fn be_patient(&mut self, patience: Duration) {
        self.node.patience = patience;
    }

    /// The program of the next start, and variables of its environment beside the usual ones.
    pub fn become_program(&mut self, program: PathBuf, environment: &[(&str, &str)]) {
        self.node.program = program;
        self.environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
    }

    /// Starts it without waiting for an answer.
    ///
    /// # Panics
    /// If it runs.
    #[track_caller]
    pub fn spawn(&mut self) {
        assert!(self.process.is_none(), "shifterd runs already");
        let mut command = self.netns.command(&self.node.program);
        command.arg("--config").arg(self.node_file());
        command
            .env("SHIFTER_LOG", &self.node.log)
            .env_remove("NOTIFY_SOCKET")
            .envs(self.environment.iter().cloned());
        command.env_remove("JOURNAL_STREAM");
        self.process = Some(Process::spawn_logged(
            "shifterd",
            &mut command,
            &self.log_file(),
        ));
    }

    /// What the node file says.
    pub fn node_spec(&self) -> NodeSpec {
        let dir = self.scratch.path();
        NodeSpec {
            interfaces: self.node.interfaces.clone(),
            control_socket: self.socket(),
            metrics: self.node.metrics.then_some(METRICS),
            state_dir: dir.join("state"),
            bpffs: self.bpffs.path().to_owned(),
            services_dir: dir.join("services.d"),
            local_clients: self.node.local_clients,
            sizes: self.node.sizes,
            idle: self.node.idle,
        }
    }

    /// The node file.
    pub fn node_file(&self) -> PathBuf {
        self.scratch.path().join("shifter.toml")
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.scratch.path().join("shifter.sock")
    }

    /// The mount point of its bpffs.
    pub fn bpffs(&self) -> PathBuf {
        self.bpffs.path().to_owned()
    }

    /// The directory of what must outlive a restart.
    pub fn state_dir(&self) -> PathBuf {
        self.scratch.path().join("state")
    }

    /// The file of a service.
    pub fn service_file(&self, name: &str) -> PathBuf {
        self.scratch.path().join(format!("services.d/{name}.toml"))
    }

    /// Writes another node file; it is read at the next start.
    pub fn write_node(&self, text: &str) {
        self.scratch.write("shifter.toml", text);
    }

    /// Writes a service's file; `apply` or SIGHUP put it in force.
    pub fn write_service(&self, service: &ServiceSpec) {
        self.write_service_text(&service.name, &service_toml(service));
    }

    /// Writes any text as a service's file.
    pub fn write_service_text(&self, name: &str, text: &str) {
        self.scratch.write(&format!("services.d/{name}.toml"), text);
    }

    /// Removes a service's file.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn remove_service(&self, name: &str) {
        let file = self.service_file(name);
        fs::remove_file(&file).unwrap_or_else(|err| panic!("{}: {err}", file.display()));
    }

    /// Kills it as `kill -9` does, at whatever it is.
    ///
    /// # Panics
    /// If it does not run.
    #[track_caller]
    pub fn kill9(&mut self) {
        let process = self.process.take();
        let process = process.unwrap_or_else(|| panic!("shifterd does not run"));
        process.signal(Signal::SIGKILL);
    }

    /// Asks it to end, by SIGTERM, and waits; returns the exit code.
    ///
    /// # Panics
    /// If it does not run, or not end in time.
    #[track_caller]
    pub fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Waits until it ends by itself; returns the exit code, `None` if a signal ended it.
    ///
    /// # Panics
    /// If it does not run, or not end in time.
    #[track_caller]
    pub fn wait(&mut self) -> Option<i32> {
        let process = self.process.take();
        process
            .unwrap_or_else(|| panic!("shifterd does not run"))
            .wait(self.node.patience)
            .code()
    }

    /// Sends it a signal, such as SIGHUP.
    ///
    /// # Panics
    /// If it does not run.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let process = self
            .process
            .as_ref()
            .unwrap_or_else(|| panic!("shifterd does not run"));
        process.signal(signal);
    }

    /// Its process id, if it was started.
    pub fn pid(&self) -> Option<Pid> {
        self.process.as_ref().map(Process::pid)
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.process.as_ref().is_some_and(Process::is_running)
    }

    /// Everything it said, over all its starts.
    pub fn logs(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Calls of its API; also for use in other threads.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The metrics endpoint's answer.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn metrics(&self) -> Answer {
        let answer = self.netns.run(|| http::get(METRICS, "/metrics"));
        answer.unwrap_or_else(|err| panic!("metrics at {METRICS}: {err}"))
    }

    /// Waits until its status is as it should be, and returns it.
    ///
    /// # Panics
    /// If it is not in time, with the status as it is.
    #[track_caller]
    pub fn wait_for(&self, what: &str, holds: impl Fn(&Status) -> bool) -> Status {
        let deadline = Instant::now() + self.node.patience;
        loop {
            let status = self.client.status();
            if holds(&status) {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "not within {:?}: {what}; status: {}",
                self.node.patience,
                serde_json::to_string_pretty(&status).unwrap_or_default()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until every backend of every service is ready.
    ///
    /// # Panics
    /// If they are not in time.
    #[track_caller]
    pub fn wait_until_ready(&self) -> Status {
        self.wait_for("all backends are ready", |status| {
            let slots = status.services.iter().flat_map(|service| &service.slots);
            slots
                .flat_map(|slot| &slot.backends)
                .all(|backend| backend.ready)
        })
    }

    fn log_file(&self) -> PathBuf {
        self.scratch.path().join("log")
    }
}

impl Deref for Daemon {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.process = None;
        if thread::panicking() {
            eprintln!("---- log of shifterd ----\n{}---- end ----", self.logs());
        }
    }
}
