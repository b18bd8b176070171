//! Weights changed under load: when a change is in effect, and what it costs.

use std::time::{Duration, Instant};

use super::{
    opener::{Flow, Opened, Opener},
    results::{Change, ChangeRow},
    spread::Spread,
    way::{Setup, Way},
};

/// Changes that a way makes in a turn.
const TURN_CHANGES: usize = 60;
/// Load before the first change of a turn.
const LEAD: Duration = Duration::from_millis(100);

/// One change.
#[derive(Clone, Copy, Debug)]
struct Moved {
    /// When the command was given.
    issued: Instant,
    /// When it returned.
    returned: Instant,
    /// The version that gets everything from then on.
    to: usize,
}

/// What a change did.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Effect {
    command_us: f64,
    last_on_old_us: f64,
    wrong_after_return: u64,
}

/// Changes all weights of each way so many times, in turns. `progress` hears of every turn.
///
/// # Panics
/// If a way cannot be set up or refuses a change.
pub fn measure(ways: &[Way], changes: usize, mut progress: impl FnMut(&str)) -> Change {
    let setups: Vec<Setup> = ways
        .iter()
        .map(|way| {
            progress(&format!("setting up {}", way.name()));
            Setup::new(*way)
        })
        .collect();
    let mut effects: Vec<Vec<Effect>> = vec![Vec::new(); ways.len()];
    let mut opened: Vec<Opened> = vec![Opened::default(); ways.len()];
    let mut counts: Vec<u64> = vec![0; ways.len()];
    let turns = changes.div_ceil(TURN_CHANGES);
    for turn in 0..turns {
        let count = TURN_CHANGES.min(changes - turn * TURN_CHANGES);
        for (nth, setup) in setups.iter().enumerate() {
            progress(&format!(
                "changes, turn {} of {turns}: {}",
                turn + 1,
                setup.way().name()
            ));
            let (moves, mut seen) = take_turn(setup, count);
            effects[nth].extend(judge(&moves, &seen.flows));
            counts[nth] += seen.flows.len() as u64 + seen.failed;
            // They are judged; only failures are still wanted.
            seen.flows.clear();
            opened[nth].merge(seen);
        }
    }
    let rows = ways.iter().enumerate();
    let rows = rows.map(|(nth, way)| row(*way, &effects[nth], counts[nth], &opened[nth]));
    Change {
        rows: rows.collect(),
    }
}

/// A turn begins and ends with everything at version a.
fn take_turn(setup: &Setup, count: usize) -> (Vec<Moved>, Opened) {
    let opener = Opener::start(&setup.client(), setup.target());
    std::thread::sleep(LEAD);
    let interval = setup.way().change_interval();
    let mut moves = Vec::with_capacity(count);
    for nth in 0..count.next_multiple_of(2) {
        let to = (nth + 1) % 2;
        let issued = Instant::now();
        setup.send_to(to);
        let returned = Instant::now();
        moves.push(Moved {
            issued,
            returned,
            to,
        });
        std::thread::sleep(interval.saturating_sub(issued.elapsed()));
    }
    (moves, opener.end())
}

/// What each change did to the connections that began between it and the next one.
fn judge(moves: &[Moved], flows: &[Flow]) -> Vec<Effect> {
    let mut effects: Vec<Effect> = moves
        .iter()
        .map(|moved| Effect {
            command_us: us(moved.returned - moved.issued),
            last_on_old_us: 0.0,
            wrong_after_return: 0,
        })
        .collect();
    for flow in flows {
        let Some(nth) = moves
            .partition_point(|moved| moved.issued <= flow.begun)
            .checked_sub(1)
        else {
            // Before the first change.
            continue;
        };
        let (moved, effect) = (&moves[nth], &mut effects[nth]);
        // One that was still under way at the next change may have been selected after it.
        let is_certain = moves
            .get(nth + 1)
            .is_none_or(|next| flow.ended < next.issued);
        if flow.version != moved.to && is_certain {
            let after = us(flow.begun - moved.issued);
            effect.last_on_old_us = effect.last_on_old_us.max(after);
            effect.wrong_after_return += u64::from(flow.begun > moved.returned);
        }
    }
    effects
}

fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn row(way: Way, effects: &[Effect], connections: u64, opened: &Opened) -> ChangeRow {
    let spread = |of: fn(&Effect) -> f64| Spread::of(effects.iter().map(of)).unwrap_or_default();
    ChangeRow {
        way: way.name().to_owned(),
        changes: effects.len() as u64,
        connections,
        failed: opened.failed,
        failures: opened.failures.clone(),
        command_us: spread(|effect| effect.command_us),
        last_on_old_us: spread(|effect| effect.last_on_old_us),
        wrong_after_return: effects.iter().map(|effect| effect.wrong_after_return).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_belong_to_the_change_before_them() {
        let start = Instant::now();
        let at = |us: u64| start + Duration::from_micros(us);
        let moved = |issued: u64, returned: u64, to| Moved {
            issued: at(issued),
            returned: at(returned),
            to,
        };
        let moves = [
            moved(100, 150, 1),
            moved(1_000, 1_200, 0),
            moved(2_000, 2_001, 1),
        ];
        let flow = |us, version| Flow {
            begun: at(us),
            ended: at(us + 20),
            version,
        };
        let flows = [
            // Before the first change nothing is wrong.
            flow(50, 0),
            // Within the command: late, but not wrong.
            flow(140, 0),
            flow(130, 0),
            flow(160, 1),
            // After the command had returned: wrong, twice.
            flow(1_250, 1),
            flow(1_300, 1),
            flow(1_100, 0),
            // Begun before the third change and under way when it came: it may belong to either.
            flow(1_990, 1),
            flow(2_000, 1),
        ];
        let effect = |command_us, last_on_old_us, wrong_after_return| Effect {
            command_us,
            last_on_old_us,
            wrong_after_return,
        };
        let round = |effects: Vec<Effect>| -> Vec<Effect> {
            let clean = |x: f64| (x * 10.0).round() / 10.0;
            let one = |e: Effect| Effect {
                command_us: clean(e.command_us),
                last_on_old_us: clean(e.last_on_old_us),
                ..e
            };
            effects.into_iter().map(one).collect()
        };
        assert_eq!(
            round(judge(&moves, &flows)),
            [
                effect(50.0, 40.0, 0),
                effect(200.0, 300.0, 2),
                effect(1.0, 0.0, 0)
            ]
        );
        let opened = Opened {
            failed: 1,
            failures: vec!["connecting: no".into()],
            ..Opened::default()
        };
        let row = row(Way::Nftables, &judge(&moves, &flows), 9, &opened);
        assert_eq!((row.changes, row.connections, row.failed), (3, 9, 1));
        assert_eq!(row.wrong_after_return, 2);
        assert_eq!(row.failures, ["connecting: no"]);
        assert!((row.command_us.median - 50.0).abs() < 0.1);
    }
}
