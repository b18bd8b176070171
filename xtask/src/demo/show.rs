//! The demo itself: what happens when, and what is said about it.

use std::{
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::sys::stat::{Mode, umask};
use shifter_common::wire::{Event, Slot};

use super::{
    Choice,
    daemon::{self, Daemon, SERVICE},
    load::{Line, Load, Window},
    network::Network,
    painter::Painter,
    place::{self, Place},
    scenery,
    score::{Late, Score},
    server::{Server, Version},
    table::{self, Frame, Summary, percent},
};
use crate::interrupt;

/// The weights of a shift as it should be, basis points.
const WEIGHTS_BP: [u16; 4] = [0, 500, 2_500, 10_000];
/// The weight at which the new version fails.
const FAILING_BP: u16 = 2_500;
/// The slots' parts: the new version is in slot b.
const SECOND_SLOT: Slot = Slot::B;
/// How long a second of the load may take to be told.
const SECOND_LIMIT: Duration = Duration::from_secs(10);
/// How long shifterd may take to see that a version is not ready.
const NOTICE_LIMIT: Duration = Duration::from_secs(20);
/// How often shifterd is asked meanwhile.
const NOTICE_LOOK: Duration = Duration::from_millis(100);
/// Exit code after an interrupt, as a shell has it for Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Shows the binaries in a directory, each weight for a number of seconds, and leaves the machine
/// as it was.
///
/// # Errors
/// Something does not start, ends early, does not answer, or cannot be removed.
pub fn run(binaries: &Path, choice: Choice) -> anyhow::Result<ExitCode> {
    // shifterd refuses files that others than root could write.
    umask(Mode::from_bits_truncate(0o022));
    let mut painter = Painter::new();
    for pid in place::clear_leftovers() {
        painter.say(&[format!(
            "removed what a demo that was killed left behind (process {pid})"
        )])?;
    }
    let place = Place::claim()?;
    let shown = show(&place, binaries, choice, &mut painter);
    let removed = place.remove();
    let failed_count = match (shown, removed) {
        (Ok(failed_count), Ok(())) => failed_count,
        (Err(_), Ok(())) if interrupt::requested() => {
            painter.say(&["interrupted; everything the demo made is removed".to_owned()])?;
            return Ok(ExitCode::from(INTERRUPTED));
        }
        (Err(error), Ok(())) | (Ok(_), Err(error)) => return Err(error),
        (Err(error), Err(left)) => return Err(error.context(format!("{left:#}"))),
    };
    painter.say(&["machine   as it was: everything the demo made is removed".to_owned()])?;
    if failed_count > 0 {
        bail!("{failed_count} requests failed; none should");
    }
    Ok(ExitCode::SUCCESS)
}

/// Everything that runs. What clients need least ends first.
struct Show<'a> {
    load: Load,
    daemon: Daemon,
    second: Server,
    first: Server,
    painter: &'a mut Painter,
    seconds: u32,
    /// Seconds of load so far.
    elapsed_s: u64,
    failed_count: u64,
    scores: Vec<Score>,
}

/// Builds everything in `place`, shows it and ends it; returns how many requests failed.
fn show(
    place: &Place,
    binaries: &Path,
    choice: Choice,
    painter: &mut Painter,
) -> anyhow::Result<u64> {
    let network = Network::new(place)?;
    let first = Server::start(place, &network, Version::First)?;
    let second = Server::start(place, &network, Version::Second)?;
    let daemon = Daemon::start(place, &network, binaries, choice.plane)?;
    painter.say(&scenery::introduction(
        choice.plane,
        daemon.hook()?.as_deref(),
        daemon.socket(),
        daemon.shifterctl_path(),
    ))?;
    let load = Load::start(place, &network, binaries)?;
    let mut show = Show {
        load,
        daemon,
        second,
        first,
        painter,
        seconds: choice.seconds,
        elapsed_s: 0,
        failed_count: 0,
        scores: Vec::new(),
    };
    show.shift()?;
    let event = show.fail()?;
    show.close(&event)
}

impl Show<'_> {
    /// A shift as it should be: from none to all.
    fn shift(&mut self) -> anyhow::Result<()> {
        let mut before = None;
        for weight_bp in WEIGHTS_BP {
            if before.is_some() {
                self.set_weight(weight_bp)?;
            }
            before = Some(weight_bp);
            self.scores.push(Score::new(weight_bp, ""));
            // Nothing changed at the beginning: the first second counts.
            self.hold(weight_bp == 0)?;
        }
        Ok(())
    }

    /// The new version fails, and nobody but shifterd does anything about it.
    fn fail(&mut self) -> anyhow::Result<Event> {
        self.set_weight(FAILING_BP)?;
        self.scores.push(Score::new(FAILING_BP, ""));
        self.hold(false)?;
        let status = self.daemon.status()?;
        let last_seq = status.events.last().map_or(0, |event| event.seq);
        let marker = self.second.fail_readiness()?;
        let begun = Instant::now();
        self.painter.say(&scenery::failing(&marker))?;
        let (event, noticed) = self.wait_for_event(last_seq, begun)?;
        let mut lines = vec![String::new()];
        lines.extend(table::taken_out(
            &event,
            noticed.as_millis(),
            self.painter.ink(),
        ));
        self.painter.say(&lines)?;
        self.scores
            .push(Score::new(FAILING_BP, "version 2 not ready"));
        self.hold(false)?;
        Ok(event)
    }

    /// Waits until shifterd tells that it took the new version out; seconds that pass meanwhile
    /// are shown.
    fn wait_for_event(
        &mut self,
        last_seq: u64,
        begun: Instant,
    ) -> anyhow::Result<(Event, Duration)> {
        loop {
            let status = self.daemon.status()?;
            if let Some(event) = daemon::taken_out(&status, SECOND_SLOT, last_seq) {
                return Ok((event.clone(), begun.elapsed()));
            }
            if begun.elapsed() > NOTICE_LIMIT {
                bail!(
                    "shifterd did not take version 2 out although it is not ready for {}{}",
                    crate::screen::seconds(begun.elapsed()),
                    self.daemon.child.tail()
                );
            }
            if let Some(Line::Interval(window)) = self.load.line(NOTICE_LOOK)? {
                self.draw(&window, false)?;
            }
        }
    }

    /// Sets the weight with the real command, and shows it.
    fn set_weight(&mut self, weight_bp: u16) -> anyhow::Result<()> {
        let weight = percent(weight_bp).replace(' ', "");
        let words = ["set-weight", SERVICE, &weight];
        let said = self.daemon.shifterctl(&words)?;
        let mut lines = vec![String::new(), format!("$ shifterctl {}", words.join(" "))];
        lines.extend(said.out.lines().map(str::to_owned));
        self.painter.keep();
        self.painter.say(&lines)
    }

    /// Shows the last score for its seconds. The first second belongs to two weights, unless
    /// `whole` says otherwise: it is shown, but not counted.
    fn hold(&mut self, whole: bool) -> anyhow::Result<()> {
        if !whole {
            self.next_second(false)?;
        }
        for _ in 0..self.seconds {
            self.next_second(true)?;
        }
        self.painter.keep();
        Ok(())
    }

    /// Waits for the next second of the load and shows it.
    fn next_second(&mut self, counted: bool) -> anyhow::Result<()> {
        self.daemon.child.check()?;
        self.first.child.check()?;
        self.second.child.check()?;
        match self.load.line(SECOND_LIMIT)? {
            Some(Line::Interval(window)) => self.draw(&window, counted),
            Some(Line::Summary(_)) => bail!("the load ended early{}", self.load.child.tail()),
            None => bail!(
                "the load client says nothing any more{}",
                self.load.child.tail()
            ),
        }
    }

    fn draw(&mut self, window: &Window, counted: bool) -> anyhow::Result<()> {
        if window.answered == [0, 0] {
            let examples = window.examples.join("\n  ");
            bail!(
                "no request was answered for a second\n  {examples}\nshifterd runs{}",
                self.daemon.child.tail()
            );
        }
        self.elapsed_s += 1;
        self.failed_count += window.failed_count;
        let score = self
            .scores
            .last_mut()
            .context("a second before the first weight")?;
        if counted {
            score.count(window);
        }
        let frame = Frame {
            second: self.elapsed_s,
            score,
            window,
            failed_count: self.failed_count,
        };
        self.painter.frame(&frame)
    }

    /// Ends the load and sums up.
    fn close(mut self, event: &Event) -> anyhow::Result<u64> {
        let all = self.load.finish()?;
        let accepted = self.second.accepted().context("version 2 kept no log")?;
        let late = Late::of(&accepted, event.unix_ms);
        let summary = Summary {
            scores: &self.scores,
            event,
            late,
            all: &all,
        };
        let mut lines = vec![String::new()];
        lines.extend(table::summary(&summary, self.painter.ink()));
        self.painter.say(&lines)?;
        Ok(all.failed_count)
    }
}
