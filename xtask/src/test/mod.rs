//! `cargo xtask test`: all stages, and one line at the end.

mod libtest;
mod licences;
mod need;
mod report;
mod stage;
mod work;

use std::{fs, process::ExitCode, time::Instant};

use need::Provisions;
use report::Report;
use stage::{STAGES, Stage};

use crate::{
    screen::{self, Mark},
    workspace::Workspace,
};

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Do not count this as failed if it cannot run here: a stage, or a test by its path.
    #[arg(long, value_name = "NAME")]
    allow_skip: Vec<String>,
    /// Run this stage only; may be given more than once.
    #[arg(long = "stage", value_name = "NAME", value_parser = stage_name)]
    stages: Vec<&'static Stage>,
    /// List the stages and run nothing.
    #[arg(long)]
    list: bool,
}

fn stage_name(name: &str) -> Result<&'static Stage, String> {
    stage::find(name).ok_or_else(|| format!("there is no such stage; there are {}", stage::names()))
}

/// Runs `cargo xtask test`. The exit code is 0 if something passed and nothing failed.
///
/// # Errors
/// An interrupt came.
pub fn run(arguments: &Arguments, workspace: &Workspace) -> anyhow::Result<ExitCode> {
    if arguments.list {
        list();
        return Ok(ExitCode::SUCCESS);
    }
    let chosen: Vec<&Stage> = STAGES
        .iter()
        .filter(|stage| {
            arguments.stages.is_empty() || arguments.stages.iter().any(|one| one.name == stage.name)
        })
        .collect();
    let mut provisions = Provisions::new(workspace);
    screen::heading("What the stages need");
    provisions.prepare(&chosen);
    screen::heading("Stages");
    let mut reports = Vec::new();
    for stage in chosen {
        reports.push(run_stage(
            workspace,
            stage,
            &mut provisions,
            &arguments.allow_skip,
        )?);
    }
    Ok(conclude(&reports, &arguments.allow_skip))
}

fn list() {
    for stage in STAGES {
        let fact = format!("{} (at most {} s)", stage.about, stage.budget_s);
        screen::line(Mark::Good, stage.name, &fact);
    }
}

fn run_stage(
    workspace: &Workspace,
    stage: &Stage,
    provisions: &mut Provisions<'_>,
    allowed: &[String],
) -> anyhow::Result<Report> {
    let begun = Instant::now();
    let log = workspace.log(stage.name);
    // What an earlier run left must be neither counted nor read as this run's.
    let _ = fs::remove_file(&log);
    let report = match provisions.obstacle(stage) {
        Some(reason) => Report::obstructed(stage.name, &reason, allowed),
        None => work::run(workspace, stage, provisions, allowed)?,
    };
    if crate::interrupt::requested() {
        anyhow::bail!("interrupted during {}", stage.name);
    }
    let mark = if report.failures.is_empty() {
        Mark::Good
    } else {
        Mark::Bad
    };
    let time = report::time(begun.elapsed(), stage.budget());
    screen::line(mark, stage.name, &format!("{}; {time}", report.numbers()));
    for failure in &report.failures {
        screen::line(
            Mark::Bad,
            "  failed",
            &format!("{}: {}", failure.name, failure.reason),
        );
        screen::excerpt(&failure.output, report::OUTPUT_LINES);
    }
    if !report.failures.is_empty() && log.exists() {
        screen::line(Mark::Bad, "  log", &workspace.relative(&log).to_string());
    }
    Ok(report)
}

/// Says what was skipped, and closes with the numbers, alone on their line.
fn conclude(reports: &[Report], allowed: &[String]) -> ExitCode {
    let skips: Vec<_> = reports.iter().flat_map(|report| &report.skips).collect();
    for skip in &skips {
        screen::line(
            Mark::Change,
            "skipped",
            &format!("{}: {}", skip.name, skip.reason),
        );
    }
    for name in allowed {
        if stage::find(name).is_none() && !skips.iter().any(|skip| skip.name == *name) {
            let fact = format!("--allow-skip {name} had no effect: no such test was skipped");
            screen::line(Mark::Change, "note", &fact);
        }
    }
    let passed_count = reports.iter().map(|report| report.passed_count).sum();
    let failed_count = reports.iter().map(|report| report.failures.len()).sum();
    println!(
        "{}",
        report::numbers(passed_count, failed_count, skips.len())
    );
    if failed_count == 0 && passed_count > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests {
    use super::{report::Complaint, *};

    #[test]
    fn an_unknown_stage_is_answered_with_the_known_ones() {
        let expected = "there is no such stage; there are fmt, deny, ebpf, clippy, unit, kernel, e2e, \
             socket, rollout, systemd";
        assert_eq!(stage_name("uint").expect_err("no stage"), expected);
        assert_eq!(stage_name("unit").expect("a stage").name, "unit");
    }

    #[test]
    fn only_passes_without_failures_succeed() {
        let failed = || Report::failed(Complaint::new("a", "b"));
        let skipped = Report::obstructed("e2e", "no root", &["e2e".to_owned()]);
        let rows = [
            (vec![], ExitCode::FAILURE),
            (vec![skipped.clone()], ExitCode::FAILURE),
            (vec![Report::passed()], ExitCode::SUCCESS),
            (vec![Report::passed(), skipped], ExitCode::SUCCESS),
            (vec![Report::passed(), failed()], ExitCode::FAILURE),
        ];
        for (reports, expected) in rows {
            assert_eq!(conclude(&reports, &[]), expected, "{reports:?}");
        }
    }
}
