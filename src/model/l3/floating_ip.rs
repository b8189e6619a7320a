//! Floating IPs: their addresses, what each stands for, and the router that knows the way there.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use toml::Spanned;

use super::address::{Asking, Owner, Space};
use super::read::{DraftFloatingIp, DraftForwarding};
use crate::model::diagnostic::Reported;
use crate::model::read::DraftPort;
use crate::model::reader::Field;
use crate::model::schema::*;
use crate::model::validate::{Names, refer};

/// A floating IP with its address claimed, where that was given.
pub(super) struct Claimed<'d> {
    draft: &'d DraftFloatingIp,
    asking: Asking<'d>,
    address: Option<Ipv4Addr>,
}

/// Claims the addresses that were given. Those with a mistake are left out.
pub(super) fn reserve<'d>(
    space: &mut Space<'d, '_>,
    drafts: &'d [DraftFloatingIp],
    network_names: &Names<'_>,
) -> Vec<Claimed<'d>> {
    let mut all = Vec::new();
    for draft in drafts {
        let path = |key: &str| format!("{}.{key}", draft.at.path);
        let (Ok(name), Ok(address)) = (&draft.network, &draft.address) else { continue };
        let network_path = path("floating_network");
        let Ok(network) = refer(space.report, network_names, "network", name, &network_path) else {
            continue;
        };
        if !space.networks[network].object.external {
            let message = format!("network `{}` is not external", name.get_ref());
            let hint = Some("give the network `external = true`".to_owned());
            space.report.add(name.span(), &network_path, message, hint);
            continue;
        }
        let owner = Owner { kind: "floating IP", name: "", line: draft.origin.line };
        let asking = Asking { owner, network, at: draft.at.name.clone(), path: path("floating_ip_address") };
        let claimed = match address {
            Some(given) => claim(space, &asking, given).map(Some),
            None => Ok(None),
        };
        if let Ok(address) = claimed {
            all.push(Claimed { draft, asking, address });
        }
    }
    all
}

fn claim<'d>(
    space: &mut Space<'d, '_>,
    asking: &Asking<'d>,
    given: &Spanned<Ipv4Addr>,
) -> Result<Ipv4Addr, Reported> {
    let ip = Spanned::new(given.span(), IpAddr::V4(*given.get_ref()));
    let Some((subnet, _)) = space.subnet_at(asking.network, *ip.get_ref()) else {
        space.subnets.whole?;
        let name = space.network(asking.network);
        let message = format!("{} is on no subnet of network `{name}`", given.get_ref());
        let hint = Some("an address of the floating_network stands here".to_owned());
        return Err(space.report.add(given.span(), &asking.path, message, hint));
    };
    if space.subnets.get(subnet).and_then(|known| known.object.gateway_ip) == Some(*ip.get_ref()) {
        let message = format!("{} is the gateway_ip of its subnet", given.get_ref());
        return Err(space.report.add(given.span(), &asking.path, message, None));
    }
    space.claim_on(asking.owner, subnet, &ip, &asking.path).map(|_| *given.get_ref())
}

/// Hands out the addresses that were left out: the next free ones of the network's IPv4 subnets.
pub(super) fn hand_out<'d>(space: &mut Space<'d, '_>, mut claimed: Vec<Claimed<'d>>) -> Vec<Claimed<'d>> {
    claimed.retain_mut(|floating| {
        if floating.address.is_some() {
            return true;
        }
        let subnets = space.subnets.of(floating.asking.network);
        let subnets: Vec<usize> =
            subnets.filter(|(_, s)| s.cidr.addr().is_ipv4()).map(|(index, _)| index).collect();
        let next = subnets.iter().find_map(|subnet| space.next(&floating.asking, *subnet));
        match next.map(|fixed_ip| fixed_ip.ip) {
            Some(IpAddr::V4(ip)) => floating.address = Some(ip),
            _ if subnets.is_empty() && space.subnets.whole.is_ok() => {
                let name = space.network(floating.asking.network);
                let message = format!("network `{name}` has no IPv4 subnet to take an address from");
                let hint = Some("write [[subnet]] with its `network` and `cidr`".to_owned());
                space.report.add(floating.asking.at.clone(), &floating.asking.path, message, hint);
            }
            _ => {
                space.family_used_up(&floating.asking, true);
            }
        }
        floating.address.is_some()
    });
    claimed
}

/// What floating IPs may lead to.
pub(super) struct Targets<'t, 'd> {
    pub(super) ports: &'d [DraftPort],
    pub(super) port_names: &'t Names<'d>,
    /// By port; an error hides what they are.
    pub(super) fixed_ips: &'t [Result<Vec<FixedIp>, Reported>],
    pub(super) routers: &'t [Router],
    /// Whether those are all routers and interfaces that were meant.
    pub(super) whole: bool,
}

/// A fixed IP that a floating one leads to.
struct Inside<'t> {
    port: &'t str,
    ip: Ipv4Addr,
    subnet: &'t str,
    at: Range<usize>,
}

/// Ports of an address that are forwarded: protocol, first and last port, line.
type Forwarded = (u8, (u16, u16), usize);

/// What fixed IPs are used for, as far as that excludes another use: by network of the floating IP, port and address, with
/// the line of the use.
#[derive(Default)]
struct Uses {
    whole: HashMap<(usize, String, Ipv4Addr), usize>,
    /// Of each fixed IP.
    ports: HashMap<(String, Ipv4Addr), Vec<Forwarded>>,
    /// Networks and fixed IPs with forwarded ports, and a line of one.
    forwarded: HashMap<(usize, String, Ipv4Addr), usize>,
}

/// Floating IPs with their targets and routers.
pub(super) fn finish<'d>(
    space: &Space<'d, '_>,
    claimed: Vec<Claimed<'d>>,
    targets: &Targets<'_, 'd>,
) -> Vec<FloatingIp> {
    let mut uses = Uses::default();
    claimed
        .into_iter()
        .filter_map(|floating| {
            let network = space.network(floating.asking.network);
            let address = floating.address?;
            let mut finished = FloatingIp {
                id: crate::model::id("floating_ip", &format!("{network}/{address}")),
                floating_ip_address: address,
                floating_network: network.to_owned(),
                router: None,
                target: None,
                port_forwardings: Vec::new(),
                origin: floating.draft.origin.clone(),
            };
            let mut finder = Finder { space, floating: &floating, targets, uses: &mut uses };
            finder.target(&mut finished);
            finder.forwardings(&mut finished);
            Some(finished)
        })
        .collect()
}

/// Looks for what one floating IP stands for.
struct Finder<'f, 'd, 'r> {
    space: &'f Space<'d, 'r>,
    floating: &'f Claimed<'d>,
    targets: &'f Targets<'f, 'd>,
    uses: &'f mut Uses,
}

impl<'f> Finder<'f, '_, '_> {
    fn path(&self, key: &str) -> String {
        format!("{}.{key}", self.floating.draft.at.path)
    }

    fn target(&mut self, finished: &mut FloatingIp) {
        let draft = self.floating.draft;
        let Ok(Some(port)) = &draft.port else { return };
        let keys = [self.path("port"), self.path("fixed_ip_address")];
        let Ok(inside) = self.inside(port, &draft.fixed_ip_address, &keys) else { return };
        let key = (self.floating.asking.network, inside.port.to_owned(), inside.ip);
        let others = self.uses.whole.get(&key).or(self.uses.forwarded.get(&key));
        if let Some(other) = others {
            let message = format!(
                "{} of port `{}` has a floating IP of this network already, in line {other}",
                inside.ip, inside.port
            );
            self.space.report.add(inside.at, &keys[0], message, None);
            return;
        }
        self.uses.whole.insert(key, draft.origin.line);
        finished.router = self.router(&[&inside], &keys[0]);
        finished.target = Some(FloatingTarget { port: inside.port.to_owned(), fixed_ip_address: inside.ip });
    }

    /// A fixed IP of a port: given, or the only one. `keys` are the paths of the port and of the address.
    fn inside(
        &self,
        name: &Spanned<String>,
        ip: &Field<Ipv4Addr>,
        keys: &[String; 2],
    ) -> Result<Inside<'f>, Reported> {
        let report = self.space.report;
        let index = refer(report, self.targets.port_names, "port", name, &keys[0])?;
        let port = self.targets.ports[index].name.as_str();
        let fixed_ips = self.targets.fixed_ips[index].as_ref().map_err(|reported| *reported)?;
        let v4 = fixed_ips.iter().filter_map(|fixed| match fixed.ip {
            IpAddr::V4(ip) => Some((ip, fixed.subnet.as_str())),
            IpAddr::V6(_) => None,
        });
        let v4: Vec<(Ipv4Addr, &str)> = v4.collect();
        let list = || v4.iter().map(|(ip, _)| ip.to_string()).collect::<Vec<_>>().join(", ");
        match (ip.as_ref().map_err(|reported| *reported)?, v4.as_slice()) {
            (_, []) => {
                let hint = Some("give the network an IPv4 [[subnet]], or the port fixed_ips".to_owned());
                Err(report.add(name.span(), &keys[0], format!("port `{port}` has no IPv4 address"), hint))
            }
            (Some(ip), v4) => match v4.iter().find(|(own, _)| own == ip.get_ref()) {
                Some((own, subnet)) => Ok(Inside { port, ip: *own, subnet, at: ip.span() }),
                None => {
                    let message = format!("{} is no address of port `{port}`", ip.get_ref());
                    Err(report.add(ip.span(), &keys[1], message, Some(format!("it has {}", list()))))
                }
            },
            (None, [(own, subnet)]) => Ok(Inside { port, ip: *own, subnet, at: name.span() }),
            (None, _) => {
                let message = format!("port `{port}` has several IPv4 addresses");
                let key = keys[1].rsplit('.').next().unwrap_or_default();
                let hint = format!("say which in `{key}`: {}", list());
                Err(report.add(name.span(), &keys[0], message, Some(hint)))
            }
        }
    }

    /// The router that has its gateway on the floating IP's network, and an interface on the subnet of each of `inside`.
    /// Of several, the one that is the subnet's gateway, else the first.
    fn router(&self, inside: &[&Inside<'_>], path: &str) -> Option<String> {
        let network = self.space.network(self.floating.asking.network);
        let has_gateway = |router: &&Router| {
            let gateway = router.external_gateway.as_ref();
            gateway.is_some_and(|gateway| {
                gateway.network == network && gateway.fixed_ips.iter().any(|fixed| fixed.ip.is_ipv4())
            })
        };
        let on = |router: &Router, inside: &Inside<'_>| {
            let fixed_ips = router.interfaces.iter().flat_map(|interface| &interface.fixed_ips);
            let mut own = fixed_ips.filter(|fixed| fixed.subnet == inside.subnet);
            own.next().map(|fixed| fixed.ip)
        };
        let is_gateway = |router: &Router, inside: &Inside<'_>| {
            let subnet = self.space.subnets.named(inside.subnet);
            on(router, inside).is_some() && on(router, inside) == subnet.and_then(|s| s.object.gateway_ip)
        };
        let candidates: Vec<&Router> = self.targets.routers.iter().filter(has_gateway).collect();
        let mut reaching: Vec<&Router> = candidates.clone();
        for one in inside {
            let before = reaching.clone();
            reaching.retain(|router| on(router, one).is_some());
            if reaching.is_empty() {
                self.unreached(one, path, &candidates, &before);
                return None;
            }
        }
        let best = reaching.iter().find(|router| inside.iter().any(|one| is_gateway(router, one)));
        best.or(reaching.first()).map(|router| router.name.clone())
    }

    /// Reports that no router of `candidates`, those with a gateway on the network, leads to a fixed IP. `before` have
    /// led to all forwarded ones before it.
    fn unreached(&self, inside: &Inside<'_>, path: &str, candidates: &[&Router], before: &[&Router]) {
        if !self.targets.whole {
            return;
        }
        let network = self.space.network(self.floating.asking.network);
        let (ip, subnet) = (inside.ip, inside.subnet);
        let message = format!("no router leads from network `{network}` to {ip} of port `{}`", inside.port);
        let hint = match before.first().or(candidates.first()) {
            Some(router) => format!("give router `{}` an interface on subnet `{subnet}`", router.name),
            None => format!(
                "write a [[router]] with external_gateway = {{ network = \"{network}\" }} (with an IPv4 address) and \
                 interfaces = [\"{subnet}\"]"
            ),
        };
        self.space.report.add(inside.at.clone(), path, message, Some(hint));
    }

    fn forwardings(&mut self, finished: &mut FloatingIp) {
        // With a port too there is a mistake, which was reported.
        if !matches!(self.floating.draft.port, Ok(None)) {
            return;
        }
        let path = self.path("port_forwardings");
        let keys = [format!("{path}.port"), format!("{path}.internal_ip_address")];
        let mut insides = Vec::new();
        let mut outside: Vec<Forwarded> = Vec::new();
        for draft in &self.floating.draft.port_forwardings {
            let line = self.space.report.line(draft.at.start);
            self.no_overlap_outside(draft, &mut outside, line, &path);
            let Ok(port) = &draft.port else { continue };
            let Ok(inside) = self.inside(port, &draft.internal_ip_address, &keys) else { continue };
            if let Some(forwarding) = self.forwarding(draft, &inside, line, &path) {
                finished.port_forwardings.push(forwarding);
                insides.push(inside);
            }
        }
        if !insides.is_empty() {
            finished.router = self.router(&insides.iter().collect::<Vec<_>>(), &keys[0]);
        }
    }

    fn no_overlap_outside(
        &self,
        draft: &DraftForwarding,
        outside: &mut Vec<Forwarded>,
        line: usize,
        path: &str,
    ) {
        let (Ok(protocol), Ok(ports)) = (draft.protocol, &draft.external_ports) else { return };
        if let Some(other) = overlapping(outside, protocol, *ports.get_ref()) {
            let message = format!("{} is forwarded already, by line {other}", words(*ports.get_ref()));
            self.space.report.add(ports.span(), &format!("{path}.external_port"), message, None);
        }
        outside.push((protocol, *ports.get_ref(), line));
    }

    /// One forwarding, where it excludes no other: what leaves an inner port must have one address outside.
    fn forwarding(
        &mut self,
        draft: &DraftForwarding,
        inside: &Inside<'_>,
        line: usize,
        path: &str,
    ) -> Option<PortForwarding> {
        let (protocol, external) = (draft.protocol.ok()?, draft.external_ports.as_ref().ok()?);
        let internal = draft.internal_ports.as_ref().ok()?.as_ref().unwrap_or(external);
        let network = self.floating.asking.network;
        let key = (network, inside.port.to_owned(), inside.ip);
        if let Some(other) = self.uses.whole.get(&key) {
            let message = format!(
                "{} of port `{}` has a floating IP of this network of its own, in line {other}",
                inside.ip, inside.port
            );
            self.space.report.add(inside.at.clone(), &format!("{path}.port"), message, None);
            return None;
        }
        self.uses.forwarded.entry(key).or_insert(line);
        let taken = self.uses.ports.entry((inside.port.to_owned(), inside.ip)).or_default();
        if let Some(other) = overlapping(taken, protocol, *internal.get_ref()) {
            let message = format!(
                "{} of {} has a forwarding already, of line {other}",
                words(*internal.get_ref()),
                inside.ip
            );
            self.space.report.add(internal.span(), &format!("{path}.internal_port"), message, None);
            return None;
        }
        taken.push((protocol, *internal.get_ref(), line));
        Some(PortForwarding {
            protocol,
            external_ports: *external.get_ref(),
            internal_port: inside.port.to_owned(),
            internal_ip_address: inside.ip,
            internal_ports: *internal.get_ref(),
        })
    }
}

/// The line of a range of the same protocol that has a port in common.
fn overlapping(taken: &[Forwarded], protocol: u8, (from, to): (u16, u16)) -> Option<usize> {
    let overlaps = |other: &&Forwarded| other.0 == protocol && other.1.0 <= to && from <= other.1.1;
    taken.iter().find(overlaps).map(|other| other.2)
}

fn words((from, to): (u16, u16)) -> String {
    if from == to { format!("port {from}") } else { format!("a port of {from}-{to}") }
}
