//! From a command to a request, and from the answer to the screen.

use clap::CommandFactory;
use serde::Serialize;
use shifter_common::wire::{
    ApplyReport, Bypass, Changed, DeploymentRecord, Detach, Detached, Drain, Effect, Flows,
    History, PlannedRollout, Rollback, RolloutCommand, RolloutReply, ServiceStatus, SetWeight,
    StartRollout, Status,
};

use crate::{
    audit,
    cli::{self, Arguments, Command, Output},
    client::{Client, segment},
    failure::Failure,
    render::{self, View},
    screen, shifterd, wait, watch,
};

/// Does what the command line says.
///
/// # Errors
/// Why it was not done.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments {
        output,
        socket,
        request_timeout,
        command,
    } = arguments;
    let for_terminal = output != Output::Json;
    let client = Client {
        socket,
        within: request_timeout,
        for_terminal,
    };
    let result = execute(&client, output, command).await;
    if let (Output::Json, Err(Failure::Refused(refusal))) = (output, &result) {
        screen::print(&json(refusal)?)?;
    }
    result
}

async fn execute(client: &Client, output: Output, command: Command) -> Result<(), Failure> {
    match command {
        Command::Status(status) if status.watch => watch::watch(client, output, &status).await,
        Command::Status(
            status @ cli::Status {
                wait: true,
                service: Some(_),
                ..
            },
        ) => {
            let service = status.service.clone().unwrap_or_default();
            wait::wait(client, output, &service, &status).await
        }
        Command::Status(status) => show_status(client, output, &status).await,
        Command::Apply => apply(client, output).await,
        Command::SetWeight { service, weight_bp } => {
            let changed: Changed = client
                .post(&path(&service, "/weight"), &SetWeight { weight_bp })
                .await?;
            put(output, &changed, |view| render::changed(view, &changed))
        }
        Command::Rollback {
            service,
            established,
        } => {
            let changed: Changed = client
                .post(&path(&service, "/rollback"), &Rollback { established })
                .await?;
            put(output, &changed, |view| render::changed(view, &changed))
        }
        Command::Start(start) => {
            let body = StartRollout {
                version: start.version,
                strategy: start.strategy,
                steps: start.steps.unwrap_or_default().0,
                bake_ms: start.bake.map(|bake| bake.as_millis() as u64),
            };
            let reply: RolloutReply = client
                .post(&path(&start.service, "/rollout"), &body)
                .await?;
            put(output, &reply, |view| render::replied(view, &reply))
        }
        Command::Promote {
            service,
            skip_step,
            full,
            step,
        } => {
            let command = match (full, skip_step) {
                (true, _) => RolloutCommand::PromoteFull,
                (false, true) => RolloutCommand::SkipStep { step },
                (false, false) => RolloutCommand::Promote { step },
            };
            move_rollout(client, output, &service, command).await
        }
        Command::Pause { service } => {
            move_rollout(client, output, &service, RolloutCommand::Pause).await
        }
        Command::Resume { service } => {
            move_rollout(client, output, &service, RolloutCommand::Resume).await
        }
        Command::Abort { service } => {
            move_rollout(client, output, &service, RolloutCommand::Abort).await
        }
        Command::Retry { service } => {
            move_rollout(client, output, &service, RolloutCommand::Retry).await
        }
        Command::Undo { service } => {
            move_rollout(client, output, &service, RolloutCommand::Undo).await
        }
        Command::Approve { service, gate } => {
            move_rollout(client, output, &service, RolloutCommand::Approve { gate }).await
        }
        Command::Reject { service, gate } => {
            move_rollout(client, output, &service, RolloutCommand::Reject { gate }).await
        }
        Command::Drain {
            service,
            slot,
            undo,
        } => {
            let changed: Changed = client
                .post(&path(&service, "/drain"), &Drain { slot, undo })
                .await?;
            put(output, &changed, |view| {
                render::drained(view, &changed, slot, undo)
            })
        }
        Command::Bypass {
            service: Some(service),
            undo,
            ..
        } => {
            let changed = bypass(client, &service, undo).await?;
            put(output, &changed, |view| {
                render::bypassed(view, &changed, undo)
            })
        }
        Command::Bypass {
            service: None,
            undo,
            ..
        } => bypass_all(client, output, undo).await,
        Command::Flows { service, limit } => {
            let query = format!("/flows?limit={limit}");
            let flows: Flows = client.get(&path(&service, &query)).await?;
            put(output, &flows, |view| render::flows(view, &service, &flows))
        }
        Command::Explain { service } => {
            let service: ServiceStatus = client.get(&path(&service, "")).await?;
            put(output, &service.breaker, |view| {
                render::explain(view, &service)
            })
        }
        Command::Plan { service, version } => {
            let rest = format!("/plan/{}", segment(&version));
            let plan: PlannedRollout = client.get(&path(&service, &rest)).await?;
            put(output, &plan, |view| render::plan(view, &plan))
        }
        Command::History {
            service,
            record: None,
        } => {
            let history: History = client.get(&path(&service, "/history")).await?;
            put(output, &history, |view| render::history(view, &history))
        }
        Command::History {
            service,
            record: Some(id),
        } => {
            let record: DeploymentRecord = client
                .get(&path(&service, &format!("/history/{id}")))
                .await?;
            if output == Output::Markdown {
                return screen::print(&render::deployment_markdown(&screen::view(), &record));
            }
            put(output, &record, |view| render::deployment(view, &record))
        }
        Command::Audit(command) => audit::audit(client, output, command).await,
        Command::Detach { force } => {
            let detached: Detached = client.post("/v1/detach", &Detach { force }).await?;
            put(output, &detached, |_| render::detached(&detached))
        }
        Command::Lint { paths } => shifterd::lint(&paths, output).await,
        Command::Doctor { config } => shifterd::doctor(config.as_deref(), output).await,
        Command::Completion { shell } => {
            let mut script = Vec::new();
            let mut command = Arguments::command();
            clap_complete::generate(shell, &mut command, "shifterctl", &mut script);
            screen::print(&String::from_utf8_lossy(&script))
        }
    }
}

async fn move_rollout(
    client: &Client,
    output: Output,
    service: &str,
    command: RolloutCommand,
) -> Result<(), Failure> {
    let reply: RolloutReply = client
        .post(&path(service, "/rollout/command"), &command)
        .await?;
    put(output, &reply, |view| render::replied(view, &reply))
}

async fn bypass(client: &Client, service: &str, undo: bool) -> Result<Changed, Failure> {
    client
        .post(&path(service, "/bypass"), &Bypass { undo })
        .await
}

/// One that is refused does not keep the others; it is the failure in the end.
async fn bypass_all(client: &Client, output: Output, undo: bool) -> Result<(), Failure> {
    let status: Status = client.get("/v1/status").await?;
    let mut done = Vec::new();
    let mut failure = None;
    for service in status.services {
        match bypass(client, &service.name, undo).await {
            Ok(changed) => done.push(changed),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    if failure.is_none() || !done.is_empty() {
        put(output, &done, |view| {
            done.iter()
                .map(|changed| render::bypassed(view, changed, undo))
                .collect()
        })?;
    }
    failure.map_or(Ok(()), Err)
}

async fn show_status(client: &Client, output: Output, status: &cli::Status) -> Result<(), Failure> {
    match (&status.service, output) {
        (Some(service), Output::Json) => {
            let service: ServiceStatus = client.get(&path(service, "")).await?;
            screen::print(&json(&service)?)
        }
        (service, _) => {
            let status = fetch(client, service.as_deref()).await?;
            put(output, &status, |view| {
                render::status(view, &status, service.as_deref(), None)
            })
        }
    }
}

/// The whole status, after making sure that the service exists, if one is named.
///
/// # Errors
/// As [`Client::get`]; the daemon's refusal if there is no such service.
pub async fn fetch(client: &Client, service: Option<&str>) -> Result<Status, Failure> {
    let status: Status = client.get("/v1/status").await?;
    if let Some(name) = service
        && !status.services.iter().any(|service| service.name == name)
    {
        // The daemon knows best how to say that it does not know it.
        let _: ServiceStatus = client.get(&path(name, "")).await?;
    }
    Ok(status)
}

async fn apply(client: &Client, output: Output) -> Result<(), Failure> {
    let report: ApplyReport = client.post("/v1/apply", &serde_json::Map::new()).await?;
    put(output, &report, |view| render::apply(view, &report))?;
    let refused_count = report
        .changes
        .iter()
        .filter(|change| change.effect == Effect::Refused)
        .count();
    let problems_count = report.diagnostics.len();
    if refused_count + problems_count == 0 {
        return Ok(());
    }
    screen::complain(|view| render::apply_problems(view, &report));
    Err(Failure::NotAllApplied {
        refused_count,
        problems_count,
    })
}

/// Path of a service, and what of it.
pub fn path(service: &str, rest: &str) -> String {
    format!("/v1/services/{}{rest}", segment(service))
}

/// Prints a value as it was asked for.
///
/// # Errors
/// As [`screen::print`].
pub fn put(
    output: Output,
    value: &impl Serialize,
    table: impl FnOnce(&View) -> String,
) -> Result<(), Failure> {
    match output {
        // There is no document of most values: the command line refuses to ask for one.
        Output::Table | Output::Markdown => screen::print(&table(&screen::view())),
        Output::Json => screen::print(&json(value)?),
    }
}

/// A wire type as JSON for people and programs.
///
/// # Errors
/// None that a wire type can cause.
pub fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|error| Failure::Io {
            what: "write JSON",
            error: error.into(),
        })
}
