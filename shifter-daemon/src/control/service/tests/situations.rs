//! Situations as rows: file, decisions and health, and what becomes of them.

use super::*;

struct Row {
    what: &'static str,
    vips: &'static [&'static str],
    slots: [&'static [&'static str]; 2],
    decided: (Slot, u16, &'static [Slot]),
    health: &'static str,
    outcome: &'static str,
    /// Why a and b are not eligible; empty if they are.
    reasons: [&'static str; 2],
    notes: &'static [&'static str],
}

const TWO_FAMILIES: [&[&str]; 2] = [
    &["10.1.0.1:80", "[2001:db8::a]:80"],
    &["10.2.0.1:80", "[2001:db8::b]:80"],
];
const A_DOWN: &str = "not ready: 10.1.0.1:80 status 503";
const B_DOWN: &str = "not ready: 10.2.0.1:80 status 503";
const A_UNSEEN: &str = "not ready: 10.1.0.1:80 not probed yet";
const B_UNSEEN: &str = "not ready: 10.2.0.1:80 not probed yet";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row {
        what: "both ready",
        vips: V4, slots: ONE_EACH, decided: (Slot::A, 2_500, &[]), health: "++",
        outcome: "ab 2500", reasons: ["", ""], notes: &[],
    },
    Row {
        what: "both ready, b serves",
        vips: V4, slots: ONE_EACH, decided: (Slot::B, 100, &[]), health: "++",
        outcome: "ab 100", reasons: ["", ""], notes: &[],
    },
    Row {
        what: "canary down",
        vips: V4, slots: ONE_EACH, decided: (Slot::A, 2_500, &[]), health: "+-",
        outcome: "a- 0", reasons: ["", B_DOWN],
        notes: &["slot b takes no new flows (not ready: 10.2.0.1:80 status 503): slot a takes \
                  them all"],
    },
    Row {
        what: "canary down, but nothing was asked of it",
        vips: V4, slots: ONE_EACH, decided: (Slot::A, 0, &[]), health: "+-",
        outcome: "a- 0", reasons: ["", B_DOWN], notes: &[],
    },
    Row {
        what: "baseline down",
        vips: V4, slots: ONE_EACH, decided: (Slot::A, 2_500, &[]), health: "-+",
        outcome: "-b 10000", reasons: [A_DOWN, ""],
        notes: &["slot a takes no new flows (not ready: 10.1.0.1:80 status 503): slot b takes \
                  them all"],
    },
    Row {
        what: "baseline down at weight 0",
        vips: V4, slots: ONE_EACH, decided: (Slot::A, 0, &[]), health: "-+",
        outcome: "-b 10000", reasons: [A_DOWN, ""],
        notes: &["slot a takes no new flows (not ready: 10.1.0.1:80 status 503): slot b takes \
                  them all"],
    },
    Row {
        what: "baseline down, but nothing was asked of it",
        vips: V4, slots: ONE_EACH, decided: (Slot::A, 10_000, &[]), health: "-+",
        outcome: "-b 10000", reasons: [A_DOWN, ""], notes: &[],
    },
    Row {
        what: "canary down at full weight",
        vips: V4, slots: ONE_EACH, decided: (Slot::B, 10_000, &[]), health: "-+",
        outcome: "-b 0", reasons: [A_DOWN, ""],
        notes: &["slot a takes no new flows (not ready: 10.1.0.1:80 status 503): slot b takes \
                  them all"],
    },
    Row {
        what: "both down",
        vips: V4, slots: ONE_EACH, decided: (Slot::A, 2_500, &[]), health: "--",
        outcome: "-- 0", reasons: [A_DOWN, B_DOWN],
        notes: &["no slot is eligible: new flows are dropped and retried by their clients \
                  (slot a: not ready: 10.1.0.1:80 status 503; \
                  slot b: not ready: 10.2.0.1:80 status 503)"],
    },
    Row {
        what: "canary drained",
        vips: V4, slots: ONE_EACH, decided: (Slot::A, 2_500, &[Slot::B]), health: "++",
        outcome: "a- 0", reasons: ["", "drained by mia (uid 7)"],
        notes: &["slot b takes no new flows (drained by mia (uid 7)): slot a takes them all"],
    },
    Row {
        what: "baseline drained",
        vips: V4, slots: ONE_EACH, decided: (Slot::A, 0, &[Slot::A]), health: "++",
        outcome: "-b 10000", reasons: ["drained by mia (uid 7)", ""],
        notes: &["slot a takes no new flows (drained by mia (uid 7)): slot b takes them all"],
    },
    Row {
        what: "both drained",
        vips: V4, slots: ONE_EACH, decided: (Slot::A, 2_500, &[Slot::A, Slot::B]), health: "++",
        outcome: "-- 0", reasons: ["drained by mia (uid 7)", "drained by mia (uid 7)"],
        notes: &["no slot is eligible: new flows are dropped and retried by their clients \
                  (slot a: drained by mia (uid 7); slot b: drained by mia (uid 7))"],
    },
    Row {
        what: "a drain is told, not what is the matter besides",
        vips: V4, slots: ONE_EACH, decided: (Slot::A, 0, &[Slot::B]), health: "+-",
        outcome: "a- 0", reasons: ["", "drained by mia (uid 7)"], notes: &[],
    },
    Row {
        what: "no canary",
        vips: V4, slots: [&["10.1.0.1:80"], &[]], decided: (Slot::A, 0, &[]), health: "+",
        outcome: "a- 0", reasons: ["", "no backends"], notes: &[],
    },
    Row {
        what: "the canary's backends were taken out of the file",
        vips: V4, slots: [&["10.1.0.1:80"], &[]], decided: (Slot::A, 500, &[Slot::B]), health: "+",
        outcome: "a- 0", reasons: ["", "no backends"],
        notes: &["slot b takes no new flows (no backends): slot a takes them all"],
    },
    Row {
        what: "one of two backends is enough",
        vips: V4, slots: [&["10.1.0.1:80", "10.1.0.2:80"], &["10.2.0.1:80"]],
        decided: (Slot::A, 0, &[]), health: "-++",
        outcome: "ab 0", reasons: ["", ""], notes: &[],
    },
    Row {
        what: "the first of those that are down is named",
        vips: V4, slots: [&["10.1.0.1:80", "10.1.0.2:80"], &["10.2.0.1:80"]],
        decided: (Slot::B, 0, &[]), health: "--+",
        outcome: "-b 0", reasons: [A_DOWN, ""], notes: &[],
    },
    Row {
        what: "a backend without weight takes nothing",
        vips: V4, slots: [&["10.1.0.1:80*0", "10.1.0.2:80"], &["10.2.0.1:80"]],
        decided: (Slot::A, 0, &[]), health: "+-+",
        outcome: "-b 10000", reasons: ["not ready: 10.1.0.2:80 status 503", ""],
        notes: &["slot a takes no new flows (not ready: 10.1.0.2:80 status 503): slot b takes \
                  them all"],
    },
    Row {
        what: "no backend with a weight",
        vips: V4, slots: [&["10.1.0.1:80"], &["10.2.0.1:80*0"]],
        decided: (Slot::A, 0, &[]), health: "++",
        outcome: "a- 0", reasons: ["", "no IPv4 backend with a weight"], notes: &[],
    },
    Row {
        what: "both families ready",
        vips: BOTH, slots: TWO_FAMILIES, decided: (Slot::A, 9_999, &[]), health: "++++",
        outcome: "ab 9999", reasons: ["", ""], notes: &[],
    },
    Row {
        what: "every family needs a backend",
        vips: BOTH, slots: TWO_FAMILIES, decided: (Slot::A, 9_999, &[]), health: "+++-",
        outcome: "a- 0", reasons: ["", "not ready: [2001:db8::b]:80 status 503"],
        notes: &["slot b takes no new flows (not ready: [2001:db8::b]:80 status 503): slot a \
                  takes them all"],
    },
    Row {
        what: "a family without backends",
        vips: BOTH, slots: [&["10.1.0.1:80", "[2001:db8::a]:80"], &["10.2.0.1:80"]],
        decided: (Slot::A, 0, &[]), health: "+++",
        outcome: "a- 0", reasons: ["", "no IPv6 backend with a weight"], notes: &[],
    },
    Row {
        what: "a family without a VIP does not count",
        vips: V4, slots: TWO_FAMILIES, decided: (Slot::A, 0, &[]), health: "+-+-",
        outcome: "ab 0", reasons: ["", ""], notes: &[],
    },
    // At a first start.
    Row {
        what: "nobody was probed",
        vips: V4, slots: ONE_EACH, decided: (Slot::A, 2_500, &[]), health: "??",
        outcome: "-- 0", reasons: [A_UNSEEN, B_UNSEEN],
        notes: &["no slot is eligible: new flows are dropped and retried by their clients \
                  (slot a: not ready: 10.1.0.1:80 not probed yet; \
                  slot b: not ready: 10.2.0.1:80 not probed yet)"],
    },
    Row {
        what: "the canary answers first: it waits for the baseline",
        vips: V4, slots: ONE_EACH, decided: (Slot::A, 2_500, &[]), health: "?+",
        outcome: "-- 0", reasons: [A_UNSEEN, "slot a has not been probed yet"],
        notes: &["no slot is eligible: new flows are dropped and retried by their clients \
                  (slot a: not ready: 10.1.0.1:80 not probed yet; \
                  slot b: slot a has not been probed yet)"],
    },
    Row {
        what: "the baseline answers first: it does not wait for a version on trial",
        vips: V4, slots: ONE_EACH, decided: (Slot::A, 2_500, &[]), health: "+?",
        outcome: "a- 0", reasons: ["", B_UNSEEN],
        notes: &["slot b takes no new flows (not ready: 10.2.0.1:80 not probed yet): slot a \
                  takes them all"],
    },
    Row {
        what: "a baseline that should get nothing waits",
        vips: V4, slots: ONE_EACH, decided: (Slot::A, 10_000, &[]), health: "+?",
        outcome: "-- 0", reasons: ["slot b has not been probed yet", B_UNSEEN],
        notes: &["no slot is eligible: new flows are dropped and retried by their clients \
                  (slot a: slot b has not been probed yet; \
                  slot b: not ready: 10.2.0.1:80 not probed yet)"],
    },
    Row {
        what: "a canary at full weight waits for nobody",
        vips: V4, slots: ONE_EACH, decided: (Slot::A, 10_000, &[]), health: "?+",
        outcome: "-b 10000", reasons: [A_UNSEEN, ""], notes: &[],
    },
    Row {
        what: "nobody waits for a drained slot",
        vips: V4, slots: ONE_EACH, decided: (Slot::A, 0, &[Slot::A]), health: "?+",
        outcome: "-b 10000", reasons: ["drained by mia (uid 7)", ""],
        notes: &["slot a takes no new flows (drained by mia (uid 7)): slot b takes them all"],
    },
    Row {
        what: "nobody waits for a backend that would take nothing",
        vips: V4, slots: [&["10.1.0.1:80", "10.1.0.2:80*0"], &["10.2.0.1:80"]],
        decided: (Slot::A, 0, &[]), health: "-?+",
        outcome: "-b 10000", reasons: [A_DOWN, ""],
        notes: &["slot a takes no new flows (not ready: 10.1.0.1:80 status 503): slot b takes \
                  them all"],
    },
    Row {
        what: "one that is down and one not probed: still waiting",
        vips: V4, slots: [&["10.1.0.1:80", "10.1.0.2:80"], &["10.2.0.1:80"]],
        decided: (Slot::A, 0, &[]), health: "-?+",
        outcome: "-- 0", reasons: [A_DOWN, "slot a has not been probed yet"],
        notes: &["no slot is eligible: new flows are dropped and retried by their clients \
                  (slot a: not ready: 10.1.0.1:80 status 503; \
                  slot b: slot a has not been probed yet)"],
    },
];

#[test]
fn situations() {
    for row in ROWS {
        let (baseline, weight_bp, drained) = row.decided;
        let spec = spec(row.vips, row.slots[0], row.slots[1]);
        let record = record(baseline, weight_bp, drained);
        let mut control = ServiceControl::new(spec, Some(record), None);
        set_health(&mut control, row.health);
        assert_eq!(outcome(&control), row.outcome, "{}", row.what);
        let reasons = Slot::ALL.map(|slot| control.ineligible_reason(slot).unwrap_or_default());
        assert_eq!(reasons, row.reasons, "{}", row.what);
        assert_eq!(control.notes(), row.notes, "{}", row.what);
        assert_eq!(control.role(baseline), Role::Baseline);
        assert_eq!(control.role(control.canary()), Role::Canary);
    }
}

#[test]
fn with_nothing_eligible_the_host_may_answer() {
    let mut spec = spec(V4, &["10.1.0.1:80"], &[]);
    spec.on_empty = OnEmpty::Pass;
    let control = ServiceControl::new(spec, None, None);
    assert_eq!(
        control.notes(),
        ["no slot is eligible: new flows go to the host's own stack \
          (slot a: not ready: 10.1.0.1:80 not probed yet; slot b: no backends)"]
    );
}

#[test]
fn with_nothing_eligible_the_socket_plane_refuses() {
    let mut control = ServiceControl::new(spec(V4, &["10.1.0.1:80"], &[]), None, None);
    let host = HostView {
        local: ["10.1.0.1".parse().expect("an address")].into(),
        socket_plane: Ok(()),
    };
    control.choose_plane(&host).expect("it can be steered");
    assert!(control.is_on_socket_plane());
    assert_eq!(
        control.notes(),
        ["no slot is eligible: new flows are refused \
          (slot a: not ready: 10.1.0.1:80 not probed yet; slot b: no backends)"]
    );
}

#[test]
fn without_a_probe_backends_are_ready_at_once() {
    let mut spec = spec(V4, &["10.1.0.1:80"], &["10.2.0.1:80"]);
    spec.readiness.check = ProbeCheck::None;
    let control = ServiceControl::new(spec, None, None);
    assert_eq!(outcome(&control), "ab 0");
}
