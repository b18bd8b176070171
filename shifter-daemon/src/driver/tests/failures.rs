//! Neither a full disk nor a kernel that refuses leaves anything half done.

use super::session::{ORDERS, Session};
use crate::dataplane::{ServicePlan, memory::Operation};

const FILES: &[(&str, &str)] = &[("orders.toml", ORDERS)];
const BEFORE: &[(&str, &str)] = &[
    (
        "plan orders",
        "500 bp, a open [10.1.0.1:80], b open [10.2.0.1:80], published 2",
    ),
    ("record orders", "500 bp by root (uid 0)"),
    (
        "event",
        "root (uid 0): weight: 0 -> 500, stored: weight 0 % -> 5 %, generation 2",
    ),
    (
        "show orders",
        "500 bp by root (uid 0), effective 500, generation 2\n\
         a: 0 live of {\"10.1.0.1:80\": 0}\n\
         b: 0 live of {\"10.2.0.1:80\": 0}",
    ),
];
const COMMANDS: [&str; 3] = [
    "weight orders 2500",
    "rollback orders reset",
    "drain orders b",
];

#[tokio::test(start_paused = true)]
async fn what_cannot_be_put_on_disk_is_not_done() {
    let mut session = Session::start(FILES);
    session
        .run(&[
            ("weight orders 500", "0 -> 500, generation 2"),
            ("lock", ""),
        ])
        .await;
    let file = session.dir.path().join("state/shifter.db");
    let refusal = format!(
        "state: writing {}: database is locked; nothing was changed / free space or mend \
         the state directory, then try again",
        file.display()
    );
    session.run(&[("weight orders 2500", &refusal)]).await;
    session.run(BEFORE).await;
    assert!(session.dataplane.with(|state| state.resets.is_empty()));
    session
        .run(&[
            ("unlock", ""),
            ("weight orders 2500", "500 -> 2500, generation 3"),
        ])
        .await;
}

/// Letting a slot in again gives it traffic, so it waits for the disk.
#[tokio::test(start_paused = true)]
async fn a_drain_is_not_undone_without_the_disk() {
    let mut session = Session::start(FILES);
    session
        .run(&[("drain orders b", "0 -> 0, generation 2"), ("lock", "")])
        .await;
    let reply = session.act("undrain orders b").await;
    assert!(
        reply.starts_with("state: ") && reply.contains("nothing was changed"),
        "{reply}"
    );
    session
        .run(&[
            (
                "plan orders",
                "0 bp, a open [10.1.0.1:80], b shut [10.2.0.1:80], published 2",
            ),
            ("record orders", "0 bp by , b by root (uid 0)"),
        ])
        .await;
}

/// Taking a version out of traffic does not wait for a disk that the version may have filled.
#[tokio::test(start_paused = true)]
async fn traffic_is_taken_back_even_if_the_disk_refuses() {
    for (command, done) in [
        ("rollback orders", "500 -> 0, generation 3"),
        ("weight orders 0", "500 -> 0, generation 3"),
        ("drain orders b", "500 -> 500, generation 3"),
    ] {
        let mut session = Session::start(FILES);
        session
            .run(&[
                ("weight orders 500", "0 -> 500, generation 2"),
                ("lock", ""),
            ])
            .await;
        let file = session.dir.path().join("state/shifter.db");
        let told = format!(
            "it is in force, but not on disk (writing {}: database is locked): the next \
             start of shifterd may undo it; free space, then repeat it",
            file.display()
        );
        let reply = session.act(command).await;
        assert!(reply.contains(&told), "{reply}");
        assert!(reply.starts_with(done), "{reply}");
        session
            .run(&[("unlock", ""), ("record orders", "500 bp by root (uid 0)")])
            .await;
        // As the note says.
        let reply = session.act(command).await;
        assert!(reply.ends_with("nothing had to change"), "{reply}");
        assert!(!reply.contains("not on disk"), "{reply}");
        let record = session.act("record orders").await;
        assert_ne!(record, "500 bp by root (uid 0)", "{command}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_kernel_refuses_is_taken_off_the_disk_again() {
    let mut session = Session::start(FILES);
    session
        .run(&[("weight orders 500", "0 -> 500, generation 2")])
        .await;
    for command in COMMANDS {
        // Refuses the new plan only.
        session.dataplane.with(|state| {
            let good = state.plans["orders"].clone();
            state.on_publish = Some(Box::new(move |plan| {
                if *plan == good {
                    Ok(())
                } else {
                    Err("no room".into())
                }
            }));
            state.history.truncate(1);
        });
        let refusal = "kernel: no room; orders is as it was before / see: shifterctl doctor";
        session.run(&[(command, refusal)]).await;
        session.run(BEFORE).await;
    }
    assert!(session.dataplane.with(|state| state.resets.is_empty()));
    session
        .run(&[
            ("refuse", ""),
            ("weight orders 2500", "500 -> 2500, generation 3"),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_kernel_that_refuses_everything_is_asked_again() {
    let mut session = Session::start(FILES);
    session
        .run(&[
            ("weight orders 500", "0 -> 500, generation 2"),
            ("refuse it is gone", ""),
            (
                "weight orders 2500",
                "kernel: it is gone; what was decided before could not be put in force again \
                 either (it is gone); shifterd tries it every 10 s / see: shifterctl doctor",
            ),
            ("record orders", "500 bp by root (uid 0)"),
            (
                "show orders",
                "500 bp by root (uid 0), effective 500, generation 2\n\
                 a: 0 live of {\"10.1.0.1:80\": 0}\n\
                 b: 0 live of {\"10.2.0.1:80\": 0}\n\
                 note: not in force as shown: it is gone; shifterd tries again every 10 s",
            ),
            ("refuse", ""),
        ])
        .await;
    let published_count = session.dataplane.with(|state| state.history.len());
    tokio::time::sleep(std::time::Duration::from_secs(11)).await;
    assert_eq!(session.service("orders").await.notes, Vec::<String>::new());
    assert_eq!(
        session.dataplane.with(|state| state.history.len()),
        published_count + 1
    );
}

/// The worst of all: the disk takes the change, the kernel does not, and then the disk is full.
#[tokio::test(start_paused = true)]
async fn what_stays_on_disk_against_all_efforts_is_told() {
    let mut session = Session::start(FILES);
    session
        .run(&[("weight orders 500", "0 -> 500, generation 2")])
        .await;
    let (lock, state_dir) = (session.lock.clone(), session.dir.path().join("state"));
    session.dataplane.with(|state| {
        let good = state.plans["orders"].clone();
        state.on_publish = Some(Box::new(move |plan| {
            let as_kept = ServicePlan {
                rearms: false,
                latches: false,
                ..plan.clone()
            };
            if as_kept == good {
                return Ok(());
            }
            lock.take(&state_dir);
            Err("no room".into())
        }));
    });
    let file = session.dir.path().join("state/shifter.db");
    let refusal = format!(
        "state: no room; and the refused change could not be taken out of the state file (writing \
         {}: database is locked): the next start of shifterd would put it in force / \
         free space or mend the state directory, then set what you want again",
        file.display()
    );
    session
        .run(&[
            ("weight orders 2500", &refusal),
            (
                "plan orders",
                "500 bp, a open [10.1.0.1:80], b open [10.2.0.1:80], published 3",
            ),
            ("unlock", ""),
            ("record orders", "2500 bp by root (uid 0)"),
            // As the refusal says.
            (
                "weight orders 500",
                "500 -> 500, generation 2; nothing had to change",
            ),
            ("record orders", "500 bp by root (uid 0)"),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_the_kernel_does_not_tell_is_a_refusal() {
    let rows = [
        (Operation::Read, "status"),
        (Operation::Verdicts, "status"),
        (Operation::Sweep, "status"),
        (Operation::Read, "show orders"),
        (Operation::Sweep, "show orders"),
        (Operation::Flows, "flows orders"),
        (Operation::Sweep, "detach"),
        (Operation::Detach, "detach"),
    ];
    for (operation, command) in rows {
        let mut session = Session::start(FILES);
        session
            .dataplane
            .with(|state| state.failing.insert(operation, "EBADF".into()));
        session
            .run(&[(command, "kernel: EBADF / see: shifterctl doctor")])
            .await;
        session.dataplane.with(|state| state.failing.clear());
        session.run(&[("status", "a status")]).await;
        session
            .run(&[("weight orders 500", "0 -> 500, generation 2")])
            .await;
    }
}
