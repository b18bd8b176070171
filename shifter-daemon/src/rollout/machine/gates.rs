//! Asking gates.

use serde::{Deserialize, Serialize};

use super::{RETRY_MS, Rollout};
use crate::rollout::{
    event::{Act, Effect, GateAnswer},
    fault::{Fault, is_seeded},
    gate::{Gate, GateCheck, GatePoint},
    phase::{Cause, Phase},
    time::Now,
};

/// Whoever asks ends a gate that takes too long; this much later it counts as ended, milliseconds.
const GRACE_MS: u64 = 5_000;

/// A round of questions at one point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asking {
    at: GatePoint,
    /// Which of the gates at this point.
    index: usize,
    failures_count: u32,
    /// What a person said.
    said: Option<GateAnswer>,
    #[serde(skip)]
    under_way: Option<UnderWay>,
    #[serde(skip)]
    answer: Option<GateAnswer>,
    /// Not before, monotonic milliseconds.
    #[serde(skip)]
    again_at_ms: u64,
    /// The last *no*, for people.
    #[serde(skip)]
    last_no: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct UnderWay {
    id: u64,
    until_ms: u64,
}

/// What came of asking.
pub enum Asked {
    /// Every gate said yes.
    Yes,
    /// A gate said no, for good.
    No {
        /// Its name.
        gate: String,
        /// The answer.
        text: String,
    },
    /// There is no answer yet.
    Waiting,
}

impl Asking {
    fn new(at: GatePoint) -> Self {
        Self {
            at,
            index: 0,
            failures_count: 0,
            said: None,
            under_way: None,
            answer: None,
            again_at_ms: 0,
            last_no: None,
        }
    }

    /// When something happens without an answer, monotonic milliseconds.
    pub fn due_ms(&self) -> Option<u64> {
        let again_ms = (self.again_at_ms > 0).then_some(self.again_at_ms);
        self.under_way
            .map_or(again_ms, |under_way| Some(under_way.until_ms))
    }

    fn next(&mut self) {
        *self = Self {
            index: self.index + 1,
            ..Self::new(self.at)
        };
    }
}

/// The gates at `rollback`, which are asked again and again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alarm {
    index: usize,
    under_way: Option<UnderWay>,
    again_at_ms: u64,
}

impl Alarm {
    /// The question under way.
    pub fn id(&self) -> Option<u64> {
        self.under_way.map(|under_way| under_way.id)
    }
}

impl Rollout {
    fn gates_at(&self, at: GatePoint) -> Vec<&Gate> {
        self.spec()
            .gates
            .iter()
            .filter(|gate| gate.at == at)
            .collect()
    }

    /// The gate that is being asked.
    pub(super) fn asked_gate(&self) -> Option<&Gate> {
        let asking = self.asking.as_ref()?;
        self.gates_at(asking.at).get(asking.index).copied()
    }

    /// Whether a person's word is waited for.
    pub(super) fn is_asking_a_person(&self) -> bool {
        self.asked_gate()
            .is_some_and(|gate| gate.check == GateCheck::Manual)
    }

    /// What the gate that is being asked said last.
    pub(super) fn last_no(&self) -> Option<&str> {
        self.asking.as_ref()?.last_no.as_deref()
    }

    /// Asks the gates at a point one after the other. To be called again with every event until
    /// there is an answer.
    pub(super) fn ask(&mut self, at: GatePoint, now: Now) -> Asked {
        let gates: Vec<Gate> = self.gates_at(at).into_iter().cloned().collect();
        let mut asking = match self.asking.take() {
            Some(asking) if asking.at == at => asking,
            Some(_) | None => Asking::new(at),
        };
        // Every round takes one gate further or ends.
        for _ in 0..=gates.len() {
            let Some(gate) = gates.get(asking.index) else {
                return Asked::Yes;
            };
            if let Some(asked) = self.ask_one(gate, &mut asking, now) {
                self.asking = Some(asking);
                return asked;
            }
        }
        self.asking = Some(asking);
        Asked::Waiting
    }

    /// `None` if the gate said yes.
    fn ask_one(&mut self, gate: &Gate, asking: &mut Asking, now: Now) -> Option<Asked> {
        let no = |text| {
            Some(Asked::No {
                gate: gate.name.clone(),
                text,
            })
        };
        if gate.check == GateCheck::Manual {
            return match asking.said.take() {
                Some(GateAnswer::Yes) => {
                    asking.next();
                    None
                }
                Some(GateAnswer::No(text)) => no(text),
                None => Some(Asked::Waiting),
            };
        }
        if asking
            .under_way
            .is_some_and(|run| now.mono_ms >= run.until_ms)
        {
            asking.answer = Some(GateAnswer::No("no answer in time".into()));
        }
        match asking.answer.take() {
            Some(GateAnswer::Yes) => {
                asking.next();
                return None;
            }
            Some(GateAnswer::No(text)) => {
                asking.under_way = None;
                asking.failures_count = asking.failures_count.saturating_add(1);
                if !asking.at.is_confirmation() && asking.failures_count > gate.retries_count {
                    return no(text);
                }
                asking.last_no = Some(text);
                asking.again_at_ms = now.mono_ms.saturating_add(RETRY_MS);
            }
            None => {}
        }
        if asking.under_way.is_none() && now.mono_ms >= asking.again_at_ms {
            asking.again_at_ms = 0;
            asking.under_way = Some(self.put(gate, now));
        }
        Some(Asked::Waiting)
    }

    /// Puts a question.
    fn put(&mut self, gate: &Gate, now: Now) -> UnderWay {
        let id = self.take_id();
        self.effects.push_back(Effect {
            id,
            act: Act::Ask {
                gate: gate.name.clone(),
                at: gate.at,
                timeout_ms: gate.timeout_ms,
            },
        });
        let until_ms = now.mono_ms.saturating_add(gate.timeout_ms + GRACE_MS);
        UnderWay { id, until_ms }
    }

    /// Takes an answer. One to a question that nobody asks any more is ignored.
    pub(super) fn gate_answered(&mut self, id: u64, answer: GateAnswer, now: Now) {
        if self.alarm.id() == Some(id) {
            self.alarm_answered(&answer, now);
            return;
        }
        let Some(asking) = &mut self.asking else {
            return;
        };
        let is_meant = asking.under_way.is_some_and(|under_way| under_way.id == id);
        if is_meant || is_seeded(Fault::BelievesLateAnswer) {
            asking.under_way = None;
            asking.answer = Some(answer);
        }
    }

    /// Takes a person's answer to the gate that is being asked.
    pub(super) fn say(&mut self, answer: GateAnswer) {
        if let Some(asking) = &mut self.asking {
            asking.said = Some(answer);
        }
    }

    /// Asks the gates at `rollback` in turn, in every phase with a share, paused ones too.
    pub(super) fn ask_alarms(&mut self, now: Now) {
        let gates: Vec<Gate> = self
            .gates_at(GatePoint::Rollback)
            .into_iter()
            .cloned()
            .collect();
        let is_wanted = self.has_share()
            && !self.phase.is_final()
            && !matches!(self.phase, Phase::RollingBack { .. });
        if !is_wanted || gates.is_empty() {
            self.alarm = Alarm::default();
            return;
        }
        if self
            .alarm
            .under_way
            .is_some_and(|run| now.mono_ms >= run.until_ms)
        {
            self.next_alarm(now);
        }
        if self.alarm.under_way.is_none() && now.mono_ms >= self.alarm.again_at_ms {
            let gate = &gates[self.alarm.index % gates.len()];
            self.alarm.under_way = Some(self.put(gate, now));
        }
    }

    /// When the alarms want to be looked at, monotonic milliseconds.
    pub(super) fn alarm_due_ms(&self) -> Option<u64> {
        let again_ms = (self.alarm.again_at_ms > 0).then_some(self.alarm.again_at_ms);
        self.alarm
            .under_way
            .map_or(again_ms, |under_way| Some(under_way.until_ms))
    }

    fn next_alarm(&mut self, now: Now) {
        self.alarm = Alarm {
            index: self.alarm.index.wrapping_add(1),
            under_way: None,
            again_at_ms: now.mono_ms.saturating_add(RETRY_MS),
        };
    }

    fn alarm_answered(&mut self, answer: &GateAnswer, now: Now) {
        let gates = self.gates_at(GatePoint::Rollback);
        let gate = gates
            .get(self.alarm.index % gates.len().max(1))
            .map(|gate| gate.name.clone());
        self.next_alarm(now);
        match (answer, gate) {
            (GateAnswer::Yes, Some(gate)) => {
                let cause = Cause::Gate {
                    at: GatePoint::Rollback,
                    gate,
                    text: "roll back".into(),
                };
                self.back(cause, now);
            }
            (GateAnswer::No(_), _) | (GateAnswer::Yes, None) => {}
        }
    }

    /// After a crash: what was under way is asked again.
    pub(super) fn forget_questions(&mut self) {
        if let Some(asking) = &mut self.asking {
            asking.under_way = None;
            asking.answer = None;
            asking.again_at_ms = 0;
        }
        self.alarm = Alarm::default();
    }
}
