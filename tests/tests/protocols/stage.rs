//! A client, a host with two versions of a server, and shifterd between them.

use std::{net::SocketAddr, process::Command, thread::sleep, time::Duration};

use shifter_common::wire::EstablishedPolicy;
use shifter_daemon::model::{HookSpec, Plane, ProbeCheck};
use shifter_tests::{
    daemon::{Daemon, Node, service},
    process::Process,
    scratch::Scratch,
    world::{Family, OTHER, Options, VIP, World},
};

/// Name of the service.
const SERVICE: &str = "longlived";
/// How long a client may take, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(90);
/// The shortest time between two changes.
const PAUSE: Duration = Duration::from_millis(150);

/// The stage, before shifterd has come to it.
pub struct Stage {
    pub scratch: Scratch,
    daemon: Option<Daemon>,
    // Dropped last: everything above runs in it.
    pub world: World,
}

/// Where version a (0) or b (1) listens.
pub fn server(version: usize) -> SocketAddr {
    OTHER.port(Family::V4, [8_081, 8_082][version])
}

/// Where clients connect to.
pub fn vip() -> SocketAddr {
    VIP.port(Family::V4, 80)
}

impl Stage {
    /// A world without servers.
    pub fn new(label: &str) -> Self {
        Self {
            scratch: Scratch::new(label),
            daemon: None,
            world: World::pair(Options::default()),
        }
    }

    /// A server on the host, with its log in the scratch directory.
    pub fn serve(
        &self,
        name: &str,
        program: &str,
        arguments: impl FnOnce(&mut Command),
    ) -> Process {
        let mut command = self.world.host().command(program);
        arguments(&mut command);
        let log = self.scratch.path().join(format!("{name}.log"));
        Process::spawn_logged(name, &mut command, &log)
    }

    /// A client that will run through the VIP.
    pub fn client(&self, name: &str, program: &str, arguments: &[&str]) -> Process {
        let mut command = self.world.client().command(program);
        command.args(arguments);
        let log = self.scratch.path().join(format!("client-{name}.log"));
        Process::spawn_logged(name, &mut command, &log)
    }

    /// Starts shifterd when both servers accept connections.
    pub fn steer(&mut self, plane: Plane) {
        self.steer_to_user(plane, None);
    }

    /// As [`Stage::steer`], with servers that run as this user.
    pub fn steer_to_user(&mut self, plane: Plane, user: Option<&str>) {
        let mut spec = service(SERVICE, &[vip()], &[server(0)], &[server(1)]);
        spec.plane = plane;
        for slot in &mut spec.slots {
            slot.user = user.map(Into::into);
        }
        spec.readiness.check = ProbeCheck::Tcp;
        spec.readiness.interval = Duration::from_millis(500);
        spec.readiness.timeout = Duration::from_millis(500);
        spec.readiness.failure_threshold = 10;
        let daemon = Daemon::start(self.world.host(), Node::new(HookSpec::Tc), &[spec]);
        let status = daemon.wait_for("both versions are ready", |status| {
            status.services[0].slots.iter().all(|slot| slot.eligible)
        });
        let expected = if plane == Plane::Nat { "nat" } else { "socket" };
        assert_eq!(status.services[0].plane, expected);
        self.daemon = Some(daemon);
    }

    /// Shifts to the new version by steps and rolls back, again and again, while `is_running` says
    /// so; at least once. Gives the number of rollbacks.
    pub fn shift_while(&self, mut is_running: impl FnMut() -> bool) -> u32 {
        let daemon = self.daemon.as_ref().expect("shifterd steers");
        let mut rollbacks_count = 0;
        loop {
            for weight_bp in [500, 5_000, 10_000] {
                daemon.set_weight(SERVICE, weight_bp).expect("a weight");
                sleep(PAUSE);
            }
            daemon
                .rollback(SERVICE, Some(EstablishedPolicy::Drain))
                .expect("a rollback");
            rollbacks_count += 1;
            sleep(PAUSE);
            if !is_running() {
                return rollbacks_count;
            }
        }
    }

    /// Sends new connections to one version.
    pub fn send_to(&self, version: usize) {
        self.set_weight([0, 10_000][version]);
    }

    /// Gives the new version this share of new connections.
    pub fn set_weight(&self, weight_bp: u16) {
        let daemon = self.daemon.as_ref().expect("shifterd steers");
        daemon.set_weight(SERVICE, weight_bp).expect("a weight");
    }

    /// Live connections of each version, as shifterd counts them.
    pub fn live(&self) -> [u64; 2] {
        let daemon = self.daemon.as_ref().expect("shifterd steers");
        let service = daemon.service(SERVICE).expect("the service is known");
        [0, 1].map(|slot| service.slots[slot].live_flows_count)
    }

    /// Waits for a client and asserts that it succeeded; gives what it said.
    #[track_caller]
    pub fn succeeds(&self, mut client: Process) -> String {
        let status = client.wait(PATIENCE);
        let log = client.log();
        assert!(
            status.success(),
            "{} ended with {status}:\n{log}",
            client.name()
        );
        log
    }

    /// Waits until a server accepts connections.
    #[track_caller]
    pub fn await_server(&self, process: &Process, addr: SocketAddr) {
        let host = self.world.host().inside();
        for _ in 0..600 {
            if host.run(|| std::net::TcpStream::connect(addr).is_ok()) {
                return;
            }
            assert!(
                process.is_running(),
                "{} has ended:\n{}",
                process.name(),
                process.log()
            );
            sleep(Duration::from_millis(50));
        }
        panic!(
            "{} does not listen at {addr}:\n{}",
            process.name(),
            process.log()
        );
    }
}
