//! Where the pins lie: `shifter/v<ABI>/maps` and `/links` below bpffs, one daemon at a time.
//!
//! A new directory is built aside and renamed when all maps are in it, so that there is either a
//! whole dataplane or none. Where it replaces one with other maps, that one is renamed before it, and
//! removed when everything it held is carried over:
//!
//! ```text
//! v1                          in force
//! v1  new-v2                  the new one is built and filled; of no effect
//! old-1-v1  new-v2            for a moment; a start takes this step back
//! old-1-v1  v2                links are turned, flows carried over; a start goes on here
//! v2                          in force
//! ```

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

use super::{super::DataplaneError, links, rehearsal};

/// The directory of the pins, locked.
pub struct PinDirectory {
    root: PathBuf,
    path: PathBuf,
    aside: PathBuf,
    gone: PathBuf,
    is_aside: bool,
    /// Held until the daemon ends; the kernel frees it even after SIGKILL.
    _lock: Flock<File>,
}

/// What is pinned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pinned {
    /// The dataplane in force.
    pub in_force: Option<PathBuf>,
    /// Those it replaces and has not yet taken everything from, the latest first.
    pub former: Vec<PathBuf>,
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
        Ok(Self {
            path: root.join(format!("v{ABI_VERSION}")),
            aside: root.join(format!("new-v{ABI_VERSION}")),
            gone: root.join(format!("gone-v{ABI_VERSION}")),
            root,
            is_aside: false,
            _lock: lock,
        })
    }

    /// Looks at what is pinned, and takes away or back what an earlier attempt left half done.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn survey(&self) -> Result<Pinned, DataplaneError> {
        let mut in_force = Vec::new();
        let mut former = Vec::new();
        for pin in links::pins(&self.root)? {
            let name = links::name(&pin);
            if name.starts_with("new-") || name.starts_with("gone-") {
                remove_tree(&pin)?;
            } else if let Some(place) = former_place(&name) {
                former.push((place, pin));
            } else if is_version(&name) {
                in_force.push(pin);
            }
        }
        former.sort_unstable_by(|one, other| other.cmp(one));
        let mut former: Vec<PathBuf> = former.into_iter().map(|(_, pin)| pin).collect();
        if in_force.is_empty() && !former.is_empty() {
            let latest = former.remove(0);
            in_force.push(self.reinstate(&latest)?);
        }
        if in_force.len() > 1 {
            let names: Vec<String> = in_force.iter().map(|pin| links::name(pin)).collect();
            return Err(DataplaneError::Refused(format!(
                "{} holds more than one dataplane in force ({}), which no shifterd leaves behind; \
                 take them all away with: shifterd --detach --force",
                self.root.display(),
                names.join(", ")
            )));
        }
        Ok(Pinned {
            in_force: in_force.pop(),
            former,
        })
    }

    /// Everything that looks like a dataplane.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn all(&self) -> Result<Pinned, DataplaneError> {
        let is_one = |pin: &PathBuf| {
            let name = links::name(pin);
            is_version(&name) || former_place(&name).is_some()
        };
        let pins = links::pins(&self.root)?;
        Ok(Pinned {
            in_force: None,
            former: pins.into_iter().filter(is_one).collect(),
        })
    }

    /// Whether a directory holds everything that this version pins.
    pub fn is_whole(path: &Path) -> bool {
        let maps = path.join("maps");
        map::ALL.iter().all(|name| maps.join(name).exists()) && path.join("links").is_dir()
    }

    /// Gives a replaced dataplane its name back.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn reinstate(&self, former: &Path) -> Result<PathBuf, DataplaneError> {
        let name = links::name(former);
        let version = name.rsplit('-').next().unwrap_or(&name);
        let path = self.root.join(version);
        rename(former, &path)?;
        Ok(path)
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

    /// Removes what was begun aside.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn give_up(&mut self) -> Result<(), DataplaneError> {
        self.is_aside = false;
        remove_tree(&self.aside)
    }

    /// Makes the new dataplane the one.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn commit(&mut self) -> Result<(), DataplaneError> {
        rename(&self.aside, &self.path)?;
        self.is_aside = false;
        Ok(())
    }

    /// Makes the new dataplane the one and keeps the one it replaces, whose new place it gives.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn succeed(&mut self, pinned: &Pinned) -> Result<Vec<PathBuf>, DataplaneError> {
        let mut former = pinned.former.clone();
        if let Some(in_force) = &pinned.in_force {
            let latest = former
                .first()
                .and_then(|pin| former_place(&links::name(pin)));
            let place = latest.unwrap_or(0) + 1;
            let name = links::name(in_force);
            let kept = self.root.join(format!("old-{place}-{name}"));
            rename(in_force, &kept)?;
            former.insert(0, kept);
        }
        rehearsal::place("renamed")?;
        self.commit()?;
        Ok(former)
    }

    /// Undoes [`PinDirectory::succeed`].
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn step_back(&mut self, former: &[PathBuf]) -> Result<(), DataplaneError> {
        remove_tree(&self.gone)?;
        rename(&self.path, &self.gone)?;
        if let Some(latest) = former.first() {
            self.reinstate(latest)?;
        }
        remove_tree(&self.gone)
    }

    /// Removes a dataplane with all its pins.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn forget(&self, path: &Path) -> Result<(), DataplaneError> {
        // A tree is not removed in one step, but it is renamed in one: what is half removed is not
        // mistaken for a dataplane.
        remove_tree(&self.gone)?;
        rename(path, &self.gone)?;
        rehearsal::place("forgotten")?;
        remove_tree(&self.gone)
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

    /// Removes the directory of all, which is empty, and with it what another daemon would wait for.
    pub fn vanish(&self) {
        // Whatever else is in there is not ours.
        let _ = fs::remove_dir(&self.root);
    }

    fn current(&self) -> &Path {
        if self.is_aside {
            &self.aside
        } else {
            &self.path
        }
    }
}

fn is_version(name: &str) -> bool {
    name.strip_prefix('v')
        .is_some_and(|number| number.parse::<u32>().is_ok())
}

/// The place of a replaced dataplane among such: `old-<place>-v<version>`.
fn former_place(name: &str) -> Option<u32> {
    let (place, version) = name.strip_prefix("old-")?.split_once('-')?;
    is_version(version).then(|| place.parse().ok()).flatten()
}

fn rename(from: &Path, to: &Path) -> Result<(), DataplaneError> {
    fs::rename(from, to).map_err(|error| {
        let (from, to) = (from.display(), to.display());
        DataplaneError::kernel(format!("renaming {from} to {to}"), error)
    })
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
