//! What the kernel and end-to-end tests of shifter stand on.

pub mod packet;
