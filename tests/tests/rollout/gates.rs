//! Questions on the way: programs, files, servers, each asked for real.

use std::{fs, time::Duration};

use shifter_common::wire::RolloutOutcome;
use shifter_tests::load::Plan;

use crate::stage::{ORDERS, Stage, vip};

/// A rollout passes gates that say yes, waits for the one that says not yet, and asks with its version.
#[test]
fn a_rollout_goes_through_its_gates() {
    let dir = std::env::temp_dir().join(format!("shifter-gates-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a directory");
    let go = dir.join("go-3.2.0");
    let stage = Stage::new(&format!(
        "steps = [{{ weight = 20, bake = \"1s\" }}, {{ weight = 50, bake = \"1s\" }}]\nwatch = \"0s\"\n\
         [[gate]]\nname = \"smoke\"\nat = \"pre-traffic\"\n\
         exec = [\"/usr/bin/test\", \"{{{{version}}}}-{{{{service}}}}\", \"=\", \"3.2.0-orders\"]\n\
         [[gate]]\nname = \"ready\"\nat = \"each-step\"\nhttp = \"http://{}/ready\"\n\
         [[gate]]\nname = \"go\"\nat = \"confirm-increase\"\nfile = \"{}/go-{{{{version}}}}\"",
        crate::stage::backend_b(),
        dir.display(),
    ));
    stage.start("3.2.0");
    let service = stage.wait("gate go says no", |service| {
        let on = service
            .rollout
            .as_ref()
            .and_then(|of| of.waiting_on.clone());
        on.is_some_and(|on| on.contains("which said: there is no file"))
    });
    let rollout = service.rollout.as_ref().expect("a rollout");
    assert_eq!(rollout.detail, "Shifting(2, confirming)");
    assert_eq!(
        service.effective_bp, 2_000,
        "it waits with the share it has"
    );
    fs::write(&go, "").expect("a writable directory");
    let service = stage.wait_for("Succeeded");
    fs::remove_dir_all(&dir).expect("it was there");
    let rollout = service.rollout.expect("a rollout");
    assert_eq!(rollout.outcome, RolloutOutcome::Succeeded);
}

/// A gate that says no takes the traffic back, under load, and so does one that says yes to a rollback.
#[test]
fn a_gate_takes_the_traffic_back() {
    let rows = [
        (
            "at = \"each-step\"\nexec = [\"/bin/false\"]",
            "gate test at each-step: /bin/false ended with 1",
        ),
        (
            "at = \"rollback\"\nexec = [\"/bin/true\"]",
            "gate test at rollback: roll back",
        ),
    ];
    for (gate, cause) in rows {
        let stage = Stage::new(&format!(
            "steps = [{{ weight = 20, bake = \"2s\" }}]\n[[gate]]\nname = \"test\"\n{gate}"
        ));
        let churn = stage.load_beside(Plan {
            rate_per_s: Some(200.0),
            ..Plan::churn(vip(), 8, Duration::from_secs(4))
        });
        stage.start("3.2.0");
        let service = stage.wait_for("RolledBack");
        let rollout = service.rollout.as_ref().expect("a rollout");
        assert!(rollout.detail.contains(cause), "{rollout:?}");
        assert_eq!((service.weight_bp, service.effective_bp), (0, 0));
        let (code, text) = stage.shifterctl(&["status", "--wait", ORDERS]);
        assert_eq!(code, 1, "{text}");
        churn.join().expect("it ran").assert_clean();
    }
}
