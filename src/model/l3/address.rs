//! Who has which address of a network. Given addresses are claimed first, then those left out are handed out: an
//! object's address depends on the given ones and on the objects before it, and on nothing else.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::ops::Range;

use toml::Spanned;

use super::ipam::Ipam;
use super::read::DraftFixedIps;
use super::subnet::{Subnets, no_host};
use crate::model::diagnostic::{Report, Reported};
use crate::model::read::DraftNetwork;
use crate::model::schema::*;
use crate::types::Mac;

/// An object that has addresses, for messages.
#[derive(Clone, Copy)]
pub(super) struct Owner<'d> {
    pub(super) kind: &'static str,
    /// Empty where the object has none.
    pub(super) name: &'d str,
    pub(super) line: usize,
}

impl fmt::Display for Owner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            "" => write!(f, "the {} of line {}", self.kind, self.line),
            name => write!(f, "{} `{name}` of line {}", self.kind, self.line),
        }
    }
}

/// An object that wants fixed IPs on a network.
pub(super) struct Asking<'d> {
    pub(super) owner: Owner<'d>,
    pub(super) network: usize,
    /// Where to say that none is left.
    pub(super) at: Range<usize>,
    /// The path of the list.
    pub(super) path: String,
}

/// What an object gets, as far as it is known before addresses are handed out.
pub(super) enum Wanted {
    /// Its list, and whether that is all of it.
    Listed(Vec<Slot>, Result<(), Reported>),
    /// One for each family that the network has.
    EachFamily,
}

pub(super) enum Slot {
    Given(FixedIp),
    /// The next free one of a subnet.
    Next {
        subnet: usize,
        at: Range<usize>,
    },
}

/// The addresses of all networks.
pub(super) struct Space<'d, 'r> {
    pub(super) report: &'r Report<'r>,
    pub(super) networks: &'d [DraftNetwork],
    pub(super) subnets: &'d Subnets<'d>,
    owners: HashMap<(usize, IpAddr), Owner<'d>>,
    /// By subnet.
    free: Vec<Ipam>,
}

impl<'d, 'r> Space<'d, 'r> {
    pub(super) fn new(
        report: &'r Report<'r>,
        networks: &'d [DraftNetwork],
        subnets: &'d Subnets<'d>,
    ) -> Space<'d, 'r> {
        let pools = |index| subnets.get(index).map(|known| Ipam::new(&known.object.allocation_pools));
        let free = (0..subnets.len()).map(|index| pools(index).unwrap_or_default()).collect();
        let mut space = Space { report, networks, subnets, owners: HashMap::new(), free };
        for (index, network) in networks.iter().enumerate() {
            // Collisions with these are reported where remote ports are judged.
            for ip in network.tunnels.remote_ports.iter().flat_map(|remote| &remote.fixed_ips) {
                space.withhold(index, *ip.get_ref());
            }
        }
        space
    }

    /// The name of a network.
    pub(super) fn network(&self, index: usize) -> &'d str {
        &self.networks[index].object.name
    }

    /// The subnet of a network that an address is on.
    pub(super) fn subnet_at(&self, network: usize, ip: IpAddr) -> Option<(usize, &'d Subnet)> {
        self.subnets.of(network).find(|(_, subnet)| subnet.cidr.contains(&ip))
    }

    /// Hands `ip` out to nobody.
    pub(super) fn withhold(&mut self, network: usize, ip: IpAddr) {
        if let Some((subnet, _)) = self.subnet_at(network, ip) {
            self.free[subnet].reserve(ip);
        }
    }

    /// Takes an address that was given. An object may have one only once.
    pub(super) fn claim(
        &mut self,
        owner: Owner<'d>,
        network: usize,
        ip: IpAddr,
        at: Range<usize>,
        path: &str,
        hint: Option<&str>,
    ) -> Result<(), Reported> {
        self.withhold(network, ip);
        let Some(other) = self.owners.get(&(network, ip)) else {
            self.owners.insert((network, ip), owner);
            return Ok(());
        };
        let name = self.network(network);
        let message = format!("{ip} is already used on network `{name}`, by {other}");
        Err(self.report.add(at, path, message, hint.map(str::to_owned)))
    }

    /// Takes an address of a subnet that was given.
    pub(super) fn claim_on(
        &mut self,
        owner: Owner<'d>,
        subnet: usize,
        ip: &Spanned<IpAddr>,
        path: &str,
    ) -> Result<FixedIp, Reported> {
        let known = self.subnets.get(subnet).ok_or(Reported)?;
        if let Some(message) = no_host(&known.object.name, known.object.cidr, *ip.get_ref()) {
            return Err(self.report.add(ip.span(), path, message, None));
        }
        self.claim(owner, known.network, *ip.get_ref(), ip.span(), path, None)?;
        Ok(fixed_ip(&known.object, *ip.get_ref()))
    }

    /// Claims what is given in a list; what is left out follows in [`Space::hand_out`].
    pub(super) fn reserve(&mut self, asking: &Asking<'d>, listed: Option<&DraftFixedIps>) -> Wanted {
        let Some(listed) = listed else { return Wanted::EachFamily };
        let mut whole = listed.whole;
        let mut slots = Vec::new();
        for item in &listed.items {
            let subnet = match (&item.subnet, &item.ip) {
                (Some(name), _) => self.subnet_of(asking, name),
                (None, Some(ip)) => self.subnet_with(asking, ip),
                (None, None) => Err(Reported),
            };
            let slot = subnet.and_then(|subnet| match &item.ip {
                Some(ip) => self.claim_on(asking.owner, subnet, ip, &asking.path).map(Slot::Given),
                None => Ok(Slot::Next { subnet, at: item.at.clone() }),
            });
            match slot {
                Ok(slot) => slots.push(slot),
                Err(reported) => whole = Err(reported),
            }
        }
        Wanted::Listed(slots, whole)
    }

    /// The subnet that `name` means, which must be one of the network.
    fn subnet_of(&self, asking: &Asking<'_>, name: &Spanned<String>) -> Result<usize, Reported> {
        let path = format!("{}.subnet", asking.path);
        let index = self.subnets.refer(self.report, name, &path)?;
        let known = self.subnets.get(index).ok_or(Reported)?;
        if known.network == asking.network {
            return Ok(index);
        }
        let message = format!(
            "subnet `{}` is of network `{}`, not of `{}`",
            name.get_ref(),
            known.object.network,
            self.network(asking.network)
        );
        Err(self.report.add(name.span(), &path, message, None))
    }

    /// The subnet of the network that an address is on.
    fn subnet_with(&self, asking: &Asking<'_>, ip: &Spanned<IpAddr>) -> Result<usize, Reported> {
        if let Some((subnet, _)) = self.subnet_at(asking.network, *ip.get_ref()) {
            return Ok(subnet);
        }
        self.subnets.whole?;
        let cidrs: Vec<String> =
            self.subnets.of(asking.network).map(|(_, subnet)| subnet.cidr.to_string()).collect();
        let hint = match cidrs.len() {
            0 => "the network has none: write [[subnet]] with its `network` and `cidr`".to_owned(),
            1..=5 => format!("it has {}", cidrs.join(", ")),
            count => format!("it has {count} others"),
        };
        let name = self.network(asking.network);
        let message = format!("{} is on no subnet of network `{name}`", ip.get_ref());
        Err(self.report.add(ip.span(), &asking.path, message, Some(hint)))
    }

    /// The addresses of an object, those left out filled in: on subnets whose guests make them out of their MACs, that one.
    pub(super) fn hand_out(
        &mut self,
        asking: &Asking<'d>,
        wanted: Wanted,
        mac: Option<Mac>,
    ) -> Result<Vec<FixedIp>, Reported> {
        let (slots, whole) = match wanted {
            Wanted::EachFamily => return self.each_family(asking, mac),
            Wanted::Listed(slots, whole) => (slots, whole),
        };
        let mut fixed_ips = Vec::new();
        for slot in slots {
            match slot {
                Slot::Given(fixed_ip) => fixed_ips.push(fixed_ip),
                Slot::Next { subnet, at } => match self.automatic_or_next(asking, subnet, mac)? {
                    Some(fixed_ip) => fixed_ips.push(fixed_ip),
                    None => {
                        let name = self.subnets.get(subnet).map_or("", |known| &known.object.name);
                        let message = format!("the allocation_pools of subnet `{name}` are used up");
                        return Err(self.none_left(asking, at, message));
                    }
                },
            }
        }
        whole.map(|()| fixed_ips)
    }

    /// The next free address of IPv4 and of IPv6, as far as the network has subnets of them; of the first subnet that
    /// has one. And one of each subnet whose guests make them out of their MACs (as Neutron's ports have).
    fn each_family(&mut self, asking: &Asking<'d>, mac: Option<Mac>) -> Result<Vec<FixedIp>, Reported> {
        let mut fixed_ips = Vec::new();
        let all: Vec<(usize, bool, bool)> = (self.subnets.of(asking.network))
            .map(|(index, subnet)| (index, subnet.cidr.addr().is_ipv4(), automatic(subnet, mac).is_some()))
            .collect();
        for is_ipv4 in [true, false] {
            let subnets: Vec<usize> = all
                .iter()
                .filter(|(_, v4, made)| *v4 == is_ipv4 && !made)
                .map(|(index, ..)| *index)
                .collect();
            match subnets.iter().find_map(|subnet| self.next(asking, *subnet)) {
                Some(fixed_ip) => fixed_ips.push(fixed_ip),
                None if subnets.is_empty() => {}
                None => return Err(self.family_used_up(asking, is_ipv4)),
            }
        }
        for (subnet, ..) in all.into_iter().filter(|(.., made)| *made) {
            fixed_ips.extend(self.automatic_or_next(asking, subnet, mac)?);
        }
        Ok(fixed_ips)
    }

    /// The address that a guest makes out of its MAC on a subnet, or the next free one.
    fn automatic_or_next(
        &mut self,
        asking: &Asking<'d>,
        subnet: usize,
        mac: Option<Mac>,
    ) -> Result<Option<FixedIp>, Reported> {
        let Some(known) = self.subnets.get(subnet) else { return Err(Reported) };
        let Some(ip) = automatic(&known.object, mac) else { return Ok(self.next(asking, subnet)) };
        self.claim(asking.owner, known.network, ip, asking.at.clone(), &asking.path, None)?;
        Ok(Some(fixed_ip(&known.object, ip)))
    }

    /// Reports that a network has no address left for an object.
    pub(super) fn family_used_up(&self, asking: &Asking<'_>, is_ipv4: bool) -> Reported {
        let family = if is_ipv4 { "IPv4" } else { "IPv6" };
        let name = self.network(asking.network);
        let message = format!("the {family} allocation_pools of network `{name}` are used up");
        self.none_left(asking, asking.at.clone(), message)
    }

    /// Silent where a mistake of a subnet may be the reason.
    fn none_left(&self, asking: &Asking<'_>, at: Range<usize>, message: String) -> Reported {
        let hint = "give an address outside of the pools, or a subnet longer pools".to_owned();
        match self.subnets.whole {
            Ok(()) => self.report.add(at, &asking.path, message, Some(hint)),
            Err(reported) => reported,
        }
    }

    /// The next free address of a subnet, now taken.
    pub(super) fn next(&mut self, asking: &Asking<'d>, subnet: usize) -> Option<FixedIp> {
        let known = self.subnets.get(subnet)?;
        let ip = self.free[subnet].next()?;
        self.owners.insert((known.network, ip), asking.owner);
        Some(fixed_ip(&known.object, ip))
    }
}

/// The address that a guest with this MAC makes for itself on a subnet, if guests do so there (RFC 4291, appendix A).
fn automatic(subnet: &Subnet, mac: Option<Mac>) -> Option<IpAddr> {
    subnet.ipv6_address_mode.filter(|mode| mode.is_automatic())?;
    let IpAddr::V6(prefix) = subnet.cidr.network() else { return None };
    Some(mac?.address_on(prefix).into())
}

/// An address of a subnet.
pub(super) fn fixed_ip(subnet: &Subnet, ip: IpAddr) -> FixedIp {
    FixedIp { ip, subnet: subnet.name.clone(), prefix_len: subnet.cidr.prefix_len() }
}
