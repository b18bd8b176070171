//! Debian packages, installed without questions and without starting services.

use anyhow::bail;

use crate::workspace::Workspace;

/// Installs `packages`.
pub fn install(_workspace: &Workspace, packages: &[String]) -> anyhow::Result<()> {
    bail!(
        "install them: `sudo apt-get install {}`",
        packages.join(" ")
    )
}
