//! The demo's two places: a client, and a host with the service's address.

use std::{fmt::Write as _, fs, net::Ipv4Addr, time::Duration};

use anyhow::{Context, bail};

use super::{child, namespace::Namespace, place::Place};

/// What clients connect to.
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
/// The service's port.
pub const PORT: u16 = 80;
/// The host's address that both versions listen on.
pub const BACKENDS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 20);
/// The client.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
/// The host, as the client's router.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
/// The interface at both ends of the link.
pub const INTERFACE: &str = "eth0";

/// How long ip(8) may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Two namespaces, joined by a veth pair.
#[derive(Debug)]
pub struct Network {
    /// Where load comes from.
    pub client: Namespace,
    /// Where shifterd and both versions run.
    pub host: Namespace,
}

impl Network {
    /// Makes namespaces, link, addresses and routes.
    ///
    /// # Errors
    /// The kernel or ip(8) refuses something.
    pub fn new(place: &Place) -> anyhow::Result<Self> {
        let network = Self {
            client: Namespace::new(place, "client")?,
            host: Namespace::new(place, "host")?,
        };
        let mut link = format!("link add {INTERFACE} type veth peer name {INTERFACE} netns ");
        let _ = writeln!(link, "{}", network.client.path().display());
        ip(place, &network.host, "link", &link)?;
        ip(place, &network.host, "host", &host_commands())?;
        ip(place, &network.client, "client", &client_commands())?;
        // A client that opens thousands of connections a second to one address needs all ports,
        // each again after a second.
        set(&network.client, "ipv4/ip_local_port_range", "1024 65535")?;
        set(&network.client, "ipv4/tcp_tw_reuse", "1")?;
        Ok(network)
    }
}

fn host_commands() -> String {
    format!(
        "link set lo up\n\
         address add {VIP}/32 dev lo\n\
         address add {BACKENDS}/32 dev lo\n\
         address add {HOST}/24 dev {INTERFACE}\n\
         link set {INTERFACE} up\n"
    )
}

fn client_commands() -> String {
    format!(
        "link set lo up\n\
         address add {CLIENT}/24 dev {INTERFACE}\n\
         link set {INTERFACE} up\n\
         route add default via {HOST}\n"
    )
}

/// Gives a batch of commands to ip(8) inside a namespace.
fn ip(place: &Place, namespace: &Namespace, name: &str, batch: &str) -> anyhow::Result<()> {
    let file = place.write(&format!("{name}.ip"), batch)?;
    let mut command = namespace.command("ip");
    command.arg("-batch").arg(file);
    let said = child::run(command, LIMIT)?;
    if !said.status.success() {
        bail!(
            "`ip` refuses the demo's network: {}\nIt was given:\n{batch}",
            said.err.trim()
        );
    }
    Ok(())
}

/// Sets a sysctl below /proc/sys/net in a namespace.
fn set(namespace: &Namespace, name: &str, value: &str) -> anyhow::Result<()> {
    let path = format!("/proc/sys/net/{name}");
    namespace
        .run(|| fs::write(&path, value))?
        .with_context(|| format!("cannot write \"{value}\" to {path}"))
}
