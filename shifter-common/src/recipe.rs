//! What the bench's kernel program makes of its one frame, run after run.
//!
//! `BPF_PROG_TEST_RUN` repeats a program on the same bytes, and a steered packet is not the packet
//! that came in. So a small program stands before the one that is measured: it reads a recipe from
//! the frame's payload, writes the next packet's addresses, client port and sequence number into the
//! headers, and goes on to the measured program by a tail call. What it costs itself is measured with
//! a program behind it that does nothing.

/// First address of the clients, whose lower 16 bits count: 10.9.0.0.
pub const CLIENTS_V4: u32 = 0x0a09_0000;
/// First client port.
pub const FIRST_PORT: u16 = 1_024;

/// The client is the packet's destination: a reply.
pub const CLIENT_IS_DESTINATION: u32 = 1;

/// The payload of the bench's frames. Each field stands as it is in memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recipe {
    /// Packets made so far.
    pub turn: u64,
    /// Flows that the packets belong to, in random order; 0: each packet opens a flow of its own.
    pub flows_count: u32,
    /// [`CLIENT_IS_DESTINATION`] or 0.
    pub flags: u32,
    /// The other end's address as in the packet; of IPv4 the last word.
    pub addr: [u32; 4],
    /// The other end's port, network byte order.
    pub port: u16,
    /// Zero.
    pub pad: [u16; 3],
}

const _: () = assert!(size_of::<Recipe>() == 40);

/// Entries of the floor's table, as many as shifter's has by default.
pub const FLOOR_FLOWS_COUNT: u32 = crate::abi::capacity::FLOWS;

/// A flow of the floor: the least a DNAT program has to look up. As it stands in the packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FloorKey {
    /// Client address.
    pub client: u32,
    /// Destination address.
    pub vip: u32,
    /// Client port.
    pub client_port: u16,
    /// Destination port.
    pub vip_port: u16,
}

/// Where a flow of the floor goes. As it stands in the packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FloorTarget {
    /// Backend address.
    pub addr: u32,
    /// Backend port.
    pub port: u16,
    /// Zero.
    pub pad: u16,
}

const _: () = assert!(size_of::<FloorKey>() == 12 && size_of::<FloorTarget>() == 8);

#[cfg(feature = "user")]
mod pod {
    // SAFETY: plain integers without padding.
    unsafe impl aya::Pod for super::FloorKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::FloorTarget {}
}

impl Recipe {
    /// The flow of the next packet.
    #[inline(always)]
    pub const fn flow_index(turn: u64, flows_count: u32) -> u32 {
        if flows_count == 0 {
            return turn as u32;
        }
        // The finalizer of SplitMix64, shortened: neighbours in time are no neighbours in the table.
        let mut state = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (((state >> 32) * flows_count as u64) >> 32) as u32
    }

    /// The client's address, its last word in host order: for IPv4 the address, for IPv6 what stands
    /// in the last 32 bits.
    #[inline(always)]
    pub const fn client_word(flow_index: u32, is_v6: bool) -> u32 {
        let low = flow_index & 0xffff;
        if is_v6 { low } else { CLIENTS_V4 | low }
    }

    /// The client's port, host order.
    #[inline(always)]
    pub const fn client_port(flow_index: u32) -> u16 {
        FIRST_PORT.wrapping_add((flow_index >> 16) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flow_is_met_about_equally_often() {
        let mut met = [0_u32; 1_000];
        for turn in 0..1_000_000 {
            met[Recipe::flow_index(turn, 1_000) as usize] += 1;
        }
        let expected = 1_000.0;
        let chi_square: f64 = met
            .iter()
            .map(|&n| (f64::from(n) - expected).powi(2) / expected)
            .sum();
        // 99.99 % quantile with 999 degrees of freedom.
        assert!(chi_square < 1_175.0, "chi-square {chi_square}");
    }

    #[test]
    fn flows_have_clients_of_their_own() {
        let rows = [
            (0, 0x0a09_0000, 1_024),
            (63_999, 0x0a09_f9ff, 1_024),
            (65_536, 0x0a09_0000, 1_025),
            (65_537, 0x0a09_0001, 1_025),
        ];
        for (index, word, port) in rows {
            assert_eq!(Recipe::client_word(index, false), word, "{index}");
            assert_eq!(Recipe::client_word(index, true), word & 0xffff, "{index}");
            assert_eq!(Recipe::client_port(index), port, "{index}");
        }
        assert_eq!(Recipe::flow_index(7, 0), 7);
        assert_eq!(Recipe::flow_index(7, 1), 0);
    }
}
