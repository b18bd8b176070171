//! Starting rollouts, one after the other.

use shifter_common::{
    steering::{Slot, WEIGHT_FULL_BP},
    wire::{Refusal, RolloutReply, StartRollout},
};

use super::{
    super::{Driver, SHIFTERD, commands::Order, events::Happening, refusal::refusal, unix_ms},
    Live,
};
use crate::{
    control::ServiceControl,
    rollout::{
        Admission, BAKE_DEFAULT_MS, Done, Event, Label, Last, Phase, PlanError, PlanKind, Portion,
        Rollout, RolloutParts, Share, Situation, StartRefused, Step, Strategy, Wanted, admit,
        preset,
    },
};

impl Driver {
    /// `start`
    pub(in super::super) fn start_rollout(
        &mut self,
        service: &str,
        body: &StartRollout,
        by: &str,
    ) -> Result<RolloutReply, Refusal> {
        self.known(service)?;
        let version = body.version.parse::<Label>().map_err(|error| {
            let text = error.to_string();
            let (message, help) = text.split_once(": ").unwrap_or((&text, ""));
            refusal("bad_request", message.to_owned(), help.to_owned())
        })?;
        let wanted = Wanted {
            version,
            kind: PlanKind::Release,
            strategy: strategy(body).map_err(|error| plan_refused(&error))?,
            by: by.to_owned(),
        };
        let done = self.want(service, wanted)?;
        self.rollout_reply(service, done)
            .ok_or_else(|| no_rollout(service))
    }

    fn want(&mut self, service: &str, wanted: Wanted) -> Result<Done, Refusal> {
        let control = self.known(service)?;
        let serving = serving(control);
        let canary = serving.other();
        let last = self.rollouts.live.get(service).map(|live| &live.rollout);
        let situation = Situation {
            service,
            serving: control.version(serving),
            canary,
            backends_count: control.spec().slot(canary).backends.len(),
            last: last.map(Last::from),
            freezes: &[],
            old: None,
            rollback_window_ms: 0,
        };
        let now = self.rollouts.now();
        let admission =
            admit(&wanted.version, None, &situation, now).map_err(|error| start_refused(&error))?;
        let is_supersede = match admission {
            Admission::Already(why) => return Ok(Done::Already(why)),
            Admission::Supersede => true,
            Admission::Begin => false,
        };
        let record = control.record();
        if !is_supersede && (1..WEIGHT_FULL_BP).contains(&record.weight_bp) {
            return Err(refusal(
                "rollout",
                format!(
                    "slot {} of {service} has a share of new flows already, set by {}",
                    control.canary(),
                    record.weight_by
                ),
                format!(
                    "take it back first: shifterctl rollback {service}; or give it everything: \
                     shifterctl set-weight {service} 100%"
                ),
            ));
        }
        let plan = control.spec().wanted_plan(&wanted, canary);
        plan.map_err(|error| plan_refused(&error))?;
        if is_supersede {
            self.supersede(service, wanted)?;
        } else {
            self.begin(service, wanted)?;
        }
        Ok(Done::Changed)
    }

    /// The rollout that is under way goes back, or ends, and the wanted one follows.
    fn supersede(&mut self, service: &str, wanted: Wanted) -> Result<(), Refusal> {
        let Some(live) = self.rollouts.live.get(service) else {
            return Err(no_rollout(service));
        };
        let (version, by) = (wanted.version.clone(), wanted.by.clone());
        // On disk before anything moves: what follows was acknowledged.
        self.state
            .keep_rollout(&live.rollout, Some(&wanted), Vec::new(), None)
            .map_err(|error| not_kept(&error.to_string()))?;
        if let Some(live) = self.rollouts.live.get_mut(service) {
            live.next = Some(wanted);
        }
        // What happened is never refused.
        let _ = self.tell(service, Event::Superseded { by: version }, &by);
        self.begin_next(service);
        Ok(())
    }

    /// Begins what is to follow a rollout, if that is over.
    pub(super) fn begin_next(&mut self, service: &str) {
        let Some(live) = self.rollouts.live.get_mut(service) else {
            return;
        };
        // What is not on disk yet must not be lost with it.
        if !live.rollout.phase().is_final() || live.not_kept.is_some() {
            return;
        }
        let Some(wanted) = live.next.take() else {
            return;
        };
        let version = wanted.version.clone();
        if let Err(refused) = self.begin(service, wanted) {
            let before_bp = self.in_force_bp(service);
            self.record(Happening {
                service,
                by: SHIFTERD,
                what: "rollout",
                slot: None,
                detail: format!(
                    "{version} was to follow and does not: {}; {}",
                    refused.message, refused.help
                ),
                before_bp,
                took_ns: 0,
            });
        }
    }

    /// Begins a rollout where none is under way. It is on disk when this returns.
    pub(super) fn begin(&mut self, service: &str, wanted: Wanted) -> Result<(), Refusal> {
        // Those that could not be understood have their numbers too.
        let next_id = self.state.next_rollout(service).unwrap_or(1);
        let control = self.known(service)?;
        let canary = serving(control).other();
        let plan = control.spec().wanted_plan(&wanted, canary);
        let plan = plan.map_err(|error| plan_refused(&error))?;
        let last_id = self.rollouts.live.get(service);
        let last_id = last_id.map_or(0, |live| live.rollout.parts().id);
        let parts = RolloutParts {
            id: next_id.max(last_id + 1),
            service: service.to_owned(),
            version: wanted.version.clone(),
            old_version: control.version(canary.other()).cloned(),
            canary,
        };
        let before_bp = self.in_force_bp(service);
        let detail = format!(
            "{}: started as {}, plan {}",
            wanted.version,
            plan.plan().strategy,
            plan.hash().get(..12).unwrap_or_default()
        );
        let held = self.alter(service, Order::DiskFirst, |control| {
            control.hold(&wanted.by, unix_ms());
        });
        held.map_err(|why| not_kept(&why))?;
        let live = Live::new(Rollout::new(parts, plan));
        let last = self.rollouts.live.insert(service.to_owned(), live);
        let ran = self.tell(service, Event::Tick, &wanted.by);
        if let Some(Ok(ran)) = ran
            && let Some(why) = ran.not_kept
        {
            match last {
                Some(last) => self.rollouts.live.insert(service.to_owned(), last),
                None => self.rollouts.live.remove(service),
            };
            return Err(not_kept(&why));
        }
        self.record(Happening {
            service,
            by: &wanted.by,
            what: "rollout",
            slot: Some(canary),
            detail,
            before_bp,
            took_ns: 0,
        });
        self.tell_readiness(service);
        Ok(())
    }

    /// `undo`: back to the version before the one that serves.
    pub(super) fn undo(&mut self, service: &str, by: &str) -> Result<Done, Refusal> {
        let control = self.known(service)?;
        let Some(live) = self.rollouts.live.get(service) else {
            return Err(no_rollout(service));
        };
        let rollout = &live.rollout;
        let canary = serving(control).other();
        let is_undo = rollout.plan().plan().kind == PlanKind::Undo;
        let serves = control.version(canary.other());
        let serves = serves.map_or("the old version".to_owned(), ToString::to_string);
        let is_done = matches!(rollout.phase(), Phase::Succeeded { .. });
        if !rollout.phase().is_final() {
            let phase = rollout.phase();
            return match is_undo {
                true => Ok(Done::Already(format!("it is under way: {phase}"))),
                false => Err(refusal(
                    "rollout",
                    format!("the rollout of {service} is under way: {phase}"),
                    format!("to take its traffic back: shifterctl abort {service}"),
                )),
            };
        }
        if is_undo && is_done {
            return Ok(Done::Already(format!(
                "{serves} serves since the last undo"
            )));
        }
        if !is_done {
            return Ok(Done::Already(format!(
                "the last rollout ended as {}: {serves} serves",
                rollout.phase()
            )));
        }
        let Some(version) = control.version(canary).cloned() else {
            return Err(refusal(
                "rollout",
                format!("nobody told which version is in slot {canary} of {service}"),
                format!("start the one you want: shifterctl start {service} VERSION"),
            ));
        };
        if let Some(reason) = control.ineligible_reason(canary) {
            return Err(refusal(
                "not_eligible",
                format!("version {version} in slot {canary} of {service} cannot serve: {reason}"),
                format!("start it, then: shifterctl undo {service}"),
            ));
        }
        let wanted = Wanted {
            version,
            kind: PlanKind::Undo,
            strategy: None,
            by: by.to_owned(),
        };
        self.begin(service, wanted)?;
        Ok(Done::Changed)
    }
}

/// The slot whose version clients get: a weight of 100 % by hand counts.
fn serving(control: &ServiceControl) -> Slot {
    let record = control.record();
    if record.weight_bp == WEIGHT_FULL_BP {
        record.baseline.other()
    } else {
        record.baseline
    }
}

/// The strategy that a command names, with its name; `None` for the file's.
fn strategy(body: &StartRollout) -> Result<Option<(String, Strategy)>, PlanError> {
    let bake_ms = body.bake_ms.unwrap_or(BAKE_DEFAULT_MS);
    if !body.steps.is_empty() {
        let steps = body.steps.iter().map(|step| Step {
            share: Share {
                weight_bp: step.weight_bp,
                ..Share::NONE
            },
            bake_ms: step.bake_ms.unwrap_or(bake_ms),
            is_manual: step.pause,
        });
        let name = body.strategy.clone().unwrap_or_else(|| "canary".into());
        return Ok(Some((name, Strategy::Canary(steps.collect()))));
    }
    let Some(name) = &body.strategy else {
        return Ok(None);
    };
    let strategy = match name.as_str() {
        "canary" => preset("5-20-50", bake_ms)?.strategy,
        "linear" => Strategy::Linear {
            add_bp: 1_000,
            every_ms: bake_ms,
        },
        "blue-green" => Strategy::BlueGreen,
        "rolling" => Strategy::Rolling {
            max_surge: Portion::Percent(25),
            max_unavailable: Portion::Count(0),
            bake_ms,
        },
        // That nobody serves meanwhile is accepted in the file alone.
        "recreate" => Strategy::Recreate {
            is_downtime_accepted: false,
        },
        "ab" => Strategy::Ab { weight_bp: 5_000 },
        name => preset(name, bake_ms)?.strategy,
    };
    Ok(Some((name.clone(), strategy)))
}

fn plan_refused(error: &PlanError) -> Refusal {
    let text = error.to_string();
    let (message, help) = text.split_once(": ").unwrap_or((&text, ""));
    refusal("not_eligible", message.to_owned(), help.to_owned())
}

fn start_refused(error: &StartRefused) -> Refusal {
    let text = error.to_string();
    let (message, help) = text.split_once("; ").unwrap_or((&text, ""));
    let code = match error {
        StartRefused::NoBackends { .. } => "not_eligible",
        StartRefused::Frozen { .. }
        | StartRefused::Cooldown { .. }
        | StartRefused::GoingBack { .. }
        | StartRefused::Migration(_) => "rollout",
    };
    refusal(code, message.to_owned(), help.to_owned())
}

/// What cannot be kept is not begun.
fn not_kept(why: &str) -> Refusal {
    refusal(
        "state",
        format!("the rollout cannot be kept or held ready ({why}), and was not begun"),
        "free space or mend the state directory, then try again".into(),
    )
}

/// Nothing was started yet.
pub(super) fn no_rollout(service: &str) -> Refusal {
    refusal(
        "rollout",
        format!("{service} has had no rollout"),
        format!("begin one: shifterctl start {service} VERSION"),
    )
}
