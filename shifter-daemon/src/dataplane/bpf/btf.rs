//! Where the running kernel keeps a member of one of its structures, by its own description (BTF,
//! Documentation/bpf/btf.rst).

use std::{collections::HashMap, fs, io};

/// The running kernel's description.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;

/// Offset of a member that is a whole number of bytes from the beginning of its structure.
///
/// # Errors
/// If the kernel describes nothing, or not this.
pub fn member_offset_bytes(structure: &str, member: &str) -> io::Result<u32> {
    let bytes = fs::read(VMLINUX)?;
    find(&bytes, structure, member)
        .ok_or_else(|| io::Error::other(format!("{VMLINUX} has no {structure}.{member}")))
}

/// The parts of a description.
struct Btf<'b> {
    types: &'b [u8],
    strings: &'b [u8],
}

impl<'b> Btf<'b> {
    fn open(bytes: &'b [u8]) -> Option<Self> {
        let magic = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
        if magic != MAGIC {
            return None;
        }
        let word = |at: usize| word(bytes, at);
        let header_len = word(4)? as usize;
        let part = |offset: usize, len: usize| {
            let from = header_len.checked_add(offset)?;
            bytes.get(from..from.checked_add(len)?)
        };
        Some(Self {
            types: part(word(8)? as usize, word(12)? as usize)?,
            strings: part(word(16)? as usize, word(20)? as usize)?,
        })
    }

    fn name(&self, offset: u32) -> Option<&'b str> {
        let bytes = self.strings.get(offset as usize..)?;
        let len = bytes.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(bytes.get(..len)?).ok()
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// Bytes behind the three words that every type begins with.
fn tail_len(kind: u32, count: u32) -> Option<usize> {
    let count = count as usize;
    Some(match kind {
        // A pointer, a name for something declared elsewhere, typedef, volatile, const, restrict, a
        // function, a number with a fraction, a tag of a type.
        2 | 7..=12 | 16 | 18 => 0,
        // A number, a variable, a tag of a declaration.
        1 | 14 | 17 => 4,
        // An array.
        3 => 12,
        // A structure, a union, a section, an enumeration of 64 bits.
        KIND_STRUCT | 5 | 15 | 19 => count * 12,
        // An enumeration, a function's arguments.
        6 | 13 => count * 8,
        _ => return None,
    })
}

fn find(bytes: &[u8], structure: &str, member: &str) -> Option<u32> {
    let btf = Btf::open(bytes)?;
    let mut at = 0;
    while let Some(name) = word(btf.types, at) {
        let info = word(btf.types, at + 4)?;
        let (kind, count, has_bitfields) = (info >> 24 & 0x1f, info & 0xffff, info >> 31 == 1);
        let tail = at + 12;
        if kind == KIND_STRUCT && btf.name(name) == Some(structure) {
            let members: HashMap<&str, u32> = (0..count as usize)
                .filter_map(|nth| {
                    let row = tail + nth * 12;
                    let offset = word(btf.types, row + 8)?;
                    // Where there are bit fields the highest byte is a width.
                    let bits = if has_bitfields {
                        offset & 0xff_ffff
                    } else {
                        offset
                    };
                    Some((btf.name(word(btf.types, row)?)?, bits))
                })
                .collect();
            let bits = *members.get(member)?;
            return (bits % 8 == 0).then_some(bits / 8);
        }
        at = tail + tail_len(kind, count)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `int` at nothing, `struct pair { int first; int second; }`, and one with bit fields.
    fn description() -> Vec<u8> {
        let strings = b"\0int\0pair\0first\0second\0bits\0narrow\0";
        let at = |text: &str| {
            let wanted = [text.as_bytes(), b"\0"].concat();
            let found = strings
                .windows(wanted.len())
                .position(|part| part == wanted);
            found.expect("a name") as u32
        };
        let number: [u32; 4] = [at("int"), 1 << 24, 4, 32];
        let pair: [u32; 9] = [
            at("pair"),
            KIND_STRUCT << 24 | 2,
            8,
            at("first"),
            1,
            0,
            at("second"),
            1,
            32,
        ];
        let bits: [u32; 9] = [
            at("bits"),
            1 << 31 | KIND_STRUCT << 24 | 2,
            8,
            at("narrow"),
            1,
            3 << 24 | 5,
            at("second"),
            1,
            32,
        ];
        let types: Vec<u32> = number.into_iter().chain(pair).chain(bits).collect();
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        let types_len = types.len() as u32 * 4;
        for header in [24, 0, types_len, types_len, strings.len() as u32] {
            bytes.extend(u32::to_ne_bytes(header));
        }
        bytes.extend(types.into_iter().flat_map(u32::to_ne_bytes));
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn members_are_found_by_name() {
        let bytes = description();
        let rows = [
            ("pair", "first", Some(0)),
            ("pair", "second", Some(4)),
            ("pair", "third", None),
            ("int", "first", None),
            ("none", "first", None),
            ("bits", "second", Some(4)),
            // Not a whole number of bytes.
            ("bits", "narrow", None),
        ];
        for (structure, member, expected) in rows {
            assert_eq!(
                find(&bytes, structure, member),
                expected,
                "{structure}.{member}"
            );
        }
    }

    #[test]
    fn a_description_that_is_cut_off_describes_less() {
        let bytes = description();
        for len in 0..bytes.len() {
            let _ = find(&bytes[..len], "bits", "second");
        }
        assert_eq!(find(&[0; 64], "pair", "first"), None);
    }

    #[test]
    fn the_running_kernel_says_where_its_sockets_keep_what_the_programs_read() {
        for (structure, member) in [("sock", "sk_err"), ("tcp_request_sock", "snt_isn")] {
            let offset = member_offset_bytes(structure, member).expect("a kernel with BTF");
            assert!(
                offset > 0 && offset < 4_096,
                "{structure}.{member}: {offset}"
            );
        }
    }
}
