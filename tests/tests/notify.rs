//! What shifterd tells whoever started it, and when: the protocol behind `Type=notify`.

use std::{fs, io, os::unix::net::UnixDatagram, path::PathBuf, process::Command, time::Duration};

use nix::sys::signal::Signal;
use shifter_daemon::model::HookSpec;
use shifter_tests::{
    backend::{Backend, Spec},
    daemon::{Daemon, Node, service},
    http,
    process::Process,
    scratch::Scratch,
    world::{Family, OTHER, Options, VIP, World},
};

/// How long a message that must come may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Plays systemd: starts shifterd and hears what it says.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    log: PathBuf,
    // Dropped last.
    _scratch: Scratch,
}

impl Manager {
    fn new() -> Self {
        let scratch = Scratch::new("notify");
        let path = scratch.path().join("socket");
        let socket = UnixDatagram::bind(&path).expect("bind");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self {
            socket,
            path,
            log: scratch.path().join("log"),
            _scratch: scratch,
        }
    }

    fn start(&self, world: &World, daemon: &Daemon) -> Process {
        let mut command: Command = world.host().command(shifter_tests::daemon::shifterd());
        command.arg("--config").arg(daemon.node_file());
        command
            .env("NOTIFY_SOCKET", &self.path)
            .env_remove("SHIFTER_LOG");
        Process::spawn_logged("shifterd", &mut command, &self.log)
    }

    /// The next message.
    fn hear(&self) -> String {
        let mut bytes = [0; 4096];
        match self.socket.recv(&mut bytes) {
            Ok(count) => String::from_utf8_lossy(&bytes[..count]).trim().to_owned(),
            Err(err) => panic!("shifterd said nothing: {err}"),
        }
    }

    /// That there is no message more.
    fn hear_nothing(&self) {
        self.socket.set_nonblocking(true).expect("not blocking");
        let heard = self.socket.recv(&mut [0; 4096]);
        self.socket.set_nonblocking(false).expect("blocking");
        let kind = heard.map_err(|err| err.kind());
        assert_eq!(kind, Err(io::ErrorKind::WouldBlock));
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            eprintln!("---- log of shifterd ----\n{log}---- end ----");
        }
    }
}

#[test]
fn ready_reload_stopping_and_killed() {
    let manager = Manager::new();
    let world = World::pair(Options::default());
    let _a = Backend::start(world.host(), Spec::new("a", &OTHER.ports(8_081)));
    let _b = Backend::start(world.host(), Spec::new("b", &OTHER.ports(8_082)));
    let both = [OTHER.ports(8_083), OTHER.ports(8_084)].concat();
    let _c = Backend::start(world.host(), Spec::new("c", &both));
    let patient = |name, vip, a, b| {
        let mut spec = service(name, &VIP.ports(vip), &OTHER.ports(a), &OTHER.ports(b));
        spec.readiness.interval = Duration::from_millis(200);
        spec.readiness.timeout = Duration::from_millis(200);
        spec.readiness.failure_threshold = 6;
        spec
    };
    let orders = patient("orders", 80, 8_081, 8_082);
    let node = Node {
        patience: PATIENCE,
        ..Node::new(HookSpec::Tc)
    };
    let daemon = Daemon::prepare(world.host(), node, std::slice::from_ref(&orders));
    let ask = |port| {
        let answer = world
            .client()
            .run(|| http::get(VIP.port(Family::V4, port), "/"));
        answer.expect("an answer").backend
    };

    let mut process = manager.start(&world, &daemon);
    assert_eq!(manager.hear(), "READY=1");
    // The first question is answered: there is no waiting here.
    assert!(!daemon.client().status().daemon.adopted);
    daemon.wait_until_ready();
    daemon.set_weight("orders", 10_000).expect("accepted");
    assert_eq!(ask(80), "b");

    daemon.write_service(&patient("other", 81, 8_083, 8_084));
    process.signal(Signal::SIGHUP);
    daemon.wait_for("the new service is in force", |status| {
        status.services.iter().any(|service| {
            service.name == "other" && service.slots.iter().all(|slot| slot.eligible)
        })
    });
    assert_eq!((ask(80), ask(81)), ("b".to_owned(), "c".to_owned()));
    manager.hear_nothing();

    process.signal(Signal::SIGKILL);
    assert_eq!(process.wait(PATIENCE).code(), None);
    manager.hear_nothing();
    assert_eq!(ask(80), "b", "steered by nobody");
    let mut process = manager.start(&world, &daemon);
    assert_eq!(manager.hear(), "READY=1");
    assert!(daemon.client().status().daemon.adopted);

    process.signal(Signal::SIGTERM);
    assert_eq!(manager.hear(), "STOPPING=1");
    assert_eq!(process.wait(PATIENCE).code(), Some(0), "{}", process.log());
    manager.hear_nothing();
    assert_eq!((ask(80), ask(81)), ("b".to_owned(), "c".to_owned()));
    let mut process = manager.start(&world, &daemon);
    assert_eq!(manager.hear(), "READY=1");
    assert!(daemon.client().status().daemon.adopted);

    // An operator's end is told like any other.
    daemon.detach(true).expect("detached");
    assert_eq!(manager.hear(), "STOPPING=1");
    assert_eq!(process.wait(PATIENCE).code(), Some(0), "{}", process.log());
}

#[test]
fn a_failed_start_is_never_ready() {
    let manager = Manager::new();
    let world = World::pair(Options::default());
    let daemon = Daemon::prepare(world.host(), Node::new(HookSpec::Tc), &[]);
    daemon.write_node("[[interface]]\nname = \"eth0\"\nhok = \"tc\"\n");
    let mut process = manager.start(&world, &daemon);
    assert_eq!(process.wait(PATIENCE).code(), Some(1));
    manager.hear_nothing();
    let place = format!("{}:3:1: ", daemon.node_file().display());
    for part in ["shifterd: the node file has problems", &place] {
        assert!(
            process.log().contains(part),
            "no {part:?} in:\n{}",
            process.log()
        );
    }
}
