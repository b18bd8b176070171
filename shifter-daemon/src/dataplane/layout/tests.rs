use super::*;

fn text(lines: &str) -> String {
    format!("{HEADER}\n{lines}")
}

fn one(lines: &str) -> MapLayout {
    let mut description = Description::parse(&text(lines)).expect("a description");
    description.maps.pop_first().expect("a map").1
}

#[test]
fn what_is_written_is_read() {
    let own = Description::parse(&own_text()).expect("its own text");
    assert_eq!(own.maps.len(), layout::ALL.len());
    assert!(own_text().len() < shifter_common::abi::LAYOUT_LEN_BYTES);
    for map in layout::ALL {
        let read = &own.maps[map.map];
        assert_eq!(read.content, map.content, "{}", map.map);
        assert_eq!(read.value.len(), map.value.len(), "{}", map.map);
        let same = Carrier::between(read, read).expect("the way to itself");
        let old: Vec<u8> = (0..same.old_value_len_bytes()).map(|i| i as u8).collect();
        assert_eq!(same.value(&old), Ok(old), "{}: nothing moves", map.map);
    }
    assert!(
        own_text().contains(
            "map VIP_ADDRS state\naxis service 0\naxis ordinal 8\nvalue addr 0 16 required\n"
        ),
        "{}",
        own_text()
    );
}

#[test]
fn what_is_not_understood_is_named() {
    let rows = [
        (
            "",
            "its description does not begin with `shifter layouts 1`",
        ),
        (
            "shifter layouts 2\n",
            "its description does not begin with `shifter layouts 1`",
        ),
        (
            "shifter layouts 1\nmap A",
            "its description has the line `map A`",
        ),
        (
            "shifter layouts 1\nmap A blob",
            "its description has the line `map A blob`",
        ),
        (
            "shifter layouts 1\nvalue x 0 4 required",
            "its description has the line `value x 0 4 required`",
        ),
        (
            "shifter layouts 1\nmap A state\naxis x 2",
            "its description has the line `axis x 2`",
        ),
        (
            "shifter layouts 1\nmap A state\naxis x 0\naxis y 0",
            "its description has the line `axis y 0`",
        ),
        (
            "shifter layouts 1\nmap A state\nvalue x 0 70000 required",
            "its description has the line `value x 0 70000 required`",
        ),
        (
            "shifter layouts 1\nmap A state\nvalue x 0 4 perhaps",
            "its description has the line `value x 0 4 perhaps`",
        ),
    ];
    for (text, expected) in rows {
        assert_eq!(Description::parse(text).expect_err(text), expected);
    }
}

/// old fields, new fields, old bytes, new bytes or what is said
#[test]
fn values() {
    type Row = (
        &'static str,
        &'static str,
        &'static [u8],
        Result<&'static [u8], &'static str>,
    );
    const ROWS: &[Row] = &[
        (
            "a 0 2 required,b 2 2 required",
            "b 0 2 required,a 2 2 required",
            &[1, 2, 3, 4],
            Ok(&[3, 4, 1, 2]),
        ),
        (
            "a 0 2 required",
            "a 0 2 required,b 2 2 optional",
            &[1, 2],
            Ok(&[1, 2, 0, 0]),
        ),
        (
            "a 0 2 required",
            "a 0 2 required,b 2 2 binding",
            &[1, 2],
            Ok(&[1, 2, 0, 0]),
        ),
        (
            "a 0 2 required",
            "a 0 2 required,b 2 2 required",
            &[1, 2],
            Err("b is missing there"),
        ),
        (
            "a 0 2 required,b 2 2 optional",
            "a 0 2 required",
            &[1, 2, 9, 9],
            Ok(&[1, 2]),
        ),
        (
            "a 0 2 required,b 2 2 binding",
            "a 0 2 required",
            &[1, 2, 0, 0],
            Ok(&[1, 2]),
        ),
        (
            "a 0 2 required,b 2 2 binding",
            "a 0 2 required",
            &[1, 2, 9, 1],
            Err("an element has b 265"),
        ),
        (
            "a 0 2 required,b 2 2 required",
            "a 0 2 required",
            &[1, 2, 9, 0],
            Err("an element has b 9"),
        ),
        (
            "a 0 2 required",
            "a 0 4 required",
            &[1, 2],
            Ok(&[1, 2, 0, 0]),
        ),
        (
            "a 0 4 required",
            "a 0 2 required",
            &[1, 2, 0, 0],
            Ok(&[1, 2]),
        ),
        (
            "a 0 4 required",
            "a 0 2 required",
            &[1, 0, 1, 0],
            Err("an element has a 65537"),
        ),
        (
            "a 0 2 required",
            "a 0 2 required",
            &[1],
            Err("an element has 1 bytes, its description says 2"),
        ),
    ];
    for (old, new, bytes, expected) in ROWS {
        let map = |fields: &str| {
            let lines = fields.split(',').map(|field| format!("value {field}\n"));
            one(&format!(
                "map M state\naxis x 0\n{}",
                lines.collect::<String>()
            ))
        };
        let got = Carrier::between(&map(old), &map(new)).and_then(|carrier| carrier.value(bytes));
        let expected = expected.map(<[u8]>::to_vec).map_err(str::to_owned);
        assert_eq!(got, expected, "{old} -> {new}");
    }
}

/// old index, new index, old number, new number or what is said
#[test]
fn indexes() {
    type Row = (
        &'static str,
        &'static str,
        u32,
        Result<Option<u32>, &'static str>,
    );
    const ROWS: &[Row] = &[
        ("axis s 0\naxis o 8", "axis s 0\naxis o 8", 29, Ok(Some(29))),
        (
            "axis s 0\naxis o 8",
            "axis s 0\naxis o 16",
            29,
            Ok(Some(3 * 16 + 5)),
        ),
        (
            "axis s 0\naxis o 8",
            "axis s 0\naxis o 4",
            26,
            Ok(Some(3 * 4 + 2)),
        ),
        (
            "axis s 0\naxis o 8",
            "axis s 0\naxis o 4",
            29,
            Err("an element has o 5"),
        ),
        ("axis s 0", "axis s 0\naxis o 4", 3, Ok(Some(12))),
        ("axis s 0\naxis o 4", "axis s 0", 12, Ok(Some(3))),
        (
            "axis s 0\naxis o 4",
            "axis s 0",
            13,
            Err("an element has o 1"),
        ),
        (
            "axis s 0",
            "axis s 0\naxis o 4096",
            u32::MAX,
            Err("element 4294967295 has no place"),
        ),
        ("names a b c", "names c x a", 0, Ok(Some(2))),
        ("names a b c", "names c x a", 1, Ok(None)),
        ("names a", "names a", 7, Ok(None)),
        (
            "names a",
            "axis s 0",
            0,
            Err("its elements are found in another way"),
        ),
    ];
    for (old, new, number, expected) in ROWS {
        let map = |found: &str| one(&format!("map M state\n{found}\nvalue v 0 4 required\n"));
        let got = Carrier::between(&map(old), &map(new))
            .and_then(|carrier| carrier.key(&number.to_ne_bytes()));
        let expected = expected
            .map(|number| number.map(|number| number.to_ne_bytes().to_vec()))
            .map_err(str::to_owned);
        assert_eq!(got, expected, "{old} -> {new}");
    }
}

/// A key must not lose what tells it from another one, not even what a value may lose.
#[test]
fn keys() {
    let map = |fields: &str| one(&format!("map M flows\n{fields}value v 0 1 required\n"));
    let old = map("key a 0 1 required\nkey b 1 1 optional\n");
    let new = map("key a 0 1 required\n");
    let carrier = Carrier::between(&old, &new).expect("a way");
    assert_eq!(carrier.key(&[7, 0]), Ok(Some(vec![7])));
    assert_eq!(carrier.key(&[7, 3]), Err("an element has b 3".into()));
    let other = one("map M state\nkey a 0 1 required\nvalue v 0 1 required\n");
    let error = Carrier::between(&other, &new).expect_err("another use");
    assert_eq!(error, "it is used for something else");
}
