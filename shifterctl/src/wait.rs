//! `status --wait`: until a rollout is over, or needs a person.

use std::time::Duration;

use shifter_common::wire::{RolloutOutcome, RolloutStatus, ServiceStatus};
use tokio::time::{Instant, sleep};

use crate::{
    cli::{self, Output},
    client::Client,
    failure::Failure,
    render, run, screen,
};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// How long a daemon that was there may be away: a restart takes a second or two.
const AWAY: Duration = Duration::from_secs(60);

/// Waits, and says what changes meanwhile. It ends well when the version serves.
///
/// # Errors
/// [`Failure::WentBack`], [`Failure::NeedsPerson`] or [`Failure::StillUnderWay`] by what became of
/// the rollout; a refusal; the daemon's absence.
pub async fn wait(
    client: &Client,
    output: Output,
    service: &str,
    status: &cli::Status,
) -> Result<(), Failure> {
    let began = Instant::now();
    let mut said = String::new();
    let mut seen_at: Option<Instant> = None;
    loop {
        match client.get::<ServiceStatus>(&run::path(service, "")).await {
            Ok(now) => {
                seen_at = Some(Instant::now());
                let Some(rollout) = now.rollout else {
                    return Err(Failure::NoRollout(service.to_owned()));
                };
                if rollout.detail != said {
                    screen::print(&line(output, service, &rollout)?)?;
                    said.clone_from(&rollout.detail);
                }
                if let Some(ended) = judge(service, &rollout) {
                    return ended;
                }
            }
            Err(failure @ Failure::Refused(_)) => return Err(failure),
            Err(failure) => {
                if seen_at.is_none_or(|at| at.elapsed() > AWAY) {
                    return Err(failure);
                }
            }
        }
        if let Some(timeout) = status.timeout
            && began.elapsed() >= timeout
        {
            return Err(Failure::StillUnderWay {
                service: service.to_owned(),
                detail: said,
                timeout,
            });
        }
        sleep(LOOK).await;
    }
}

/// What ends the waiting.
fn judge(service: &str, rollout: &RolloutStatus) -> Option<Result<(), Failure>> {
    // Another version follows by itself.
    if rollout.next_version.is_some() {
        return None;
    }
    match rollout.outcome {
        RolloutOutcome::UnderWay => None,
        RolloutOutcome::Succeeded => Some(Ok(())),
        RolloutOutcome::Back => Some(Err(Failure::WentBack {
            service: service.to_owned(),
            version: rollout.version.clone(),
            detail: rollout.detail.clone(),
        })),
        RolloutOutcome::WaitsForPerson => Some(Err(Failure::NeedsPerson {
            service: service.to_owned(),
            waiting_on: rollout.waiting_on.clone().unwrap_or_default(),
            command: rollout.next_command.clone().unwrap_or_default(),
        })),
    }
}

fn line(output: Output, service: &str, rollout: &RolloutStatus) -> Result<String, Failure> {
    match output {
        Output::Json => run::json(rollout),
        Output::Table | Output::Markdown => Ok(render::rollout(&screen::view(), service, rollout)),
    }
}
