//! The name of a version.

use serde::{Deserialize, Serialize};

const LEN_MAX_BYTES: usize = 64;

/// A release label: `[A-Za-z0-9._+-]{1,64}`. It goes into environment files and arguments of gates,
/// so it has no character that means something there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Label(String);

/// Why a text is no label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot name a version: use 1 to 64 letters, digits, \".\", \"_\", \"+\" and \"-\", such as 3.2.0"
)]
pub struct LabelError(String);

impl Label {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Label {
    type Error = LabelError;

    fn try_from(text: String) -> Result<Self, LabelError> {
        let may = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte);
        if !text.is_empty() && text.len() <= LEN_MAX_BYTES && text.bytes().all(may) {
            Ok(Self(text))
        } else {
            Err(LabelError(text))
        }
    }
}

impl std::str::FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        text.to_owned().try_into()
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.0
    }
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        for good in ["3.2.0", "a", "v1_2+build-7", &"x".repeat(64)] {
            assert_eq!(good.parse::<Label>().expect("a label").as_str(), good);
        }
        for bad in ["", "3 2", "a/b", "ä", "$(x)", "a\n", &"x".repeat(65)] {
            let error = bad.parse::<Label>().expect_err(bad);
            assert_eq!(
                error.to_string(),
                format!(
                    "{bad:?} cannot name a version: use 1 to 64 letters, digits, \".\", \"_\", \
                     \"+\" and \"-\", such as 3.2.0"
                )
            );
        }
    }
}
