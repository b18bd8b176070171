//! shifterd killed at any instant: traffic goes on, and the next start finds everything.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    time::Duration,
};

use shifter_common::wire::Slot;
use shifter_daemon::model::HookSpec;
use shifter_tests::{daemon::Client, load::Plan, world::Family};

use crate::stage::{Numbers, ORDERS, Stage, slot, vip};

/// Weights are set as fast as the daemon takes them; it is killed in the middle, again and again. What
/// it acknowledged last, or the one change that was under way, is what the next start finds.
#[test]
fn killed_in_the_middle_of_changes() {
    let mut stage = Stage::new(HookSpec::Tc);
    let mut numbers = Numbers::new(0x9);
    let time = Duration::from_secs(14);
    let churn = Plan {
        rate_per_s: Some(1_500.0),
        ..Plan::churn(vip(Family::V4), 16, time)
    };
    let alive = Plan {
        rate_per_s: Some(300.0),
        ..Plan::keep_alive(vip(Family::V6), 8, time)
    };
    let loads = [stage.load_beside(churn), stage.load_beside(alive)];
    let mut killed_busy_count = 0;
    for round in 0..12 {
        let (acknowledged, asked) = (
            Arc::new(AtomicU16::new(u16::MAX)),
            Arc::new(AtomicU16::new(0)),
        );
        let stop = Arc::new(AtomicBool::new(false));
        let caller = {
            let (acknowledged, asked, stop) = (acknowledged.clone(), asked.clone(), stop.clone());
            let socket = stage.daemon.socket();
            let seed = numbers.below(1 << 30);
            std::thread::spawn(move || {
                let client = Client::new(&socket);
                let mut numbers = Numbers::new(seed);
                while !stop.load(Ordering::Relaxed) {
                    let weight_bp = numbers.below(10_001) as u16;
                    asked.store(weight_bp, Ordering::SeqCst);
                    let body = format!("{{\"weight_bp\":{weight_bp}}}");
                    let path = format!("/v1/services/{ORDERS}/weight");
                    match client.ask("POST", &path, Some(&body)) {
                        Ok(answer) if answer.status == 200 => {
                            acknowledged.store(weight_bp, Ordering::SeqCst);
                        }
                        _ => return,
                    }
                }
            })
        };
        std::thread::sleep(Duration::from_millis(100 + numbers.below(200)));
        stage.daemon.kill9();
        stop.store(true, Ordering::Relaxed);
        caller.join().expect("the caller ends");
        let (acknowledged, asked) = (
            acknowledged.load(Ordering::SeqCst),
            asked.load(Ordering::SeqCst),
        );
        assert_ne!(
            acknowledged,
            u16::MAX,
            "round {round}: nothing was acknowledged"
        );
        killed_busy_count += u32::from(acknowledged != asked);
        stage.daemon.start_again();
        let service = stage.service();
        assert!(
            service.weight_bp == acknowledged || service.weight_bp == asked,
            "round {round}: {} instead of {acknowledged} or {asked}",
            service.weight_bp
        );
        assert_eq!(
            service.effective_bp, service.weight_bp,
            "round {round}: both slots stay eligible"
        );
        assert!(stage.daemon.status().daemon.adopted);
        assert_eq!(service.weight_by, "root (uid 0)");
    }
    for load in loads {
        let report = load.join().expect("the load ran");
        report.assert_clean();
        assert!(report.requests > 1_000, "{report:?}");
    }
    eprintln!("killed with a change under way in {killed_busy_count} of 12 rounds");
    assert!(killed_busy_count > 0, "no kill ever met a change");
}

/// With no daemon at all traffic is steered by the last weight; the next start changes nothing that
/// is in the kernel.
#[test]
fn steered_without_a_daemon_and_adopted_exactly() {
    let mut stage = Stage::new(HookSpec::Tc);
    stage.set_weight(3_000);
    let before = stage.service();
    stage.daemon.kill9();
    let report = stage.load(&Plan::connections(vip(Family::V4), 16, 4_000));
    report.assert_clean();
    assert!(
        (0.26..0.34).contains(&report.share("b")),
        "{}",
        report.share("b")
    );
    stage.daemon.start_again();
    let after = stage.service();
    assert_eq!(after.generation, before.generation, "nothing was stored");
    assert_eq!(after.weight_set_unix_ms, before.weight_set_unix_ms);
    let selected =
        |of: &shifter_common::wire::ServiceStatus, which| slot(of, which).counters.selected;
    let added: u64 = Slot::ALL
        .map(|s| selected(&after, s) - selected(&before, s))
        .iter()
        .sum();
    assert_eq!(added, 4_000, "counters go on where they were");
    let events: BTreeSet<String> = stage
        .daemon
        .status()
        .events
        .into_iter()
        .map(|event| event.what)
        .collect();
    assert_eq!(events, BTreeSet::from(["adopted".to_owned()]));
}

/// A planned stop leaves traffic steered; a second daemon is kept out.
#[test]
fn a_stop_leaves_traffic_and_a_second_daemon_is_refused() {
    let mut stage = Stage::new(HookSpec::Tc);
    stage.set_weight(10_000);
    let second = stage
        .world
        .host()
        .command(shifter_tests::daemon::shifterd())
        .arg("--config")
        .arg(stage.daemon.node_file())
        .output()
        .expect("the program starts");
    assert_eq!(second.status.code(), Some(1));
    let text = String::from_utf8_lossy(&second.stderr);
    assert!(
        text.contains("another shifterd holds") && text.contains("systemctl stop shifterd"),
        "{text}"
    );
    assert_eq!(stage.daemon.stop(), Some(0));
    let report = stage.load(&Plan::connections(vip(Family::V6), 8, 200));
    report.assert_clean();
    assert_eq!(report.backend("b").requests, 200);
}
