//! Two ways to read a packet.

use super::Stop;
use crate::frame::Frame;

/// Reads headers.
pub trait Reader {
    /// Whether extension headers may be followed: their offsets are known at run time only, which
    /// direct access would need a bound for at every step.
    const IS_FAR: bool;

    /// What stands at an offset.
    ///
    /// # Errors
    /// If it is out of reach.
    fn get<T: Copy>(&self, offset: u32) -> Result<T, Stop>;
}

/// Direct access to the linear part of the buffer.
pub struct Direct<'f, F>(pub &'f F);

impl<F: Frame> Reader for Direct<'_, F> {
    const IS_FAR: bool = false;

    #[inline(always)]
    fn get<T: Copy>(&self, offset: u32) -> Result<T, Stop> {
        // VERIFIER: the mask keeps the offset bounded when its history is lost on the stack.
        match self.0.at::<T>((offset & 0x7f) as usize) {
            // SAFETY: `at` checked the bounds; packet memory is read unaligned everywhere.
            Some(value) => Ok(unsafe { value.read_unaligned() }),
            None => Err(Stop::Unreachable),
        }
    }
}

/// Through the kernel's helpers, to the last byte.
pub struct Far<'f, F>(pub &'f F);

impl<F: Frame> Reader for Far<'_, F> {
    const IS_FAR: bool = true;

    #[inline(always)]
    fn get<T: Copy>(&self, offset: u32) -> Result<T, Stop> {
        self.0.load(offset).ok_or(Stop::Unreachable)
    }
}
