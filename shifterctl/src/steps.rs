//! The steps of a rollout as people write them.

use shifter_common::wire::StartStep;

use crate::{interval, percent};

const RIGHT: &str = "help: write 5:5m,20:10m,pause,50:10m";

/// Steps: percentages with how long each is held, `pause` after one whose end a person decides.
/// Everything follows the last one by itself.
///
/// # Errors
/// What is wrong and, on a line that starts with `help:`, what would be right.
pub fn parse(text: &str) -> Result<Vec<StartStep>, String> {
    let mut steps: Vec<StartStep> = Vec::new();
    for part in text.split(',').map(str::trim) {
        if part == "pause" {
            let before = steps.last_mut();
            let before = before.ok_or_else(|| format!("a pause before the first step\n{RIGHT}"))?;
            before.pause = true;
            continue;
        }
        let (weight, bake) = match part.split_once(':') {
            Some((weight, bake)) => (weight, Some(bake)),
            None => (part, None),
        };
        let weight_bp = percent::parse(weight)?;
        if weight_bp == 0 || weight_bp >= 10_000 {
            return Err(format!(
                "a step of {}\nhelp: a step takes 0.01 % to 99.99 %; everything follows the last one",
                percent::of_bp(weight_bp)
            ));
        }
        let bake_ms = bake.map(interval::parse).transpose()?;
        steps.push(StartStep {
            weight_bp,
            bake_ms: bake_ms.map(|bake| bake.as_millis() as u64),
            pause: false,
        });
    }
    Ok(steps)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    #[test]
    fn steps_have_percentages_and_times() {
        let step = |weight_bp, bake_ms, pause| StartStep {
            weight_bp,
            bake_ms,
            pause,
        };
        let rows = [
            ("5", vec![step(500, None, false)]),
            (
                "5:5m, 20%:90s,pause,50",
                vec![
                    step(500, Some(300_000), false),
                    step(2_000, Some(90_000), true),
                    step(5_000, None, false),
                ],
            ),
        ];
        for (text, steps) in rows {
            assert_eq!(parse(text).unwrap(), steps, "{text}");
        }
        let rows = [
            ("pause,5", "a pause before the first step"),
            ("", "not a percentage"),
            ("5,,7", "not a percentage"),
            ("0", "a step of 0 %"),
            ("5,100:1h", "a step of 100 %"),
            ("5:soon", "not a time"),
        ];
        for (text, problem) in rows {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(problem), "{text}: {error}");
            assert!(error.contains("\nhelp: "), "{text}: {error}");
        }
    }
}
