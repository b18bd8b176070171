//! Measures shifter and its peers.
use shifter_tests::bench::packets;
fn main() {
    let object = std::fs::read(std::env::args().nth(1).unwrap()).unwrap();
    let rounds = std::env::args().nth(2).unwrap().parse().unwrap();
    let only = std::env::args().nth(3).unwrap_or_default();
    let p = packets::measure(&object, rounds, &only, |s| eprintln!("{s}"));
    println!("noop xdp {:.1} tc {:.1}", p.noop_xdp_ns.median, p.noop_tc_ns.median);
    for r in p.rows { println!("{:32} {:7.1} p99 {:7.1} maker {:5.1} target {:?}", r.id, r.ns.median, r.ns.p99, r.maker_ns.median, r.target_ns); }
}
