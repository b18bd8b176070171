//! Going on with the rollouts that are on disk.

use std::collections::BTreeMap;

use shifter_common::breaker::trip_result;

use super::{super::Driver, Live};
use crate::{
    control::ServiceRecord,
    rollout::{Event, Rollout, Seen},
};

impl Driver {
    /// The recorded decisions about a service, with nothing for a version on trial whose host was
    /// started anew: it may not run any more.
    pub(in super::super) fn held_after_boot(&self, service: &str) -> Option<ServiceRecord> {
        let mut record = self.state.service(service).cloned()?;
        let kept = self.state.rollouts_of(service).unwrap_or_default();
        let is_lost = kept
            .last()
            .is_some_and(|kept| kept.is_rebooted && !kept.rollout.phase().is_final());
        if is_lost {
            record.weight_bp = 0;
            record.held = true;
        }
        Some(record)
    }

    /// Takes the rollouts over from the disk, after the services themselves.
    pub(in super::super) fn resume_rollouts(&mut self) {
        let (kept, problems) = match self.state.rollouts() {
            Ok(read) => read,
            Err(error) => {
                tracing::error!("rollouts are not gone on with, traffic stays as it is: {error}");
                return;
            }
        };
        for problem in problems {
            tracing::error!("{problem}, and it is not gone on with");
        }
        // The newest one of each service comes last.
        let newest: BTreeMap<_, _> = kept
            .into_iter()
            .map(|kept| (kept.rollout.parts().service.clone(), kept))
            .collect();
        for (service, record) in newest {
            self.note_whose_latch(&service);
            let is_rebooted = record.is_rebooted;
            let seen = self.seen(&service, &record.rollout);
            let mut live = Live::new(record.rollout);
            live.next = record.next;
            self.rollouts.live.insert(service.clone(), live);
            self.tell_news(&service, Event::Restarted { is_rebooted, seen });
        }
    }

    /// A latch without a trip was left by a rollout.
    fn note_whose_latch(&mut self, service: &str) {
        let word = self.words.get(service).copied().unwrap_or_default();
        let reading = self.dataplane.breaker(service);
        let is_trip = reading.is_ok_and(|of| of.trip.result == trip_result::EXECUTED);
        if word.tripped() && !is_trip {
            self.rollouts.note_latch(service, true);
            self.tripped.insert(service.to_owned());
        }
    }

    fn seen(&self, service: &str, rollout: &Rollout) -> Seen {
        let word = self.words.get(service).copied().unwrap_or_default();
        let canary = rollout.parts().canary;
        let control = self.services.get(service);
        Seen {
            weight_bp: if word.baseline() == canary {
                0
            } else {
                word.weight_bp()
            },
            has_targets: false,
            is_taken_back: word.tripped(),
            is_committed: control.is_some_and(|control| control.record().baseline == canary),
        }
    }
}
