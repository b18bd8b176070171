//! Measures shifter and its peers.
use shifter_tests::bench::*;
fn main() {
    let object = std::fs::read(std::env::args().nth(1).unwrap()).unwrap();
    let rounds = std::env::args().nth(2).unwrap().parse().unwrap();
    let only = std::env::args().nth(3).unwrap_or_default();
    if only == "e2e" {
    let e = end_to_end::measure(&way::Way::MEASURED, rounds, 1, |s| eprintln!("{s}"));
    for r in e.rows { println!("{:24} {:24} {:8.0}/s p50 {:6.1} cpu {:6.2} = {:5.2}+{:5.2}+{:5.2}+{:5.2} ratio {:.3} ({:.3}-{:.3}) nft {:.3} above {:.1} errors {}", r.load, r.way, r.requests_per_s.median, r.p50_us.median, r.cpu_us.median, r.cpu_load_us.median, r.cpu_backends_us.median, r.cpu_between_us.median, r.cpu_softirq_us.median, r.cpu_ratio.median, r.cpu_ratio.min, r.cpu_ratio.max, r.cpu_nftables_ratio.unwrap_or_default().median, r.mean_above_direct_us.median, r.errors); }
    return;
    }
    if only == "change" {
    let e = change::measure(&way::Way::MOVABLE, rounds, |s| eprintln!("{s}"));
    for r in e.rows { println!("{:24} changes {} conns {} failed {} {:?} cmd {:.1} ({:.1}) last {:.1} p99 {:.1} max {:.1} wrong {}", r.way, r.changes, r.connections, r.failed, r.failures, r.command_us.median, r.command_us.max, r.last_on_old_us.median, r.last_on_old_us.p99, r.last_on_old_us.max, r.wrong_after_return); }
    return;
    }
    let p = packets::measure(&object, rounds, &only, |s| eprintln!("{s}"));
    println!("noop xdp {:.1} tc {:.1}", p.noop_xdp_ns.median, p.noop_tc_ns.median);
    for r in p.rows { println!("{:32} {:7.1} p99 {:7.1} maker {:5.1} target {:?}", r.id, r.ns.median, r.ns.p99, r.maker_ns.median, r.target_ns); }
}
