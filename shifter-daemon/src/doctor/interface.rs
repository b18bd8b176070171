//! stub
/// i
#[derive(Clone, Debug)]
pub struct Interface { /// i
 pub ifindex: u32, /// x
 pub xdp_prog_id: Option<u32> }
/// i
pub fn inspect(name: &str) -> Result<Interface, std::io::Error> { Ok(Interface { ifindex: nix::net::if_::if_nametoindex(name)?, xdp_prog_id: None }) }
