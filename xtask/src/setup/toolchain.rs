//! The choice of the toolchain that builds the kernel programs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use serde::{Deserialize, Serialize};

use super::{
    apt,
    compiler::{Compiler, Origin},
    linker,
};
use crate::{
    process::{self, Job},
    screen::{self, Mark},
    workspace::Workspace,
};

/// What rustup gets to download the source of the standard library.
const SOURCE_LIMIT: Duration = Duration::from_secs(120);
/// The packages that make Debian's own compiler able to build for BPF.
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";

/// A compiler with the source of `core`, and a linker that fits.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// Compiles.
    pub compiler: Compiler,
    /// Links.
    pub linker: PathBuf,
}

/// The choice as it is kept in the target directory.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Choice {
    /// Which candidate it is.
    origin: String,
    /// `rustc -vV` of the compiler: another answer makes the choice void.
    rustc_version: String,
    /// The linker that was probed with it.
    linker: PathBuf,
    /// Why this candidate.
    why: String,
}

/// The candidates, best first.
const CANDIDATES: [Candidate; 3] = [Candidate::Rustup, Candidate::Path, Candidate::Debian];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Candidate {
    Rustup,
    Path,
    Debian,
}

impl Candidate {
    const fn name(self) -> &'static str {
        match self {
            Self::Rustup => "rustup",
            Self::Path => "PATH",
            Self::Debian => "Debian",
        }
    }

    /// The compiler of this candidate as it is now; nothing if there is none.
    fn compiler(self, workspace: &Workspace) -> anyhow::Result<Option<Compiler>> {
        let (origin, rustc) = match self {
            Self::Rustup => {
                let Some(rustc) = rustup_rustc(workspace) else {
                    return Ok(None);
                };
                let name = toolchain_name(&rustc).unwrap_or_else(|| "?".to_owned());
                (Origin::Rustup(name), rustc)
            }
            Self::Path => {
                let Some(rustc) = linker::on_path("rustc") else {
                    return Ok(None);
                };
                let resolved = fs::canonicalize(&rustc)?;
                let proxy = resolved.file_name().is_some_and(|name| name != "rustc");
                if proxy || rustup_rustc(workspace).is_some() || is_debian(&resolved) {
                    return Ok(None);
                }
                (Origin::Path, rustc)
            }
            Self::Debian => {
                if !Path::new(DEBIAN_RUSTC).exists() || !Path::new(DEBIAN_CARGO).exists() {
                    return Ok(None);
                }
                (Origin::Debian, PathBuf::from(DEBIAN_RUSTC))
            }
        };
        let cargo = match self {
            Self::Path => linker::on_path("cargo").context("there is rustc, but no cargo")?,
            Self::Rustup | Self::Debian => rustc.with_file_name("cargo"),
        };
        Compiler::ask(workspace, origin, rustc, cargo).map(Some)
    }

    /// Makes this candidate ready to build, or says why it cannot be; nothing if it is not there
    /// and this is not the way to get it.
    fn ensure(self, workspace: &Workspace) -> anyhow::Result<Option<Toolchain>> {
        let mut compiler = self.compiler(workspace)?;
        if self == Self::Debian && !compiler.as_ref().is_some_and(Compiler::has_source) {
            screen::line(
                Mark::Change,
                "rustc",
                "missing: Debian's rustc-web with its source",
            );
            apt::install(workspace, &DEBIAN_PACKAGES.map(str::to_owned))?;
            compiler = self.compiler(workspace)?;
        }
        let Some(compiler) = compiler else {
            return Ok(None);
        };
        screen::line(Mark::Good, "rustc", &compiler.to_string());
        if compiler.has_source() {
            screen::line(Mark::Good, "rust-src", "installed");
        } else {
            add_source(workspace, &compiler)?;
        }
        let linker = linker::ensure(workspace, &compiler)?;
        Ok(Some(Toolchain { compiler, linker }))
    }
}

/// The real compiler behind rustup's proxy, for the toolchain that is active in the clone.
fn rustup_rustc(workspace: &Workspace) -> Option<PathBuf> {
    let mut command = workspace.identity.compile("rustup");
    command
        .current_dir(&workspace.root)
        .args(["which", "rustc"]);
    process::output(command)
        .ok()
        .map(|path| PathBuf::from(path.trim()))
}

/// `NAME` of `…/toolchains/NAME/bin/rustc`.
fn toolchain_name(rustc: &Path) -> Option<String> {
    let name = rustc.parent()?.parent()?.file_name()?;
    Some(name.to_string_lossy().into_owned())
}

fn is_debian(rustc: &Path) -> bool {
    fs::canonicalize(DEBIAN_RUSTC).is_ok_and(|debian| debian == rustc)
}

/// Lets rustup download the source of the standard library, in bounded time.
fn add_source(workspace: &Workspace, compiler: &Compiler) -> anyhow::Result<()> {
    let Origin::Rustup(name) = &compiler.origin else {
        bail!("its standard library comes without source (rust-src)");
    };
    screen::line(Mark::Change, "rust-src", "missing: asking rustup for it");
    let mut command: Command = workspace.identity.compile("rustup");
    command.current_dir(&workspace.root);
    command.args(["component", "add", "rust-src", "--toolchain", name]);
    let log = workspace.log("rust-src");
    let done = process::run(Job::new("rust-src", command, &log, SOURCE_LIMIT))?;
    if done.end != process::End::Success || !compiler.has_source() {
        let ending = done.end.words();
        bail!(
            "`rustup component add rust-src --toolchain {name}` {ending}; see {}",
            log.display()
        );
    }
    let fact = format!("installed in {}", screen::seconds(done.took));
    screen::line(Mark::Good, "rust-src", &fact);
    Ok(())
}

/// Where the choice is kept.
fn choice_path(workspace: &Workspace) -> PathBuf {
    workspace.target.join("xtask-toolchain.json")
}

/// The choice of an earlier run, if it still holds.
fn remembered(workspace: &Workspace) -> Option<Toolchain> {
    let text = fs::read_to_string(choice_path(workspace)).ok()?;
    let choice: Choice = serde_json::from_str(&text).ok()?;
    let candidate = CANDIDATES
        .into_iter()
        .find(|one| one.name() == choice.origin)?;
    let compiler = candidate.compiler(workspace).ok()??;
    let holds =
        compiler.verbose == choice.rustc_version && compiler.has_source() && choice.linker.exists();
    if !holds {
        return None;
    }
    let fact = format!("{compiler} ({})", choice.why);
    screen::line(Mark::Good, "toolchain", &fact);
    Some(Toolchain {
        compiler,
        linker: choice.linker,
    })
}

/// The toolchain for the kernel programs: as remembered, or chosen and installed now.
///
/// # Errors
/// No candidate can be made to work; the error names each with its reason.
pub fn ensure(workspace: &Workspace) -> anyhow::Result<Toolchain> {
    match remembered(workspace) {
        Some(toolchain) => Ok(toolchain),
        None => choose(workspace),
    }
}

/// Chooses the toolchain anew, whatever was chosen before.
///
/// # Errors
/// As for [`ensure`].
pub fn choose(workspace: &Workspace) -> anyhow::Result<Toolchain> {
    let mut refusals = Vec::new();
    for candidate in CANDIDATES {
        match candidate.ensure(workspace) {
            Ok(Some(toolchain)) => {
                remember(workspace, candidate, &toolchain, &refusals)?;
                return Ok(toolchain);
            }
            Ok(None) => {}
            Err(error) if crate::interrupt::requested() => return Err(error),
            Err(error) => {
                let refusal = format!("{}: {error:#}", candidate.name());
                screen::line(Mark::Change, "toolchain", &format!("not {refusal}"));
                refusals.push(refusal);
            }
        }
    }
    Err(none_works(&refusals))
}

/// What is left to say when every candidate has been refused.
fn none_works(refusals: &[String]) -> anyhow::Error {
    anyhow!(
        "no toolchain can build the kernel programs:\n  {}",
        refusals.join("\n  ")
    )
}

/// The reason for a choice: it was the first, or what was wrong with those before it.
fn why(refusals: &[String]) -> String {
    match refusals {
        [] => "the first that is there".to_owned(),
        _ => format!("not {}", refusals.join("; not ")),
    }
}

/// Writes the choice down and says it.
fn remember(
    workspace: &Workspace,
    candidate: Candidate,
    toolchain: &Toolchain,
    refusals: &[String],
) -> anyhow::Result<()> {
    let why = why(refusals);
    let choice = Choice {
        origin: candidate.name().to_owned(),
        rustc_version: toolchain.compiler.verbose.clone(),
        linker: toolchain.linker.clone(),
        why: why.clone(),
    };
    let path = choice_path(workspace);
    fs::write(&path, serde_json::to_string_pretty(&choice)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    let fact = format!("{} ({why})", toolchain.compiler);
    screen::line(Mark::Good, "toolchain", &fact);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_says_why() {
        let refusals = ["rustup: no rust-src", "PATH: no cargo"].map(str::to_owned);
        let rows = [
            (&refusals[..0], "the first that is there"),
            (&refusals[..1], "not rustup: no rust-src"),
            (&refusals[..], "not rustup: no rust-src; not PATH: no cargo"),
        ];
        for (refusals, expected) in rows {
            assert_eq!(why(refusals), expected);
        }
    }

    #[test]
    fn every_refusal_is_told_when_nothing_works() {
        let refusals = ["rustup: no rust-src", "Debian: no root"].map(str::to_owned);
        let expected = "no toolchain can build the kernel programs:\n  rustup: no rust-src\n  \
                        Debian: no root";
        assert_eq!(none_works(&refusals).to_string(), expected);
    }

    #[test]
    fn toolchains_are_named_after_their_directory() {
        let rows = [
            (
                "/home/a/.rustup/toolchains/stable-x86_64/bin/rustc",
                Some("stable-x86_64"),
            ),
            ("rustc", None),
        ];
        for (path, expected) in rows {
            assert_eq!(
                toolchain_name(Path::new(path)).as_deref(),
                expected,
                "{path}"
            );
        }
    }
}
