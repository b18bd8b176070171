//! Programs on interfaces: attaching through pinned links, replacing programs in place, leaving.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode,
        links::{FdLink, PinnedLink},
        tc::TcAttachOptions,
    },
};
use shifter_common::{abi::program, wire::InterfaceStatus};

use super::{
    super::DataplaneError,
    chain,
    directory::PinDirectory,
    links::{self, Link, load_program, missing},
};
use crate::{
    doctor::{
        self,
        interface::{self, Interface},
    },
    hook::{Hook, choose_hook, first_forwarded},
    model::{HookSpec, InterfaceSpec},
};

/// The interfaces with programs.
pub struct Hooks {
    hooked: Vec<Hooked>,
    /// Links of this process; the pins keep the programs attached when they are dropped.
    links: Vec<PinnedLink>,
    program_id: Option<u32>,
}

struct Hooked {
    spec: InterfaceSpec,
    interface: Interface,
    hook: Hook,
    reason: String,
}

/// One attachment point, named as its pin: `<kind>-<ifindex>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Point {
    Xdp(u32),
    Ingress(u32),
    Egress(u32),
}

impl Point {
    fn name(self) -> String {
        match self {
            Self::Xdp(index) => format!("xdp-{index}"),
            Self::Ingress(index) => format!("ingress-{index}"),
            Self::Egress(index) => format!("egress-{index}"),
        }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::Xdp(_) => program::XDP_INGRESS,
            Self::Ingress(_) => program::TC_INGRESS,
            Self::Egress(_) => program::TC_EGRESS,
        }
    }
}

impl Hooks {
    /// Hooks every interface. Links that are pinned already are kept, with the new program put in
    /// place of the old one without a packet in between; links nobody asks for any more go.
    ///
    /// # Errors
    /// If an interface is missing or cannot be hooked as asked.
    pub fn attach(
        object: &mut Ebpf,
        interfaces: &[InterfaceSpec],
        directory: &PinDirectory,
    ) -> Result<Self, DataplaneError> {
        let mut tags = BTreeMap::new();
        let mut hooked = Vec::new();
        let mut wanted = Vec::new();
        let pinned = pins(directory)?;
        for spec in interfaces {
            let interface = interface::inspect(&spec.name)
                .map_err(|error| DataplaneError::Refused(error.to_string()))?;
            let own = pinned
                .get(&Point::Xdp(interface.ifindex).name())
                .and_then(|path| PinnedLink::from_pin(path).ok())
                .and_then(|link| FdLink::from(link).info().ok())
                .map(|info| info.program_id());
            let interface = interface.without_own_xdp(|id| Some(id) == own);
            let (hook, reason) = choose_hook(&interface, spec.hook, spec.checksums_complete, None)
                .map_err(DataplaneError::Refused)?;
            let index = interface.ifindex;
            wanted.push(match hook {
                Hook::Xdp => Point::Xdp(index),
                Hook::Tc => Point::Ingress(index),
            });
            wanted.push(Point::Egress(index));
            hooked.push(Hooked {
                spec: spec.clone(),
                interface,
                hook,
                reason,
            });
        }
        for point in &wanted {
            if !tags.contains_key(point.program()) {
                tags.insert(point.program(), load_program(object, point.program())?);
            }
        }
        // Which links need another program is known before the first is touched.
        let mut kept = Vec::new();
        let mut outdated = Vec::new();
        for point in &wanted {
            let link = pinned.get(&point.name()).cloned().map(Link::open);
            let Some(mut link) = link.transpose()?.flatten() else {
                continue;
            };
            kept.push(*point);
            if Some(&link.info.tag) != tags.get(point.program()) {
                link.wanted = point.program().to_owned();
                outdated.push(link);
            }
        }
        links::replace(object, &mut outdated).map_err(|(error, _)| error)?;
        // New links first: while both an old and a new ingress link exist, the second to see a
        // packet finds nothing to do, because its destination is a backend by then.
        let mut links = Vec::new();
        for point in wanted.iter().rev() {
            let path = directory.links().join(point.name());
            links.push(if kept.contains(point) {
                PinnedLink::from_pin(&path).map_err(|error| {
                    DataplaneError::Refused(format!(
                        "taking over the link {}: {}",
                        path.display(),
                        chain(&error)
                    ))
                })?
            } else {
                if path.exists() {
                    // A pin whose program is gone.
                    remove_pin(&path)?;
                }
                create(object, *point, &hooked, path)?
            });
        }
        for (name, path) in &pinned {
            if !wanted.iter().any(|point| point.name() == *name) {
                remove_pin(path)?;
            }
        }
        let program_id = wanted
            .first()
            .and_then(|point| PinnedLink::from_pin(directory.links().join(point.name())).ok())
            .and_then(|link| FdLink::from(link).info().ok())
            .map(|info| info.program_id());
        Ok(Self {
            hooked,
            links,
            program_id,
        })
    }

    /// How each interface is hooked, and why.
    pub fn status(&self) -> Vec<InterfaceStatus> {
        self.hooked
            .iter()
            .map(|hooked| InterfaceStatus {
                name: hooked.spec.name.clone(),
                ifindex: hooked.interface.ifindex,
                hook: match hooked.hook {
                    Hook::Xdp => "xdp".into(),
                    Hook::Tc => "tc".into(),
                },
                reason: hooked.reason.clone(),
            })
            .collect()
    }

    /// Whether a backend can be reached through every hook.
    ///
    /// # Errors
    /// The reason and the remedy, if XDP stands where packets to this backend would leave the host
    /// with a checksum that was never completed.
    pub fn check_backend(&self, backend: SocketAddr) -> Result<(), DataplaneError> {
        let asked = self.hooked.iter().filter(|hooked| hooked.hook == Hook::Xdp);
        for hooked in asked {
            let local = doctor::local_addresses();
            if first_forwarded([backend], &local).is_none() {
                continue;
            }
            choose_hook(
                &hooked.interface,
                HookSpec::Xdp,
                hooked.spec.checksums_complete,
                Some(backend),
            )
            .map_err(DataplaneError::Refused)?;
        }
        Ok(())
    }

    /// The id of an attached program.
    pub fn program_id(&self) -> Option<u32> {
        self.program_id
    }

    /// Forgets all links, whose programs were taken off.
    pub fn forget(&mut self) {
        self.links.clear();
        self.hooked.clear();
    }
}

fn remove_pin(path: &Path) -> Result<(), DataplaneError> {
    fs::remove_file(path)
        .map_err(|error| DataplaneError::kernel(format!("removing {}", path.display()), error))
}

fn pins(directory: &PinDirectory) -> Result<BTreeMap<String, PathBuf>, DataplaneError> {
    let pins = links::pins(&directory.links())?;
    Ok(pins
        .into_iter()
        .map(|pin| (links::name(&pin), pin))
        .collect())
}

fn xdp<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, DataplaneError> {
    let program = object.program_mut(name).ok_or_else(|| missing(name))?;
    program.try_into().map_err(|_: ProgramError| missing(name))
}

fn classifier<'a>(
    object: &'a mut Ebpf,
    name: &str,
) -> Result<&'a mut SchedClassifier, DataplaneError> {
    let program = object.program_mut(name).ok_or_else(|| missing(name))?;
    program.try_into().map_err(|_: ProgramError| missing(name))
}

/// Attaches a program anew and pins its link.
fn create(
    object: &mut Ebpf,
    point: Point,
    hooked: &[Hooked],
    path: PathBuf,
) -> Result<PinnedLink, DataplaneError> {
    let (Point::Xdp(index) | Point::Ingress(index) | Point::Egress(index)) = point;
    let name = hooked
        .iter()
        .find(|hooked| hooked.interface.ifindex == index)
        .map_or("", |hooked| hooked.spec.name.as_str());
    let failed = |error: &dyn std::error::Error| {
        DataplaneError::Refused(format!(
            "attaching {} to {name}: {}; see why with: shifterctl doctor",
            point.program(),
            chain(error)
        ))
    };
    let link = match point {
        Point::Xdp(_) => {
            let xdp = xdp(object, point.program())?;
            let id = xdp
                .attach_to_if_index(index, XdpMode::Driver)
                .map_err(|error| failed(&error))?;
            let link = xdp.take_link(id).map_err(|error| failed(&error))?;
            FdLink::try_from(link).map_err(|error| failed(&error))?
        }
        Point::Ingress(_) | Point::Egress(_) => {
            let classifier = classifier(object, point.program())?;
            let direction = match point {
                Point::Egress(_) => TcAttachType::Egress,
                Point::Xdp(_) | Point::Ingress(_) => TcAttachType::Ingress,
            };
            let options = TcAttachOptions::TcxOrder(LinkOrder::default());
            let id = classifier
                .attach_with_options(name, direction, options)
                .map_err(|error| failed(&error))?;
            let link = classifier.take_link(id).map_err(|error| failed(&error))?;
            FdLink::try_from(link).map_err(|error| failed(&error))?
        }
    };
    link.pin(&path).map_err(|error| failed(&error))
}
