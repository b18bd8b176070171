//! Bad input of every kind, while traffic flows: a clear refusal or a counted drop, and nothing else.

use std::time::Duration;

use shifter_daemon::model::HookSpec;
use shifter_tests::{load::Plan, world::Family};

use crate::stage::{ORDERS, Stage, vip};

/// method, path, body, expected status, words the refusal must contain
type Row = (
    &'static str,
    &'static str,
    Option<&'static str>,
    u16,
    &'static [&'static str],
);
const REQUESTS: &[Row] = &[
    (
        "GET",
        "/v1/services/order",
        None,
        404,
        &["no service order", "orders"],
    ),
    (
        "POST",
        "/v1/services/order/weight",
        Some("{\"weight_bp\":1}"),
        404,
        &["no service order"],
    ),
    (
        "POST",
        "/v1/services/orders/weight",
        Some("{\"weight_bp\":10001}"),
        400,
        &["10001", "10000"],
    ),
    (
        "POST",
        "/v1/services/orders/weight",
        Some("{\"weight_bp\":-1}"),
        400,
        &["weight_bp"],
    ),
    (
        "POST",
        "/v1/services/orders/weight",
        Some("{\"weight\":5}"),
        400,
        &["weight_bp"],
    ),
    (
        "POST",
        "/v1/services/orders/weight",
        Some("{"),
        400,
        &["JSON"],
    ),
    ("POST", "/v1/services/orders/weight", None, 400, &[]),
    (
        "POST",
        "/v1/services/orders/drain",
        Some("{\"slot\":\"c\"}"),
        400,
        &["slot"],
    ),
    (
        "POST",
        "/v1/services/orders/rollback",
        Some("{\"established\":\"kill\"}"),
        400,
        &["reset"],
    ),
    ("GET", "/v1/nothing", None, 404, &["/v1/status"]),
    ("DELETE", "/v1/status", None, 405, &["GET"]),
];

#[test]
fn refused_requests_change_nothing() {
    let stage = Stage::new(HookSpec::Tc);
    stage.set_weight(2_500);
    let before = stage.service();
    let plan = Plan {
        rate_per_s: Some(500.0),
        ..Plan::churn(vip(Family::V4), 8, Duration::from_secs(2))
    };
    let load = stage.load_beside(plan);
    for (method, path, body, status, words) in REQUESTS {
        let answer = stage.daemon.ask(method, path, *body).expect("an answer");
        let text = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, *status, "{method} {path} {body:?}: {text}");
        let refusal: shifter_common::wire::Refusal =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{method} {path}: {e}: {text}"));
        let told = format!("{} {}", refusal.message, refusal.help);
        for word in *words {
            assert!(
                told.contains(word),
                "{method} {path} {body:?}: no {word:?} in {told:?}"
            );
        }
    }
    let after = stage.service();
    assert_eq!(
        (after.generation, after.weight_bp),
        (before.generation, before.weight_bp)
    );
    load.join().expect("the load ran").assert_clean();
}

/// A bad file leaves its service as it is, a vanished one too; both are told.
#[test]
fn bad_files_change_nothing() {
    let stage = Stage::new(HookSpec::Tc);
    stage.set_weight(2_500);
    let before = stage.service();
    let good = std::fs::read_to_string(stage.daemon.service_file(ORDERS)).expect("the file");
    let rows: &[(&str, &str)] = &[
        (
            "[service]\nname = \"orders\"\nvipp = \"10.0.0.10:80\"\n",
            "did you mean",
        ),
        ("[service\n", "orders.toml:1"),
        ("", "orders.toml"),
    ];
    for (text, words) in rows {
        stage.daemon.write_service_text(ORDERS, text);
        let report = stage.daemon.apply().expect("apply answers");
        let told: Vec<String> = report.diagnostics.iter().map(ToString::to_string).collect();
        assert!(
            told.iter().any(|line| line.contains(words)),
            "{text:?}: {told:?}"
        );
        assert!(
            report.changes.is_empty() && report.orphaned.is_empty(),
            "{report:?}"
        );
        assert_eq!(stage.service().generation, before.generation);
    }
    stage.daemon.remove_service(ORDERS);
    let report = stage.daemon.apply().expect("apply answers");
    assert_eq!(report.orphaned, [ORDERS]);
    let orphan = stage.service();
    assert!(
        orphan.orphaned && orphan.notes[0].contains("its file is gone"),
        "{orphan:?}"
    );
    stage
        .load(&Plan::connections(vip(Family::V4), 8, 200))
        .assert_clean();
    stage.daemon.write_service_text(ORDERS, &good);
    let report = stage.daemon.apply().expect("apply answers");
    assert!(
        report.orphaned.is_empty() && report.diagnostics.is_empty(),
        "{report:?}"
    );
    assert!(!stage.service().orphaned);
    assert_eq!(stage.service().weight_bp, 2_500);
}

/// Random bytes and mangled headers to the VIP's address, beside real traffic.
#[test]
fn hostile_packets_are_counted_and_harm_nothing() {
    use nix::sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, sendto,
        socket,
    };
    use shifter_tests::packet::{Packet, flag};
    use std::os::fd::AsRawFd as _;

    let stage = Stage::new(HookSpec::Tc);
    let plan = Plan {
        rate_per_s: Some(500.0),
        ..Plan::churn(vip(Family::V4), 8, Duration::from_secs(3))
    };
    let load = stage.load_beside(plan);
    let sum = |stage: &Stage| -> u64 {
        stage
            .daemon
            .status()
            .daemon
            .verdicts
            .iter()
            .map(|(_, count)| count)
            .sum()
    };
    let before = sum(&stage);
    let mut numbers = crate::stage::Numbers::new(0xbad);
    let base = Packet::tcp4("10.1.0.2:40000", "10.0.0.10:80")
        .flags(flag::SYN)
        .build();
    let sent: u64 = stage.world.client().run(|| {
        let raw = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::empty(),
            SockProtocol::EthAll,
        )
        .expect("a packet socket");
        let index = nix::net::if_::if_nametoindex("eth0").expect("the client's interface");
        let link = nix::libc::sockaddr_ll {
            sll_family: nix::libc::AF_PACKET as u16,
            sll_protocol: 0x0008,
            sll_ifindex: index as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [0xff; 8],
        };
        // SAFETY: the structure is a complete sockaddr_ll and its length is given.
        let to = unsafe {
            LinkAddr::from_raw(
                (&raw const link).cast(),
                Some(size_of::<nix::libc::sockaddr_ll>() as u32),
            )
        }
        .expect("a link address");
        let mut sent = 0;
        for _ in 0..20_000 {
            let mut frame = base.clone();
            // Broadcast, so that the host's link layer takes it whatever the rest says.
            frame[..6].fill(0xff);
            for _ in 0..numbers.below(6) {
                let at = 12 + numbers.below(frame.len() as u64 - 12) as usize;
                frame[at] = numbers.below(256) as u8;
            }
            frame.truncate(14 + numbers.below(frame.len() as u64 - 13) as usize);
            sent += u64::from(sendto(raw.as_raw_fd(), &frame, &to, MsgFlags::empty()).is_ok());
        }
        sent
    });
    assert!(sent > 19_000, "{sent} sent");
    load.join().expect("the load ran").assert_clean();
    assert!(sum(&stage) - before >= sent, "every packet has a verdict");
    assert!(stage.daemon.is_running());
    stage
        .load(&Plan::connections(vip(Family::V6), 8, 200))
        .assert_clean();
}
