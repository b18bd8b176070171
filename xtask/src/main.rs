//! Build, demo, test and bench commands of shifter: `cargo xtask help`.

mod bench;
mod build;
mod demo;
mod descent;
mod identity;
mod interrupt;
mod process;
mod screen;
mod setup;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use workspace::Workspace;

/// What shells expect of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Build, demo, test and bench commands of shifter.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// List what building and testing need, and install what is missing.
    Setup(setup::Arguments),
    /// Build the kernel programs, shifterd and shifterctl.
    Build(build::Arguments),
    /// Show two versions of a service, shifted and taken back under load.
    Demo(demo::Arguments),
    /// Run all tests; the last line is `N passed, N failed`.
    Test(test::Arguments),
    /// Measure shifter beside its peers; a quarter of an hour on a quiet machine.
    Bench(bench::Arguments),
}

impl Task {
    fn run(&self, workspace: &Workspace) -> anyhow::Result<ExitCode> {
        match self {
            Self::Setup(arguments) => setup::run(arguments, workspace),
            Self::Build(arguments) => build::run(arguments, workspace),
            Self::Demo(arguments) => demo::run(arguments, workspace),
            Self::Test(arguments) => test::run(arguments, workspace),
            Self::Bench(arguments) => bench::run(arguments, workspace),
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    interrupt::install()?;
    if let Task::Demo(arguments) = &arguments.task
        && let Some(result) = demo::run_built(arguments)
    {
        return result;
    }
    let workspace = Workspace::find()?;
    workspace.identity.hand_over(&workspace.target)?;
    let result = arguments.task.run(&workspace);
    workspace.identity.hand_over(&workspace.target)?;
    result
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            if interrupt::requested() {
                ExitCode::from(INTERRUPTED)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}
