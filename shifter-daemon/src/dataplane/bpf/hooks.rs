//! Programs on interfaces: attaching through pinned links, replacing programs in place, leaving.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        CgroupSockAddr, LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode,
        links::{FdLink, PinnedLink},
        tc::TcAttachOptions,
    },
};
use nix::net::if_::{if_indextoname, if_nametoindex};
use shifter_common::{abi::program, wire::InterfaceStatus};

use super::{
    super::DataplaneError,
    chain,
    directory::PinDirectory,
    links::{self, Link, load_program, missing},
    local::{self, Cgroup, LocalHooks},
    raw, sys,
};
use crate::{
    doctor::{
        self,
        interface::{self, Interface, InterfaceError},
    },
    hook::{Hook, choose_hook, first_forwarded},
    model::{HookSpec, InterfaceSpec, LocalClientsSpec, NodeSpec},
};

/// The interfaces with programs.
pub struct Hooks {
    hooked: Vec<Hooked>,
    /// Links of this process; the pins keep the programs attached when they are dropped.
    links: Vec<PinnedLink>,
    /// Whether the programs are off the interfaces, because no service needs them.
    is_resting: bool,
    local: LocalHooks,
    /// Links for the host's own clients.
    local_links: Vec<PinnedLink>,
    program_id: Option<u32>,
}

struct Hooked {
    spec: InterfaceSpec,
    interface: Interface,
    hook: Hook,
    reason: String,
    /// What has become of the interface since.
    trouble: Option<String>,
}

/// One attachment point, named as its pin: `<kind>-<ifindex>`, or for the root cgroup the program's
/// name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Point {
    Xdp(u32),
    XdpGeneric(u32),
    Ingress(u32),
    Egress(u32),
    Local(&'static str),
}

impl Point {
    fn name(self) -> String {
        match self {
            Self::Xdp(index) => format!("xdp-{index}"),
            Self::XdpGeneric(index) => format!("xdpgeneric-{index}"),
            Self::Ingress(index) => format!("ingress-{index}"),
            Self::Egress(index) => format!("egress-{index}"),
            Self::Local(program) => program.replace('_', "-"),
        }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::Xdp(_) | Self::XdpGeneric(_) => program::XDP_INGRESS,
            Self::Ingress(_) => program::TC_INGRESS,
            Self::Egress(_) => program::TC_EGRESS,
            Self::Local(program) => program,
        }
    }

    /// The same interface in the other mode of XDP: there is room for one of the two.
    const fn other_mode(self) -> Option<Self> {
        match self {
            Self::Xdp(index) => Some(Self::XdpGeneric(index)),
            Self::XdpGeneric(index) => Some(Self::Xdp(index)),
            Self::Ingress(_) | Self::Egress(_) | Self::Local(_) => None,
        }
    }
}

/// What a point is on.
#[derive(Clone, Copy)]
enum Place<'a> {
    Interface(&'a Interface),
    Cgroup(&'a Cgroup),
}

impl Place<'_> {
    /// The number by which a link names it.
    fn id(self) -> u64 {
        match self {
            Self::Interface(interface) => interface.ifindex.into(),
            Self::Cgroup(cgroup) => cgroup.id,
        }
    }

    fn name(self) -> String {
        match self {
            Self::Interface(interface) => interface.name.clone(),
            Self::Cgroup(cgroup) => cgroup.path.display().to_string(),
        }
    }
}

impl Hooked {
    /// Looks at an interface and chooses its hook.
    fn choose(
        spec: &InterfaceSpec,
        pinned: &BTreeMap<String, PathBuf>,
    ) -> Result<Self, DataplaneError> {
        let interface = interface::inspect(&spec.name)
            .map_err(|error| DataplaneError::Refused(absence(&error, pinned)))?;
        let index = interface.ifindex;
        let own = |point: Point| {
            let link = FdLink::from(PinnedLink::from_pin(pinned.get(&point.name())?).ok()?);
            link.info().ok().map(|info| info.program_id())
        };
        let own = [own(Point::Xdp(index)), own(Point::XdpGeneric(index))];
        let interface = interface.without_own_xdp(|id| own.contains(&Some(id)));
        let (hook, reason) = choose_hook(&interface, spec.hook, spec.checksums_complete, None)
            .map_err(DataplaneError::Refused)?;
        Ok(Self {
            spec: spec.clone(),
            interface,
            hook,
            reason,
            trouble: None,
        })
    }

    /// Hooks the interface that has the name now, and lets go of the one that had it.
    fn replace(
        &mut self,
        object: &mut Ebpf,
        directory: &PinDirectory,
    ) -> Result<Vec<PinnedLink>, DataplaneError> {
        let anew = Self::choose(&self.spec, &pins(directory)?)?;
        let links = anew.attach(object, directory)?;
        for point in self.points() {
            if !anew.points().contains(&point) {
                leave(&directory.links().join(point.name()))?;
            }
        }
        *self = anew;
        Ok(links)
    }

    fn points(&self) -> [Point; 2] {
        let index = self.interface.ifindex;
        let ingress = match self.hook {
            Hook::Xdp => Point::Xdp(index),
            Hook::XdpGeneric => Point::XdpGeneric(index),
            Hook::Tc => Point::Ingress(index),
        };
        [ingress, Point::Egress(index)]
    }

    /// Whether every link of it is attached to the interface that has its name now.
    fn is_alive(&self, directory: &PinDirectory) -> bool {
        let place = Place::Interface(&self.interface);
        self.points()
            .iter()
            .all(|point| is_on(&directory.links().join(point.name()), place))
    }

    /// Puts the programs in place. New links first: while both an old and a new ingress link exist,
    /// the second to see a packet finds nothing to do, because its destination is a backend by then.
    fn attach(
        &self,
        object: &mut Ebpf,
        directory: &PinDirectory,
    ) -> Result<Vec<PinnedLink>, DataplaneError> {
        let place = Place::Interface(&self.interface);
        let [ingress, egress] = self.points();
        let egress = put(object, egress, place, directory)?;
        let other = ingress
            .other_mode()
            .map(|point| directory.links().join(point.name()));
        let bridge = match other.filter(|path| is_on(path, place)) {
            None => None,
            Some(path) => {
                // Both modes at once are not allowed, and between them packets must not pass
                // unsteered: TC takes them meanwhile.
                load_program(object, program::TC_INGRESS)?;
                let point = Point::Ingress(self.interface.ifindex);
                let bridge = new_link(object, point, place)?;
                leave(&path)?;
                Some(bridge)
            }
        };
        let ingress = put(object, ingress, place, directory)?;
        drop(bridge);
        Ok(vec![egress, ingress])
    }
}

/// The name of the interface with this index, if there is one. Of an index without one nix gives an
/// empty name.
fn name_of(index: u32) -> Option<String> {
    let name = if_indextoname(index).ok()?.into_string().ok()?;
    (!name.is_empty()).then_some(name)
}

/// Why an interface cannot be hooked that is not there. One that was hooked may have got another
/// name since.
fn absence(error: &InterfaceError, pinned: &BTreeMap<String, PathBuf>) -> String {
    let InterfaceError::Missing(missing) = error else {
        return error.to_string();
    };
    let renamed = pinned.keys().find_map(|pin| {
        let index = pin.strip_prefix("egress-")?.parse().ok()?;
        let name = name_of(index)?;
        Some(format!("{name} (index {index})"))
    });
    match renamed {
        Some(name) => format!(
            "{error}; shifter's programs are on {name}: if that is {missing} under a new name, \
             write it in the node file"
        ),
        None => error.to_string(),
    }
}

impl Hooks {
    /// Hooks every interface, unless the hooks rest, and the root cgroup for the host's own clients.
    /// Links that are pinned already are kept, with the new program put in place of the old one
    /// without a packet in between; links nobody asks for any more go.
    ///
    /// # Errors
    /// If an interface is missing or cannot be hooked as asked.
    pub fn attach(
        object: &mut Ebpf,
        node: &NodeSpec,
        directory: &PinDirectory,
        is_resting: bool,
    ) -> Result<Self, DataplaneError> {
        let pinned = pins(directory)?;
        let hooked = node
            .interfaces
            .iter()
            .map(|spec| Hooked::choose(spec, &pinned))
            .collect::<Result<Vec<_>, _>>()?;
        renew(object, &hooked, node.local_clients, directory)?;
        let (mut links, mut local_links) = (Vec::new(), Vec::new());
        for hooked in hooked.iter().filter(|_| !is_resting) {
            links.extend(hooked.attach(object, directory)?);
        }
        let local = attach_local(object, node.local_clients, directory, &mut local_links)?;
        let mut wanted: Vec<Point> = hooked.iter().flat_map(Hooked::points).collect();
        if matches!(local, LocalHooks::On(_)) {
            wanted.extend(program::LOCAL.map(Point::Local));
        }
        for (name, path) in &pinned {
            if !wanted.iter().any(|point| point.name() == *name) {
                leave(path)?;
            }
        }
        let program_id = wanted
            .iter()
            .find_map(|point| PinnedLink::from_pin(directory.links().join(point.name())).ok())
            .and_then(|link| FdLink::from(link).info().ok())
            .map(|info| info.program_id());
        Ok(Self {
            hooked,
            links,
            is_resting,
            local,
            local_links,
            program_id,
        })
    }

    /// Whether a dataplane that is taken over had its hooks off the interfaces.
    ///
    /// # Errors
    /// If the pins cannot be read.
    pub fn are_resting(directory: &PinDirectory) -> Result<bool, DataplaneError> {
        let pinned = pins(directory)?;
        Ok(!pinned.keys().any(|name| name.starts_with("egress-")))
    }

    /// Whether the programs are off the interfaces.
    pub const fn is_resting(&self) -> bool {
        self.is_resting
    }

    /// Takes the programs off the interfaces; nobody needs them for now.
    ///
    /// # Errors
    /// If a pin cannot be removed.
    pub fn rest(&mut self, directory: &PinDirectory) -> Result<(), DataplaneError> {
        // First, so that what could not be taken off now is when the hooks wake and rest again.
        self.is_resting = true;
        for point in self.hooked.iter().flat_map(Hooked::points) {
            leave(&directory.links().join(point.name()))?;
        }
        self.links.clear();
        Ok(())
    }

    /// Puts the programs on the interfaces again.
    ///
    /// # Errors
    /// If an interface is missing or cannot be hooked as asked.
    pub fn wake(
        &mut self,
        object: &mut Ebpf,
        directory: &PinDirectory,
    ) -> Result<(), DataplaneError> {
        for hooked in &mut self.hooked {
            let links = hooked.replace(object, directory)?;
            self.links.extend(links);
            hooked.trouble = None;
        }
        self.is_resting = false;
        Ok(())
    }

    /// Looks whether every interface still has its programs, and hooks those again that were made
    /// anew under their old name. Gives what has changed, in words; what stands in the way stays in
    /// the status until it is mended.
    pub fn tend(&mut self, object: &mut Ebpf, directory: &PinDirectory) -> Vec<String> {
        let mut news = Vec::new();
        if self.is_resting {
            return news;
        }
        for hooked in &mut self.hooked {
            let name = hooked.spec.name.clone();
            let old_index = hooked.interface.ifindex;
            let trouble = match if_nametoindex(name.as_str()) {
                Ok(index) if index == old_index && hooked.is_alive(directory) => None,
                Ok(_) => match hooked.replace(object, directory) {
                    Ok(links) => {
                        self.links.extend(links);
                        news.push(format!(
                            "interface {name} was made anew (index {old_index}, now {}): hooked \
                             again, {}: {}",
                            hooked.interface.ifindex, hooked.hook, hooked.reason
                        ));
                        None
                    }
                    Err(error) => Some(format!("not hooked: {error}")),
                },
                Err(_) => Some(match name_of(old_index) {
                    Some(new) => format!("called {new} now: write that in the node file"),
                    None => "gone: hooked again when it is back".to_owned(),
                }),
            };
            if let Some(trouble) = &trouble
                && hooked.trouble.as_ref() != Some(trouble)
            {
                news.push(format!("interface {name} is {trouble}"));
            }
            hooked.trouble = trouble;
        }
        news
    }

    /// The hooks for the host's own clients.
    pub const fn local(&self) -> &LocalHooks {
        &self.local
    }

    /// Whether the host's own clients are steered.
    pub const fn has_local(&self) -> bool {
        matches!(self.local, LocalHooks::On(_))
    }

    /// How each interface is hooked, and why.
    pub fn status(&self) -> Vec<InterfaceStatus> {
        self.hooked
            .iter()
            .map(|hooked| InterfaceStatus {
                name: hooked.spec.name.clone(),
                ifindex: hooked.interface.ifindex,
                hook: if self.is_resting {
                    "none".to_owned()
                } else {
                    hooked.hook.to_string()
                },
                reason: match &hooked.trouble {
                    _ if self.is_resting => format!(
                        "no service needs it; {} when one of the nat plane comes",
                        hooked.hook
                    ),
                    None => hooked.reason.clone(),
                    Some(trouble) => format!("{trouble}; {}", hooked.reason),
                },
            })
            .collect()
    }

    /// Whether a backend can be reached through every hook.
    ///
    /// # Errors
    /// The reason and the remedy, if XDP stands where packets to this backend would leave the host
    /// with a checksum that was never completed.
    pub fn check_backend(&self, backend: SocketAddr) -> Result<(), DataplaneError> {
        let asked = self.hooked.iter().filter(|hooked| hooked.hook != Hook::Tc);
        for hooked in asked {
            let local = doctor::local_addresses();
            if first_forwarded([backend], &local).is_none() {
                continue;
            }
            choose_hook(
                &hooked.interface,
                match hooked.hook {
                    Hook::XdpGeneric => HookSpec::XdpGeneric,
                    Hook::Xdp | Hook::Tc => HookSpec::Xdp,
                },
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
        self.local_links.clear();
        self.hooked.clear();
    }
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

fn socket_address<'a>(
    object: &'a mut Ebpf,
    name: &str,
) -> Result<&'a mut CgroupSockAddr, DataplaneError> {
    let program = object.program_mut(name).ok_or_else(|| missing(name))?;
    program.try_into().map_err(|_: ProgramError| missing(name))
}

/// Whether what is pinned at a path is a link that is attached to this very place. A link outlives its
/// interface, and the index of that interface may be another one's by now.
fn is_on(path: &Path, place: Place<'_>) -> bool {
    raw::open_pin(path)
        .and_then(|link| sys::link_target(link.as_fd()))
        .is_ok_and(|target| target == place.id())
}

/// Detaches what is pinned at a path, if something is, and removes the pin.
fn leave(path: &Path) -> Result<(), DataplaneError> {
    // A link whose interface is gone refuses to be detached from it.
    let _ = sys::detach_link(path);
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(DataplaneError::kernel(
            format!("removing {}", path.display()),
            error,
        )),
        _ => Ok(()),
    }
}

/// Sees to it that our program is at a point: takes a pinned link over, or makes one.
fn put(
    object: &mut Ebpf,
    point: Point,
    place: Place<'_>,
    directory: &PinDirectory,
) -> Result<PinnedLink, DataplaneError> {
    load_program(object, point.program())?;
    let path = directory.links().join(point.name());
    if is_on(&path, place) {
        return PinnedLink::from_pin(&path).map_err(|error| {
            DataplaneError::Refused(format!(
                "taking over the link {}: {}",
                path.display(),
                chain(&error)
            ))
        });
    }
    leave(&path)?;
    let link = new_link(object, point, place)?;
    link.pin(&path).map_err(|error| {
        DataplaneError::Refused(format!("pinning {}: {}", path.display(), chain(&error)))
    })
}

/// The hooks for the host's own clients, all or none.
fn attach_local(
    object: &mut Ebpf,
    spec: LocalClientsSpec,
    directory: &PinDirectory,
    links: &mut Vec<PinnedLink>,
) -> Result<LocalHooks, DataplaneError> {
    if spec == LocalClientsSpec::Off {
        return Ok(LocalHooks::Off);
    }
    let cgroup = match Cgroup::root() {
        Ok(cgroup) => cgroup,
        Err(why) => return LocalHooks::without(spec, why),
    };
    let attempt: Result<Vec<_>, _> = program::LOCAL
        .into_iter()
        .map(|name| {
            put(
                object,
                Point::Local(name),
                Place::Cgroup(&cgroup),
                directory,
            )
        })
        .collect();
    match attempt {
        Ok(attached) => {
            links.extend(attached);
            Ok(LocalHooks::On(cgroup.path))
        }
        Err(error) => {
            for name in program::LOCAL {
                leave(&directory.links().join(Point::Local(name).name()))?;
            }
            LocalHooks::without(spec, error.to_string())
        }
    }
}

/// Puts our programs at the links that run others, before anything else is touched: all of them, or none.
/// Programs for the host's own clients that do not load are left to [`attach_local`].
fn renew(
    object: &mut Ebpf,
    hooked: &[Hooked],
    local_clients: LocalClientsSpec,
    directory: &PinDirectory,
) -> Result<(), DataplaneError> {
    let mut outdated = Vec::new();
    for hooked in hooked {
        let place = Place::Interface(&hooked.interface);
        for point in hooked.points() {
            let tag = load_program(object, point.program())?;
            outdated.extend(outdated_link(point, place, tag, directory)?);
        }
    }
    if local_clients != LocalClientsSpec::Off
        && let Ok(cgroup) = Cgroup::root()
    {
        for name in program::LOCAL {
            if let Ok(tag) = load_program(object, name) {
                let point = Point::Local(name);
                outdated.extend(outdated_link(
                    point,
                    Place::Cgroup(&cgroup),
                    tag,
                    directory,
                )?);
            }
        }
    }
    links::replace(object, &mut outdated).map_err(|(error, _)| error)
}

/// The link that is pinned for a point, if it is attached there and runs another program.
fn outdated_link(
    point: Point,
    place: Place<'_>,
    tag: u64,
    directory: &PinDirectory,
) -> Result<Option<Link>, DataplaneError> {
    let path = directory.links().join(point.name());
    if !is_on(&path, place) {
        return Ok(None);
    }
    Ok(Link::open(path)?
        .filter(|link| link.info.tag != tag)
        .map(|mut link| {
            link.wanted = point.program().to_owned();
            link
        }))
}

/// Attaches a loaded program anew.
fn new_link(object: &mut Ebpf, point: Point, place: Place<'_>) -> Result<FdLink, DataplaneError> {
    let failed = |error: &dyn std::error::Error| {
        DataplaneError::Refused(format!(
            "attaching {} to {}: {}; see why with: shifterctl doctor",
            point.program(),
            place.name(),
            chain(error)
        ))
    };
    let xdp_link = |object, index, mode| {
        let xdp = xdp(object, point.program())?;
        let id = xdp
            .attach_to_if_index(index, mode)
            .map_err(|error| failed(&error))?;
        let link = xdp.take_link(id).map_err(|error| failed(&error))?;
        FdLink::try_from(link).map_err(|error| failed(&error))
    };
    match (point, place) {
        (Point::Xdp(index), _) => xdp_link(object, index, XdpMode::Driver),
        (Point::XdpGeneric(index), _) => xdp_link(object, index, XdpMode::Skb),
        (Point::Local(name), Place::Cgroup(cgroup)) => {
            let program = socket_address(object, name)?;
            local::attach(program, cgroup).map_err(|error| failed(&*error))
        }
        _ => {
            let classifier = classifier(object, point.program())?;
            let direction = match point {
                Point::Egress(_) => TcAttachType::Egress,
                _ => TcAttachType::Ingress,
            };
            // Behind those that are there: their order stays as it is.
            let options = TcAttachOptions::TcxOrder(LinkOrder::default());
            let id = classifier
                .attach_with_options(&place.name(), direction, options)
                .map_err(|error| failed(&error))?;
            let link = classifier.take_link(id).map_err(|error| failed(&error))?;
            FdLink::try_from(link).map_err(|error| failed(&error))
        }
    }
}
