//! The programs of the socket plane on the namespace and on the root cgroup: attached through pinned
//! links, replaced in place, taken off.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{Program, ProgramError, loaded_programs},
};
use shifter_common::socket::program;

use super::{
    super::{super::DataplaneError, chain, directory::PinDirectory, sys::detach_link},
    sys,
};

/// Where the programs are, and with what the kernel calls it (`enum bpf_attach_type`).
const fn attach_type(name: &str) -> u32 {
    match name.as_bytes() {
        b"socket_bound4" => 12,
        b"socket_bound6" => 13,
        b"socket_observe" => 3,
        b"socket_seen_in" => 0,
        b"socket_seen_out" => 1,
        _ => 36,
    }
}

/// Name of the directory of the link pins, beside that of the interfaces'.
pub const DIRECTORY: &str = "sockets";

/// The directory of the link pins.
pub fn directory_of(directory: &PinDirectory) -> PathBuf {
    directory.path().join(DIRECTORY)
}

/// Attaches each of these programs that is not, and puts the present ones in the place of others.
///
/// # Errors
/// What the kernel refuses, with the program's name.
pub fn attach(
    object: &mut Ebpf,
    directory: &PinDirectory,
    names: &[&str],
) -> Result<(), DataplaneError> {
    let dir = directory_of(directory);
    fs::create_dir_all(&dir)
        .map_err(|error| DataplaneError::kernel(format!("creating {}", dir.display()), error))?;
    let cgroup = open_cgroup()?;
    let namespace = File::open("/proc/thread-self/ns/net")
        .map_err(|error| DataplaneError::kernel("opening the network namespace", error))?;
    for name in names.iter().copied() {
        let program = load(object, name)?;
        let target = if name == program::LOOKUP {
            namespace.as_fd()
        } else {
            cgroup.as_fd()
        };
        let path = dir.join(name);
        if path.exists() {
            keep(program, &path, name)?;
        } else {
            create(program, target, &path, name)?;
        }
    }
    Ok(())
}

/// Takes all programs off; when it returns none of them sees another socket.
///
/// # Errors
/// If the kernel refuses.
pub fn detach(directory: &PinDirectory) -> Result<(), DataplaneError> {
    // The one that steers goes first, else it would steer to listeners nobody keeps count of.
    for name in program::ATTACHED.iter().rev().chain(&program::WATCHING) {
        let path = directory_of(directory).join(name);
        if path.exists() {
            detach_link(&path).map_err(|error| {
                DataplaneError::kernel(format!("detaching the link {name}"), error)
            })?;
        }
    }
    Ok(())
}

/// Loads the programs that may be attached later, while the object still holds its maps.
///
/// # Errors
/// If the kernel refuses one.
pub fn load_watching(object: &mut Ebpf) -> Result<(), DataplaneError> {
    for name in program::WATCHING {
        load(object, name)?;
    }
    Ok(())
}

/// Has the packets of all sockets looked at, or no more.
///
/// # Errors
/// What the kernel refuses, with the program's name.
pub fn watch(
    object: &mut Ebpf,
    directory: &PinDirectory,
    is_wanted: bool,
) -> Result<(), DataplaneError> {
    if is_wanted {
        return attach(object, directory, &program::WATCHING);
    }
    for name in program::WATCHING {
        let path = directory_of(directory).join(name);
        if !path.exists() {
            continue;
        }
        let failed =
            |error: io::Error| DataplaneError::kernel(format!("detaching the link {name}"), error);
        detach_link(&path).map_err(failed)?;
        // A link that is detached cannot be attached again: the next time it is a new one.
        fs::remove_file(&path).map_err(failed)?;
    }
    Ok(())
}

/// Loads the classifier that is run on demand and keeps its descriptor.
///
/// # Errors
/// If the kernel refuses it.
pub fn load_seize(object: &mut Ebpf) -> Result<OwnedFd, DataplaneError> {
    let program = load(object, program::SEIZE)?;
    let fd = program
        .fd()
        .map_err(|error| refused(program::SEIZE, &error))?;
    fd.as_fd()
        .try_clone_to_owned()
        .map_err(|error| DataplaneError::kernel("keeping a program open", error))
}

fn load<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Program, DataplaneError> {
    let program = object.program_mut(name).ok_or_else(|| missing(name))?;
    match program {
        Program::SkLookup(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        // It may be attached and taken off again any number of times.
        Program::CgroupSkb(program) => match program.fd() {
            Ok(_) => Ok(()),
            Err(_) => program.load(),
        },
        Program::SchedClassifier(program) => program.load(),
        _ => return Err(missing(name)),
    }
    .map_err(|error| refused(name, &error))?;
    Ok(program)
}

fn missing(name: &str) -> DataplaneError {
    DataplaneError::Refused(format!(
        "the kernel object has no program {name}: shifterd is built wrong"
    ))
}

fn refused(name: &str, error: &ProgramError) -> DataplaneError {
    DataplaneError::Refused(format!("loading program {name}: {}", chain(error)))
}

/// The root of cgroup v2, where every process of the host is seen.
fn open_cgroup() -> Result<File, DataplaneError> {
    let mounts = fs::read_to_string("/proc/self/mounts")
        .map_err(|error| DataplaneError::kernel("reading /proc/self/mounts", error))?;
    let root = crate::doctor::cgroup2_mount(&mounts).ok_or_else(|| {
        DataplaneError::Refused(
            "cgroup v2 is not mounted; mount it with: mount -t cgroup2 cgroup2 \
             /sys/fs/cgroup/unified"
                .into(),
        )
    })?;
    File::open(&root).map_err(|error| DataplaneError::kernel(format!("opening {root}"), error))
}

fn create(
    program: &Program,
    target: BorrowedFd<'_>,
    path: &Path,
    name: &str,
) -> Result<(), DataplaneError> {
    let failed =
        |error: io::Error| DataplaneError::kernel(format!("attaching program {name}"), error);
    let fd = program.fd().map_err(|error| refused(name, &error))?;
    let link = sys::link(fd.as_fd(), target, attach_type(name)).map_err(failed)?;
    sys::pin(link.as_fd(), path).map_err(failed)
}

/// Takes a pinned link over; replaces its program if it is not the one we bring, or works on other maps: a
/// tag does not tell these.
fn keep(program: &Program, path: &Path, name: &str) -> Result<(), DataplaneError> {
    let failed = |error: io::Error| {
        DataplaneError::kernel(format!("taking over the link {}", path.display()), error)
    };
    let own = program.info().map_err(|error| refused(name, &error))?;
    let (tag, maps) = (own.tag(), map_ids(&own));
    let is_same = aya::programs::links::PinnedLink::from_pin(path)
        .ok()
        .and_then(|link| aya::programs::links::FdLink::from(link).info().ok())
        .map(|info| info.program_id())
        .is_some_and(|id| {
            loaded_programs()
                .filter_map(Result::ok)
                .any(|found| found.id() == id && found.tag() == tag && map_ids(&found) == maps)
        });
    if is_same {
        return Ok(());
    }
    let fd = program.fd().map_err(|error| refused(name, &error))?;
    let link = sys::open_pin(path).map_err(failed)?;
    sys::replace(link.as_fd(), fd.as_fd()).map_err(failed)
}

/// Which maps a program works on, in no order; `None` if the kernel does not tell.
fn map_ids(program: &aya::programs::ProgramInfo) -> Option<BTreeSet<u32>> {
    let ids = program.map_ids().ok()??;
    Some(ids.into_iter().collect())
}
