//! A listener that stays while another version takes its slot (systemd holds it, or the server was
//! exchanged behind it): what it accepts from then on is the new version's.

use std::{collections::BTreeSet, net::SocketAddr, os::fd::AsFd as _};

use shifter_common::socket::{NO_BACKEND, NO_PLACE, SocketTag};

use super::{
    super::super::DataplaneError,
    SocketPlane,
    look::{LOOKUPS_MAX_COUNT, packet},
    sys,
};
use crate::sock_diag::SockDiag;

impl SocketPlane {
    /// Writes a version to captured listeners of an address. Each lookup finds one member of a group,
    /// whichever the kernel takes, so it is looked again and again who is left. One that is found by
    /// no lookup gets no connections either.
    pub(super) fn hand_over(
        &self,
        at: SocketAddr,
        tag: SocketTag,
        stale: &BTreeSet<u64>,
    ) -> Result<(), DataplaneError> {
        let tag = SocketTag {
            places: [NO_PLACE; 2],
            ..tag
        };
        let (mut turn, mut pause_at) = (0, 1);
        while !stale.is_empty() && turn < LOOKUPS_MAX_COUNT {
            while turn < pause_at {
                sys::run(self.seize.as_fd(), &packet(at, turn, [NO_BACKEND; 2], tag)).map_err(
                    |error| DataplaneError::kernel("giving a listener to another version", error),
                )?;
                turn += 1;
            }
            if !self.has_other_version(stale, tag.version_id)? {
                return Ok(());
            }
            pause_at = turn * 4;
        }
        Ok(())
    }

    fn has_other_version(
        &self,
        cookies: &BTreeSet<u64>,
        version_id: u32,
    ) -> Result<bool, DataplaneError> {
        let listeners = SockDiag::open()
            .and_then(|diag| diag.listeners(Some(self.tags.as_fd())))
            .map_err(|errno| DataplaneError::kernel("asking which sockets listen", errno))?;
        Ok(listeners.iter().any(|listener| {
            cookies.contains(&listener.cookie)
                && listener.tag.is_some_and(|tag| tag.version_id != version_id)
        }))
    }
}
