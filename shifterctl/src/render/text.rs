//! Lines that fit.

use super::{Tone, View, WIDTH};

/// Columns that text needs beside what stands in front of it.
const ROOM_MIN: usize = 16;

/// Breaks text at spaces into lines of at most [`WIDTH`] columns: the first after `first`, the
/// others after as many spaces. A word that fits no line is broken; a `first` that leaves too
/// little room gets a line of its own.
pub fn wrap(first: &str, text: &str) -> String {
    let indent = first.chars().count();
    if indent > WIDTH - ROOM_MIN {
        return format!("{}\n{}", first.trim_end(), wrap("    ", text));
    }
    let room = WIDTH - indent;
    let mut lines: Vec<String> = vec![String::new()];
    let mut used = 0;
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        let space = usize::from(used > 0);
        if used + space + word.len() > room && used > 0 {
            lines.push(String::new());
            used = 0;
        }
        while word.len() > room {
            let rest = word.split_off(room);
            push(&mut lines, &word);
            lines.push(String::new());
            word = rest;
        }
        if used > 0 {
            push(&mut lines, &[' ']);
            used += 1;
        }
        push(&mut lines, &word);
        used += word.len();
    }
    let pad = " ".repeat(indent);
    let mut out = String::new();
    for (number, line) in lines.iter().enumerate() {
        out.push_str(if number == 0 { first } else { &pad });
        out.push_str(line);
        out.truncate(out.trim_end().len());
        out.push('\n');
    }
    out
}

fn push(lines: &mut [String], characters: &[char]) {
    if let Some(line) = lines.last_mut() {
        line.extend(characters);
    }
}

/// An error and what to do about it, for standard error.
pub fn problem(view: &View, message: &str, help: &str) -> String {
    let mut out = relabel(view, Tone::Bad, "error: ", &wrap("error: ", message));
    let mut label = "help: ";
    for line in help.lines().filter(|line| !line.trim().is_empty()) {
        out.push_str(&relabel(view, Tone::Good, label, &wrap(label, line)));
        label = "      ";
    }
    out
}

/// Paints the label that a block starts with.
pub fn relabel(view: &View, tone: Tone, label: &str, block: &str) -> String {
    match block.strip_prefix(label) {
        Some(rest) if !label.trim().is_empty() => {
            let name = label.trim_end();
            format!("{}{}{rest}", view.paint(tone, name), &label[name.len()..])
        }
        _ => block.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: View = View {
        color: false,
        now_unix_ms: 0,
        zone: |_| 0,
    };

    #[test]
    fn text_is_broken_at_spaces() {
        let words = "word ".repeat(20);
        let expected = format!(
            "note: {}\n      {}\n",
            "word ".repeat(14) + "word",
            "word word word word word"
        );
        assert_eq!(wrap("note: ", &words), expected);
        assert_eq!(wrap("note: ", ""), "note:\n");
        assert_eq!(wrap("", "a  b\nc"), "a b c\n");
    }

    #[test]
    fn a_word_that_fits_exactly_stays_whole() {
        let exact = "x".repeat(74);
        assert_eq!(wrap("note: ", &exact), format!("note: {exact}\n"));
        let more = "x".repeat(75);
        assert_eq!(wrap("note: ", &more), format!("note: {exact}\n      x\n"));
    }

    #[test]
    fn a_long_start_has_its_own_line() {
        let name = "n".repeat(63);
        assert_eq!(
            wrap(&format!("{name}  "), "tcp"),
            format!("{name}\n    tcp\n")
        );
        let name = "n".repeat(62);
        assert_eq!(wrap(&format!("{name}  "), "tcp"), format!("{name}  tcp\n"));
    }

    #[test]
    fn no_line_is_longer_than_the_screen() {
        let text = format!("short {} words {} end", "y".repeat(200), "é".repeat(90));
        for first in ["", "  ", "a long first part: ", &" ".repeat(60)] {
            for line in wrap(first, &text).lines() {
                assert!(line.chars().count() <= WIDTH, "{line}");
            }
        }
    }

    #[test]
    fn a_problem_has_a_message_and_helps() {
        assert_eq!(
            problem(&PLAIN, "it broke", "do this\nor that\n"),
            "error: it broke\nhelp: do this\n      or that\n"
        );
        assert_eq!(problem(&PLAIN, "it broke", ""), "error: it broke\n");
        let colored = View {
            color: true,
            ..PLAIN
        };
        assert_eq!(
            problem(&colored, "it broke", "do this\nor that"),
            "\u{1b}[31merror:\u{1b}[0m it broke\n\u{1b}[32mhelp:\u{1b}[0m do this\n      or that\n"
        );
    }
}
