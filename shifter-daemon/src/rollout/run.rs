//! Decisions, disk and deeds in order.

use super::{
    event::{Done, Effect, Event},
    machine::Rollout,
    phase::PhaseKind,
    refused::Refused,
    time::Now,
};

/// Effects that one event may cause, with what follows from their results at once. No rollout needs a
/// tenth of it.
const EFFECTS_MAX_COUNT: usize = 100;

/// The outside world of a rollout.
pub trait Shell {
    /// Puts a rollout and its new transitions on disk, both or neither. When it returns they are
    /// there.
    ///
    /// # Errors
    /// Why they are not.
    fn keep(&mut self, rollout: &Rollout) -> Result<(), String>;

    /// Carries an effect out, or begins to. Returns its result, or `None` if that comes later as an
    /// event. Gates always answer later.
    fn carry_out(&mut self, effect: &Effect) -> Option<Result<(), String>>;

    /// The time.
    fn now(&mut self) -> Now;
}

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// What became of what was asked.
    pub done: Done,
    /// Why it is not on disk, if it is not. Then nothing but a rollback was carried out since, and
    /// the next event tries again.
    pub not_kept: Option<String>,
}

/// Gives a rollout an event and does what it wants done. A rollback comes before the disk, everything
/// else after it: what was decided and cannot be kept is not carried out.
///
/// # Errors
/// If a command is refused, or the disk refuses one that is no rollback; nothing has changed then.
pub fn run(rollout: &mut Rollout, event: Event, shell: &mut impl Shell) -> Result<Ran, Refused> {
    let is_command = matches!(event, Event::Command(_));
    let mut before = is_command.then(|| rollout.clone());
    let now = shell.now();
    let done = rollout.handle(event, now)?;
    let mut is_taken_back = false;
    for _ in 0..EFFECTS_MAX_COUNT {
        if let Some(effect) = rollout.poll_urgent() {
            is_taken_back = true;
            answer(rollout, &effect, shell)?;
            continue;
        }
        if let Err(why) = shell.keep(rollout) {
            let is_back = is_taken_back || rollout.phase().kind() == PhaseKind::RollingBack;
            if let Some(before) = before.filter(|_| !is_back) {
                *rollout = before;
                return Err(Refused::new(
                    format!("the decision cannot be kept ({why}), and nothing was changed"),
                    "free space or mend the state directory, then try again",
                ));
            }
            return Ok(Ran {
                done,
                not_kept: Some(why),
            });
        }
        rollout.forget_transitions();
        // It is kept: what fails from here on takes it back no more.
        before = None;
        match rollout.poll_effect() {
            Some(effect) => answer(rollout, &effect, shell)?,
            None => break,
        }
    }
    Ok(Ran {
        done,
        not_kept: None,
    })
}

fn answer(rollout: &mut Rollout, effect: &Effect, shell: &mut impl Shell) -> Result<(), Refused> {
    if let Some(result) = shell.carry_out(effect) {
        let id = effect.id;
        let now = shell.now();
        rollout.handle(Event::EffectDone { id, result }, now)?;
    }
    Ok(())
}
