//! `service.observe`: what is looked at in the connections of a service.

use super::{report::Report, section::Section};
use crate::model::{ObserveSpec, Protocol};

#[derive(Clone, Copy)]
enum What {
    Connections,
    Latency,
    Http,
}

/// Reads the list.
pub(super) fn read(
    service: &Section<'_>,
    protocol: Protocol,
    report: &mut Report<'_>,
) -> ObserveSpec {
    let mut spec = ObserveSpec::default();
    let Some(field) = service.get("observe") else {
        return spec;
    };
    const CHOICES: [(&str, What); 3] = [
        ("connections", What::Connections),
        ("latency", What::Latency),
        ("http", What::Http),
    ];
    for element in field.elements(report).unwrap_or_default() {
        match element.choice(&CHOICES, &[], report) {
            Some(What::Latency) => spec.latency = true,
            Some(What::Http) => spec.http = true,
            Some(What::Connections) | None => {}
        }
    }
    if spec.is_on() && protocol == Protocol::Udp {
        report.value(
            &field.at(),
            "`service.observe` can name latency and http of TCP only: a datagram has no handshake, and \
             belongs to no request that could be told",
            "write observe = [\"connections\"], or leave it out",
        );
        return ObserveSpec::default();
    }
    spec
}
