//! What the kernel programs have to say. They speak only when they meet tables that contradict each
//! other, which is a defect of the daemon, and only while that is switched on.

use std::io;

use aya_log::EbpfLogger;
use shifter_common::abi::setting;
use tokio::io::{Interest, unix::AsyncFd};

use super::{super::DataplaneError, BpfDataplane, maps::map_error};

/// The programs' log, to be read by a task.
pub struct KernelLog {
    reader: AsyncFd<EbpfLogger<&'static dyn log::Log>>,
}

impl KernelLog {
    /// Passes records on to the daemon's log until the ring buffer fails.
    ///
    /// # Errors
    /// The kernel's error.
    pub async fn run(mut self) -> io::Result<()> {
        loop {
            let mut ready = self.reader.readable_mut().await?;
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    }
}

impl BpfDataplane {
    /// Switches the programs' log on, or off.
    ///
    /// # Errors
    /// If the kernel refuses, or no program is attached.
    pub fn log_defects(&mut self, is_on: bool) -> Result<Option<KernelLog>, DataplaneError> {
        self.maps
            .settings
            .set(setting::LOG_DEFECTS, u32::from(is_on), 0)
            .map_err(|error| map_error("writing SETTINGS", error))?;
        if !is_on {
            return Ok(None);
        }
        // All programs of an object share one log, adopted ones the log of their own object.
        let Some(program) = self.hooks.program_id() else {
            if self.hooks.is_resting() {
                tracing::warn!(
                    "no program is attached whose log could be read: no service needs one"
                );
                return Ok(None);
            }
            return Err(DataplaneError::Refused(
                "no program is attached whose log could be read".into(),
            ));
        };
        let logger = EbpfLogger::init_from_id(program).map_err(|error| {
            DataplaneError::Refused(format!("opening the programs' log: {error}"))
        })?;
        // SAFETY: the logger owns its ring buffer and keeps that descriptor open while it lives.
        let reader = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) }
            .map_err(|error| {
                DataplaneError::kernel("waiting for the programs' log", io::Error::from(error))
            })?;
        Ok(Some(KernelLog { reader }))
    }
}
