//! What operators are told: each command in each kind of phase, in data.

use super::transitions::situations;
use crate::rollout::{Command, Done, Event, Now, Verb};

/// What each command says in each situation, or that it was done.
#[test]
fn every_refusal_says_what_to_do() {
    let verbs = [
        Verb::Promote { step: None },
        Verb::Promote { step: Some(0) },
        Verb::Promote { step: Some(7) },
        Verb::SkipStep { step: None },
        Verb::SkipStep { step: Some(0) },
        Verb::PromoteFull,
        Verb::Pause,
        Verb::Resume,
        Verb::Abort,
        Verb::Retry,
        Verb::Approve {
            gate: "chief".into(),
        },
        Verb::Approve {
            gate: "smoke".into(),
        },
    ];
    let mut text = String::new();
    for (name, rollout, now) in situations() {
        text.push_str(&format!("{name}\n"));
        for verb in &verbs {
            let mut rollout = rollout.clone();
            let what = match verb {
                Verb::Promote { step: Some(step) } | Verb::SkipStep { step: Some(step) } => {
                    format!("{} (step {})", verb.name(), step + 1)
                }
                Verb::Approve { gate } => format!("approve {gate}"),
                _ => verb.name().to_owned(),
            };
            let command = Command {
                by: "ada".into(),
                verb: verb.clone(),
            };
            let now = Now {
                mono_ms: now.mono_ms + 1,
                ..now
            };
            let before = rollout.phase().clone();
            let said = match rollout.handle(Event::Command(command), now) {
                Ok(Done::Changed) => format!("-> {}", rollout.phase()),
                Ok(Done::Already(why)) => format!("already: {why}"),
                Err(refused) => {
                    assert_eq!(rollout.phase(), &before, "nothing has changed");
                    assert!(!refused.help.is_empty());
                    format!("refused: {refused}")
                }
            };
            text.push_str(&format!("  {what}: {said}\n"));
        }
    }
    let golden = include_str!("commands.txt");
    assert!(
        text == golden,
        "tests/commands.txt is not what is said, which is:\n{text}"
    );
}
