//! Counting flows beside the loop, and freeing what none of them needs any more.

use std::sync::{Arc, atomic::Ordering};

use tokio::sync::mpsc;

use super::Driver;
use crate::dataplane::{Census, DataplaneError};

/// A sweep's result on its way back to the loop.
#[derive(Debug)]
pub struct Swept {
    /// Publications there had been when the sweep began.
    pub publications_count: u64,
    /// What was found.
    pub census: Result<Census, DataplaneError>,
}

impl Driver {
    pub(super) fn begin_sweep(&self, swept: mpsc::Sender<Swept>) {
        if self.is_sweeping.swap(true, Ordering::AcqRel) {
            // A table so large that the last one still goes on.
            return;
        }
        let is_sweeping = Arc::clone(&self.is_sweeping);
        let (table, publications_count) = (self.flow_table(), self.publications_count);
        tokio::task::spawn_blocking(move || {
            let census = table.sweep();
            is_sweeping.store(false, Ordering::Release);
            // A sweep that finds the last one's result still unread is dropped.
            let _ = swept.try_send(Swept {
                publications_count,
                census,
            });
        });
    }

    /// Hooks again what has lost its hooks.
    pub(super) fn tend(&mut self) {
        for news in self.dataplane.tend() {
            tracing::warn!("{news}");
        }
    }

    pub(super) fn handle_swept(&mut self, swept: Swept) {
        let retired = swept.census.and_then(|census| {
            if swept.publications_count == self.publications_count {
                self.tell_flows(&census);
                self.dataplane.retire(&census)
            } else {
                // A flow may have been selected where the sweep had been already, and its backend
                // taken out of the plan since: the census does not know it. The next one will.
                Ok(())
            }
        });
        if let Err(error) = retired {
            tracing::error!("sweeping the flow tables: {error}");
        }
    }
}
