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
    build::binaries(workspace, profile)?;
    load_client(workspace, profile)?;
    Ok(workspace.target.join(profile.directory()))
}

fn load_client(workspace: &Workspace, profile: Profile) -> anyhow::Result<()> {
    let mut command = workspace.cargo();
    command.args(["build", "--package=shifter-tests", "--bin=shifter-load"]);
    if profile == Profile::Release {
        command.arg("--release");
    }
    let log = workspace.log("load-build");
    let _ = fs::remove_file(&log);
    let done = process::run(Job::new("load client", command, &log, LIMIT))?;
    let took = done.success("load client")?;
    screen::line(
        Mark::Good,
        "load client",
        &format!("built in {}", screen::seconds(took)),
    );
    Ok(())
}
