//! A thousand services with ten thousand backends: what a publication costs does not grow with what
//! the others have. Costs are calls and steps; the times are printed for people.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use shifter_common::steering::Slot;
use shifter_daemon::{
    dataplane::{Dataplane as _, PlannedBackend, ServicePlan, SlotPlan, bpf::BpfDataplane},
    model::SizeSpec,
};

use crate::{
    kernel::{Hook, Kernel},
    plans::plan,
};

const SERVICES: u16 = 1_000;
/// Of each slot.
const BACKENDS: u16 = 5;

fn service(index: u16, weight_bp: u16) -> ServicePlan {
    let [high, low] = index.to_be_bytes();
    let slot = |slot: u8| SlotPlan {
        eligible: true,
        backends: (0..BACKENDS)
            .map(|i| PlannedBackend {
                addr: SocketAddr::from(([10, 100 + slot, high, low], 8_000 + i)),
                weight: 100,
                ready: true,
            })
            .collect(),
        ..SlotPlan::default()
    };
    ServicePlan {
        name: format!("service-{index}"),
        vips: vec![SocketAddr::from(([10, 50, high, low], 80))],
        weight_bp,
        slots: [slot(0), slot(1)],
        ..plan()
    }
}

/// Map calls and backend entries looked at by something.
fn cost(kernel: &mut Kernel, act: impl FnOnce(&mut BpfDataplane)) -> (u64, u64, Duration) {
    let dataplane = kernel.dataplane();
    let effort = |dataplane: &BpfDataplane| {
        let effort = dataplane.effort();
        (effort.map_calls.get(), effort.backends_seen.get())
    };
    let (calls, seen) = effort(dataplane);
    let begun = Instant::now();
    act(dataplane);
    let took = begun.elapsed();
    let (calls_after, seen_after) = effort(dataplane);
    (calls_after - calls, seen_after - seen, took)
}

#[test]
fn a_publication_costs_what_its_service_has() {
    let sizes = SizeSpec {
        services_count: 1_024,
        backends_count: 16_384,
        flows_count: 65_536,
        pending_count: 65_536,
        table_entries_count: 4 << 20,
    };
    let mut kernel = Kernel::with(Hook::Tc, |node| node.sizes = sizes);
    let publish = |dataplane: &mut BpfDataplane, plan: &ServicePlan| {
        dataplane.publish(plan).expect("the plan is good");
    };
    let mut costs = Vec::new();
    let begun = Instant::now();
    for index in 0..SERVICES {
        let plan = service(index, 0);
        let (calls, seen, _) = cost(&mut kernel, |dataplane| publish(dataplane, &plan));
        costs.push((calls, seen));
    }
    println!("{SERVICES} services from nothing: {:?}", begun.elapsed());
    assert_eq!(
        costs.first(),
        costs.last(),
        "the last costs what the first did"
    );
    let (calls, seen) = costs[0];
    // The service, its VIP in two maps, its ten backends; a few looks at its rules.
    assert!(calls <= 20 && seen <= 40, "{calls} calls, {seen} entries");

    let plan = service(500, 2_500);
    let (calls, seen, took) = cost(&mut kernel, |dataplane| publish(dataplane, &plan));
    println!("a weight: {took:?}");
    assert_eq!((calls, seen), (0, 0), "a weight alone is one store");
    let reading = kernel.dataplane().published().expect("the kernel answers");
    let changed = reading
        .iter()
        .find(|p| p.name == "service-500")
        .expect("known");
    assert_eq!(
        (changed.word.weight_bp(), changed.word.baseline()),
        (2_500, Slot::A)
    );

    let (calls, seen, took) = cost(&mut kernel, |dataplane| {
        (0..SERVICES).for_each(|index| publish(dataplane, &service(index, 2_500)));
    });
    println!("the same plans again: {took:?}");
    assert_eq!(
        (calls, seen),
        (0, 0),
        "what is in force is not looked at again"
    );

    let (calls, seen, took) = cost(&mut kernel, |dataplane| {
        for index in 0..SERVICES {
            let mut plan = service(index, 2_500);
            plan.slots[1].backends[0].ready = false;
            publish(dataplane, &plan);
        }
    });
    println!("a backend of each service fails: {took:?}");
    let per_service = (calls / u64::from(SERVICES), seen / u64::from(SERVICES));
    assert!(
        per_service <= (4, 40),
        "{per_service:?} calls and entries a service"
    );

    let (_, seen, took) = cost(&mut kernel, |dataplane| {
        for index in 0..SERVICES {
            let reading = dataplane.read(&format!("service-{index}"));
            assert_eq!(
                reading.expect("counters").backends.len(),
                2 * usize::from(BACKENDS)
            );
        }
    });
    println!("all counters: {took:?}");
    assert_eq!(
        seen,
        u64::from(SERVICES * BACKENDS * 2),
        "each backend is looked at once"
    );
}
