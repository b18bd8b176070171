//! What the kernel programs, the daemon and the tests of shifter must agree on.
//!
//! The map ABI ([`abi`]), byte-order types, the steering word, selection, checksum arithmetic and
//! the TCP phases live here once: the same Rust functions run in the kernel and in the tests.
//!
//! Features: `user` adds `aya::Pod` and the Maglev builder (needs std), `wire` adds the serde types
//! of the control API (needs std).

#![cfg_attr(not(any(feature = "user", feature = "wire", test)), no_std)]

pub mod abi;
pub mod addr;
pub mod breaker;
pub mod checksum;
pub mod hash;
pub mod histogram;
#[cfg(any(feature = "user", test))]
pub mod maglev;
pub mod recipe;
pub mod select;
pub mod steering;
pub mod tcp;
pub mod verdict;
#[cfg(feature = "wire")]
pub mod wire;
