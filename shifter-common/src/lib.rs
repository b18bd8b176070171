//! What the kernel programs, the daemon and the tests of shifter must agree on.
//!
//! The map ABI ([`abi`]), byte-order types, the steering word, selection, checksum arithmetic and
//! the TCP phases live here once: the same Rust functions run in the kernel and in the tests.
//!
//! Features: `user` adds `aya::Pod` and the Maglev builder (needs std), `wire` adds the serde types
//! of the control API (needs std), `rehearsal` changes the map ABI for tests of upgrades.

#![cfg_attr(not(any(feature = "user", feature = "wire", test)), no_std)]

pub mod abi;
pub mod addr;
pub mod addr_set;
#[cfg(feature = "wire")]
pub mod audit;
pub mod breaker;
pub mod checksum;
pub mod hash;
pub mod histogram;
pub mod layout;
pub mod local;
#[cfg(any(feature = "user", test))]
pub mod maglev;
pub mod observe;
pub mod protocol;
pub mod recipe;
pub mod select;
pub mod socket;
pub mod socket_state;
pub mod steering;
pub mod tcp;
pub mod udp;
pub mod verdict;
#[cfg(feature = "wire")]
pub mod wire;
