//! The shipped machine and its shipped order of disk and deeds, in a world that fails: crashes before
//! and after every commit and every deed, full disks, deaf kernels, units that do not start, versions
//! that come and go, late answers, operators who press everything. After every event every promise is
//! checked; at the end the world calms down, and each rollout must come to its end by following what
//! it says itself moves it.
//!
//! `SHIFTER_SIM_ROLLOUTS` makes it longer, `SHIFTER_SIM_SEED` begins elsewhere; a failure names the
//! seed of its rollout.

mod dice;
mod faults;

use std::{collections::BTreeMap, fmt::Write as _};

use self::dice::{event_of, plan_of, reboot_of};
use super::world::{Chaos, Dice, World};
use crate::rollout::{Command, Event, PhaseKind, Rollout, Verb};

/// Rollouts of a run in the `unit` stage.
const ROLLOUTS_COUNT: u64 = 18_000;
/// Events in a failing world.
const WILD_EVENTS_COUNT: u64 = 100;
/// Events until a rollout in a calm world must be over.
const CALM_EVENTS_COUNT: u64 = 4_000;
/// How often each cell of the table must be hit.
const HITS_MIN_COUNT: u64 = 100;

/// Events by name; every one may meet every phase.
const EVENTS: [&str; 22] = [
    "tick",
    "done",
    "failed",
    "yes",
    "no",
    "ready",
    "unready",
    "flows",
    "pass",
    "fail",
    "inconclusive",
    "no-data",
    "trip",
    "supersede",
    "restart",
    "reboot",
    "promote",
    "skip-step",
    "full",
    "pause",
    "resume",
    "abort",
];
const MORE_EVENTS: [&str; 3] = ["retry", "approve", "reject"];

type Hits = BTreeMap<(PhaseKind, &'static str), u64>;

/// What an event is called in the table.
fn name_of(event: &Event) -> &'static str {
    use crate::{analysis::Judgement, rollout::GateAnswer};
    match event {
        Event::Tick => "tick",
        Event::EffectDone { result: Ok(()), .. } => "done",
        Event::EffectDone { result: Err(_), .. } => "failed",
        Event::GateAnswered {
            answer: GateAnswer::Yes,
            ..
        } => "yes",
        Event::GateAnswered {
            answer: GateAnswer::No(_),
            ..
        } => "no",
        Event::Readiness {
            is_canary_ready: true,
            ..
        } => "ready",
        Event::Readiness {
            is_canary_ready: false,
            ..
        } => "unready",
        Event::Flows(_) => "flows",
        Event::Judged(Judgement::Pass) => "pass",
        Event::Judged(Judgement::Fail) => "fail",
        Event::Judged(Judgement::Inconclusive) => "inconclusive",
        Event::Judged(Judgement::NoData) => "no-data",
        Event::Tripped => "trip",
        Event::Superseded { .. } => "supersede",
        Event::Restarted {
            is_rebooted: false, ..
        } => "restart",
        Event::Restarted {
            is_rebooted: true, ..
        } => "reboot",
        Event::Command(command) => match &command.verb {
            Verb::Promote { .. } => "promote",
            Verb::SkipStep { .. } => "skip-step",
            Verb::PromoteFull => "full",
            Verb::Pause => "pause",
            Verb::Resume => "resume",
            Verb::Abort => "abort",
            Verb::Retry => "retry",
            Verb::Approve { .. } => "approve",
            Verb::Reject { .. } => "reject",
        },
    }
}

/// One rollout, from its seed.
pub struct Simulation {
    pub world: World,
    pub rollout: Rollout,
}

impl Simulation {
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let plan = plan_of(&mut dice);
        let chaos = Chaos {
            crash: 60,
            disk: 12,
            kernel: [10, 2, 2][dice.below(3) as usize],
            unit: 6,
            gate: 5,
            slow_gate: 5,
            flap: 8,
        };
        let (mut world, rollout) = World::new(plan, dice, chaos);
        if world.dice.once_in(3) {
            world.leave_flows(5);
        } else if world.dice.once_in(3) {
            world.leave_running();
        }
        Self { world, rollout }
    }

    fn give(&mut self, event: Event, hits: &mut Hits) {
        let (world, rollout) = (&mut self.world, &mut self.rollout);
        *hits
            .entry((rollout.phase().kind(), name_of(&event)))
            .or_default() += 1;
        if event == Event::Tripped {
            world.trip();
        }
        let is_restart = matches!(event, Event::Restarted { .. });
        // Refusals are checked by the world; most of these commands make no sense.
        let _ = world.run(rollout, event);
        if is_restart && !world.is_dead {
            let (readiness, flows) = (world.readiness(), world.flows());
            let _ = world.run(rollout, readiness);
            let _ = world.run(rollout, flows);
        }
        // A crash may follow a crash, but not for ever.
        for _ in 0..100 {
            if !world.is_dead {
                return;
            }
            let is_rebooted = world.dice.once_in(5);
            let away_ms = world.dice.below(120_000);
            let (again, event) = world.restart(away_ms, is_rebooted);
            *rollout = again;
            *hits
                .entry((rollout.phase().kind(), name_of(&event)))
                .or_default() += 1;
            let _ = world.run(rollout, event);
        }
    }

    /// Some time and some events in a failing world.
    pub fn run_wild(&mut self, hits: &mut Hits) {
        if self.world.dice.once_in(4) {
            self.run_far(hits);
        }
        let mut after_end_count = 0;
        for _ in 0..WILD_EVENTS_COUNT {
            if !self.world.violations.is_empty() || after_end_count > 14 {
                return;
            }
            if self.rollout.phase().is_final() {
                after_end_count += 1;
            }
            // Where a rollout never stays for long, more has to happen.
            let is_fleeting = match self.rollout.phase().kind() {
                PhaseKind::Shifting
                | PhaseKind::Promoting
                | PhaseKind::Draining
                | PhaseKind::Watching
                | PhaseKind::RollingBack
                | PhaseKind::Succeeded => true,
                PhaseKind::Pending
                | PhaseKind::Gated
                | PhaseKind::Warming
                | PhaseKind::Baking
                | PhaseKind::Paused
                | PhaseKind::RolledBack
                | PhaseKind::Failed
                | PhaseKind::Superseded => false,
            };
            let die = self.world.dice.below(12);
            let is_paused = self.rollout.phase().kind() == PhaseKind::Paused;
            if is_paused && die < 4 {
                let waiting = self.rollout.waiting_on(self.world.now());
                if let Some(verb) = waiting.and_then(|waiting| verb_of(&waiting.moves)) {
                    self.give(command(verb), hits);
                }
            } else if die < if is_fleeting || is_paused { 9 } else { 5 } {
                let event = event_of(&mut self.world, &self.rollout);
                self.give(event, hits);
            } else if is_fleeting && die == 10 || self.world.dice.once_in(12) {
                let (rollout, event) = reboot_of(&mut self.world);
                self.rollout = rollout;
                self.give(event, hits);
            } else {
                self.world.flap();
                self.pass(hits);
            }
        }
    }

    /// Nothing goes wrong until the new version has everything, so that late phases see as much as
    /// early ones.
    fn run_far(&mut self, hits: &mut Hits) {
        let chaos = std::mem::take(&mut self.world.chaos);
        for _ in 0..200 {
            let kind = self.rollout.phase().kind();
            if kind.is_final() || kind == PhaseKind::Watching {
                break;
            }
            self.pass(hits);
            let waiting = self.rollout.waiting_on(self.world.now());
            let waiting = waiting.filter(|waiting| waiting.on.starts_with("a person"));
            if let Some(verb) = waiting.and_then(|waiting| verb_of(&waiting.moves)) {
                self.give(command(verb), hits);
            }
        }
        self.world.chaos = chaos;
    }

    /// Lets time pass until something is due, and tells the rollout.
    fn pass(&mut self, hits: &mut Hits) {
        let now = self.world.now();
        let due_ms = self.rollout.next_deadline(now);
        let due_ms = due_ms.map_or(5_000, |at_ms| at_ms - now.mono_ms);
        let ms = due_ms.min(self.world.due_in_ms());
        self.world.pass(ms, &self.rollout);
        let flows = self.world.flows();
        let readiness = self.world.readiness();
        self.give(readiness, hits);
        self.give(flows, hits);
        self.give(Event::Tick, hits);
        while let Some(event) = self.world.due_answer() {
            self.give(event, hits);
        }
    }

    /// Nothing fails any more, and the operator does what the rollout says moves it when nothing has
    /// moved for a while. It must come to an end.
    pub fn run_calm(&mut self, hits: &mut Hits) {
        self.world.calm_down();
        let mut stuck_count = 0;
        let mut before = self.rollout.phase().clone();
        for _ in 0..CALM_EVENTS_COUNT {
            if !self.world.violations.is_empty() || self.rollout.phase().is_final() {
                return;
            }
            self.pass(hits);
            if self.rollout.phase() != &before {
                before = self.rollout.phase().clone();
                stuck_count = 0;
                continue;
            }
            stuck_count += 1;
            let waiting = self.rollout.waiting_on(self.world.now());
            let is_for_people = waiting
                .as_ref()
                .is_some_and(|w| w.on.starts_with("a person"));
            // Longer than everything in the plans that ends by itself.
            if stuck_count > if is_for_people { 2 } else { 40 } {
                let Some(verb) = waiting.as_ref().and_then(|waiting| verb_of(&waiting.moves))
                else {
                    let text = format!("{before} is stuck, and says: {waiting:?}");
                    return self.world.violations.push(text);
                };
                self.give(command(verb), hits);
                let after = self.rollout.waiting_on(self.world.now());
                if *self.rollout.phase() == before && after == waiting {
                    let text = format!("{before}: {waiting:?} moved nothing");
                    return self.world.violations.push(text);
                }
                stuck_count = 0;
            }
        }
        let text = format!("{} does not come to an end", self.rollout.phase());
        self.world.violations.push(text);
    }
}

fn command(verb: Verb) -> Event {
    Event::Command(Command {
        by: "root".into(),
        verb,
    })
}

/// The verb of a command that a rollout names.
fn verb_of(command: &str) -> Option<Verb> {
    let mut words = command.strip_prefix("shifterctl ")?.split(' ');
    Some(match words.next()? {
        "abort" => Verb::Abort,
        "resume" => Verb::Resume,
        "promote" => match words.next()? {
            "--skip-step" => Verb::SkipStep { step: None },
            _ => Verb::Promote { step: None },
        },
        "approve" => Verb::Approve {
            gate: words.nth(1)?.to_owned(),
        },
        _ => return None,
    })
}

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")),
        Err(_) => default,
    }
}

/// Runs one rollout; gives what was broken.
fn simulate(seed: u64, hits: &mut Hits) -> Result<PhaseKind, String> {
    let mut simulation = Simulation::new(seed);
    simulation.run_wild(hits);
    if simulation.world.violations.is_empty() {
        simulation.run_calm(hits);
    }
    if simulation.world.violations.is_empty() {
        return Ok(simulation.rollout.phase().kind());
    }
    let mut text = format!("SHIFTER_SIM_SEED={seed} SHIFTER_SIM_ROLLOUTS=1\n");
    let log = &simulation.world.log;
    for line in log.iter().skip(log.len().saturating_sub(60)) {
        let _ = writeln!(text, "{line}");
    }
    for violation in &simulation.world.violations {
        let _ = writeln!(text, "broken: {violation}");
    }
    Err(text)
}

fn table(hits: &Hits) -> String {
    let mut text = String::from("event         ");
    for kind in PhaseKind::ALL {
        let _ = write!(text, "{kind:>12}");
    }
    for event in EVENTS.iter().chain(&MORE_EVENTS) {
        let _ = write!(text, "\n{event:<14}");
        for kind in PhaseKind::ALL {
            let count = hits.get(&(kind, event)).copied().unwrap_or(0);
            let _ = write!(text, "{count:>12}");
        }
    }
    text
}

#[test]
fn every_promise_holds_in_a_failing_world() {
    let count = setting("SHIFTER_SIM_ROLLOUTS", ROLLOUTS_COUNT);
    let first = setting("SHIFTER_SIM_SEED", 1);
    let mut hits = Hits::new();
    let mut ends: BTreeMap<PhaseKind, u64> = BTreeMap::new();
    for seed in first..first + count {
        match simulate(seed, &mut hits) {
            Ok(end) => *ends.entry(end).or_default() += 1,
            Err(text) => panic!("{text}"),
        }
    }
    println!("{}\n{ends:?}", table(&hits));
    if count < ROLLOUTS_COUNT {
        return;
    }
    for kind in PhaseKind::ALL {
        for event in EVENTS.iter().chain(&MORE_EVENTS) {
            let hit = hits.get(&(kind, event)).copied().unwrap_or(0);
            assert!(
                hit >= HITS_MIN_COUNT,
                "{kind} met {event} {hit} times:\n{}",
                table(&hits)
            );
        }
        if kind.is_final() {
            assert!(
                ends.get(&kind).is_some_and(|count| *count > 50),
                "{kind}: {ends:?}"
            );
        }
    }
}

#[test]
fn a_seed_is_a_rollout() {
    for seed in 1..50 {
        let logs = [(); 2].map(|()| {
            let mut simulation = Simulation::new(seed);
            simulation.run_wild(&mut Hits::new());
            simulation.world.log
        });
        assert!(!logs[0].is_empty());
        assert_eq!(logs[0], logs[1], "seed {seed}");
    }
}
