//! From one version's elements to another's.

use shifter_common::layout::{Content, Need};

use super::{Field, Found, MapLayout};

/// How the elements of one map become those of another version.
#[derive(Debug)]
pub struct Carrier {
    /// How the map is carried over.
    pub content: Content,
    index: Way,
    value: Moves,
}

#[derive(Debug)]
enum Way {
    Key(Moves),
    /// The old axes, and the new ones with the place of each among the old.
    Axes(Vec<(String, u32)>, Vec<(String, u32, Option<usize>)>),
    /// New place by old one.
    Names(Vec<Option<u32>>),
}

/// Which bytes go where.
#[derive(Debug)]
struct Moves {
    moves: Vec<Move>,
    /// Old fields that must be zero, because the new version does not know them.
    forgotten: Vec<Field>,
    old_len_bytes: usize,
    new_len_bytes: usize,
}

#[derive(Debug)]
struct Move {
    name: String,
    from_bytes: usize,
    from_len_bytes: usize,
    to_bytes: usize,
    to_len_bytes: usize,
}

impl Carrier {
    /// The way from one layout of a map to another.
    ///
    /// # Errors
    /// If the new version needs what the old one does not have, or finds its elements otherwise.
    pub fn between(old: &MapLayout, new: &MapLayout) -> Result<Self, String> {
        if old.content != new.content {
            return Err("it is used for something else".into());
        }
        let index = match (&old.found, &new.found) {
            (Found::Key(old), Found::Key(new)) => {
                let mut moves = Moves::between(old, new)?;
                // A key without one of its fields may be another element's key.
                let is_new = |field: &&Field| new.iter().all(|known| known.name != field.name);
                moves.forgotten = old.iter().filter(is_new).cloned().collect();
                Way::Key(moves)
            }
            (Found::Axes(old), Found::Axes(new)) => {
                let place = |name: &String| old.iter().position(|(known, _)| known == name);
                let new = new
                    .iter()
                    .map(|(name, places)| (name.clone(), *places, place(name)))
                    .collect();
                Way::Axes(old.clone(), new)
            }
            (Found::Names(old), Found::Names(new)) => {
                let place = |name: &String| new.iter().position(|known| known == name);
                Way::Names(old.iter().map(|name| Some(place(name)? as u32)).collect())
            }
            _ => return Err("its elements are found in another way".into()),
        };
        let value = Moves::between(&old.value, &new.value)?;
        Ok(Self {
            content: old.content,
            index,
            value,
        })
    }

    /// The new key or index of an element, as bytes; `None` if the new version has no place for it and
    /// nothing is wrong with that.
    ///
    /// # Errors
    /// What cannot be said in the new version.
    pub fn key(&self, old: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let number = || {
            let bytes: Option<[u8; 4]> = old.try_into().ok();
            bytes
                .map(u32::from_ne_bytes)
                .ok_or_else(|| format!("an index of {} bytes", old.len()))
        };
        match &self.index {
            Way::Key(moves) => moves.convert(old).map(Some),
            Way::Names(places) => {
                let place = places.get(number()? as usize).copied().flatten();
                Ok(place.map(|place| place.to_ne_bytes().to_vec()))
            }
            Way::Axes(old_axes, new_axes) => {
                let old_index = number()?;
                let mut rest = old_index;
                let mut coordinates = vec![0; old_axes.len()];
                for (coordinate, (_, places)) in coordinates.iter_mut().zip(old_axes).rev() {
                    (*coordinate, rest) = match places {
                        0 => (rest, 0),
                        places => (rest % places, rest / places),
                    };
                }
                for ((name, _), coordinate) in old_axes.iter().zip(&coordinates) {
                    let is_known = new_axes.iter().any(|(known, ..)| known == name);
                    if !is_known && *coordinate != 0 {
                        return Err(format!("an element has {name} {coordinate}"));
                    }
                }
                let mut index = 0_u32;
                for (name, places, from) in new_axes {
                    let coordinate = from.map_or(0, |place| coordinates[place]);
                    if *places != 0 && coordinate >= *places {
                        return Err(format!("an element has {name} {coordinate}"));
                    }
                    index = index
                        .checked_mul((*places).max(1))
                        .and_then(|index| index.checked_add(coordinate))
                        .ok_or_else(|| format!("element {old_index} has no place"))?;
                }
                Ok(Some(index.to_ne_bytes().to_vec()))
            }
        }
    }

    /// The new value of an element.
    ///
    /// # Errors
    /// What cannot be said in the new version.
    pub fn value(&self, old: &[u8]) -> Result<Vec<u8>, String> {
        self.value.convert(old)
    }

    /// Bytes of an old value.
    pub const fn old_value_len_bytes(&self) -> usize {
        self.value.old_len_bytes
    }

    /// Bytes of a new value.
    pub const fn new_value_len_bytes(&self) -> usize {
        self.value.new_len_bytes
    }
}

impl Moves {
    fn between(old: &[Field], new: &[Field]) -> Result<Self, String> {
        let mut moves = Vec::new();
        for field in new {
            match old.iter().find(|known| known.name == field.name) {
                // Numbers of different lengths begin with the same bytes only in this order.
                Some(known)
                    if known.len_bytes != field.len_bytes && cfg!(target_endian = "big") =>
                {
                    return Err(format!("{} has another length", field.name));
                }
                Some(known) => moves.push(Move {
                    name: field.name.clone(),
                    from_bytes: known.offset_bytes,
                    from_len_bytes: known.len_bytes,
                    to_bytes: field.offset_bytes,
                    to_len_bytes: field.len_bytes,
                }),
                None if field.need == Need::Required => {
                    return Err(format!("{} is missing there", field.name));
                }
                None => {}
            }
        }
        let is_forgotten = |field: &&Field| {
            field.need != Need::Optional && new.iter().all(|known| known.name != field.name)
        };
        Ok(Self {
            moves,
            forgotten: old.iter().filter(is_forgotten).cloned().collect(),
            old_len_bytes: len_bytes(old),
            new_len_bytes: len_bytes(new),
        })
    }

    fn convert(&self, old: &[u8]) -> Result<Vec<u8>, String> {
        if old.len() != self.old_len_bytes {
            let (is, said) = (old.len(), self.old_len_bytes);
            return Err(format!(
                "an element has {is} bytes, its description says {said}"
            ));
        }
        for field in &self.forgotten {
            let bytes = part(old, field.offset_bytes, field.len_bytes);
            if bytes.iter().any(|byte| *byte != 0) {
                return Err(format!("an element has {} {}", field.name, number(bytes)));
            }
        }
        let mut new = vec![0; self.new_len_bytes];
        for one in &self.moves {
            let from = part(old, one.from_bytes, one.from_len_bytes);
            let kept_len_bytes = one.from_len_bytes.min(one.to_len_bytes);
            let (kept, lost) = from.split_at(kept_len_bytes);
            if lost.iter().any(|byte| *byte != 0) {
                return Err(format!("an element has {} {}", one.name, number(from)));
            }
            new[one.to_bytes..one.to_bytes + kept_len_bytes].copy_from_slice(kept);
        }
        Ok(new)
    }
}

/// A part of an element, whose length was compared with the description's.
fn part(bytes: &[u8], offset_bytes: usize, len_bytes: usize) -> &[u8] {
    &bytes[offset_bytes..offset_bytes + len_bytes]
}

/// Length of the type with these fields, which leave no gap.
fn len_bytes(fields: &[Field]) -> usize {
    let ends = fields
        .iter()
        .map(|field| field.offset_bytes + field.len_bytes);
    ends.max().unwrap_or(0)
}

/// A field as a person may know it.
fn number(bytes: &[u8]) -> String {
    let mut word = [0; 8];
    match word.get_mut(..bytes.len()) {
        Some(low) if cfg!(target_endian = "little") => {
            low.copy_from_slice(bytes);
            u64::from_le_bytes(word).to_string()
        }
        _ => format!("{bytes:02x?}"),
    }
}
