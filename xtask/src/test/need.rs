//! Whether what a stage needs is there, and if not, why.

use std::{ffi::OsStr, path::Path, time::Duration};

use anyhow::{Context, bail};

use super::stage::{Need, Stage};
use crate::{
    build, process,
    setup::{
        component::Component,
        packages::{self, Purpose},
        toolchain::{self, Toolchain},
    },
    workspace::Workspace,
};

const BTF: &str = "/sys/kernel/btf/vmlinux";
/// Capabilities that loading programs and making links and namespaces takes: name and bit.
const CAPABILITIES: [(&str, u32); 3] = [
    ("CAP_NET_ADMIN", 12),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_BPF", 39),
];

const NO_ROOT: &str = "root is needed to load programs: run it as root, or run `sudo -v` first";

/// What has been found out in this run, so that nothing is looked for or built twice.
pub struct Provisions<'a> {
    workspace: &'a Workspace,
    toolchain: Option<Result<Toolchain, String>>,
    object: Option<Result<(), String>>,
    rehearsal: Option<Result<(), String>>,
    programs: Option<Result<(), String>>,
    components: Vec<(Component, Result<(), String>)>,
    root: Option<Result<(), String>>,
}

impl<'a> Provisions<'a> {
    /// Nothing is known yet.
    pub fn new(workspace: &'a Workspace) -> Self {
        Self {
            workspace,
            toolchain: None,
            object: None,
            rehearsal: None,
            programs: None,
            components: Vec::new(),
            root: None,
        }
    }

    /// Lists and installs what `stages` need from outside. What cannot be had is the failure of
    /// the stages that need it, not of the others.
    pub fn prepare(&mut self, stages: &[&Stage]) {
        for need in stages.iter().flat_map(|stage| stage.needs) {
            // The answers are kept, and heard when it is a stage's turn.
            let _ = match need {
                Need::Toolchain | Need::Object | Need::Rehearsal => self.toolchain().map(drop),
                Need::Component(component) => self.component(*component),
                Need::Programs => self.programs(),
                Need::Root | Need::Btf => Ok(()),
            };
        }
    }

    /// All reasons why `stage` cannot run.
    pub fn obstacle(&mut self, stage: &Stage) -> Option<String> {
        let reasons: Vec<String> = stage
            .needs
            .iter()
            .filter_map(|need| self.check(*need, stage.limit()).err())
            .collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    fn check(&mut self, need: Need, limit: Duration) -> Result<(), String> {
        match need {
            Need::Toolchain => self.toolchain().map(drop),
            Need::Object => self.object(limit),
            Need::Rehearsal => self.rehearsal(limit),
            Need::Component(component) => self.component(component),
            Need::Root => {
                let workspace = self.workspace;
                let found = self.root.get_or_insert_with(|| told(root(workspace)));
                found.clone()
            }
            Need::Btf => check_btf(Path::new(BTF).exists()),
            Need::Programs => self.programs(),
        }
    }

    /// The toolchain of the kernel programs.
    pub fn toolchain(&mut self) -> Result<Toolchain, String> {
        let workspace = self.workspace;
        self.toolchain
            .get_or_insert_with(|| told(toolchain::ensure(workspace)))
            .clone()
    }

    /// Builds the kernel object unless that was done or has failed already; `limit` bounds it.
    pub fn object(&mut self, limit: Duration) -> Result<(), String> {
        if self.object.is_none() {
            let workspace = self.workspace;
            let built = self
                .toolchain()
                .and_then(|toolchain| told(build::kernel(workspace, &toolchain, limit)).map(drop));
            let built = built.map_err(|error| format!("there are no kernel programs: {error}"));
            self.object = Some(built);
        }
        self.object.clone().unwrap_or(Ok(()))
    }

    /// Builds the shifterd of a version to come, unless that was done or has failed already.
    fn rehearsal(&mut self, limit: Duration) -> Result<(), String> {
        if self.rehearsal.is_none() {
            let workspace = self.workspace;
            let built = self
                .toolchain()
                .and_then(|toolchain| told(build::rehearsal(workspace, &toolchain, limit)));
            let built =
                built.map_err(|error| format!("there is no version to rehearse with: {error}"));
            self.rehearsal = Some(built);
        }
        self.rehearsal.clone().unwrap_or(Ok(()))
    }

    fn component(&mut self, component: Component) -> Result<(), String> {
        if let Some((_, known)) = self
            .components
            .iter()
            .find(|(known, _)| *known == component)
        {
            return known.clone();
        }
        let answer = told(component.ensure(self.workspace));
        self.components.push((component, answer.clone()));
        answer
    }

    fn programs(&mut self) -> Result<(), String> {
        let workspace = self.workspace;
        let ensure = || told(packages::ensure(workspace, &[Purpose::Test]));
        self.programs.get_or_insert_with(ensure).clone()
    }
}

/// Refuses a kernel without type information.
fn check_btf(exists: bool) -> Result<(), String> {
    if exists {
        return Ok(());
    }
    Err(format!(
        "this kernel has no type information ({BTF} is missing): boot one that is built with \
         CONFIG_DEBUG_INFO_BTF"
    ))
}

/// An error as the one line that stages report, so that it can be reported more than once.
fn told<T>(result: anyhow::Result<T>) -> Result<T, String> {
    result.map_err(|error| format!("{error:#}"))
}

/// Asks a command that runs as root what it may do.
fn root(workspace: &Workspace) -> anyhow::Result<()> {
    let elevated = workspace.identity.elevate(OsStr::new("cat"), &[]);
    let mut command = elevated.context(NO_ROOT)?;
    command.arg("/proc/self/status");
    check_capabilities(&process::output(command)?)
}

/// Refuses a root that may not do what the tests do.
fn check_capabilities(status: &str) -> anyhow::Result<()> {
    let missing = missing_capabilities(status)?;
    if !missing.is_empty() {
        bail!(
            "root has no {} here: run it outside of this container",
            missing.join(", ")
        );
    }
    Ok(())
}

/// The capabilities that `CapEff` in a `/proc/PID/status` lacks.
fn missing_capabilities(status: &str) -> anyhow::Result<Vec<&'static str>> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .context("/proc/self/status names no effective capabilities")?;
    let lacks = |bit: u32| effective >> bit & 1 == 0;
    Ok(CAPABILITIES
        .iter()
        .filter(|(_, bit)| lacks(*bit))
        .map(|(name, _)| *name)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        let rows: [(&str, &[&str]); 3] = [
            ("Name:\tcat\nCapEff:\t000001ffffffffff\n", &[]),
            (
                "CapEff:\t0000000000000000\n",
                &["CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_BPF"],
            ),
            // What Docker leaves a container by default.
            (
                "CapEff:\t00000000a80425fb\n",
                &["CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_BPF"],
            ),
        ];
        for (status, expected) in rows {
            assert_eq!(
                missing_capabilities(status).expect("capabilities"),
                expected,
                "{status}"
            );
        }
        let error = missing_capabilities("Name:\tcat\n").expect_err("none");
        assert_eq!(
            error.to_string(),
            "/proc/self/status names no effective capabilities"
        );
    }

    #[test]
    fn a_root_without_powers_is_refused() {
        assert!(check_capabilities("CapEff:\t000001ffffffffff\n").is_ok());
        let error = check_capabilities("CapEff:\t0000000000001000\n").expect_err("refused");
        let expected = "root has no CAP_SYS_ADMIN, CAP_BPF here: run it outside of this container";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_kernel_without_types_is_refused() {
        assert_eq!(check_btf(true), Ok(()));
        let expected = "this kernel has no type information (/sys/kernel/btf/vmlinux is missing): \
                        boot one that is built with CONFIG_DEBUG_INFO_BTF";
        assert_eq!(check_btf(false), Err(expected.to_owned()));
    }
}
