//! `docs/openapi.json` and `docs/api.md` say what the code does.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;
use shifter_common::wire::{
    ApplyReport, AuditActor, AuditFlows, AuditGate, AuditMetric, AuditPage, AuditRecord, Bypass,
    Changed, ConfigChange, DeploymentRecord, DeploymentStep, Detach, Detached, Diagnostic, Drain,
    Effect, Flow, Flows, History, Phase, PlannedRollout, PlannedStep, Refusal, RevisionStatus,
    Rollback, RolloutCommand, RolloutReply, RolloutSummary, SetWeight, Slot, StartRollout,
    StartStep,
};

use super::{Endpoint, Right, http_status};
use crate::metrics::sample;

const DOCUMENT: &str = include_str!("../../../docs/openapi.json");
const REFERENCE: &str = include_str!("../../../docs/api.md");

fn document() -> Value {
    serde_json::from_str(DOCUMENT).unwrap()
}

fn refs(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                match value.as_str() {
                    Some(target) if key == "$ref" => drop(found.insert(target.to_owned())),
                    _ => refs(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| refs(value, found)),
        _ => {}
    }
}

/// Name of the schema and a value in which every field is present.
fn samples() -> Vec<(&'static str, Value)> {
    fn row(name: &'static str, value: impl Serialize) -> (&'static str, Value) {
        (name, serde_json::to_value(value).unwrap())
    }
    let status = sample::status();
    let service = status.services[0].clone();
    let slot = service.slots[0].clone();
    let backend = slot.backends[0].clone();
    let change = ConfigChange {
        service: String::new(),
        key: String::new(),
        before: String::new(),
        after: String::new(),
        effect: Effect::Now,
        reason: String::new(),
    };
    let diagnostic = Diagnostic {
        file: String::new(),
        line: 0,
        column: 0,
        message: String::new(),
        help: String::new(),
    };
    let flow = Flow {
        client: String::new(),
        vip: String::new(),
        backend: String::new(),
        slot: Slot::A,
        cohort: 0,
        phase: Phase::Reset,
        idle_ms: 0,
    };
    let changed = Changed {
        service: String::new(),
        weight_before_bp: 0,
        weight_bp: 0,
        generation: 0,
        took_ns: 0,
        flows_reset_count: 0,
        notes: vec![],
    };
    let planned = PlannedRollout {
        service: String::new(),
        version: String::new(),
        slot: Slot::A,
        strategy: String::new(),
        hash: String::new(),
        lasts_ms: 0,
        steps: vec![PlannedStep {
            at_ms: 0,
            lasts_ms: 0,
            what: String::new(),
        }],
        notes: vec![],
    };
    let revision = RevisionStatus {
        number: 0,
        slot: Slot::A,
        version: String::new(),
        config_hash: String::new(),
        rollout: None,
        unix_ms: 0,
        by: String::new(),
        outcome: String::new(),
    };
    let summary = RolloutSummary {
        id: 0,
        version: String::new(),
        old_version: None,
        slot: Slot::A,
        strategy: String::new(),
        plan_hash: String::new(),
        phase: String::new(),
        is_final: false,
        attempt: 0,
        began_unix_ms: 0,
        changed_unix_ms: 0,
    };
    let text = || "x".to_owned();
    let audit = AuditRecord {
        service: text(),
        rollout: Some(1),
        version: text(),
        old_version: text(),
        config_hash: text(),
        actor: AuditActor {
            uid: Some(0),
            loginuid: Some(0),
            ..AuditActor::default()
        },
        slot: Some(Slot::A),
        from: text(),
        to: text(),
        step: Some(0),
        metrics: vec![AuditMetric::default()],
        gates: vec![AuditGate::default()],
        flows: Some(AuditFlows::default()),
        program_tag: text(),
        generation: 1,
        took_ns: 1,
        hash: text(),
        ..AuditRecord::default()
    };
    // No command has all fields.
    let mut command = serde_json::to_value(RolloutCommand::Promote { step: Some(1) }).unwrap();
    command["gate"] = Value::String(String::new());
    let rollout = service.rollout.clone().unwrap();
    let refusal = Refusal {
        code: String::new(),
        message: String::new(),
        help: String::new(),
    };
    vec![
        row("FlowCounts", backend.counters),
        row("BackendStatus", backend),
        row("ObservedStatus", slot.observed.clone().unwrap()),
        row("WaitStatus", slot.observed.clone().unwrap().connect),
        row("SlotStatus", slot),
        row("TargetStatus", &service.targets[0]),
        row("ArmStatus", &service.breaker.arms[0]),
        row("TripStatus", service.breaker.trip.clone().unwrap()),
        row("BreakerStatus", &service.breaker),
        row("ServiceStatus", service),
        row("InterfaceStatus", &status.interfaces[0]),
        row("LocalClientsStatus", &status.local_clients),
        row("LocalSlotStatus", &status.local_clients.slots[0]),
        row("DaemonStatus", &status.daemon),
        row("Event", &status.events[0]),
        row("Status", &status),
        row("Flow", flow),
        row("Flows", Flows::default()),
        row("PlannedRollout", &planned),
        row("PlannedStep", &planned.steps[0]),
        row("AuditRecord", &audit),
        row("AuditActor", &audit.actor),
        row("AuditMetric", &audit.metrics[0]),
        row("AuditGate", &audit.gates[0]),
        row("AuditFlows", audit.flows),
        row("AuditPage", AuditPage::default()),
        row("History", History::default()),
        row("RevisionStatus", revision),
        row("RolloutSummary", summary),
        row("DeploymentStep", DeploymentStep::default()),
        row("DeploymentRecord", DeploymentRecord::default()),
        row("SetWeight", SetWeight { weight_bp: 0 }),
        row("Rollback", Rollback::default()),
        row(
            "Drain",
            Drain {
                slot: Slot::A,
                undo: false,
            },
        ),
        row(
            "StartRollout",
            StartRollout {
                strategy: Some(String::new()),
                steps: vec![StartStep::default()],
                bake_ms: Some(0),
                ..StartRollout::default()
            },
        ),
        row(
            "StartStep",
            StartStep {
                bake_ms: Some(0),
                ..StartStep::default()
            },
        ),
        row("RolloutCommand", command),
        row("RolloutStatus", &rollout),
        row(
            "RolloutReply",
            RolloutReply {
                service: String::new(),
                already: None,
                rollout,
            },
        ),
        row("Bypass", Bypass::default()),
        row("Detach", Detach::default()),
        row("Detached", Detached::default()),
        row("Changed", changed),
        row("ConfigChange", change),
        row("Diagnostic", diagnostic),
        row("ApplyReport", ApplyReport::default()),
        row("Refusal", refusal),
    ]
}

#[test]
fn the_document_has_each_route_with_its_bodies_and_no_other() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let mut known = BTreeSet::new();
    let rows = [
        (Endpoint::Status, None, "Status"),
        (Endpoint::Service, None, "ServiceStatus"),
        (Endpoint::Flows, None, "Flows"),
        (Endpoint::Plan, None, "PlannedRollout"),
        (Endpoint::History, None, "History"),
        (Endpoint::Deployment, None, "DeploymentRecord"),
        (Endpoint::Audit, None, "AuditPage"),
        (Endpoint::Apply, None, "ApplyReport"),
        (Endpoint::Weight, Some("SetWeight"), "Changed"),
        (Endpoint::Rollback, Some("Rollback"), "Changed"),
        (Endpoint::Drain, Some("Drain"), "Changed"),
        (Endpoint::Start, Some("StartRollout"), "RolloutReply"),
        (Endpoint::Command, Some("RolloutCommand"), "RolloutReply"),
        (Endpoint::Bypass, Some("Bypass"), "Changed"),
        (Endpoint::Detach, Some("Detach"), "Detached"),
    ];
    assert_eq!(rows.map(|row| row.0).as_slice(), Endpoint::ALL);
    for (endpoint, body, reply) in rows {
        let method = endpoint.method().to_lowercase();
        let operation = &document["paths"][endpoint.path()][&method];
        assert!(operation.is_object(), "{} {}", method, endpoint.path());
        known.insert(endpoint.path());
        let schema = |part: &Value| {
            let target = &part["content"]["application/json"]["schema"]["$ref"];
            target
                .as_str()
                .map(|target| target.replace("#/components/schemas/", ""))
        };
        assert_eq!(
            schema(&operation["requestBody"]).as_deref(),
            body,
            "{endpoint:?}"
        );
        let responses = operation["responses"].as_object().unwrap();
        assert_eq!(
            schema(&responses["200"]).as_deref(),
            Some(reply),
            "{endpoint:?}"
        );
        // 400 and 403 can happen everywhere, 404 wherever a name is given.
        for status in ["400", "403", "500"] {
            assert!(responses.contains_key(status), "{endpoint:?} {status}");
        }
        let named = endpoint.path().contains("{service}");
        assert_eq!(responses.contains_key("404"), named, "{endpoint:?}");
        let changes = endpoint.right() == Right::Change;
        assert_eq!(
            responses.contains_key("409"),
            (changes && endpoint != Endpoint::Apply) || endpoint == Endpoint::Plan
        );
    }
    for path in document["paths"].as_object().unwrap().keys() {
        assert!(known.contains(path.as_str()), "{path} is not a route");
    }
}

#[test]
fn the_document_has_each_field_of_the_wire_types_and_no_other() {
    let document = document();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let samples = samples();
    for (name, value) in &samples {
        let properties = schemas[*name]["properties"].as_object().unwrap();
        let documented: BTreeSet<_> = properties.keys().collect();
        let actual: BTreeSet<_> = value.as_object().unwrap().keys().collect();
        assert_eq!(documented, actual, "{name}");
        for (key, property) in properties {
            let says = property.get("description").or_else(|| property.get("$ref"));
            assert!(says.is_some(), "{name}.{key} is not described");
            let integer = property["type"] == "integer";
            assert_eq!(
                integer,
                value[key].is_u64(),
                "{name}.{key} is an integer in one of both"
            );
        }
        for required in schemas[*name]["required"].as_array().into_iter().flatten() {
            assert!(
                properties.contains_key(required.as_str().unwrap()),
                "{name}: {required}"
            );
        }
    }
    let known: BTreeSet<_> = samples.iter().map(|(name, _)| *name).collect();
    for (name, schema) in schemas {
        let enumeration = schema.get("enum").is_some();
        assert!(
            enumeration || known.contains(name.as_str()),
            "{name} is not a wire type"
        );
    }
    let mut targets = BTreeSet::new();
    refs(&document, &mut targets);
    for target in targets {
        let pointer = target.strip_prefix('#').unwrap();
        assert!(
            document.pointer(pointer).is_some(),
            "{target} leads nowhere"
        );
    }
}

#[test]
fn the_document_has_each_value_of_the_enumerations() {
    fn names(values: &[impl Serialize]) -> Value {
        serde_json::to_value(values).unwrap()
    }
    use shifter_common::wire::{Affinity, EstablishedPolicy, Role, RolloutOutcome};
    let schemas = &document()["components"]["schemas"];
    assert_eq!(schemas["Slot"]["enum"], names(&Slot::ALL));
    assert_eq!(schemas["Phase"]["enum"], names(&Phase::ALL));
    assert_eq!(
        schemas["Role"]["enum"],
        names(&[Role::Baseline, Role::Canary])
    );
    assert_eq!(
        schemas["Effect"]["enum"],
        names(&[Effect::Now, Effect::NextRollout, Effect::Refused])
    );
    assert_eq!(
        schemas["Affinity"]["enum"],
        names(&[Affinity::Connection, Affinity::Client])
    );
    let policies = [
        EstablishedPolicy::Drain,
        EstablishedPolicy::Reset,
        EstablishedPolicy::ResetIdle,
    ];
    assert_eq!(schemas["EstablishedPolicy"]["enum"], names(&policies));
    let outcomes = [
        RolloutOutcome::UnderWay,
        RolloutOutcome::WaitsForPerson,
        RolloutOutcome::Succeeded,
        RolloutOutcome::Back,
    ];
    assert_eq!(schemas["RolloutOutcome"]["enum"], names(&outcomes));
}

#[test]
fn the_document_and_the_reference_have_each_refusal_code_with_its_status() {
    let codes = [
        "bad_request",
        "forbidden",
        "unknown_service",
        "unknown_rollout",
        "unknown_path",
        "wrong_method",
        "not_eligible",
        "flows_open",
        "vip_lost",
        "rollout",
        "kernel",
        "state",
        "internal",
    ];
    let refusal = &document()["components"]["schemas"]["Refusal"]["properties"]["code"];
    assert_eq!(refusal["enum"], serde_json::to_value(codes).unwrap());
    for code in codes {
        let row = format!("| `{code}` | {} |", http_status(code).as_u16());
        assert!(REFERENCE.contains(&row), "no row {row}");
    }
}

#[test]
fn the_reference_has_each_route_field_and_an_example() {
    for endpoint in Endpoint::ALL {
        let heading = format!("### {} {}", endpoint.method(), endpoint.path());
        let section = REFERENCE
            .split_once(&heading)
            .unwrap_or_else(|| panic!("no {heading}"))
            .1;
        let section = section.split("\n### ").next().unwrap();
        let url = format!(
            "http://localhost{}",
            endpoint
                .path()
                .replace("{service}", "orders")
                .replace("{version}", "3.2.0")
                .replace("{rollout}", "1")
        );
        assert!(section.contains(&url), "{heading} has no curl example");
    }
    for (name, value) in samples() {
        for key in value.as_object().unwrap().keys() {
            assert!(REFERENCE.contains(&format!("`{key}`")), "{name}.{key}");
        }
    }
}
