//! nginx changes its workers and its program under load.

use std::time::{Duration, Instant};

use shifter_common::wire::Slot;
use shifter_tests::{backend::Spec, world::OTHER};

use crate::stage::{CLIENTS, PORT_A, PORT_B, Stage, counter, cut_off, orders};

/// Version b has workers with listeners of their own, and all new connections.
fn stage(workers_count: u32) -> Stage {
    let (a, b) = (OTHER.ports(PORT_A), OTHER.ports(PORT_B));
    let shared = Spec {
        workers_count,
        is_shared: true,
        is_left_alone: true,
        ..Spec::new("b", &b)
    };
    let stage = Stage::serving(Spec::new("a", &a), shared, orders(&a, &b));
    stage.set_weight(10_000);
    stage
}

/// Waits until version b has a listener for each worker and family.
#[track_caller]
fn wait_for_listeners(stage: &Stage, workers_count: u32) {
    let filter = format!("sport = :{PORT_B}");
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let listed = stage.world.host().tool("ss", &["-Hltn", &filter]);
        if listed.lines().count() == 2 * workers_count as usize {
            return;
        }
        assert!(
            Instant::now() < end,
            "{workers_count} workers:\n{listed}{}",
            stage.b.log()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Nobody was sent to version a, and no connection looked for a listener in vain.
#[track_caller]
fn assert_stayed(stage: &Stage) {
    let service = crate::stage::assert_nothing_missed(stage);
    assert_eq!(counter(&service, Slot::B, "capture_full"), 0);
}

/// A reload closes listeners of workers that are not needed any more and opens those of new ones: no
/// connection is refused, and none leaves the version. What a closed listener had queued is lost unless
/// the kernel hands it on (`net.ipv4.tcp_migrate_req`).
#[test]
fn workers_come_and_go() {
    for migrates in ["0", "1"] {
        let mut stage = stage(4);
        let host = stage.world.host();
        host.sysctl("net.ipv4.tcp_migrate_req", migrates);
        let loads = stage.churn_beside(1_500.0, Duration::from_secs(8));
        let reloads = [2, 4, 2, 4];
        for workers_count in reloads {
            std::thread::sleep(Duration::from_millis(500));
            stage.b.reload(workers_count);
            wait_for_listeners(&stage, workers_count);
        }
        let (cut_off_count, reports) = cut_off(loads);
        let all: u64 = reports.iter().map(|report| report.connections).sum();
        eprintln!("tcp_migrate_req={migrates}: {cut_off_count} of {all} cut off");
        // nginx closes what it has accepted and not read yet, so there is a rest in either row.
        assert!(cut_off_count <= (2 * CLIENTS * reloads.len()) as u64);
        assert_stayed(&stage);
    }
}

/// A new nginx takes over the listeners of the old one: nobody sees a thing.
#[test]
fn a_new_program_takes_over() {
    let mut stage = stage(2);
    let loads = stage.churn_beside(1_500.0, Duration::from_secs(6));
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(500));
        stage.b.upgrade();
    }
    let (cut_off_count, _) = cut_off(loads);
    assert!(cut_off_count <= (3 * 2 * CLIENTS) as u64, "{cut_off_count}");
    eprintln!("{cut_off_count} cut off");
    wait_for_listeners(&stage, 2);
    assert_stayed(&stage);
}
