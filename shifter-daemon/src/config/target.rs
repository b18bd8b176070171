//! `[[target]]`: clients whose new connections do not follow the weight.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    ops::Range,
};

use toml::Spanned;

use super::{
    field::Field,
    relations::Family,
    report::{Report, shown},
    schema,
    section::Section,
};
use crate::model::{Prefix, Target, Targets};

/// Prefixes of one service; more of them are the business of the application.
const PREFIXES_MAX_COUNT: usize = 1_024;

/// Reads all rules. `vips` are the service's VIPs if every one of them could be read.
pub(super) fn read(
    top: &Section<'_>,
    vips: Option<&[Spanned<SocketAddr>]>,
    report: &mut Report<'_>,
) -> Targets {
    let Some(field) = top.get("target") else {
        return Targets::new();
    };
    if field.is_table() {
        report.value(
            &field.at(),
            "`target` must be an array of tables, found a table",
            "write [[target]], in two brackets, once for each rule",
        );
        return Targets::new();
    }
    let mut rules = Targets::new();
    let mut seen = BTreeMap::<Prefix, Range<usize>>::new();
    for element in field.elements(report).unwrap_or_default() {
        let table = top.open(&element, &schema::service::TARGET, report);
        let from = table.required("from", report);
        let to = table.required("to", report).and_then(|to| {
            let roles = [("canary", Target::Canary), ("baseline", Target::Baseline)];
            to.choice(&roles, &[], report)
        });
        for element in from.map_or(Vec::new(), |from| elements(&from, report)) {
            let Some(prefix) = prefix(&element, report) else {
                continue;
            };
            let at = element.at();
            if let Some(vips) = vips {
                fits_a_vip(prefix, &at, vips, report);
            }
            if let Some(first) = seen.get(&prefix) {
                let line = report.line(first);
                report.value(
                    &at,
                    format!("prefix \"{prefix}\" is given twice"),
                    format!("remove one; the first is in line {line}"),
                );
                continue;
            }
            seen.insert(prefix, at);
            if let Some(to) = to {
                rules.insert(prefix, to);
            }
        }
    }
    if seen.len() > PREFIXES_MAX_COUNT {
        report.whole(
            Some(&field.at()),
            format!(
                "a service must have at most {PREFIXES_MAX_COUNT} target prefixes, found {}",
                seen.len()
            ),
            "name larger networks",
        );
    }
    rules
}

/// A list of prefixes, or one alone.
pub(super) fn elements<'d>(from: &Field<'d>, report: &mut Report<'_>) -> Vec<Field<'d>> {
    if from.as_string().is_some() {
        return vec![from.clone()];
    }
    if !from.is_array() {
        from.mistyped("a string or an array of strings", report);
        return Vec::new();
    }
    let elements = from.elements(report).unwrap_or_default();
    if elements.is_empty() {
        report.whole(
            Some(&from.at()),
            "`target.from` is empty",
            "write the clients' networks: from = [\"10.0.0.0/8\"], or remove the rule",
        );
    }
    elements
}

/// The prefix that a field names.
pub(super) fn prefix(field: &Field<'_>, report: &mut Report<'_>) -> Option<Prefix> {
    let text = field.string(report)?;
    match parse(text) {
        Ok(prefix) => Some(prefix),
        Err((what, help)) => {
            report.value(&field.at(), format!("prefix {} {what}", shown(text)), help);
            None
        }
    }
}

/// A prefix, or what is wrong with it and what would be right.
fn parse(text: &str) -> Result<Prefix, (String, String)> {
    const EXAMPLE: &str = "write an address and a length: \"10.0.0.0/8\" or \"2001:db8:7::/48\"";
    let (addr, len) = match text.split_once('/') {
        Some((addr, len)) => (addr, Some(len)),
        None => (text, None),
    };
    let Ok(addr) = addr.parse::<IpAddr>() else {
        return Err(("is not a prefix".into(), EXAMPLE.into()));
    };
    let len_max = if addr.is_ipv4() { 32_u8 } else { 128 };
    let Some(len) = len else {
        let help = format!("for one address write \"{addr}/{len_max}\"");
        return Err(("has no length".into(), help));
    };
    let digits = !len.is_empty() && len.bytes().all(|byte| byte.is_ascii_digit());
    let found = digits
        .then(|| len.parse::<u8>().ok())
        .flatten()
        .and_then(|len| Prefix::of(addr, len));
    let Some(prefix) = found else {
        let help = format!("write a length of 0 to {len_max}");
        return Err(("has no possible length".into(), help));
    };
    if let IpAddr::V6(v6) = addr
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        let help = format!(
            "write it as \"{v4}/{}\"",
            prefix.len_bits().saturating_sub(96)
        );
        return Err(("is an IPv4 prefix in IPv6 form".into(), help));
    }
    if prefix.addr() != addr {
        return Err((
            "names bits beyond its length".into(),
            format!("write \"{prefix}\", or \"{addr}/{len_max}\" for one address"),
        ));
    }
    Ok(prefix)
}

/// Clients of a family without VIP cannot reach the service.
fn fits_a_vip(
    prefix: Prefix,
    at: &Range<usize>,
    vips: &[Spanned<SocketAddr>],
    report: &mut Report<'_>,
) {
    let family = Family::of(SocketAddr::new(prefix.addr(), 0));
    let has_vip = vips.iter().any(|vip| Family::of(*vip.get_ref()) == family);
    if !has_vip && !vips.is_empty() {
        report.value(
            at,
            format!("prefix \"{prefix}\" is {family}, but no VIP is"),
            format!("no such client reaches the service; add an {family} VIP or remove it"),
        );
    }
}
