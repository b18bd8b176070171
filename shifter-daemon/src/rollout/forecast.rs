//! What a plan does and when, if nothing is in its way.

use super::{
    gate::{Gate, GateCheck, GatePoint},
    plan::{OnDrainTimeout, Plan},
};

/// One thing a rollout does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// The earliest time after the start, milliseconds. People and gates take theirs on top.
    pub at_ms: u64,
    /// How long it takes at least, milliseconds.
    pub lasts_ms: u64,
    /// What it is, in words.
    pub what: String,
}

/// Everything a plan does, in order. The new version is called by its label.
pub fn forecast(plan: &Plan, version: &str) -> Vec<Forecast> {
    let mut said = Said {
        gates: &plan.gates,
        at_ms: 0,
        list: Vec::new(),
    };
    said.gates(GatePoint::ConfirmStart);
    if plan.is_old_first {
        said.now("stop the old version: nobody serves until the new one is ready".into());
    }
    said.now(format!("start {version} and wait until it is ready"));
    said.gates(GatePoint::PreTraffic);
    for (index, step) in plan.steps.iter().enumerate() {
        if index > 0 {
            said.gates(GatePoint::ConfirmIncrease);
        }
        let text = format!("{} of new flows to {version}", step.share);
        said.during(step.bake_ms, text);
        said.gates(GatePoint::EachStep);
        if step.is_manual {
            said.now("wait for a person: promote or rollback".into());
        }
    }
    said.gates(GatePoint::ConfirmPromote);
    let all = format!("100 % of new flows to {version}, the old version kept ready");
    said.during(plan.watch_ms, all);
    let then = match plan.on_drain_timeout {
        OnDrainTimeout::Keep => "those that do not end continue",
        OnDrainTimeout::Reset => "those that do not end are reset",
    };
    said.now(format!("drain the old version's flows; {then}"));
    said.gates(GatePoint::PostRollout);
    said.now("done".into());
    said.list
}

struct Said<'p> {
    gates: &'p [Gate],
    at_ms: u64,
    list: Vec<Forecast>,
}

impl Said<'_> {
    fn during(&mut self, lasts_ms: u64, what: String) {
        self.list.push(Forecast {
            at_ms: self.at_ms,
            lasts_ms,
            what,
        });
        self.at_ms = self.at_ms.saturating_add(lasts_ms);
    }

    fn now(&mut self, what: String) {
        self.during(0, what);
    }

    fn gates(&mut self, at: GatePoint) {
        let gates = self.gates;
        for gate in gates.iter().filter(|gate| gate.at == at) {
            let name = &gate.name;
            self.now(match gate.check {
                GateCheck::Manual => format!("wait for a person: approve or reject {name}"),
                GateCheck::Http(_) | GateCheck::Exec(_) | GateCheck::File(_) => {
                    format!("ask gate {name}")
                }
            });
        }
    }
}
