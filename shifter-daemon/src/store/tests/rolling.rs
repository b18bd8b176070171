//! Rollouts and their history.

use rusqlite::Connection;
use shifter_common::{audit::Chain, steering::Slot};

use super::{after_a_crash, fresh, lines, open, origin, records};
use crate::{
    config,
    rollout::{
        Command, Effect, Event, Now, PlanKind, Rollout, RolloutParts, Seen, Shell, Verb, Wanted,
        run,
    },
    store::{self, FILE, Revision, Store},
};

const ORDERS: &str = "[service]\nname = \"orders\"\nvip = \"10.0.0.10:80\"\n\
     [slot.a]\nbackends = [\"10.1.0.1:80\"]\n[slot.b]\nbackends = [\"10.2.0.1:80\"]\n\
     [rollout]\nsteps = [{ weight = 5, bake = \"1m\" }, { weight = 100 }]\n";

fn rollout(id: u64, version: &str) -> Rollout {
    let loaded = config::collect(vec![("orders.toml".into(), Ok(ORDERS.into()))]);
    assert_eq!(loaded.diagnostics, []);
    let plan = loaded.services["orders"].rollout_plan(Slot::B);
    let parts = RolloutParts {
        id,
        service: "orders".into(),
        version: version.parse().expect("a label"),
        old_version: Some("3.1.9".parse().expect("a label")),
        canary: Slot::B,
    };
    Rollout::new(parts, plan.expect("a plan"))
}

/// A driver whose acts all succeed.
struct Keeper<'a> {
    store: &'a mut Store,
    now_ms: u64,
    keeps_count: u32,
    check: &'a dyn Fn(&Rollout),
}

impl Shell for Keeper<'_> {
    fn keep(&mut self, rollout: &Rollout) -> Result<(), String> {
        let kept = self
            .store
            .keep_rollout(rollout, None, store::records(rollout), None)
            .map_err(|error| error.to_string());
        self.keeps_count += 1;
        (self.check)(rollout);
        kept
    }

    fn carry_out(&mut self, _: &Effect) -> Option<Result<(), String>> {
        Some(Ok(()))
    }

    fn now(&mut self) -> Now {
        self.now_ms += 1_000;
        Now {
            mono_ms: self.now_ms,
            unix_ms: 1_764_000_000_000 + self.now_ms,
        }
    }
}

fn ready() -> Event {
    Event::Readiness {
        is_canary_ready: true,
        is_baseline_ready: true,
    }
}

fn flows() -> Event {
    Event::Flows(crate::rollout::SlotFlows {
        canary_count: Some(0),
        baseline_count: Some(0),
    })
}

fn command(verb: Verb) -> Event {
    let by = "root (uid 0)".into();
    Event::Command(Command { by, verb })
}

/// At every instant at which it is kept, what a crash leaves is the rollout with all its transitions.
#[test]
fn a_rollout_and_its_transitions_are_there_after_a_crash_at_any_instant() {
    let (dir, mut store) = fresh();
    let mut rollout = rollout(1, "3.2.0");
    let path = dir.path().to_owned();
    let check = move |rollout: &Rollout| {
        let (_copy, mut again) = after_a_crash(&path);
        let (kept, problems) = again.rollouts().expect("a disk");
        assert_eq!(problems, Vec::<String>::new());
        let text = |rollout: &Rollout| serde_json::to_string(rollout).expect("JSON");
        assert_eq!(text(&kept[0].rollout), text(rollout));
        assert!(!kept[0].is_rebooted);
        let last = records(&mut again).pop().expect("a record");
        assert_eq!(last.verb == "phase", last.rollout == Some(1));
        if let Some(transition) = rollout.transitions().last() {
            assert_eq!((&last.from, &last.to), (&transition.from, &transition.to));
        }
    };
    let mut keeper = Keeper {
        store: &mut store,
        now_ms: 0,
        keeps_count: 0,
        check: &check,
    };
    for event in [flows(), ready(), Event::Tick, command(Verb::Abort)] {
        run(&mut rollout, event, &mut keeper).expect("accepted");
    }
    assert!(keeper.keeps_count > 5);
    assert!(rollout.phase().is_final(), "{}", rollout.phase());

    let records = records(&mut store);
    let phases: Vec<String> = records[1..]
        .iter()
        .map(|record| {
            let (before, after) = (record.weight_before_bp, record.weight_after_bp);
            format!("{} -> {}, {before} -> {after}", record.from, record.to)
        })
        .collect();
    assert_eq!(phases[0], "Pending -> Gated, 0 -> 0");
    assert!(
        phases.last().expect("an end").contains("-> RolledBack"),
        "{phases:#?}"
    );
    let one = &records[1];
    assert_eq!(
        (
            &*one.version,
            &*one.old_version,
            &*one.config_hash,
            one.slot
        ),
        ("3.2.0", "3.1.9", rollout.plan().hash(), Some(Slot::B))
    );
    assert!(one.unix_ms > 1_764_000_000_000);
    let mut chain = Chain::default();
    for line in lines(&mut store) {
        chain.follow(&line).expect("a sound chain");
    }
}

/// What cannot be kept is neither on disk nor in the audit.
#[test]
fn a_rollout_that_is_not_kept_leaves_no_record() {
    let (dir, mut store) = fresh();
    let mut one = rollout(1, "3.2.0");
    let lock = Connection::open(dir.path().join(FILE)).expect("a database");
    lock.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    let mut keeper = Keeper {
        store: &mut store,
        now_ms: 0,
        keeps_count: 0,
        check: &|_| {},
    };
    let refused = run(&mut one, command(Verb::Pause), &mut keeper).expect_err("not kept");
    assert!(
        refused.to_string().contains("database is locked"),
        "{refused}"
    );
    lock.execute_batch("ROLLBACK").expect("a lock");
    assert_eq!(store.rollouts().expect("a disk"), (vec![], vec![]));
    store.flush().expect("a disk");
    assert_eq!(records(&mut store).len(), 1, "the beginning alone");
}

#[test]
fn what_goes_on_and_what_was_last_is_read_at_the_start() {
    let (dir, mut store) = fresh();
    assert_eq!(store.next_rollout("orders").expect("a disk"), 1);
    for id in 1..=3 {
        let mut one = rollout(id, &format!("3.{id}"));
        if id != 2 {
            let mut keeper = Keeper {
                store: &mut store,
                now_ms: 0,
                keeps_count: 0,
                check: &|_| {},
            };
            run(&mut one, command(Verb::Abort), &mut keeper).expect("accepted");
            assert!(one.phase().is_final());
        } else {
            let next = Wanted {
                version: "3.9".parse().expect("a label"),
                kind: PlanKind::Release,
                strategy: None,
                by: "root (uid 0)".into(),
            };
            store
                .keep_rollout(&one, Some(&next), vec![], None)
                .expect("a disk");
        }
    }
    assert_eq!(store.next_rollout("orders").expect("a disk"), 4);
    assert_eq!(store.next_rollout("search").expect("a disk"), 1);
    drop(store);
    // The host began anew.
    let (store, told) = Store::open(dir.path(), origin("boot-2"));
    assert_eq!(told, Vec::<String>::new());
    let (kept, _) = store.rollouts().expect("a disk");
    let kept: Vec<_> = kept
        .iter()
        .map(|kept| {
            let next = kept.next.as_ref().map(|next| next.version.to_string());
            (kept.rollout.parts().id, kept.is_rebooted, next)
        })
        .collect();
    assert_eq!(kept, [(2, true, Some("3.9".into())), (3, true, None)]);
    let all = store.rollouts_of("orders").expect("a disk");
    assert_eq!(all.len(), 3);
    assert!(all[0].began_unix_ms > 0 && all[0].began_unix_ms <= all[0].kept_unix_ms);
    assert!(store.rollouts_of("search").expect("a disk").is_empty());
}

/// A rollout goes on from the disk as from memory.
#[test]
fn a_kept_rollout_is_told_of_the_new_boot() {
    let (dir, mut store) = fresh();
    let mut one = rollout(1, "3.2.0");
    let mut keeper = Keeper {
        store: &mut store,
        now_ms: 0,
        keeps_count: 0,
        check: &|_| {},
    };
    for event in [flows(), ready(), Event::Tick] {
        run(&mut one, event, &mut keeper).expect("accepted");
    }
    assert_eq!(one.share().weight_bp, 500, "{}", one.phase());
    drop(store);
    let (mut store, _) = Store::open(dir.path(), origin("boot-2"));
    let (mut kept, _) = store.rollouts().expect("a disk");
    let mut kept = kept.remove(0);
    let seen = Seen {
        weight_bp: 0,
        has_targets: false,
        is_taken_back: false,
        is_committed: false,
    };
    let is_rebooted = kept.is_rebooted;
    let mut keeper = Keeper {
        store: &mut store,
        now_ms: 0,
        keeps_count: 0,
        check: &|_| {},
    };
    let restarted = Event::Restarted { is_rebooted, seen };
    run(&mut kept.rollout, restarted, &mut keeper).expect("accepted");
    assert!(
        kept.rollout
            .phase()
            .to_string()
            .starts_with("Paused(the host was started anew"),
        "{}",
        kept.rollout.phase()
    );
}

#[test]
fn a_rollout_that_cannot_be_understood_costs_no_other() {
    let (dir, mut store) = fresh();
    for id in [1, 2, 3] {
        let one = rollout(id, "3.2.0");
        store
            .keep_rollout(&one, None, vec![], None)
            .expect("a disk");
    }
    drop(store);
    let file = dir.path().join(FILE);
    let connection = Connection::open(&file).expect("a database");
    connection
        .execute_batch(
            "UPDATE rollout SET rollout = '{}' WHERE id = 1; \
             UPDATE rollout SET rollout = replace(rollout, '\"weight_bp\":500', '\"weight_bp\":501') \
             WHERE id = 2",
        )
        .expect("a change");
    let (kept, problems) = open(dir.path()).rollouts().expect("a disk");
    let ids: Vec<_> = kept.iter().map(|kept| kept.rollout.parts().id).collect();
    assert_eq!(ids, [3]);
    let at = file.display();
    assert_eq!(
        problems,
        [
            format!(
                "{at}: rollout 1 of orders cannot be understood (missing field `parts` at line 1 \
                 column 2): traffic stays as it is"
            ),
            format!(
                "{at}: rollout 2 of orders cannot be understood (its plan is not the one that was \
                 frozen): traffic stays as it is"
            ),
        ]
    );
}

#[test]
fn revisions_are_numbered_by_service_and_changed_by_their_rollout() {
    let (_dir, mut store) = fresh();
    let revision = |service: &str, rollout, outcome: &str| Revision {
        service: service.into(),
        number: 0,
        slot: Slot::B,
        version: "3.2.0".into(),
        config_hash: "c0ffee".into(),
        rollout,
        unix_ms: 5,
        actor: "root (uid 0)".into(),
        outcome: outcome.into(),
    };
    let kept = rollout(7, "3.2.0");
    let running = revision("orders", Some(7), "running");
    store
        .add_revision(&revision("orders", None, "found"))
        .expect("a disk");
    store
        .keep_rollout(&kept, None, vec![], Some(&running))
        .expect("a disk");
    store
        .add_revision(&revision("search", None, "found"))
        .expect("a disk");
    let done = revision("orders", Some(7), "succeeded");
    store
        .keep_rollout(&kept, None, vec![], Some(&done))
        .expect("a disk");
    store
        .add_revision(&revision("orders", Some(8), "running"))
        .expect("a disk");
    store
        .add_revision(&revision("orders", None, "found"))
        .expect("a disk");
    let found: Vec<_> = store
        .revisions("orders")
        .expect("a disk")
        .into_iter()
        .map(|r| (r.number, r.rollout, r.outcome))
        .collect();
    let expected = [
        (1, None, "found"),
        (2, Some(7), "succeeded"),
        (3, Some(8), "running"),
        (4, None, "found"),
    ];
    assert_eq!(
        found,
        expected.map(|(number, rollout, outcome)| (number, rollout, outcome.to_owned()))
    );
    let other = store.revisions("search").expect("a disk");
    let numbered = Revision {
        number: 1,
        ..revision("search", None, "found")
    };
    assert_eq!(other, [numbered]);
}
