//! Installing what is missing and building, as the user.

use std::{fs, path::PathBuf, time::Duration};

use crate::{
    build::{self, Profile},
    process::{self, Job},
    screen::{self, Mark},
    setup::{
        packages::{self, Purpose},
        toolchain,
    },
    workspace::Workspace,
};

/// A build of everything from nothing takes a few minutes.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// Makes everything ready that the demo runs; returns the directory of the binaries.
///
/// # Errors
/// Something cannot be installed or built.
pub fn prepare(workspace: &Workspace, profile: Profile) -> anyhow::Result<PathBuf> {
    screen::heading("What the demo needs");
    packages::ensure(workspace, &[Purpose::Demo])?;
    let toolchain = toolchain::ensure(workspace)?;
    build::kernel(workspace, &toolchain, LIMIT)?;
    binaries(workspace, profile)?;
    Ok(workspace.target.join(profile.directory()))
}

/// Builds shifterd, shifterctl and the load client in one go, which keeps all cores busy.
fn binaries(workspace: &Workspace, profile: Profile) -> anyhow::Result<()> {
    let mut command = build::binaries_cargo(workspace, profile);
    command.args(["--package=shifter-tests", "--bins"]);
    let log = workspace.log("demo-build");
    let _ = fs::remove_file(&log);
    let done = process::run(Job::new("binaries", command, &log, LIMIT))?;
    let took = done.success("binaries")?;
    let fact = format!(
        "shifterd, shifterctl and the load client, {}",
        screen::seconds(took)
    );
    screen::line(Mark::Good, "binaries", &fact);
    Ok(())
}
