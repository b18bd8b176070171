//! New connections around shifter: by a table of nftables, while established ones are steered on.

use std::time::Duration;

use shifter_common::wire::{Changed, Slot};
use shifter_daemon::model::HookSpec;
use shifter_tests::{daemon::shifterd, load::Plan, world::Family};

use crate::stage::{ORDERS, Stage, slot, vip};

/// What nft says about shifter's table; empty if there is none.
fn table(stage: &Stage) -> String {
    let mut command = stage.world.host().command("nft");
    command.args(["list", "table", "inet", "shifter_bypass"]);
    let output = command.output().expect("nft starts");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn selected(stage: &Stage) -> u64 {
    let service = stage.service();
    Slot::ALL
        .map(|which| slot(&service, which).counters.selected)
        .iter()
        .sum()
}

/// Runs shifterd's own command in the host's namespace: exit code and what it says.
fn offline(stage: &Stage, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = stage.world.host().command(shifterd());
    command.arg("--config").arg(stage.daemon.node_file());
    let output = command
        .args(arguments)
        .output()
        .expect("the program starts");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).trim_end().to_owned();
    (output.status.code(), text)
}

/// Under load: nothing fails when the way around is taken, follows the live version, and is left. What
/// goes around is counted nowhere in shifter.
#[test]
fn around_and_back_under_load() {
    let mut stage = Stage::new(HookSpec::Tc);
    let time = Duration::from_secs(8);
    let paced = |plan: Plan| Plan {
        rate_per_s: Some(300.0),
        ..plan
    };
    let loads = [
        stage.load_beside(paced(Plan::keep_alive(vip(Family::V4), 20, time))),
        stage.load_beside(paced(Plan::keep_alive(vip(Family::V6), 20, time))),
        stage.load_beside(paced(Plan::churn(vip(Family::V4), 4, time))),
        stage.load_beside(paced(Plan::churn(vip(Family::V6), 4, time))),
    ];
    std::thread::sleep(Duration::from_millis(1_000));
    stage.daemon.bypass(ORDERS, false).expect("nft is there");
    assert!(
        table(&stage).contains("10.0.0.20 . 8081"),
        "{}",
        table(&stage)
    );
    let note = "bypassed by root (uid 0): new connections go to one version by the nftables table inet \
                shifter_bypass; undo it with: shifterctl bypass orders --undo";
    assert_eq!(stage.service().notes, [note]);
    let before = selected(&stage);
    for family in [Family::V4, Family::V6] {
        let report = stage.load(&Plan::connections(vip(family), 8, 300));
        report.assert_clean();
        assert_eq!(report.backend("a").requests, 300);
    }
    assert_eq!(selected(&stage), before, "shifter saw none of them");

    // Again is the same, the other version's turn is the other version's, and a restart changes nothing.
    stage
        .daemon
        .bypass(ORDERS, false)
        .expect("it is so already");
    stage.set_weight(10_000);
    assert!(
        table(&stage).contains("10.0.0.20 . 8082"),
        "{}",
        table(&stage)
    );
    stage.daemon.kill9();
    stage.daemon.start_again();
    assert_eq!(stage.service().notes, [note]);
    let report = stage.load(&Plan::connections(vip(Family::V4), 8, 300));
    report.assert_clean();
    assert_eq!(report.backend("b").requests, 300);
    assert_eq!(selected(&stage), before);

    let all = |more: &[&str]| {
        let program = shifterd().with_file_name("shifterctl");
        let mut command = stage.world.host().command(program);
        command.arg("--socket").arg(stage.daemon.socket());
        let output = command.args(["bypass", "--all"]).args(more).output();
        let output = output.expect("the program starts");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    };
    let (code, text) = all(&[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.starts_with("orders: lets new flows go around in "),
        "{text}"
    );
    let (code, text) = all(&["--undo", "-o", "json"]);
    assert_eq!(code, Some(0), "{text}");
    let undone: Vec<Changed> = serde_json::from_str(&text).expect("an array");
    assert_eq!(undone.len(), 1);
    assert_eq!(table(&stage), "");
    assert!(stage.service().notes.is_empty());
    let report = stage.load(&Plan::connections(vip(Family::V6), 8, 300));
    report.assert_clean();
    assert!(selected(&stage) >= before + 300);
    for load in loads {
        let report = load.join().expect("the load ran");
        report.assert_clean();
        assert!(report.requests > 500, "{report:?}");
    }
}

/// As a package is removed: no daemon, then no programs, and the service is still served.
#[test]
fn around_without_a_daemon() {
    let mut stage = Stage::new(HookSpec::Tc);
    assert_eq!(stage.daemon.stop(), Some(0));
    assert_eq!(
        offline(&stage, &["--bypass"]),
        (Some(0), "new connections go around shifter: orders".into())
    );
    let report = stage.load(&Plan::connections(vip(Family::V4), 8, 200));
    report.assert_clean();
    assert_eq!(report.backend("a").requests, 200);
    // The programs, which are still there, have left them alone.
    stage.daemon.start_again();
    assert_eq!(selected(&stage), 0);
    assert_eq!(stage.daemon.stop(), Some(0));
    assert_eq!(offline(&stage, &["--bypass"]).0, Some(0));
    assert_eq!(
        offline(&stage, &["--detach", "--keep-bypass"]),
        (Some(0), "10 programs taken off".into())
    );
    let report = stage.load(&Plan::connections(vip(Family::V6), 8, 200));
    report.assert_clean();
    assert_eq!(report.backend("a").requests, 200);
    // The next start steers, and the table goes.
    stage.daemon.start_again();
    assert_eq!(table(&stage), "");
    stage.wait("both slots are eligible", |service| {
        service.slots.iter().all(|slot| slot.eligible)
    });
    stage
        .load(&Plan::connections(vip(Family::V4), 8, 200))
        .assert_clean();
    assert_eq!(selected(&stage), 200);
    // Without the table the VIP has no path, and everything goes only by force.
    assert_eq!(stage.daemon.stop(), Some(0));
    assert_eq!(offline(&stage, &["--bypass"]).0, Some(0));
    let (code, text) = offline(&stage, &["--detach"]);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("VIP 10.0.0.10:80 of orders would lose its only path"),
        "{text}"
    );
    assert_eq!(offline(&stage, &["--detach", "--force"]).0, Some(0));
    assert_eq!(table(&stage), "");
    assert_eq!(
        offline(&stage, &["--bypass"]),
        (
            Some(0),
            "no service has a version that is ready: nothing was changed".into()
        )
    );
}

/// A host without nft is told so, and nothing changes.
#[test]
fn without_nft() {
    let mut stage = Stage::new(HookSpec::Tc);
    assert_eq!(stage.daemon.stop(), Some(0));
    let program = shifterd();
    stage
        .daemon
        .become_program(program, &[("PATH", "/nonexistent")]);
    stage.daemon.start_again();
    let refused = stage.daemon.bypass(ORDERS, false).expect_err("no nft");
    assert_eq!(refused.code, "kernel");
    assert_eq!(
        refused.message,
        "nft is missing; install the package nftables: apt-get install nftables"
    );
    assert!(stage.service().notes.is_empty());
    let report = stage.load(&Plan::connections(vip(Family::V4), 8, 200));
    report.assert_clean();
    assert_eq!(selected(&stage), 200, "steered as before");
}
