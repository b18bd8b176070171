//! A dataplane with other maps takes the place of the one that is pinned, which may be of an older or of
//! a newer version.
//!
//! 1. Aside: new maps, filled with everything that only a daemon writes. Whatever cannot be said in
//!    them is found here, while nothing has changed.
//! 2. The old programs become the predecessors of the new ones: a packet of a flow that the new maps do
//!    not know goes on to the old program, in the same run.
//! 3. The directories change their names, and the links their programs: replies first, so that no flow
//!    is opened that the programs for replies do not know. From here on new flows are opened in the new
//!    maps only, and old ones go on in the old maps.
//! 4. Flows are copied one by one. From its copy on a flow is the new maps' in both directions.
//! 5. What the old programs changed between a copy's reading and its writing is added. Counters move.
//! 6. The predecessors are let go and the old directory is removed.
//!
//! Killed anywhere before 3 nothing has happened; anywhere after it every packet still finds its flow,
//! and the next start goes on at 3.

use std::{
    collections::BTreeSet,
    io,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use aya::Ebpf;
use nix::libc;
use shifter_common::{
    abi::{LAYOUT_LEN_BYTES, map, predecessor, program},
    layout::Content,
    steering::SteeringWord,
};

use super::{
    super::{
        DataplaneError,
        layout::{Carrier, Description, own_text},
    },
    carry::Carried,
    directory::{PinDirectory, Pinned},
    grace_period,
    links::{self, Link},
    load,
    raw::RawMap,
    rehearsal, socket, sys,
};
use crate::model::NodeSpec;

/// Why an element or a whole dataplane cannot be carried over.
#[derive(Debug)]
pub struct Why(pub String);

impl From<io::Error> for Why {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<String> for Why {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// A pinned dataplane and the way from its maps to ours.
pub struct Source {
    path: PathBuf,
    /// What it says about its maps.
    description: Description,
    /// By map, for those that both versions have.
    carriers: Vec<(&'static str, Carrier)>,
}

/// What a pinned dataplane says about itself; `None` if it says nothing.
///
/// # Errors
/// If it cannot be read.
pub fn description(path: &Path) -> io::Result<Option<String>> {
    let pin = path.join("maps").join(map::LAYOUT);
    if !pin.exists() {
        return Ok(None);
    }
    let text = RawMap::open(&pin)?.get(&0_u32.to_ne_bytes())?;
    let text = text.unwrap_or_default();
    let len_bytes = text.iter().position(|byte| *byte == 0);
    let text = &text[..len_bytes.unwrap_or(text.len())];
    Ok(Some(String::from_utf8_lossy(text).into_owned()))
}

/// Writes what our maps hold into a directory of them.
///
/// # Errors
/// If the kernel refuses.
pub fn describe(directory: &PinDirectory) -> Result<(), DataplaneError> {
    let mut text = own_text().into_bytes();
    text.resize(LAYOUT_LEN_BYTES, 0);
    RawMap::open(&directory.map(map::LAYOUT))
        .and_then(|map| map.set(&0_u32.to_ne_bytes(), &text, 0))
        .map_err(|error| DataplaneError::kernel("writing LAYOUT", error))
}

/// The refusal of a dataplane that stays in force.
pub fn refuse(path: &Path, why: &str) -> DataplaneError {
    DataplaneError::Refused(format!(
        "{} was left by another version of shifterd and cannot be taken over: {why}; it goes on \
         steering: start the version that made it again, or end it and its connections with: \
         shifterd --detach --force",
        path.display()
    ))
}

impl Source {
    /// # Errors
    /// If it does not describe itself, or not in a way that leads to our maps.
    pub fn open(path: &Path) -> Result<Self, DataplaneError> {
        let no = |why: &str| refuse(path, why);
        let text = description(path).map_err(|error| no(&format!("reading LAYOUT: {error}")))?;
        let text = text.ok_or_else(|| no("it does not say what its maps hold"))?;
        let old = Description::parse(&text).map_err(|why| no(&why))?;
        let own = Description::parse(&own_text()).map_err(|why| no(&why))?;
        let mut carriers = Vec::new();
        for map in shifter_common::layout::ALL {
            if let (Some(old), Some(new)) = (old.maps.get(map.map), own.maps.get(map.map)) {
                let carrier = Carrier::between(old, new);
                let carrier = carrier.map_err(|why| no(&format!("{}: {why}", map.map)))?;
                carriers.push((map.map, carrier));
            }
        }
        Ok(Self {
            path: path.to_owned(),
            description: old,
            carriers,
        })
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One of its maps.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn map(&self, name: &str) -> Result<RawMap, DataplaneError> {
        open(&self.path.join("maps").join(name), name)
    }

    fn of(&self, content: Content) -> impl Iterator<Item = (&'static str, &Carrier)> {
        self.carriers
            .iter()
            .filter(move |(_, carrier)| carrier.content == content)
            .map(|(name, carrier)| (*name, carrier))
    }

    /// The carrier of a map.
    pub fn carrier(&self, name: &str) -> Option<&Carrier> {
        let found = self.carriers.iter().find(|(known, _)| *known == name);
        found.map(|(_, carrier)| carrier)
    }

    /// Sets a field of one byte in those elements of one of its maps that `choose` has a value for.
    ///
    /// # Errors
    /// If it has no such field, or the kernel refuses.
    pub fn change<K: aya::Pod>(
        &self,
        name: &str,
        field: &str,
        choose: impl Fn(K) -> Option<u8>,
    ) -> Result<(), Why> {
        let missing = || Why(format!("{name}: {field} is missing there"));
        let carrier = self.carrier(name).ok_or_else(missing)?;
        let fields = self.description.maps.get(name).map(|map| &map.value);
        let place = fields
            .and_then(|fields| fields.iter().find(|known| known.name == field))
            .filter(|field| field.len_bytes == 1)
            .ok_or_else(missing)?
            .offset_bytes;
        let map = self.map(name).map_err(|error| Why(error.to_string()))?;
        let mut changed = Vec::new();
        map.for_each(|key, value| -> Result<(), Why> {
            let own = carrier.key(key)?.ok_or_else(missing)?;
            if let Some(byte) = choose(from_bytes(&own)?) {
                let mut value = value.to_vec();
                *value.get_mut(place).ok_or_else(missing)? = byte;
                changed.push((key.to_vec(), value));
            }
            Ok(())
        })?;
        for (key, value) in changed {
            map.set(&key, &value, 0)?;
        }
        Ok(())
    }

    /// Copies what only a daemon writes.
    fn copy_state(&self, directory: &PinDirectory) -> Result<(), DataplaneError> {
        for (name, carrier) in self.of(Content::State) {
            let old = self.map(name)?;
            let new = open(&directory.map(name), name)?;
            old.for_each(|key, value| -> Result<(), Why> {
                if value.iter().all(|byte| *byte == 0) {
                    return Ok(());
                }
                let Some(new_key) = carrier.key(key)? else {
                    return Ok(());
                };
                let new_value = carrier.value(value)?;
                new.set(&new_key, &new_value, 0).map_err(|error| {
                    if error.raw_os_error() == Some(libc::E2BIG) {
                        Why(format!(
                            "the node file's [tables] give it {} places, which are too few",
                            new.capacity_count
                        ))
                    } else {
                        error.into()
                    }
                })
            })
            .map_err(|Why(why)| refuse(&self.path, &format!("{name}: {why}")))?;
        }
        Ok(())
    }

    /// Whether all flows can be said in our maps, and find room there.
    fn check_flows(&self, directory: &PinDirectory) -> Result<(), DataplaneError> {
        for (name, carrier) in self.of(Content::Flows) {
            let capacity_count = open(&directory.map(name), name)?.capacity_count;
            let mut count = 0_u32;
            self.map(name)?
                .for_each(|key, value| -> Result<(), Why> {
                    carrier.key(key)?;
                    carrier.value(value)?;
                    count = count.saturating_add(1);
                    Ok(())
                })
                .and_then(|()| {
                    if count <= capacity_count {
                        return Ok(());
                    }
                    Err(Why(format!(
                        "it has {count} flows, the node file's [tables] room for {capacity_count}"
                    )))
                })
                .map_err(|Why(why)| refuse(&self.path, &format!("{name}: {why}")))?;
        }
        Ok(())
    }

    /// Takes over what the kernel took out of traffic since the state was copied.
    fn take_trips(&self, directory: &PinDirectory) -> Result<(), DataplaneError> {
        let Some(carrier) = self.carrier(map::STEERING) else {
            return Ok(());
        };
        let new = open(&directory.map(map::STEERING), map::STEERING)?;
        self.map(map::STEERING)?
            .for_each(|key, value| -> Result<(), Why> {
                let Some(new_key) = carrier.key(key)? else {
                    return Ok(());
                };
                let old = SteeringWord(from_bytes(&carrier.value(value)?)?);
                let own = match new.get(&new_key)? {
                    Some(own) => SteeringWord(from_bytes(&own)?),
                    None => return Ok(()),
                };
                if !old.tripped() || own.tripped() || own.weight_bp() == 0 {
                    return Ok(());
                }
                // No daemon writes yet, and a trip of ours would store the same.
                Ok(new.set(&new_key, &own.after_trip().0.to_ne_bytes(), EXISTING)?)
            })
            .map_err(|Why(why)| refuse(&self.path, &format!("STEERING: {why}")))
    }

    /// Adds the counters to ours and sets them to zero.
    fn move_counters(&self, directory: &PinDirectory) -> Result<(), DataplaneError> {
        for (name, carrier) in self.of(Content::Counters) {
            let old = self.map(name)?;
            let new = open(&directory.map(name), name)?;
            old.for_each(|key, value| -> Result<(), Why> {
                if value.iter().all(|byte| *byte == 0) {
                    return Ok(());
                }
                let Some(new_key) = carrier.key(key)? else {
                    return Ok(());
                };
                let mut sum = Vec::new();
                let stride = value.len() / old.copies_count;
                for copy in value.chunks_exact(stride.max(1)) {
                    let copy = copy.get(..carrier.old_value_len_bytes()).unwrap_or(copy);
                    sum.extend(carrier.value(copy)?);
                }
                old.set(key, &vec![0; value.len()], 0)?;
                let Some(now) = new.get(&new_key)? else {
                    return Ok(());
                };
                for (sum, now) in sum.chunks_exact_mut(8).zip(now.chunks_exact(8)) {
                    let number = counter(sum).wrapping_add(counter(now));
                    sum.copy_from_slice(&number.to_ne_bytes());
                }
                Ok(new.set(&new_key, &sum, EXISTING)?)
            })
            .map_err(|Why(why)| refuse(&self.path, &format!("{name}: {why}")))?;
        }
        Ok(())
    }
}

/// Elements of an array always exist.
const EXISTING: u64 = 0;

fn counter(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_ne_bytes)
}

/// Opens a pinned map.
///
/// # Errors
/// If it is missing or no map.
pub fn open(pin: &Path, name: &str) -> Result<RawMap, DataplaneError> {
    RawMap::open(pin)
        .map_err(|error| DataplaneError::kernel(format!("opening the pin of {name}"), error))
}

/// Replaces what is pinned by a dataplane of ours. Gives the object, with its programs loaded.
///
/// # Errors
/// If that cannot be done; what was in force then still is.
pub fn succeed(
    directory: &mut PinDirectory,
    node: &NodeSpec,
    pinned: &Pinned,
) -> Result<Ebpf, DataplaneError> {
    let paths = pinned.in_force.iter().chain(&pinned.former);
    let sources: Vec<Source> = paths
        .map(|path| Source::open(path))
        .collect::<Result<_, _>>()?;
    directory.begin()?;
    let outcome = build(directory, node, &sources);
    let mut object = match outcome {
        Ok(object) => object,
        Err(error) => {
            directory.give_up()?;
            return Err(error);
        }
    };
    rehearsal::place("built")?;
    let former = directory.succeed(pinned)?;
    rehearsal::place("committed")?;
    if let Err((error, is_as_before)) = turn(&mut object, directory, &former) {
        if is_as_before {
            directory.step_back(&former)?;
        }
        return Err(error);
    }
    carry(directory, &former)?;
    Ok(object)
}

/// Goes on where a start was killed.
///
/// # Errors
/// If the kernel refuses; what is in force stays.
pub fn resume(
    directory: &PinDirectory,
    object: &mut Ebpf,
    former: &[PathBuf],
) -> Result<(), DataplaneError> {
    turn(object, directory, former).map_err(|(error, _)| error)?;
    carry(directory, former)
}

/// Step 1 and 2.
fn build(
    directory: &PinDirectory,
    node: &NodeSpec,
    sources: &[Source],
) -> Result<Ebpf, DataplaneError> {
    if let Some(latest) = sources.first() {
        socket::inherit(&latest.path, directory, &node.sizes)?;
    }
    let mut object = load(directory, node)?;
    describe(directory)?;
    // Only the latest one was written by a daemon until now.
    if let Some(latest) = sources.first() {
        latest.copy_state(directory)?;
    }
    let mut all_links = Vec::new();
    for source in sources {
        source.check_flows(directory)?;
        all_links.extend(Link::all(&source.path.join("links"))?);
    }
    let names: BTreeSet<&str> = all_links
        .iter()
        .map(|link| link.info.name.as_str())
        .collect();
    for name in names {
        if object.program(name).is_some() {
            links::load_program(&mut object, name)?;
        }
    }
    for (name, array, index) in [
        (
            program::XDP_INGRESS,
            map::XDP_PREDECESSOR,
            predecessor::INGRESS,
        ),
        (
            program::TC_INGRESS,
            map::TC_PREDECESSOR,
            predecessor::INGRESS,
        ),
        (program::TC_EGRESS, map::TC_PREDECESSOR, predecessor::EGRESS),
    ] {
        // After a replacement that was not finished links run programs of several dataplanes; the
        // latest one asks the others itself.
        let links = all_links.iter().filter(|link| link.info.name == name);
        if let Some(link) = links.max_by_key(|link| link.program_id) {
            let number = link.program.as_raw_fd().to_ne_bytes();
            open(&directory.map(array), array)?
                .set(&index.to_ne_bytes(), &number, 0)
                .map_err(|error| {
                    DataplaneError::kernel(format!("entering {name} into {array}"), error)
                })?;
        }
    }
    Ok(object)
}

/// Step 3, the links. The error comes with whether all links are as they were.
fn turn(
    object: &mut Ebpf,
    directory: &PinDirectory,
    former: &[PathBuf],
) -> Result<(), (DataplaneError, bool)> {
    let mut ours = Vec::new();
    let mut strays = Vec::new();
    for path in former {
        for link in Link::all(&path.join("links")).map_err(|error| (error, true))? {
            if object.program(&link.info.name).is_some() {
                ours.push(link);
            } else {
                strays.push(link);
            }
        }
    }
    for link in &ours {
        links::load_program(object, &link.info.name).map_err(|error| (error, true))?;
    }
    links::replace(object, &mut ours)?;
    rehearsal::place("turned").map_err(|error| (error, false))?;
    links::move_pins(&mut ours, &directory.links()).map_err(|error| (error, false))?;
    socket::move_links(former, directory).map_err(|error| (error, false))?;
    for link in strays {
        let name = link.name();
        tracing::warn!(
            "the link {name} is detached: this version has no {}",
            link.info.name
        );
        sys::detach_link(&link.pin).map_err(|error| {
            let error = DataplaneError::kernel(format!("detaching the link {name}"), error);
            (error, false)
        })?;
    }
    Ok(())
}

/// Steps 4 to 6.
fn carry(directory: &PinDirectory, former: &[PathBuf]) -> Result<(), DataplaneError> {
    let wait = grace_period;
    // No old program that opens flows runs any more.
    wait()?;
    for path in former {
        let source = Source::open(path)?;
        let mut carried = Carried::open(&source, directory)?;
        carried.copy()?;
        rehearsal::place("copied")?;
        // A program that had found an old entry when its copy was not there yet has ended.
        wait()?;
        carried.settle()?;
        rehearsal::place("settled")?;
        source.take_trips(directory)?;
        source.move_counters(directory)?;
        rehearsal::place("counted")?;
        tracing::info!("{} is replaced: {}", path.display(), carried.summary());
    }
    for (array, index) in [
        (map::XDP_PREDECESSOR, predecessor::INGRESS),
        (map::TC_PREDECESSOR, predecessor::INGRESS),
        (map::TC_PREDECESSOR, predecessor::EGRESS),
    ] {
        open(&directory.map(array), array)?
            .remove(&index.to_ne_bytes())
            .map_err(|error| DataplaneError::kernel(format!("emptying {array}"), error))?;
    }
    rehearsal::place("alone")?;
    for path in former {
        directory.forget(path)?;
    }
    Ok(())
}

/// A value of ours from the bytes of a map.
pub fn from_bytes<T: aya::Pod>(bytes: &[u8]) -> Result<T, Why> {
    if bytes.len() != size_of::<T>() {
        return Err(Why(format!(
            "{} bytes instead of {}",
            bytes.len(),
            size_of::<T>()
        )));
    }
    // SAFETY: every bit pattern is a value of such a type, and the length is right.
    Ok(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// The bytes of a value of ours.
pub fn to_bytes<T: aya::Pod>(value: &T) -> &[u8] {
    // SAFETY: such a type has no padding, so all its bytes are initialised; they live as long as it.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}
