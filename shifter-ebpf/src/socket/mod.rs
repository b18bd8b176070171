//! The socket plane: new connections are given to sockets that listen on this host.
//!
//! ```text
//! sk_lookup:  VIP → select → backend → listener ─ assigned
//!                              └─ none ─→ other backend → other slot → policy
//! sock_ops:   listen → capture        established → count, tag        closed → free, count
//! cgroup_skb: watched socket → first byte, responses → count
//! ```
//!
//! `lookup` has the branching of the first line, `observe` that of the second, `seen` that of the third.

mod account;
mod bound;
mod capture;
mod flow;
mod inside;
mod lookup;
mod maps;
mod observe;
mod seen;
mod seize;
