//! Who ended a connection by force, and the breaker that learns from it.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use nix::{
    libc::linger,
    sys::{
        signal::Signal,
        socket::{setsockopt, sockopt},
    },
};
use shifter_common::wire::{ServiceStatus, Slot};
use shifter_daemon::model::{HookSpec, Prefix, ProbeCheck, ServiceSpec};
use shifter_tests::{
    backend::{Backend, Spec},
    daemon::{Daemon, Node},
    load::Plan,
    netns::Netns,
    world::{Family, OTHER, Options, World},
};

use crate::stage::{PORT_A, PORT_B, Stage, counter, orders, slot, vip};

/// Where the version listens that ends every connection by force.
const PORT_ABORTS: u16 = 8_083;

/// A server that accepts, and resets what it has accepted.
struct Aborts {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Aborts {
    fn start(netns: &Netns, at: &[SocketAddr]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = at.iter().map(|at| {
            let listener = netns.run(|| TcpListener::bind(at)).expect("listens");
            listener.set_nonblocking(true).expect("does not block");
            let stopped = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stopped.load(Ordering::Acquire) {
                    match listener.accept() {
                        Ok((stream, _)) => end_by_force(stream),
                        Err(_) => std::thread::sleep(Duration::from_millis(1)),
                    }
                }
            })
        });
        Self {
            threads: threads.collect(),
            stop,
        }
    }
}

impl Drop for Aborts {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            // A server that panicked has failed its test already.
            let _ = thread.join();
        }
    }
}

/// Closes with a reset.
fn end_by_force(stream: TcpStream) {
    let at_once = linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&stream, sockopt::Linger, &at_once).expect("a socket");
}

/// Flows count from the first one on; the clients of this world are one network.
fn spec() -> ServiceSpec {
    let mut spec = orders(&OTHER.ports(PORT_A), &OTHER.ports(PORT_ABORTS));
    spec.readiness.check = ProbeCheck::None;
    spec.breaker.settle = Duration::ZERO;
    spec.breaker.trusted = [
        Prefix::of([10, 0, 0, 0].into(), 8).expect("a prefix"),
        Prefix::of("2001:db8::".parse().expect("an address"), 32).expect("a prefix"),
    ]
    .into();
    spec
}

/// A stage whose version b is the one that resets.
fn stage() -> (Stage, Aborts) {
    let world = World::pair(Options::default());
    let aborts = Aborts::start(world.host(), &OTHER.ports(PORT_ABORTS));
    let a = Backend::start(world.host(), Spec::new("a", &OTHER.ports(PORT_A)));
    let b = Backend::start(world.host(), Spec::new("b", &OTHER.ports(PORT_B)));
    let daemon = Daemon::start(world.host(), Node::new(HookSpec::Tc), &[spec()]);
    let stage = Stage {
        daemon,
        _a: a,
        b,
        world,
    };
    stage.wait("both slots are eligible", |service| {
        service.slots.iter().all(|s| s.eligible)
    });
    (stage, aborts)
}

fn counted(service: &ServiceStatus, name: &str) -> u64 {
    let errors = service.breaker.errors.iter();
    errors
        .filter(|(of, _)| of == name)
        .map(|(_, count)| count)
        .sum()
}

#[test]
fn a_version_that_resets_its_clients_is_out_after_a_handful() {
    for (weight_bp, most_errors, is_stopped) in [(500, 6, false), (5_000, 20, true)] {
        let (stage, _aborts) = stage();
        stage.set_weight(weight_bp);
        if is_stopped {
            stage.daemon.signal(Signal::SIGSTOP);
        }
        let (mut failed, mut quiet) = (0, 0);
        for _ in 0..60 {
            let report = stage.load(&Plan::connections(vip(Family::V4), 1, 100));
            failed += report.errors_count();
            quiet = if report.errors_count() == 0 && failed > 0 {
                quiet + 1
            } else {
                0
            };
            if quiet == 5 {
                break;
            }
        }
        if is_stopped {
            stage.daemon.signal(Signal::SIGCONT);
        }
        assert!(
            (1..=most_errors).contains(&failed),
            "{weight_bp} bp: {failed} failed"
        );
        assert_eq!(quiet, 5, "{weight_bp} bp: the old version serves everybody");
        let service = stage.wait("the trip is known", |service| {
            service.breaker.tripped && service.weight_by == "the breaker"
        });
        assert_eq!(service.effective_bp, 0);
        assert_eq!(counted(&service, "canary"), failed);
        assert_eq!(
            (counted(&service, "baseline"), counted(&service, "trips")),
            (0, 1)
        );
        let counters = |of| &slot(&service, of).counters;
        assert_eq!(counters(Slot::B).reset_by_backend, failed);
        assert_eq!(counters(Slot::A).reset_by_backend, 0);
        assert_eq!(counter(&service, Slot::B, "aborted"), 0);
    }
}

/// What clients do is nobody's fault: they reset, and they leave without a word.
#[test]
fn clients_that_reset_are_told_apart() {
    let (stage, _aborts) = stage();
    let inside = stage.world.client().inside();
    let before = slot(&stage.service(), Slot::A).counters;
    inside.run(|| {
        for family in Family::ALL {
            for _ in 0..20 {
                let mut stream = TcpStream::connect(vip(family)).expect("a server");
                stream
                    .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                    .expect("it reads");
                // The answer is there, so the server is done with the request.
                let mut answer = [0; 16];
                stream.read_exact(&mut answer).expect("an answer");
                end_by_force(stream);
            }
        }
    });
    let service = stage.wait("every reset is counted", |service| {
        let now = &slot(service, Slot::A).counters;
        now.reset_by_client - before.reset_by_client == 40
    });
    let now = &slot(&service, Slot::A).counters;
    assert_eq!(now.established - before.established, 40);
    assert_eq!((now.reset_by_backend, now.closed - before.closed), (0, 0));
    assert_eq!(counter(&service, Slot::A, "aborted"), 0);
    assert_eq!(
        (counted(&service, "canary"), counted(&service, "baseline")),
        (0, 0)
    );
}

/// Connections that shifter itself resets are no errors of their version.
#[test]
fn resets_by_an_operator_are_no_errors() {
    let (stage, _aborts) = stage();
    let inside = stage.world.client().inside();
    let open: Vec<TcpStream> = inside.run(|| {
        let connect = |_| TcpStream::connect(vip(Family::V4)).expect("a server");
        (0..10).map(connect).collect()
    });
    stage.wait("they are open", |service| {
        slot(service, Slot::A).live_flows_count == 10
    });
    // All of a's are reset when a is the canary's side of a rollback: the roles change by weight alone, so
    // the sockets are destroyed here as the kernel's own tool would.
    let status = stage.world.host().inside().run(|| {
        std::process::Command::new("ss")
            .args(["-K", "state", "established", "sport", "=", ":80"])
            .output()
            .expect("ss runs")
    });
    assert!(status.status.success(), "{status:?}");
    let service = stage.wait("all are gone", |service| {
        slot(service, Slot::A).live_flows_count == 0
    });
    assert_eq!(counter(&service, Slot::A, "aborted"), 10);
    assert_eq!(slot(&service, Slot::A).counters.reset_by_backend, 0);
    assert_eq!(counted(&service, "baseline"), 0);
    drop(open);
}
