//! The breaker in the real programs: which error trips, and what never does. What is expected comes from
//! the same arithmetic on the host.

use std::{net::SocketAddr, time::Duration};

use shifter_common::{
    breaker::{BreakerCounters, Increments, TRIP_EVENTS_LEN_BYTES, Thresholds, trip_result},
    steering::{Affinity, Slot, SteeringWord},
    verdict::Verdict,
};
use shifter_daemon::{
    analysis::{BreakerBudget, BreakerPlan},
    dataplane::{BreakerReading, Dataplane as _, ServicePlan},
    model::{BreakerMode, BreakerSpec, Prefix, Target},
};
use shifter_tests::packet::Packet;

use crate::{
    kernel::{Hook, Kernel},
    plans::*,
};

const ORDERS: &str = "orders";
/// The port of slot b's backend, the canary's.
const CANARY_PORT: u16 = 9_090;

/// A service on trial at this weight; flows count from the first one on.
fn trial(weight_bp: u16) -> ServicePlan {
    ServicePlan {
        vips: vec![V.parse().expect("an address")],
        weight_bp,
        rearms: true,
        breaker: BreakerSpec {
            settle: Duration::ZERO,
            ..BreakerSpec::default()
        },
        ..plan()
    }
}

/// The same where every client counts for itself and in full. Prefixes that meet in a cell by a secret hash
/// share its part, so without this the number of errors would be another one in every seventh run.
fn open_trial(weight_bp: u16) -> ServicePlan {
    let mut plan = trial(weight_bp);
    plan.breaker.trusted = [Prefix::of([20, 0, 0, 0].into(), 6).expect("a prefix")].into();
    plan.breaker.min_sources = 1;
    plan
}

/// A kernel and the clients that come to it, each from a network of its own.
struct Stage {
    kernel: Kernel,
    clients: u32,
}

impl Stage {
    fn new(plan: &ServicePlan) -> Self {
        let mut kernel = Kernel::new(Hook::Tc);
        kernel.publish(plan);
        Self { kernel, clients: 0 }
    }

    fn next_client(&mut self) -> SocketAddr {
        self.clients += 1;
        let [_, a, b, c] = self.clients.to_be_bytes();
        SocketAddr::from(([20 + a, b, c, 9], 40_000))
    }

    /// A new flow; the slot it was sent to and the backend's port.
    fn open(&self, client: SocketAddr) -> (Slot, u16) {
        let vip: SocketAddr = V.parse().expect("an address");
        let syn = Packet::tcp(client, vip).flags(SYN).seq(1);
        let ran = self.kernel.ingress(&syn.build());
        assert_eq!(ran.verdict, Verdict::SteeredNew);
        let port = u16::from_be_bytes([ran.bytes[36], ran.bytes[37]]);
        (
            if port == CANARY_PORT {
                Slot::B
            } else {
                Slot::A
            },
            port,
        )
    }

    /// The backend refuses the flow.
    fn refuse(&self, client: SocketAddr, port: u16) {
        let backend = SocketAddr::from(([10, 0, 0, 20], port));
        let rst = Packet::tcp(backend, client).flags(RST | ACK).ack(2);
        let ran = self.kernel.egress(&rst.build());
        assert_eq!(ran.verdict, Verdict::SteeredReply);
    }

    /// A new flow of a new client, which fails if it came to one of these slots. Gives where it came to.
    fn flow(&mut self, fails: &[Slot]) -> Slot {
        let client = self.next_client();
        let (slot, port) = self.open(client);
        if fails.contains(&slot) {
            self.refuse(client, port);
        }
        slot
    }

    /// Flows until one came to this slot.
    fn flow_to(&mut self, wanted: Slot, fails: &[Slot]) {
        for _ in 0..20_000 {
            if self.flow(fails) == wanted {
                return;
            }
        }
        panic!("no flow in 20,000 came to slot {wanted}");
    }

    fn reading(&mut self) -> BreakerReading {
        self.kernel.dataplane().breaker(ORDERS).expect("a reading")
    }

    fn word(&mut self) -> SteeringWord {
        let published = self.kernel.dataplane().published().expect("services");
        published
            .iter()
            .find(|one| one.name == ORDERS)
            .expect("orders")
            .word
    }

    fn counters(&mut self) -> BreakerCounters {
        self.reading().counters
    }
}

fn thresholds() -> [Thresholds; 2] {
    let budget = BreakerBudget {
        false_rollback: 0.01,
        hosts: 1,
        restarts: 1,
    };
    BreakerPlan::new(&budget).expect("a plan").thresholds
}

fn increments(weight_bp: u16) -> [Increments; 2] {
    BreakerPlan::row(weight_bp).increments
}

/// Errors of a canary that always fails, beside a baseline that never does, until an arm trips.
fn errors_until_trip(weight_bp: u16) -> u64 {
    let arms = increments(weight_bp).into_iter().zip(thresholds());
    let needed = arms.map(|(arm, thresholds)| u64::from(thresholds[0].div_ceil(arm.gain)));
    needed.min().expect("two arms")
}

#[test]
fn a_canary_that_always_fails_is_out_at_the_error_that_the_arithmetic_says() {
    for (weight_bp, most) in [(100, 6), (500, 6), (5_000, 20)] {
        let needed = errors_until_trip(weight_bp);
        assert!(needed <= most, "{weight_bp}: {needed} errors");
        let mut stage = Stage::new(&open_trial(weight_bp));
        for error in 1..=needed {
            assert!(!stage.word().tripped(), "{weight_bp}: before error {error}");
            stage.flow_to(Slot::B, &[Slot::B]);
        }
        let word = stage.word();
        assert!(word.tripped() && word.held(), "{weight_bp}: {word:?}");
        assert_eq!(word.weight_bp(), 0);
        // From the next new flow on.
        for _ in 0..300 {
            assert_eq!(stage.flow(&[]), Slot::A);
        }
        let reading = stage.reading();
        assert_eq!(
            reading.counters,
            BreakerCounters {
                canary: needed,
                trips: 1,
                ..BreakerCounters::default()
            }
        );
        let trip = reading.trip;
        assert_eq!(trip.result, trip_result::EXECUTED);
        assert_eq!(
            (trip.weight_bp, trip.cohort_weight_bp),
            (weight_bp, weight_bp)
        );
        assert_eq!(trip.excursion, 1);
        assert!(
            trip.sum >= trip.threshold && trip.threshold == thresholds()[usize::from(trip.arm)][0]
        );
        assert!(u64::from(trip.sources) <= needed && trip.sources >= 1);
        assert!(trip.decided_ns > 0 && trip.flipped_ns >= trip.decided_ns);
        assert_eq!(trip.generation.wrapping_add(1), word.generation());
    }
}

#[test]
fn a_fault_that_both_versions_share_blames_nobody() {
    for weight_bp in [500, 5_000] {
        let mut stage = Stage::new(&trial(weight_bp));
        for _ in 0..3_000 {
            stage.flow(&Slot::ALL);
        }
        let word = stage.word();
        assert!(!word.tripped(), "{weight_bp}: {:?}", stage.reading());
        let counters = stage.counters();
        assert_eq!(
            counters.canary + counters.baseline + counters.unheard,
            3_000
        );
        assert!(counters.canary > 0 && counters.baseline > 0);
        assert_eq!(
            (counters.trips, counters.trips_held, counters.no_cohort),
            (0, 0, 0)
        );
    }
}

#[test]
fn errors_of_the_baseline_take_evidence_away() {
    let mut stage = Stage::new(&open_trial(5_000));
    for _ in 0..4 {
        stage.flow_to(Slot::B, &[Slot::B]);
    }
    stage.flow_to(Slot::A, &[Slot::A]);
    let arms = increments(5_000);
    let reading = stage.reading();
    for (arm, increments) in reading.arms.iter().zip(arms) {
        let expected = (4 * increments.gain).saturating_sub(increments.loss);
        assert_eq!(arm.word.sum(), expected);
        assert_eq!(arm.word.excursion(), 1);
    }
    for _ in 0..20 {
        stage.flow_to(Slot::A, &[Slot::A]);
    }
    for arm in stage.reading().arms {
        assert_eq!((arm.word.sum(), arm.word.excursion()), (0, 1));
    }
}

#[test]
fn one_client_that_tries_forever_never_trips() {
    let mut stage = Stage::new(&trial(5_000));
    let mut failed = 0;
    for port in 1..=2_000 {
        let client = SocketAddr::from(([20, 0, 0, 9], port));
        let (slot, backend_port) = stage.open(client);
        if slot == Slot::B {
            stage.refuse(client, backend_port);
            failed += 1;
        }
    }
    assert!(!stage.word().tripped());
    let counters = stage.counters();
    assert_eq!(counters.canary + counters.unheard, failed);
    assert!(counters.unheard > counters.canary, "{counters:?}");
    for (arm, thresholds) in stage.reading().arms.iter().zip(thresholds()) {
        assert!(arm.word.sum() <= thresholds[0].div_ceil(4));
    }
}

#[test]
fn ten_thousand_addresses_of_one_network_neither_trip_nor_hide_a_bad_canary() {
    let mut stage = Stage::new(&trial(500));
    for nth in 0..10_000_u32 {
        let [_, _, high, low] = nth.to_be_bytes();
        let client = SocketAddr::from(([20, 0, 0, low], 1_000 + u16::from(high)));
        let (slot, port) = stage.open(client);
        // The network's clients see errors on the baseline and on the canary.
        let _ = slot;
        stage.refuse(client, port);
    }
    assert!(!stage.word().tripped());
    let before = stage.counters();
    assert!(before.unheard > 9_000, "{before:?}");
    let mut errors = 0;
    while !stage.word().tripped() {
        stage.flow_to(Slot::B, &[Slot::B]);
        errors += 1;
        assert!(
            errors <= 2 * errors_until_trip(500),
            "{:?}",
            stage.reading()
        );
    }
}

#[test]
fn a_trusted_proxy_may_supply_every_error() {
    let mut plan = open_trial(500);
    plan.breaker.trusted = [Prefix::of([20, 0, 0, 0].into(), 24).expect("a prefix")].into();
    let mut stage = Stage::new(&plan);
    let mut errors = 0;
    for port in 1..=2_000 {
        let client = SocketAddr::from(([20, 0, 0, 9], port));
        let (slot, backend_port) = stage.open(client);
        if slot == Slot::B {
            stage.refuse(client, backend_port);
            errors += 1;
            if stage.word().tripped() {
                break;
            }
        }
    }
    assert!(stage.word().tripped());
    assert_eq!(errors, errors_until_trip(500));
}

#[test]
fn flows_outside_the_trial_count_for_nothing() {
    let mut targeted = trial(500);
    targeted.targets = [(
        Prefix::of([20, 0, 0, 0].into(), 8).expect("a prefix"),
        Target::Canary,
    )]
    .into();
    let mut fresh = trial(5_000);
    fresh.breaker.settle = Duration::from_mins(10);
    let rows = [
        ("sent by a rule", targeted),
        ("soon after a change", fresh),
        ("all to the canary", trial(10_000)),
    ];
    for (name, plan) in rows {
        let mut stage = Stage::new(&plan);
        for _ in 0..50 {
            stage.flow_to(Slot::B, &[Slot::B]);
        }
        assert!(!stage.word().tripped(), "{name}");
        let counters = stage.counters();
        let expected = BreakerCounters {
            no_cohort: 50,
            ..BreakerCounters::default()
        };
        assert_eq!(counters, expected, "{name}");
    }
}

#[test]
fn a_flow_counts_by_the_weight_it_was_admitted_at() {
    let mut stage = Stage::new(&open_trial(5_000));
    let mut open = Vec::new();
    while open.len() < 3 {
        let client = stage.next_client();
        let (slot, port) = stage.open(client);
        if slot == Slot::B {
            open.push((client, port));
        }
    }
    let mut lower = open_trial(500);
    lower.rearms = false;
    stage.kernel.publish(&lower);
    for (client, port) in open {
        stage.refuse(client, port);
    }
    for (arm, at) in stage.reading().arms.iter().zip(increments(5_000)) {
        assert_eq!(arm.word.sum(), 3 * at.gain);
    }
    stage.flow_to(Slot::B, &[Slot::B]);
    let (before, now) = (increments(5_000), increments(500));
    for ((arm, before), now) in stage.reading().arms.iter().zip(before).zip(now) {
        assert_eq!(arm.word.sum(), 3 * before.gain + now.gain);
    }
}

#[test]
fn a_dry_run_says_so_once_and_changes_nothing() {
    let mut plan = trial(500);
    plan.breaker.mode = BreakerMode::DryRun;
    let mut stage = Stage::new(&plan);
    for _ in 0..20 {
        stage.flow_to(Slot::B, &[Slot::B]);
    }
    let word = stage.word();
    assert!(!word.tripped());
    assert_eq!(word.weight_bp(), 500);
    let reading = stage.reading();
    assert_eq!(reading.trip.result, trip_result::DRY_RUN);
    let expected = BreakerCounters {
        canary: 20,
        trips_held: 1,
        ..BreakerCounters::default()
    };
    assert_eq!(reading.counters, expected);
}

#[test]
fn a_breaker_that_is_off_sees_nothing() {
    let mut plan = trial(5_000);
    plan.breaker.mode = BreakerMode::Off;
    let mut stage = Stage::new(&plan);
    for _ in 0..60 {
        stage.flow_to(Slot::B, &[Slot::B]);
    }
    assert!(!stage.word().tripped() && !stage.word().armed());
    assert_eq!(stage.counters(), BreakerCounters::default());
}

#[test]
fn without_a_baseline_the_trip_is_noted_and_not_executed() {
    let mut stage = Stage::new(&open_trial(500));
    let needed = errors_until_trip(500);
    for _ in 1..needed {
        stage.flow_to(Slot::B, &[Slot::B]);
    }
    let (client, port) = loop {
        let client = stage.next_client();
        let (slot, port) = stage.open(client);
        if slot == Slot::B {
            break (client, port);
        }
    };
    let mut without = open_trial(500);
    without.rearms = false;
    without.slots[0].eligible = false;
    for backend in &mut without.slots[0].backends {
        backend.ready = false;
    }
    stage.kernel.publish(&without);
    stage.refuse(client, port);
    let word = stage.word();
    assert!(!word.tripped());
    assert_eq!(word.weight_bp(), 500);
    let reading = stage.reading();
    assert_eq!(reading.trip.result, trip_result::NO_BASELINE);
    assert_eq!(
        (reading.counters.trips, reading.counters.trips_held),
        (0, 1)
    );
    // Those that take the baseline's place are no part of the trial: nobody drew them.
    for _ in 0..20 {
        stage.flow_to(Slot::B, &[Slot::B]);
    }
    let counters = stage.counters();
    assert!(counters.no_cohort >= 15, "{counters:?}");
}

#[test]
fn what_the_kernel_took_back_stays_back_until_somebody_gives_a_weight() {
    let mut stage = Stage::new(&open_trial(500));
    for _ in 0..errors_until_trip(500) {
        stage.flow_to(Slot::B, &[Slot::B]);
    }
    assert!(stage.word().tripped());
    // A daemon that does not know yet publishes for another reason.
    let mut unaware = open_trial(500);
    unaware.rearms = false;
    unaware.on_empty = shifter_daemon::model::OnEmpty::Pass;
    stage.kernel.publish(&unaware);
    assert!(stage.word().tripped());
    assert_eq!(stage.word().weight_bp(), 0);
    // And one that starts anew.
    stage.kernel.reopen();
    stage.kernel.publish(&unaware);
    assert_eq!(stage.word().weight_bp(), 0);
    let tripped = stage.kernel.dataplane().tripped();
    assert_eq!(tripped.len(), 1);
    // Somebody gives it a weight: the trial begins with a clean slate.
    stage.kernel.publish(&open_trial(500));
    assert!(!stage.word().tripped() && !stage.word().held());
    assert_eq!(stage.word().weight_bp(), 500);
    assert_eq!(stage.reading().trip.result, trip_result::NONE);
    for arm in stage.reading().arms {
        assert_eq!(arm.word.0, 0);
    }
    for error in 1..=errors_until_trip(500) {
        assert!(!stage.word().tripped(), "before error {error}");
        stage.flow_to(Slot::B, &[Slot::B]);
    }
    assert!(stage.word().tripped());
}

#[test]
fn a_client_counts_once_a_step_where_clients_stay_on_their_version() {
    let mut plan = trial(5_000);
    plan.affinity = Affinity::Client;
    let mut stage = Stage::new(&plan);
    let client = loop {
        let client = stage.next_client();
        if stage.open(client).0 == Slot::B {
            break client;
        }
    };
    for port in 1..=5 {
        let again = SocketAddr::new(client.ip(), port);
        let (slot, backend_port) = stage.open(again);
        assert_eq!(slot, Slot::B, "it stays on its version");
        stage.refuse(again, backend_port);
    }
    let counters = stage.counters();
    let expected = BreakerCounters {
        canary: 1,
        repeated: 4,
        ..BreakerCounters::default()
    };
    assert_eq!(counters, expected);
}

/// Nobody reads the ring here, so it fills up: 16 bytes a trip, and it is never quite full. What it cannot
/// take is counted.
#[test]
fn a_trip_that_nobody_could_be_told_of_is_counted() {
    const RING_TRIPS_COUNT: u64 = TRIP_EVENTS_LEN_BYTES as u64 / 16 - 1;
    const MORE_COUNT: u64 = 3;
    let mut stage = Stage::new(&open_trial(5_000));
    for nth in 1..=RING_TRIPS_COUNT + MORE_COUNT {
        stage.kernel.publish(&open_trial(5_000));
        while !stage.word().tripped() {
            stage.flow_to(Slot::B, &[Slot::B]);
        }
        let counters = stage.counters();
        let untold = nth.saturating_sub(RING_TRIPS_COUNT);
        assert_eq!((counters.trips, counters.untold), (nth, untold));
    }
}
