//! Statistics of a rollout: counts in, judgements out. Pure.

mod judgement;

pub use judgement::Judgement;
