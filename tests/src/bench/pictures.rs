//! Which measurements become which picture. Pure.

use super::{
    chart::{Chart, Line, Scale},
    results::{Change, EndToEnd, Packets, Results},
    spread::Spread,
};

/// The pictures of a run: a file's name and its content.
pub fn all(results: &Results) -> Vec<(&'static str, String)> {
    let packets = results.packets.as_ref();
    let end_to_end = results.end_to_end.as_ref();
    let change = results.change.as_ref();
    [
        packets.map(|packets| ("packets.svg", of_packets(packets))),
        end_to_end.map(|end_to_end| ("end-to-end.svg", of_end_to_end(end_to_end))),
        change.map(|change| ("change.svg", of_change(change))),
    ]
    .into_iter()
    .flatten()
    .map(|(name, chart)| (name, chart.svg()))
    .collect()
}

/// What is in a name if it is shifter's.
fn is_ours(name: &str) -> bool {
    name.starts_with("shifter")
}

fn of_packets(packets: &Packets) -> Chart {
    let mut lines = Vec::new();
    let noop = |label: &str, spread: &Spread| Line::Mark {
        label: label.to_owned(),
        range: [spread.q1, spread.median, spread.q3],
        target: None,
        ours: false,
    };
    let groups = [
        ("XDP", Some(("no-op, XDP_PASS", &packets.noop_xdp_ns))),
        ("TC in", Some(("no-op, TC", &packets.noop_tc_ns))),
        ("TC out", None),
    ];
    for (hook, reference) in groups {
        lines.push(Line::Heading(format!("{hook}, IPv4")));
        lines.extend(reference.map(|(label, spread)| noop(label, spread)));
        let rows = packets
            .rows
            .iter()
            .filter(|row| row.hook == hook && row.family == "v4");
        lines.extend(rows.map(|row| Line::Mark {
            label: match row.flows_count {
                0 => row.words.clone(),
                1 => format!("{}, 1 flow", row.words),
                count => format!(
                    "{}, {} flows",
                    row.words,
                    super::chart::number(count.into())
                ),
            },
            range: [row.ns.q1, row.ns.median, row.ns.q3],
            target: row.target_ns,
            ours: !row.id.starts_with("floor"),
        }));
    }
    Chart {
        title: "A packet through the programs".to_owned(),
        axis: "ns a packet, harness included; quartiles and median, red: target at most".to_owned(),
        scale: Scale::Linear,
        lines,
    }
}

fn of_end_to_end(end_to_end: &EndToEnd) -> Chart {
    let mut lines = Vec::new();
    let mut load = "";
    for row in &end_to_end.rows {
        if row.load != load {
            load = &row.load;
            lines.push(Line::Heading(row.load.clone()));
        }
        let Spread { q1, median, q3, .. } = row.cpu_ratio;
        lines.push(Line::Mark {
            label: row.way.clone(),
            range: [q1, median, q3],
            target: row.target_cpu_ratio,
            ours: is_ours(&row.way),
        });
    }
    Chart {
        title: "Processor time a request, as a share of direct".to_owned(),
        axis: "direct's over this one's: 1 is as cheap as direct; red: target at least".to_owned(),
        scale: Scale::Linear,
        lines,
    }
}

fn of_change(change: &Change) -> Chart {
    let lines = change.rows.iter().map(|row| {
        let Spread {
            min, median, p99, ..
        } = row.last_on_old_us;
        Line::Mark {
            label: row.way.clone(),
            range: [min, median, p99],
            target: None,
            ours: is_ours(&row.way),
        }
    });
    Chart {
        title: "From a command to the last new connection on the old version".to_owned(),
        axis: "µs; least, median and 99 % of all changes".to_owned(),
        scale: Scale::Log,
        lines: lines.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fixture;

    #[test]
    fn there_is_a_picture_of_each_part_that_was_measured() {
        let names = |results: &Results| -> Vec<&str> {
            all(results).into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names(&Results::default()), [""; 0]);
        let results = fixture::results();
        assert_eq!(
            names(&results),
            ["packets.svg", "end-to-end.svg", "change.svg"]
        );
        let only = Results {
            packets: None,
            end_to_end: None,
            ..results
        };
        assert_eq!(names(&only), ["change.svg"]);
    }

    #[test]
    fn pictures_say_what_the_results_say() {
        let svgs = all(&fixture::results());
        let rows = [
            (0, ">no-op, XDP_PASS<"),
            (0, ">established flow, 1,000 flows<"),
            (0, ">105<"),
            (1, ">keep-alive<"),
            (1, ">shifter, nat plane, TC<"),
            (1, ">0.93<"),
            (2, ">nftables DNAT<"),
            (2, ">3,000<"),
        ];
        for (picture, part) in rows {
            assert!(
                svgs[picture].1.contains(part),
                "{part} in {}",
                svgs[picture].1
            );
        }
        // IPv6 rows stand in the table only.
        assert!(!svgs[0].1.contains(">333<"), "{}", svgs[0].1);
    }
}
