//! `cargo xtask setup`: what is there, what is missing, and installing what is missing.

mod apt;
mod compiler;
pub mod component;
mod linker;
pub mod packages;
pub mod toolchain;

use std::process::ExitCode;

use packages::Purpose;

use crate::{screen, workspace::Workspace};

/// Arguments of `cargo xtask setup`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Look after this purpose only.
    #[arg(long = "for", value_name = "PURPOSE")]
    purpose: Option<Purpose>,
}

/// Runs `cargo xtask setup`.
///
/// # Errors
/// Something that is needed cannot be installed.
pub fn run(arguments: &Arguments, workspace: &Workspace) -> anyhow::Result<ExitCode> {
    let all = [Purpose::Build, Purpose::Test, Purpose::Demo, Purpose::Bench];
    let purposes = arguments
        .purpose
        .as_ref()
        .map_or(&all[..], std::slice::from_ref);
    screen::heading("Toolchain of the kernel programs");
    // A choice of the past may be second best by now.
    toolchain::choose(workspace)?;
    if purposes.iter().any(|purpose| *purpose != Purpose::Build) {
        screen::heading("Programs of the system");
        packages::ensure(workspace, purposes)?;
    }
    if purposes.contains(&Purpose::Test) {
        screen::heading("Companions of cargo");
        for component in component::Component::ALL {
            component.ensure(workspace)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
