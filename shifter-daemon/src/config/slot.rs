//! `[slot.a]` and `[slot.b]`.

use toml::Spanned;

use super::{
    address,
    field::Field,
    report::{Report, shown},
    schema,
    section::Section,
};
use crate::model::BackendSpec;

/// Weight of a backend that is given as a string.
const WEIGHT_DEFAULT: u16 = 100;
const WEIGHT_MAX: u32 = 1_000;

/// A slot as far as it could be read.
#[derive(Debug, Default)]
pub(super) struct SlotRead {
    /// Backends with a possible address, and where they stand.
    pub backends: Vec<Spanned<BackendSpec>>,
    /// Where the array stands, if there is one.
    pub at: Option<std::ops::Range<usize>>,
    /// Whether every backend of the file is in `backends`.
    pub complete: bool,
    /// The user who may listen there.
    pub user: Option<String>,
}

/// Reads a slot; one that is not in the file is empty.
pub(super) fn read(slot: &Section<'_>, report: &mut Report<'_>) -> SlotRead {
    let user = slot.get("user").and_then(|field| user(&field, report));
    let Some(field) = slot.get("backends") else {
        return SlotRead {
            at: slot.at(),
            complete: !slot.is_unreadable(),
            backends: Vec::new(),
            user,
        };
    };
    let at = Some(field.at());
    let Some(elements) = field.elements(report) else {
        return SlotRead {
            at,
            user,
            ..SlotRead::default()
        };
    };
    let given_count = elements.len();
    let backends: Vec<_> = elements
        .into_iter()
        .filter_map(|element| {
            let at = element.at();
            backend(slot, &element, report).map(|spec| Spanned::new(at, spec))
        })
        .collect();
    SlotRead {
        at,
        complete: backends.len() == given_count,
        backends,
        user,
    }
}

/// The name of a user, as useradd(8) allows it. Whether there is one is found out when it is put in
/// force.
fn user(field: &Field<'_>, report: &mut Report<'_>) -> Option<String> {
    let name = field.string(report)?;
    let is_name = (1..=32).contains(&name.len())
        && name.bytes().enumerate().all(|(i, byte)| {
            byte.is_ascii_alphanumeric() || byte == b'_' || i > 0 && b"-.$".contains(&byte)
        });
    if is_name {
        return Some(name.to_owned());
    }
    report.value(
        &field.at(),
        format!("{} is no name of a user", shown(name)),
        "write the user the server runs as, such as \"orders\"",
    );
    None
}

fn backend(
    slot: &Section<'_>,
    element: &Field<'_>,
    report: &mut Report<'_>,
) -> Option<BackendSpec> {
    if element.as_string().is_some() {
        let addr = address::read(element, address::Role::Backend, report)?;
        return Some(BackendSpec {
            addr,
            weight: WEIGHT_DEFAULT,
        });
    }
    if !element.is_table() {
        element.mistyped("a string or { addr, weight }", report);
        return None;
    }
    let table = slot.open(element, &schema::service::BACKEND, report);
    let addr = table
        .required("addr", report)
        .and_then(|addr| address::read(&addr, address::Role::Backend, report));
    let weight = match table.get("weight") {
        None => Some(WEIGHT_DEFAULT),
        Some(weight) => weight
            .count(0..=WEIGHT_MAX, "", report)
            .and_then(|weight| u16::try_from(weight).ok()),
    };
    Some(BackendSpec {
        addr: addr?,
        weight: weight?,
    })
}
