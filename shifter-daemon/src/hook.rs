//! stub
use std::net::SocketAddr;
use crate::{doctor::interface::Interface, model::HookSpec};
/// h
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook { /// x
 Xdp, /// t
 Tc }
/// c
pub fn choose_hook(i: &Interface, h: HookSpec, _c: bool, _f: Option<SocketAddr>) -> Result<(Hook, String), String> { let _=i; Ok(match h { HookSpec::Xdp => (Hook::Xdp, "asked".into()), _ => (Hook::Tc, "stub".into())}) }
