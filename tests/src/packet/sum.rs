//! Internet checksums in network order (RFC 1071). Written apart from `shifter_common::checksum` on
//! purpose: fixtures that shared the code under test could not prove it wrong.

/// A running ones' complement sum of big-endian 16-bit words.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u32);

impl Sum {
    /// The sum of the pseudo-header of TCP or UDP (RFC 9293 section 3.1, RFC 8200 section 8.1).
    pub fn pseudo_header(src: &[u8], dst: &[u8], protocol: u8, len_bytes: usize) -> Self {
        Self::default()
            .bytes(src)
            .bytes(dst)
            .bytes(&(len_bytes as u32).to_be_bytes())
            .bytes(&[0, protocol])
    }

    /// Adds bytes; an odd last byte is the high half of a word.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        // 65535 bytes are 32768 words below 2^16: the sum stays below 2^31.
        Self(bytes.chunks(2).fold(self.0, |sum, pair| {
            sum + (u32::from(pair[0]) << 8) + pair.get(1).map_or(0, |low| u32::from(*low))
        }))
    }

    /// The sum in 16 bits.
    pub fn folded(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    /// The checksum: the complement of the sum.
    pub fn checksum(self) -> u16 {
        !self.folded()
    }
}
