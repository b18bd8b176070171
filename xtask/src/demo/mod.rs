//! `cargo xtask demo`: two versions of a real service, shifted and taken back under load.

mod child;
mod daemon;
mod http;
mod load;
mod namespace;
mod network;
mod painter;
mod place;
mod prepare;
mod root;
mod scenery;
mod score;
mod server;
mod show;
mod table;

use std::{path::PathBuf, process::ExitCode};

use crate::{build::Profile, workspace::Workspace};

/// How the demo's service is steered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Plane {
    /// To the sockets of both versions; no packet is touched.
    Socket,
    /// By rewriting packets.
    Nat,
}

impl Plane {
    /// As service files and the command line have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Nat => "nat",
        }
    }
}

/// What is shown, and how.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// How long each weight is held, in seconds.
    pub seconds: u32,
    /// How the service is steered.
    pub plane: Plane,
}

/// Arguments of `cargo xtask demo`.
#[derive(clap::Args)]
pub struct Arguments {
    /// How long each weight is held, in seconds.
    #[arg(long, value_name = "N", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// How connections are steered.
    #[arg(long, value_name = "PLANE", value_enum, default_value_t = Plane::Socket)]
    plane: Plane,
    /// Show binaries that are built quickly and run slowly.
    #[arg(long)]
    debug: bool,
    /// Install and build nothing: show the binaries in this directory. Takes root.
    #[arg(long, hide = true, value_name = "DIRECTORY")]
    binaries: Option<PathBuf>,
    /// End when standard input does.
    #[arg(long, hide = true, requires = "binaries")]
    until_stdin_ends: bool,
}

/// Runs `cargo xtask demo`.
///
/// # Errors
/// Something cannot be installed, built, started or removed, or requests failed.
pub fn run(arguments: &Arguments, workspace: &Workspace) -> anyhow::Result<ExitCode> {
    let way = root::way(&workspace.identity)?;
    let profile = if arguments.debug {
        Profile::Debug
    } else {
        Profile::Release
    };
    let binaries = prepare::prepare(workspace, profile)?;
    workspace.identity.hand_over(&workspace.target)?;
    let choice = arguments.choice();
    match way {
        root::Way::Here => show::run(&binaries, choice),
        root::Way::Sudo { may_ask } => root::run(may_ask, &binaries, choice),
    }
}

impl Arguments {
    const fn choice(&self) -> Choice {
        Choice {
            seconds: self.seconds,
            plane: self.plane,
        }
    }
}

/// Runs the part that needs root and no workspace, if that is all that is asked for.
pub fn run_built(arguments: &Arguments) -> Option<anyhow::Result<ExitCode>> {
    let binaries = arguments.binaries.as_ref()?;
    if arguments.until_stdin_ends {
        root::end_with_stdin();
    }
    Some(show::run(binaries, arguments.choice()))
}
