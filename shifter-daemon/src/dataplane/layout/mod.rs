//! The description of a dataplane's maps as text, and back. Pure.
//!
//! One line a map, and below it one for each axis, list of names, or field:
//!
//! ```text
//! shifter layouts 1
//! map VIP_ADDRS state
//! axis service 0
//! axis ordinal 8
//! value addr 0 16 required
//! ```

mod convert;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt::Write as _};

use shifter_common::layout::{self, Content, Index, Need};

pub use self::convert::Carrier;

/// The first line: the form of the text itself.
const HEADER: &str = "shifter layouts 1";

/// A field of a key or value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Where it begins.
    pub offset_bytes: usize,
    /// How long it is.
    pub len_bytes: usize,
    /// Whether it may be missing.
    pub need: Need,
}

/// How the elements of a map are found; see [`layout::Index`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// By a key.
    Key(Vec<Field>),
    /// By a number made of axes.
    Axes(Vec<(String, u32)>),
    /// By the place of a name.
    Names(Vec<String>),
}

/// One map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapLayout {
    /// How it is carried over.
    pub content: Content,
    /// How its elements are found.
    pub found: Found,
    /// Its values.
    pub value: Vec<Field>,
}

/// All maps that are carried over, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// The maps.
    pub maps: BTreeMap<String, MapLayout>,
}

/// The text about this version's own maps.
pub fn own_text() -> String {
    let mut text = format!("{HEADER}\n");
    for map in layout::ALL {
        let _ = writeln!(text, "map {} {}", map.map, content_word(map.content));
        match map.index {
            Index::Key(fields) => write_fields(&mut text, "key", fields),
            Index::Axes(axes) => {
                for (name, places) in axes {
                    let _ = writeln!(text, "axis {name} {places}");
                }
            }
            Index::Names(names) => {
                let _ = writeln!(text, "names {}", names.join(" "));
            }
        }
        write_fields(&mut text, "value", map.value);
    }
    text
}

fn write_fields(text: &mut String, part: &str, fields: &[layout::Field]) {
    for field in fields {
        let (name, offset, len) = (field.name, field.offset_bytes, field.len_bytes);
        let _ = writeln!(
            text,
            "{part} {name} {offset} {len} {}",
            need_word(field.need)
        );
    }
}

const fn content_word(content: Content) -> &'static str {
    match content {
        Content::State => "state",
        Content::Flows => "flows",
        Content::Counters => "counters",
    }
}

const fn need_word(need: Need) -> &'static str {
    match need {
        Need::Required => "required",
        Need::Optional => "optional",
        Need::Binding => "binding",
    }
}

impl Description {
    /// Reads a text.
    ///
    /// # Errors
    /// The line that is not understood, and that alone: a text of another form is another form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines();
        if lines.next() != Some(HEADER) {
            return Err(format!("its description does not begin with `{HEADER}`"));
        }
        let mut this = Self::default();
        let mut current: Option<(String, MapLayout)> = None;
        for line in lines {
            let bad = || format!("its description has the line `{line}`");
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            match (words.as_slice(), &mut current) {
                (["map", name, content], _) => {
                    this.maps.extend(current.take());
                    let content = match *content {
                        "state" => Content::State,
                        "flows" => Content::Flows,
                        "counters" => Content::Counters,
                        _ => return Err(bad()),
                    };
                    let map = MapLayout {
                        content,
                        found: Found::Axes(Vec::new()),
                        value: Vec::new(),
                    };
                    current = Some(((*name).to_owned(), map));
                }
                (["axis", name, places], Some((_, map))) => {
                    let places = places.parse().map_err(|_| bad())?;
                    match &mut map.found {
                        // Only the first axis is as long as the map.
                        Found::Axes(axes) if axes.is_empty() == (places == 0) => {
                            axes.push(((*name).to_owned(), places));
                        }
                        _ => return Err(bad()),
                    }
                }
                (["names", names @ ..], Some((_, map))) => {
                    map.found = Found::Names(names.iter().map(|&name| name.to_owned()).collect());
                }
                ([part @ ("key" | "value"), name, offset, len, need], Some((_, map))) => {
                    let number = |word: &str| {
                        let number: Option<usize> = word.parse().ok();
                        number.filter(|number| *number < 1 << 16).ok_or_else(bad)
                    };
                    let field = Field {
                        name: (*name).to_owned(),
                        offset_bytes: number(offset)?,
                        len_bytes: number(len)?,
                        need: match *need {
                            "required" => Need::Required,
                            "optional" => Need::Optional,
                            "binding" => Need::Binding,
                            _ => return Err(bad()),
                        },
                    };
                    match (*part, &mut map.found) {
                        ("value", _) => map.value.push(field),
                        (_, Found::Key(key)) => key.push(field),
                        (_, found) => *found = Found::Key(vec![field]),
                    }
                }
                _ => return Err(bad()),
            }
        }
        this.maps.extend(current);
        Ok(this)
    }
}
