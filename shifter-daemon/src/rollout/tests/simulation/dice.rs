//! What the dice make: plans and events.

use crate::{
    analysis::Judgement,
    rollout::{
        AnalysisPlan, Command, Event, FrozenPlan, Gate, GateAnswer, GateCheck, GatePoint, Limits,
        OnDrainTimeout, OnInconclusive, Plan, PlanKind, Rollout, Share, Step, Verb,
    },
};
use shifter_common::wire::EstablishedPolicy;

use super::super::world::{Dice, World};

fn one_of<T: Copy>(dice: &mut Dice, of: &[T]) -> T {
    of[dice.below(of.len() as u64) as usize]
}

/// A plan: mostly canaries, of every shape that a plan can have.
pub fn plan_of(dice: &mut Dice) -> FrozenPlan {
    let mut plan = Plan::cutover("dice");
    plan.kind = one_of(
        dice,
        &[
            PlanKind::Release,
            PlanKind::Release,
            PlanKind::Release,
            PlanKind::Release,
            PlanKind::Undo,
            PlanKind::Rehearsal,
        ],
    );
    plan.is_old_first = plan.kind == PlanKind::Release && dice.once_in(8);
    let steps_count = if plan.is_old_first {
        0
    } else {
        dice.below(5).saturating_sub(1)
    };
    plan.steps = (1..=steps_count)
        .map(|number| Step {
            share: Share {
                weight_bp: (number * 1_500) as u16,
                ..Share::NONE
            },
            bake_ms: one_of(dice, &[0, 20_000, 60_000]),
            is_manual: dice.once_in(5),
        })
        .collect();
    plan.watch_ms = one_of(dice, &[0, 60_000, 60_000, 60_000]);
    plan.limits = Limits {
        warm_ms: 30_000,
        unready_ms: 20_000,
        progress_ms: 120_000,
        drain_ms: 30_000,
    };
    plan.on_drain_timeout = one_of(dice, &[OnDrainTimeout::Keep, OnDrainTimeout::Reset]);
    plan.established = one_of(dice, &[EstablishedPolicy::Drain, EstablishedPolicy::Reset]);
    plan.cooldown_ms = 60_000;
    plan.keep_warm_ms = one_of(dice, &[0, 30_000]);
    for at in GatePoint::ALL {
        if dice.once_in(3) {
            let check = if at != GatePoint::Rollback && dice.once_in(3) {
                GateCheck::Manual
            } else {
                GateCheck::Exec(vec!["/bin/true".into()])
            };
            plan.gates.push(Gate {
                name: at.to_string(),
                at,
                check,
                timeout_ms: 10_000,
                retries_count: dice.below(3) as u32,
                user: "nobody".into(),
            });
        }
    }
    if dice.once_in(2) {
        let last = plan.steps.len().max(1) as u64;
        plan.analysis = Some(AnalysisPlan {
            evidence: Default::default(),
            from_step: dice.below(last) as u16,
            on_inconclusive: one_of(
                dice,
                &[
                    OnInconclusive::Extend,
                    OnInconclusive::Pause,
                    OnInconclusive::Rollback,
                ],
            ),
        });
    }
    plan.freeze().expect("a plan that can be carried out")
}

/// A host that begins anew at any moment.
pub fn reboot_of(world: &mut World) -> (Rollout, Event) {
    let (away_ms, is_rebooted) = (world.dice.below(300_000), world.dice.once_in(2));
    world.restart(away_ms, is_rebooted)
}

/// Anything that may happen, or be asked, at any moment.
pub fn event_of(world: &mut World, rollout: &Rollout) -> Event {
    let dice = &mut world.dice;
    let command = |verb| {
        Event::Command(Command {
            by: "root".into(),
            verb,
        })
    };
    let step = one_of(dice, &[None, Some(0), Some(1), Some(2)]);
    let gates = &rollout.plan().plan().gates;
    let gate = match gates.get(dice.below(gates.len() as u64 + 1) as usize) {
        Some(gate) => gate.name.clone(),
        None => "nothing".into(),
    };
    // Nobody asked under these numbers for a long time, if ever.
    let id = dice.below(12);
    match dice.below(26) {
        0 => Event::EffectDone {
            id: id + 1_000_000,
            result: Ok(()),
        },
        1 => Event::EffectDone {
            id: id + 1_000_000,
            result: Err("stale".into()),
        },
        2 => Event::GateAnswered {
            id: id + 1_000_000,
            answer: GateAnswer::Yes,
        },
        3 => Event::GateAnswered {
            id: id + 1_000_000,
            answer: GateAnswer::No("stale".into()),
        },
        4 | 5 => Event::Judged(Judgement::Pass),
        6 => Event::Judged(Judgement::Fail),
        7 => Event::Judged(Judgement::Inconclusive),
        8 => Event::Judged(Judgement::NoData),
        9 => Event::Tripped,
        10 => Event::Superseded {
            by: "3.3.0".parse().expect("a label"),
        },
        11 | 12 => command(Verb::Promote { step }),
        13 | 14 => command(Verb::SkipStep { step }),
        15 => command(Verb::PromoteFull),
        16 => command(Verb::Pause),
        17 | 18 => command(Verb::Resume),
        19 => command(Verb::Abort),
        20 => command(Verb::Retry),
        21 | 22 => command(Verb::Approve { gate }),
        23 => command(Verb::Reject { gate }),
        24 => world.readiness(),
        _ => Event::Tick,
    }
}
