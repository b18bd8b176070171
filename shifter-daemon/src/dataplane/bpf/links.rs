//! Pinned links, whatever they attach: which program each runs, and another one in its place.

use std::{
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use aya::{Ebpf, programs::Program};
use nix::libc;
use shifter_common::abi::program;

use super::{
    super::DataplaneError,
    chain,
    raw::{self, ProgramInfo},
    rehearsal,
};

/// A pinned link.
pub struct Link {
    /// Its pin.
    pub pin: PathBuf,
    fd: OwnedFd,
    /// The program it runs.
    pub program: OwnedFd,
    /// Id of that program; later loaded ones have larger ones.
    pub program_id: u32,
    /// What the kernel says about that program.
    pub info: ProgramInfo,
    /// Name of the program it should run: that of the one it runs, unless somebody knows better.
    pub wanted: String,
}

impl Link {
    /// Opens a pin. `None` if what it attached to is gone, and its program with it.
    ///
    /// # Errors
    /// If it is no link, or the kernel does not answer.
    pub fn open(pin: PathBuf) -> Result<Option<Self>, DataplaneError> {
        let failed =
            |error| DataplaneError::kernel(format!("opening the link {}", pin.display()), error);
        let fd = raw::open_pin(&pin).map_err(failed)?;
        let program_id = raw::program_of_link(fd.as_fd()).map_err(failed)?;
        match raw::program(program_id) {
            Ok((program, info)) => Ok(Some(Self {
                pin,
                fd,
                program,
                program_id,
                wanted: info.name.clone(),
                info,
            })),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// All links of a directory, in the order of their names.
    ///
    /// # Errors
    /// If one cannot be opened.
    pub fn all(directory: &Path) -> Result<Vec<Self>, DataplaneError> {
        let mut links = Vec::new();
        for pin in pins(directory)? {
            links.extend(Self::open(pin)?);
        }
        Ok(links)
    }

    /// Its name.
    pub fn name(&self) -> String {
        name(&self.pin)
    }
}

/// The pins of a directory, in the order of their names.
///
/// # Errors
/// If it cannot be read.
pub fn pins(directory: &Path) -> Result<Vec<PathBuf>, DataplaneError> {
    let failed = |error| DataplaneError::kernel(format!("reading {}", directory.display()), error);
    let mut pins = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        pins.push(entry.map_err(failed)?.path());
    }
    pins.sort_unstable();
    Ok(pins)
}

/// Name of a pin.
pub fn name(pin: &Path) -> String {
    pin.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Loads a program, unless that was done before. Gives its tag, the kernel's digest of its
/// instructions.
///
/// # Errors
/// If the object does not have it, or the kernel refuses it.
pub fn load_program(object: &mut Ebpf, name: &str) -> Result<u64, DataplaneError> {
    let program = object.program_mut(name).ok_or_else(|| missing(name))?;
    let is_loaded = program.fd().is_ok();
    let loaded = match program {
        _ if is_loaded => Ok(()),
        Program::Xdp(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        Program::CgroupSkb(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::SkLookup(program) => program.load(),
        _ => return Err(missing(name)),
    };
    loaded
        .and_then(|()| program.info())
        .map(|info| info.tag())
        .map_err(|error| {
            DataplaneError::Refused(format!(
                "loading program {name}: {}; see what the kernel lacks with: shifterctl doctor",
                chain(&error)
            ))
        })
}

/// The tags of all programs that are loaded, in the order of their names.
pub fn tags(object: &Ebpf) -> Vec<(String, u64)> {
    let loaded = object.programs().filter_map(|(name, program)| {
        program.fd().ok()?;
        Some((name.to_owned(), program.info().ok()?.tag()))
    });
    let mut tags: Vec<_> = loaded.collect();
    tags.sort_unstable();
    tags
}

/// The descriptor of a loaded program.
///
/// # Errors
/// If it is not loaded.
pub fn loaded<'a>(object: &'a Ebpf, name: &str) -> Result<BorrowedFd<'a>, DataplaneError> {
    let program = object.program(name).ok_or_else(|| missing(name))?;
    let fd = program.fd().map_err(|error| {
        DataplaneError::Refused(format!("program {name} is not loaded: {}", chain(&error)))
    })?;
    Ok(fd.as_fd())
}

pub fn missing(name: &str) -> DataplaneError {
    DataplaneError::Refused(format!(
        "the kernel object has no program {name}: shifterd is built wrong"
    ))
}

/// The order in which links take new programs. Replies first: until a new program opens flows, there
/// are none that the old programs for replies would have to know.
fn rank(program_name: &str) -> u8 {
    match program_name {
        program::TC_EGRESS => 0,
        program::XDP_INGRESS | program::TC_INGRESS => 2,
        _ => 1,
    }
}

/// Gives links the object's programs that they should run, which are loaded. If one link refuses, those before it get back what they had.
///
/// # Errors
/// The refusal, with what became of the other links, and whether all are as they were.
pub fn replace(object: &Ebpf, links: &mut [Link]) -> Result<(), (DataplaneError, bool)> {
    links.sort_by_key(|link| (rank(&link.wanted), link.name()));
    let mut done: Vec<&Link> = Vec::new();
    for link in &*links {
        let outcome = rehearsal::place(&format!("replacing-{}", done.len()))
            .and_then(|()| put(link, loaded(object, &link.wanted)?));
        if let Err(error) = outcome {
            return Err(take_back(&done, &error));
        }
        done.push(link);
    }
    Ok(())
}

fn put(link: &Link, program: BorrowedFd<'_>) -> Result<(), DataplaneError> {
    match raw::update_link(link.fd.as_fd(), program) {
        // The interface went away a moment ago: no packet can come by it.
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(()),
        Err(error) => Err(DataplaneError::kernel(
            format!("putting another program at the link {}", link.name()),
            error,
        )),
        Ok(()) => Ok(()),
    }
}

/// Gives links their old programs back, and says what came of it.
fn take_back(done: &[&Link], cause: &DataplaneError) -> (DataplaneError, bool) {
    let mut kept: Vec<String> = Vec::new();
    for link in done.iter().rev() {
        if let Err(error) = put(link, link.program.as_fd()) {
            kept.push(format!("{} ({error})", link.name()));
        }
    }
    let is_as_before = kept.is_empty();
    let error = DataplaneError::Refused(if is_as_before {
        format!("{cause}; every link runs the program it ran before")
    } else {
        format!(
            "{cause}; these links run the new program all the same: {}; start shifterd again to \
             replace the others, or: shifterd --detach --force",
            kept.join(", ")
        )
    });
    (error, is_as_before)
}

/// Moves pins to another directory; the links do not notice.
///
/// # Errors
/// If the kernel refuses.
pub fn move_pins(links: &mut [Link], directory: &Path) -> Result<(), DataplaneError> {
    for link in links {
        let target = directory.join(link.name());
        if target == link.pin {
            continue;
        }
        fs::rename(&link.pin, &target).map_err(|error: io::Error| {
            let (from, to) = (link.pin.display(), target.display());
            DataplaneError::kernel(format!("renaming {from} to {to}"), error)
        })?;
        link.pin = target;
    }
    Ok(())
}
