//! News of listeners from the kernel, as they come.

use std::io;

use aya::maps::{Map, MapData, RingBuf};
use shifter_common::socket::map;
use tokio::io::{Interest, unix::AsyncFd};

use super::super::{super::DataplaneError, directory::PinDirectory, maps::map_error};

/// Says when a listener was captured, has closed or was not captured.
pub struct CaptureNews {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl CaptureNews {
    /// Opens the ring of a pinned dataplane.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn open(directory: &PinDirectory) -> Result<Self, DataplaneError> {
        let failed = |error| map_error(format!("opening {}", map::CAPTURE_EVENTS), error);
        let data = MapData::from_pin(directory.map(map::CAPTURE_EVENTS)).map_err(failed)?;
        let ring = RingBuf::try_from(Map::RingBuf(data)).map_err(failed)?;
        // SAFETY: the ring owns its descriptor and keeps it open while it lives.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }.map_err(
            |error| {
                let error = io::Error::from(error);
                DataplaneError::kernel("waiting for news of listeners", error)
            },
        )?;
        Ok(Self { ring })
    }

    /// Waits for news. What came together is told once: whoever asks looks at everything anyway.
    ///
    /// # Errors
    /// The kernel's error.
    pub async fn wait(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.ring.readable_mut().await?;
            let ring = ready.get_inner_mut();
            let mut count = 0;
            while ring.next().is_some() {
                count += 1;
            }
            ready.clear_ready();
            if count > 0 {
                return Ok(());
            }
        }
    }
}
