//! The lab: network namespaces as hosts, and the devices between them and the switches, all made over netlink.
//!
//! There are two sites, as if they were two machines: ours, and a namespace with a switch of its own. A veth between them is the
//! underlay, and two networks in tunnels stretch over both. At ours a router leads from one network to another, which stands for
//! the world.
//!
//! We move into a network namespace of our own first, which is where the switch's devices stand; as an ordinary user into
//! a user namespace too, where we are root. Namespaces have no names, so all of it ends with the process that holds them.

use std::fs::{self, OpenOptions};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;

use anyhow::Context;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use super::boot::BOOTS;
use crate::ports::link::Links;
use crate::ports::netns::Netns;
use crate::sys::xdp::bpf::{Map, Program};
use crate::sys::xdp::program::{self, Verdict};
use crate::types::Mac;

/// The VLAN of network `blue`, which the trunk carries.
pub(super) const BLUE: u16 = 100;
/// The VLAN of network `green`, which it does not.
pub(super) const GREEN: u16 = 200;
/// The VNIs of the networks in tunnels.
pub(super) const RED: u32 = 1001;
/// As [`RED`].
pub(super) const GREY: u32 = 1002;
/// The network behind the router, and the one that it leads to.
pub(super) const HOME: &str = "home";
/// As [`HOME`].
pub(super) const WORLD: &str = "world";
/// The router's address at [`HOME`].
pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// Its address outside: what `home1` leaves with (RFC 2544: for tests between routers).
pub(super) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 100);
/// The floating IP of `home2`.
pub(super) const FLOATING: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 101);
/// The floating IP of which a TCP port is `home1`'s: the port outside, and that of the guest.
pub(super) const FORWARDED: (Ipv4Addr, u16, u16) = (Ipv4Addr::new(198, 19, 0, 102), 8080, 80);
/// The device of each site towards the other.
const UNDERLAY: &str = "under0";
/// What tunnels leave of the underlay's 1500 bytes.
const TUNNEL_MTU: u32 = 1450;
/// The device of every host.
pub(super) const DEVICE: &str = "eth0";
/// The trunk's device, and its peer that we speak through.
pub(super) const TRUNK: (&str, &str) = ("trunk0", "trunk1");
/// The MAC of a TAP whose host asks for its address.
const ASKS_MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);
/// The TAP of the guest.
pub(super) const GUEST: &str = "guest0";
/// The MAC of that guest.
pub(super) const GUEST_MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

/// The networks in tunnels.
const TUNNELLED: [(&str, u32); 2] = [("red", RED), ("grey", GREY)];

/// What connects a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A TAP that the switch holds.
    Tap,
    /// A veth, the switch on AF_PACKET.
    Packet,
    /// A veth, the switch on AF_XDP.
    Xdp,
    /// A veth in the kernel's own bridge, to compare with.
    Bridge,
}

impl Kind {
    /// As the configuration names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Tap => "tap",
            Kind::Packet => "packet",
            Kind::Xdp => "xdp",
            Kind::Bridge => "bridge",
        }
    }
}

/// Where a switch runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Site {
    /// Our own namespace, with most of the lab.
    One,
    /// The namespace across the underlay.
    Two,
}

impl Site {
    /// The address of its VTEP (RFC 2544: for tests between hosts).
    pub(super) fn vtep(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, 0, if self == Site::One { 1 } else { 2 })
    }

    fn other(self) -> Site {
        if self == Site::One { Site::Two } else { Site::One }
    }
}

/// A namespace with one device and one address.
pub(super) struct Host {
    pub(super) name: String,
    pub(super) netns: Netns,
    pub(super) kind: Kind,
    /// The network that its port is in.
    pub(super) network: &'static str,
    /// Whose switch it stands at.
    pub(super) site: Site,
    pub(super) address: Ipv4Addr,
    /// The MAC that it is known by, if it asks for its address instead of having it from us.
    pub(super) asks: Option<Mac>,
}

impl Host {
    /// Connected to its switch in `home`, but for a TAP, which the switch makes.
    fn new(
        name: &str,
        kind: Kind,
        network: &'static str,
        (site, home): (Site, &Netns),
        address: [u8; 4],
    ) -> anyhow::Result<Host> {
        let host = Host::connected(name, kind, network, (site, home), address)?;
        if kind != Kind::Tap {
            host.netns.within(|| host.configure())??;
        }
        Ok(host)
    }

    /// The same, but it has no address: it asks for it.
    fn asking(
        name: &str,
        kind: Kind,
        network: &'static str,
        place: (Site, &Netns),
        address: [u8; 4],
    ) -> anyhow::Result<Host> {
        let host = Host::connected(name, kind, network, place, address)?;
        let asks = if kind == Kind::Tap { ASKS_MAC } else { host.mac()? };
        Ok(Host { asks: Some(asks), ..host })
    }

    fn connected(
        name: &str,
        kind: Kind,
        network: &'static str,
        (site, home): (Site, &Netns),
        address: [u8; 4],
    ) -> anyhow::Result<Host> {
        let (netns, name) = (Netns::anonymous(name)?, name.to_owned());
        if kind != Kind::Tap {
            connect((home, &name), (&netns, DEVICE))?;
        }
        Ok(Host { name, netns, kind, network, site, address: address.into(), asks: None })
    }

    fn configure(&self) -> anyhow::Result<()> {
        let mut links = Links::open()?;
        let index = links.get(DEVICE)?.index;
        if self.is_tunnelled() {
            links.set_mtu(index, TUNNEL_MTU)?;
        }
        Ok(links.add_address(index, IpAddr::V4(self.address), 24)?)
    }

    fn is_tunnelled(&self) -> bool {
        TUNNELLED.iter().any(|(network, _)| *network == self.network)
    }

    /// The MAC of its device.
    pub(super) fn mac(&self) -> anyhow::Result<Mac> {
        let link = self.netns.within(|| Links::open()?.get(DEVICE))??;
        link.mac.with_context(|| format!("{DEVICE} of {} has no MAC", self.name))
    }
}

/// A veth between two namespaces, under these names, both ends up.
fn connect((here, name): (&Netns, &str), (there, peer): (&Netns, &str)) -> anyhow::Result<()> {
    here.within(|| {
        let mut links = Links::open()?;
        links.add_veth(name, "nu-peer")?;
        let (ours, theirs) = (links.get(name)?.index, links.get("nu-peer")?.index);
        quiet(&mut links, ours);
        links.set_up(ours, true)?;
        links.set_netns(theirs, there.as_fd(), peer)
    })??;
    there.within(|| {
        let mut links = Links::open()?;
        let index = links.get(peer)?.index;
        quiet(&mut links, index);
        links.set_up(index, true)
    })??;
    Ok(())
}

/// No IPv6 chatter of the kernel's own in the counts. A kernel without IPv6 refuses, and has none.
fn quiet(links: &mut Links, index: u32) {
    let _ = links.set_no_link_local(index);
}

/// What this machine and this user allow.
pub(super) struct Abilities {
    /// In the machine's own user namespace.
    pub(super) root: bool,
    /// Why there are no TAPs.
    pub(super) no_tap: Option<String>,
    /// Why there is no AF_XDP.
    pub(super) no_xdp: Option<String>,
}

impl Abilities {
    /// The kinds of port that work here, with what they are compared to first.
    pub(super) fn kinds(&self) -> Vec<Kind> {
        let mut kinds = vec![Kind::Bridge];
        kinds.extend(self.no_tap.is_none().then_some(Kind::Tap));
        kinds.push(Kind::Packet);
        kinds.extend(self.no_xdp.is_none().then_some(Kind::Xdp));
        kinds
    }
}

/// Moves this process into a network namespace of its own. To be called while it has one thread.
pub(super) fn enter() -> anyhow::Result<Abilities> {
    let (user, group) = (geteuid(), getegid());
    let root = match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => true,
        Err(Errno::EPERM) => {
            enter_as_user(user.as_raw(), group.as_raw()).context(
                "this user may not make a lab: the system forbids user namespaces. Run it as root, or allow \
                 them (sysctl kernel.apparmor_restrict_unprivileged_userns=0, kernel.unprivileged_userns_clone=1, \
                 user.max_user_namespaces=10000)",
            )?;
            false
        }
        Err(error) => return Err(error).context("cannot make a network namespace"),
    };
    let no_tap = OpenOptions::new().read(true).write(true).open("/dev/net/tun").err();
    Ok(Abilities {
        root,
        no_tap: no_tap.map(|error| format!("/dev/net/tun: {error}")),
        no_xdp: try_xdp().err().map(|error| match error.raw_os_error() {
            Some(libc::EPERM) if !root => "loading its program needs root".to_owned(),
            _ => format!("bpf: {error}"),
        }),
    })
}

fn enter_as_user(user: u32, group: u32) -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
    // user_namespaces(7): a user maps itself alone, and the group only after giving up setgroups(2).
    fs::write("/proc/self/setgroups", "deny").context("/proc/self/setgroups")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1")).context("/proc/self/uid_map")?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1")).context("/proc/self/gid_map")?;
    // Some systems allow the namespace and take away what it is good for.
    Links::open()?.add_veth("nu-try", "nu-peer")?;
    let mut links = Links::open()?;
    let index = links.get("nu-try")?.index;
    Ok(links.delete(index)?)
}

fn try_xdp() -> io::Result<()> {
    let map = Map::xsk(1)?;
    Program::load(&program::redirect(&map, None, Verdict::Pass)).map(drop)
}

/// All hosts and devices.
pub(super) struct Lab {
    pub(super) can: Abilities,
    /// Two on the bridge, two for each kind of port on the flat network, two in each VLAN, one of each tunnelled network at
    /// each site, three behind the router, of which one asks for its address, and one outside of it.
    pub(super) hosts: Vec<Host>,
    /// Where the second switch runs.
    pub(super) far: Netns,
    /// Where the far end of the trunk stands.
    pub(super) trunk: Netns,
}

impl Lab {
    /// Makes everything but what the switch makes itself: the TAPs.
    pub(super) fn build(can: Abilities) -> anyhow::Result<Lab> {
        let (near, far) = (Netns::current()?, Netns::anonymous("host 2")?);
        let (one, two) = ((Site::One, &near), (Site::Two, &far));
        let mut hosts = Vec::new();
        let mut number = 0;
        for kind in can.kinds() {
            let network = if kind == Kind::Bridge { "none" } else { "open" };
            for which in 1..=2 {
                number += 1;
                let name = format!("{}{which}", kind.name());
                hosts.push(Host::new(&name, kind, network, one, [192, 0, 2, number])?);
            }
        }
        // One host of each VLAN by another kind of port. Both VLANs use the same addresses: only the switch keeps them apart.
        let first = if can.no_tap.is_none() { Kind::Tap } else { Kind::Packet };
        for (network, address) in [("blue", 1), ("green", 11)] {
            let address = |n: u8| [198, 51, 100, address + n];
            hosts.push(Host::new(&format!("{network}1"), first, network, one, address(0))?);
            hosts.push(Host::new(&format!("{network}2"), Kind::Packet, network, one, address(1))?);
        }
        // So do both networks in tunnels.
        for ((network, _), address) in TUNNELLED.into_iter().zip([1, 11]) {
            let kind = if network == "red" { first } else { Kind::Packet };
            for (which, site) in [(1, one), (2, two)] {
                let address = [203, 0, 113, address + which - 1];
                hosts.push(Host::new(&format!("{network}{which}"), kind, network, site, address)?);
            }
        }
        // Behind a router, and outside of it.
        hosts.push(Host::new("home1", first, HOME, one, [10, 0, 0, 11])?);
        hosts.push(Host::new("home2", Kind::Packet, HOME, one, [10, 0, 0, 12])?);
        hosts.push(Host::asking(BOOTS, first, HOME, one, [10, 0, 0, 13])?);
        hosts.push(Host::new("world1", Kind::Packet, WORLD, one, [198, 19, 0, 1])?);
        let trunk = Netns::anonymous("trunk")?;
        connect((&near, TRUNK.0), (&trunk, TRUNK.1))?;
        connect((&near, UNDERLAY), (&far, UNDERLAY))?;
        build_bridge()?;
        Ok(Lab { can, hosts, far, trunk })
    }

    /// The host of this name.
    pub(super) fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }

    /// The hosts of a network.
    pub(super) fn of(&self, network: &str) -> Vec<&Host> {
        self.hosts.iter().filter(|host| host.network == network).collect()
    }

    /// The pairs of hosts that rates are measured between, each with a title: one of each kind, and one across the tunnels.
    pub(super) fn pairs(&self) -> Vec<(&'static str, &Host, &Host)> {
        let kinds = self.can.kinds().into_iter().map(|kind| (kind.title(), kind.name()));
        let pair = |(title, name): (&'static str, &str)| {
            Some((title, self.host(&format!("{name}1"))?, self.host(&format!("{name}2"))?))
        };
        kinds.chain([("VXLAN", "red")]).filter_map(pair).collect()
    }

    /// The configuration of the switch at a site.
    pub(super) fn config(&self, site: Site, control: &str) -> anyhow::Result<String> {
        let mut text = format!("# A switch of `nuswitch demo`.\n\n[switch]\ncontrol = \"{control}\"\n");
        text.push_str(&self.overlay(site));
        if site == Site::One {
            text.push_str(&provider());
            text.push_str(&router());
        }
        for host in self.hosts.iter().filter(|host| host.site == site && host.kind != Kind::Bridge) {
            let Host { name, netns, network, address, .. } = host;
            let interface = match host.kind {
                Kind::Tap if host.asks.is_some() => {
                    format!("kind = \"tap\", name = \"{DEVICE}\", netns = \"{}\"", netns.path().display())
                }
                Kind::Tap => format!(
                    "kind = \"tap\", name = \"{DEVICE}\", netns = \"{}\", address = \"{address}/24\"",
                    netns.path().display()
                ),
                kind => format!("kind = \"{}\", name = \"{name}\"", kind.name()),
            };
            text.push_str(&format!(
                "\n[[port]]\nname = \"{name}\"\nnetwork = \"{network}\"\ninterface = {{ {interface} }}\n"
            ));
            if *network == HOME {
                text.push_str(&guest(host)?);
            }
        }
        if site == Site::Two {
            return Ok(text);
        }
        text.push_str(&format!(
            "\n[[port]]\nname = \"trunk\"\ntrunk = {{ physical_network = \"lab\", native = \"open\", allowed = [\"{BLUE}\"] }}\n\
             interface = {{ kind = \"packet\", name = \"{}\" }}\n",
            TRUNK.0
        ));
        if self.can.no_tap.is_none() {
            text.push_str(&format!(
                "\n[[port]]\nname = \"guest\"\nnetwork = \"open\"\nmac_address = \"{GUEST_MAC}\"\n\
                 interface = {{ kind = \"guest\", name = \"{GUEST}\" }}\n"
            ));
        }
        Ok(text)
    }

    /// The tunnels to the other site, and the networks in them.
    fn overlay(&self, site: Site) -> String {
        let mut text = format!(
            "\n[overlay]\ninterface = \"{UNDERLAY}\"\ndriver = \"{}\"\nlocal_ip = \"{}/24\"\npeers = [\"{}\"]\n",
            self.underlay(),
            site.vtep(),
            site.other().vtep()
        );
        for (name, vni) in TUNNELLED {
            text.push_str(&format!(
                "\n[[network]]\nname = \"{name}\"\nnetwork_type = \"vxlan\"\nsegmentation_id = {vni}\n"
            ));
        }
        text
    }

    /// The driver of the underlay's devices.
    pub(super) fn underlay(&self) -> &'static str {
        if self.can.no_xdp.is_none() { Kind::Xdp.name() } else { Kind::Packet.name() }
    }
}

/// What the switch knows of a guest behind the router, and holds it to: its addresses, and who may reach it.
fn guest(host: &Host) -> anyhow::Result<String> {
    let mac = match (host.asks, host.kind) {
        (Some(mac), _) => Some(mac),
        // The switch makes it, with the MAC of the port.
        (None, Kind::Tap) => None,
        (None, _) => Some(host.mac()?),
    };
    let mac = mac.map_or_else(String::new, |mac| format!("mac_address = \"{mac}\"\n"));
    let groups = if host.name == BOOTS { "" } else { "security_groups = [\"default\", \"web\"]\n" };
    Ok(format!("fixed_ips = [\"{}\"]\n{mac}port_security_enabled = true\n{groups}", host.address))
}

/// The physical network and what is on it.
fn provider() -> String {
    let mut text =
        "\n[[physical_network]]\nname = \"lab\"\n\n[[network]]\nname = \"open\"\nnetwork_type = \"flat\"\n\
         physical_network = \"lab\"\n"
            .to_owned();
    for (name, vlan) in [("blue", BLUE), ("green", GREEN)] {
        text.push_str(&format!(
            "\n[[network]]\nname = \"{name}\"\nnetwork_type = \"vlan\"\nphysical_network = \"lab\"\nsegmentation_id = {vlan}\n"
        ));
    }
    text
}

/// The router between `home` and the world, and what it translates.
fn router() -> String {
    let (forwarded, outer, inner) = FORWARDED;
    format!(
        r#"
[[network]]
name = "{WORLD}"
external = true

[[subnet]]
name = "{WORLD}"
network = "{WORLD}"
cidr = "198.19.0.0/24"

[[network]]
name = "{HOME}"

[[subnet]]
name = "{HOME}"
network = "{HOME}"
cidr = "10.0.0.0/24"
gateway_ip = "{GATEWAY}"

[[security_group]]
name = "web"
rules = [
    {{ direction = "ingress", protocol = "tcp", ports = {inner}, description = "the web, from everywhere" }},
    {{ direction = "ingress", protocol = "icmp" }},
]

[[router]]
name = "edge"
interfaces = ["{HOME}"]
external_gateway = {{ network = "{WORLD}", external_fixed_ips = ["{OUTSIDE}"] }}

[[floating_ip]]
floating_network = "{WORLD}"
floating_ip_address = "{FLOATING}"
port = "home2"

[[floating_ip]]
floating_network = "{WORLD}"
floating_ip_address = "{forwarded}"
port_forwardings = [{{ protocol = "tcp", external_port = {outer}, port = "home1", internal_port = {inner} }}]
"#
    )
}

/// The kernel's bridge between the hosts that are not the switch's.
fn build_bridge() -> anyhow::Result<()> {
    let mut links = Links::open()?;
    links.add_bridge("bridge")?;
    let bridge = links.get("bridge")?.index;
    quiet(&mut links, bridge);
    for port in ["bridge1", "bridge2"] {
        let index = links.get(port)?.index;
        links.set_master(index, Some(bridge))?;
    }
    Ok(links.set_up(bridge, true)?)
}
