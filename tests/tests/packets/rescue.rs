//! Flows whose entries are lost, with real sockets as their backends: the programs run in the network
//! namespace of whoever runs them.

use std::{
    cell::RefCell,
    io::Write as _,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use aya::maps::{Array, Map};
use nix::{
    libc,
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket,
        sockopt,
    },
};
use shifter_common::{
    abi::{map, setting},
    steering::Slot,
    verdict::Verdict,
};
use shifter_daemon::dataplane::{Dataplane as _, ServicePlan};
use shifter_tests::{flood::Flood, netns::Netns, packet::Packet};

use crate::{
    kernel::{Hook, Kernel},
    plans::*,
};

/// A client and a backend that are connected, in the namespace of the calling thread.
struct Connection {
    client: TcpStream,
    backend: Option<TcpStream>,
    listener: TcpListener,
}

impl Connection {
    fn new(client: &str, backend: &str) -> Self {
        let (client, backend): (SocketAddr, SocketAddr) = (addr(client), addr(backend));
        let listener = TcpListener::bind(backend).expect("a backend's address");
        let family = if backend.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
        setsockopt(&fd, sockopt::ReuseAddr, &true).expect("SO_REUSEADDR");
        bind(fd.as_raw_fd(), &SockaddrStorage::from(client)).expect("a client's address");
        connect(fd.as_raw_fd(), &SockaddrStorage::from(backend)).expect("a connection");
        let (accepted, from) = listener.accept().expect("a connection");
        assert_eq!(from, client);
        Self {
            client: fd.into(),
            backend: Some(accepted),
            listener,
        }
    }

    /// Waits until the backend's socket is in a state.
    fn wait_for(&self, state: u8) {
        let end = Instant::now() + Duration::from_secs(10);
        let backend = self.backend.as_ref().expect("open");
        loop {
            let info = tcp_state(backend);
            if info == state {
                return;
            }
            assert!(Instant::now() < end, "state {info} instead of {state}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address of this file")
}

fn tcp_state(stream: &TcpStream) -> u8 {
    let mut info = [0_u8; 256];
    let mut len = info.len() as libc::socklen_t;
    // SAFETY: the buffer and its length live during the call.
    let code = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    assert_eq!(code, 0, "TCP_INFO");
    info[0]
}

/// A namespace that has all addresses of the plans.
fn place() -> Netns {
    let netns = Netns::new("rescue");
    for addr in ["10.9.0.2", "10.0.0.20", "10.0.0.10"] {
        netns.ip(&format!("addr add {addr}/32 dev lo"));
    }
    // Answers to nobody go round and end here.
    netns.ip("route add 172.16.0.0/12 dev lo");
    for addr in ["2001:db8:9::2", "2001:db8::20", "2001:db8::10"] {
        netns.ip(&format!("addr add {addr}/128 dev lo nodad"));
    }
    netns
}

/// Every case; each finds empty maps and a namespace of its own.
const CASES: &[(&str, fn())] = &[
    (
        "a_lost_flow_is_found_by_its_backends_socket",
        a_lost_flow_is_found_by_its_backends_socket,
    ),
    (
        "a_guess_finds_nothing_and_leaves_nothing",
        a_guess_finds_nothing_and_leaves_nothing,
    ),
    (
        "a_lost_flow_is_found_wherever_it_was_selected_before",
        a_lost_flow_is_found_wherever_it_was_selected_before,
    ),
    (
        "a_flow_that_is_closing_is_found_in_its_phase",
        a_flow_that_is_closing_is_found_in_its_phase,
    ),
    (
        "a_reset_reaches_the_backend_and_is_no_outcome",
        a_reset_reaches_the_backend_and_is_no_outcome,
    ),
    (
        "a_guessed_segment_turns_no_direct_connection_around",
        a_guessed_segment_turns_no_direct_connection_around,
    ),
    ("a_dead_backend_is_not_found", a_dead_backend_is_not_found),
    (
        "nothing_is_evicted_where_there_is_room",
        nothing_is_evicted_where_there_is_room,
    ),
    (
        "a_lost_handshake_is_a_flow_when_its_backend_says_so",
        a_lost_handshake_is_a_flow_when_its_backend_says_so,
    ),
    (
        "a_request_sockets_number_proves_a_lost_handshake",
        a_request_sockets_number_proves_a_lost_handshake,
    ),
    (
        "a_cookie_proves_a_lost_handshake",
        a_cookie_proves_a_lost_handshake,
    ),
];

thread_local! {
    /// The programs that the cases share, because loading them takes a second.
    static KERNEL: RefCell<Option<Kernel>> = const { RefCell::new(None) };
}

fn run_all(hook: Hook) {
    KERNEL.set(Some(Kernel::new(hook)));
    for (name, case) in CASES {
        println!("{name} ({hook:?})");
        case();
    }
    KERNEL.set(None);
}

#[test]
fn xdp() {
    run_all(Hook::Xdp);
}

#[test]
fn tc() {
    run_all(Hook::Tc);
}

/// Runs in a new namespace over empty maps.
fn in_a_place(act: impl Fn(&mut Kernel) + Sync) {
    let mut kernel = KERNEL.take().expect("run_all has loaded the programs");
    kernel.wipe();
    let netns = place();
    let kernel = netns.run(|| {
        kernel.publish(&plan());
        act(&mut kernel);
        kernel
    });
    KERNEL.set(Some(kernel));
}

/// The packet comes in, gets a verdict, and goes where it shall.
#[track_caller]
fn comes_in(kernel: &Kernel, packet: &Packet, verdict: Verdict, to: &str) {
    let ran = kernel.ingress(&packet.build());
    assert_eq!(ran.verdict, verdict);
    assert_eq!(ran.bytes, packet.clone().to(to).build(), "to {to}");
}

#[track_caller]
fn goes_out(kernel: &Kernel, packet: &Packet, verdict: Verdict, from: &str) {
    let ran = kernel.egress(&packet.build());
    assert_eq!(ran.verdict, verdict);
    assert_eq!(ran.bytes, packet.clone().from(from).build(), "from {from}");
}

fn counter(kernel: &Kernel, name: &str) -> u64 {
    kernel.counters("orders").get(name).copied().unwrap_or(0)
}

fn a_lost_flow_is_found_by_its_backends_socket() {
    in_a_place(|kernel| {
        for (client, vip, backend) in [(C, V, A), (C6, V6, A6)] {
            let _open = Connection::new(client, backend);
            comes_in(
                kernel,
                &tcp(client, vip, ACK, 7_000, 9_000),
                Verdict::SteeredRescued,
                backend,
            );
            comes_in(
                kernel,
                &tcp(client, vip, ACK, 7_000, 9_000),
                Verdict::SteeredFlow,
                backend,
            );
            goes_out(
                kernel,
                &tcp(backend, client, ACK, 9_000, 7_000),
                Verdict::SteeredReply,
                vip,
            );
        }
        let census = kernel.dataplane().flow_table().census().expect("a census");
        assert_eq!((census.flows_count, census.flows_evicted_count), (2, 0));
        assert_eq!(census.live.values().sum::<u64>(), 2);
        assert_eq!(
            counter(kernel, "a.established"),
            0,
            "it was counted when it was opened"
        );
        assert_eq!(counter(kernel, "a/10.0.0.20:8080.packets_in"), 2);
        let flows = kernel
            .dataplane()
            .flow_table()
            .flows("orders")
            .expect("flows");
        assert!(flows.iter().all(|flow| flow.entry.cohort == 0));
    });
}

/// What takes no connection: another port, a listener, a handshake, no socket at all; and what is no
/// segment of an open connection.
fn a_guess_finds_nothing_and_leaves_nothing() {
    in_a_place(|kernel| {
        let open = Connection::new(C, A);
        let pass = |packet: Packet| {
            let ran = kernel.ingress(&packet.build());
            assert_eq!(ran.verdict, Verdict::PassNoFlow);
            assert_eq!(ran.bytes, packet.build());
        };
        pass(tcp("10.9.0.2:40001", V, ACK, 1, 1));
        pass(tcp("10.9.0.3:40000", V, ACK, 1, 1));
        pass(tcp(C, V, RST, 1, 0));
        pass(tcp(C, V, FIN, 1, 0));
        pass(tcp(C, V, SYN | ACK, 1, 1));
        drop(open);
        pass(tcp("10.9.0.2:40001", V, ACK, 1, 1));
        let table = kernel.dataplane.as_ref().expect("open").flow_table();
        assert_eq!(table.census().expect("a census").flows_count, 0);
    });
}

/// The flow's slot has lost its weight, its eligibility, and its table has been dealt again.
fn a_lost_flow_is_found_wherever_it_was_selected_before() {
    in_a_place(|kernel| {
        let _open = Connection::new(C, B);
        for plan in [to_b(), plan(), without(plan(), Slot::B)] {
            kernel.forget_flows();
            kernel.publish(&plan);
            comes_in(
                kernel,
                &tcp(C, V, ACK, 7_000, 9_000),
                Verdict::SteeredRescued,
                B,
            );
        }
        // Slot b gets another backend in the same place: its old table stands in the other bank.
        kernel.publish(&plan());
        let mut moved = plan();
        moved.slots[1].backends.iter_mut().for_each(|backend| {
            backend.addr.set_port(9_999);
        });
        kernel.forget_flows();
        kernel.publish(&moved);
        comes_in(
            kernel,
            &tcp(C, V, ACK, 7_000, 9_000),
            Verdict::SteeredRescued,
            B,
        );
    });
}

/// Closing: each side's FIN is counted where it belongs, once.
fn a_flow_that_is_closing_is_found_in_its_phase() {
    in_a_place(|kernel| {
        let connection = Connection::new(C, A);
        connection
            .client
            .shutdown(std::net::Shutdown::Write)
            .expect("a FIN");
        // CLOSE_WAIT: the client's FIN has been seen.
        connection.wait_for(8);
        comes_in(
            kernel,
            &tcp(C, V, ACK, 7_000, 9_000),
            Verdict::SteeredRescued,
            A,
        );
        goes_out(
            kernel,
            &tcp(A, C, FIN | ACK, 9_000, 7_000),
            Verdict::SteeredReply,
            V,
        );
        assert_eq!(counter(kernel, "a.closed"), 1);
    });
    in_a_place(|kernel| {
        let connection = Connection::new(C, A);
        let backend = connection.backend.as_ref().expect("open");
        backend.shutdown(std::net::Shutdown::Write).expect("a FIN");
        // FIN_WAIT2: the backend's FIN is out and acknowledged.
        connection.wait_for(5);
        comes_in(
            kernel,
            &tcp(C, V, FIN | ACK, 7_000, 9_000),
            Verdict::SteeredRescued,
            A,
        );
        assert_eq!(counter(kernel, "a.closed"), 1);
    });
}

fn a_reset_reaches_the_backend_and_is_no_outcome() {
    in_a_place(|kernel| {
        let _open = Connection::new(C, A);
        comes_in(
            kernel,
            &tcp(C, V, RST | ACK, 7_000, 9_000),
            Verdict::SteeredRescued,
            A,
        );
        assert_eq!(counter(kernel, "a.reset_by_client"), 0);
        // It was forged: the client goes on, and so do the replies to it.
        comes_in(
            kernel,
            &tcp(C, V, ACK, 77_000, 99_000),
            Verdict::SteeredFlow,
            A,
        );
        goes_out(
            kernel,
            &tcp(A, C, ACK, 99_000, 77_000),
            Verdict::SteeredReply,
            V,
        );
    });
}

/// A direct connection to a backend's own address uses the ports that somebody guesses: without its
/// numbers the guess turns none of its packets around, and the guess does not last.
fn a_guessed_segment_turns_no_direct_connection_around() {
    in_a_place(|kernel| {
        let _direct = Connection::new(C, A);
        comes_in(
            kernel,
            &tcp(C, V, ACK, 7_000, 9_000),
            Verdict::SteeredRescued,
            A,
        );
        let direct = tcp(A, C, ACK, 900_000_000, 700_000_000);
        let ran = kernel.egress(&direct.build());
        assert_eq!(ran.verdict, Verdict::PassDirect);
        assert_eq!(ran.bytes, direct.build());
        // The numbers of the backend count from then on, whatever the client's segment said.
        goes_out(
            kernel,
            &tcp(A, C, ACK, 9_500, 7_100),
            Verdict::SteeredReply,
            V,
        );
        let flows = kernel
            .dataplane()
            .flow_table()
            .flows("orders")
            .expect("flows");
        let entry = flows[0].entry;
        assert_eq!(
            (entry.next_from_client, entry.next_from_backend),
            (7_100, 9_500)
        );
    });
}

/// A backend that has died leaves nothing that could be found.
fn a_dead_backend_is_not_found() {
    in_a_place(|kernel| {
        let mut connection = Connection::new(C, A);
        connection.client.write_all(b"x").expect("is sent");
        let end = Instant::now() + Duration::from_secs(10);
        // Closed with unread data: a reset, and the socket is gone.
        std::thread::sleep(Duration::from_millis(20));
        connection.backend = None;
        loop {
            let ran = kernel.ingress(&tcp(C, V, ACK, 7_000, 9_000).build());
            if ran.verdict == Verdict::PassNoFlow {
                break;
            }
            kernel.forget_flows();
            assert!(Instant::now() < end, "still found: {:?}", ran.verdict);
        }
        drop(connection.listener);
    });
}

/// The counters of the tables balance through everything above: what is there is what was added and
/// not removed.
fn nothing_is_evicted_where_there_is_room() {
    in_a_place(|kernel| {
        let plan: ServicePlan = plan();
        kernel.publish(&plan);
        for port in 0..300_u16 {
            let client = SocketAddr::from(([10, 9, 0, 2], 41_000 + port));
            let (vip, a) = (addr(V), addr(A));
            let steps = [
                (true, Packet::tcp(client, vip).flags(SYN).seq(1)),
                (false, Packet::tcp(a, client).flags(SYN | ACK).seq(8).ack(2)),
                (true, Packet::tcp(client, vip).flags(ACK).seq(2).ack(9)),
                (
                    true,
                    Packet::tcp(client, vip).flags(FIN | ACK).seq(2).ack(9),
                ),
                (false, Packet::tcp(a, client).flags(FIN | ACK).seq(9).ack(3)),
                // The port is used again.
                (true, Packet::tcp(client, vip).flags(SYN).seq(90_000)),
            ];
            for (is_in, packet) in steps.iter().take(1 + usize::from(port) % steps.len()) {
                let frame = packet.build();
                let ran = if *is_in {
                    kernel.ingress(&frame)
                } else {
                    kernel.egress(&frame)
                };
                assert!(
                    ran.verdict.label().starts_with("steered_"),
                    "{:?}",
                    ran.verdict
                );
            }
        }
        let table = kernel.dataplane().flow_table();
        let census = table.census().expect("a census");
        // By steps taken: 1, 2 and 6 stand in PENDING, 3, 4 and 5 in FLOWS.
        assert_eq!((census.pending_count, census.flows_count), (150, 150));
        assert_eq!(
            (census.pending_evicted_count, census.flows_evicted_count),
            (0, 0)
        );
    });
}

/// A client's SYN to the backend that nobody else answers, and the SYN/ACK to it: client, sequence
/// numbers that follow both.
fn half_open() -> (SocketAddr, u32, u32) {
    let capture = Capture::open();
    let flood = Flood {
        interface: "lo".into(),
        to: [0; 6],
        target: match addr(A) {
            SocketAddr::V4(target) => target,
            SocketAddr::V6(_) => panic!("IPv4"),
        },
        seed: 7,
    };
    flood.open().send().expect("SYNs are sent");
    let frame = capture.next_from(8_080);
    let number =
        |at: usize| u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
    let client = (
        [frame[30], frame[31], frame[32], frame[33]],
        u16::from_be_bytes([frame[36], frame[37]]),
    );
    assert_eq!(frame[47] & (SYN | ACK), SYN | ACK);
    (
        SocketAddr::from(client),
        number(42),
        number(38).wrapping_add(1),
    )
}

/// What passes the loopback interface.
struct Capture(OwnedFd);

impl Capture {
    fn open() -> Self {
        let all = i32::from((libc::ETH_P_ALL as u16).to_be());
        // SAFETY: plain numbers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, all) };
        assert!(fd >= 0, "a packet socket");
        // SAFETY: the kernel has just given us this descriptor.
        Self(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// The next TCP frame from a port.
    fn next_from(&self, port: u16) -> Vec<u8> {
        for _ in 0..1_000 {
            let mut frame = vec![0_u8; 2_048];
            // SAFETY: the buffer lives during the call and has this length.
            let got = unsafe {
                libc::recv(
                    self.0.as_raw_fd(),
                    frame.as_mut_ptr().cast(),
                    frame.len(),
                    0,
                )
            };
            assert!(got > 0, "a frame");
            if frame[23] == 6 && frame[34..36] == port.to_be_bytes() {
                return frame;
            }
        }
        panic!("no frame from port {port}");
    }
}

/// A flood has taken the entry of a handshake, and the kernel does not say where a request socket keeps its
/// number: it lets the ACK through to the backend, and only what the backend then says makes it a flow.
fn a_lost_handshake_is_a_flow_when_its_backend_says_so() {
    in_a_place(|kernel| {
        let mut settings =
            Array::<_, u32>::try_from(Map::Array(kernel.pinned(map::SETTINGS))).expect("numbers");
        settings
            .set(setting::SYN_ACK_NUMBER_OFFSET, 0, 0)
            .expect("a setting");
        let _listener = TcpListener::bind(addr(A)).expect("a backend");
        cookies("0");
        let (client, seq, ack) = half_open();
        let (vip, a) = (addr(V), addr(A));
        let segment = |flags| Packet::tcp(client, vip).flags(flags).seq(seq).ack(ack);
        let ran = kernel.ingress(&segment(RST | ACK).build());
        assert_eq!(
            ran.verdict,
            Verdict::PassNoFlow,
            "a reset finds no handshake"
        );
        let ran = kernel.ingress(&segment(ACK).build());
        assert_eq!(ran.verdict, Verdict::SteeredRescued);
        assert_eq!(ran.bytes, segment(ACK).to(A).build());
        let ran = kernel.ingress(&segment(ACK).build());
        assert_eq!(ran.verdict, Verdict::SteeredFlow);
        assert_eq!(
            counter(kernel, "a.established"),
            0,
            "the client alone proves nothing"
        );
        let counts = |kernel: &mut Kernel| {
            let table = kernel.dataplane().flow_table();
            let census = table.census().expect("a census");
            (census.pending_count, census.flows_count)
        };
        assert_eq!(counts(kernel), (1, 0));
        let answer = Packet::tcp(a, client).flags(ACK).seq(ack).ack(seq);
        let ran = kernel.egress(&answer.build());
        assert_eq!(ran.verdict, Verdict::SteeredReply);
        let ran = kernel.ingress(&segment(ACK).build());
        assert_eq!(ran.verdict, Verdict::SteeredFlow);
        assert_eq!(counts(kernel), (0, 1));
        assert_eq!(counter(kernel, "a.established"), 1);
    });
}

/// The number that the request socket keeps is a proof, and the flow is none of the handshakes any more: a
/// flood cannot take its entry again before the backend answers. A wrong one is none and leaves nothing.
fn a_request_sockets_number_proves_a_lost_handshake() {
    in_a_place(|kernel| {
        let _listener = TcpListener::bind(addr(A)).expect("a backend");
        cookies("0");
        let (client, seq, ack) = half_open();
        let (vip, a) = (addr(V), addr(A));
        let counts = |kernel: &mut Kernel| {
            let table = kernel.dataplane().flow_table();
            let census = table.census().expect("a census");
            (census.pending_count, census.flows_count)
        };
        for wrong in [ack.wrapping_add(1), ack ^ 0x8000_0000, 1] {
            let guess = Packet::tcp(client, vip).flags(ACK).seq(seq).ack(wrong);
            let ran = kernel.ingress(&guess.build());
            assert_eq!(ran.verdict, Verdict::PassNoFlow, "{wrong}");
        }
        assert_eq!(counts(kernel), (0, 0));
        let segment = Packet::tcp(client, vip).flags(ACK).seq(seq).ack(ack);
        let ran = kernel.ingress(&segment.build());
        assert_eq!(ran.verdict, Verdict::SteeredRescued);
        assert_eq!(ran.bytes, segment.to(A).build());
        assert_eq!(counts(kernel), (0, 1));
        assert_eq!(counter(kernel, "a.established"), 1);
        let answer = Packet::tcp(a, client).flags(ACK).seq(ack).ack(seq);
        let ran = kernel.egress(&answer.build());
        assert_eq!(ran.verdict, Verdict::SteeredReply);
    });
}

/// The same with a SYN cookie, which is a proof in itself; a wrong one is none.
fn a_cookie_proves_a_lost_handshake() {
    in_a_place(|kernel| {
        let _listener = TcpListener::bind(addr(A)).expect("a backend");
        cookies("2");
        let (client, seq, ack) = half_open();
        let vip = addr(V);
        // The lowest bits choose one of a few segment sizes, all of which are right.
        for wrong in [ack.wrapping_add(0x1000), ack ^ 0x8000_0000, 1] {
            let guess = Packet::tcp(client, vip).flags(ACK).seq(seq).ack(wrong);
            let ran = kernel.ingress(&guess.build());
            assert_eq!(ran.verdict, Verdict::PassNoFlow, "{wrong}");
        }
        let segment = Packet::tcp(client, vip).flags(ACK).seq(seq).ack(ack);
        let ran = kernel.ingress(&segment.build());
        assert_eq!(ran.verdict, Verdict::SteeredRescued);
        assert_eq!(ran.bytes, segment.to(A).build());
        assert_eq!(counter(kernel, "a.established"), 1);
        let table = kernel.dataplane().flow_table();
        let census = table.census().expect("a census");
        assert_eq!((census.pending_count, census.flows_count), (0, 1));
    });
}

/// Whether listeners of the namespace answer with cookies: `0` never, `2` always.
fn cookies(value: &str) {
    std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", value).expect("a sysctl");
}
