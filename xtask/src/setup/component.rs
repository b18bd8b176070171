//! rustfmt and clippy: companions of the cargo that started this program.

use std::{path::Path, time::Duration};

use anyhow::bail;

use super::apt;
use crate::{
    process::{self, Job},
    screen::{self, Mark},
    workspace::Workspace,
};

/// What rustup gets to download a component.
const LIMIT: Duration = Duration::from_secs(120);

/// A tool that cargo runs as a subcommand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// `cargo fmt`
    Rustfmt,
    /// `cargo clippy`
    Clippy,
}

impl Component {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Rustfmt, Self::Clippy];

    /// The subcommand of cargo.
    const fn subcommand(self) -> &'static str {
        match self {
            Self::Rustfmt => "fmt",
            Self::Clippy => "clippy",
        }
    }

    /// What rustup calls it.
    const fn name(self) -> &'static str {
        match self {
            Self::Rustfmt => "rustfmt",
            Self::Clippy => "clippy",
        }
    }

    /// The package that has it for Debian's rustc-web.
    const fn package(self) -> &'static str {
        match self {
            Self::Rustfmt => "rustfmt-web",
            Self::Clippy => "rust-web-clippy",
        }
    }

    /// Whether cargo can run it.
    fn works(self, workspace: &Workspace) -> bool {
        let mut command = workspace.cargo();
        command.args([self.subcommand(), "--version"]);
        process::output(command).is_ok()
    }

    /// Installs it if cargo cannot run it yet.
    ///
    /// # Errors
    /// It cannot be installed; the error says what to run.
    pub fn ensure(self, workspace: &Workspace) -> anyhow::Result<()> {
        let name = self.name();
        if self.works(workspace) {
            screen::line(Mark::Good, name, "installed");
            return Ok(());
        }
        let cargo = workspace.cargo().get_program().to_owned();
        if Path::new(&cargo) == Path::new("/usr/bin/cargo") {
            screen::line(Mark::Change, name, &format!("missing: {}", self.package()));
            apt::install(workspace, &[self.package().to_owned()])?;
        } else {
            screen::line(Mark::Change, name, "missing: asking rustup for it");
            let mut command = workspace.identity.compile("rustup");
            command
                .current_dir(&workspace.root)
                .args(["component", "add", name]);
            let log = workspace.log(name);
            let job = Job::new(name, command, &log, LIMIT);
            process::run(job)?.success(name)?;
        }
        if !self.works(workspace) {
            let subcommand = self.subcommand();
            bail!("`cargo {subcommand}` does not run: install {name} for this cargo");
        }
        Ok(())
    }
}
