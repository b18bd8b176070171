//! Answers to what is not done.

use shifter_common::wire::Refusal;

use super::Driver;
use crate::{control::ServiceControl, dataplane::DataplaneError};

pub fn refusal(code: &str, message: String, help: String) -> Refusal {
    Refusal {
        code: code.into(),
        message,
        help,
    }
}

/// What the packet path did not do.
pub fn kernel(message: String) -> Refusal {
    refusal("kernel", message, "see: shifterctl doctor".into())
}

impl From<DataplaneError> for Refusal {
    fn from(error: DataplaneError) -> Self {
        kernel(error.to_string())
    }
}

impl Driver {
    pub(super) fn known(&self, name: &str) -> Result<&ServiceControl, Refusal> {
        self.services.get(name).ok_or_else(|| self.unknown(name))
    }

    pub(super) fn unknown(&self, name: &str) -> Refusal {
        let names: Vec<&str> = self.services.keys().map(String::as_str).collect();
        let help = if names.is_empty() {
            format!(
                "write a file to {} and run: shifterctl apply",
                self.node.services_dir.display()
            )
        } else {
            format!("services are: {}", names.join(", "))
        };
        refusal(
            "unknown_service",
            format!("there is no service {name}"),
            help,
        )
    }
}
