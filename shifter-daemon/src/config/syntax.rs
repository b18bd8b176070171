//! From text to a TOML tree with places.

use toml::{Spanned, de::DeTable};

use super::report::Report;

/// What would be right, by how the parser's message begins, where the parser understands all that
/// follows.
pub(super) const LOCAL: [(&str, &str); 15] = [
    (
        "string values must be quoted",
        "write it in quotes, as in name = \"orders\"",
    ),
    (
        "duplicate key",
        "it stands above already; keep one of the two",
    ),
    ("invalid boolean", "write true or false"),
    ("invalid float", "write addresses and durations in quotes"),
    ("invalid time", "write addresses and durations in quotes"),
    (
        "unexpected leading zero",
        "write numbers without zeros in front",
    ),
    ("`_` may only go between digits", "write 1000 or 1_000"),
    (
        "invalid basic string, expected `\"",
        "close the text with \" on the same line",
    ),
    (
        "invalid literal string, expected `'`",
        "close the text with ' on the same line",
    ),
    ("missing escaped value", "write \\\\ for a backslash"),
    ("key with no value", "write key = value"),
    (
        "unexpected key or value",
        "write each key on a line of its own",
    ),
    ("invalid unquoted key", "keys are letters, digits, - and _"),
    ("extra comma in", "leave out the comma"),
    ("unquoted keys cannot be empty", "write a key before the ="),
];

/// The same where the structure of what follows is unclear.
pub(super) const STRUCTURAL: [(&str, &str); 7] = [
    (
        "missing comma between array elements",
        "separate elements with commas, close with ]",
    ),
    (
        "missing comma between key-value pairs",
        "separate pairs with commas, close with }",
    ),
    ("unclosed array table", "close the heading with ]]"),
    ("unclosed array", "close the array with ]"),
    ("unclosed table", "close the heading with ]"),
    ("unclosed inline table", "close the table with }"),
    (
        "invalid multi-line",
        "close the text with the three quotes it began with",
    ),
];

/// Parses a text. Where it is not TOML, the problems go to the report, and the tree holds what
/// could be understood.
pub(super) fn parse<'t>(text: &'t str, report: &mut Report<'_>) -> Spanned<DeTable<'t>> {
    let (tree, mut errors) = DeTable::parse_recoverable(text);
    let at = |error: &toml::de::Error| error.span().map_or(0, |span| span.start);
    errors.sort_by_key(at);
    for error in &errors {
        let remedy = |list: &[(&str, &'static str)]| {
            list.iter()
                .find(|(start, _)| error.message().starts_with(start))
                .map(|(_, help)| *help)
        };
        let local = remedy(&LOCAL);
        let is_empty = error.span().is_some_and(|span| span.is_empty());
        let (message, help) = match local.or_else(|| remedy(&STRUCTURAL)) {
            Some(_) if is_empty && error.message().starts_with(LOCAL[0].0) => (
                "there is no value",
                "write one behind the =, or remove the key",
            ),
            // The remedy says better what was expected.
            Some(help) => (
                error
                    .message()
                    .split(", expected")
                    .next()
                    .unwrap_or_default(),
                help,
            ),
            None => (error.message(), "see https://toml.io"),
        };
        let message = format!("not TOML: {message}");
        report.syntax(at(error), local.is_some(), message, help.to_owned());
    }
    tree
}
