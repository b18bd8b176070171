//! Request bodies about rollouts. Pure.

use serde_json::Value;

use super::body::{Field, Shape};
use crate::rollout::Label;

/// Bodies of `RolloutCommand` name one of these.
const VERBS: [&str; 10] = [
    "promote",
    "skip-step",
    "promote-full",
    "pause",
    "resume",
    "abort",
    "retry",
    "undo",
    "approve",
    "reject",
];

/// Body of `StartRollout`.
pub(super) const START: Shape = Shape {
    fields: &[
        Field {
            name: "version",
            required: true,
            right: "a label of 1 to 64 letters, digits, \".\", \"_\", \"+\" and \"-\"",
            accepts: |value| {
                value
                    .as_str()
                    .is_some_and(|text| text.parse::<Label>().is_ok())
            },
        },
        Field {
            name: "strategy",
            required: false,
            right: "the name of a strategy or a preset, or null (as the service file says)",
            accepts: |value| value.is_null() || value.is_string(),
        },
        Field {
            name: "steps",
            required: false,
            right: r#"a list of steps such as {"weight_bp": 500, "bake_ms": 60000}"#,
            accepts: Value::is_array,
        },
        Field {
            name: "bake_ms",
            required: false,
            right: "a number of milliseconds, or null",
            accepts: |value| value.is_null() || value.is_u64(),
        },
    ],
    example: r#"{"version": "3.2.0"}"#,
};

/// Body of `RolloutCommand`.
pub(super) const COMMAND: Shape = Shape {
    fields: &[
        Field {
            name: "verb",
            required: true,
            right: r#"one of "promote", "skip-step", "promote-full", "pause", "resume", "abort", "retry", "undo", "approve", "reject""#,
            accepts: |value| value.as_str().is_some_and(|verb| VERBS.contains(&verb)),
        },
        Field {
            name: "step",
            required: false,
            right: "the number of a step, from 1, or null",
            accepts: |value| {
                value.is_null()
                    || value
                        .as_u64()
                        .is_some_and(|step| (1..=1_000).contains(&step))
            },
        },
        Field {
            name: "gate",
            required: false,
            right: "the name of a gate",
            accepts: Value::is_string,
        },
    ],
    example: r#"{"verb": "promote", "step": 2}"#,
};

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use shifter_common::wire::{RolloutCommand, StartRollout, StartStep};

    use super::{super::body::decode, *};

    const JSON: Option<&[u8]> = Some(b"application/json");

    #[test]
    fn good_bodies_are_read() {
        let rows = [
            (r#"{"version": "3.2.0"}"#, None, vec![], None),
            (
                r#"{"version": "3.2.0", "strategy": "linear", "bake_ms": 7}"#,
                Some("linear".to_owned()),
                vec![],
                Some(7),
            ),
            (
                r#"{"version": "3.2.0", "steps": [{"weight_bp": 500}, {"weight_bp": 900, "bake_ms": 1, "pause": true}]}"#,
                None,
                vec![
                    StartStep {
                        weight_bp: 500,
                        ..StartStep::default()
                    },
                    StartStep {
                        weight_bp: 900,
                        bake_ms: Some(1),
                        pause: true,
                    },
                ],
                None,
            ),
        ];
        for (body, strategy, steps, bake_ms) in rows {
            let start = StartRollout {
                version: "3.2.0".into(),
                strategy,
                steps,
                bake_ms,
            };
            assert_eq!(decode(&START, JSON, body.as_bytes()), Ok(start), "{body}");
        }
        for verb in VERBS {
            let body = match verb {
                "approve" | "reject" => format!(r#"{{"verb": "{verb}", "gate": "smoke"}}"#),
                _ => format!(r#"{{"verb": "{verb}"}}"#),
            };
            let command: RolloutCommand = decode(&COMMAND, JSON, body.as_bytes()).unwrap();
            let named = command.name().replace("promote --", "");
            assert_eq!(named, verb.replace("promote-", ""), "{body}");
        }
        let command = decode(&COMMAND, JSON, br#"{"verb": "promote", "step": 2}"#);
        assert_eq!(command, Ok(RolloutCommand::Promote { step: Some(2) }));
    }

    #[test]
    fn bad_bodies_are_refused_with_the_field() {
        let rows = [
            (&START, "{}", "field `version` is missing; right is a label"),
            (
                &START,
                r#"{"version": "a b"}"#,
                "field `version` is \"a b\"; right is a label",
            ),
            (
                &START,
                r#"{"version": "1", "steps": 5}"#,
                "field `steps` is 5; right is a list of steps",
            ),
            (
                &COMMAND,
                r#"{"verb": "go"}"#,
                "field `verb` is \"go\"; right is one of",
            ),
            (
                &COMMAND,
                r#"{"verb": "promote", "step": 0}"#,
                "field `step` is 0; right is the number of a step, from 1",
            ),
            (
                &COMMAND,
                r#"{"verb": "approve"}"#,
                "the body is not right: missing field `gate`",
            ),
        ];
        for (shape, body, message) in rows {
            let refusal = if shape.fields[0].name == "version" {
                decode::<StartRollout>(shape, JSON, body.as_bytes()).unwrap_err()
            } else {
                decode::<RolloutCommand>(shape, JSON, body.as_bytes()).unwrap_err()
            };
            assert!(refusal.message.starts_with(message), "{body}: {refusal:?}");
            assert!(
                refusal.help.starts_with("a body that works: "),
                "{refusal:?}"
            );
        }
    }
}
