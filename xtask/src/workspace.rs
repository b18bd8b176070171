//! Where things are: the clone, its target directory, the cache.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;
use serde::Deserialize;

use crate::{identity::Identity, process};

/// The clone that this program was built from, and where its products go.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// Directory of the root Cargo.toml.
    pub root: PathBuf,
    /// Cargo's target directory, wherever configuration or environment put it.
    pub target: PathBuf,
    /// Tools that outlive `cargo clean`, shared by all clones of a user.
    pub cache: PathBuf,
    /// Who runs and who compiles.
    pub identity: Identity,
}

#[derive(Deserialize)]
struct Metadata {
    target_directory: PathBuf,
}

impl Workspace {
    /// Finds the directories.
    ///
    /// # Errors
    /// Cargo cannot be run here, or there is no home directory to cache in.
    pub fn find() -> anyhow::Result<Self> {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest
            .parent()
            .context("xtask must lie inside the workspace")?
            .to_owned();
        let identity = Identity::detect()?;
        identity.check_owner(&root)?;
        let cache = cache(&identity)?;
        let mut workspace = Self {
            root,
            target: PathBuf::new(),
            cache,
            identity,
        };
        let mut command = workspace.cargo();
        command.args(["metadata", "--format-version=1", "--no-deps", "--offline"]);
        let metadata = process::output(command).with_context(|| workspace.identity.remedy())?;
        let metadata: Metadata =
            serde_json::from_str(&metadata).context("`cargo metadata` gave no target directory")?;
        workspace.target = metadata.target_directory;
        Ok(workspace)
    }

    /// The cargo that started this program, run in the clone as whoever compiles.
    pub fn cargo(&self) -> Command {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        let mut command = self.identity.compile(cargo);
        command.current_dir(&self.root);
        command
    }

    /// The log of a step.
    pub fn log(&self, step: &str) -> PathBuf {
        self.target.join("xtask-logs").join(format!("{step}.log"))
    }

    /// `path` the way a person in the clone would type it.
    pub fn relative<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}

/// `SHIFTER_CACHE`, else `shifter` in the user's cache directory.
fn cache(identity: &Identity) -> anyhow::Result<PathBuf> {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(path) = variable("SHIFTER_CACHE") {
        return std::path::absolute(path).context("SHIFTER_CACHE is no usable path");
    }
    let base = variable("XDG_CACHE_HOME").filter(|_| identity.owns_environment());
    let base = base.or_else(|| identity.home().map(|home| home.join(".cache")));
    let base = base.context("no home directory to cache tools in: set SHIFTER_CACHE=DIRECTORY")?;
    Ok(base.join("shifter"))
}
