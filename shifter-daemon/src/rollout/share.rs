//! What part of the new flows a version on trial gets.

use serde::{Deserialize, Serialize};
use shifter_common::steering::WEIGHT_FULL_BP;

use super::{cidr::Cidr, rolling::Batch};

/// The canary's share of new flows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Of everybody, basis points, 0..=10000.
    pub weight_bp: u16,
    /// Clients that get the canary whatever the weight.
    pub targets: Vec<Cidr>,
    /// How many backends of either version take part; all unless given.
    pub batch: Option<Batch>,
}

impl Share {
    /// Nothing.
    pub const NONE: Self = Self {
        weight_bp: 0,
        targets: Vec::new(),
        batch: None,
    };

    /// Everything.
    pub const FULL: Self = Self {
        weight_bp: WEIGHT_FULL_BP,
        targets: Vec::new(),
        batch: None,
    };

    /// Whether no new flow goes to the canary.
    pub fn is_none(&self) -> bool {
        self.weight_bp == 0 && self.targets.is_empty()
    }

    /// Whether every new flow does.
    pub fn is_full(&self) -> bool {
        self.weight_bp == WEIGHT_FULL_BP
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, part) = (self.weight_bp / 100, self.weight_bp % 100);
        match part {
            0 => write!(f, "{whole} %")?,
            part if part % 10 == 0 => write!(f, "{whole}.{} %", part / 10)?,
            part => write!(f, "{whole}.{part:02} %")?,
        }
        for (at, target) in self.targets.iter().enumerate() {
            f.write_str(if at == 0 { " and clients of " } else { ", " })?;
            write!(f, "{target}")?;
        }
        match &self.batch {
            Some(batch) => write!(f, " ({batch})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_as_people_read_them() {
        let targets = ["10.0.0.0/8", "2001:db8::/32"].map(|text| text.parse().expect("a CIDR"));
        let rows = [
            (Share::NONE, "0 %"),
            (Share::FULL, "100 %"),
            (
                Share {
                    weight_bp: 505,
                    ..Share::NONE
                },
                "5.05 %",
            ),
            (
                Share {
                    weight_bp: 550,
                    ..Share::NONE
                },
                "5.5 %",
            ),
            (
                Share {
                    targets: targets.to_vec(),
                    ..Share::NONE
                },
                "0 % and clients of 10.0.0.0/8, 2001:db8::/32",
            ),
            (
                Share {
                    weight_bp: 5_000,
                    batch: Some(Batch {
                        new_count: 2,
                        old_count: 2,
                    }),
                    ..Share::NONE
                },
                "50 % (backends: 2 new, 2 old)",
            ),
        ];
        for (share, text) in rows {
            assert_eq!(share.to_string(), text);
        }
    }
}
