//! The results as Markdown. Pure.

use std::fmt::Write as _;

use super::{
    chart::number,
    results::{Change, EndToEnd, Machine, Packets, Results},
    spread::Spread,
};

/// Everything that was measured.
pub fn render(results: &Results) -> String {
    let mut text = String::from("# What the bench measured\n\n");
    machine(&results.machine, &mut text);
    if results.quick {
        text += "\nA quick run: good for a look, too short to be believed.\n";
    }
    if let Some(part) = &results.packets {
        packets(part, &mut text);
    }
    if let Some(part) = &results.end_to_end {
        end_to_end(part, &mut text);
    }
    if let Some(part) = &results.change {
        change(part, &mut text);
    }
    text
}

fn machine(machine: &Machine, text: &mut String) {
    let Machine {
        date,
        kernel,
        cpu,
        cpus_count,
        jit,
        load,
        programs,
    } = machine;
    let jit = if *jit { "JIT on" } else { "JIT off" };
    let _ = writeln!(
        text,
        "{date}; {cpu}, {cpus_count} CPUs; Linux {kernel}, {jit}; {}; load before the run {load:.2}.",
        programs.join(", ")
    );
}

/// `105 (95–116)`: the median and the quartiles.
fn middle(spread: &Spread) -> String {
    let Spread { q1, median, q3, .. } = spread;
    format!("{} ({}–{})", number(*median), number(*q1), number(*q3))
}

/// Whether a median is where it should be.
fn against(value: f64, target: Option<f64>, is_most: bool) -> String {
    let Some(target) = target else {
        return String::new();
    };
    let sign = if is_most { "≤" } else { "≥" };
    let is_reached = if is_most {
        value <= target
    } else {
        value >= target
    };
    let share = (value / target - 1.0) * 100.0;
    let verdict = if is_reached {
        "reached".to_owned()
    } else {
        format!("missed by {:.0} %", share.abs())
    };
    format!("{sign} {}: {verdict}", number(target))
}

fn packets(packets: &Packets, text: &mut String) {
    let _ = write!(
        text,
        "\n## Packets\n\nns a packet, harness included; a program that does nothing takes {} ns at XDP \
         and {} ns at TC.\nMedian (quartiles) and 99th percentile over batches.\n\n\
         | Packets | Hook | IP | Flows | ns | p99 | Packet maker | Target |\n\
         |---|---|---|---:|---:|---:|---:|---|\n",
        number(packets.noop_xdp_ns.median),
        number(packets.noop_tc_ns.median),
    );
    for row in &packets.rows {
        let flows = match row.flows_count {
            0 => "each its own".to_owned(),
            count => number(count.into()),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {flows} | {} | {} | {} | {} |",
            row.words,
            row.hook,
            row.family,
            middle(&row.ns),
            number(row.ns.p99),
            number(row.maker_ns.median),
            against(row.ns.median, row.target_ns, true),
        );
    }
    if packets.programs.is_empty() {
        return;
    }
    let verified = packets.programs.iter();
    let verified: Vec<String> = verified
        .map(|one| format!("{} {}", one.name, number(one.instructions.into())))
        .collect();
    let _ = writeln!(
        text,
        "\nInstructions the verifier went through, of 1,000,000 it would: {}.",
        verified.join(", ")
    );
}

fn end_to_end(end_to_end: &EndToEnd, text: &mut String) {
    let _ = write!(
        text,
        "\n## End to end\n\nEach measurement {} s, {} connections where there are many. Median \
         (quartiles) over rounds; ratios are\nof the same round. CPU is µs of processor time a request: \
         load generator + backends + what is between + softirq threads.\n",
        end_to_end.measurement_s, end_to_end.connections,
    );
    let mut load = "";
    for row in &end_to_end.rows {
        if row.load != load {
            load = &row.load;
            let _ = write!(
                text,
                "\n### {load}\n\n\
                 | Way | CPU, direct = 1 | Against nftables | CPU µs | Parts | Requests/s | p50 µs | \
                 p99 µs | p50 above direct µs | Errors | Target |\n\
                 |---|---:|---:|---:|---|---:|---:|---:|---:|---:|---|\n"
            );
        }
        let nftables = row.cpu_nftables_ratio.as_ref().map(middle);
        let targets = [
            against(row.cpu_ratio.median, row.target_cpu_ratio, false),
            against(
                row.p50_above_direct_us.median,
                row.target_above_direct_us,
                true,
            ),
        ];
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} + {} + {} + {} | {} | {} | {} | {} | {} of {} | {} |",
            row.way,
            middle(&row.cpu_ratio),
            nftables.unwrap_or_default(),
            number(row.cpu_us.median),
            number(row.cpu_load_us.median),
            number(row.cpu_backends_us.median),
            number(row.cpu_between_us.median),
            number(row.cpu_softirq_us.median),
            number(row.requests_per_s.median),
            number(row.p50_us.median),
            number(row.p99_us.median),
            middle(&row.p50_above_direct_us),
            number(row.errors as f64),
            number(row.requests as f64),
            targets.concat(),
        );
    }
}

fn change(change: &Change, text: &mut String) {
    text.push_str(
        "\n## Change of weight\n\nAll new connections from one version to the other and back, under \
         load. The last connection on the old\nversion is counted from the moment the command was \
         given.\n\n\
         | Way | Changes | Command µs | Last on the old µs: median | p99 | Most | Wrong after return | \
         Failed | Of connections |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for row in &change.rows {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            row.way,
            number(row.changes as f64),
            number(row.command_us.median),
            number(row.last_on_old_us.median),
            number(row.last_on_old_us.p99),
            number(row.last_on_old_us.max),
            number(row.wrong_after_return as f64),
            number(row.failed as f64),
            number(row.connections as f64),
        );
    }
    let failures = change
        .rows
        .iter()
        .filter(|row| row.failed > 0)
        .flat_map(|row| {
            row.failures
                .iter()
                .map(|said| format!("{}: {said}", row.way))
        });
    let failures: Vec<String> = failures.collect();
    if !failures.is_empty() {
        let _ = write!(text, "\nFailures said: {}.\n", failures.join("; "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fixture;

    #[test]
    fn the_results_as_text() {
        let text = render(&fixture::results());
        let expected = include_str!("golden.md");
        assert!(
            text == expected,
            "not as golden.md has it; this would be it:\n{text}"
        );
    }

    #[test]
    fn only_what_was_measured_is_said() {
        let text = render(&Results::default());
        assert!(!text.contains("##"), "{text}");
        let quick = Results {
            quick: true,
            ..Results::default()
        };
        assert!(render(&quick).contains("too short to be believed"));
    }

    #[test]
    fn targets_are_reached_from_the_right_side() {
        let rows = [
            (100.0, Some(100.0), true, "≤ 100: reached"),
            (110.0, Some(100.0), true, "≤ 100: missed by 10 %"),
            (0.93, Some(0.92), false, "≥ 0.92: reached"),
            (0.46, Some(0.92), false, "≥ 0.92: missed by 50 %"),
            (1.0, None, true, ""),
        ];
        for (value, target, is_most, expected) in rows {
            assert_eq!(against(value, target, is_most), expected);
        }
    }

    #[test]
    fn results_survive_their_file() {
        let results = fixture::results();
        let json = serde_json::to_string(&results).expect("JSON");
        let read: Results = serde_json::from_str(&json).expect("results");
        assert_eq!(read, results);
    }
}
