//! `[[gate]]`: questions on the way of a rollout.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use super::{
    field::Field,
    report::{Report, shown},
    rollout::millis,
    schema,
    section::Section,
};
use crate::rollout::{GATE_USER_DEFAULT, Gate, GateCheck, GatePoint, Label};

const GATES_MAX_COUNT: usize = 64;
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
const TIMEOUT_MIN: Duration = Duration::from_millis(100);
const TIMEOUT_MAX: Duration = Duration::from_hours(24);
const RETRIES_MAX_COUNT: u32 = 1_000;

/// Reads all gates, in the order of the file.
pub(super) fn read(top: &Section<'_>, report: &mut Report<'_>) -> Vec<Gate> {
    let Some(field) = top.get("gate") else {
        return Vec::new();
    };
    if field.is_table() {
        report.value(
            &field.at(),
            "`gate` must be an array of tables, found a table",
            "write [[gate]], in two brackets, once for each gate",
        );
        return Vec::new();
    }
    let elements = field.elements(report).unwrap_or_default();
    if elements.len() > GATES_MAX_COUNT {
        report.whole(
            Some(&field.at()),
            format!(
                "a service must have at most {GATES_MAX_COUNT} gates, found {}",
                elements.len()
            ),
            "ask several things in one program",
        );
    }
    let mut seen = BTreeMap::<String, Range<usize>>::new();
    let mut gates = Vec::new();
    for element in elements {
        let table = top.open(&element, &schema::service::GATE, report);
        let Some(gate) = gate(&table, report) else {
            continue;
        };
        let at = table.get("name").map_or(element.at(), |name| name.at());
        if let Some(first) = seen.get(&gate.name) {
            let line = report.line(first);
            report.value(
                &at,
                format!("two gates are named {}", shown(&gate.name)),
                format!("give each a `name` of its own; the first is in line {line}"),
            );
            continue;
        }
        seen.insert(gate.name.clone(), at);
        gates.push(gate);
    }
    gates
}

fn gate(table: &Section<'_>, report: &mut Report<'_>) -> Option<Gate> {
    let points = GatePoint::ALL.map(|point| (point.to_string(), point));
    let points = points
        .each_ref()
        .map(|(name, point)| (name.as_str(), *point));
    let at = table.required("at", report);
    let at = at.and_then(|at| at.choice(&points, &[], report));
    let name = table.get("name").map(|field| name(&field, report));
    let timeout = table
        .get("timeout")
        .and_then(|field| field.duration(TIMEOUT_MIN..=TIMEOUT_MAX, report));
    let retries = table
        .get("retries")
        .and_then(|field| field.count(0..=RETRIES_MAX_COUNT, "", report));
    let user = user(table, report);
    let check = check(table, report);
    let (at, check) = (at?, check?);
    if at == GatePoint::Rollback && check == GateCheck::Manual {
        report.whole(
            table.at().as_ref(),
            "a gate at \"rollback\" asks a person all the time",
            "leave it out: shifterctl rollback is there at any time",
        );
    }
    let name = match name {
        Some(given) => given?,
        None => at.to_string(),
    };
    Some(Gate {
        name,
        at,
        check,
        timeout_ms: millis(timeout.unwrap_or(TIMEOUT_DEFAULT)),
        retries_count: retries.unwrap_or(0),
        user: user?.unwrap_or_else(|| GATE_USER_DEFAULT.into()),
    })
}

/// `Some(None)` if the file names nobody.
fn user(table: &Section<'_>, report: &mut Report<'_>) -> Option<Option<String>> {
    let Some(field) = table.get("user") else {
        return Some(None);
    };
    if table.get("exec").is_none() {
        report.value(
            &field.at(),
            "`gate.user` means nothing to a gate that runs no program",
            "remove it, or write exec = [\"/usr/local/bin/smoke\"]",
        );
        return None;
    }
    let name = field.string(report)?;
    if name.is_empty() || name == "root" {
        report.value(
            &field.at(),
            format!("`gate.user` cannot be {}", shown(name)),
            "a gate runs without rights: name a user who may do no more than the program needs",
        );
        return None;
    }
    Some(Some(name.to_owned()))
}

/// Names are arguments of commands, as labels are.
fn name(field: &Field<'_>, report: &mut Report<'_>) -> Option<String> {
    let text = field.string(report)?;
    if text.parse::<Label>().is_ok() {
        return Some(text.to_owned());
    }
    report.value(
        &field.at(),
        format!("`gate.name` cannot be {}", shown(text)),
        "1 to 64 letters, digits, \".\", \"_\", \"+\" and \"-\", such as smoke",
    );
    None
}

fn check(table: &Section<'_>, report: &mut Report<'_>) -> Option<GateCheck> {
    let given: Vec<_> = ["http", "exec", "file", "manual"]
        .into_iter()
        .filter_map(|key| Some((key, table.get(key)?)))
        .collect();
    let [(key, field)] = &given[..] else {
        if table.is_present() {
            let message = match given.len() {
                0 => "a gate asks nothing".to_owned(),
                count => format!("a gate asks {count} things"),
            };
            report.whole(
                table.at().as_ref(),
                message,
                "write one of `http`, `exec`, `file` or `manual`, and another [[gate]] for more",
            );
        }
        return None;
    };
    match *key {
        "http" => text(
            field,
            |url| url.starts_with("http://") && url.len() > "http://".len(),
            "write a URL, such as \"http://127.0.0.1:8080/smoke\"",
            report,
        )
        .map(GateCheck::Http),
        "exec" => {
            let mut arguments = Vec::new();
            for element in field.elements(report)? {
                arguments.push(element.string(report)?.to_owned());
            }
            if arguments.first().is_some_and(|it| it.starts_with('/')) {
                return Some(GateCheck::Exec(arguments));
            }
            report.value(
                &field.at(),
                "`gate.exec` names no program by its whole path",
                "for example: exec = [\"/usr/local/bin/smoke\", \"{{version}}\"]",
            );
            None
        }
        "file" => text(
            field,
            |path| path.starts_with('/'),
            "write the whole path of a file, such as \"/run/orders/go\"",
            report,
        )
        .map(GateCheck::File),
        _ => match field.boolean(report)? {
            true => Some(GateCheck::Manual),
            false => {
                report.value(
                    &field.at(),
                    "`gate.manual` = false asks nothing",
                    "write true, or remove the gate",
                );
                None
            }
        },
    }
}

fn text(
    field: &Field<'_>,
    fits: impl FnOnce(&str) -> bool,
    help: &str,
    report: &mut Report<'_>,
) -> Option<String> {
    let text = field.string(report)?;
    if fits(text) {
        return Some(text.to_owned());
    }
    let message = format!("`{}` cannot be {}", field.path(), shown(text));
    report.value(&field.at(), message, help);
    None
}
