//! A table of the file, read key by key.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::{
    field::{Field, type_name},
    report::{Report, shown},
    schema::{FileKind, Key, Table, nearest},
};

/// A table of the file. One that is not in the file, or is no table, reads as empty.
pub(super) struct Section<'d> {
    kind: FileKind,
    schema: &'static Table,
    /// As the file has it, so `slot.b` where the schema speaks of `slot.a`.
    path: String,
    at: Option<Range<usize>>,
    entries: Option<&'d DeTable<'d>>,
    /// The file has something here that is no table, so nothing is known of what is meant.
    unreadable: bool,
}

impl<'d> Section<'d> {
    /// The top of a file. Refuses keys that do not belong there.
    pub fn top(kind: FileKind, entries: &'d DeTable<'d>, report: &mut Report<'_>) -> Self {
        let schema = kind[0];
        let section = Self {
            kind,
            schema,
            path: String::new(),
            at: None,
            entries: Some(entries),
            unreadable: false,
        };
        section.refuse_foreign_keys(report);
        section
    }

    /// The table of this name in this one; empty if it is not there. Refuses keys that do not
    /// belong in it.
    pub fn section(&self, name: &str, schema: &'static Table, report: &mut Report<'_>) -> Self {
        match self.get(name) {
            Some(field) => self.open(&field, schema, report),
            None => Self {
                kind: self.kind,
                schema,
                path: self.path_of(name),
                at: None,
                entries: None,
                unreadable: self.unreadable,
            },
        }
    }

    /// A value of this section that must be a table.
    pub fn open(&self, field: &Field<'d>, schema: &'static Table, report: &mut Report<'_>) -> Self {
        let entries = field.table(report);
        let section = Self {
            kind: self.kind,
            schema,
            path: field.path().to_owned(),
            at: Some(field.at()),
            entries,
            unreadable: entries.is_none(),
        };
        section.refuse_foreign_keys(report);
        section
    }

    /// Whether the file has this table, and as one.
    pub fn is_present(&self) -> bool {
        self.entries.is_some()
    }

    /// Whether the file has something here that could not be read.
    pub fn is_unreadable(&self) -> bool {
        self.unreadable
    }

    /// Where the table begins; `None` if it is not in the file.
    pub fn at(&self) -> Option<Range<usize>> {
        self.at.clone()
    }

    /// The value of a key.
    pub fn get(&self, name: &str) -> Option<Field<'d>> {
        let value = self.entries?.get(name)?;
        let example = self
            .schema
            .keys
            .iter()
            .find(|key| key.name == name)
            .map_or("", |k| k.example);
        Some(Field::new(self.path_of(name), value, example))
    }

    /// The value of a key that must be there if its table is.
    pub fn required(&self, name: &str, report: &mut Report<'_>) -> Option<Field<'d>> {
        let field = self.get(name);
        if field.is_none() && self.is_present() {
            let example = self
                .schema
                .keys
                .iter()
                .find(|key| key.name == name)
                .map_or("", |key| key.example);
            report.whole(
                self.at.as_ref(),
                format!("`{}` is missing", self.path_of(name)),
                format!("add, for example: {example}"),
            );
        }
        field
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    fn refuse_foreign_keys(&self, report: &mut Report<'_>) {
        for (key, value) in self.entries.into_iter().flatten() {
            match self
                .schema
                .keys
                .iter()
                .find(|known| known.name == key.get_ref().as_ref())
            {
                Some(known) if known.is_supported() => {}
                Some(known) => report.value(
                    &key.span(),
                    format!(
                        "`{}` is not supported by this version yet",
                        self.path_of(known.name)
                    ),
                    "remove it: it would not be in force",
                ),
                None => self.refuse_unknown(key, value, report),
            }
        }
    }

    fn refuse_unknown(
        &self,
        key: &Spanned<DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
        report: &mut Report<'_>,
    ) {
        let name = key.get_ref().as_ref();
        let place = match self.path.as_str() {
            "" => String::new(),
            path => format!(" in {path}"),
        };
        let keys = || self.schema.keys.iter().filter(|key| key.is_supported());
        let help = if let Some(home) = self.home_of(name, value) {
            format!("it belongs in {home}")
        } else if let Some(known) = nearest(name, keys().map(|key| key.name)) {
            format!("did you mean `{known}`?")
        } else {
            let names: Vec<_> = keys().map(|key| format!("`{}`", key.name)).collect();
            format!(
                "known {} {}",
                if names.len() == 1 { "is" } else { "are" },
                names.join(", ")
            )
        };
        report.value(
            &key.span(),
            format!("unknown key {}{place}", shown(name)),
            help,
        );
    }

    /// The headings of the tables that have a key of this name; `None` if none has. A table is
    /// never said to belong elsewhere: `[services.drain]` is more likely a wrong name.
    fn home_of(&self, name: &str, value: &Spanned<DeValue<'_>>) -> Option<String> {
        // Nor is a backend's key: who writes `port` there means the backend's.
        if type_name(value.get_ref()) == "a table" || self.schema.path == "slot.a.backends" {
            return None;
        }
        let has = |key: &Key| key.name == name && key.is_supported();
        let homes: Vec<_> = self
            .kind
            .iter()
            .filter(|table| !table.path.is_empty() && table.keys.iter().any(has))
            .map(|table| match table.path {
                path @ ("interface" | "target" | "gate" | "analysis.metric") => {
                    format!("[[{path}]]")
                }
                path => format!("[{path}]"),
            })
            .collect();
        (!homes.is_empty()).then(|| homes.join(" or "))
    }
}
