use super::*;

fn spec() -> OutlierSpec {
    OutlierSpec {
        consecutive_errors: 5,
        compare_peers: true,
        min_flows: 50,
        interval: Duration::from_secs(10),
        ejection: Duration::from_secs(30),
        max_ejection: Duration::from_secs(300),
        max_ejected_percent: 50,
    }
}

fn addr(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 80))
}

/// Backends with counters, and a clock that moves a second a look.
struct Slot {
    ejector: Ejector,
    spec: OutlierSpec,
    peers: Vec<Peer>,
    now: Instant,
}

impl Slot {
    fn of(count: u8) -> Self {
        let peer = |number| Peer {
            addr: addr(number),
            ready: true,
            outcomes: Outcomes::default(),
        };
        let mut slot = Self {
            ejector: Ejector::default(),
            spec: spec(),
            peers: (1..=count).map(peer).collect(),
            now: Instant::now(),
        };
        assert_eq!(slot.look(&[]), [""; 0], "the first look only learns");
        slot
    }

    /// Adds outcomes (backend, ok, errors), looks a second later and says what was decided.
    fn look(&mut self, news: &[(u8, u64, u64)]) -> Vec<String> {
        for (number, ok, errors) in news {
            let peer = &mut self.peers[usize::from(*number) - 1];
            peer.outcomes.ok += ok;
            peer.outcomes.errors += errors;
        }
        self.now += Duration::from_secs(1);
        let decisions = self.ejector.look(&self.spec, &self.peers, self.now);
        decisions
            .into_iter()
            .map(|decision| match decision {
                Decision::Ejected { addr, reason } => format!("{addr} {reason}"),
                Decision::Returned { addr } => format!("{addr} returned"),
            })
            .collect()
    }

    /// Looks once a second without news; the decisions with the second they came in.
    fn wait(&mut self, seconds: u64) -> Vec<(u64, String)> {
        let mut decided = Vec::new();
        for second in 1..=seconds {
            let decisions = self.look(&[]);
            decided.extend(decisions.into_iter().map(|decision| (second, decision)));
        }
        decided
    }
}

#[test]
fn errors_in_a_row_eject_and_time_brings_back() {
    let mut slot = Slot::of(3);
    assert_eq!(slot.look(&[(1, 0, 4), (2, 9, 0)]), [""; 0]);
    assert_eq!(
        slot.look(&[(1, 0, 1), (2, 9, 0)]),
        ["10.0.0.1:80 ejected for 30 s: 5 errors in a row"]
    );
    assert_eq!(
        slot.ejector.reason(addr(1)),
        Some("ejected for 30 s: 5 errors in a row")
    );
    assert_eq!(slot.wait(40), [(30, "10.0.0.1:80 returned".to_owned())]);
    assert_eq!(slot.ejector.reason(addr(1)), None);
}

#[test]
fn a_flow_that_ends_well_ends_the_row() {
    let mut slot = Slot::of(2);
    for _ in 0..20 {
        assert_eq!(slot.look(&[(1, 0, 4)]), [""; 0]);
        assert_eq!(
            slot.look(&[(1, 1, 3)]),
            [""; 0],
            "what came first is not known"
        );
    }
}

#[test]
fn each_ejection_lasts_longer_until_calm_forgives() {
    let mut slot = Slot::of(2);
    let mut lasted = Vec::new();
    for _ in 0..12 {
        assert_eq!(slot.look(&[(1, 0, 5)]).len(), 1);
        let back = (1..=301_u64).find(|_| !slot.look(&[]).is_empty());
        lasted.push(back.expect("it returns"));
    }
    assert_eq!(
        lasted,
        [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]
    );
    // Every 30 s of calm takes one off.
    slot.wait(30 * 12);
    assert_eq!(
        slot.look(&[(1, 0, 5)]),
        ["10.0.0.1:80 ejected for 30 s: 5 errors in a row"]
    );
}

#[test]
fn the_last_one_stays_and_no_more_than_the_share_goes() {
    // backends, of them not ready, percent, failing, ejected
    type Row = (u8, &'static [u8], u32, &'static [u8], usize);
    #[rustfmt::skip]
    let rows: &[Row] = &[
        (1, &[],     100, &[1],          0),
        (2, &[],     100, &[1, 2],       1),
        (2, &[2],    100, &[1],          0),
        (3, &[2, 3], 100, &[1],          0),
        (4, &[],      50, &[1, 2, 3],    2),
        (4, &[],      10, &[1, 2, 3],    1),
        (4, &[],     100, &[1, 2, 3, 4], 3),
    ];
    for (count, unready, percent, failing, expected) in rows {
        let mut slot = Slot::of(*count);
        slot.spec.max_ejected_percent = *percent;
        for number in *unready {
            slot.peers[usize::from(*number) - 1].ready = false;
        }
        let news: Vec<_> = failing.iter().map(|number| (*number, 0, 9)).collect();
        let decided = slot.look(&news);
        assert_eq!(
            decided.len(),
            *expected,
            "{count} {percent} {failing:?}: {decided:?}"
        );
        assert_eq!(slot.look(&news), [""; 0], "and no more at the next look");
    }
}

#[test]
fn families_do_not_stand_in_for_each_other() {
    let mut slot = Slot::of(2);
    slot.peers[1].addr = "[2001:db8::2]:80".parse().expect("an address");
    slot.look(&[]);
    assert_eq!(slot.look(&[(1, 0, 9), (2, 50, 0)]), [""; 0]);
}

#[test]
fn a_backend_far_worse_than_its_peers_goes_after_the_interval() {
    // ok and errors a second of backend 1 and of each of two others; whether it goes
    type Row = ((u64, u64), (u64, u64), bool);
    #[rustfmt::skip]
    let rows: &[Row] = &[
        ((90, 10), (100, 0),  true),
        ((97,  3), (100, 0),  false), // three in a hundred are little
        ((90, 10), (90, 10),  false), // a shared fault
        ((3,   1), (100, 0),  false), // too few flows
        ((9,   1), (1, 0),    false), // too few with the peers
    ];
    for (own, others, goes) in rows {
        let mut slot = Slot::of(3);
        let news = [
            (1, own.0, own.1),
            (2, others.0, others.1),
            (3, others.0, others.1),
        ];
        let decided: Vec<_> = (0..12).flat_map(|_| slot.look(&news)).collect();
        assert_eq!(
            !decided.is_empty(),
            *goes,
            "{own:?} {others:?}: {decided:?}"
        );
        if *goes {
            assert_eq!(
                decided[0],
                "10.0.0.1:80 ejected for 30 s: 100 of 1000 flows failed, 0 of 2000 with its peers"
            );
        }
    }
}

#[test]
fn without_comparison_only_a_row_counts() {
    let mut slot = Slot::of(3);
    slot.spec.compare_peers = false;
    let news = [(1, 50, 50), (2, 100, 0), (3, 100, 0)];
    let decided: Vec<_> = (0..12).flat_map(|_| slot.look(&news)).collect();
    assert_eq!(decided, [""; 0]);
}

#[test]
fn counters_that_begin_anew_and_backends_that_go_are_understood() {
    let mut slot = Slot::of(2);
    slot.look(&[(1, 1_000, 1_000)]);
    slot.peers[0].outcomes = Outcomes { ok: 0, errors: 4 };
    assert_eq!(slot.look(&[]), [""; 0], "four since the new beginning");
    assert_eq!(slot.look(&[(1, 0, 1)]).len(), 1);
    slot.peers.remove(0);
    slot.look(&[]);
    assert_eq!(slot.ejector.reason(addr(1)), None);
}
