//! `detach`: the end of steering.

use shifter_common::wire::{Detach, Detached, Refusal};

use super::{Driver, refusal::refusal};

impl Driver {
    pub(super) fn detach(&mut self, body: &Detach, by: &str) -> Result<Detached, Refusal> {
        let live_count: u64 = self.flow_table().sweep()?.live.values().sum();
        if live_count > 0 && !body.force {
            return Err(refusal(
                "flows_open",
                if live_count == 1 {
                    "1 live flow would break".to_owned()
                } else {
                    format!("{live_count} live flows would break")
                },
                "drain them first, or: shifterctl detach --force".into(),
            ));
        }
        let interfaces = self.dataplane.detach()?;
        tracing::info!(by, live_count, ?interfaces, "detached; shifterd stops");
        self.is_detached = true;
        Ok(Detached {
            interfaces,
            flows_broken_count: live_count,
        })
    }
}
