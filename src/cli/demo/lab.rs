//! The lab: network namespaces as hosts, and the devices between them and the switch, all made over netlink.
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

use crate::ports::link::Links;
use crate::ports::netns::Netns;
use crate::sys::xdp::bpf::{Map, Program};
use crate::sys::xdp::program::{self, Verdict};
use crate::types::Mac;

/// The VLAN of network `blue`, which the trunk carries.
pub(super) const BLUE: u16 = 100;
/// The VLAN of network `green`, which it does not.
pub(super) const GREEN: u16 = 200;
/// The device of every host.
pub(super) const DEVICE: &str = "eth0";
/// The trunk's device, and its peer that we speak through.
pub(super) const TRUNK: (&str, &str) = ("trunk0", "trunk1");
/// The TAP of the guest.
pub(super) const GUEST: &str = "guest0";

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

/// A namespace with one device and one address.
pub(super) struct Host {
    pub(super) name: String,
    pub(super) netns: Netns,
    pub(super) kind: Kind,
    /// The network that its port is in.
    pub(super) network: &'static str,
    pub(super) address: Ipv4Addr,
}

impl Host {
    fn new(name: &str, kind: Kind, network: &'static str, address: [u8; 4]) -> anyhow::Result<Host> {
        let netns = Netns::anonymous(name)?;
        let host = Host { name: name.to_owned(), netns, kind, network, address: address.into() };
        if kind != Kind::Tap {
            host.connect()?;
        }
        Ok(host)
    }

    /// A veth from our namespace, under the host's name, to its device.
    fn connect(&self) -> anyhow::Result<()> {
        let mut links = Links::open()?;
        links.add_veth(&self.name, "nu-peer")?;
        let (ours, theirs) = (links.get(&self.name)?.index, links.get("nu-peer")?.index);
        quiet(&mut links, ours);
        links.set_up(ours, true)?;
        links.set_netns(theirs, self.netns.as_fd(), DEVICE)?;
        self.netns.within(|| {
            let mut links = Links::open()?;
            let index = links.get(DEVICE)?.index;
            quiet(&mut links, index);
            links.set_up(index, true)?;
            links.add_address(index, IpAddr::V4(self.address), 24)
        })??;
        Ok(())
    }

    /// The MAC of its device.
    pub(super) fn mac(&self) -> anyhow::Result<Mac> {
        let link = self.netns.within(|| Links::open()?.get(DEVICE))??;
        link.mac.with_context(|| format!("{DEVICE} of {} has no MAC", self.name))
    }
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
    /// Two on the bridge, two for each kind of port on the flat network, two in each VLAN.
    pub(super) hosts: Vec<Host>,
    /// Where the far end of the trunk stands.
    pub(super) trunk: Netns,
}

impl Lab {
    /// Makes everything but what the switch makes itself: the TAPs.
    pub(super) fn build(can: Abilities) -> anyhow::Result<Lab> {
        let mut hosts = Vec::new();
        let mut number = 0;
        for kind in can.kinds() {
            let network = if kind == Kind::Bridge { "none" } else { "open" };
            for which in 1..=2 {
                number += 1;
                let name = format!("{}{which}", kind.name());
                hosts.push(Host::new(&name, kind, network, [192, 0, 2, number])?);
            }
        }
        // One host of each VLAN by another kind of port. Both VLANs use the same addresses: only the switch keeps them apart.
        let first = if can.no_tap.is_none() { Kind::Tap } else { Kind::Packet };
        for (network, address) in [("blue", 1), ("green", 11)] {
            let address = |n: u8| [198, 51, 100, address + n];
            hosts.push(Host::new(&format!("{network}1"), first, network, address(0))?);
            hosts.push(Host::new(&format!("{network}2"), Kind::Packet, network, address(1))?);
        }
        let trunk = Netns::anonymous("trunk")?;
        connect_trunk(&trunk)?;
        build_bridge()?;
        Ok(Lab { can, hosts, trunk })
    }

    /// The host of this name.
    pub(super) fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }

    /// The hosts of a network.
    pub(super) fn of(&self, network: &str) -> Vec<&Host> {
        self.hosts.iter().filter(|host| host.network == network).collect()
    }

    /// The two hosts of a kind that rates are measured between.
    pub(super) fn pair(&self, kind: Kind) -> Option<(&Host, &Host)> {
        let name = kind.name();
        Some((self.host(&format!("{name}1"))?, self.host(&format!("{name}2"))?))
    }

    /// The configuration of the switch in this lab.
    pub(super) fn config(&self, control: &str) -> String {
        let mut text = format!(
            "# The switch of `nuswitch demo`.\n\n[switch]\ncontrol = \"{control}\"\n\n\
             [[physical_network]]\nname = \"lab\"\n\n\
             [[network]]\nname = \"open\"\nnetwork_type = \"flat\"\nphysical_network = \"lab\"\n"
        );
        for (name, vlan) in [("blue", BLUE), ("green", GREEN)] {
            text.push_str(&format!(
                "\n[[network]]\nname = \"{name}\"\nnetwork_type = \"vlan\"\nphysical_network = \"lab\"\nsegmentation_id = {vlan}\n"
            ));
        }
        for host in self.hosts.iter().filter(|host| host.kind != Kind::Bridge) {
            let Host { name, netns, network, address, .. } = host;
            let interface = match host.kind {
                Kind::Tap => format!(
                    "kind = \"tap\", name = \"{DEVICE}\", netns = \"{}\", address = \"{address}/24\"",
                    netns.path().display()
                ),
                kind => format!("kind = \"{}\", name = \"{name}\"", kind.name()),
            };
            text.push_str(&format!(
                "\n[[port]]\nname = \"{name}\"\nnetwork = \"{network}\"\ninterface = {{ {interface} }}\n"
            ));
        }
        text.push_str(&format!(
            "\n[[port]]\nname = \"trunk\"\ntrunk = {{ physical_network = \"lab\", native = \"open\", allowed = [\"{BLUE}\"] }}\n\
             interface = {{ kind = \"packet\", name = \"{}\" }}\n",
            TRUNK.0
        ));
        if self.can.no_tap.is_none() {
            text.push_str(&format!(
                "\n[[port]]\nname = \"guest\"\nnetwork = \"open\"\ninterface = {{ kind = \"guest\", name = \"{GUEST}\" }}\n"
            ));
        }
        text
    }
}

fn connect_trunk(netns: &Netns) -> anyhow::Result<()> {
    let mut links = Links::open()?;
    links.add_veth(TRUNK.0, TRUNK.1)?;
    let (ours, theirs) = (links.get(TRUNK.0)?.index, links.get(TRUNK.1)?.index);
    quiet(&mut links, ours);
    links.set_up(ours, true)?;
    links.set_netns(theirs, netns.as_fd(), TRUNK.1)?;
    netns.within(|| {
        let mut links = Links::open()?;
        let index = links.get(TRUNK.1)?.index;
        quiet(&mut links, index);
        links.set_up(index, true)
    })??;
    Ok(())
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
