//! A status as OpenMetrics text. Pure.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge, info::Info},
    registry::{Registry, Unit},
};
use shifter_common::wire::Status;

use super::{
    family::{FAMILIES, Family, Kind, Labels, Value},
    socket,
};

/// Content type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of a status.
///
/// # Errors
/// None that a status can cause: writing to a string does not fail.
pub fn render(status: Status) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(status)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// One status, on its way to one scrape.
#[derive(Debug)]
struct Scrape(Status);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        FAMILIES
            .iter()
            .chain(socket::FAMILIES)
            .try_for_each(|family| write(family, &self.0, &mut encoder))
    }
}

fn write(family: &Family, status: &Status, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let Family {
        name,
        unit,
        kind,
        help,
        samples,
    } = family;
    let unit = unit.map(|unit| Unit::Other(unit.into()));
    let metric_type = match kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Info => MetricType::Info,
        Kind::Histogram => MetricType::Histogram,
    };
    let mut metric = encoder.encode_descriptor(name, help, unit.as_ref(), metric_type)?;
    for (labels, value) in samples(status) {
        if *kind == Kind::Info {
            Info::new(labels).encode(metric.encode_family::<Labels>(&vec![])?)?;
            continue;
        }
        if labels.is_empty() {
            return put(*kind, value, metric);
        }
        put(*kind, value, metric.encode_family(&labels)?)?;
    }
    Ok(())
}

fn put(kind: Kind, value: Value, mut sample: MetricEncoder<'_>) -> fmt::Result {
    match (kind, value) {
        (_, Value::Histogram(d)) => {
            sample.encode_histogram::<Labels>(d.sum_s, d.count, &d.buckets, None)
        }
        (Kind::Counter, Value::Integer(n)) => ConstCounter::new(n).encode(sample),
        (Kind::Counter, Value::Real(n)) => ConstCounter::new(n).encode(sample),
        (_, Value::Integer(n)) => ConstGauge::new(n).encode(sample),
        (_, Value::Real(n)) => ConstGauge::new(n).encode(sample),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::{super::sample, *};

    #[test]
    fn a_full_status_is_this_text() {
        let text = render(sample::status()).unwrap();
        let golden = include_str!("golden.txt");
        for (number, (line, expected)) in text.lines().zip(golden.lines()).enumerate() {
            assert_eq!(line, expected, "line {} of golden.txt", number + 1);
        }
        assert_eq!(text, golden);
    }

    /// What `promtool check metrics` and the OpenMetrics parser of Prometheus object to.
    fn lint(text: &str) -> Vec<String> {
        let mut objections = Vec::new();
        let mut types: BTreeMap<&str, &str> = BTreeMap::new();
        let mut helped = BTreeSet::new();
        let mut series = BTreeSet::new();
        let mut current = "";
        if !text.ends_with("\n# EOF\n") {
            objections.push("does not end with EOF".into());
        }
        for line in text.lines().filter(|line| *line != "# EOF") {
            let words: Vec<_> = line.splitn(4, ' ').collect();
            match words.as_slice() {
                ["#", "HELP", name, help] => {
                    current = name;
                    if !helped.insert(*name) {
                        objections.push(format!("{name}: second HELP"));
                    }
                    if !help.ends_with('.') || !help.starts_with(char::is_uppercase) {
                        objections.push(format!("{name}: help is no sentence"));
                    }
                    continue;
                }
                ["#", "TYPE", name, kind] if *name == current => {
                    types.insert(name, kind);
                    continue;
                }
                ["#", "UNIT", name, unit] if *name == current => {
                    if !name.ends_with(&format!("_{unit}")) {
                        objections.push(format!("{name}: unit {unit} is not its suffix"));
                    }
                    continue;
                }
                _ => {}
            }
            let Some((id, value)) = line.rsplit_once(' ') else {
                objections.push(format!("no sample: {line}"));
                continue;
            };
            if !series.insert(id.to_owned()) {
                objections.push(format!("duplicate series {id}"));
            }
            let name = id.split('{').next().unwrap_or_default();
            let Some(kind) = types.get(current) else {
                objections.push(format!("{name}: no TYPE"));
                continue;
            };
            let suffix = match *kind {
                "counter" => "_total",
                "info" => "_info",
                "histogram" => ["_sum", "_count", "_bucket"]
                    .into_iter()
                    .find(|suffix| name.ends_with(suffix))
                    .unwrap_or("_bucket"),
                _ => "",
            };
            if name.ends_with("_bucket") != (id.contains("{le=\"") || id.contains(",le=\"")) {
                objections.push(format!("{id}: a bucket has a bound, and nothing else has"));
            }
            if name != format!("{current}{suffix}") {
                objections.push(format!("{name}: not of the {kind} {current}"));
            }
            if *kind == "gauge"
                && ["_total", "_info", "_count", "_sum"]
                    .iter()
                    .any(|s| name.ends_with(s))
            {
                objections.push(format!("{name}: suffix of another type"));
            }
            let plain = |c: char| c.is_ascii_lowercase() || c == '_';
            if !name.starts_with("shifter_") || !name.chars().all(plain) {
                objections.push(format!("{name}: name"));
            }
            if ["_ms", "_ns", "_bp", "_kb", "_percent"]
                .iter()
                .any(|unit| name.contains(unit))
            {
                objections.push(format!("{name}: not a base unit"));
            }
            let number: f64 = value.parse().unwrap_or(f64::NAN);
            if !number.is_finite() || number < 0.0 {
                objections.push(format!("{id}: value {value}"));
            }
            if name.ends_with("_ratio") && number > 1.0 {
                objections.push(format!("{id}: ratio {value}"));
            }
        }
        for name in helped {
            if !types.contains_key(name) {
                objections.push(format!("{name}: HELP without TYPE"));
            }
        }
        objections
    }

    #[test]
    fn the_text_keeps_the_rules() {
        assert_eq!(lint(&render(sample::status()).unwrap()), [""; 0]);
    }

    /// A counter of the socket plane that is in no metric, or in two, is found by its number.
    #[test]
    fn every_counter_of_the_socket_plane_is_shown_once() {
        let counters = sample::socket(1_000_000);
        let text = render(sample::status()).unwrap();
        for (name, count) in counters {
            let suffix = format!(" {count}");
            let lines = text.lines().filter(|line| line.ends_with(&suffix));
            assert_eq!(lines.count(), 1, "{name}");
        }
    }

    #[test]
    fn the_rules_object() {
        let rows = [
            (
                "# HELP shifter_a A.\n# TYPE shifter_a gauge\nshifter_a 1\nshifter_a 1\n# EOF\n",
                "duplicate series shifter_a",
            ),
            (
                "# HELP shifter_a A.\n# TYPE shifter_a counter\nshifter_a 1\n# EOF\n",
                "shifter_a: not of the counter shifter_a",
            ),
            (
                "# HELP shifter_a A.\nshifter_a 1\n# EOF\n",
                "shifter_a: no TYPE",
            ),
            (
                "# HELP shifter_a_ratio A.\n# TYPE shifter_a_ratio gauge\nshifter_a_ratio 5\n# EOF\n",
                "shifter_a_ratio: ratio 5",
            ),
            (
                "# HELP shifter_a A.\n# TYPE shifter_a gauge\nshifter_a 1\n",
                "does not end with EOF",
            ),
            ("# HELP a A.\n# TYPE a gauge\na 1\n# EOF\n", "a: name"),
        ];
        for (text, objection) in rows {
            assert_eq!(lint(text).first().map(String::as_str), Some(objection));
        }
    }

    #[test]
    fn only_the_configuration_adds_series() {
        let series = |status: Status| {
            render(status)
                .unwrap()
                .lines()
                .filter(|line| !line.starts_with('#'))
                .count()
        };
        let base = series(sample::status());
        let mut busy = sample::status();
        for n in 0..100 {
            let mut event = busy.events[0].clone();
            event.by = format!("user{n} (uid {n})");
            busy.events.push(event);
        }
        let service = &mut busy.services[0];
        service.notes.extend((0..100).map(|n| format!("note {n}")));
        service.weight_by = "somebody else".into();
        service.slots[0].reason = "for some reason".into();
        service.slots[0].backends[0].reason = "connection refused by 192.0.2.1:50123".into();
        busy.interfaces[0].reason = "for another reason".into();
        assert_eq!(series(busy), base);

        let mut grown = sample::status();
        let mut backend = grown.services[0].slots[0].backends[0].clone();
        backend.addr = "10.0.0.99:8443".into();
        grown.services[0].slots[0].backends.push(backend);
        assert_eq!(series(grown), base + 7);
    }

    #[test]
    fn a_label_cannot_break_the_text() {
        let mut status = sample::status();
        status.interfaces[0].name = "e\"th\\0".into();
        let text = render(status).unwrap();
        assert!(
            text.contains(r#"shifter_interface_info{interface="e\"th\\0",hook="xdp"} 1"#),
            "{text}"
        );
        assert_eq!(lint(&text), [""; 0]);
    }
}
