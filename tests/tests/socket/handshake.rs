//! Handshakes that do not go straight: ports used again, packets lost on the way, SYN cookies; and the
//! weight changes in between.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::{AsRawFd as _, OwnedFd},
    thread::sleep,
    time::Duration,
};

use nix::{
    libc::linger,
    sys::socket::{
        AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect,
        setsockopt, socket, sockopt,
    },
};
use shifter_common::wire::{ServiceStatus, Slot};
use shifter_daemon::model::ProbeCheck;
use shifter_tests::{
    http,
    load::{ErrorKind, Report},
    netns::Netns,
    world::{CLIENT, Family, OTHER},
};

use crate::stage::{CLIENTS, PORT, PORT_A, PORT_B, Stage, orders, slot, vip};

/// Weights that are given in turn.
const WEIGHTS_BP: [u16; 4] = [10_000, 2_500, 7_500, 0];

/// Each connection counts once, whatever became of its first packets.
#[track_caller]
fn assert_counted_once(before: &ServiceStatus, after: &ServiceStatus, reports: &[Report]) {
    let all: u64 = reports.iter().map(|report| report.connections).sum();
    let count = |of| {
        let counted = Slot::ALL.map(|s| slot(of, s).counters.established);
        counted.iter().sum::<u64>()
    };
    assert_eq!(count(after) - count(before), all);
}

/// The server closes first and so remembers each connection for a minute, while its client has a dozen
/// ports and takes each again at once. That a client has no port left is its own matter, and counted
/// apart.
#[test]
fn ports_are_taken_again_at_once() {
    const PORTS: &str = "40000 40011";
    let stage = Stage::new();
    let client = stage.world.client();
    client.sysctl("net.ipv4.ip_local_port_range", PORTS);
    let before = stage.service();
    let loads = stage.churn_beside(1_000.0, Duration::from_secs(5));
    for weight_bp in WEIGHTS_BP.into_iter().cycle().take(12) {
        stage.set_weight(weight_bp);
        sleep(Duration::from_millis(350));
    }
    let filter = format!("sport = :{PORT}");
    let remembered = stage
        .world
        .host()
        .tool("ss", &["-Htn", "state", "time-wait", &filter]);
    let reports = loads.map(|load| load.join().expect("ran"));
    let mut without_port_count = 0;
    for report in &reports {
        let own = report.errors(ErrorKind::NoPort);
        assert_eq!(report.errors_count(), own, "{report:#?}");
        // Each of the twelve many times.
        assert!(report.requests > 500, "{report:#?}");
        assert!(report.backend("a").requests > 0 && report.backend("b").requests > 0);
        without_port_count += own;
    }
    assert!(remembered.lines().count() >= 12, "{remembered}");
    eprintln!("the clients had no port {without_port_count} times");
    assert_counted_once(&before, &stage.service(), &reports);
}

/// Drops packets at the host while it lives.
struct Loss<'a>(&'a Netns);

impl<'a> Loss<'a> {
    /// `hook` is the place, `rule` what is dropped there.
    fn of(host: &'a Netns, hook: &str, rule: &str) -> Self {
        let table = format!(
            "table inet loss {{\nchain lossy {{\ntype filter hook {hook} priority -300;\n{rule} drop\n}}\n}}\n"
        );
        host.tool_with_input("nft", &["-f", "-"], &table);
        Self(host)
    }
}

impl Drop for Loss<'_> {
    fn drop(&mut self) {
        self.0.tool("nft", &["delete", "table", "inet", "loss"]);
    }
}

/// Packets of handshakes are lost while the weight changes: whoever repeats a packet is where its first
/// SYN went, and nobody fails.
#[test]
fn lost_packets_of_a_handshake_are_repeated() {
    let syn_ack = format!("tcp sport {PORT} tcp flags & (syn | ack) == syn | ack");
    let syn = format!("tcp dport {PORT} tcp flags & (syn | ack) == syn");
    let ack = format!("tcp dport {PORT} tcp flags & (syn | ack) == ack");
    let stage = Stage::new();
    let host = stage.world.host();
    for (what, hook, rule, is_half_open) in [
        ("SYN", "prerouting", syn, false),
        ("SYN/ACK", "output", syn_ack, true),
        ("ACK", "prerouting", ack, true),
    ] {
        let before = stage.service();
        let loads = stage.churn_beside(500.0, Duration::from_secs(6));
        let mut half_open_count = 0;
        for weight_bp in WEIGHTS_BP {
            sleep(Duration::from_millis(200));
            let loss = Loss::of(host, hook, &rule);
            sleep(Duration::from_millis(150));
            let filter = format!("sport = :{PORT}");
            let listed = host.tool("ss", &["-Htn", "state", "syn-recv", &filter]);
            half_open_count += listed.lines().count();
            stage.set_weight(weight_bp);
            sleep(Duration::from_millis(150));
            drop(loss);
            // The first repetition comes after a second.
            sleep(Duration::from_millis(900));
        }
        let reports = loads.map(|load| load.join().expect("ran"));
        for report in &reports {
            report.assert_clean();
            assert!(report.requests > 200, "{what}: {report:#?}");
        }
        eprintln!("{what}: {half_open_count} half open");
        assert_eq!(half_open_count > 0, is_half_open, "{what}");
        assert!(half_open_count <= 4 * 2 * CLIENTS);
        assert_counted_once(&before, &stage.service(), &reports);
    }
}

/// Ports that clients of the cookies' test connect from.
const FIRST_PORT: u16 = 20_000;
const PORTS_COUNT: u16 = 24;

/// Connects from a port of the client.
fn open(from: IpAddr, port: u16, to: SocketAddr) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let socket: OwnedFd = socket(
        family,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::Tcp,
    )?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    let own = SocketAddr::new(from, port);
    bind(socket.as_raw_fd(), &SockaddrStorage::from(own))?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(stream)
}

/// Asks who answers, and ends the connection by force: where one is remembered (TIME_WAIT), the kernel gives
/// no cookie to the next from the same port.
fn ask(mut stream: TcpStream) -> io::Result<String> {
    let at_once = linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&stream, sockopt::Linger, &at_once)?;
    Ok(http::ask(&mut stream, "GET", "/", None)?.backend)
}

/// Resets that a namespace has sent.
fn sent_resets(netns: &Netns) -> u64 {
    let said = netns.tool("nstat", &["-saz", "TcpOutRsts"]);
    let line = said
        .lines()
        .find_map(|line| line.strip_prefix("TcpOutRsts"));
    let count = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    count.unwrap_or_else(|| panic!("no TcpOutRsts in:\n{said}"))
}

/// With SYN cookies nobody remembers what a SYN chose: if the weight changes before its ACK comes, a
/// connection whose version changed is reset, once, if the version that it has now has given no cookie of
/// late, and is that version's otherwise. All others, and all without cookies, stay where they began.
#[test]
fn cookies_forget_what_the_syn_chose() {
    let (a, b) = (OTHER.ports(PORT_A), OTHER.ports(PORT_B));
    let mut spec = orders(&a, &b);
    // A probe would be given a cookie as everybody else.
    spec.readiness.check = ProbeCheck::None;
    let stage = Stage::with(&a, &b, spec);
    let host = stage.world.host();
    // The third time, both versions have given cookies the time before.
    for (cookies, has_given_cookies) in [("1", false), ("2", false), ("2", true)] {
        for family in Family::ALL {
            let what = format!("{family:?}, tcp_syncookies={cookies}, {has_given_cookies}");
            let (from, to) = (CLIENT.ip(family), vip(family));
            let inside = stage.world.client().inside();
            let open_from = |port| inside.run(|| open(from, port, to));
            let ports = FIRST_PORT..FIRST_PORT + PORTS_COUNT;
            // Which of them are version b's at this weight; asked without cookies.
            host.sysctl("net.ipv4.tcp_syncookies", "1");
            stage.set_weight(5_000);
            let ask_from = |port| ask(open_from(port).expect("a connection")).expect("an answer");
            let expected: Vec<String> = ports.clone().map(ask_from).collect();
            let changed_count = expected.iter().filter(|name| *name == "b").count() as u64;
            assert!((1..u64::from(PORTS_COUNT)).contains(&changed_count));
            host.sysctl("net.ipv4.tcp_syncookies", cookies);
            stage.set_weight(0);
            let before = stage.service();
            let resets_before = sent_resets(host);
            let rule = format!("tcp dport {PORT} tcp flags & (syn | ack) == ack");
            let loss = Loss::of(host, "prerouting", &rule);
            // To a client the connection is there with the SYN/ACK.
            let opened: Vec<TcpStream> = ports
                .clone()
                .map(|port| open_from(port).expect("a SYN/ACK"))
                .collect();
            let answers = opened
                .into_iter()
                .map(|stream| std::thread::spawn(|| ask(stream)))
                .collect::<Vec<_>>()
                .into_iter();
            sleep(Duration::from_millis(50));
            stage.set_weight(5_000);
            drop(loss);
            // All of them first: a version that has given one cookie takes those of others.
            let answers = answers.map(|answer| answer.join().expect("asked"));
            let answers: Vec<_> = ports.zip(&expected).zip(answers).collect();
            let (mut reset_count, mut moved_count) = (0, 0);
            for ((port, expected), answer) in answers {
                match answer {
                    Ok(name) if name == "a" => {
                        assert!(cookies == "1" || expected == "a", "{what}: {port}");
                    }
                    Ok(name) => {
                        assert_eq!((&*name, &**expected), ("b", "b"), "{what}: {port}");
                        moved_count += 1;
                    }
                    Err(error) => {
                        let kind = ErrorKind::of(&error);
                        assert_eq!(kind, ErrorKind::Reset, "{what}: {port}: {error}");
                        assert_eq!(expected, "b", "{what}: {port}");
                        reset_count += 1;
                        // Once.
                        assert_eq!(ask_from(port), "b", "{what}: {port}");
                    }
                }
            }
            eprintln!("{what}: {changed_count} changed, {reset_count} reset, {moved_count} moved");
            let changed = match (cookies, has_given_cookies) {
                ("1", _) => (0, 0),
                (_, false) => (changed_count, 0),
                (_, true) => (0, changed_count),
            };
            assert_eq!((reset_count, moved_count), changed, "{what}");
            assert!(sent_resets(host) - resets_before >= reset_count, "{what}");
            // What was reset was no connection yet, so it counts as the one that came instead.
            let service = stage.service();
            let counted = |of| {
                let established = |service| slot(service, of).counters.established;
                established(&service) - established(&before)
            };
            let of_b = reset_count + moved_count;
            assert_eq!(counted(Slot::B), of_b, "{what}");
            assert_eq!(counted(Slot::A), u64::from(PORTS_COUNT) - of_b, "{what}");
        }
    }
}
