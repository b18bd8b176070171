//! Where the pins lie: `shifter/v<ABI>/maps` and `/links` below bpffs, one daemon at a time.
//!
//! A new directory is built aside and renamed when all maps are in it, so that there is either a
//! whole dataplane or none.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{Flock, FlockArg},
    sys::statfs::{self, BPF_FS_MAGIC},
};
use shifter_common::abi::{ABI_VERSION, map};

use super::super::DataplaneError;

/// The directory of the pins, locked.
pub struct PinDirectory {
    path: PathBuf,
    aside: PathBuf,
    gone: PathBuf,
    is_aside: bool,
    /// Held until the daemon ends; the kernel frees it even after SIGKILL.
    _lock: Flock<File>,
}

impl PinDirectory {
    /// Locks the pins below a mounted bpffs.
    ///
    /// # Errors
    /// If it is no bpffs, or another daemon holds it.
    pub fn lock(bpffs: &Path) -> Result<Self, DataplaneError> {
        let is_bpffs = statfs::statfs(bpffs).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC);
        if !is_bpffs {
            let path = bpffs.display();
            return Err(DataplaneError::Refused(format!(
                "{path} is not a bpffs; mount it with: mount -t bpf bpf {path}"
            )));
        }
        let root = bpffs.join("shifter");
        create(&root)?;
        let file = File::open(&root).map_err(|error| {
            DataplaneError::kernel(format!("opening {}", root.display()), error)
        })?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
            if errno == nix::Error::EWOULDBLOCK {
                DataplaneError::Refused(format!(
                    "another shifterd holds {}; stop it first: systemctl stop shifterd",
                    root.display()
                ))
            } else {
                DataplaneError::kernel(format!("locking {}", root.display()), errno)
            }
        })?;
        // bpffs allows no dots in names.
        let path = root.join(format!("v{ABI_VERSION}"));
        let aside = root.join(format!("new-v{ABI_VERSION}"));
        let gone = root.join(format!("gone-v{ABI_VERSION}"));
        Ok(Self {
            path,
            aside,
            gone,
            is_aside: false,
            _lock: lock,
        })
    }

    /// Whether a whole dataplane is pinned. Of one that is not whole the remains are removed: its
    /// programs would steer by maps that nobody can reach any more.
    ///
    /// # Errors
    /// If the remains cannot be removed.
    pub fn find(&mut self) -> Result<bool, DataplaneError> {
        if !self.path.is_dir() {
            return Ok(false);
        }
        if map::ALL.iter().all(|name| self.map(name).exists()) && self.links().is_dir() {
            return Ok(true);
        }
        tracing::warn!(
            "{} is not whole: it is removed and built anew",
            self.path.display()
        );
        self.remove()?;
        Ok(false)
    }

    /// Starts a new dataplane aside, over the remains of an attempt that was not finished.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn begin(&mut self) -> Result<(), DataplaneError> {
        remove_tree(&self.aside)?;
        remove_tree(&self.gone)?;
        self.is_aside = true;
        create(&self.aside.join("maps"))?;
        create(&self.aside.join("links"))
    }

    /// Makes the new dataplane the one.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn commit(&mut self) -> Result<(), DataplaneError> {
        fs::rename(&self.aside, &self.path).map_err(|error| {
            let (from, to) = (self.aside.display(), self.path.display());
            DataplaneError::kernel(format!("renaming {from} to {to}"), error)
        })?;
        self.is_aside = false;
        Ok(())
    }

    /// The directory of the dataplane in force.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Pin of a map.
    pub fn map(&self, name: &str) -> PathBuf {
        self.current().join("maps").join(name)
    }

    /// Directory of the link pins.
    pub fn links(&self) -> PathBuf {
        self.current().join("links")
    }

    /// Removes all pins.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn remove(&mut self) -> Result<(), DataplaneError> {
        // A tree is not removed in one step, but it is renamed in one: what is half removed is not
        // mistaken for a dataplane.
        remove_tree(&self.gone)?;
        match fs::rename(&self.path, &self.gone) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let path = self.path.display();
                return Err(DataplaneError::kernel(format!("renaming {path}"), error));
            }
            _ => {}
        }
        remove_tree(&self.gone)
    }

    fn current(&self) -> &Path {
        if self.is_aside {
            &self.aside
        } else {
            &self.path
        }
    }
}

fn create(path: &Path) -> Result<(), DataplaneError> {
    fs::create_dir_all(path)
        .map_err(|error| DataplaneError::kernel(format!("creating {}", path.display()), error))
}

fn remove_tree(path: &Path) -> Result<(), DataplaneError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DataplaneError::kernel(
            format!("removing {}", path.display()),
            error,
        )),
        _ => Ok(()),
    }
}
