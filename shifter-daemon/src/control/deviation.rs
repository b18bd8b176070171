//! Why a service is not as its file says.

/// What is the matter with the file of a service that is steered on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deviation {
    /// It is gone.
    Gone,
    /// It has errors.
    Bad,
    /// Nothing is known of it: the directory cannot be read.
    Unknown,
    /// The packet path did not take what it says.
    Refused(String),
}

impl std::fmt::Display for Deviation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gone => f.write_str("its file is gone"),
            Self::Bad => f.write_str("its file has errors"),
            Self::Unknown => f.write_str("the directory of its file cannot be read"),
            Self::Refused(why) => write!(f, "its file could not be put in force: {why}"),
        }
    }
}
