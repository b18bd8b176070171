//! One value of the file, read as what it must be.

use std::{
    ops::{Range, RangeInclusive},
    time::Duration,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    duration::{format_duration, parse_duration},
    report::{Report, cut, shown},
    schema::nearest,
};

/// A value, where it stands and what it is called. Every reader reports what does not fit and then
/// answers `None`.
#[derive(Clone)]
pub(super) struct Field<'d> {
    path: String,
    value: &'d Spanned<DeValue<'d>>,
    example: &'static str,
}

impl<'d> Field<'d> {
    pub fn new(path: String, value: &'d Spanned<DeValue<'d>>, example: &'static str) -> Self {
        Self {
            path,
            value,
            example,
        }
    }

    /// Path from the top of the file.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Where the value stands.
    pub fn at(&self) -> Range<usize> {
        self.value.span()
    }

    /// Reports that the value is of the wrong type.
    pub fn mistyped(&self, expected: &str, report: &mut Report<'_>) {
        let found = type_name(self.value.get_ref());
        report.value(
            &self.at(),
            format!("`{}` must be {expected}, found {found}", self.path),
            format!("for example: {}", self.example),
        );
    }

    fn expect<T>(&self, value: Option<T>, expected: &str, report: &mut Report<'_>) -> Option<T> {
        if value.is_none() {
            self.mistyped(expected, report);
        }
        value
    }

    /// A table.
    pub fn table(&self, report: &mut Report<'_>) -> Option<&'d DeTable<'d>> {
        self.expect(self.value.get_ref().as_table(), "a table", report)
    }

    /// A text.
    pub fn string(&self, report: &mut Report<'_>) -> Option<&'d str> {
        self.expect(self.value.get_ref().as_str(), "a string", report)
    }

    /// The text if it is one; reports nothing.
    pub fn as_string(&self) -> Option<&'d str> {
        self.value.get_ref().as_str()
    }

    /// `true` or `false`.
    pub fn boolean(&self, report: &mut Report<'_>) -> Option<bool> {
        self.expect(self.as_boolean(), "a boolean", report)
    }

    /// The boolean if it is one; reports nothing.
    pub fn as_boolean(&self) -> Option<bool> {
        self.value.get_ref().as_bool()
    }

    /// Whether the value is a table.
    pub fn is_table(&self) -> bool {
        self.value.get_ref().is_table()
    }

    /// Whether the value is an array.
    pub fn is_array(&self) -> bool {
        self.value.get_ref().is_array()
    }

    /// The elements of an array.
    pub fn elements(&self, report: &mut Report<'_>) -> Option<Vec<Self>> {
        let array = self.expect(self.value.get_ref().as_array(), "an array", report)?;
        let element = |value| Self {
            path: self.path.clone(),
            value,
            example: self.example,
        };
        Some(array.iter().map(element).collect())
    }

    /// A whole number of something, within a range.
    pub fn count(
        &self,
        range: RangeInclusive<u32>,
        unit: &str,
        report: &mut Report<'_>,
    ) -> Option<u32> {
        let value = self.value.get_ref().as_integer();
        let integer = self.expect(value, "an integer", report)?;
        let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            let (path, least, most) = (&self.path, range.start(), range.end());
            let unit = if unit.is_empty() {
                String::new()
            } else {
                format!(" {unit}")
            };
            report.value(
                &self.at(),
                format!(
                    "`{path}` must be {least} to {most}{unit}, found {}",
                    cut(&integer.to_string())
                ),
                format!("for example: {}", self.example),
            );
        }
        number
    }

    /// A percentage to a hundredth, as basis points within a range.
    pub fn percent_bp(&self, range: RangeInclusive<u16>, report: &mut Report<'_>) -> Option<u16> {
        let value = self.value.get_ref();
        let text = value.as_integer().map(|integer| integer.as_str());
        let text = text.or_else(|| value.as_float().map(|float| float.as_str()));
        let text = self.expect(text, "a percentage", report)?;
        let found = basis_points(text).filter(|bp| range.contains(bp));
        if found.is_none() {
            let [least, most] = [range.start(), range.end()].map(|bp| f64::from(*bp) / 100.0);
            report.value(
                &self.at(),
                format!(
                    "`{}` must be {least} to {most} percent in hundredths, found {}",
                    self.path,
                    cut(text)
                ),
                format!("for example: {}", self.example),
            );
        }
        found
    }

    /// A share of one, such as 0.005, as millionths within a range.
    pub fn fraction_ppm(&self, range: RangeInclusive<u32>, report: &mut Report<'_>) -> Option<u32> {
        let value = self.value.get_ref();
        let text = value.as_integer().map(|integer| integer.as_str());
        let text = text.or_else(|| value.as_float().map(|float| float.as_str()));
        let text = self.expect(text, "a share of 1", report)?;
        let found = millionths(text).filter(|ppm| range.contains(ppm));
        if found.is_none() {
            let [least, most] = [range.start(), range.end()].map(|ppm| f64::from(*ppm) / 1e6);
            report.value(
                &self.at(),
                format!(
                    "`{}` must be {least} to {most} in millionths, found {}",
                    self.path,
                    cut(text)
                ),
                format!("for example: {}", self.example),
            );
        }
        found
    }

    /// A duration within a range.
    pub fn duration(
        &self,
        range: RangeInclusive<Duration>,
        report: &mut Report<'_>,
    ) -> Option<Duration> {
        let value = self.value.get_ref().as_str();
        let text = self.expect(value, "a duration in quotes", report)?;
        let duration = match parse_duration(text) {
            Ok(duration) => duration,
            Err(error) => {
                report.value(
                    &self.at(),
                    format!(
                        "`{}` must be a duration: {} {error}",
                        self.path,
                        shown(text)
                    ),
                    "write a whole number and ms, s, m or h: \"500ms\", \"1s\", \"5m\", \"2h\"",
                );
                return None;
            }
        };
        if range.contains(&duration) {
            return Some(duration);
        }
        let [least, most] = [range.start(), range.end()].map(|limit| format_duration(*limit));
        report.value(
            &self.at(),
            format!(
                "`{}` must be {least} to {most}, found {}",
                self.path,
                shown(text)
            ),
            format!("for example: {}", self.example),
        );
        None
    }

    /// One of some words. `later` are words of capabilities this version does not have.
    pub fn choice<T: Copy>(
        &self,
        choices: &[(&str, T)],
        later: &[&str],
        report: &mut Report<'_>,
    ) -> Option<T> {
        let word = self.string(report)?;
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == word) {
            return Some(*choice);
        }
        let names: Vec<_> = choices
            .iter()
            .map(|(name, _)| format!("\"{name}\""))
            .collect();
        let names = match names.split_last() {
            Some((last, others)) if !others.is_empty() => {
                format!("{} or {last}", others.join(", "))
            }
            _ => names.concat(),
        };
        if later.contains(&word) {
            report.value(
                &self.at(),
                format!(
                    "`{}` = \"{word}\" is not supported by this version yet",
                    self.path
                ),
                format!("write {names}"),
            );
            return None;
        }
        let help = match nearest(word, choices.iter().map(|(name, _)| *name)) {
            Some(name) if choices.len() > 1 => format!("did you mean \"{name}\"?"),
            _ => format!("write {names}"),
        };
        report.value(
            &self.at(),
            format!("`{}` must be {names}, found {}", self.path, shown(word)),
            help,
        );
        None
    }
}

/// `12.5` as 1250; nothing but digits, with at most two behind the point.
fn basis_points(text: &str) -> Option<u16> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let is_plain = |digits: &str| {
        !digits.is_empty() && digits.len() <= 3 && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    if !is_plain(whole) || !is_plain(part) || part.len() > 2 {
        return None;
    }
    let part = format!("{part:0<2}");
    let hundred: u16 = whole.parse().ok()?;
    hundred.checked_mul(100)?.checked_add(part.parse().ok()?)
}

/// `0.005` as 5000; nothing but digits, with at most six behind the point.
fn millionths(text: &str) -> Option<u32> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let is_plain = |digits: &str| {
        !digits.is_empty() && digits.len() <= 6 && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    if !is_plain(whole) || !is_plain(part) {
        return None;
    }
    let part = format!("{part:0<6}");
    let million: u32 = whole.parse().ok()?;
    million
        .checked_mul(1_000_000)?
        .checked_add(part.parse().ok()?)
}

/// What a value is, with its article.
pub(super) fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date-time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
