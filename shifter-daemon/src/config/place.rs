//! Where something stands in a text.

/// A place in a file as people count: both from 1, 0 if there is no place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// A text and where its lines begin, so that many places are found without reading it again.
#[derive(Debug)]
pub(super) struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

/// The mark some editors write before the first character; nobody sees it, so nobody counts it.
const BYTE_ORDER_MARK: char = '\u{feff}';

impl<'t> Lines<'t> {
    pub fn new(text: &'t str) -> Self {
        let first = if text.starts_with(BYTE_ORDER_MARK) {
            BYTE_ORDER_MARK.len_utf8()
        } else {
            0
        };
        let starts = std::iter::once(first)
            .chain(
                text.bytes()
                    .enumerate()
                    .filter(|&(_, byte)| byte == b'\n')
                    .map(|(at, _)| at + 1),
            )
            .collect();
        Self { text, starts }
    }

    /// The line of a byte offset, from 1.
    pub fn line(&self, offset: usize) -> u32 {
        saturate(self.starts.partition_point(|&start| start <= offset).max(1))
    }

    /// The place of a byte offset. An offset past the end is the end; one inside a character is
    /// that character.
    pub fn place(&self, offset: usize) -> Place {
        let end = self.text.floor_char_boundary(offset);
        let line = self.line(end);
        let start = self.starts[line as usize - 1];
        let before = self.text.get(start..end).unwrap_or_default();
        Place {
            line,
            column: saturate(before.chars().count() + 1),
        }
    }
}

fn saturate(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl Place {
    /// The place of a byte offset in a text.
    pub fn of(text: &str, offset: usize) -> Self {
        Lines::new(text).place(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_characters() {
        for (text, offset, line, column) in [
            ("", 0, 1, 1),
            ("ab", 0, 1, 1),
            ("ab", 1, 1, 2),
            ("ab", 2, 1, 3),
            ("ab", 99, 1, 3),
            ("a\nb", 1, 1, 2),
            ("a\nb", 2, 2, 1),
            ("a\r\nb", 3, 2, 1),
            ("a\n", 2, 2, 1),
            ("é = 日 x", 2, 1, 2),
            ("é = 日 x", 9, 1, 7),
            ("日", 1, 1, 1),
            ("日", 2, 1, 1),
            ("日", 3, 1, 2),
            ("\u{feff}ab", 0, 1, 1),
            ("\u{feff}ab", 4, 1, 2),
            ("\u{feff}a\nb", 5, 2, 1),
        ] {
            assert_eq!(
                Place::of(text, offset),
                Place { line, column },
                "{offset} in {text:?}"
            );
        }
    }
}
