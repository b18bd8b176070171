//! `plan`.

use super::session::{ORDERS, Session};

#[tokio::test(start_paused = true)]
async fn a_plan_is_shown_and_nothing_is_started() {
    let orders =
        format!("{ORDERS}\n[rollout]\nsteps = [{{ weight = 5, bake = \"1m\" }}]\nwatch = \"1m\"\n");
    let mut session = Session::start(&[("orders.toml", &orders)]);
    session
        .run(&[
            (
                "forecast orders 3.2.0",
                "canary of 3.2.0 to slot b for 120000 ms: start 3.2.0 and wait until it is ready, 5 % of \
                 new flows to 3.2.0, 100 % of new flows to 3.2.0, the old version kept ready, drain the \
                 old version's flows; those that do not end continue, done; notes: ",
            ),
            (
                "forecast nobody 3.2.0",
                "unknown_service: there is no service nobody / services are: orders",
            ),
        ])
        .await;
    let status = session.service("orders").await;
    assert_eq!((status.weight_bp, status.generation), (0, 1));
}

/// What the file leaves open is told when it is asked for.
#[tokio::test(start_paused = true)]
async fn a_slot_without_backends_is_told_or_refused() {
    let one_slot = ORDERS.split("[slot.b]").next().unwrap_or_default();
    let rolling = format!("{one_slot}\n[rollout]\nstrategy = \"rolling\"\nmax_surge = 0\n");
    let plain = format!("{one_slot}\n[rollout]\nstrategy = \"blue-green\"\nwatch = \"0s\"\n");
    for (file, expected) in [
        (
            rolling,
            "not_eligible: rolling with max_surge 0 and max_unavailable 0 over 1 old and 0 new backends moves nothing / allow at least one backend of either",
        ),
        (
            plain,
            "blue-green of 2 to slot b for 0 ms: start 2 and wait until it is ready, 100 % of new flows to 2, the old version kept ready, drain the old version's flows; those that do not end continue, done; notes: slot b has no backend in the file",
        ),
    ] {
        let mut session = Session::start(&[("orders.toml", &file)]);
        session.run(&[("forecast orders 2", expected)]).await;
    }
}

/// Weights set by hand decide which slot is free.
#[tokio::test(start_paused = true)]
async fn the_slot_that_serves_is_not_taken() {
    let file = format!("{ORDERS}\n[rollout]\nstrategy = \"blue-green\"\nwatch = \"0s\"\n");
    let mut session = Session::start(&[("orders.toml", &file)]);
    let rest = "start 2 and wait until it is ready, 100 % of new flows to 2, the old version kept ready, \
                drain the old version's flows; those that do not end continue, done; notes: ";
    let to =
        |slot: &str, notes: &str| format!("blue-green of 2 to slot {slot} for 0 ms: {rest}{notes}");
    session
        .run(&[
            ("forecast orders 2", &to("b", "")),
            ("weight orders 2550", "0 -> 2550, generation 2"),
            (
                "forecast orders 2",
                &to(
                    "b",
                    "slot b has 25.5 % of new flows now, set by root (uid 0)",
                ),
            ),
            ("weight orders 10000", "2550 -> 10000, generation 3"),
            ("forecast orders 2", &to("a", "")),
        ])
        .await;
}
