//! A service file: `[service]` and what belongs to it.

use std::{net::SocketAddr, time::Duration};

use shifter_common::{abi::VIPS_PER_SERVICE, wire::Diagnostic};
use toml::Spanned;

use super::{
    address, analysis, breaker,
    field::Field,
    gate, observe, outlier, probe, relations,
    report::{Report, shown},
    rollout, schema,
    section::Section,
    slot::{self, SlotRead},
    syntax, target,
};
use crate::model::{
    Affinity, EstablishedPolicy, OnEmpty, OnFull, Plane, Protocol, Readmit, ServiceSpec, Slot,
    SlotSpec,
};
use crate::rollout::Strategy;

const DRAIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
const DRAIN_TIMEOUT_MIN: Duration = Duration::from_secs(1);
const DRAIN_TIMEOUT_MAX: Duration = Duration::from_hours(720);
const NAME_LEN_MAX_BYTES: usize = 63;

/// A service and where its file says what, so that it can be compared with other files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceFile {
    /// The file, as given.
    pub file: String,
    /// What it asks for.
    pub spec: ServiceSpec,
    /// What it says, to find places in.
    pub(super) text: String,
    /// Where the name stands, in bytes.
    pub(super) name_at: usize,
    /// Where the VIPs stand, in the order of the specification.
    pub(super) vips_at: Vec<usize>,
    /// Where the backends of each slot stand, in the order of the specification.
    pub(super) backends_at: [Vec<usize>; 2],
}

impl ServiceFile {
    /// Reads the text of a service file. `file` is its name in messages.
    ///
    /// # Errors
    /// All problems of the file, in the order of their places.
    pub fn parse(file: &str, text: &str) -> Result<Self, Vec<Diagnostic>> {
        let mut report = Report::new(file, text);
        let tree = syntax::parse(text, &mut report);
        let top = Section::top(schema::SERVICE_FILE, tree.get_ref(), &mut report);
        let read = read(file, text, &top, &mut report);
        fits_the_service(&read.spec, &top, &mut report);
        report.finish(read)
    }
}

/// Reads the text of a service file. `file` is its name in messages.
///
/// # Errors
/// All problems of the file, in the order of their places.
pub fn parse_service(file: &str, text: &str) -> Result<ServiceSpec, Vec<Diagnostic>> {
    ServiceFile::parse(file, text).map(|read| read.spec)
}

fn read(file: &str, text: &str, top: &Section<'_>, report: &mut Report<'_>) -> ServiceFile {
    let service = top.section("service", &schema::service::SERVICE, report);
    if top.get("service").is_none() {
        report.whole(
            None,
            "there is no [service]",
            "begin with [service], `name` and `vip`",
        );
    }
    let name = service.required("name", report);
    let vip = service.required("vip", report);
    let (vips, vips_complete) = vip.map_or((Vec::new(), false), |field| vips(&field, report));

    let slots = top.section("slot", &schema::service::SLOTS, report);
    let slots = ["a", "b"]
        .map(|name| slot::read(&slots.section(name, &schema::service::SLOT, report), report));
    let plane = choice(
        &service,
        "plane",
        &[
            ("auto", Plane::Auto),
            ("socket", Plane::Socket),
            ("nat", Plane::Nat),
        ],
        &[],
        report,
    )
    .unwrap_or_default();
    let protocol = choice(
        &service,
        "protocol",
        &[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)],
        &[],
        report,
    )
    .unwrap_or(Protocol::Tcp);
    if protocol == Protocol::Udp
        && plane == Plane::Socket
        && let Some(field) = service.get("plane")
    {
        report.whole(
            Some(&field.at()),
            "`service.plane` = \"socket\" cannot steer UDP: a UDP socket answers from its own address, \
             which a lookup does not change",
            "write plane = \"nat\" or \"auto\"",
        );
    }
    let addresses = relations::Addresses {
        // UDP has no other.
        plane: match protocol {
            Protocol::Tcp => plane,
            Protocol::Udp => Plane::Nat,
        },
        vips: &vips,
        vips_complete,
        slots: &slots,
    };
    relations::check(&addresses, report);
    let targets = target::read(top, vips_complete.then_some(&vips[..]), report);

    let probe = top.section("probe", &schema::service::PROBE, report);
    let outlier = top.section("outlier", &schema::service::OUTLIER, report);
    let breaker = top.section("breaker", &schema::service::BREAKER, report);
    let drain = top.section("drain", &schema::service::DRAIN, report);
    let rollback = top.section("rollback", &schema::service::ROLLBACK, report);
    let mut rollouts = rollout::read(
        &top.section("rollout", &schema::service::ROLLOUT, report),
        report,
    );
    rollouts.rest.gates = gate::read(top, report);
    rollouts.rest.analysis = analysis::read(top, report);
    for (key, value) in [
        ("cooldown", &mut rollouts.rest.cooldown_ms),
        ("keep_warm", &mut rollouts.rest.keep_warm_ms),
    ] {
        let field = rollback.get(key);
        if let Some(time) =
            field.and_then(|field| field.duration(Duration::ZERO..=DRAIN_TIMEOUT_MAX, report))
        {
            *value = rollout::millis(time);
        }
    }
    let starts = |read: &SlotRead| read.backends.iter().map(|b| b.span().start).collect();
    ServiceFile {
        file: file.to_owned(),
        text: text.to_owned(),
        name_at: name.as_ref().map_or(0, |name| name.at().start),
        vips_at: vips.iter().map(|vip| vip.span().start).collect(),
        backends_at: [starts(&slots[0]), starts(&slots[1])],
        spec: ServiceSpec {
            name: name
                .and_then(|name| service_name(&name, report))
                .unwrap_or_default(),
            vips: vips.into_iter().map(Spanned::into_inner).collect(),
            protocol,
            plane,
            affinity: choice(
                &service,
                "affinity",
                &[
                    ("connection", Affinity::Connection),
                    ("client", Affinity::Client),
                ],
                &[],
                report,
            )
            .unwrap_or_default(),
            default_slot: default_slot(&service, &slots, report),
            on_empty: choice(
                &service,
                "on_empty",
                &[("drop", OnEmpty::Drop), ("pass", OnEmpty::Pass)],
                &[],
                report,
            )
            .unwrap_or_default(),
            readmit: choice(
                &service,
                "readmit",
                &[("probe", Readmit::Probe), ("listen", Readmit::Listen)],
                &[],
                report,
            )
            .unwrap_or_default(),
            manages_vips: service
                .get("manage_vip")
                .and_then(|field| field.boolean(report))
                .unwrap_or(false),
            on_full: choice(
                &service,
                "on_full",
                &[("stay", OnFull::Stay), ("failover", OnFull::Failover)],
                &[],
                report,
            )
            .unwrap_or_default(),
            observe: observe::read(&service, protocol, report),
            slots: slots.map(|read| SlotSpec {
                backends: read.backends.into_iter().map(Spanned::into_inner).collect(),
                user: read.user,
            }),
            targets,
            readiness: probe::read(&probe, report),
            outlier: outlier::read(&outlier, report),
            breaker: breaker::read(&breaker, report),
            drain_timeout: drain
                .get("timeout")
                .and_then(|field| field.duration(DRAIN_TIMEOUT_MIN..=DRAIN_TIMEOUT_MAX, report))
                .unwrap_or(DRAIN_TIMEOUT_DEFAULT),
            rollback_established: choice(
                &rollback,
                "established",
                &[
                    ("drain", EstablishedPolicy::Drain),
                    ("reset", EstablishedPolicy::Reset),
                    ("reset-idle", EstablishedPolicy::ResetIdle),
                ],
                &[],
                report,
            )
            .unwrap_or_default(),
            rollout: rollouts,
        },
    }
}

/// Whether the rollout's strategy goes with this service, asked of a file without other problems.
fn fits_the_service(spec: &ServiceSpec, top: &Section<'_>, report: &mut Report<'_>) {
    let Some(field) = top.get("rollout") else {
        return;
    };
    let has_both = spec.slots.iter().all(|slot| !slot.backends.is_empty());
    let is_rolling = matches!(spec.rollout.strategy, Strategy::Rolling { .. });
    // A rolling update counts backends, which may come with the start.
    if !report.is_clean() || (is_rolling && !has_both) {
        return;
    }
    for slot in Slot::ALL {
        if let Err(error) = spec.rollout_plan(slot) {
            let text = error.to_string();
            let (message, help) = text.split_once(": ").unwrap_or((&text, ""));
            report.whole(Some(&field.at()), message, help);
            return;
        }
    }
}

fn choice<T: Copy>(
    section: &Section<'_>,
    key: &str,
    choices: &[(&str, T)],
    later: &[&str],
    report: &mut Report<'_>,
) -> Option<T> {
    section
        .get(key)
        .and_then(|field| field.choice(choices, later, report))
}

fn service_name(field: &Field<'_>, report: &mut Report<'_>) -> Option<String> {
    let name = field.string(report)?;
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !name.is_empty()
        && name.len() <= NAME_LEN_MAX_BYTES
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
    {
        return Some(name.to_owned());
    }
    report.value(
        &field.at(),
        format!("`service.name` cannot be {}", shown(name)),
        "1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit",
    );
    None
}

/// The VIPs, and whether all of them could be read.
fn vips(field: &Field<'_>, report: &mut Report<'_>) -> (Vec<Spanned<SocketAddr>>, bool) {
    let elements = if field.as_string().is_some() {
        vec![field.clone()]
    } else if field.is_array() {
        field.elements(report).unwrap_or_default()
    } else {
        field.mistyped("a string or an array of strings", report);
        return (Vec::new(), false);
    };
    if elements.is_empty() {
        report.whole(
            Some(&field.at()),
            "`service.vip` is empty",
            "write the address clients connect to: vip = \"10.0.0.10:443\"",
        );
    }
    if elements.len() > VIPS_PER_SERVICE as usize {
        report.whole(
            Some(&field.at()),
            format!(
                "`service.vip` must have at most {VIPS_PER_SERVICE} addresses, found {}",
                elements.len()
            ),
            "give the others to another service, with backends of its own",
        );
    }
    let given_count = elements.len();
    let vips: Vec<_> = elements
        .into_iter()
        .filter_map(|element| {
            let addr = address::read(&element, address::Role::Vip, report)?;
            Some(Spanned::new(element.at(), addr))
        })
        .collect();
    let complete = vips.len() == given_count;
    (vips, complete)
}

/// The baseline if no state is known: as asked for, else the first slot with a backend.
fn default_slot(service: &Section<'_>, slots: &[SlotRead; 2], report: &mut Report<'_>) -> Slot {
    let is_empty = |slot: Slot| {
        let read = &slots[slot.index() as usize];
        read.complete && read.backends.is_empty()
    };
    if Slot::ALL.into_iter().all(is_empty) {
        report.whole(
            slots[0].at.as_ref().or(slots[1].at.as_ref()),
            "no slot has a backend",
            "add [slot.a] with, for example: backends = [\"10.0.0.11:8443\"]",
        );
    }
    let field = service.get("default_slot");
    let asked = field
        .as_ref()
        .and_then(|field| field.choice(&[("a", Slot::A), ("b", Slot::B)], &[], report));
    if let (Some(slot), Some(field)) = (asked, field)
        && is_empty(slot)
        && !is_empty(slot.other())
    {
        report.whole(
            Some(&field.at()),
            format!("`service.default_slot` is \"{slot}\", but slot {slot} has no backend"),
            format!("write \"{}\", or add backends to slot {slot}", slot.other()),
        );
    }
    asked.unwrap_or(if is_empty(Slot::A) && !is_empty(Slot::B) {
        Slot::B
    } else {
        Slot::A
    })
}
