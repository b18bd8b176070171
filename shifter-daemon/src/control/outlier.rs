//! Outlier ejection: a backend that fails where its peers do not gets no new flows for a while, then
//! another chance, then a longer while.
//!
//! ```text
//!            errors in a row, or far worse than its peers
//!   watched ─────────────────────────────────────────────→ ejected
//!      ↑                                                      │
//!      └──────────── ejection × how often lately ─────────────┘
//! ```
//!
//! The kernel counts outcomes, it does not queue them: what is known between two looks is how many
//! flows ended well and how many did not. Errors count as "in a row" while no flow ends well beside
//! them, which can only delay an ejection.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::model::OutlierSpec;

/// How surely a backend must be worse than its peers: standard errors between the shares of errors
/// (two-proportion z, pooled). One look in 30,000 is wrong about a backend that is like the others.
const STANDARD_ERRORS_MIN: f64 = 4.0;
/// How much worse it must be: five errors more in a hundred flows.
const DIFFERENCE_MIN: f64 = 0.05;

/// What became of a backend's flows since it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Flows that ended as they should. A client's reset says nothing about the backend and is not
    /// among them.
    pub ok: u64,
    /// Flows that were refused or reset by the backend.
    pub errors: u64,
}

impl Outcomes {
    /// What came after `before`; everything if the counters began anew.
    fn since(self, before: Self) -> Self {
        match (
            self.ok.checked_sub(before.ok),
            self.errors.checked_sub(before.errors),
        ) {
            (Some(ok), Some(errors)) => Self { ok, errors },
            _ => self,
        }
    }

    const fn count(self) -> u64 {
        self.ok + self.errors
    }

    fn error_share(self) -> f64 {
        self.errors as f64 / self.count().max(1) as f64
    }

    fn plus(self, other: Self) -> Self {
        Self {
            ok: self.ok + other.ok,
            errors: self.errors + other.errors,
        }
    }
}

/// A backend as it is looked at. Peers are those of the same slot and address family, because only
/// they can take its flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub addr: SocketAddr,
    /// Whether its probe lets it take flows.
    pub ready: bool,
    /// What its counters say.
    pub outcomes: Outcomes,
}

/// What a look decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The backend gets no new flows until then.
    Ejected {
        /// The backend.
        addr: SocketAddr,
        /// Why and for how long.
        reason: String,
    },
    /// The backend has another chance.
    Returned {
        /// The backend.
        addr: SocketAddr,
    },
}

/// The watch over one slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ejector {
    watched: BTreeMap<SocketAddr, Watched>,
    compared_at: Option<Instant>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Watched {
    /// Counters at the last look.
    seen: Outcomes,
    /// Counters when the interval began.
    began: Outcomes,
    /// Errors since a flow last ended well.
    in_a_row: u64,
    /// Ejections that still make the next one longer.
    times: u32,
    /// When the last ejection ended, or was forgiven.
    calm_since: Instant,
    ejected: Option<Ejection>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Ejection {
    until: Instant,
    reason: String,
}

impl Ejector {
    /// Why a backend is ejected; `None` if it is not.
    pub fn reason(&self, addr: SocketAddr) -> Option<&str> {
        let ejection = self.watched.get(&addr)?.ejected.as_ref()?;
        Some(&ejection.reason)
    }

    /// Looks at the backends of a slot. Backends that are not among `peers` are forgotten.
    pub fn look(&mut self, spec: &OutlierSpec, peers: &[Peer], now: Instant) -> Vec<Decision> {
        self.watched
            .retain(|addr, _| peers.iter().any(|peer| peer.addr == *addr));
        let mut decisions = Vec::new();
        for peer in peers {
            let watched = self.watched.entry(peer.addr).or_insert(Watched {
                seen: peer.outcomes,
                began: peer.outcomes,
                in_a_row: 0,
                times: 0,
                calm_since: now,
                ejected: None,
            });
            if watched.note(spec, peer.outcomes, now) {
                decisions.push(Decision::Returned { addr: peer.addr });
            }
        }
        for (addr, why) in self.suspects(spec, peers, now) {
            if self.may_eject(spec, peers, addr)
                && let Some(watched) = self.watched.get_mut(&addr)
            {
                let reason = watched.eject(spec, &why, now);
                decisions.push(Decision::Ejected { addr, reason });
            }
        }
        decisions
    }

    /// Who should go, the surest first, and why.
    fn suspects(
        &mut self,
        spec: &OutlierSpec,
        peers: &[Peer],
        now: Instant,
    ) -> Vec<(SocketAddr, String)> {
        let mut in_a_row: Vec<(u64, SocketAddr)> = self
            .watched
            .iter()
            .filter(|(_, watched)| watched.ejected.is_none())
            .map(|(addr, watched)| (watched.in_a_row, *addr))
            .filter(|(errors, _)| *errors >= u64::from(spec.consecutive_errors))
            .collect();
        in_a_row.sort_by_key(|(errors, _)| std::cmp::Reverse(*errors));
        let mut suspects: Vec<(SocketAddr, String)> = in_a_row
            .into_iter()
            .map(|(errors, addr)| (addr, format!("{errors} errors in a row")))
            .collect();
        let began = *self.compared_at.get_or_insert(now);
        if now.duration_since(began) >= spec.interval {
            if spec.compare_peers {
                suspects.extend(self.compare(spec, peers));
            }
            self.compared_at = Some(now);
            for watched in self.watched.values_mut() {
                watched.began = watched.seen;
            }
        }
        suspects
    }

    /// Backends that are far worse than the rest of their family in this interval.
    fn compare(&self, spec: &OutlierSpec, peers: &[Peer]) -> Vec<(SocketAddr, String)> {
        let of = |addr: SocketAddr| {
            let watched = self.watched.get(&addr).filter(|w| w.ejected.is_none())?;
            Some(watched.seen.since(watched.began))
        };
        peers
            .iter()
            .filter_map(|peer| {
                let own = of(peer.addr)?;
                let others = peers
                    .iter()
                    .filter(|other| {
                        other.addr != peer.addr && other.addr.is_ipv6() == peer.addr.is_ipv6()
                    })
                    .filter_map(|other| of(other.addr))
                    .fold(Outcomes::default(), Outcomes::plus);
                let enough = u64::from(spec.min_flows);
                if own.count() < enough || others.count() < enough {
                    return None;
                }
                is_far_worse(own, others).then(|| {
                    let why = format!(
                        "{} of {} flows failed, {} of {} with its peers",
                        own.errors,
                        own.count(),
                        others.errors,
                        others.count()
                    );
                    (peer.addr, why)
                })
            })
            .collect()
    }

    /// Whether one more may go: somebody of its family must stay, and not too many may be away.
    fn may_eject(&self, spec: &OutlierSpec, peers: &[Peer], addr: SocketAddr) -> bool {
        let family = || {
            peers
                .iter()
                .filter(|peer| peer.addr.is_ipv6() == addr.is_ipv6())
        };
        let is_away = |peer: &&Peer| self.reason(peer.addr).is_some();
        let stays = family().any(|peer| peer.addr != addr && peer.ready && !is_away(&peer));
        let (away, all) = (family().filter(is_away).count(), family().count());
        // One of two is half of them; of few backends one may always go.
        let most = (all * spec.max_ejected_percent as usize / 100).max(1);
        self.reason(addr).is_none() && stays && away < most
    }
}

impl Watched {
    /// Takes the counters in. Says whether an ejection has ended.
    fn note(&mut self, spec: &OutlierSpec, outcomes: Outcomes, now: Instant) -> bool {
        let new = outcomes.since(self.seen);
        self.seen = outcomes;
        if self.ejected.as_ref().is_some_and(|e| e.until <= now) {
            self.ejected = None;
            self.in_a_row = 0;
            self.began = outcomes;
            self.calm_since = now;
            return true;
        }
        if self.ejected.is_none() {
            self.in_a_row = if new.ok > 0 {
                0
            } else {
                self.in_a_row + new.errors
            };
            while self.times > 0 && now.duration_since(self.calm_since) >= spec.ejection {
                self.times -= 1;
                self.calm_since += spec.ejection;
            }
        }
        false
    }

    fn eject(&mut self, spec: &OutlierSpec, why: &str, now: Instant) -> String {
        self.times = self.times.saturating_add(1);
        let lasts: Duration = spec
            .ejection
            .saturating_mul(self.times)
            .min(spec.max_ejection.max(spec.ejection));
        let reason = format!("ejected for {} s: {why}", lasts.as_secs());
        self.ejected = Some(Ejection {
            until: now + lasts,
            reason: reason.clone(),
        });
        reason
    }
}

/// Whether the share of errors is larger than the others' by more than chance and more than little.
fn is_far_worse(own: Outcomes, others: Outcomes) -> bool {
    let difference = own.error_share() - others.error_share();
    let pooled = own.plus(others).error_share();
    let variance =
        pooled * (1.0 - pooled) * (1.0 / own.count() as f64 + 1.0 / others.count() as f64);
    difference >= DIFFERENCE_MIN && difference >= STANDARD_ERRORS_MIN * variance.sqrt()
}

#[cfg(test)]
mod tests;
