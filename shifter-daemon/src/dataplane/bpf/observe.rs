//! What is looked at in connections, and what was seen.

use std::collections::BTreeMap;

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use shifter_common::{
    observe::{OBSERVED_COUNT, ObserveRules, Observed, map, what},
    steering::Slot,
};

use super::{
    super::{DataplaneError, ObservedReading},
    mapped::Mapped,
    maps::{map_error, mapped, typed},
};
use crate::model::ObserveSpec;

/// The maps, and who has which row.
pub struct ObserveMaps {
    rules: Mapped<ObserveRules>,
    observed: PerCpuArray<MapData, Observed>,
    /// Row by service. A service keeps its row while it is known, so that its counters go on.
    rows: BTreeMap<u32, u32>,
}

impl ObserveMaps {
    /// Takes the maps out of a loaded object.
    ///
    /// # Errors
    /// If a map is missing, of another type, or cannot be mapped.
    pub fn take(object: &mut Ebpf) -> Result<Self, DataplaneError> {
        let rules: Mapped<ObserveRules> = mapped(object, map::OBSERVE_RULES)?;
        let in_use = (0..rules.len() as u32).filter_map(|service| {
            let rules = rules.read(service as usize);
            (rules.what & what::HAS_ROW != 0).then_some((service, rules.row))
        });
        Ok(Self {
            rows: in_use.collect(),
            rules,
            observed: typed(object, map::OBSERVED)?,
        })
    }

    /// Puts the choice of a service in force for its new connections.
    ///
    /// # Errors
    /// If all rows are in use, or the kernel refuses.
    pub fn set(&mut self, service: u32, spec: ObserveSpec) -> Result<(), DataplaneError> {
        let row = match self.rows.get(&service) {
            Some(row) => *row,
            None if !spec.is_on() => return Ok(()),
            None => self.claim(service)?,
        };
        let bit = |bit, is_on| if is_on { bit } else { 0 };
        let wanted = ObserveRules {
            what: what::HAS_ROW | bit(what::LATENCY, spec.latency) | bit(what::HTTP, spec.http),
            row,
        };
        if self.rules.read(service as usize) != wanted {
            self.rules.write(service as usize, wanted);
        }
        Ok(())
    }

    /// A row that nobody has, emptied.
    fn claim(&mut self, service: u32) -> Result<u32, DataplaneError> {
        let row = (0..OBSERVED_COUNT)
            .find(|row| !self.rows.values().any(|used| used == row))
            .ok_or_else(|| {
                DataplaneError::Refused(format!(
                    "{OBSERVED_COUNT} services are observed already: take latency and http out of the \
                     `observe` of another one"
                ))
            })?;
        let failed = |error| map_error("emptying OBSERVED", error);
        let cpus = nr_cpus().map_err(|(what, error)| DataplaneError::kernel(what, error))?;
        for slot in Slot::ALL {
            let nothing = PerCpuValues::try_from(vec![Observed::default(); cpus])
                .map_err(|error| DataplaneError::kernel("emptying OBSERVED", error))?;
            self.observed
                .set(row * 2 + slot.index(), nothing, 0)
                .map_err(failed)?;
        }
        self.rows.insert(service, row);
        Ok(row)
    }

    /// Forgets a service.
    pub fn forget(&mut self, service: u32) {
        self.rules.write(service as usize, ObserveRules::default());
        self.rows.remove(&service);
    }

    /// The choice in force.
    pub fn spec(&self, service: u32) -> ObserveSpec {
        let rules = self.rules.read(service as usize);
        ObserveSpec {
            latency: rules.what & what::LATENCY != 0,
            http: rules.what & what::HTTP != 0,
        }
    }

    /// What was seen of a service, by slot; `None` if it was never looked at.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn read(&self, service: u32) -> Result<Option<[ObservedReading; 2]>, DataplaneError> {
        let Some(row) = self.rows.get(&service) else {
            return Ok(None);
        };
        let of_slot = |slot: Slot| -> Result<ObservedReading, DataplaneError> {
            let parts = self
                .observed
                .get(&(row * 2 + slot.index()), 0)
                .map_err(|error| map_error("reading OBSERVED", error))?;
            let mut sum = Box::<Observed>::default();
            for part in parts.iter() {
                sum.add(part);
            }
            Ok(ObservedReading(sum))
        };
        Ok(Some([of_slot(Slot::A)?, of_slot(Slot::B)?]))
    }
}
