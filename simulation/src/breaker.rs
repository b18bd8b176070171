//! The whole breaker as the kernel runs it: shares, caps, sources and both arms.

use std::cell::Cell;

use shifter_common::addr::Addr;
use shifter_common::breaker::{
    ARM_COUNT, Arm, CohortRow, Event, Origin, QuotaWord, Recorded, SOURCE_CELLS, Side, Thresholds,
    Word, admits, cell, epoch, origin, record,
};
use shifter_daemon::analysis::{BreakerBudget, BreakerPlan};

use crate::random::Random;

/// A word on one processor.
#[derive(Clone, Debug, Default)]
pub struct Local(Cell<u64>);

impl Word for Local {
    fn load(&self) -> u64 {
        self.0.get()
    }
    fn store(&self, value: u64) {
        self.0.set(value);
    }
    fn replace(&self, old: u64, new: u64) -> bool {
        let same = self.0.get() == old;
        if same {
            self.0.set(new);
        }
        same
    }
    fn swap(&self, new: u64) -> u64 {
        self.0.replace(new)
    }
    fn add(&self, more: u64) {
        self.0.set(self.0.get() + more);
    }
}

#[derive(Clone, Debug, Default)]
struct ArmWords {
    state: Local,
    debt: Local,
    sources: Local,
    caps: Vec<Local>,
}

/// The breaker of one service in one rollout.
#[derive(Clone, Debug)]
pub struct Breaker {
    thresholds: [Thresholds; ARM_COUNT],
    arms: [ArmWords; ARM_COUNT],
    quotas: Vec<Local>,
    all: Local,
    /// Whether prefixes are held to their share; off only to see what that is good for.
    pub shares: bool,
}

/// The default budget: 1 % false rollbacks.
pub const BUDGET: BreakerBudget = BreakerBudget {
    false_rollback: 0.01,
    hosts: 1,
    restarts: 1,
};

/// The thresholds of a budget that is known to make a test.
pub fn thresholds(budget: &BreakerBudget) -> [Thresholds; ARM_COUNT] {
    match BreakerPlan::new(budget) {
        Ok(plan) => plan.thresholds,
        Err(error) => panic!("{error}"),
    }
}

impl Breaker {
    /// At the beginning of a rollout.
    pub fn new(budget: &BreakerBudget) -> Self {
        let words = || vec![Local::default(); SOURCE_CELLS];
        let arm = || ArmWords {
            caps: words(),
            ..ArmWords::default()
        };
        Self {
            thresholds: thresholds(budget),
            arms: [arm(), arm()],
            quotas: words(),
            all: Local::default(),
            shares: true,
        }
    }

    /// One error; whether the canary is taken out of traffic.
    pub fn error(&mut self, now_ns: u64, side: Side, row: &CohortRow, from: Origin) -> bool {
        let cell = from.prefix.map(cell);
        if let Some(cell) = cell
            && self.shares
        {
            let now = epoch(now_ns);
            let (quota, all) = (&self.quotas[cell], &self.all);
            if !admits(QuotaWord(quota.load()), QuotaWord(all.load()), now) {
                return false;
            }
            quota.store(QuotaWord(quota.load()).with_one(now).0);
            all.store(QuotaWord(all.load()).with_one(now).0);
        }
        let mut trip = false;
        for ((words, thresholds), increments) in
            self.arms.iter().zip(&self.thresholds).zip(row.increments)
        {
            let arm = Arm {
                state: &words.state,
                debt: &words.debt,
                sources: &words.sources,
            };
            let event = Event {
                side,
                increments,
                source: from.source,
                cap: cell.map(|cell| &words.caps[cell]),
            };
            let recorded = record(&arm, &event, thresholds, 3);
            trip |= matches!(recorded, Recorded::Counted { trip: true, .. });
        }
        trip
    }
}

/// Where errors come from.
#[derive(Clone, Copy, Debug)]
pub struct Clients {
    /// IPv4 /24 networks with clients.
    pub prefixes: u32,
    /// The key of the rollout.
    pub key: u64,
}

impl Clients {
    /// Some client.
    pub fn any(&self, random: &mut Random) -> Origin {
        let address = 0x0a00_0000 + (random.below(self.prefixes) << 8) + 1 + random.below(200);
        origin(&Addr::from_v4_word(address.to_be()), self.key)
    }

    /// One of ten thousand addresses of one /48.
    pub fn attacker(&self, random: &mut Random) -> Origin {
        let words = [0x2001_0db8_u32, 0x0007_0000 | random.below(10_000), 0, 1];
        let addr = Addr {
            words: words.map(u32::to_be),
        };
        origin(&addr, self.key)
    }
}

/// A bad release, or an attack on a good one, at a constant weight.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The canary's weight in basis points.
    pub weight_bp: u16,
    /// Flows a second of both versions.
    pub flows: f64,
    /// Error share of the baseline.
    pub baseline: f64,
    /// Error share of the canary.
    pub canary: f64,
    /// Errors a second that an attacker makes, and on which version.
    pub attack: Option<(Side, f64)>,
    /// /24 networks with clients.
    pub prefixes: u32,
    /// Whether prefixes are held to their share.
    pub shares: bool,
    /// What may go wrong by chance.
    pub budget: BreakerBudget,
}

/// When and after how many canary errors (of everybody but the attacker) the breaker trips; `None` if
/// not within `until_s` or a million errors.
pub fn detect(fault: &Fault, until_s: f64, random: &mut Random) -> Option<(f64, u64)> {
    let mut breaker = Breaker::new(&fault.budget);
    breaker.shares = fault.shares;
    let row = BreakerPlan::row(fault.weight_bp);
    let clients = Clients {
        prefixes: fault.prefixes,
        key: random.bits(),
    };
    let weight = f64::from(fault.weight_bp) / 10_000.0;
    let canary_rate = fault.flows * weight * fault.canary;
    let baseline_rate = fault.flows * (1.0 - weight) * fault.baseline;
    let attack_rate = fault.attack.map_or(0.0, |(_, rate)| rate);
    let all = canary_rate + baseline_rate + attack_rate;
    let (mut now, mut errors) = (0.0, 0);
    for _ in 0..1_000_000 {
        now += random.wait(all);
        if now > until_s {
            return None;
        }
        let at_ns = (now * 1e9) as u64;
        let drawn = random.unit() * all;
        let (side, from) = match fault.attack {
            Some((side, rate)) if drawn < rate => (side, clients.attacker(random)),
            _ if drawn < attack_rate + canary_rate => {
                errors += 1;
                (Side::Canary, clients.any(random))
            }
            _ => (Side::Baseline, clients.any(random)),
        };
        if breaker.error(at_ns, side, &row, from) {
            return Some((now, errors));
        }
    }
    None
}
