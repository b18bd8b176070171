//! Rollouts from the start to the end.

use shifter_common::steering::Slot;

use super::session::{ORDERS, Session};

const STARTED: &str = "1 3.2.0 in Pending, UnderWay, waits for a count of the flows in slot b \
                       (shifterctl abort orders)";

fn orders(rollout: &str) -> String {
    format!("{ORDERS}\n[rollout]\n{rollout}\n")
}

#[tokio::test(start_paused = true)]
async fn a_canary_goes_step_by_step_and_becomes_the_baseline() {
    let file = orders(
        "steps = [{ weight = 5, bake = \"10s\" }, { weight = 20, bake = \"10s\" }]\nwatch = \"5s\"",
    );
    let mut session = Session::start(&[("orders.toml", &file)]);
    session
        .run(&[
            ("live orders b 10.2.0.1:80 3", ""),
            (
                "start orders 3.2.0",
                "1 3.2.0 in Pending, UnderWay, waits for a count of the flows in slot b (shifterctl abort orders)",
            ),
            ("pass 2", ""),
            (
                "rollout orders",
                "1 3.2.0 in Pending, UnderWay, waits for the last 3 flows in slot b, of the version that was there (shifterctl abort orders); slots ? ?",
            ),
            ("live orders b 10.2.0.1:80 0", ""),
            ("live orders a 10.1.0.1:80 7", ""),
            ("pass 2", ""),
            ("phase orders", "Baking(1, observing)"),
            ("plan orders", "500 bp, a open [10.1.0.1:80], b open [10.2.0.1:80], published 4"),
            ("record orders", "500 bp by the rollout of 3.2.0"),
            (
                "weight orders 900",
                "rollout: the rollout of version 3.2.0 moves the weight of orders: it is in \
                 Baking(1, observing) / first: shifterctl pause orders; to take the traffic back: \
                 shifterctl abort orders",
            ),
            ("start orders 3.2.0", "already: it is under way: Baking(1, observing)"),
            ("pass 11", ""),
            ("phase orders", "Baking(2, observing)"),
            ("record orders", "2000 bp by the rollout of 3.2.0"),
            ("pass 11", ""),
            (
                "rollout orders",
                "1 3.2.0 in Draining, UnderWay, waits for 7 flows of the old version to end, for \
                 another 57 s at most (shifterctl promote --skip-step orders); slots ? 3.2.0",
            ),
            ("record orders", "10000 bp by the rollout of 3.2.0"),
            ("live orders a 10.1.0.1:80 0", ""),
            ("pass 2", ""),
            ("phase orders", "Watching(observing)"),
            ("pass 6", ""),
            (
                "rollout orders",
                "1 3.2.0 in Succeeded(old version warm), Succeeded, waits for another 24 h with the old version warm \
                 (shifterctl undo orders); slots ? 3.2.0",
            ),
            ("plan orders", "0 bp, a open [10.1.0.1:80], b open [10.2.0.1:80], published 7"),
            ("record orders", "0 bp by the rollout of 3.2.0"),
            ("start orders 3.2.0", "already: it serves"),
        ])
        .await;
    let service = session.service("orders").await;
    assert_eq!(service.baseline, Slot::B);
    assert_eq!(
        service.effective_bp, 0,
        "slot a is on trial now, and gets nothing"
    );
    let phases: Vec<String> = session
        .status()
        .await
        .events
        .iter()
        .filter(|event| event.what == "rollout")
        .map(|event| event.detail.clone())
        .collect();
    assert!(
        phases
            .iter()
            .any(|text| text.starts_with("3.2.0: started as canary, plan "))
    );
    assert!(
        phases.contains(
            &"3.2.0: Watching(committing) -> Succeeded(old version warm) (it is the baseline)"
                .to_owned()
        ),
        "{phases:?}"
    );
}

/// A rollout keeps its plan; what it stands on does not change under it.
#[tokio::test(start_paused = true)]
async fn a_file_that_changes_waits_for_the_rollout() {
    let steps = "steps = [{ weight = 5, bake = \"100s\" }]";
    let mut session = Session::start(&[("orders.toml", &orders(steps))]);
    let other_steps = orders("steps = [{ weight = 50, bake = \"1s\" }]");
    let other_slot = orders(steps).replace("10.2.0.1", "10.2.0.2");
    session
        .run(&[
            ("start orders 3.2.0", STARTED),
            ("pass 2", ""),
            ("phase orders", "Baking(1, observing)"),
            (&format!("write orders.toml {other_steps}"), ""),
        ])
        .await;
    let hash = session.service("orders").await.rollout.map(|of| of.hash);
    let applied = session.act("apply").await;
    assert!(
        applied.starts_with("orders rollout: ") && applied.ends_with(" with the next rollout"),
        "{applied}"
    );
    session
        .run(&[
            ("phase orders", "Baking(1, observing)"),
            (&format!("write orders.toml {other_slot}"), ""),
        ])
        .await;
    let applied = session.act("apply").await;
    let why = " refused: the rollout of 3.2.0 stands on `slot.b.backends`: let it end, or shifterctl \
               abort orders; then: shifterctl apply";
    assert!(applied.contains(why), "{applied}");
    let service = session.service("orders").await;
    assert_eq!(service.rollout.map(|of| of.hash), hash);
    assert_eq!(service.effective_bp, 500);
    assert!(
        service.notes[0].contains("stands on `slot.b.backends`"),
        "{:?}",
        service.notes
    );
    session.act("abort orders").await;
    let applied = session.act("apply").await;
    assert!(
        applied.contains("10.2.0.2:80") && !applied.contains("refused"),
        "{applied}"
    );
}

impl Session {
    /// Flows of both versions, and how many of them are refused.
    fn flows(&self, [a, b]: [(u64, u64); 2]) {
        self.dataplane.with(|state| {
            for (slot, addr, (selected, refused)) in
                [(Slot::A, "10.1.0.1:80", a), (Slot::B, "10.2.0.1:80", b)]
            {
                let key = ("orders".to_owned(), slot, addr.parse().expect("an address"));
                let flows = &mut state.counters.entry(key).or_default().flows;
                flows.selected += selected;
                flows.refused += refused;
            }
        });
    }
}

const JUDGED: &str = "steps = [{ weight = 50, bake = \"10s\" }]\nwatch = \"5s\"\n[analysis]\n\
                      min_samples = 50\npromote_on = \"no-alarm\"";

/// What the packet path counts decides: the same errors in both versions hold nobody back, more of them
/// in the new one take its traffic back, and without flows a person is asked.
#[tokio::test(start_paused = true)]
async fn the_evidence_decides() {
    let rows = [
        ([(1_000, 10), (1_000, 10)], "Draining"),
        ([(1_000, 10), (1_000, 0)], "Draining"),
        (
            [(1_000, 0), (1_000, 100)],
            "RolledBack(the analysis found the new version worse)",
        ),
        ([(1_000, 0), (0, 0)], "Paused("),
    ];
    for (flows, phase) in rows {
        let mut session = Session::start(&[("orders.toml", &orders(JUDGED))]);
        // What was counted before the rollout says nothing.
        session.flows([(500, 0), (500, 400)]);
        session
            .run(&[
                ("start orders 3.2.0", STARTED),
                ("live orders a 10.1.0.1:80 7", ""),
                ("pass 3", ""),
                ("phase orders", "Baking(1, observing)"),
            ])
            .await;
        session.flows(flows);
        session.act("pass 30").await;
        let found = session.act("phase orders").await;
        assert!(found.starts_with(phase), "{flows:?}: {found}");
        let service = session.service("orders").await;
        if phase.starts_with("Rolled") {
            assert_eq!((service.weight_bp, service.effective_bp), (0, 0));
            let refused = session.act("start orders 3.2.0").await;
            assert!(
                refused.starts_with(
                    "rollout: version 3.2.0 of orders was rolled back (the analysis found the new \
                     version worse), and is refused for another 1800 s"
                ),
                "{refused}"
            );
        }
    }
}
