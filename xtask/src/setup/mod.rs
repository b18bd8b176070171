//! `cargo xtask setup`: what is there, what is missing, and installing what is missing.

mod apt;
mod compiler;
mod linker;
pub mod toolchain;

use std::process::ExitCode;

use crate::workspace::Workspace;

/// Arguments of `cargo xtask setup`.
#[derive(clap::Args)]
pub struct Arguments {}

/// Runs `cargo xtask setup`.
///
/// # Errors
/// Something that is needed cannot be installed.
pub fn run(_arguments: &Arguments, workspace: &Workspace) -> anyhow::Result<ExitCode> {
    toolchain::ensure(workspace)?;
    Ok(ExitCode::SUCCESS)
}
