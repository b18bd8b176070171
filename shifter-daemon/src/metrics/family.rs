//! Which metrics there are, and where in a status each finds its samples. Pure.

use super::observed;
use shifter_common::wire::{BackendStatus, LocalSlotStatus, ServiceStatus, SlotStatus, Status};

/// Name and value of the labels of one sample.
pub(super) type Labels = Vec<(&'static str, String)>;

/// A sample's value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// A count.
    Integer(u64),
    /// A ratio or a time.
    Real(f64),
    /// Durations.
    Histogram(Durations),
}

/// How many durations there were, and how long they were.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Durations {
    /// All of them together, seconds.
    pub sum_s: f64,
    /// How many.
    pub count: u64,
    /// Upper bound in seconds, and how many lie between it and the one before.
    pub buckets: Vec<(f64, u64)>,
}

/// Type of a metric, and for an info the suffix that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Always 1; the labels tell.
    Info,
    /// Counts by bounds.
    Histogram,
}

/// One metric.
pub(super) struct Family {
    /// Name without unit and without the suffixes `_total` and `_info`.
    pub name: &'static str,
    /// Unit, appended to the name.
    pub unit: Option<&'static str>,
    /// Type.
    pub kind: Kind,
    /// Meaning.
    pub help: &'static str,
    /// Its samples in a status.
    pub samples: fn(&Status) -> Vec<(Labels, Value)>,
}

pub(super) const fn gauge(
    name: &'static str,
    unit: Option<&'static str>,
    help: &'static str,
    samples: fn(&Status) -> Vec<(Labels, Value)>,
) -> Family {
    Family {
        name,
        unit,
        kind: Kind::Gauge,
        help,
        samples,
    }
}

pub(super) const fn counter(
    name: &'static str,
    unit: Option<&'static str>,
    help: &'static str,
    samples: fn(&Status) -> Vec<(Labels, Value)>,
) -> Family {
    Family {
        name,
        unit,
        kind: Kind::Counter,
        help,
        samples,
    }
}

const fn info(
    name: &'static str,
    help: &'static str,
    samples: fn(&Status) -> Vec<(Labels, Value)>,
) -> Family {
    Family {
        name,
        unit: None,
        kind: Kind::Info,
        help,
        samples,
    }
}

/// All metrics, in the order of the page.
pub(super) const FAMILIES: &[Family] = &[
    info(
        "shifter_build",
        "Version of shifterd and of the map ABI.",
        |status| {
            let daemon = &status.daemon;
            let abi_version = ("abi_version", daemon.abi_version.to_string());
            one(
                vec![("version", daemon.version.clone()), abi_version],
                Value::Integer(1),
            )
        },
    ),
    gauge(
        "shifter_start_time",
        Some("seconds"),
        "Start of shifterd, Unix time.",
        |status| one(vec![], seconds(status.daemon.started_unix_ms)),
    ),
    gauge(
        "shifter_dataplane_adopted",
        None,
        "Whether shifterd found the dataplane at its start and took it over.",
        |status| one(vec![], flag(status.daemon.adopted)),
    ),
    info(
        "shifter_interface",
        "Interfaces with programs, and the hook they sit on.",
        |status| {
            let labels = |interface: &shifter_common::wire::InterfaceStatus| {
                vec![
                    ("interface", interface.name.clone()),
                    ("hook", interface.hook.clone()),
                ]
            };
            status
                .interfaces
                .iter()
                .map(|i| (labels(i), Value::Integer(1)))
                .collect()
        },
    ),
    gauge(
        "shifter_flow_table_entries",
        None,
        "Established flows in the flow table.",
        |status| one(vec![], Value::Integer(status.daemon.flows_count)),
    ),
    gauge(
        "shifter_flow_table_capacity",
        None,
        "Entries the flow table can hold.",
        |status| one(vec![], Value::Integer(status.daemon.flows_capacity_count)),
    ),
    counter(
        "shifter_flow_table_evicted",
        None,
        "Established flows evicted to make room since the dataplane was built.",
        |status| one(vec![], Value::Integer(status.daemon.flows_evicted_count)),
    ),
    gauge(
        "shifter_pending_table_entries",
        None,
        "Handshakes in the table of flows that are not established.",
        |status| one(vec![], Value::Integer(status.daemon.pending_count)),
    ),
    gauge(
        "shifter_pending_table_capacity",
        None,
        "Handshakes the table of flows that are not established can hold.",
        |status| one(vec![], Value::Integer(status.daemon.pending_capacity_count)),
    ),
    counter(
        "shifter_pending_table_evicted",
        None,
        "Handshakes evicted to make room since the dataplane was built.",
        |status| one(vec![], Value::Integer(status.daemon.pending_evicted_count)),
    ),
    counter(
        "shifter_packets",
        None,
        "Packets by verdict since the dataplane was built; those that start with drop were dropped.",
        |status| {
            let verdicts = status.daemon.verdicts.iter();
            verdicts
                .map(|(v, n)| (vec![("verdict", v.clone())], Value::Integer(*n)))
                .collect()
        },
    ),
    info(
        "shifter_local_clients",
        "Whether clients on the host itself are steered: on, off or unavailable.",
        |status| {
            let state = status.local_clients.state.clone();
            one(vec![("state", state)], Value::Integer(1))
        },
    ),
    counter(
        "shifter_local_calls",
        None,
        "Connects and datagrams of the host itself to VIPs, by outcome.",
        |status| {
            let outcomes = status.local_clients.outcomes.iter();
            outcomes
                .map(|(outcome, n)| (vec![("outcome", outcome.clone())], Value::Integer(*n)))
                .collect()
        },
    ),
    counter(
        "shifter_slot_local_flows_selected",
        None,
        "New flows of the host itself for which a slot was selected; not part of the other counts.",
        |status| of_local_slots(status, |slot| slot.selected_count),
    ),
    counter(
        "shifter_slot_local_flows_failed_over",
        None,
        "Flows of the host itself wanted in a slot by the weight that went to the other slot.",
        |status| of_local_slots(status, |slot| slot.failed_over_count),
    ),
    counter(
        "shifter_slot_local_flows_unserved",
        None,
        "Flows of the host itself wanted in a slot by the weight that found no eligible slot.",
        |status| of_local_slots(status, |slot| slot.unserved_count),
    ),
    info(
        "shifter_service",
        "How a service is steered, and its baseline slot.",
        |status| {
            of_services(status, |service| {
                let mut labels = service_labels(service);
                labels.extend([
                    ("protocol", service.protocol.clone()),
                    ("plane", service.plane.clone()),
                    ("affinity", format!("{:?}", service.affinity).to_lowercase()),
                    ("baseline", service.baseline.to_string()),
                ]);
                Some((labels, Value::Integer(1)))
            })
        },
    ),
    gauge(
        "shifter_service_weight",
        Some("ratio"),
        "Share of new flows that was asked for the canary, 0 to 1.",
        |status| {
            of_services(status, |service| {
                service_row(service, ratio(service.weight_bp))
            })
        },
    ),
    gauge(
        "shifter_service_effective_weight",
        Some("ratio"),
        "Share of new flows the canary gets now, 0 to 1.",
        |status| {
            of_services(status, |service| {
                service_row(service, ratio(service.effective_bp))
            })
        },
    ),
    gauge(
        "shifter_service_weight_set_timestamp",
        Some("seconds"),
        "When the weight was last set, Unix time; absent if never.",
        |status| {
            of_services(status, |service| match service.weight_set_unix_ms {
                0 => None,
                unix_ms => service_row(service, seconds(unix_ms)),
            })
        },
    ),
    gauge(
        "shifter_service_orphaned",
        None,
        "Whether a service is steered although its file is gone.",
        |status| {
            of_services(status, |service| {
                service_row(service, flag(service.orphaned))
            })
        },
    ),
    gauge(
        "shifter_generation",
        None,
        "Number of the published state of a service.",
        |status| {
            of_services(status, |service| {
                service_row(service, Value::Integer(service.generation.into()))
            })
        },
    ),
    info(
        "shifter_slot",
        "The part of a slot in its service.",
        |status| {
            of_slots(status, |labels, slot| {
                let mut labels = labels;
                labels.push(("role", format!("{:?}", slot.role).to_lowercase()));
                (labels, Value::Integer(1))
            })
        },
    ),
    gauge(
        "shifter_slot_eligible",
        None,
        "Whether the kernel may select a slot.",
        |status| of_slots(status, |labels, slot| (labels, flag(slot.eligible))),
    ),
    gauge(
        "shifter_slot_drained",
        None,
        "Whether an operator has drained a slot.",
        |status| of_slots(status, |labels, slot| (labels, flag(slot.drained))),
    ),
    gauge(
        "shifter_slot_live_flows",
        None,
        "Live flows of a slot.",
        |status| {
            of_slots(status, |labels, slot| {
                (labels, Value::Integer(slot.live_flows_count))
            })
        },
    ),
    counter(
        "shifter_slot_flows_selected",
        None,
        "New flows for which a slot was selected.",
        |status| {
            of_slots(status, |labels, s| {
                (labels, Value::Integer(s.counters.selected))
            })
        },
    ),
    counter(
        "shifter_slot_flows_established",
        None,
        "Flows of a slot that completed the handshake.",
        |status| {
            of_slots(status, |labels, s| {
                (labels, Value::Integer(s.counters.established))
            })
        },
    ),
    counter(
        "shifter_slot_flows_refused",
        None,
        "Flows that a backend of a slot refused.",
        |status| {
            of_slots(status, |labels, s| {
                (labels, Value::Integer(s.counters.refused))
            })
        },
    ),
    counter(
        "shifter_slot_flows_closed",
        None,
        "Flows of a slot that both sides closed.",
        |status| {
            of_slots(status, |labels, s| {
                (labels, Value::Integer(s.counters.closed))
            })
        },
    ),
    counter(
        "shifter_slot_flows_reset_by_client",
        None,
        "Flows of a slot that the client reset.",
        |status| {
            of_slots(status, |labels, s| {
                (labels, Value::Integer(s.counters.reset_by_client))
            })
        },
    ),
    counter(
        "shifter_slot_flows_reset_by_backend",
        None,
        "Flows of a slot that the backend reset.",
        |status| {
            of_slots(status, |labels, s| {
                (labels, Value::Integer(s.counters.reset_by_backend))
            })
        },
    ),
    counter(
        "shifter_slot_flows_unanswered",
        None,
        "Flows of a slot whose client had to send its SYN again, because no answer had come.",
        |status| {
            of_slots(status, |labels, s| {
                (labels, Value::Integer(s.counters.unanswered))
            })
        },
    ),
    counter(
        "shifter_slot_flows_failed_over",
        None,
        "Flows wanted in a slot by weight or target rule that went to the other slot.",
        |status| {
            of_slots(status, |labels, s| {
                (labels, Value::Integer(s.failed_over_count))
            })
        },
    ),
    counter(
        "shifter_slot_flows_unserved",
        None,
        "Flows wanted in a slot by weight or target rule that found no eligible slot.",
        |status| {
            of_slots(status, |labels, s| {
                (labels, Value::Integer(s.unserved_count))
            })
        },
    ),
    counter(
        "shifter_slot_flows_targeted",
        None,
        "Flows selected in a slot by a target rule; no part of a trial.",
        |status| {
            of_slots(status, |labels, s| {
                (labels, Value::Integer(s.targeted_count))
            })
        },
    ),
    Family {
        name: "shifter_slot_latency",
        unit: Some("seconds"),
        kind: Kind::Histogram,
        help: "How long backends of a slot took to answer: to a SYN (connect), to a first request (first_byte).",
        samples: observed::waits,
    },
    counter(
        "shifter_slot_responses",
        None,
        "Responses of a slot in HTTP/1.x, by class; see docs/observability.md for what is unknown.",
        observed::responses,
    ),
    gauge(
        "shifter_breaker_armed",
        None,
        "Whether the kernel takes the canary out of traffic by itself when its flows fail.",
        |status| of_services(status, |s| service_row(s, flag(s.breaker.mode == "armed"))),
    ),
    gauge(
        "shifter_breaker_tripped",
        None,
        "Whether it has, and nobody has given the canary a weight since.",
        |status| of_services(status, |s| service_row(s, flag(s.breaker.tripped))),
    ),
    gauge(
        "shifter_breaker_evidence",
        Some("ratio"),
        "Evidence against the canary, of what trips; by the ratio of error rates an arm looks for.",
        of_arms,
    ),
    counter(
        "shifter_breaker_errors",
        None,
        "First errors of flows of armed services, by what became of them; see docs/observability.md.",
        of_errors,
    ),
    counter(
        "shifter_breaker_trips",
        None,
        "Times the kernel took the canary out of traffic, and times it only noted that it would.",
        of_trips,
    ),
    counter(
        "shifter_breaker_untold_trips",
        None,
        "Trips that shifterd had to find, because the kernel's ring had no room to tell of them.",
        |status| of_services(status, |s| service_row(s, breaker_count(s, "untold"))),
    ),
    gauge(
        "shifter_backend_ready",
        None,
        "Whether a backend is ready, as probed.",
        |status| of_backends(status, |backend| flag(backend.ready)),
    ),
    gauge(
        "shifter_backend_live_flows",
        None,
        "Live flows of a backend.",
        |status| of_backends(status, |backend| Value::Integer(backend.live_flows_count)),
    ),
    counter(
        "shifter_backend_flows_established",
        None,
        "Flows of a backend that completed the handshake.",
        |status| {
            of_backends(status, |backend| {
                Value::Integer(backend.counters.established)
            })
        },
    ),
    counter(
        "shifter_backend_flows_refused",
        None,
        "Flows that a backend refused.",
        |status| of_backends(status, |backend| Value::Integer(backend.counters.refused)),
    ),
    counter(
        "shifter_backend_flows_reset_by_backend",
        None,
        "Flows that a backend reset.",
        |status| {
            of_backends(status, |backend| {
                Value::Integer(backend.counters.reset_by_backend)
            })
        },
    ),
    counter(
        "shifter_backend_in",
        Some("bytes"),
        "Bytes to a backend, link layer.",
        |status| of_backends(status, |backend| Value::Integer(backend.in_bytes)),
    ),
    counter(
        "shifter_backend_out",
        Some("bytes"),
        "Bytes from a backend, link layer.",
        |status| of_backends(status, |backend| Value::Integer(backend.out_bytes)),
    ),
];

fn one(labels: Labels, value: Value) -> Vec<(Labels, Value)> {
    vec![(labels, value)]
}

fn of_services(
    status: &Status,
    sample: impl Fn(&ServiceStatus) -> Option<(Labels, Value)>,
) -> Vec<(Labels, Value)> {
    status.services.iter().filter_map(sample).collect()
}

fn of_slots(
    status: &Status,
    sample: impl Fn(Labels, &SlotStatus) -> (Labels, Value),
) -> Vec<(Labels, Value)> {
    let slots = status
        .services
        .iter()
        .flat_map(|s| s.slots.iter().map(move |slot| (s, slot)));
    slots
        .map(|(service, slot)| sample(slot_labels(service, slot), slot))
        .collect()
}

fn of_local_slots(
    status: &Status,
    count: impl Fn(&LocalSlotStatus) -> u64,
) -> Vec<(Labels, Value)> {
    let slots = status.local_clients.slots.iter();
    slots
        .map(|slot| {
            let labels = vec![
                ("service", slot.service.clone()),
                ("slot", slot.slot.to_string()),
            ];
            (labels, Value::Integer(count(slot)))
        })
        .collect()
}

fn of_backends(status: &Status, value: impl Fn(&BackendStatus) -> Value) -> Vec<(Labels, Value)> {
    let mut samples = Vec::new();
    for service in &status.services {
        for slot in &service.slots {
            for backend in &slot.backends {
                let mut labels = slot_labels(service, slot);
                labels.push(("backend", backend.addr.clone()));
                samples.push((labels, value(backend)));
            }
        }
    }
    samples
}

/// What became of errors that is no trip.
const ERRORS: [&str; 7] = [
    "canary",
    "baseline",
    "no_cohort",
    "unheard",
    "repeated",
    "dropped",
    "owed",
];

fn breaker_count(service: &ServiceStatus, wanted: &str) -> Value {
    let errors = service.breaker.errors.iter();
    let found = errors
        .filter(|(name, _)| name == wanted)
        .map(|(_, count)| *count);
    Value::Integer(found.sum())
}

fn of_errors(status: &Status) -> Vec<(Labels, Value)> {
    let rows = status.services.iter().flat_map(|service| {
        ERRORS.map(|kind| {
            let mut labels = service_labels(service);
            labels.push(("kind", kind.to_owned()));
            (labels, breaker_count(service, kind))
        })
    });
    rows.collect()
}

fn of_trips(status: &Status) -> Vec<(Labels, Value)> {
    let rows = status.services.iter().flat_map(|service| {
        [("executed", "trips"), ("noted", "trips_held")].map(|(result, name)| {
            let mut labels = service_labels(service);
            labels.push(("result", result.to_owned()));
            (labels, breaker_count(service, name))
        })
    });
    rows.collect()
}

fn of_arms(status: &Status) -> Vec<(Labels, Value)> {
    let rows = status.services.iter().flat_map(|service| {
        service.breaker.arms.iter().map(|arm| {
            let mut labels = service_labels(service);
            labels.push(("error_ratio", arm.ratio.to_string()));
            let share = arm.evidence_milli as f64 / arm.threshold_milli.max(1) as f64;
            // Beyond what trips there is nothing to tell.
            (labels, Value::Real(share.min(1.0)))
        })
    });
    rows.collect()
}

fn service_row(service: &ServiceStatus, value: Value) -> Option<(Labels, Value)> {
    Some((service_labels(service), value))
}

fn service_labels(service: &ServiceStatus) -> Labels {
    vec![("service", service.name.clone())]
}

pub(super) fn slot_labels(service: &ServiceStatus, slot: &SlotStatus) -> Labels {
    vec![
        ("service", service.name.clone()),
        ("slot", slot.slot.to_string()),
    ]
}

fn flag(on: bool) -> Value {
    Value::Integer(u64::from(on))
}

fn ratio(bp: u16) -> Value {
    Value::Real(f64::from(bp) / 10_000.0)
}

fn seconds(unix_ms: u64) -> Value {
    Value::Real(unix_ms as f64 / 1_000.0)
}
