//! A world around one rollout: a disk, the packet path in memory, two versions that start, stop and
//! fail, clients that come and go, gates that answer. Time is virtual; without dice all goes well.

use std::collections::BTreeMap;

use shifter_common::steering::Slot;

use crate::{
    config::parse_service,
    control::{BackendHealth, ServiceControl, effective_bp},
    dataplane::{Dataplane as _, memory::MemoryDataplane},
    rollout::{
        Act, Effect, Event, FrozenPlan, GateAnswer, GateCheck, GatePoint, Now, PhaseKind, Ran,
        Refused, Rollout, RolloutParts, Seen, Shell, SlotFlows, Transition, run,
    },
};

pub const SERVICE: &str = "orders";
const FILE: &str = "[service]\nname = \"orders\"\nvip = \"10.0.0.10:80\"\naffinity = \"client\"\n\
     [slot.a]\nbackends = [\"10.1.0.1:80\"]\n[slot.b]\nbackends = [\"10.2.0.1:80\"]\n\
     [probe]\nreadiness = { tcp = true }\n";
/// The time at which every world begins, Unix milliseconds.
pub const EPOCH_MS: u64 = 1_800_000_000_000;
/// From a version's start until it is ready.
const WARM_UP_MS: u64 = 3_000;
const ANSWER_MS: u64 = 1_000;

/// SplitMix64: a seed is a sequence.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit.max(1)
    }

    /// Once in so many times.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// What may go wrong, once in so many times; 0 is never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chaos {
    pub crash: u64,
    pub disk: u64,
    pub kernel: u64,
    pub unit: u64,
    pub gate: u64,
    pub slow_gate: u64,
    pub flap: u64,
}

/// A version in a slot.
#[derive(Clone, Copy, Debug, Default)]
struct Unit {
    is_running: bool,
    ready_at_ms: u64,
    /// Broken: it runs and is not ready.
    is_sick: bool,
    flows_count: u64,
}

/// A gate that will answer.
#[derive(Clone, Debug)]
struct Question {
    id: u64,
    at_ms: u64,
    answer: GateAnswer,
}

pub struct World {
    pub dice: Dice,
    pub chaos: Chaos,
    /// Milliseconds since the daemon began to live.
    mono_ms: u64,
    /// Milliseconds since the world began; goes on whatever happens.
    pub real_ms: u64,
    /// Steps of the wall clock, milliseconds.
    pub skew_ms: i64,
    disk: Option<Rollout>,
    /// How often the host began, and which of these lives the disk knows.
    boots_count: u64,
    disk_boots_count: u64,
    pub kept: Vec<Transition>,
    control: ServiceControl,
    pub dataplane: MemoryDataplane,
    /// The latch a rollback leaves in the steering word.
    is_taken_back: bool,
    /// A rollback was tried and the packet path refused it.
    is_back_refused: bool,
    units: [Unit; 2],
    questions: Vec<Question>,
    /// Gates by name: the last question and its answer, if it came.
    asked: BTreeMap<String, (u64, Option<GateAnswer>)>,
    /// The daemon is dead: nothing it does reaches the world.
    pub is_dead: bool,
    is_disk_full: bool,
    is_kernel_deaf: bool,
    /// True time that the present step was held under a living daemon, milliseconds.
    held_ms: u64,
    /// What the daemon heard last.
    is_canary_told_ready: bool,
    pub log: Vec<String>,
    pub violations: Vec<String>,
    plan: FrozenPlan,
    canary: Slot,
}

impl World {
    /// A service on slot a, and a rollout of 3.2.0 to slot b that is on the disk.
    pub fn new(plan: FrozenPlan, dice: Dice, chaos: Chaos) -> (Self, Rollout) {
        let spec = parse_service("orders.toml", FILE).expect("a good file");
        let parts = RolloutParts {
            id: 1,
            service: SERVICE.into(),
            version: "3.2.0".parse().expect("a label"),
            old_version: Some("3.1.0".parse().expect("a label")),
            canary: Slot::B,
        };
        let rollout = Rollout::new(parts, plan.clone());
        let serving = Unit {
            is_running: true,
            flows_count: 10,
            ..Unit::default()
        };
        let mut this = Self {
            dice,
            chaos,
            mono_ms: 0,
            real_ms: 0,
            skew_ms: 0,
            disk: Some(rollout.clone()),
            boots_count: 1,
            disk_boots_count: 1,
            kept: Vec::new(),
            control: ServiceControl::new(spec, None, None),
            dataplane: MemoryDataplane::default(),
            is_taken_back: false,
            is_back_refused: false,
            units: [serving, Unit::default()],
            questions: Vec::new(),
            asked: BTreeMap::new(),
            is_dead: false,
            is_disk_full: false,
            is_kernel_deaf: false,
            held_ms: 0,
            is_canary_told_ready: false,
            log: Vec::new(),
            violations: Vec::new(),
            plan,
            canary: Slot::B,
        };
        this.publish_health();
        (this, rollout)
    }

    fn violated(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.note(&format!("!!! {what}"));
        self.violations.push(what);
    }

    pub fn note(&mut self, what: &str) {
        let s = self.real_ms / 1_000;
        self.log.push(format!("{s:>6} s  {what}"));
    }

    fn unit(&mut self, slot: Slot) -> &mut Unit {
        &mut self.units[slot.index() as usize]
    }

    fn is_up(&self, slot: Slot) -> bool {
        let unit = self.units[slot.index() as usize];
        unit.is_running && !unit.is_sick && self.real_ms >= unit.ready_at_ms
    }

    /// Tells the packet path which versions are ready.
    fn publish_health(&mut self) {
        for (slot, addr) in self.control.backends() {
            let health = if self.is_up(slot) {
                BackendHealth::ready()
            } else {
                BackendHealth::not_ready("down")
            };
            self.control.set_health(slot, addr, health);
        }
        let _ = self.dataplane.publish(&self.control.plan());
        self.dataplane.with(|state| state.history.clear());
    }

    fn word(&self) -> shifter_common::steering::SteeringWord {
        self.dataplane
            .with(|state| state.words.get(SERVICE).copied().unwrap_or_default())
    }

    /// The weight in force, basis points.
    pub fn weight_bp(&self) -> u16 {
        self.word().weight_bp()
    }

    pub fn baseline(&self) -> Slot {
        self.word().baseline()
    }

    /// What the daemon would see of the kernel at a start.
    fn seen(&self) -> Seen {
        Seen {
            weight_bp: self.weight_bp(),
            has_targets: false,
            is_taken_back: self.is_taken_back,
            is_committed: self.baseline() == self.canary,
        }
    }

    /// What the daemon sees of the versions.
    pub fn readiness(&self) -> Event {
        Event::Readiness {
            is_canary_ready: self.control.is_eligible(self.canary),
            is_baseline_ready: self.control.is_eligible(self.canary.other()),
        }
    }

    pub fn flows(&self) -> Event {
        let count = |slot: Slot| self.units[slot.index() as usize].flows_count;
        Event::Flows(SlotFlows {
            canary_count: Some(count(self.canary)),
            baseline_count: Some(count(self.canary.other())),
        })
    }

    /// Flows that were left in the slot of the version on trial.
    pub fn leave_flows(&mut self, count: u64) {
        let slot = self.canary;
        self.unit(slot).flows_count = count;
    }

    /// A version runs in the slot already.
    pub fn leave_running(&mut self) {
        let slot = self.canary;
        self.unit(slot).is_running = true;
    }

    pub fn make_sick(&mut self, slot: Slot, is_sick: bool) {
        self.unit(slot).is_sick = is_sick;
        self.publish_health();
    }

    /// The kernel takes the traffic back by itself.
    pub fn trip(&mut self) {
        if self.weight_bp() == 0 {
            return;
        }
        self.set_weight(0);
        self.is_taken_back = true;
        self.note("the kernel trips");
    }

    fn set_weight(&mut self, weight_bp: u16) {
        self.control.set_weight(weight_bp, "shifterd", 0);
        let _ = self.dataplane.publish(&self.control.plan());
    }

    /// Lets time pass, and clients come and go.
    pub fn pass(&mut self, ms: u64, rollout: &Rollout) {
        self.real_ms += ms;
        self.mono_ms += ms;
        let is_held = rollout.phase().kind() == PhaseKind::Baking
            && self.weight_bp() == rollout.share().weight_bp
            && self.is_canary_told_ready;
        if is_held && !self.is_dead {
            self.held_ms += ms;
        }
        self.publish_health();
        let share_bp = effective_bp(self.word());
        for slot in Slot::ALL {
            let gets_some = if slot == self.baseline() {
                share_bp < 10_000
            } else {
                share_bp > 0
            };
            let unit = self.unit(slot);
            if gets_some {
                unit.flows_count = 10;
            } else {
                // A connection lasts a few seconds.
                unit.flows_count = unit.flows_count.saturating_sub(ms.div_ceil(2_000));
            }
        }
    }

    /// A gate's answer that is due.
    pub fn due_answer(&mut self) -> Option<Event> {
        let at = self
            .questions
            .iter()
            .position(|q| q.at_ms <= self.real_ms)?;
        let Question { id, answer, .. } = self.questions.remove(at);
        for (last, said) in self.asked.values_mut() {
            if *last == id {
                *said = Some(answer.clone());
            }
        }
        Some(Event::GateAnswered { id, answer })
    }

    /// When something of the world's own is due, milliseconds from now.
    pub fn due_in_ms(&self) -> u64 {
        let questions = self.questions.iter().map(|q| q.at_ms);
        let units = self.units.iter().map(|unit| unit.ready_at_ms);
        let due = questions
            .chain(units)
            .filter(|at_ms| *at_ms > self.real_ms)
            .min();
        due.map_or(5_000, |at_ms| at_ms - self.real_ms).min(5_000)
    }

    /// The daemon dies and lives again, after the given time; the host may begin anew with it.
    pub fn restart(&mut self, away_ms: u64, is_rebooted: bool) -> (Rollout, Event) {
        self.is_dead = false;
        self.is_disk_full = false;
        self.is_kernel_deaf = false;
        self.real_ms += away_ms;
        // Another life of the daemon has its clock where it left it; another one of the host at 0.
        self.mono_ms = if is_rebooted {
            0
        } else {
            self.mono_ms + away_ms
        };
        self.questions.clear();
        self.is_canary_told_ready = false;
        self.is_back_refused = false;
        if is_rebooted {
            self.boots_count += 1;
            self.note("the host begins anew");
            self.units = [Unit::default(); 2];
            self.is_taken_back = false;
            self.set_weight(0);
            // Without a rollout under way, what serves is started at the boot.
            if self
                .disk
                .as_ref()
                .is_some_and(|rollout| rollout.phase().is_final())
            {
                let live = self.baseline();
                self.unit(live).is_running = true;
            }
        } else {
            self.note("shifterd begins anew");
        }
        self.publish_health();
        let kept = self.disk.clone().expect("a rollout on the disk");
        let text = serde_json::to_string(&kept).expect("a rollout is text");
        let rollout: Rollout = serde_json::from_str(&text).expect("it was written by the same");
        assert!(
            rollout.plan().is_intact(),
            "the plan on disk is another one"
        );
        let seen = self.seen();
        // The boot may have been one that a crash kept from being noted.
        let is_rebooted = self.disk_boots_count != self.boots_count;
        (rollout, Event::Restarted { is_rebooted, seen })
    }

    /// Gives the rollout an event, as the driver does, and checks every promise.
    pub fn run(&mut self, rollout: &mut Rollout, event: Event) -> Result<Ran, Refused> {
        let before = rollout.clone();
        let is_trip = event == Event::Tripped;
        if let Event::Readiness {
            is_canary_ready, ..
        } = event
        {
            self.is_canary_told_ready = is_canary_ready;
        }
        let result = run(rollout, event, self);
        if self.is_dead {
            return result;
        }
        match &result {
            Err(refused) => {
                if rollout.phase() != before.phase() || rollout.asked() != before.asked() {
                    self.violated(format!("a refused command changed something: {refused}"));
                }
            }
            Ok(Ran { not_kept: None, .. }) => {
                let on_disk = self.disk.as_ref().map(|rollout| rollout.phase().clone());
                if on_disk.as_ref() != Some(rollout.phase()) {
                    self.violated("what was acknowledged is not on disk");
                }
            }
            Ok(_) => {}
        }
        if is_trip
            && !before.asked().is_none()
            && matches!(
                rollout.phase().kind(),
                PhaseKind::Paused | PhaseKind::Baking
            )
        {
            self.violated(format!("a trip left it in {}", rollout.phase()));
        }
        self.check(rollout);
        result
    }

    /// What holds after every event.
    fn check(&mut self, rollout: &Rollout) {
        let kind = rollout.phase().kind();
        let weight_bp = self.weight_bp();
        if self.is_taken_back && weight_bp > 0 {
            self.violated("traffic after it was taken back");
        }
        let has_traffic = matches!(
            kind,
            PhaseKind::Shifting
                | PhaseKind::Baking
                | PhaseKind::Promoting
                | PhaseKind::Draining
                | PhaseKind::Watching
        );
        if self.is_taken_back && has_traffic && !rollout.asked().is_none() {
            self.violated(format!("taken back, but in {}", rollout.phase()));
        }
        if weight_bp > 0
            && weight_bp != rollout.share().weight_bp
            && weight_bp != rollout.asked().weight_bp
        {
            self.violated(format!("{weight_bp} bp in force that nobody asked for"));
        }
        if kind == PhaseKind::Baking && rollout.baked_ms() > self.held_ms {
            self.violated(format!(
                "baked {} ms, but held {} ms",
                rollout.baked_ms(),
                self.held_ms
            ));
        }
        if kind.is_final() {
            let expected = if kind == PhaseKind::Succeeded {
                self.canary
            } else {
                self.canary.other()
            };
            if weight_bp != 0 || self.baseline() != expected {
                self.violated(format!(
                    "{kind} with {weight_bp} bp beside slot {}",
                    self.baseline()
                ));
            }
            let old = self.units[self.canary.other().index() as usize];
            if kind != PhaseKind::Succeeded && !old.is_running {
                self.violated(format!("{kind}, and the old version does not run"));
            }
        } else if rollout.waiting_on(self.now()).is_none() {
            self.violated(format!("{} waits for nothing", rollout.phase()));
        }
        let now = self.now();
        if rollout
            .next_deadline(now)
            .is_some_and(|at_ms| at_ms <= now.mono_ms)
        {
            self.violated(format!("{} is due in the past", rollout.phase()));
        }
        // The old version is there to take everything back.
        let old = self.canary.other();
        let needs_old = !rollout.asked().is_none() && !self.plan.plan().is_old_first;
        let is_rebooted = rollout.phase().to_string().contains("started anew")
            || rollout.phase().kind() == PhaseKind::RollingBack;
        if needs_old && !is_rebooted && !self.units[old.index() as usize].is_running {
            self.violated(format!("{} without an old version", rollout.phase()));
        }
    }

    fn crashes(&mut self) -> bool {
        if !self.is_dead && self.chaos.crash > 0 && self.dice.once_in(self.chaos.crash) {
            self.is_dead = true;
        }
        self.is_dead
    }

    fn fails(&mut self, once_in: u64) -> bool {
        once_in > 0 && self.dice.once_in(once_in)
    }

    fn do_act(&mut self, act: &Act) -> Result<(), String> {
        let is_of_kernel = matches!(act, Act::Give(_) | Act::TakeBack | Act::Commit | Act::Arm);
        if is_of_kernel {
            self.is_kernel_deaf = self.fails(self.chaos.kernel);
            if self.is_kernel_deaf {
                if *act == Act::TakeBack {
                    self.is_back_refused = true;
                }
                return Err("no".into());
            }
        }
        match act {
            Act::Arm => {
                self.is_taken_back = false;
                self.asked.retain(|_, (_, said)| said.is_some());
            }
            Act::Give(share) => {
                self.check_give(share.weight_bp);
                if self.weight_bp() != share.weight_bp {
                    self.held_ms = 0;
                }
                self.set_weight(share.weight_bp);
            }
            Act::TakeBack => {
                self.is_back_refused = false;
                self.set_weight(0);
                self.is_taken_back = true;
            }
            Act::Commit => {
                let mut record = self.control.record().clone();
                record.baseline = self.canary;
                record.weight_bp = 0;
                self.control.restore(record);
                let _ = self.dataplane.publish(&self.control.plan());
            }
            Act::Start(slot) => {
                if self.fails(self.chaos.unit) {
                    return Err("exit code 1".into());
                }
                let ready_at_ms = self.real_ms + WARM_UP_MS;
                let unit = self.unit(*slot);
                if !unit.is_running {
                    unit.is_running = true;
                    unit.ready_at_ms = ready_at_ms;
                }
                self.publish_health();
            }
            Act::Stop(slot) => {
                let count = self.unit(*slot).flows_count;
                if count > 0 && !self.plan.plan().is_old_first {
                    self.violated(format!("slot {slot} was stopped with {count} flows"));
                }
                *self.unit(*slot) = Unit::default();
                self.publish_health();
            }
            Act::ResetFlows(slot) => self.unit(*slot).flows_count = 0,
            // Answered later.
            Act::Ask { .. } => {}
        }
        Ok(())
    }

    /// Traffic is given only by what is on disk, and only after its tests.
    fn check_give(&mut self, weight_bp: u16) {
        let on_disk_bp = self.disk.as_ref().map(|rollout| rollout.asked().weight_bp);
        if on_disk_bp != Some(weight_bp) {
            self.violated(format!(
                "{weight_bp} bp are given, but {on_disk_bp:?} on disk"
            ));
        }
        if self.is_taken_back {
            self.violated("given after it was taken back");
        }
        let plan = self.plan.plan().clone();
        let tests = plan
            .gates
            .iter()
            .filter(|gate| gate.at == GatePoint::PreTraffic && gate.check != GateCheck::Manual);
        for gate in tests {
            let said = self.asked.get(&gate.name).map(|(_, said)| said.clone());
            if said != Some(Some(GateAnswer::Yes)) {
                self.violated(format!(
                    "given although {} did not say yes: {said:?}",
                    gate.name
                ));
            }
        }
    }

    fn ask(&mut self, id: u64, gate: &str, timeout_ms: u64, at: GatePoint) {
        let is_no = self.fails(self.chaos.gate) || at == GatePoint::Rollback;
        let is_alarm = at == GatePoint::Rollback && self.fails(self.chaos.gate.saturating_mul(8));
        let answer = if is_no && !is_alarm {
            GateAnswer::No("exit code 1".into())
        } else {
            GateAnswer::Yes
        };
        let late_ms = if self.fails(self.chaos.slow_gate) {
            timeout_ms + 20_000
        } else {
            0
        };
        self.asked.insert(gate.to_owned(), (id, None));
        self.questions.push(Question {
            id,
            at_ms: self.real_ms + ANSWER_MS + late_ms,
            answer,
        });
    }
}

impl Shell for World {
    fn keep(&mut self, rollout: &Rollout) -> Result<(), String> {
        if self.crashes() {
            return Err("dead".into());
        }
        let is_back = rollout.phase().kind() == PhaseKind::RollingBack;
        if is_back && self.weight_bp() > 0 && !self.is_back_refused {
            self.violated("a rollback waits for the disk");
        }
        self.is_disk_full = self.fails(self.chaos.disk);
        if self.is_disk_full {
            return Err("no space left on device".into());
        }
        for transition in rollout.transitions() {
            let (from, to, why) = (&transition.from, &transition.to, &transition.why);
            self.note(&format!("{from} -> {to}: {why}"));
            self.kept.push(transition.clone());
        }
        let mut kept = rollout.clone();
        kept.forget_transitions();
        self.disk = Some(kept);
        self.disk_boots_count = self.boots_count;
        self.crashes();
        Ok(())
    }

    fn carry_out(&mut self, effect: &Effect) -> Option<Result<(), String>> {
        if self.crashes() {
            return None;
        }
        self.note(&format!("    {}", effect.act));
        let result = match &effect.act {
            Act::Ask {
                gate,
                at,
                timeout_ms,
            } => {
                self.ask(effect.id, gate, *timeout_ms, *at);
                None
            }
            act => Some(self.do_act(act)),
        };
        if self.crashes() {
            return None;
        }
        result
    }

    fn now(&mut self) -> Now {
        World::now(self)
    }
}

impl World {
    pub fn now(&self) -> Now {
        let unix_ms = (EPOCH_MS + self.real_ms).saturating_add_signed(self.skew_ms);
        Now {
            mono_ms: self.mono_ms,
            unix_ms,
        }
    }

    /// A version may fall ill or get well.
    pub fn flap(&mut self) {
        if self.fails(self.chaos.flap) {
            let slot = if self.dice.once_in(3) {
                Slot::A
            } else {
                Slot::B
            };
            let is_sick = !self.units[slot.index() as usize].is_sick;
            self.make_sick(slot, is_sick);
        }
        if self.dice.once_in(20) {
            self.skew_ms = self.dice.below(7_200_000) as i64 - 3_600_000;
        }
    }

    /// Nothing goes wrong from now on.
    pub fn calm_down(&mut self) {
        self.chaos = Chaos::default();
        for unit in &mut self.units {
            unit.is_sick = false;
        }
        self.publish_health();
    }

    /// Goes on until something is due, at `next_ms` at the latest.
    pub fn advance(&mut self, rollout: &mut Rollout, next_ms: Option<u64>) {
        let now = self.now();
        let due_ms = rollout
            .next_deadline(now)
            .map_or(5_000, |at_ms| at_ms - now.mono_ms);
        let next_ms = next_ms.map_or(5_000, |at_ms| at_ms.saturating_sub(self.real_ms).max(1));
        self.pass(due_ms.min(self.due_in_ms()).min(next_ms), rollout);
        let (readiness, flows) = (self.readiness(), self.flows());
        for event in [readiness, flows, Event::Tick] {
            let _ = self.run(rollout, event);
        }
        while let Some(event) = self.due_answer() {
            let _ = self.run(rollout, event);
        }
    }
}
