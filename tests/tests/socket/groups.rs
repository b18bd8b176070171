//! Versions of several processes, or of one that does not own its listener.

use std::{
    net::{SocketAddr, TcpListener},
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    thread::sleep,
    time::Duration,
};

use nix::{libc, sys::signal::Signal};
use shifter_common::wire::Slot;
use shifter_daemon::model::HookSpec;
use shifter_tests::{
    backend::{Backend, Spec},
    daemon::{Daemon, Node},
    load::Plan,
    netns::Netns,
    process::Process,
    world::{Family, OTHER, Options, World},
};

use crate::stage::{CLIENTS, PORT_A, PORT_B, Stage, counter, cut_off, orders, slot, vip};

/// Where version b of these sessions listens.
const PORT_GROUP: u16 = 8_084;
const PATIENCE: Duration = Duration::from_secs(10);

fn addrs() -> Vec<SocketAddr> {
    OTHER.ports(PORT_GROUP)
}

/// A stage whose version b is what listens at [`PORT_GROUP`], now or later.
fn stage(world: World) -> Stage {
    let a = Backend::start(world.host(), Spec::new("a", &OTHER.ports(PORT_A)));
    let b = Backend::start(world.host(), Spec::new("nobody's", &OTHER.ports(PORT_B)));
    let service = orders(&OTHER.ports(PORT_A), &addrs());
    let daemon = Daemon::start(world.host(), Node::new(HookSpec::Tc), &[service]);
    Stage {
        daemon,
        _a: a,
        b,
        world,
    }
}

/// Gives version b all new connections, once it can take them.
fn shift(stage: &Stage) {
    stage.wait("both slots are eligible", |service| {
        service.slots.iter().all(|s| s.eligible)
    });
    stage.set_weight(10_000);
}

/// A member of the group, when it answers at every address. Others may answer for it.
fn member(world: &World, name: &str) -> Process {
    let mut command = world.host().command(env!("CARGO_BIN_EXE_shifter-answer"));
    command.args(["b", "share"]);
    command.args(addrs().iter().map(SocketAddr::to_string));
    let process = Process::spawn(name, &mut command);
    let mut listens_count = 0;
    for _ in 0..500 {
        let filter = format!("sport = :{PORT_GROUP}");
        let listed = world.host().tool("ss", &["-Hltnp", &filter]);
        let own = format!("pid={},", process.pid());
        listens_count = listed.matches(&own).count();
        if listens_count == addrs().len() {
            return process;
        }
        sleep(Duration::from_millis(10));
    }
    panic!("{name} listens at {listens_count} addresses");
}

/// Connections went to version b alone.
#[track_caller]
fn assert_stayed(stage: &Stage) {
    let service = crate::stage::assert_nothing_missed(stage);
    assert_eq!(slot(&service, Slot::A).counters.established, 0);
    assert!(slot(&service, Slot::B).eligible);
}

/// Two processes that know nothing of each other listen on the same addresses. Whichever is killed, the
/// other one takes the new connections; what the dead one had is lost, and is counted apart.
#[test]
fn either_process_of_a_group_may_be_killed() {
    let world = World::pair(Options::default());
    // One is older than shifter, the other younger.
    let older = member(&world, "older");
    let stage = stage(world);
    shift(&stage);
    let mut members = [older, member(&stage.world, "younger")];
    let loads = stage.churn_beside(2_000.0, Duration::from_secs(9));
    let mut kills_count = 0;
    for turn in 0..12 {
        sleep(Duration::from_millis(250));
        let place = &mut members[turn % 2];
        place.kill_group();
        kills_count += 1;
        sleep(Duration::from_millis(250));
        *place = member(&stage.world, "again");
    }
    let (cut_off_count, reports) = cut_off(loads);
    let all: u64 = reports.iter().map(|report| report.connections).sum();
    eprintln!("{kills_count} kills cut {cut_off_count} of {all} connections off");
    assert!(cut_off_count <= kills_count * 2 * CLIENTS as u64);
    assert_stayed(&stage);
}

/// A process that leaves its group in order loses next to nothing where the kernel hands on what its
/// listeners had queued (`net.ipv4.tcp_migrate_req`).
#[test]
fn a_process_leaves_its_group_in_order() {
    const DEPARTURES_COUNT: u64 = 8;
    let world = World::pair(Options::default());
    world.host().sysctl("net.ipv4.tcp_migrate_req", "1");
    let stays = member(&world, "stays");
    let stage = stage(world);
    shift(&stage);
    let loads = stage.churn_beside(2_000.0, Duration::from_secs(7));
    for _ in 0..DEPARTURES_COUNT {
        let mut leaves = member(&stage.world, "leaves");
        sleep(Duration::from_millis(300));
        leaves.signal(Signal::SIGTERM);
        let status = leaves.wait(PATIENCE);
        assert!(status.success(), "{status}");
    }
    let (cut_off_count, reports) = cut_off(loads);
    // A handshake that one CPU completes while another one closes its listener is handed on by nobody.
    assert!(cut_off_count <= DEPARTURES_COUNT, "{reports:#?}");
    eprintln!("{DEPARTURES_COUNT} departures cut {cut_off_count} connections off");
    assert!(stays.is_running());
    assert_stayed(&stage);
}

/// Listeners that a parent holds, as systemd does for a unit that it activates by its socket.
struct Activated {
    listeners: Vec<TcpListener>,
    child: Option<Process>,
}

impl Activated {
    fn listen(netns: &Netns) -> Self {
        let bind = |at| {
            let listener = netns.run(|| TcpListener::bind(at)).expect("listens");
            // As systemd's default, so that all who wait during a restart have room.
            // SAFETY: the descriptor is open, and listening again changes the queue's length alone.
            let code = unsafe { libc::listen(listener.as_raw_fd(), 4_096) };
            assert_eq!(code, 0);
            listener
        };
        Self {
            listeners: addrs().into_iter().map(bind).collect(),
            child: None,
        }
    }

    fn start_child(&mut self, netns: &Netns) {
        let mut command = netns.command(env!("CARGO_BIN_EXE_shifter-answer"));
        command.args(["b", "inherit", &self.listeners.len().to_string()]);
        let held: [i32; 2] = [0, 1].map(|place| self.listeners[place].as_raw_fd());
        // SAFETY: between fork and exec only fcntl and dup2 are called, plain system calls.
        unsafe {
            command.pre_exec(move || {
                // Out of the way first: a held one may have a number that is to be given.
                let apart = held.map(|fd| libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 100));
                let given = [libc::dup2(apart[0], 3), libc::dup2(apart[1], 4)];
                match given {
                    [3, 4] => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        self.child = Some(Process::spawn("activated", &mut command));
    }
}

/// The process of a socket-activated unit is killed and started again: its listener lives on and is never
/// captured anew, nobody is refused, and who waits in the queue is served by the next process.
#[test]
fn a_socket_activated_process_is_killed() {
    for is_older in [true, false] {
        let world = World::pair(Options::default());
        let older = is_older.then(|| Activated::listen(world.host()));
        let stage = stage(world);
        let mut activated = older.unwrap_or_else(|| Activated::listen(stage.world.host()));
        activated.start_child(stage.world.host());
        shift(&stage);
        let captured = counter(&stage.service(), Slot::B, "captured");
        let loads = stage.churn_beside(1_500.0, Duration::from_secs(7));
        let mut kills_count = 0;
        for _ in 0..8 {
            sleep(Duration::from_millis(400));
            activated.child = None;
            kills_count += 1;
            // Long enough for every client to wait in the queue.
            sleep(Duration::from_millis(200));
            activated.start_child(stage.world.host());
        }
        let (cut_off_count, reports) = cut_off(loads);
        let all: u64 = reports.iter().map(|report| report.connections).sum();
        eprintln!("older {is_older}: {kills_count} kills cut {cut_off_count} of {all} off");
        assert!(cut_off_count <= kills_count * 2 * CLIENTS as u64);
        assert_stayed(&stage);
        assert_eq!(counter(&stage.service(), Slot::B, "captured"), captured);
    }
}

/// While nobody accepts, probes take the version out; its listener being there is no readiness.
#[test]
fn a_socket_activated_version_that_hangs_is_taken_out() {
    let stage = stage(World::pair(Options::default()));
    let mut activated = Activated::listen(stage.world.host());
    activated.start_child(stage.world.host());
    shift(&stage);
    activated.child = None;
    let service = stage.wait("slot b is out", |s| !slot(s, Slot::B).eligible);
    assert_eq!(service.effective_bp, 0);
    let report = stage.load(&Plan::connections(vip(Family::V4), 8, 200));
    report.assert_clean();
    assert_eq!(report.backend("a").requests, 200);
    activated.start_child(stage.world.host());
    stage.wait("slot b is in again", |s| slot(s, Slot::B).eligible);
    let report = stage.load(&Plan::connections(vip(Family::V6), 8, 200));
    report.assert_clean();
    assert_eq!(report.backend("b").requests, 200);
}
