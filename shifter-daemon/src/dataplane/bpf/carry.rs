//! Flows on their way from one dataplane's tables to another's, while packets of them go on.

use std::collections::HashMap;

use shifter_common::{
    abi::{FlowEntry, map},
    tcp::Phase,
};

use super::{
    super::{DataplaneError, layout::Carrier},
    directory::PinDirectory,
    raw::{EXIST, NOEXIST, RawMap},
    rehearsal,
    succession::{Source, Why, from_bytes, open, refuse, to_bytes},
};

/// How far the numbers of one connection can be apart: no window in use is larger.
const WINDOW_MAX_BYTES: u32 = 1 << 22;

/// The two tables of two dataplanes.
pub struct Carried<'a> {
    source: &'a Source,
    /// Handshakes first: a flow that is established meanwhile is then seen twice, never not at all.
    pending: Option<Table<'a>>,
    flows: Option<Table<'a>>,
    counts: Counts,
}

/// One table of both.
struct Table<'a> {
    carrier: &'a Carrier,
    old: RawMap,
    new: RawMap,
    /// Old values by old key, as they were when they were copied.
    copied: HashMap<Vec<u8>, Vec<u8>>,
}

#[derive(Default)]
struct Counts {
    copied: u64,
    settled: u64,
    /// Flows that another connection on the same ports has replaced, and that is right.
    outdated: u64,
    lost: u64,
}

/// An element, in the old form or in ours.
struct Element {
    key: Vec<u8>,
    value: Vec<u8>,
}

impl<'a> Table<'a> {
    fn open(
        source: &'a Source,
        directory: &PinDirectory,
        name: &str,
    ) -> Result<Option<Self>, DataplaneError> {
        let Some(carrier) = source.carrier(name) else {
            return Ok(None);
        };
        Ok(Some(Self {
            carrier,
            old: source.map(name)?,
            new: open(&directory.map(name), name)?,
            copied: HashMap::new(),
        }))
    }

    fn convert(&self, key: &[u8], value: &[u8]) -> Result<Element, Why> {
        let key = self.carrier.key(key)?;
        let key = key.ok_or_else(|| Why("a key without a place".into()))?;
        let value = self.carrier.value(value)?;
        Ok(Element { key, value })
    }

    fn keys(&self) -> Result<Vec<Vec<u8>>, Why> {
        let mut keys = Vec::new();
        self.old.for_each(|key, _| -> Result<(), Why> {
            keys.push(key.to_vec());
            Ok(())
        })?;
        Ok(keys)
    }

    /// Elements that have changed since they were copied, or were not.
    fn changed(&self) -> Result<Vec<Element>, Why> {
        let mut changed = Vec::new();
        self.old.for_each(|key, value| -> Result<(), Why> {
            if self.copied.get(key).map(Vec::as_slice) != Some(value) {
                changed.push(Element {
                    key: key.to_vec(),
                    value: value.to_vec(),
                });
            }
            Ok(())
        })?;
        Ok(changed)
    }

    /// Brings our element up to what the old one became. Says whether there is one.
    fn bring_up(&self, old_key: &[u8], last: &Element) -> Result<bool, Why> {
        let Some(now) = self.new.get(&last.key)? else {
            return Ok(false);
        };
        let copied = self.copied.get(old_key);
        let copied = copied.map(|value| self.carrier.value(value)).transpose()?;
        let joined = if copied.as_ref() == Some(&now) {
            last.value.clone()
        } else {
            let joined = join(from_bytes(&now)?, &from_bytes(&last.value)?);
            to_bytes(&joined).to_vec()
        };
        if joined != now {
            self.new.try_set(&last.key, &joined, EXIST)?;
        }
        Ok(true)
    }
}

impl<'a> Carried<'a> {
    /// Opens the tables.
    ///
    /// # Errors
    /// If one cannot be opened.
    pub fn open(source: &'a Source, directory: &PinDirectory) -> Result<Self, DataplaneError> {
        Ok(Self {
            source,
            pending: Table::open(source, directory, map::PENDING)?,
            flows: Table::open(source, directory, map::FLOWS)?,
            counts: Counts::default(),
        })
    }

    /// Copies every flow that our tables do not know. Each is read just before it is written, because
    /// packets may change it meanwhile; `settle` finds what they did.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn copy(&mut self) -> Result<(), DataplaneError> {
        self.copy_all().map_err(|Why(why)| self.source.refuse(&why))
    }

    fn copy_all(&mut self) -> Result<(), Why> {
        let Self {
            pending: Some(pending),
            flows: Some(flows),
            counts,
            ..
        } = self
        else {
            return Ok(());
        };
        for key in pending.keys()? {
            let Some(value) = pending.old.get(&key)? else {
                continue;
            };
            let Ok(element) = pending.convert(&key, &value) else {
                counts.lost += 1;
                continue;
            };
            if flows.new.get(&element.key)?.is_none()
                && pending.new.try_set(&element.key, &element.value, NOEXIST)?
            {
                pending.copied.insert(key, value);
                counts.copied += 1;
            }
        }
        for (place, key) in flows.keys()?.into_iter().enumerate() {
            if place == 3 {
                rehearsal::place("copying").map_err(|error| Why(error.to_string()))?;
            }
            let Some(value) = flows.old.get(&key)? else {
                continue;
            };
            let Ok(element) = flows.convert(&key, &value) else {
                counts.lost += 1;
                continue;
            };
            let is_own_handshake = pending.copied.contains_key(&key);
            if !is_own_handshake && pending.new.get(&element.key)?.is_some() {
                // The client has begun a new connection on these ports.
                counts.outdated += 1;
                continue;
            }
            if place == 0 {
                rehearsal::place("read").map_err(|error| Why(error.to_string()))?;
            }
            if !flows.new.try_set(&element.key, &element.value, NOEXIST)? {
                continue;
            }
            if is_own_handshake {
                pending.new.remove(&element.key)?;
            } else if pending.new.get(&element.key)?.is_some() {
                // It has begun between the two calls.
                flows.new.remove(&element.key)?;
                counts.outdated += 1;
                continue;
            }
            flows.copied.insert(key, value);
            counts.copied += 1;
        }
        Ok(())
    }

    /// Adds what the old programs still changed in their own tables. They change no flow any more that
    /// ours know.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn settle(&mut self) -> Result<(), DataplaneError> {
        self.settle_all()
            .map_err(|Why(why)| self.source.refuse(&why))
    }

    fn settle_all(&mut self) -> Result<(), Why> {
        let Self {
            pending: Some(pending),
            flows: Some(flows),
            counts,
            ..
        } = self
        else {
            return Ok(());
        };
        for Element { key, value } in pending.changed()? {
            let Ok(last) = pending.convert(&key, &value) else {
                continue;
            };
            if !pending.bring_up(&key, &last)?
                && !pending.copied.contains_key(&key)
                && flows.new.get(&last.key)?.is_none()
            {
                pending.new.try_set(&last.key, &last.value, NOEXIST)?;
            }
            counts.settled += 1;
        }
        for Element { key, value } in flows.changed()? {
            let Ok(last) = flows.convert(&key, &value) else {
                continue;
            };
            counts.settled += 1;
            if flows.bring_up(&key, &last)? || flows.copied.contains_key(&key) {
                continue;
            }
            let is_own_handshake = pending.copied.contains_key(&key);
            let is_handshake = pending.new.get(&last.key)?.is_some();
            // A handshake that was copied and then completed in the old tables moves on here too.
            if is_own_handshake || !is_handshake {
                flows.new.try_set(&last.key, &last.value, NOEXIST)?;
                pending.new.remove(&last.key)?;
            }
        }
        Ok(())
    }

    /// What was done, in words.
    pub fn summary(&self) -> String {
        let Counts {
            copied,
            settled,
            outdated,
            lost,
        } = self.counts;
        let mut text = format!("{copied} flows carried over, {settled} looked at again");
        if outdated > 0 {
            text += &format!(", {outdated} left behind for newer ones on the same ports");
        }
        if lost > 0 {
            text += &format!(", {lost} lost: they cannot be said in the new tables");
        }
        text
    }
}

impl Source {
    fn refuse(&self, why: &str) -> DataplaneError {
        refuse(self.path(), why)
    }
}

/// What two tables know about one connection. If they speak of two, `new` is right.
fn join(new: FlowEntry, old: &FlowEntry) -> FlowEntry {
    let distance = |one: u32, other: u32| one.wrapping_sub(other).min(other.wrapping_sub(one));
    let is_same = new.backend == old.backend
        && new.backend_port == old.backend_port
        && distance(new.next_from_client, old.next_from_client) < WINDOW_MAX_BYTES;
    if !is_same {
        return new;
    }
    let later = |one: u32, other: u32| {
        if (one.wrapping_sub(other) as i32) < 0 {
            other
        } else {
            one
        }
    };
    // A handshake without an answer has no number of the backend yet.
    let next_from_backend = match (new.next_from_backend, old.next_from_backend) {
        (0, known) | (known, 0) => known,
        (one, other) => later(one, other),
    };
    FlowEntry {
        phase: join_phase(new.phase, old.phase),
        last_seen_ticks: new.last_seen_ticks.max(old.last_seen_ticks),
        next_from_client: later(new.next_from_client, old.next_from_client),
        next_from_backend,
        ..new
    }
}

/// The phase of a flow of which one side's end was seen here and the other's there.
fn join_phase(one: u32, other: u32) -> u32 {
    const CLIENT: u32 = Phase::ClientFin as u32;
    const BACKEND: u32 = Phase::BackendFin as u32;
    match (one, other) {
        (CLIENT, BACKEND) | (BACKEND, CLIENT) => Phase::Closed as u32,
        // The numbers grow with the phases, see `Phase`.
        _ => one.max(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(phase: Phase, next_from_client: u32, next_from_backend: u32) -> FlowEntry {
        FlowEntry {
            phase: phase as u32,
            next_from_client,
            next_from_backend,
            last_seen_ticks: 7,
            ..FlowEntry::default()
        }
    }

    /// new, old, joined: phase, number of the client, number of the backend
    #[test]
    fn what_two_tables_know() {
        use Phase as P;
        let rows = [
            (
                (P::Established, 10, 20),
                (P::Established, 10, 20),
                (P::Established, 10, 20),
            ),
            (
                (P::Established, 10, 25),
                (P::ClientFin, 11, 20),
                (P::ClientFin, 11, 25),
            ),
            (
                (P::BackendFin, 10, 25),
                (P::ClientFin, 11, 20),
                (P::Closed, 11, 25),
            ),
            (
                (P::ClientFin, 11, 25),
                (P::BackendFin, 10, 26),
                (P::Closed, 11, 26),
            ),
            (
                (P::SynSent, 10, 0),
                (P::SynReceived, 10, 4_000_000_000),
                (P::SynReceived, 10, 4_000_000_000),
            ),
            (
                (P::Closed, 3, 3),
                (P::Established, u32::MAX, u32::MAX),
                (P::Closed, 3, 3),
            ),
            (
                (P::Established, 10, 20),
                (P::Aborted, 10, 20),
                (P::Aborted, 10, 20),
            ),
            // Another connection on the same ports.
            (
                (P::Established, 10, 20),
                (P::Closed, 1 << 30, 9),
                (P::Established, 10, 20),
            ),
        ];
        for (new, old, expected) in rows {
            let of = |(phase, client, backend)| entry(phase, client, backend);
            assert_eq!(join(of(new), &of(old)), of(expected), "{new:?} {old:?}");
        }
        let mut elsewhere = entry(P::Closed, 10, 20);
        elsewhere.backend_port = shifter_common::addr::Be16::from_host(9);
        let new = entry(P::Established, 10, 20);
        assert_eq!(join(new, &elsewhere), new, "another backend");
    }

    #[test]
    fn phases_that_come_later_have_larger_numbers() {
        for pair in Phase::ALL.windows(2) {
            assert!((pair[0] as u32) < pair[1] as u32);
        }
    }
}
