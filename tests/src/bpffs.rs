//! A bpffs of a test's own, so that its pins are nobody else's.

use std::path::Path;

use nix::mount::{MsFlags, mount};

use crate::scratch::Scratch;

/// A mounted bpffs; gone with everything pinned in it when dropped.
#[derive(Debug)]
pub struct Bpffs {
    scratch: Scratch,
}

impl Bpffs {
    /// Mounts a new, empty bpffs.
    ///
    /// # Panics
    /// If the kernel refuses, which takes the root user.
    pub fn mount(label: &str) -> Self {
        let scratch = Scratch::new(label);
        mount(
            Some("bpf"),
            scratch.path(),
            Some("bpf"),
            MsFlags::empty(),
            None::<&str>,
        )
        .unwrap_or_else(|err| panic!("mounting bpffs at {}: {err}", scratch.path().display()));
        Self { scratch }
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        self.scratch.path()
    }
}
