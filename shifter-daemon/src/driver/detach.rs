//! `detach`: the end of steering.

use shifter_common::wire::{Detach, Detached, Refusal};

use super::{Driver, events::Happening, refusal::refusal};

impl Driver {
    pub(super) fn detach(&mut self, body: &Detach, by: &str) -> Result<Detached, Refusal> {
        let live_count: u64 = self.flow_table().sweep()?.live.values().sum();
        let lost = self.dataplane.lost_paths();
        if !body.force && (live_count > 0 || !lost.is_empty()) {
            let flows = match live_count {
                0 => None,
                1 => Some("1 live flow would break".to_owned()),
                count => Some(format!("{count} live flows would break")),
            };
            let paths = lost.iter().map(ToString::to_string);
            let message: Vec<String> = flows.into_iter().chain(paths).collect();
            let (code, first) = match (live_count, lost.is_empty()) {
                (0, _) => ("vip_lost", "send its clients elsewhere first"),
                (_, true) => ("flows_open", "drain them first"),
                (_, false) => (
                    "flows_open",
                    "drain them and send the clients elsewhere first",
                ),
            };
            return Err(refusal(
                code,
                message.join("; "),
                format!("{first}, or: shifterctl detach --force"),
            ));
        }
        let interfaces = self.dataplane.detach()?;
        tracing::info!(by, live_count, ?interfaces, "detached; shifterd stops");
        let detail = format!(
            "all programs are taken off (interfaces: {}); {live_count} live flows were cut off",
            interfaces.join(", ")
        );
        let record = self.audit_record(&Happening {
            service: "",
            by,
            what: "detach",
            slot: None,
            detail,
            before_bp: 0,
            took_ns: 0,
        });
        self.state.note(record);
        self.retry_audit();
        self.is_detached = true;
        Ok(Detached {
            interfaces,
            flows_broken_count: live_count,
        })
    }
}
