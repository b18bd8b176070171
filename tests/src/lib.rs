//! What the kernel and end-to-end tests of shifter stand on.

pub mod backend;
pub mod bench;
pub mod bpffs;
pub mod conversation;
pub mod daemon;
pub mod flood;
pub mod http;
pub mod load;
pub mod netns;
pub mod nspawn;
pub mod packet;
pub mod process;
pub mod reap;
pub mod scratch;
pub mod world;
pub mod wrk;
