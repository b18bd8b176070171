//! A Rust compiler that may build the kernel programs: what it is, and whether it has the
//! source of `core`.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, anyhow};

use crate::{process, workspace::Workspace};

/// Where a compiler came from, which decides how what it lacks is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A rustup toolchain of this name.
    Rustup(String),
    /// Debian's rustc-web.
    Debian,
    /// Something else on `PATH`.
    Path,
}

/// What `rustc -vV` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// `1.95.0`
    pub release: String,
    /// Major version of the LLVM inside.
    pub llvm: u32,
}

impl Version {
    /// Reads the output of `rustc -vV`.
    ///
    /// # Errors
    /// The release or the LLVM version is not there.
    pub fn parse(verbose: &str) -> anyhow::Result<Self> {
        let field = |name: &str| {
            verbose
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
                .with_context(|| format!("`rustc -vV` says nothing about its \"{name}\""))
        };
        let release = field("release")?.to_owned();
        let llvm = field("LLVM version")?;
        let major = llvm.split('.').next().unwrap_or_default();
        let llvm = major
            .parse()
            .map_err(|_| anyhow!("`rustc -vV` calls its LLVM version \"{llvm}\", no number"))?;
        Ok(Self { release, llvm })
    }
}

/// One compiler and the cargo that belongs to it.
#[derive(Clone, Debug)]
pub struct Compiler {
    /// Where it came from.
    pub origin: Origin,
    /// The compiler itself, not rustup's proxy.
    pub rustc: PathBuf,
    /// Its cargo.
    pub cargo: PathBuf,
    /// What it says about itself.
    pub version: Version,
    /// All of `rustc -vV`: changes whenever the compiler does.
    pub verbose: String,
    sysroot: PathBuf,
}

impl Compiler {
    /// Asks `rustc` what it is.
    ///
    /// # Errors
    /// It does not run, or says something unexpected.
    pub fn ask(
        workspace: &Workspace,
        origin: Origin,
        rustc: PathBuf,
        cargo: PathBuf,
    ) -> anyhow::Result<Self> {
        let ask = |arguments: &[&str]| {
            let mut command = clean(workspace.identity.compile(&rustc));
            command.args(arguments);
            process::output(command)
        };
        let verbose = ask(&["-vV"])?;
        let version = Version::parse(&verbose)?;
        let sysroot = PathBuf::from(ask(&["--print", "sysroot"])?.trim());
        Ok(Self {
            origin,
            rustc,
            cargo,
            version,
            verbose,
            sysroot,
        })
    }

    /// Whether the source of `core` is installed, which `-Z build-std` compiles.
    pub fn has_source(&self) -> bool {
        let library = self.sysroot.join("lib/rustlib/src/rust/library");
        library.join("core/Cargo.toml").exists() && library.join("Cargo.toml").exists()
    }

    /// Whether its cargo has a clippy.
    pub fn has_clippy(&self) -> bool {
        self.rustc.with_file_name("cargo-clippy").exists()
    }

    /// The compiler, with unstable features allowed.
    pub fn rustc(&self, workspace: &Workspace) -> Command {
        let mut command = clean(workspace.identity.compile(&self.rustc));
        command
            .current_dir(&workspace.root)
            .env("RUSTC_BOOTSTRAP", "1");
        command
    }

    /// Its cargo, told to use exactly this compiler, with unstable options allowed.
    pub fn cargo(&self, workspace: &Workspace) -> Command {
        let mut command = clean(workspace.identity.compile(&self.cargo));
        command
            .current_dir(&workspace.root)
            .env("RUSTC", &self.rustc)
            .env("RUSTC_BOOTSTRAP", "1");
        if let Some(directory) = self.rustc.parent() {
            command.env("PATH", prepended(directory));
        }
        command
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Version { release, llvm } = &self.version;
        match &self.origin {
            Origin::Rustup(name) => write!(f, "rustc {release} (rustup, {name}), LLVM {llvm}"),
            Origin::Debian => write!(f, "rustc {release} (Debian's rustc-web), LLVM {llvm}"),
            Origin::Path => write!(f, "rustc {release} ({}), LLVM {llvm}", self.rustc.display()),
        }
    }
}

/// `PATH` with `directory` in front, so that a compiler's cargo finds its own tools.
fn prepended(directory: &Path) -> std::ffi::OsString {
    let mut path = directory.as_os_str().to_owned();
    if let Some(rest) = std::env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    path
}

/// Takes from the environment what the cargo that started this program has put there, so that
/// another toolchain is not led astray.
fn clean(mut command: Command) -> Command {
    for variable in [
        "CARGO",
        "CARGO_ENCODED_RUSTFLAGS",
        "LD_LIBRARY_PATH",
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
    ] {
        command.env_remove(variable);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_rustc() {
        let stable = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\nrelease: 1.95.0\n\
                      LLVM version: 22.1.2\n";
        let nightly = "rustc 1.98.0-nightly\nrelease: 1.98.0-nightly\nLLVM version: 23.0.0-rust\n";
        let short = "release: 1.91.0\nLLVM version: 21\n";
        let rows = [
            (stable, "1.95.0", 22),
            (nightly, "1.98.0-nightly", 23),
            (short, "1.91.0", 21),
        ];
        for (verbose, release, llvm) in rows {
            let version = Version::parse(verbose).expect("a version");
            assert_eq!(
                version,
                Version {
                    release: release.to_owned(),
                    llvm
                }
            );
        }
    }

    #[test]
    fn what_is_no_version_is_refused() {
        let rows = [
            ("", "`rustc -vV` says nothing about its \"release\""),
            (
                "release: 1.95.0\n",
                "`rustc -vV` says nothing about its \"LLVM version\"",
            ),
            (
                "release: 1.95.0\nLLVM version: unknown\n",
                "`rustc -vV` calls its LLVM version \"unknown\", no number",
            ),
        ];
        for (verbose, expected) in rows {
            let error = Version::parse(verbose).expect_err("no version");
            assert_eq!(error.to_string(), expected);
        }
    }
}
