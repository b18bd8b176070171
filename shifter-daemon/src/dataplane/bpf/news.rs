//! News from the kernel, as they come: rings that the programs write to and that wake whoever waits.

use std::io;

use aya::maps::{Map, MapData, RingBuf};
use tokio::io::{Interest, unix::AsyncFd};

use super::{super::DataplaneError, directory::PinDirectory, maps::map_error};

/// Says when there is something to look at.
pub struct KernelNews {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl KernelNews {
    /// Opens a ring of a pinned dataplane.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn open(directory: &PinDirectory, map: &str) -> Result<Self, DataplaneError> {
        let failed = |error| map_error(format!("opening {map}"), error);
        let data = MapData::from_pin(directory.map(map)).map_err(failed)?;
        let ring = RingBuf::try_from(Map::RingBuf(data)).map_err(failed)?;
        // SAFETY: the ring owns its descriptor and keeps it open while it lives.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }.map_err(
            |error| {
                let error = io::Error::from(error);
                DataplaneError::kernel(format!("waiting for news in {map}"), error)
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
