//! One service, judged from outside: what is put in, what plan comes out.

mod changes;
mod properties;
mod recall;
mod shares;
mod situations;
mod targets;
mod versions;

use std::time::Duration;

use shifter_common::steering::{Affinity, SteeringWord};

use super::*;
use crate::{
    control::effective_bp,
    model::{EstablishedPolicy, Protocol},
};

const V4: &[&str] = &["10.0.0.10:80"];
const BOTH: &[&str] = &["10.0.0.10:80", "[2001:db8::10]:80"];

const ONE_EACH: [&[&str]; 2] = [&["10.1.0.1:80"], &["10.2.0.1:80"]];

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// Backends as `10.1.0.1:80` or, with a weight, `10.1.0.1:80*5`.
fn backend(text: &str) -> BackendSpec {
    let (text, weight) = text.split_once('*').unwrap_or((text, "100"));
    BackendSpec {
        addr: addr(text),
        weight: weight.parse().expect("a weight"),
    }
}

fn slot(backends: &[&str]) -> SlotSpec {
    SlotSpec {
        backends: backends.iter().map(|text| backend(text)).collect(),
        user: None,
    }
}

fn spec(vips: &[&str], a: &[&str], b: &[&str]) -> ServiceSpec {
    ServiceSpec {
        name: "orders".into(),
        vips: vips.iter().map(|vip| addr(vip)).collect(),
        protocol: Protocol::Tcp,
        plane: Plane::Auto,
        affinity: Affinity::Connection,
        default_slot: Slot::A,
        on_empty: OnEmpty::Drop,
        readmit: Readmit::Probe,
        on_full: Default::default(),
        manages_vips: false,
        slots: [slot(a), slot(b)],
        targets: Default::default(),
        readiness: ProbeSpec {
            port: None,
            check: ProbeCheck::Tcp,
            interval: Duration::from_secs(1),
            timeout: Duration::from_millis(500),
            success_threshold: 3,
            failure_threshold: 3,
        },
        outlier: None,
        observe: Default::default(),
        breaker: Default::default(),
        drain_timeout: Duration::from_secs(60),
        rollback_established: EstablishedPolicy::Drain,
        rollout: Default::default(),
    }
}

fn record(baseline: Slot, weight_bp: u16, drained: &[Slot]) -> ServiceRecord {
    let drained = drained
        .iter()
        .map(|slot| {
            (
                *slot,
                Drained {
                    by: "mia (uid 7)".into(),
                    since_unix_ms: 1,
                },
            )
        })
        .collect();
    ServiceRecord {
        baseline,
        weight_bp,
        weight_by: "root (uid 0)".into(),
        weight_set_unix_ms: 5,
        held: false,
        drained,
        bypassed: None,
        versions: Default::default(),
        batch: None,
    }
}

/// Health of the backends in the order of the file: `+` ready, `-` status 503, `?` not probed yet.
fn set_health(control: &mut ServiceControl, health: &str) {
    let backends = control.backends();
    assert_eq!(backends.len(), health.chars().count(), "a letter a backend");
    for ((slot, addr), letter) in backends.into_iter().zip(health.chars()) {
        match letter {
            '+' => control.set_health(slot, addr, BackendHealth::ready()),
            '-' => control.set_health(slot, addr, BackendHealth::not_ready("status 503")),
            _ => continue,
        };
    }
}

fn word(control: &ServiceControl) -> SteeringWord {
    control.plan().steer(SteeringWord::default())
}

/// The plan's eligible bits and the effective share: `ab 2500`, `-b 10000`.
fn outcome(control: &ServiceControl) -> String {
    let plan = control.plan();
    let letter = |slot: Slot, name| if plan.slot(slot).eligible { name } else { '-' };
    format!(
        "{}{} {}",
        letter(Slot::A, 'a'),
        letter(Slot::B, 'b'),
        effective_bp(word(control))
    )
}
