//! Building what `status` and `flows` show. Counting flows happens beside the loop.

use std::collections::BTreeMap;

use shifter_common::{
    abi::{self, BackendCounters},
    socket::LookupVerdict,
    steering::Slot,
    tcp::Phase,
    verdict::Verdict,
    wire::{
        BackendStatus, DaemonStatus, Flow, FlowCounts, Flows, Refusal, Role, ServiceStatus,
        SlotStatus, Status, TargetStatus,
    },
};

use super::{Answer, Driver, Reply, SHIFTERD, TICK_INTERVAL, observed, send, unix_ms};
use crate::{
    config::format_duration,
    control::{Deviation, ServiceControl},
    dataplane::{Census, DataplaneError, ListedFlow, ServiceReading},
    model::{Plane, Target},
};

/// A service's status without flow counts, and the backend indexes to count by.
struct Draft {
    status: ServiceStatus,
    /// Backend index by slot and place in the slot's list.
    indexes: [Vec<Option<u32>>; 2],
    /// Indexes of backends that are out of their slot but may still carry flows.
    leaving: [Vec<u32>; 2],
    /// What to say of a slot that still has flows: its drain takes longer than it should.
    overdue: [Option<String>; 2],
}

impl Driver {
    pub(super) fn answer_status(&self, reply: Answer) {
        let drafts: Result<Vec<Draft>, DataplaneError> = self
            .services
            .iter()
            .map(|(name, control)| self.draft(name, control))
            .collect();
        let parts = drafts.and_then(|drafts| {
            let local_clients = self.dataplane.local_clients()?;
            let (verdicts, lookups) = (self.dataplane.verdicts()?, self.dataplane.lookups()?);
            Ok((drafts, verdicts, lookups, local_clients))
        });
        let (drafts, verdicts, lookups, local_clients) = match parts {
            Ok(parts) => parts,
            Err(error) => return send(reply, Err(error.into())),
        };
        let mut status = Status {
            daemon: DaemonStatus {
                version: env!("CARGO_PKG_VERSION").into(),
                pid: std::process::id(),
                started_unix_ms: self.started_unix_ms,
                adopted: self.dataplane.was_adopted(),
                pins: self.dataplane.pins(),
                abi_version: abi::ABI_VERSION,
                flows_count: 0,
                flows_capacity_count: 0,
                flows_evicted_count: 0,
                pending_count: 0,
                pending_capacity_count: 0,
                pending_evicted_count: 0,
                verdicts: Verdict::ALL
                    .iter()
                    .zip(verdicts)
                    .map(|(verdict, count)| (verdict.label().to_owned(), count))
                    .collect(),
                lookups: LookupVerdict::ALL
                    .iter()
                    .zip(lookups)
                    .map(|(verdict, count)| (verdict.label().to_owned(), count))
                    .collect(),
            },
            interfaces: self.dataplane.interfaces(),
            local_clients,
            services: Vec::new(),
            events: self.events.all(),
        };
        let table = self.flow_table();
        tokio::task::spawn_blocking(move || {
            let answer = table.census().map(|census| {
                status.daemon.flows_count = census.flows_count;
                status.daemon.flows_capacity_count = table.capacity_count();
                status.daemon.flows_evicted_count = census.flows_evicted_count;
                status.daemon.pending_count = census.pending_count;
                status.daemon.pending_capacity_count = table.pending_capacity_count();
                status.daemon.pending_evicted_count = census.pending_evicted_count;
                status.services = drafts
                    .into_iter()
                    .map(|draft| draft.finish(&census))
                    .collect();
                Reply::Status(Box::new(status))
            });
            send(reply, answer.map_err(Refusal::from));
        });
    }

    pub(super) fn answer_service(&self, name: &str, reply: Answer) {
        let draft = self
            .known(name)
            .and_then(|control| Ok(self.draft(name, control)?));
        let draft = match draft {
            Ok(draft) => draft,
            Err(refused) => return send(reply, Err(refused)),
        };
        let table = self.flow_table();
        tokio::task::spawn_blocking(move || {
            let answer = table
                .census()
                .map(|census| Reply::Service(Box::new(draft.finish(&census))));
            send(reply, answer.map_err(Refusal::from));
        });
    }

    pub(super) fn answer_flows(&self, name: &str, limit: usize, reply: Answer) {
        if let Err(refused) = self.known(name) {
            return send(reply, Err(refused));
        }
        let (table, name) = (self.flow_table(), name.to_owned());
        tokio::task::spawn_blocking(move || {
            let answer = table.flows(&name).map(|mut flows| {
                let total_count = flows.len() as u64;
                flows.sort_by_key(|flow| flow.idle_ms);
                flows.truncate(limit);
                let flows = flows.iter().filter_map(wire_flow).collect();
                Reply::Flows(Flows { total_count, flows })
            });
            send(reply, answer.map_err(Refusal::from));
        });
    }

    fn draft(&self, name: &str, control: &ServiceControl) -> Result<Draft, DataplaneError> {
        let reading = self.dataplane.read(name)?;
        let spec = control.spec();
        let record = control.record();
        let mut notes = control.notes();
        if let Some(error) = self.unpublished.get(name) {
            notes.push(format!(
                "not in force as shown: {error}; shifterd tries again every {} s",
                TICK_INTERVAL.as_secs()
            ));
        }
        let word = self.words.get(name).copied().unwrap_or_default();
        if self.is_tripped(name) {
            notes.push(format!(
                "the kernel has taken slot {} out of traffic, see why: shifterctl explain {name}",
                control.canary()
            ));
        }
        let mut indexes = [Vec::new(), Vec::new()];
        let mut leaving = [Vec::new(), Vec::new()];
        let slots = Slot::ALL
            .into_iter()
            .map(|slot| {
                let place = slot.index() as usize;
                let (status, planned) = slot_status(control, slot, &reading);
                leaving[place] = reading
                    .backends
                    .iter()
                    .filter(|b| b.slot == slot && !planned.contains(&Some(b.index)))
                    .map(|b| b.index)
                    .collect();
                indexes[place] = planned;
                status
            })
            .collect();
        Ok(Draft {
            status: ServiceStatus {
                name: name.to_owned(),
                vips: spec.vips.iter().map(ToString::to_string).collect(),
                protocol: spec.protocol.name().into(),
                plane: match control.steering().map(|steering| steering.plane) {
                    Ok(Plane::Socket) => "socket",
                    Ok(Plane::Nat | Plane::Auto) => "nat",
                    Err(_) => "none",
                }
                .into(),
                plane_reason: match control.steering() {
                    Ok(steering) => steering.reason.clone(),
                    Err(why) => why.clone(),
                },
                affinity: spec.affinity,
                baseline: record.baseline,
                weight_bp: record.weight_bp,
                effective_bp: self.in_force_bp(name),
                weight_by: if record.weight_by.is_empty() {
                    SHIFTERD.into()
                } else {
                    record.weight_by.clone()
                },
                weight_set_unix_ms: record.weight_set_unix_ms,
                generation: word.generation(),
                targets: targets(control),
                targets_held: record.held,
                breaker: self.breaker_status(name, control)?,
                rollout: self.rollout_status(name),
                observe: spec.observe.names().into_iter().map(Into::into).collect(),
                orphaned: control.deviation == Some(Deviation::Gone),
                slots,
                notes,
            },
            indexes,
            leaving,
            overdue: Slot::ALL.map(|slot| overdue(control, slot, unix_ms())),
        })
    }
}

impl Draft {
    fn finish(self, census: &Census) -> ServiceStatus {
        let Self {
            mut status,
            indexes,
            leaving,
            mut overdue,
        } = self;
        let live = |index: &u32| census.live.get(index).copied().unwrap_or(0);
        for (place, slot) in status.slots.iter_mut().enumerate() {
            for (backend, index) in slot.backends.iter_mut().zip(&indexes[place]) {
                backend.live_flows_count = index.as_ref().map_or(0, live);
            }
            let of_backends: u64 = slot.backends.iter().map(|b| b.live_flows_count).sum();
            let of_leaving: u64 = leaving[place].iter().map(live).sum();
            slot.live_flows_count = of_backends + of_leaving;
            let departed = |index: &u32| census.departed.get(index).copied().unwrap_or(0);
            let of_backends: u64 = indexes[place].iter().flatten().map(departed).sum();
            let of_leaving: u64 = leaving[place].iter().map(departed).sum();
            slot.departed_flows_count = of_backends + of_leaving;
            if let Some(overdue) = overdue[place].take().filter(|_| slot.live_flows_count > 0) {
                slot.reason = format!("{}; {overdue}", slot.reason);
            }
        }
        status
    }
}

/// A slot's status without flow counts, and the index of each of its backends.
fn slot_status(
    control: &ServiceControl,
    slot: Slot,
    reading: &ServiceReading,
) -> (SlotStatus, Vec<Option<u32>>) {
    let by_addr: BTreeMap<_, _> = reading
        .backends
        .iter()
        .filter(|backend| backend.slot == slot)
        .map(|backend| (backend.addr, backend))
        .collect();
    let spec = control.spec().slot(slot);
    let counters = reading.slots[slot.index() as usize];
    let reason = control.ineligible_reason(slot);
    let backends = spec
        .backends
        .iter()
        .map(|backend| {
            let health = control.standing(slot, backend.addr);
            let reason = control
                .ejected_reason(slot, backend.addr)
                .unwrap_or_else(|| health.as_ref().map_or("", |health| &health.reason));
            let counters = by_addr
                .get(&backend.addr)
                .map_or_else(BackendCounters::default, |reading| reading.counters);
            BackendStatus {
                addr: backend.addr.to_string(),
                weight: backend.weight,
                ready: control.takes_flows(slot, backend.addr),
                reason: reason.to_owned(),
                live_flows_count: 0,
                counters: counts(&counters.flows),
                in_bytes: counters.bytes_in,
                out_bytes: counters.bytes_out,
            }
        })
        .collect();
    let status = SlotStatus {
        slot,
        role: control.role(slot),
        version: control.version(slot).map(ToString::to_string),
        eligible: reason.is_none(),
        drained: control.drained(slot).is_some(),
        reason: reason.unwrap_or_default(),
        live_flows_count: 0,
        counters: counts(&counters.flows),
        failed_over_count: counters.failed_over,
        unserved_count: counters.unserved,
        targeted_count: counters.targeted,
        departed_flows_count: 0,
        accept_queue_count: spec
            .backends
            .iter()
            .filter_map(|backend| control.listener(slot, backend.addr))
            .map(|view| u64::from(view.queue_count))
            .sum(),
        socket: if control.is_on_socket_plane() {
            let rows = reading.sockets[slot.index() as usize].rows();
            rows.map(|(name, count, _)| (name.to_owned(), count))
                .collect()
        } else {
            Vec::new()
        },
        observed: reading
            .observed
            .as_ref()
            .map(|slots| observed::status(&slots[slot.index() as usize])),
        backends,
    };
    let indexes = spec
        .backends
        .iter()
        .map(|backend| by_addr.get(&backend.addr).map(|reading| reading.index))
        .collect();
    (status, indexes)
}

/// What to say if a drained slot still has flows now.
fn overdue(control: &ServiceControl, slot: Slot, unix_ms: u64) -> Option<String> {
    let since_ms = unix_ms.saturating_sub(control.drained(slot)?.since_unix_ms);
    let timeout = control.spec().drain_timeout;
    (u128::from(since_ms) > timeout.as_millis()).then(|| {
        format!(
            "still has flows after {} s (drain.timeout = \"{}\")",
            since_ms / 1_000,
            format_duration(timeout)
        )
    })
}

/// The target rules, by prefix.
fn targets(control: &ServiceControl) -> Vec<TargetStatus> {
    let rules = control.spec().targets.iter();
    rules
        .map(|(prefix, target)| TargetStatus {
            from: prefix.to_string(),
            to: match target {
                Target::Baseline => Role::Baseline,
                Target::Canary => Role::Canary,
            },
        })
        .collect()
}

const fn counts(flows: &abi::FlowCounters) -> FlowCounts {
    FlowCounts {
        selected: flows.selected,
        established: flows.established,
        refused: flows.refused,
        closed: flows.closed,
        reset_by_client: flows.reset_by_client,
        reset_by_backend: flows.reset_by_backend,
        unanswered: flows.unanswered,
    }
}

fn wire_flow(flow: &ListedFlow) -> Option<Flow> {
    Some(Flow {
        client: flow
            .key
            .client
            .to_socket_addr(flow.key.client_port)
            .to_string(),
        vip: flow.vip.to_string(),
        backend: flow
            .entry
            .backend
            .to_socket_addr(flow.entry.backend_port)
            .to_string(),
        slot: flow.entry.slot(),
        cohort: flow.entry.cohort,
        phase: Phase::from_u32(flow.entry.phase)?,
        idle_ms: flow.idle_ms,
    })
}
