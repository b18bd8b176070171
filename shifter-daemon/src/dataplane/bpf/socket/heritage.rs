//! What the socket plane keeps when another build takes over: its maps themselves, because tags hang
//! on living sockets and listeners stand in a map that user space cannot copy, and its links.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::maps::MapData;
use shifter_common::{
    abi::VipKey,
    socket::{
        BackendSockets, Capture, LookupVerdict, SOCKETS_PER_BACKEND, SocketCounters, SocketOwner,
        SocketTag, host, map, program,
    },
};

use super::{
    super::{super::DataplaneError, directory::PinDirectory, maps::map_error},
    sys,
};
use crate::model::SizeSpec;

/// The maps that mean something only together: listeners, who may be selected, and whose they are.
const TOGETHER: [&str; 5] = [
    map::LISTENERS,
    map::BACKEND_SOCKETS,
    map::CAPTURES,
    map::SOCKET_TAGS,
    map::SOCKET_OWNERS,
];

/// Bytes of a key and of a value, and places. A map whose values change their meaning and not their
/// length must take another name.
type Shape = (usize, usize, u32);

fn shape(name: &str, sizes: &SizeSpec) -> Shape {
    let backends_count = sizes.backends_count;
    match name {
        map::LISTENERS => (4, 8, backends_count * SOCKETS_PER_BACKEND),
        map::BACKEND_SOCKETS => (4, size_of::<BackendSockets>(), backends_count),
        map::CAPTURES => (
            size_of::<VipKey>(),
            size_of::<Capture>(),
            backends_count * 3,
        ),
        map::SOCKET_TAGS => (4, size_of::<SocketTag>(), 0),
        map::SOCKET_OWNERS => (4, size_of::<SocketOwner>(), 0),
        map::SOCKET_COUNTERS => (4, size_of::<SocketCounters>(), sizes.services_count * 2),
        map::LOOKUP_VERDICTS => (4, 8, LookupVerdict::COUNT),
        map::HOST => (4, 8, host::COUNT),
        // A ring has neither keys nor values.
        _ => (0, 0, 64 << 10),
    }
}

fn pinned_shape(pin: &Path, name: &str) -> Result<Option<Shape>, DataplaneError> {
    if !pin.exists() {
        return Ok(None);
    }
    let info = MapData::from_pin(pin)
        .and_then(|map| map.info())
        .map_err(|error| map_error(format!("opening the pin of {name}"), error))?;
    let (key, value) = (info.key_size() as usize, info.value_size() as usize);
    Ok(Some((key, value, info.max_entries())))
}

/// Takes the maps of another dataplane into one that is being built. What does not fit starts empty:
/// then listeners are captured anew, and connections from before count for nobody.
///
/// # Errors
/// If the kernel refuses.
pub fn inherit(
    from: &Path,
    directory: &PinDirectory,
    sizes: &SizeSpec,
) -> Result<(), DataplaneError> {
    let pin_of = |name: &str| from.join("maps").join(name);
    let fits = |name: &str| {
        pinned_shape(&pin_of(name), name).map(|found| found == Some(shape(name, sizes)))
    };
    let mut fit_together = true;
    for name in TOGETHER {
        fit_together &= fits(name)?;
    }
    if !fit_together && pin_of(map::LISTENERS).exists() {
        tracing::warn!(
            "the socket plane of {} has other tables: listeners are captured anew, and new \
             connections wait until they are",
            from.display()
        );
    }
    for name in map::ALL {
        let is_kept = if TOGETHER.contains(&name) {
            fit_together
        } else {
            fits(name)?
        };
        if is_kept {
            pin_again(&pin_of(name), &directory.map(name)).map_err(|error| {
                DataplaneError::kernel(format!("taking over the map {name}"), error)
            })?;
        }
    }
    Ok(())
}

fn pin_again(from: &Path, to: &Path) -> io::Result<()> {
    use std::os::fd::AsFd as _;
    sys::pin(sys::open_pin(from)?.as_fd(), to)
}

/// Lets go of maps of our own directory that are of an earlier build with the same name and other
/// values: they are made anew.
///
/// # Errors
/// If the kernel refuses.
pub fn let_misfits_go(directory: &PinDirectory, sizes: &SizeSpec) -> Result<(), DataplaneError> {
    let is_misfit = |name: &str| {
        let (key, value, _) = shape(name, sizes);
        let found = pinned_shape(&directory.map(name), name)?;
        Ok::<_, DataplaneError>(found.is_some_and(|(k, v, _)| (k, v) != (key, value)))
    };
    let mut misfits = Vec::new();
    for name in map::ALL {
        if is_misfit(name)? {
            misfits.push(name);
        }
    }
    if misfits.iter().any(|name| TOGETHER.contains(name)) {
        misfits.retain(|name| !TOGETHER.contains(name));
        misfits.extend(TOGETHER);
    }
    for name in misfits {
        tracing::warn!("{name} is of an earlier build: it starts anew");
        match fs::remove_file(directory.map(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(DataplaneError::kernel(format!("removing {name}"), error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Moves the links of replaced dataplanes to ours, where their programs are replaced. Until then the
/// old ones run on, over the same maps.
///
/// # Errors
/// If the kernel refuses.
pub fn move_links(former: &[PathBuf], directory: &PinDirectory) -> Result<(), DataplaneError> {
    let own = super::links::directory_of(directory);
    for from in former.iter().map(|path| path.join(super::links::DIRECTORY)) {
        for name in program::ATTACHED {
            let (old, new) = (from.join(name), own.join(name));
            if !old.exists() || new.exists() {
                continue;
            }
            let moved = fs::create_dir_all(&own).and_then(|()| fs::rename(&old, &new));
            moved.map_err(|error| {
                DataplaneError::kernel(format!("taking over the link {name}"), error)
            })?;
        }
    }
    Ok(())
}
