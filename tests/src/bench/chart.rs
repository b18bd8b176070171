//! Pictures: a line for each measurement, with its range, its middle and its target. Pure.
//!
//! One kind of picture is all the bench needs, and it must come out the same on every machine, text
//! included; a plotting library would bring more code than this and measure fonts.

use std::fmt::Write as _;

/// A picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// Above it.
    pub title: String,
    /// Below the axis.
    pub axis: String,
    /// How values are placed.
    pub scale: Scale,
    /// From the top.
    pub lines: Vec<Line>,
}

/// How values are placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From 0.
    Linear,
    /// By powers of ten from 1; what is less stands at 1.
    Log,
}

/// A line of a picture.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// Words above the lines that follow.
    Heading(String),
    /// A measurement.
    Mark {
        /// What it is.
        label: String,
        /// Where its range begins, its middle, and where the range ends.
        range: [f64; 3],
        /// Where the middle should be at the most, or at the least.
        target: Option<f64>,
        /// shifter's own.
        ours: bool,
    },
}

const LABEL_PX: f64 = 250.0;
const PLOT_PX: f64 = 420.0;
const VALUE_PX: f64 = 90.0;
const LINE_PX: f64 = 22.0;
const TOP_PX: f64 = 42.0;
const BOTTOM_PX: f64 = 48.0;

/// Colours that are told apart on light and dark ground.
const STYLE: &str = "\
  text { font: 12px sans-serif; fill: #24292f }
  .title { font-size: 15px; font-weight: bold }
  .heading { font-weight: bold }
  .ground { fill: #ffffff }
  .grid { stroke: #d0d7de }
  .theirs { stroke: #6e7781; fill: #6e7781 }
  .ours { stroke: #0969da; fill: #0969da }
  .target { stroke: #cf222e; stroke-width: 2 }
  .range { stroke-width: 3; stroke-opacity: 0.45 }
  @media (prefers-color-scheme: dark) {
    text { fill: #c9d1d9 }
    .ground { fill: #0d1117 }
    .grid { stroke: #30363d }
    .theirs { stroke: #8b949e; fill: #8b949e }
    .ours { stroke: #58a6ff; fill: #58a6ff }
    .target { stroke: #ff7b72 }
  }
";

impl Chart {
    /// The picture as SVG.
    pub fn svg(&self) -> String {
        let end = self.end();
        let width = LABEL_PX + PLOT_PX + VALUE_PX;
        let bottom = TOP_PX + LINE_PX * self.lines.len() as f64;
        let height = bottom + BOTTOM_PX;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             width=\"{width}\" height=\"{height}\" role=\"img\">\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n\
             <rect class=\"ground\" width=\"{width}\" height=\"{height}\"/>\n\
             <text class=\"title\" x=\"12\" y=\"24\">{title}</text>\n",
            title = escaped(&self.title),
        );
        for tick in self.ticks(end) {
            let x = self.x(tick, end);
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{TOP_PX}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\
                 <text x=\"{x:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
                bottom + 16.0,
                number(tick)
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
            LABEL_PX + PLOT_PX / 2.0,
            bottom + 36.0,
            escaped(&self.axis)
        );
        for (nth, line) in self.lines.iter().enumerate() {
            let y = TOP_PX + LINE_PX * (nth as f64 + 0.5);
            self.draw(line, y, end, &mut svg);
        }
        svg + "</svg>\n"
    }

    fn draw(&self, line: &Line, y: f64, end: f64, svg: &mut String) {
        let text_y = y + 4.0;
        match line {
            Line::Heading(words) => {
                let _ = writeln!(
                    svg,
                    "<text class=\"heading\" x=\"12\" y=\"{text_y:.0}\">{}</text>",
                    escaped(words)
                );
            }
            Line::Mark {
                label,
                range: [low, middle, high],
                target,
                ours,
            } => {
                let class = if *ours { "ours" } else { "theirs" };
                let [x1, x, x2] = [low, middle, high].map(|value| self.x(*value, end));
                let _ = writeln!(
                    svg,
                    "<text x=\"{:.0}\" y=\"{text_y:.0}\" text-anchor=\"end\">{}</text>\
                     <line class=\"range {class}\" x1=\"{x1:.1}\" y1=\"{y}\" x2=\"{x2:.1}\" y2=\"{y}\"/>\
                     <circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y}\" r=\"4\"/>",
                    LABEL_PX - 10.0,
                    escaped(label)
                );
                if let Some(target) = target {
                    let at = self.x(*target, end);
                    let _ = writeln!(
                        svg,
                        "<line class=\"target\" x1=\"{at:.1}\" y1=\"{}\" x2=\"{at:.1}\" y2=\"{}\"/>",
                        y - 8.0,
                        y + 8.0
                    );
                }
                let _ = writeln!(
                    svg,
                    "<text x=\"{:.0}\" y=\"{text_y:.0}\">{}</text>",
                    LABEL_PX + PLOT_PX + 12.0,
                    number(*middle)
                );
            }
        }
    }

    /// Where the axis ends.
    fn end(&self) -> f64 {
        let largest = self
            .lines
            .iter()
            .map(|line| match line {
                Line::Heading(_) => 0.0,
                Line::Mark { range, target, .. } => {
                    range[1].max(range[2]).max(target.unwrap_or(0.0))
                }
            })
            .fold(0.0, f64::max);
        match self.scale {
            Scale::Log => 10_f64.powf(largest.max(10.0).log10().ceil()),
            Scale::Linear => {
                let step = step(largest);
                (largest / step).ceil().max(1.0) * step
            }
        }
    }

    fn ticks(&self, end: f64) -> Vec<f64> {
        match self.scale {
            Scale::Log => {
                let decades = end.log10().round() as i32;
                (0..=decades).map(|power| 10_f64.powi(power)).collect()
            }
            Scale::Linear => {
                let step = step(end);
                let count = (end / step).round() as u32;
                (0..=count).map(|nth| f64::from(nth) * step).collect()
            }
        }
    }

    fn x(&self, value: f64, end: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => value / end,
            Scale::Log => value.max(1.0).log10() / end.log10(),
        };
        LABEL_PX + PLOT_PX * share.clamp(0.0, 1.0)
    }
}

/// A round distance between five to ten ticks.
fn step(largest: f64) -> f64 {
    let power = 10_f64.powf(largest.max(1e-9).log10().floor());
    match largest / power {
        share if share <= 1.0 => 0.2 * power,
        share if share <= 2.5 => 0.5 * power,
        share if share <= 5.0 => power,
        _ => 2.0 * power,
    }
}

/// A number as people read it.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 999.5 {
        let whole = format!("{:.0}", size);
        let mut grouped = String::new();
        for (nth, digit) in whole.chars().enumerate() {
            if nth > 0 && (whole.len() - nth).is_multiple_of(3) {
                grouped.push(',');
            }
            grouped.push(digit);
        }
        return format!("{}{grouped}", if value < 0.0 { "-" } else { "" });
    }
    let digits = match size {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    match text.split_once('.') {
        Some((whole, zeros)) if zeros.chars().all(|digit| digit == '0') => whole.to_owned(),
        _ => text,
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_people_read_them() {
        let rows = [
            (0.0, "0"),
            (0.934, "0.93"),
            (2.0, "2"),
            (-1.25, "-1.25"),
            (12.34, "12.3"),
            (123.4, "123"),
            (999.9, "1,000"),
            (1_234.0, "1,234"),
            (-1_234_567.0, "-1,234,567"),
        ];
        for (value, expected) in rows {
            assert_eq!(number(value), expected, "{value}");
        }
    }

    #[test]
    fn axes_end_at_round_numbers() {
        let chart = |scale, high| Chart {
            title: String::new(),
            axis: String::new(),
            scale,
            lines: vec![Line::Mark {
                label: String::new(),
                range: [0.0, 0.5, high],
                target: None,
                ours: false,
            }],
        };
        let rows = [
            (Scale::Linear, 0.93, 1.0, 6),
            (Scale::Linear, 1.1, 1.5, 4),
            (Scale::Linear, 412.0, 500.0, 6),
            (Scale::Log, 3.0, 10.0, 2),
            (Scale::Log, 200_232.0, 1_000_000.0, 7),
        ];
        for (scale, high, end, ticks) in rows {
            let chart = chart(scale, high);
            assert!((chart.end() - end).abs() < 1e-9, "{high}: {}", chart.end());
            assert_eq!(chart.ticks(end).len(), ticks, "{high}");
        }
    }

    #[test]
    fn a_picture() {
        let chart = Chart {
            title: "a < b & c".to_owned(),
            axis: "ns".to_owned(),
            scale: Scale::Linear,
            lines: vec![
                Line::Heading("XDP".to_owned()),
                Line::Mark {
                    label: "ours".to_owned(),
                    range: [40.0, 50.0, 70.0],
                    target: Some(60.0),
                    ours: true,
                },
            ],
        };
        let svg = chart.svg();
        assert!(
            svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 760 134\"")
        );
        assert!(svg.ends_with("</svg>\n"));
        let parts = [
            "<title>a &lt; b &amp; c</title>",
            "<text class=\"heading\" x=\"12\" y=\"57\">XDP</text>",
            // 0 stands at 250, 80 at 670.
            "<line class=\"range ours\" x1=\"460.0\" y1=\"75\" x2=\"617.5\" y2=\"75\"/>",
            "<circle class=\"ours\" cx=\"512.5\" cy=\"75\" r=\"4\"/>",
            "<line class=\"target\" x1=\"565.0\" y1=\"67\" x2=\"565.0\" y2=\"83\"/>",
            "<text x=\"682\" y=\"79\">50</text>",
        ];
        for part in parts {
            assert!(svg.contains(part), "{part} in:\n{svg}");
        }
    }
}
