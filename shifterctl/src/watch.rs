//! `status --watch`: the same block again and again.

use std::time::Duration;

use shifter_common::wire::Status;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    cli::{self, Output},
    client::Client,
    failure::Failure,
    render::{self, WIDTH},
    run, screen,
};

/// Shows the status at each tick until Ctrl-C. On a terminal each block replaces the one before;
/// elsewhere they follow each other. Once it has been seen, a daemon that goes away is waited for:
/// that is what one watches during a restart.
///
/// # Errors
/// The first request's failure, a refusal, or a standard output that is gone.
pub async fn watch(client: &Client, output: Output, status: &cli::Status) -> Result<(), Failure> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| Failure::Io {
        what: "catch Ctrl-C",
        error,
    })?;
    tokio::select! {
        ended = tick(client, output, status) => ended,
        _ = interrupt.recv() => Ok(()),
    }
}

async fn tick(client: &Client, output: Output, status: &cli::Status) -> Result<(), Failure> {
    let only = status.service.as_deref();
    let mut ticks = interval(status.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before: Option<(Status, Instant)> = None;
    loop {
        ticks.tick().await;
        let block = match run::fetch(client, only).await {
            Ok(now) => {
                let block = match output {
                    Output::Json => json_line(&now, only)?,
                    Output::Table | Output::Markdown => {
                        table(&now, only, before.as_ref(), status.interval)
                    }
                };
                before = Some((now, Instant::now()));
                block
            }
            Err(failure) if before.is_none() || matches!(failure, Failure::Refused(_)) => {
                return Err(failure);
            }
            Err(failure) => {
                if output == Output::Json || screen::rows().is_none() {
                    screen::error(&failure);
                    continue;
                }
                let waiting = "it is asked again; Ctrl-C ends";
                let help = format!("{}\n{waiting}", failure.help());
                render::problem(&screen::view(), &failure.to_string(), &help)
            }
        };
        match screen::rows() {
            Some(rows) if output == Output::Table => screen::print(&redraw(&block, rows))?,
            _ => screen::print(&block)?,
        }
    }
}

fn table(
    now: &Status,
    only: Option<&str>,
    before: Option<&(Status, Instant)>,
    every: Duration,
) -> String {
    let view = screen::view();
    let time = view.time(view.now_unix_ms);
    let shares = match before {
        Some((_, at)) => format!("shares of the last {:.1} s", at.elapsed().as_secs_f64()),
        None => "shares since the first use".into(),
    };
    let title = format!("{time}, every {every:?}, {shares}; Ctrl-C ends");
    let block = render::status(&view, now, only, before.map(|(status, _)| status));
    let title: String = title.chars().take(WIDTH).collect();
    format!("{title}\n{block}\n")
}

/// One line for each tick, so that a program can read them one by one.
fn json_line(now: &Status, only: Option<&str>) -> Result<String, Failure> {
    let line = match only.and_then(|only| now.services.iter().find(|s| s.name == only)) {
        Some(service) => serde_json::to_string(service),
        None => serde_json::to_string(now),
    };
    line.map(|line| line + "\n").map_err(|error| Failure::Io {
        what: "write JSON",
        error: error.into(),
    })
}

/// A block in place of the one before: from the top, each line cleared, and what is below as well.
/// A line is cleared before it is written: after a full line, terminals would take its last
/// character along. A block that is taller than the screen would scroll it, so it is cut.
fn redraw(block: &str, rows: usize) -> String {
    let lines: Vec<_> = block.trim_end().lines().collect();
    let shown = if lines.len() < rows {
        lines.len()
    } else {
        rows.saturating_sub(2)
    };
    let mut out = "\u{1b}[H".to_owned();
    for line in &lines[..shown] {
        out += &format!("\u{1b}[K{line}\n");
    }
    if shown < lines.len() {
        out += &format!("\u{1b}[K... {} more lines\n", lines.len() - shown);
    }
    out + "\u{1b}[J"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_replaces_the_one_before() {
        assert_eq!(
            redraw("a\nb\n\n", 24),
            "\u{1b}[H\u{1b}[Ka\n\u{1b}[Kb\n\u{1b}[J"
        );
    }

    #[test]
    fn a_tall_block_is_cut_to_the_screen() {
        let block: String = (0..10).map(|n| format!("{n}\n")).collect();
        let rows = |rows| redraw(&block, rows).matches('\n').count();
        assert_eq!(rows(11), 10);
        assert_eq!(rows(10), 9);
        assert!(redraw(&block, 5).ends_with("\u{1b}[K2\n\u{1b}[K... 7 more lines\n\u{1b}[J"));
        assert_eq!(rows(1), 1);
    }
}
