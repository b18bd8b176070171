//! The transition table: each phase and stage against each event, in data.

use shifter_common::steering::Slot;

use super::world::EPOCH_MS;
use crate::{
    analysis::Judgement,
    rollout::{
        AnalysisPlan, Event, Gate, GateAnswer, GateCheck, GatePoint, Now, OnInconclusive, Plan,
        Rollout, RolloutParts, Seen, Share, SlotFlows, Step, Verb,
    },
};

const NOW: Now = Now {
    mono_ms: 1_000_000,
    unix_ms: EPOCH_MS,
};

fn plan() -> Plan {
    let gate = |name: &str, at, check| Gate {
        name: name.into(),
        at,
        check,
        timeout_ms: 30_000,
        retries_count: 0,
        user: "nobody".into(),
    };
    let step = |weight_bp, is_manual| Step {
        share: Share {
            weight_bp,
            ..Share::NONE
        },
        bake_ms: 30_000,
        is_manual,
    };
    let exec = || GateCheck::Exec(vec!["/bin/true".into()]);
    Plan {
        steps: vec![step(500, false), step(5_000, true)],
        watch_ms: 20_000,
        gates: vec![
            gate("ticket", GatePoint::ConfirmStart, GateCheck::Manual),
            gate("smoke", GatePoint::PreTraffic, exec()),
            gate("lock", GatePoint::ConfirmIncrease, exec()),
            gate("chief", GatePoint::ConfirmPromote, GateCheck::Manual),
            gate("report", GatePoint::PostRollout, exec()),
        ],
        analysis: Some(AnalysisPlan {
            evidence: Default::default(),
            from_step: 0,
            on_inconclusive: OnInconclusive::Pause,
        }),
        ..Plan::cutover("canary")
    }
}

/// Drives a rollout by what it asks for, to be left wherever a test wants to look.
struct Path {
    rollout: Rollout,
    now: Now,
    found: Vec<(&'static str, Rollout, Now)>,
}

impl Path {
    fn new(plan: Plan) -> Self {
        let parts = RolloutParts {
            id: 1,
            service: "orders".into(),
            version: "3.2.0".parse().expect("a label"),
            old_version: None,
            canary: Slot::B,
        };
        Self {
            rollout: Rollout::new(parts, plan.freeze().expect("a plan")),
            now: NOW,
            found: Vec::new(),
        }
    }

    fn keep(&mut self, name: &'static str) {
        self.found.push((name, self.rollout.clone(), self.now));
    }

    fn give(&mut self, event: Event) {
        self.rollout.handle(event, self.now).expect("accepted");
    }

    fn say(&mut self, verb: Verb) {
        self.give(command(verb));
    }

    /// The effect that is asked for was carried out, or the gate said yes.
    fn done(&mut self) {
        let effect = self.rollout.poll_effect().expect("something is asked for");
        let id = effect.id;
        let event = match effect.act {
            crate::rollout::Act::Ask { .. } => Event::GateAnswered {
                id,
                answer: GateAnswer::Yes,
            },
            _ => Event::EffectDone { id, result: Ok(()) },
        };
        self.give(event);
    }

    /// Time passes under observation.
    fn pass(&mut self, s: u64) {
        for _ in 0..s.div_ceil(10) {
            self.now.mono_ms += 10_000;
            self.now.unix_ms += 10_000;
            self.give(Event::Tick);
        }
    }

    fn ready(&mut self, is_ready: bool) {
        self.give(Event::Readiness {
            is_canary_ready: is_ready,
            is_baseline_ready: true,
        });
    }

    fn flows(&mut self, count: u64) {
        self.give(Event::Flows(SlotFlows {
            canary_count: Some(count),
            baseline_count: Some(count),
        }));
    }
}

fn command(verb: Verb) -> Event {
    Event::Command(crate::rollout::Command {
        by: "ada".into(),
        verb,
    })
}

/// Every phase and stage there is, on the way of one plan and its accidents.
pub fn situations() -> Vec<(&'static str, Rollout, Now)> {
    let mut path = Path::new(plan());
    path.keep("Pending");
    path.flows(0);
    path.keep("Gated");
    path.say(Verb::Approve {
        gate: "ticket".into(),
    });
    path.keep("Warming(starting)");
    path.done();
    path.keep("Warming(arming)");
    path.done();
    path.keep("Warming(probing)");
    path.ready(true);
    path.keep("Warming(testing)");
    path.done();
    path.keep("Shifting(1, storing)");
    path.done();
    path.keep("Baking(1, observing)");
    let baking = path.rollout.clone();
    path.give(Event::Judged(Judgement::Pass));
    path.pass(30);
    path.keep("Shifting(2, confirming)");
    path.done();
    path.done();
    path.give(Event::Judged(Judgement::Pass));
    path.pass(30);
    path.keep("Paused(step 2)");
    path.say(Verb::Promote { step: None });
    path.keep("Promoting(confirming)");
    path.say(Verb::Approve {
        gate: "chief".into(),
    });
    path.keep("Promoting(storing)");
    path.done();
    path.keep("Draining");
    path.flows(0);
    path.keep("Watching(observing)");
    let watching = path.rollout.clone();
    path.pass(20);
    path.keep("Watching(testing)");
    path.done();
    path.keep("Watching(committing)");
    path.done();
    path.keep("Succeeded");

    let (now, mut found) = (path.now, std::mem::take(&mut path.found));
    let mut from = |rollout: &Rollout, name, act: &dyn Fn(&mut Path)| {
        let mut path = Path {
            rollout: rollout.clone(),
            now,
            found: Vec::new(),
        };
        path.give(Event::Restarted {
            is_rebooted: false,
            seen: seen(&path.rollout),
        });
        path.ready(true);
        act(&mut path);
        path.keep(name);
        found.append(&mut path.found);
    };
    from(&baking, "Paused(operator)", &|path| path.say(Verb::Pause));
    from(&baking, "Paused(no data)", &|path| path.pass(30));
    from(&baking, "Paused(inconclusive)", &|path| {
        path.give(Event::Judged(Judgement::Inconclusive));
        path.pass(30);
    });
    from(&baking, "Paused(baseline down)", &|path| {
        path.give(Event::Readiness {
            is_canary_ready: true,
            is_baseline_ready: false,
        });
        path.give(Event::Judged(Judgement::Fail));
    });
    from(&baking, "Paused(rebooted, taking)", &|path| {
        path.give(Event::Restarted {
            is_rebooted: true,
            seen: seen(&path.rollout),
        });
    });
    from(&baking, "Paused(rebooted, done)", &|path| {
        path.give(Event::Restarted {
            is_rebooted: true,
            seen: seen(&path.rollout),
        });
        path.done();
        path.done();
    });
    from(&watching, "Paused(gate)", &|path| {
        path.pass(20);
        let id = path.rollout.poll_effect().expect("a question").id;
        path.give(Event::GateAnswered {
            id,
            answer: GateAnswer::No("status 500".into()),
        });
    });
    from(&baking, "RollingBack(taking)", &|path| {
        path.say(Verb::Abort)
    });
    from(&baking, "RolledBack(tripped)", &|path| {
        path.give(Event::Tripped);
        path.done();
    });
    from(&baking, "RolledBack(operator)", &|path| {
        path.say(Verb::Abort);
        path.done();
    });
    from(&baking, "Superseded", &|path| {
        path.give(Event::Superseded {
            by: "3.3.0".parse().expect("a label"),
        });
        path.done();
    });
    let mut failed = Path::new(plan());
    failed.flows(0);
    failed.say(Verb::Reject {
        gate: "ticket".into(),
    });
    failed.keep("Failed");
    found.append(&mut failed.found);
    found
}

/// The kernel does as it was asked.
fn seen(rollout: &Rollout) -> Seen {
    Seen {
        weight_bp: rollout.share().weight_bp,
        has_targets: false,
        is_taken_back: false,
        is_committed: false,
    }
}

/// Every event, some with what they are about.
fn events(rollout: &Rollout) -> Vec<(&'static str, Event)> {
    let mut copy = rollout.clone();
    let id = copy.poll_effect().map_or(0, |effect| effect.id);
    let taken_back = Seen {
        weight_bp: 0,
        is_taken_back: true,
        ..seen(rollout)
    };
    vec![
        ("tick", Event::Tick),
        ("done", Event::EffectDone { id, result: Ok(()) }),
        (
            "failed",
            Event::EffectDone {
                id,
                result: Err("no".into()),
            },
        ),
        (
            "late result",
            Event::EffectDone {
                id: 999,
                result: Ok(()),
            },
        ),
        (
            "gate says yes",
            Event::GateAnswered {
                id,
                answer: GateAnswer::Yes,
            },
        ),
        (
            "gate says no",
            Event::GateAnswered {
                id,
                answer: GateAnswer::No("status 500".into()),
            },
        ),
        (
            "late yes",
            Event::GateAnswered {
                id: 999,
                answer: GateAnswer::Yes,
            },
        ),
        (
            "ready",
            Event::Readiness {
                is_canary_ready: true,
                is_baseline_ready: true,
            },
        ),
        (
            "unready",
            Event::Readiness {
                is_canary_ready: false,
                is_baseline_ready: true,
            },
        ),
        (
            "no flows",
            Event::Flows(SlotFlows {
                canary_count: Some(0),
                baseline_count: Some(0),
            }),
        ),
        ("judged pass", Event::Judged(Judgement::Pass)),
        ("judged fail", Event::Judged(Judgement::Fail)),
        (
            "judged inconclusive",
            Event::Judged(Judgement::Inconclusive),
        ),
        ("no data", Event::Judged(Judgement::NoData)),
        ("trip", Event::Tripped),
        (
            "superseded",
            Event::Superseded {
                by: "3.3.0".parse().expect("a label"),
            },
        ),
        (
            "restart",
            Event::Restarted {
                is_rebooted: false,
                seen: seen(rollout),
            },
        ),
        (
            "restart, taken back",
            Event::Restarted {
                is_rebooted: false,
                seen: taken_back,
            },
        ),
        (
            "reboot",
            Event::Restarted {
                is_rebooted: true,
                seen: seen(rollout),
            },
        ),
    ]
}

#[test]
fn the_transition_table() {
    let mut text = String::new();
    for (name, rollout, now) in situations() {
        text.push_str(&format!("{name}\n"));
        if let Some(waiting) = rollout.waiting_on(now) {
            text.push_str(&format!("  waits for {} ({})\n", waiting.on, waiting.moves));
        }
        for (what, event) in events(&rollout) {
            let mut rollout = rollout.clone();
            let before = rollout.phase().clone();
            while rollout.poll_effect().is_some() {}
            rollout.handle(event, now).expect("events are accepted");
            let mut effects = Vec::new();
            while let Some(effect) = rollout.poll_effect() {
                effects.push(effect.act.to_string());
            }
            let to = if rollout.phase() == &before {
                "stays".into()
            } else {
                format!("-> {}", rollout.phase())
            };
            let effects = match effects.as_slice() {
                [] => String::new(),
                effects => format!(" [{}]", effects.join(", ")),
            };
            text.push_str(&format!("  {what}: {to}{effects}\n"));
        }
    }
    let golden = include_str!("transitions.txt");
    assert!(
        text == golden,
        "tests/transitions.txt is not what happens, which is:\n{text}"
    );
}

/// The room and its table know the same phases.
#[test]
fn every_phase_has_a_row() {
    let found = situations();
    for kind in crate::rollout::PhaseKind::ALL {
        assert!(
            found
                .iter()
                .any(|(_, rollout, _)| rollout.phase().kind() == kind),
            "{kind}"
        );
    }
    for (name, rollout, _) in found {
        let kind = rollout.phase().kind().to_string();
        assert!(name.starts_with(&kind), "{name} is {kind}");
    }
}

/// A deed that waits for the disk may be overtaken by what happens.
#[test]
fn a_stop_that_could_not_be_kept_is_reconsidered() {
    let mut path = Path::new(Plan {
        keep_warm_ms: 0,
        watch_ms: 0,
        ..Plan::cutover("blue-green")
    });
    path.flows(0);
    path.ready(true);
    // Start, arm, give.
    for _ in 0..3 {
        path.done();
    }
    path.flows(0);
    path.done();
    path.flows(0);
    let stop = "stop slot a";
    let asked = |path: &Path| {
        path.rollout
            .clone()
            .poll_effect()
            .map(|e| e.act.to_string())
    };
    assert_eq!(
        asked(&path).as_deref(),
        Some(stop),
        "the time of the old version is over"
    );
    path.ready(false);
    assert_eq!(
        asked(&path),
        None,
        "the old version stands in for the new one"
    );
    path.ready(true);
    assert_eq!(asked(&path), None, "and what was counted before is old");
    path.flows(0);
    assert_eq!(asked(&path).as_deref(), Some(stop));
}
