//! Whole outputs, as people see them. The values are answers of a daemon in `tests/data`.

use serde::de::DeserializeOwned;
use shifter_common::wire::{
    ApplyReport, AuditPage, Changed, DeploymentRecord, Detached, Flows, History,
    LocalClientsStatus, PlannedRollout, RolloutOutcome, RolloutReply, RolloutStatus, Slot, Status,
};

use super::{
    View, WIDTH, apply, apply_problems, audit, changed, deployment, deployment_markdown, detached,
    drained, explain, flows, history, plan, replied, status, verified,
};
use crate::audit::Verified;

/// 2026-11-21 14:03:22, in UTC and without colour.
const VIEW: View = View {
    color: false,
    now_unix_ms: 1_795_269_802_000,
    zone: |_| 0,
};

fn data<T: DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).unwrap()
}

fn full_status() -> Status {
    data(include_str!("../../tests/data/status.json"))
}

/// The status of a second before: fewer flows in slot b of orders, others as now.
fn earlier_status() -> Status {
    let mut status = full_status();
    let orders = status
        .services
        .iter_mut()
        .find(|service| service.name == "orders")
        .unwrap();
    for (slot, fewer) in orders.slots.iter_mut().zip([750, 250]) {
        slot.counters.selected -= fewer;
        slot.backends[0].counters.selected -= fewer;
    }
    status
}

macro_rules! golden {
    ($name:literal) => {
        (
            $name,
            include_str!(concat!("../../tests/golden/", $name, ".txt")),
        )
    };
}

/// Name and expected text, and what rendering makes of the value.
fn rows() -> Vec<((&'static str, &'static str), String)> {
    let flow_list: Flows = data(include_str!("../../tests/data/flows.json"));
    let report: ApplyReport = data(include_str!("../../tests/data/apply.json"));
    let change: Changed = data(include_str!("../../tests/data/changed.json"));
    let unchanged = Changed {
        weight_before_bp: change.weight_bp,
        notes: vec![],
        ..change.clone()
    };
    let reset = Changed {
        weight_before_bp: 2500,
        weight_bp: 0,
        flows_reset_count: 17,
        notes: vec![],
        ..change.clone()
    };
    let planned: PlannedRollout = data(include_str!("../../tests/data/plan.json"));
    let page: AuditPage = data(include_str!("../../tests/data/audit.json"));
    let past: History = data(include_str!("../../tests/data/history.json"));
    let told: DeploymentRecord = data(include_str!("../../tests/data/deployment.json"));
    let good = Verified {
        records_count: 5,
        last_hash: page.records[4].hash.clone(),
        journal_count: Some(3),
        unwritten_count: 1,
        broken: None,
    };
    let broken = Verified {
        journal_count: None,
        unwritten_count: 0,
        broken: Some("record 6 is missing".into()),
        ..good.clone()
    };
    let verdicts = [&good, &broken, &Verified::default()].map(|verdict| verified(&VIEW, verdict));
    let off: Detached = data(include_str!("../../tests/data/detached.json"));
    let full = full_status();
    let bare = Status {
        interfaces: vec![],
        local_clients: LocalClientsStatus::default(),
        services: vec![],
        events: vec![],
        ..full.clone()
    };
    let changes = [
        changed(&VIEW, &change),
        changed(&VIEW, &unchanged),
        changed(&VIEW, &reset),
        drained(&VIEW, &unchanged, Slot::B, false),
        drained(&VIEW, &unchanged, Slot::B, true),
        detached(&off),
        detached(&Detached::default()),
    ];
    let reply: RolloutReply = data(include_str!("../../tests/data/rollout.json"));
    let over = RolloutReply {
        already: Some("it serves".into()),
        rollout: RolloutStatus {
            detail: "Succeeded(old version warm)".into(),
            outcome: RolloutOutcome::Succeeded,
            old_version: None,
            step: None,
            attempt: 2,
            next_version: Some("3.3.0".into()),
            not_kept: Some("no space left on device".into()),
            ..reply.rollout.clone()
        },
        ..reply.clone()
    };
    let rollouts = [replied(&VIEW, &reply), replied(&VIEW, &over)];
    let explained: Vec<String> = full
        .services
        .iter()
        .map(|service| explain(&VIEW, service))
        .collect();
    vec![
        (golden!("explain"), explained.join("\n")),
        (golden!("plan"), plan(&VIEW, &planned)),
        (golden!("rollout"), rollouts.join("\n")),
        (golden!("audit"), {
            let AuditPage {
                records,
                last_seq,
                unwritten_count,
                trouble,
            } = &page;
            audit(&VIEW, records, *last_seq, *unwritten_count, trouble)
        }),
        (golden!("audit_none"), audit(&VIEW, &[], 0, 0, "")),
        (golden!("verified"), verdicts.join("\n")),
        (golden!("history"), history(&VIEW, &past)),
        (golden!("history_none"), {
            let none = History {
                service: "orders".into(),
                ..History::default()
            };
            history(&VIEW, &none)
        }),
        (golden!("deployment"), deployment(&VIEW, &told)),
        (golden!("status"), status(&VIEW, &full, None, None)),
        (
            golden!("status_orders"),
            status(&VIEW, &full, Some("orders"), None),
        ),
        (golden!("status_watched"), {
            status(&VIEW, &full, Some("orders"), Some(&earlier_status()))
        }),
        (golden!("status_empty"), status(&VIEW, &bare, None, None)),
        (golden!("flows"), flows(&VIEW, "orders", &flow_list)),
        (
            golden!("flows_none"),
            flows(&VIEW, "orders", &Flows::default()),
        ),
        (golden!("apply"), apply(&VIEW, &report)),
        (golden!("apply_problems"), apply_problems(&VIEW, &report)),
        (
            golden!("apply_nothing"),
            apply(&VIEW, &ApplyReport::default()),
        ),
        (golden!("changes"), changes.join("\n")),
    ]
}

#[test]
fn outputs_are_the_golden_ones() {
    for ((name, golden), text) in rows() {
        assert_eq!(text, golden, "\n{name} is now:\n{text}");
    }
}

/// Tables of Markdown have lines as long as they are.
#[test]
fn the_document_is_the_golden_one() {
    let told: DeploymentRecord = data(include_str!("../../tests/data/deployment.json"));
    let elsewhere = View {
        zone: |_| 3_600,
        ..VIEW
    };
    let text = deployment_markdown(&elsewhere, &told);
    let golden = include_str!("../../tests/golden/deployment.md");
    assert_eq!(text, golden, "\nit is now:\n{text}");
}

#[test]
fn no_output_is_wider_than_80_columns() {
    for ((name, _), text) in rows() {
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{name}: {line}");
            assert_eq!(line.trim_end(), line, "{name}: spaces at the end");
        }
    }
}

/// Colour changes nothing but colour.
#[test]
fn without_escape_sequences_the_coloured_text_is_the_plain_one() {
    let colored = View {
        color: true,
        ..VIEW
    };
    let report: ApplyReport = data(include_str!("../../tests/data/apply.json"));
    let change: Changed = data(include_str!("../../tests/data/changed.json"));
    let flow_list: Flows = data(include_str!("../../tests/data/flows.json"));
    let pairs = [
        (
            status(&colored, &full_status(), None, None),
            status(&VIEW, &full_status(), None, None),
        ),
        (apply(&colored, &report), apply(&VIEW, &report)),
        (
            apply_problems(&colored, &report),
            apply_problems(&VIEW, &report),
        ),
        (changed(&colored, &change), changed(&VIEW, &change)),
        (
            flows(&colored, "orders", &flow_list),
            flows(&VIEW, "orders", &flow_list),
        ),
    ];
    for (colored, plain) in pairs {
        assert!(colored.contains('\u{1b}'));
        let mut stripped = String::new();
        let mut rest = colored.as_str();
        while let Some((before, after)) = rest.split_once("\u{1b}[") {
            stripped += before;
            rest = after.split_once('m').unwrap().1;
        }
        assert_eq!(stripped + rest, plain);
    }
}
