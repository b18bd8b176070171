//! The metrics of the socket plane. Services of the nat plane have none of them. Pure.

use shifter_common::wire::{SlotStatus, Status};

use super::family::{Family, Labels, Value, counter, gauge, slot_labels};

/// Why a lookup was not served where it was first tried, by the counters' names.
const MISSES: &[&str] = &[
    "no_listener",
    "not_admitted",
    "shut_down",
    "wrong_family",
    "not_assigned",
    "queue_full",
];
/// Where lookups went instead.
const DETOURS: &[&str] = &["other_backend", "other_slot"];
/// Why a listener was not captured.
const REFUSALS: &[(&str, &str)] = &[
    ("capture_refused", "user"),
    ("capture_mptcp", "mptcp"),
    ("capture_busy", "own_map"),
    ("capture_full", "no_place"),
];

/// The metrics, in the order of the page.
pub(super) const FAMILIES: &[Family] = &[
    counter(
        "shifter_lookups",
        None,
        "Lookups of a listener on the host by verdict since the dataplane was built.",
        |status| {
            let verdicts = status.daemon.lookups.iter();
            verdicts
                .map(|(v, n)| (vec![("verdict", v.clone())], Value::Integer(*n)))
                .collect()
        },
    ),
    counter(
        "shifter_slot_lookups",
        None,
        "Lookups that the weight sent to a slot; they may repeat for one connection.",
        |status| of_counter(status, "lookups"),
    ),
    counter(
        "shifter_slot_lookup_misses",
        None,
        "Backends that a lookup passed over, by cause.",
        |status| {
            let rows = MISSES.iter().map(|name| (*name, *name));
            of_counters(status, "cause", rows)
        },
    ),
    counter(
        "shifter_slot_lookups_failed_over",
        None,
        "Lookups that went elsewhere than the hash says, by where.",
        |status| {
            let rows = DETOURS.iter().map(|name| (*name, *name));
            of_counters(status, "to", rows)
        },
    ),
    counter(
        "shifter_slot_lookups_unserved",
        None,
        "Lookups that found no listener in any slot.",
        |status| of_counter(status, "unserved"),
    ),
    counter(
        "shifter_slot_listeners_captured",
        None,
        "Listeners of a slot that the kernel captured when they began to listen.",
        |status| of_counter(status, "captured"),
    ),
    counter(
        "shifter_slot_listeners_refused",
        None,
        "Listeners on addresses of a slot that were not captured, by cause.",
        |status| of_counters(status, "cause", REFUSALS.iter().copied()),
    ),
    counter(
        "shifter_slot_flows_aborted",
        None,
        "Flows of a slot that ended otherwise than by both sides closing or by a reset.",
        |status| of_counter(status, "aborted"),
    ),
    counter(
        "shifter_slot_flows_departed",
        None,
        "Flows that ended after their version had left the slot; they count nowhere else.",
        |status| of_counter(status, "departed"),
    ),
    gauge(
        "shifter_slot_departed_live_flows",
        None,
        "Live flows of versions that have left the slot.",
        |status| of_socket_slots(status, |slot| slot.departed_flows_count),
    ),
    gauge(
        "shifter_slot_accept_queue",
        None,
        "Connections of a slot that wait to be accepted.",
        |status| of_socket_slots(status, |slot| slot.accept_queue_count),
    ),
];

fn of_socket_slots(status: &Status, count: impl Fn(&SlotStatus) -> u64) -> Vec<(Labels, Value)> {
    let services = status.services.iter();
    let slots = services.flat_map(|s| s.slots.iter().map(move |slot| (s, slot)));
    slots
        .filter(|(_, slot)| !slot.socket.is_empty())
        .map(|(service, slot)| (slot_labels(service, slot), Value::Integer(count(slot))))
        .collect()
}

fn of_counter(status: &Status, name: &str) -> Vec<(Labels, Value)> {
    of_socket_slots(status, |slot| counted(slot, name))
}

/// Several counters as one metric, told apart by a label.
fn of_counters(
    status: &Status,
    label: &'static str,
    rows: impl Iterator<Item = (&'static str, &'static str)>,
) -> Vec<(Labels, Value)> {
    rows.flat_map(|(name, value)| {
        let mut samples = of_counter(status, name);
        for (labels, _) in &mut samples {
            labels.push((label, value.to_owned()));
        }
        samples
    })
    .collect()
}

fn counted(slot: &SlotStatus, name: &str) -> u64 {
    let found = slot.socket.iter().find(|(n, _)| n == name);
    found.map_or(0, |(_, count)| *count)
}
