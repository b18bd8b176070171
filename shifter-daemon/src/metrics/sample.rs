//! A status in which no field has its default value, for tests.

use shifter_common::{
    socket::{LookupVerdict, SocketCounters},
    verdict::Verdict,
    wire::{
        Affinity, ArmStatus, BackendStatus, BreakerStatus, DaemonStatus, Event, FlowCounts,
        InterfaceStatus, LocalClientsStatus, LocalSlotStatus, ObservedStatus, Role, RolloutOutcome,
        RolloutStatus, ServiceStatus, Slot, SlotStatus, Status, TargetStatus, TripStatus,
        WaitStatus,
    },
};

/// Two services, one of them with everything that can be the matter.
pub(crate) fn status() -> Status {
    Status {
        daemon: DaemonStatus {
            version: "0.1.0".into(),
            pid: 812,
            started_unix_ms: 1_700_000_000_250,
            adopted: true,
            pins: "/sys/fs/bpf/shifter/v1".into(),
            abi_version: 1,
            flows_count: 1204,
            flows_capacity_count: 262_144,
            flows_evicted_count: 31,
            pending_count: 12,
            pending_capacity_count: 65_536,
            pending_evicted_count: 934_464,
            lookups: (0..)
                .zip(LookupVerdict::ALL)
                .map(|(n, v)| (v.label().into(), n * 1100))
                .collect(),
            verdicts: (0..)
                .zip(Verdict::ALL)
                .map(|(n, v)| (v.label().into(), n * 1000))
                .collect(),
        },
        interfaces: vec![InterfaceStatus {
            name: "eth0".into(),
            ifindex: 2,
            hook: "xdp".into(),
            reason: "virtio_net supports native XDP".into(),
        }],
        local_clients: LocalClientsStatus {
            state: "on".into(),
            reason: "hooks on the cgroup /sys/fs/cgroup".into(),
            outcomes: vec![("selected".into(), 70), ("kept".into(), 9)],
            slots: vec![LocalSlotStatus {
                service: "orders".into(),
                slot: Slot::A,
                selected_count: 70,
                failed_over_count: 4,
                unserved_count: 2,
                backends: vec![("10.0.0.10:8443".into(), 70)],
            }],
        },
        services: vec![orders(), billing()],
        events: vec![Event {
            seq: 7,
            unix_ms: 1_700_000_100_000,
            service: "orders".into(),
            by: "shifterd".into(),
            what: "not ready".into(),
            slot: Some(Slot::B),
            detail: "0 of 1 backends ready: HTTP 503".into(),
            effective_before_bp: 2500,
            effective_after_bp: 0,
            took_ns: 342_000_000,
        }],
    }
}

fn rollout() -> RolloutStatus {
    RolloutStatus {
        id: 7,
        version: "3.2.0".into(),
        old_version: Some("3.1.4".into()),
        slot: Slot::B,
        strategy: "5-20-50".into(),
        hash: "0123".into(),
        attempt: 1,
        phase: "RolledBack".into(),
        detail: "RolledBack(the kernel tripped)".into(),
        outcome: RolloutOutcome::Back,
        step: None,
        steps_count: 3,
        waiting_on: Some("another 28 min of cooldown".into()),
        next_command: Some("shifterctl retry orders".into()),
        next_version: None,
        not_kept: None,
    }
}

fn breaker() -> BreakerStatus {
    let errors = [
        ("canary", 6),
        ("baseline", 1),
        ("no_cohort", 9),
        ("unheard", 2),
        ("repeated", 3),
        ("dropped", 4),
        ("owed", 5),
        ("trips", 1),
        ("trips_held", 7),
        ("untold", 8),
    ];
    let arm = |ratio, evidence_milli, threshold_milli| ArmStatus {
        ratio,
        evidence_milli,
        threshold_milli,
        excursions_count: 2,
    };
    BreakerStatus {
        mode: "armed".into(),
        tripped: true,
        errors: errors.map(|(name, count)| (name.to_owned(), count)).into(),
        arms: vec![arm(3, 2_120, 8_480), arm(30, 12_500, 10_000)],
        min_sources: 3,
        trip: Some(TripStatus {
            result: "executed".into(),
            ratio: 30,
            evidence_milli: 12_500,
            threshold_milli: 10_000,
            excursion: 2,
            sources_count: 5,
            weight_bp: 500,
            cohort_weight_bp: 500,
            took_ns: 640,
            age_ms: 61_000,
        }),
    }
}

fn orders() -> ServiceStatus {
    ServiceStatus {
        name: "orders".into(),
        vips: vec!["10.0.0.10:443".into(), "[2001:db8::10]:443".into()],
        protocol: "tcp".into(),
        plane: "socket".into(),
        plane_reason: "TCP, and every backend is an address of this host".into(),
        affinity: Affinity::Client,
        baseline: Slot::A,
        weight_bp: 2500,
        effective_bp: 0,
        weight_by: "root (uid 0)".into(),
        weight_set_unix_ms: 1_700_000_050_500,
        generation: 12,
        targets: vec![TargetStatus {
            from: "10.0.0.0/8".into(),
            to: Role::Canary,
        }],
        targets_held: true,
        breaker: breaker(),
        rollout: Some(rollout()),
        observe: vec!["connections".into(), "latency".into(), "http".into()],
        orphaned: true,
        slots: vec![
            SlotStatus {
                slot: Slot::A,
                role: Role::Baseline,
                version: None,
                eligible: true,
                drained: false,
                reason: String::new(),
                live_flows_count: 900,
                counters: counts(1000),
                failed_over_count: 2,
                unserved_count: 3,
                targeted_count: 4,
                departed_flows_count: 5,
                accept_queue_count: 8,
                socket: socket(1_000_000),
                observed: Some(observed()),
                backends: vec![
                    backend("10.0.0.10:8443", true, 500),
                    backend("[2001:db8::11]:8443", true, 400),
                ],
            },
            SlotStatus {
                slot: Slot::B,
                role: Role::Canary,
                version: None,
                eligible: false,
                drained: true,
                reason: "0 of 1 backends ready".into(),
                live_flows_count: 304,
                counters: counts(100),
                failed_over_count: 17,
                unserved_count: 1,
                targeted_count: 61,
                departed_flows_count: 6,
                accept_queue_count: 9,
                socket: socket(2_000_000),
                observed: Some(ObservedStatus::default()),
                backends: vec![backend("10.0.0.11:9443", false, 304)],
            },
        ],
        notes: vec!["slot b is not ready: slot a takes its share".into()],
    }
}

/// Counters of a slot of the socket plane, every number another one.
pub(crate) fn socket(base: u64) -> Vec<(String, u64)> {
    let rows = SocketCounters::default();
    (base..)
        .zip(rows.rows())
        .map(|(count, (name, ..))| (name.to_owned(), count))
        .collect()
}

fn observed() -> ObservedStatus {
    let wait = |count, sum_ns| WaitStatus {
        count,
        sum_ns,
        p50_ns: 400_000,
        p99_ns: 1_500_000,
        shorter: vec![(131_072, 2), (1_048_576, count - 1), (2_097_152, count)],
    };
    ObservedStatus {
        connect: wait(40, 1_500_000),
        first_byte: wait(38, 17_250_000),
        responses: vec![
            ("1xx".into(), 1),
            ("2xx".into(), 900),
            ("unknown".into(), 3),
        ],
    }
}

fn billing() -> ServiceStatus {
    let slot = |slot, role| SlotStatus {
        slot,
        role,
        version: None,
        eligible: false,
        drained: false,
        reason: "no backends".into(),
        live_flows_count: 0,
        counters: FlowCounts::default(),
        failed_over_count: 0,
        unserved_count: 0,
        targeted_count: 0,
        departed_flows_count: 0,
        accept_queue_count: 0,
        socket: vec![],
        observed: None,
        backends: vec![],
    };
    ServiceStatus {
        name: "billing".into(),
        vips: vec!["10.0.0.11:80".into()],
        protocol: "tcp".into(),
        plane: "nat".into(),
        plane_reason: "asked for".into(),
        affinity: Affinity::Connection,
        baseline: Slot::B,
        weight_bp: 0,
        effective_bp: 0,
        weight_by: String::new(),
        weight_set_unix_ms: 0,
        generation: 1,
        targets: vec![],
        targets_held: false,
        breaker: Default::default(),
        rollout: None,
        observe: vec!["connections".into()],
        orphaned: false,
        slots: vec![slot(Slot::A, Role::Canary), slot(Slot::B, Role::Baseline)],
        notes: vec![],
    }
}

fn backend(addr: &str, ready: bool, live_flows_count: u64) -> BackendStatus {
    BackendStatus {
        addr: addr.into(),
        weight: 100,
        ready,
        reason: if ready {
            String::new()
        } else {
            "HTTP 503 from /ready".into()
        },
        live_flows_count,
        counters: counts(50),
        in_bytes: 123_456,
        out_bytes: 9_876_543,
    }
}

fn counts(base: u64) -> FlowCounts {
    FlowCounts {
        selected: base + 6,
        established: base + 5,
        refused: base + 4,
        closed: base + 3,
        reset_by_client: base + 2,
        reset_by_backend: base + 1,
        unanswered: base + 7,
    }
}
