//! What the analysis says of one look at the evidence.

/// The analysis' answer for one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Judgement {
    /// The canary is not worse than its limits allow.
    Pass,
    /// The canary is worse: the rollout goes back.
    Fail,
    /// The evidence does not suffice for either answer.
    Inconclusive,
    /// There is no evidence.
    NoData,
}
