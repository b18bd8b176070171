//! `apply` and SIGHUP.

use super::session::{ORDERS, SEARCH, Session};

const FILES: &[(&str, &str)] = &[("orders.toml", ORDERS)];
const NEW_B: &str = "write orders.toml [service]\nname = \"orders\"\nvip = \"10.0.0.10:80\"\n\
    [slot.a]\nbackends = [\"10.1.0.1:80\"]\n[slot.b]\nbackends = [\"10.2.0.7:80\"]\n";
const NEW_B_CHANGE: &str = "orders slot.b.backends: [\"10.2.0.1:80\"] -> [\"10.2.0.7:80\"]";

fn file(name: &str, text: &str) -> String {
    format!("write {name} {text}")
}

#[tokio::test(start_paused = true)]
async fn a_changed_file_is_put_in_force_and_moves_no_weight() {
    let mut session = Session::start(FILES);
    session
        .run(&[
            ("apply", ""),
            ("event", "none"),
            ("weight orders 2500", "0 -> 2500, generation 2"),
            (NEW_B, ""),
            ("apply", NEW_B_CHANGE),
            (
                "plan orders",
                "2500 bp, a open [10.1.0.1:80], b open [10.2.0.7:80], published 3",
            ),
            ("record orders", "2500 bp by root (uid 0)"),
            (
                "event",
                "root (uid 0): apply: 2500 -> 2500, stored: slot.b.backends changed",
            ),
            ("apply", ""),
            ("hangup", ""),
            (
                "plan orders",
                "2500 bp, a open [10.1.0.1:80], b open [10.2.0.7:80], published 3",
            ),
        ])
        .await;
    // What is not of the kernel is told, but nothing is stored.
    let drain = format!("{}[drain]\ntimeout = \"5s\"\n", NEW_B);
    session
        .run(&[
            (&drain, ""),
            ("hangup", "orders drain.timeout: \"1m\" -> \"5s\""),
            (
                "event",
                "SIGHUP: apply: 2500 -> 2500, nothing stored: drain.timeout changed",
            ),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_new_file_is_a_new_service() {
    let mut session = Session::start(FILES);
    session
        .run(&[
            (&file("search.toml", SEARCH), ""),
            ("apply", "search service.name:  -> search"),
            (
                "plan search",
                "0 bp, a open [10.1.0.9:80], b shut [], published 1",
            ),
            ("event", "root (uid 0): apply: 0 -> 0, stored: new service"),
            (
                "plan orders",
                "0 bp, a open [10.1.0.1:80], b open [10.2.0.1:80], published 1",
            ),
        ])
        .await;
    let mut targets = Vec::new();
    while targets.len() < 3 {
        let found = session.probed.recv().await.expect("a prober");
        targets.push(format!(
            "{} {} {}",
            found.key.service, found.key.slot, found.key.addr
        ));
    }
    targets.sort();
    assert_eq!(
        targets,
        [
            "orders a 10.1.0.1:80",
            "orders b 10.2.0.1:80",
            "search a 10.1.0.9:80"
        ]
    );
}

/// Taking out the backends that a quarter of the flows go to leaves the others theirs.
#[tokio::test(start_paused = true)]
async fn a_slot_can_lose_its_backends() {
    let alone = ORDERS.split("[slot.b]").next().unwrap_or_default();
    Session::start(FILES)
        .run(&[
            ("weight orders 2500", "0 -> 2500, generation 2"),
            (&file("orders.toml", alone), ""),
            ("apply", "orders slot.b.backends: [\"10.2.0.1:80\"] -> []"),
            (
                "event",
                "root (uid 0): apply: 2500 -> 0, stored: slot.b.backends changed",
            ),
            (
                "show orders",
                "2500 bp by root (uid 0), effective 0, generation 3\n\
                 a: 0 live of {\"10.1.0.1:80\": 0}\n\
                 b: 0 live of {}, out: no backends\n\
                 note: slot b takes no new flows (no backends): slot a takes them all",
            ),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_file_leaves_the_old_one_in_force() {
    Session::start(FILES)
        .run(&[
            ("weight orders 2500", "0 -> 2500, generation 2"),
            (
                "write orders.toml [service]\nname = \"orders\"\nvip = \"10.0.0.10\"\n",
                "",
            ),
            (
                "apply",
                "orders.toml:3: VIP \"10.0.0.10\" has no port\n\
                 orders.toml:0: no slot has a backend",
            ),
            (
                "show orders",
                "2500 bp by root (uid 0), effective 2500, generation 2\n\
                 a: 0 live of {\"10.1.0.1:80\": 0}\n\
                 b: 0 live of {\"10.2.0.1:80\": 0}\n\
                 note: steered on as it was: its file has errors",
            ),
            (
                "event",
                "root (uid 0): apply: 2500 -> 2500, nothing stored: steered on as it was: its \
                 file has errors",
            ),
            (
                "weight orders 500",
                "2500 -> 500, generation 3; steered on as it was: its file has \
                errors",
            ),
            // Good again: the file as it was, so nothing changes but that.
            (&file("orders.toml", ORDERS), ""),
            ("apply", ""),
            (
                "event",
                "root (uid 0): apply: 500 -> 500, nothing stored: its file is good again",
            ),
            (
                "show orders",
                "500 bp by root (uid 0), effective 500, generation 3\n\
                 a: 0 live of {\"10.1.0.1:80\": 0}\n\
                 b: 0 live of {\"10.2.0.1:80\": 0}",
            ),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_service_whose_file_is_gone_is_steered_on() {
    let mut session = Session::start(FILES);
    session
        .run(&[
            ("weight orders 2500", "0 -> 2500, generation 2"),
            ("remove orders.toml", ""),
            ("apply", "orphaned: orders"),
            (
                "event",
                "root (uid 0): apply: 2500 -> 2500, nothing stored: steered on as it was: its \
                 file is gone",
            ),
            (
                "plan orders",
                "2500 bp, a open [10.1.0.1:80], b open [10.2.0.1:80], published 2",
            ),
            (
                "show orders",
                "2500 bp by root (uid 0), effective 2500, generation 2, orphaned\n\
                 a: 0 live of {\"10.1.0.1:80\": 0}\n\
                 b: 0 live of {\"10.2.0.1:80\": 0}\n\
                 note: steered on as it was: its file is gone",
            ),
        ])
        .await;
    let events_count = session.status().await.events.len();
    session.run(&[("apply", "orphaned: orders")]).await;
    assert_eq!(
        session.status().await.events.len(),
        events_count,
        "it is gone only once"
    );
    session
        .run(&[
            // It is looked after all the same.
            ("fails orders b 10.2.0.1:80 status 503", ""),
            (
                "plan orders",
                "2500 bp, a open [10.1.0.1:80], b shut [], published 3",
            ),
            ("ready orders b 10.2.0.1:80", ""),
            (
                "rollback orders",
                "2500 -> 0, generation 5; steered on as it was: its file is gone",
            ),
            (NEW_B, ""),
            ("apply", NEW_B_CHANGE),
            (
                "event",
                "root (uid 0): apply: 0 -> 0, stored: its file is good again, slot.b.backends \
                 changed",
            ),
            (
                "show orders",
                "0 bp by root (uid 0), effective 0, generation 6\n\
                 a: 0 live of {\"10.1.0.1:80\": 0}\n\
                 b: 0 live of {\"10.2.0.7:80\": 0}",
            ),
        ])
        .await;
}

/// Nothing is known of any file: that is no reason to call a service abandoned.
#[tokio::test(start_paused = true)]
async fn a_directory_that_cannot_be_read_abandons_nothing() {
    let mut session = Session::start(FILES);
    let dir = session.dir.path().join("services.d");
    std::fs::rename(&dir, session.dir.path().join("elsewhere")).expect("a writable directory");
    session
        .run(&[
            (
                "apply",
                "services.d:0: there is no such directory for service files",
            ),
            (
                "show orders",
                "0 bp by shifterd, effective 0, generation 1\n\
                 a: 0 live of {\"10.1.0.1:80\": 0}\n\
                 b: 0 live of {\"10.2.0.1:80\": 0}\n\
                 note: steered on as it was: the directory of its file cannot be read",
            ),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_the_kernel_refuses_leaves_the_old_one_in_force() {
    let mut session = Session::start(FILES);
    // Refuses every plan but those with the old backend.
    session.dataplane.with(|state| {
        state.on_publish = Some(Box::new(|plan| {
            let good = plan.slots.iter().flat_map(|slot| &slot.backends);
            let is_good = good
                .into_iter()
                .all(|backend| backend.addr.ip().to_string() != "10.2.0.7");
            if is_good {
                Ok(())
            } else {
                Err("no room for backend 10.2.0.7:80".into())
            }
        }));
    });
    let refused = format!("{NEW_B_CHANGE} refused: no room for backend 10.2.0.7:80");
    session
        .run(&[
            ("weight orders 2500", "0 -> 2500, generation 2"),
            (NEW_B, ""),
            ("apply", &refused),
            ("apply", &refused),
            (
                "show orders",
                "2500 bp by root (uid 0), effective 2500, generation 2\n\
                 a: 0 live of {\"10.1.0.1:80\": 0}\n\
                 b: 0 live of {\"10.2.0.1:80\": 0}\n\
                 note: steered on as it was: its file could not be put in force: no room for \
                 backend 10.2.0.7:80",
            ),
            (
                "event",
                "root (uid 0): weight: 0 -> 2500, stored: weight 0 % -> 25 %, generation 2",
            ),
            ("refuse", ""),
            ("apply", NEW_B_CHANGE),
            (
                "plan orders",
                "2500 bp, a open [10.1.0.1:80], b open [10.2.0.7:80], published 5",
            ),
        ])
        .await;
    assert_eq!(session.service("orders").await.notes, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_new_service_that_the_kernel_refuses_is_none() {
    Session::start(FILES)
        .run(&[
            (&file("search.toml", SEARCH), ""),
            ("refuse no room for service search", ""),
            (
                "apply",
                "search service.name:  -> search refused: no room for service search",
            ),
            (
                "show search",
                "unknown_service: there is no service search / services are: orders",
            ),
            ("refuse", ""),
            ("apply", "search service.name:  -> search"),
        ])
        .await;
}

/// There is nothing in the file that could have changed, but what is refused is told.
#[tokio::test(start_paused = true)]
async fn a_file_that_is_back_and_refused_is_told() {
    Session::start(FILES)
        .run(&[
            ("remove orders.toml", ""),
            ("apply", "orphaned: orders"),
            (&file("orders.toml", ORDERS), ""),
            ("refuse ENOMEM", ""),
            (
                "apply",
                "orders service.name: orders -> orders refused: ENOMEM",
            ),
            ("refuse", ""),
            ("apply", ""),
            (
                "event",
                "root (uid 0): apply: 0 -> 0, nothing stored: its file is good again",
            ),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_file_may_not_take_what_another_service_holds() {
    let thief = SEARCH.replace("10.0.0.20:80", "10.0.0.10:80");
    let mut session = Session::start(FILES);
    session
        .run(&[
            ("remove orders.toml", ""),
            (&file("search.toml", &thief), ""),
        ])
        .await;
    session
        .run(&[
            (
                "apply",
                "search.toml:3: VIP \"10.0.0.10:80\" is a VIP of service \"orders\" (in force, its \
                 file is gone)\n\
                 orphaned: orders",
            ),
            ("plan search", "none"),
            (
                "plan orders",
                "0 bp, a open [10.1.0.1:80], b open [10.2.0.1:80], published 1",
            ),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn the_node_file_takes_effect_with_a_restart() {
    let mut session = Session::start(FILES);
    let path = session.dir.path().join("shifter.toml");
    let text = std::fs::read_to_string(&path).expect("the node file");
    std::fs::write(&path, text.clone() + "[metrics]\nlisten = false\n").expect("writable");
    session
        .run(&[(
            "apply",
            " metrics.listen: \"127.0.0.1:9977\" -> false refused: restart shifterd to put it in \
             force: systemctl restart shifterd",
        )])
        .await;
    std::fs::write(&path, text + "metrics = 1\n").expect("writable");
    session
        .run(&[("apply", "shifter.toml:5: unknown key \"metrics\" in state")])
        .await;
    std::fs::remove_file(&path).expect("writable");
    session
        .run(&[
            (
                "apply",
                "shifter.toml:0: cannot be read: No such file or directory (os error 2)",
            ),
            ("weight orders 500", "0 -> 500, generation 2"),
        ])
        .await;
}
