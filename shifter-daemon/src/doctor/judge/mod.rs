//! From facts to checks. Pure.

mod interface;
mod kernel;
mod netfilter;
mod network;
mod socket;

use super::{Facts, Report};

/// Command of the doctor itself, with the rights it needs.
const AS_ROOT: &str = "sudo shifterd --doctor";

/// Judges everything there is to judge.
pub fn judge(facts: &Facts) -> Report {
    let mut checks = kernel::checks(facts);
    checks.extend(network::checks(facts));
    checks.extend(netfilter::checks(facts));
    checks.extend(interface::checks(facts));
    checks.extend(socket::checks(facts));
    Report { checks }
}

#[cfg(test)]
use tests::complaints;

/// What tests of all judgements share.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Check, Status, facts::healthy};

    /// Judges healthy facts after `change`, and returns those checks that are not ok, as one line
    /// each: `status name: found | why | remedy`.
    pub fn complaints(change: impl FnOnce(&mut Facts)) -> Vec<String> {
        let mut facts = healthy();
        change(&mut facts);
        let report = judge(&facts);
        let text = report.render();
        let long: Vec<_> = text
            .lines()
            .filter(|line| line.chars().count() > 80)
            .collect();
        assert!(long.is_empty(), "wider than 80 columns: {long:#?}");
        report
            .checks
            .iter()
            .filter(|check| check.status != Status::Ok)
            .map(line)
            .collect()
    }

    fn line(check: &Check) -> String {
        let Check {
            name,
            status,
            found,
            why,
            remedy,
        } = check;
        assert!(
            !why.is_empty() && !remedy.is_empty(),
            "{name} does not say why and what to do"
        );
        let status = format!("{status:?}").to_lowercase();
        format!("{status} {name}: {found} | {why} | {remedy}")
    }

    #[test]
    fn a_healthy_host_has_nothing_to_mend() {
        assert_eq!(complaints(|_| ()), Vec::<String>::new());
        let report = judge(&healthy());
        assert_eq!(report.worst(), Status::Ok);
        let mut names: Vec<_> = report.checks.iter().map(|check| &check.name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count, "every check has a name of its own");
        assert!(report.checks.iter().all(|check| !check.why.is_empty()));
    }
}
