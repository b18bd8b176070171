//! Rollouts from the start to the end.

use shifter_common::steering::Slot;

use super::session::{ORDERS, Session};
use crate::dataplane::memory::MemoryDataplane;

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
        ])
        .await;
    let draining = session.act("rollout orders").await;
    assert!(
        draining.starts_with("1 3.2.0 in Draining, UnderWay, waits for 7 flows of the old version to end, for another ")
            && draining.ends_with(" s at most (shifterctl promote --skip-step orders); slots ? 3.2.0"),
        "{draining}"
    );
    session
        .run(&[
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

/// What the disk does not take is not begun; what takes traffic back does not wait for it.
#[tokio::test(start_paused = true)]
async fn a_disk_that_refuses_holds_up_everything_but_the_way_back() {
    let mut session = Session::start(&[(
        "orders.toml",
        &orders("steps = [{ weight = 5, bake = \"100s\" }]"),
    )]);
    session.act("lock").await;
    let refused = session.act("start orders 3.2.0").await;
    assert!(
        refused.starts_with("state: the rollout cannot be kept or held ready (writing ")
            && refused.ends_with(
                "and was not begun / free space or mend the state directory, then try again"
            ),
        "{refused}"
    );
    session
        .run(&[
            ("rollout orders", "none; slots ? ?"),
            ("unlock", ""),
            ("start orders 3.2.0", STARTED),
            ("pass 2", ""),
            ("phase orders", "Baking(1, observing)"),
            ("lock", ""),
        ])
        .await;
    let refused = session.act("pause orders").await;
    assert!(
        refused.starts_with("rollout: the decision cannot be kept (writing "),
        "{refused}"
    );
    session.act("abort orders").await;
    let service = session.service("orders").await;
    assert_eq!((service.weight_bp, service.effective_bp), (0, 0));
    let rollout = service.rollout.expect("a rollout");
    assert!(
        rollout
            .not_kept
            .is_some_and(|why| why.starts_with("writing "))
    );
    // A crash now: the disk says 5 %, the kernel that it was taken back.
    session.act("unlock").await;
    let mut session = session.restart().await;
    let service = session.service("orders").await;
    assert_eq!((service.weight_bp, service.effective_bp), (0, 0));
    let phase = session.act("phase orders").await;
    assert!(phase.starts_with("RolledBack("), "{phase}");
}

/// After a boot nobody knows whether the version on trial runs: it gets nothing until a person says so.
#[tokio::test(start_paused = true)]
async fn a_boot_pauses_a_rollout_at_nothing() {
    let file = orders("steps = [{ weight = 5, bake = \"100s\" }]");
    let mut session = Session::start(&[("orders.toml", &file)]);
    session
        .run(&[
            ("start orders 3.2.0", STARTED),
            ("pass 2", ""),
            ("record orders", "500 bp by the rollout of 3.2.0"),
        ])
        .await;
    let (dir, _) = session.kill().await;
    let store = rusqlite::Connection::open(dir.path().join("state/shifter.db")).expect("a store");
    let changed = store.execute("UPDATE rollout SET boot_id = 'another-boot'", ());
    assert_eq!(changed.expect("a store that can be written"), 1);
    drop(store);
    // The kernel has forgotten everything.
    let mut session = Session::start_in(dir, MemoryDataplane::default());
    let service = session.service("orders").await;
    assert_eq!((service.weight_bp, service.effective_bp), (0, 0));
    let highest = session
        .dataplane
        .with(|state| state.history.iter().map(|plan| plan.weight_bp).max());
    assert_eq!(highest, Some(0), "not for a moment");
    session
        .run(&[
            (
                "rollout orders",
                "1 3.2.0 in Paused(the host was started anew; then Warming), WaitsForPerson, waits for a \
                 person: the host was started anew (then Warming) (shifterctl resume orders); slots ? 3.2.0",
            ),
            (
                "resume orders",
                "1 3.2.0 in Baking(1, observing), UnderWay, waits for another 100 s of observed time \
                 (shifterctl promote --skip-step --step 1 orders)",
            ),
        ])
        .await;
}

/// A version that is started while another one goes through its steps takes its place when that is back.
#[tokio::test(start_paused = true)]
async fn another_version_takes_the_place_and_that_survives_a_crash() {
    let file = orders("steps = [{ weight = 5, bake = \"100s\" }]\nwatch = \"0s\"");
    let mut session = Session::start(&[("orders.toml", &file)]);
    session
        .run(&[
            ("live orders b 10.2.0.1:80 0", ""),
            ("start orders 3.2.0", STARTED),
            ("pass 2", ""),
            ("live orders b 10.2.0.1:80 4", ""),
            (
                "start orders 3.3.0",
                "2 3.3.0 in Pending, UnderWay, waits for a count of the flows in slot b (shifterctl \
                 abort orders)",
            ),
            ("plan orders", "0 bp, a open [10.1.0.1:80], b open [10.2.0.1:80], published 6"),
            ("start orders 3.3.0", "already: it is under way: Pending"),
        ])
        .await;
    let mut session = session.restart().await;
    session
        .run(&[
            ("pass 2", ""),
            (
                "rollout orders",
                "2 3.3.0 in Pending, UnderWay, waits for the last 4 flows in slot b, of the version \
                 that was there (shifterctl abort orders); slots ? 3.2.0",
            ),
            ("live orders b 10.2.0.1:80 0", ""),
            ("pass 2", ""),
            ("phase orders", "Baking(1, observing)"),
            ("record orders", "500 bp by the rollout of 3.3.0"),
        ])
        .await;
}

/// What is to follow is on disk before the one on trial goes back, however long that takes.
#[tokio::test(start_paused = true)]
async fn what_follows_survives_a_crash_on_the_way_back() {
    let file = orders("steps = [{ weight = 5, bake = \"100s\" }]");
    let mut session = Session::start(&[("orders.toml", &file)]);
    session
        .run(&[
            ("start orders 3.2.0", STARTED),
            ("pass 2", ""),
            ("phase orders", "Baking(1, observing)"),
            ("refuse the kernel is busy", ""),
        ])
        .await;
    let going = session.act("start orders 3.3.0").await;
    assert!(
        going.starts_with("1 3.2.0 in RollingBack(") && going.ends_with(", then 3.3.0"),
        "{going}"
    );
    session.act("refuse").await;
    let mut session = session.restart().await;
    session.act("pass 3").await;
    session
        .run(&[
            ("phase orders", "Baking(1, observing)"),
            ("record orders", "500 bp by the rollout of 3.3.0"),
        ])
        .await;
}

/// A weight by hand during a pause is not the rollout's: it goes on from its own alone, and takes any back.
#[tokio::test(start_paused = true)]
async fn a_rollout_does_not_go_on_from_a_weight_by_hand() {
    let file =
        orders("steps = [{ weight = 5, bake = \"100s\" }, { weight = 50, bake = \"100s\" }]");
    let mut session = Session::start(&[("orders.toml", &file)]);
    session.act("start orders 3.2.0").await;
    session.act("pass 2").await;
    session.act("pause orders").await;
    for by_hand in ["10000", "0", "300"] {
        session.act(&format!("weight orders {by_hand}")).await;
        for verb in ["resume", "promote"] {
            let refused = session.act(&format!("{verb} orders")).await;
            assert!(
                refused.contains("its rollout has given 5 %")
                    && refused.contains("shifterctl set-weight orders 5%"),
                "{by_hand}, {verb}: {refused}"
            );
        }
    }
    session.act("weight orders 500").await;
    let resumed = session.act("resume orders").await;
    assert!(resumed.contains("Baking(1"), "{resumed}");
    session.act("pause orders").await;
    session.act("weight orders 10000").await;
    session.act("abort orders").await;
    session.act("pass 2").await;
    assert_eq!(
        session.act("record orders").await,
        "0 bp by the rollout of 3.2.0"
    );
}

/// Before it has given anything the rollout has nothing to take back, and a weight by hand goes with it.
#[tokio::test(start_paused = true)]
async fn an_abort_takes_a_weight_by_hand_back_too() {
    let file = orders("steps = [{ weight = 5, bake = \"100s\" }]")
        + "[[gate]]\nname = \"go\"\nat = \"pre-traffic\"\nmanual = true\n";
    let mut session = Session::start(&[("orders.toml", &file)]);
    session.act("start orders 3.2.0").await;
    session.act("pass 2").await;
    session.act("pause orders").await;
    session.act("weight orders 5000").await;
    assert_eq!(session.service("orders").await.effective_bp, 5_000);
    session.act("abort orders").await;
    let service = session.service("orders").await;
    assert_eq!((service.weight_bp, service.effective_bp), (0, 0));
}

/// The engine forgets with each step what it was told: one of the same weight is judged as any other.
#[tokio::test(start_paused = true)]
async fn two_steps_of_one_weight_are_judged_both() {
    let judged = JUDGED.replace(
        "{ weight = 50, bake = \"10s\" }",
        "{ weight = 50, bake = \"10s\" }, { weight = 50, bake = \"10s\" }",
    );
    let mut session = Session::start(&[("orders.toml", &orders(&judged))]);
    session.act("start orders 3.2.0").await;
    session.act("live orders a 10.1.0.1:80 7").await;
    session.act("pass 3").await;
    session.flows([(1_000, 10), (1_000, 10)]);
    session.act("pass 12").await;
    session.flows([(2_000, 20), (2_000, 20)]);
    session.act("pass 15").await;
    let phase = session.act("phase orders").await;
    assert!(phase.starts_with("Draining"), "{phase}");
}

/// The record of a way back says what was taken back.
#[tokio::test(start_paused = true)]
async fn the_audit_of_a_rollback_has_the_share_before_and_after() {
    let file = orders("steps = [{ weight = 5, bake = \"100s\" }]");
    let mut session = Session::start(&[("orders.toml", &file)]);
    session.act("start orders 3.2.0").await;
    session.act("pass 2").await;
    session.act("abort orders").await;
    let audit = session.act("audit").await;
    let taken = audit
        .lines()
        .find(|line| line.contains("orders phase b: 500 -> 0,"));
    assert!(taken.is_some(), "{audit}");
}

/// What an operator asks of the open connections is done if it is more than the plan does, and is answered
/// if it is less.
#[tokio::test(start_paused = true)]
async fn a_rollback_may_reset_more_than_its_plan() {
    const MORE: &str = "its connections are reset all the same";
    for (planned, asked, is_answered) in [
        ("reset", "drain", true),
        ("reset", "reset-idle", true),
        ("reset-idle", "drain", true),
        ("reset", "reset", false),
        ("drain", "reset", false),
        ("drain", "drain", false),
    ] {
        let file = orders("steps = [{ weight = 5, bake = \"100s\" }]")
            + &format!("[rollback]\nestablished = \"{planned}\"\n");
        let mut session = Session::start(&[("orders.toml", &file)]);
        session.act("start orders 3.2.0").await;
        session.act("pass 2").await;
        let reply = session.act(&format!("rollback orders {asked}")).await;
        assert_eq!(
            reply.contains(MORE),
            is_answered,
            "{planned}, {asked}: {reply}"
        );
    }
}

/// Effects of two rollouts have the same numbers. What a gate says of one opens nothing for the next.
#[tokio::test]
async fn an_answer_about_the_rollout_before_opens_nothing() {
    let file = orders("steps = [{ weight = 5, bake = \"100s\" }]")
        + "[[gate]]\nname = \"smoke\"\nat = \"pre-traffic\"\n\
           exec = [\"/bin/sh\", \"-c\", \"test $1 = 3.2.0 && sleep 3 || sleep 100\", \"smoke\", \"{{version}}\"]\n";
    let mut session = Session::start(&[("orders.toml", &file)]);
    for version in ["3.2.0", "3.2.1"] {
        session.act(&format!("start orders {version}")).await;
        let mut phase = String::new();
        for _ in 0..100 {
            phase = session.act("phase orders").await;
            if phase == "Warming(testing)" {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!(phase, "Warming(testing)", "{version}");
        if version == "3.2.0" {
            session.act("abort orders").await;
        }
    }
    tokio::time::sleep(std::time::Duration::from_millis(3_500)).await;
    assert_eq!(session.act("phase orders").await, "Warming(testing)");
}
