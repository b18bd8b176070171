//! Packet fixtures: scripts of packets with their verdicts, their bytes afterwards and all counters.
//! Each script runs through XDP and through TC.

mod kernel;
mod plans;
mod publication;
mod script;

mod breaker;
mod direct;
mod established;
mod extensions;
mod foreign;
mod hairpin;
mod handshake;
mod icmp;
mod observe;
mod owners;
mod selection;
mod tags;
mod targets;
mod udp;

mod rescue;
mod scale;
mod sweep;

use script::Script;

/// Every script; a new file of rows is added here.
fn all() -> Vec<Script> {
    [
        foreign::scripts(),
        handshake::scripts(),
        established::scripts(),
        selection::scripts(),
        direct::scripts(),
        udp::scripts(),
        icmp::scripts(),
        tags::scripts(),
        extensions::scripts(),
        targets::scripts(),
        hairpin::scripts(),
    ]
    .concat()
}

#[test]
fn xdp() {
    script::run_all(
        &[all(), extensions::jumbo_scripts()].concat(),
        kernel::Hook::Xdp,
    );
}

#[test]
fn tc() {
    script::run_all(&all(), kernel::Hook::Tc);
}

#[test]
fn every_verdict_that_a_packet_can_provoke_occurs() {
    use shifter_common::verdict::Verdict;
    // These take a kernel without memory or a daemon with a defect.
    let out_of_reach = [
        Verdict::DropTableFull,
        Verdict::DropRewriteFailed,
        Verdict::DropBrokenState,
        // This takes a socket: see `rescue`.
        Verdict::SteeredRescued,
    ];
    let scripts = all();
    for verdict in Verdict::ALL {
        let occurs = scripts.iter().any(|script| script.expects(*verdict));
        assert_eq!(
            occurs,
            !out_of_reach.contains(verdict),
            "{}",
            verdict.label()
        );
    }
}
