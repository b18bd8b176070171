//! One build takes the place of another under load.

use std::{path::PathBuf, time::Duration};

use shifter_common::wire::Slot;
use shifter_tests::{
    daemon::{rehearsal, shifterd},
    load::Plan,
    world::Family,
};

use crate::{
    held::Held,
    stage::{Stage, counter, linked_programs, slot, vip},
};

/// Ids of the programs at the pinned links of a version of the maps.
fn programs(stage: &Stage, version: u32) -> Vec<u32> {
    let dir = stage
        .daemon
        .bpffs()
        .join(format!("shifter/v{version}/sockets"));
    let mut ids = linked_programs(&dir);
    ids.sort_unstable();
    ids
}

fn replace(stage: &mut Stage, program: PathBuf, environment: &[(&str, &str)]) {
    assert_eq!(stage.daemon.stop(), Some(0));
    stage.daemon.become_program(program, environment);
    stage.daemon.start_again();
    assert!(stage.daemon.status().daemon.adopted);
}

/// The programs are replaced at their links by others with the same maps, and by those of another
/// version of the maps, there and back: no connection is refused or lost, none changes its version,
/// and each counts for its version on.
#[test]
fn replaced_under_load() {
    let mut stage = Stage::new();
    stage.daemon.be_patient(Duration::from_secs(90));
    let mut of_a = Held::open(stage.world.client(), vip(Family::V4), 3);
    stage.set_weight(10_000);
    let mut of_b = Held::open(stage.world.client(), vip(Family::V6), 4);
    stage.set_weight(5_000);
    let is_as_before = |stage: &Stage| {
        stage.wait("who has which connections is known", |s| {
            let live = Slot::ALL.map(|which| slot(s, which).live_flows_count);
            live[0] >= 3 && live[1] >= 4
        });
    };
    is_as_before(&stage);
    let loads = Family::ALL.map(|family| {
        stage.load_beside(Plan {
            rate_per_s: Some(400.0),
            ..Plan::churn(vip(family), 8, Duration::from_secs(45))
        })
    });
    let first = programs(&stage, 1);
    assert_eq!(first.len(), 4);
    for (program, environment, version) in [
        (rehearsal(), &[][..], 2),
        (rehearsal(), &[("SHIFTER_REHEARSE_CODE", "77")], 2),
        (shifterd(), &[], 1),
    ] {
        replace(&mut stage, program, environment);
        is_as_before(&stage);
        // The programs look at the tables of the daemon that is there now.
        for (weight_bp, share) in [(0, 0.0), (10_000, 1.0), (5_000, 0.5)] {
            stage.set_weight(weight_bp);
            let report = stage.load(&Plan::connections(vip(Family::V4), 8, 400));
            report.assert_clean();
            let found = report.share("b");
            assert!((found - share).abs() < 0.1, "{weight_bp}: {found}");
        }
        let ids = programs(&stage, version);
        assert_eq!(ids.len(), 4);
        assert_ne!(ids, first);
        // Those of before are gone, not beside them.
        let loaded: Vec<u32> = aya::programs::loaded_programs()
            .filter_map(|program| program.ok().map(|program| program.id()))
            .collect();
        assert!(
            first
                .iter()
                .all(|id| ids.contains(id) || !loaded.contains(id))
        );
    }
    for load in loads {
        let report = load.join().expect("the load ran");
        report.assert_clean();
        assert!(report.requests > 5_000, "{report:?}");
        assert!((0.4..0.6).contains(&report.share("b")), "{report:#?}");
    }
    assert_eq!((of_a.alive_count(), of_b.alive_count()), (3, 4));
    let after = stage.wait("nothing but these is open", |s| {
        Slot::ALL.map(|which| slot(s, which).live_flows_count) == [3, 4]
    });
    for which in Slot::ALL {
        for name in [
            "unserved",
            "no_listener",
            "not_admitted",
            "departed",
            "other_slot",
        ] {
            assert_eq!(counter(&after, which, name), 0, "{which} {name}");
        }
    }
}
