//! A valid model compiled for look-up: immutable, published whole, one epoch each. A worker loads the newest once a turn,
//! so no packet sees half a change.
//!
//! Ports and networks are addressed by slots ([`PortIdx`], [`NetIdx`]) that [`slots::Slots`] keeps stable over
//! reloads: what a worker remembers about a port stays true while the port lives.

pub mod compile;
pub mod exact;
pub mod fib;
pub mod learned;
pub mod nat;
pub mod policy;
pub mod router;
pub mod security;
pub mod slots;
pub mod tunnel;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::frame::Caps;
use crate::model::{Conntrack, Idle};
use crate::services::{dhcp4, dhcp6};
use crate::stats::PortCounters;
use crate::types::{Mac, NetIdx, PortIdx, RouterIdx, VlanId, WorkerIdx};
use router::{Interface, RouterEntry};
use tunnel::{NetTunnels, Tunnel, Underlay};

/// Everything that the path looks up and that only a change of configuration changes.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// Counts up with every publication.
    pub epoch: u64,
    /// The epoch in which it last changed who belongs to which network or what is known without learning: with the same
    /// one, what was learned need not be looked through.
    pub fdb_epoch: u64,
    /// By [`PortIdx`]; holes are slots out of use.
    pub ports: Vec<Option<PortEntry>>,
    /// By [`NetIdx`].
    pub networks: Vec<Option<NetEntry>>,
    /// MACs that are known without learning.
    pub static_macs: Vec<(NetIdx, Mac, PortIdx)>,
    /// Seconds after which a learned MAC is forgotten.
    pub mac_aging_time: u32,
    /// What a worker does without traffic.
    pub idle: Idle,
    /// Addresses that the FDB should have room for.
    pub fdb_capacity: usize,
    /// Where tunnels come from and go to.
    pub underlay: Option<Underlay>,
    /// By [`RouterIdx`].
    pub routers: Vec<Option<RouterEntry>>,
    /// Bounds and timeouts of tracked connections.
    pub conntrack: Conntrack,
    /// What routers know of neighbours without asking: by interface and address, as [`tunnel::address_key`] gives it.
    pub known_hosts: Vec<(PortIdx, u128, Mac)>,
    /// Who is a member of the security groups that rules are about.
    pub members: Arc<policy::Members>,
}

/// A port, or the port to a physical network.
#[derive(Clone, Debug)]
pub struct PortEntry {
    /// The port's name, or the physical network's.
    pub name: Arc<str>,
    /// The worker that owns it.
    pub worker: WorkerIdx,
    /// Whether frames may come and go: wanted up, and its device is there.
    pub up: bool,
    /// Which frames belong to which network.
    pub segments: Segments,
    /// What its device can carry.
    pub caps: Caps,
    /// Longest frame that passes without a closer look: MTU and Ethernet header, in bytes.
    pub plain_len: usize,
    /// Most learned MACs behind it.
    pub mac_limit: u32,
    /// The station behind it; none where several may be.
    pub guest: Option<Arc<Guest>>,
    /// Port security; none: the port is trusted.
    pub guard: Option<Arc<security::Guard>>,
    /// Its counters; they live as long as the port, over all epochs.
    pub counters: Arc<PortCounters>,
}

/// The one station behind a port, as far as the switch tells it something.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Its MAC.
    pub mac: Mac,
    /// What DHCPv4 gives it.
    pub dhcp4: Vec<dhcp4::Lease>,
    /// What DHCPv6 gives it; none where its network has no subnet for that.
    pub dhcp6: Option<dhcp6::Lease>,
    /// Whether its metadata requests are answered.
    pub metadata: bool,
}

/// What the switch tells guests of a network by DHCP: their requests are taken, and go to nobody else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Serves {
    /// Whether DHCPv4 is served.
    pub dhcp4: bool,
    /// Whether DHCPv6 is served.
    pub dhcp6: bool,
    /// Whether DHCPv4 gives addresses to whoever asks.
    pub dynamic: bool,
}

/// How frames on a port's wire map to networks.
#[derive(Clone, Debug)]
pub enum Segments {
    /// Untagged frames belong to this network; tagged ones are not allowed.
    Access(NetIdx),
    /// A trunk, or a physical network.
    Trunk {
        /// The network of untagged frames.
        native: Option<NetIdx>,
        /// The network of each VLAN ID; always 4096 long.
        by_id: Box<[Option<NetIdx>]>,
    },
    /// The underlay's device: frames are packets of tunnels, or for the local VTEP itself.
    Underlay,
    /// A tunnel port.
    Tunnel(Box<Tunnel>),
    /// The resolver: carries no network.
    Resolver,
    /// A router's interface.
    Router(Box<Interface>),
    /// The service that the switch itself is, on every network.
    Service,
}

/// A network.
#[derive(Clone, Debug)]
pub struct NetEntry {
    /// Its name.
    pub name: Arc<str>,
    /// Its VLAN ID on trunks and physical networks.
    pub vlan: Option<VlanId>,
    /// The ports that get a copy of what is flooded, tunnel ports apart, in slot order.
    pub members: Vec<PortIdx>,
    /// All ports that belong to it, tunnel ports too: a bit for each slot.
    pub belongs: Vec<u64>,
    /// Who has addresses that are known here: requests for them are answered and not flooded.
    pub hosts: HashMap<IpAddr, Host>,
    /// What the switch tells its guests.
    pub serves: Serves,
    /// Routers' interfaces on it that advertise, in slot order: whom router solicitations are answered for.
    pub routers_advertising: Vec<PortIdx>,
    /// What it does with tunnels.
    pub tunnels: Option<NetTunnels>,
    /// Longest packet in bytes.
    pub mtu: u16,
    /// Longest frame that passes without a closer look: MTU and Ethernet header, in bytes.
    pub plain_len: usize,
    /// Most learned MACs.
    pub mac_limit: u32,
}

/// Who has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its MAC.
    pub mac: Mac,
    /// Whether it is a router of ours; else it is on another host, whose own business it is to answer its neighbours there.
    pub is_here: bool,
}

impl Tables {
    /// The port in a slot.
    #[inline(always)]
    pub fn port(&self, port: PortIdx) -> Option<&PortEntry> {
        self.ports.get(port.index())?.as_ref()
    }

    /// The network in a slot.
    #[inline(always)]
    pub fn network(&self, network: NetIdx) -> Option<&NetEntry> {
        self.networks.get(network.index())?.as_ref()
    }

    /// The router in a slot.
    #[inline(always)]
    pub fn router(&self, router: RouterIdx) -> Option<&RouterEntry> {
        self.routers.get(router.index())?.as_ref()
    }

    /// The worker that owns the underlay's device.
    pub fn underlay_worker(&self) -> Option<WorkerIdx> {
        Some(self.port(self.underlay.as_ref()?.port)?.worker)
    }

    /// Keeps `fdb_epoch` where nothing of what it stands for differs from the tables that are replaced.
    pub fn carry_over(&mut self, old: &Tables) {
        let members = |tables: &Tables| -> Vec<Vec<u64>> {
            let of =
                |network: &Option<NetEntry>| network.as_ref().map(|n| n.belongs.clone()).unwrap_or_default();
            tables.networks.iter().map(of).collect()
        };
        let same = members(self) == members(old)
            && self.static_macs == old.static_macs
            && self.known_hosts == old.known_hosts
            && self.mac_aging_time == old.mac_aging_time
            && self.fdb_capacity == old.fdb_capacity;
        if same {
            self.fdb_epoch = old.fdb_epoch;
        }
    }

    /// Writes down with each network which routers' interfaces advertise on it.
    pub fn note_advertising(&mut self) {
        self.networks.iter_mut().flatten().for_each(|network| network.routers_advertising.clear());
        for (slot, port) in (0..).zip(&self.ports) {
            let interface =
                port.as_ref().and_then(PortEntry::interface).filter(|interface| interface.ra.is_some());
            let network =
                interface.and_then(|interface| self.networks.get_mut(interface.network.index())?.as_mut());
            if let Some(network) = network {
                network.routers_advertising.push(PortIdx(slot));
            }
        }
    }

    /// A copy with counters and knowledge of the underlay of its own, for looking at what would happen.
    pub fn detached(&self) -> Tables {
        let mut copy = self.clone();
        for port in copy.ports.iter_mut().flatten() {
            port.counters = Arc::new(PortCounters::default());
            if let Segments::Tunnel(tunnel) = &mut port.segments {
                tunnel.state = Arc::new(tunnel.state.copy());
            }
        }
        for tunnels in copy.networks.iter_mut().flatten().filter_map(|network| network.tunnels.as_mut()) {
            tunnels.counters = Arc::default();
        }
        copy
    }

    /// Whether `port` belongs to `network`.
    pub fn is_member(&self, network: NetIdx, port: PortIdx) -> bool {
        self.network(network).is_some_and(|network| network.has(port))
    }
}

impl NetEntry {
    /// Whether `port` belongs to it.
    #[inline(always)]
    pub fn has(&self, port: PortIdx) -> bool {
        self.belongs.get(port.index() / 64).is_some_and(|word| word >> (port.index() % 64) & 1 == 1)
    }

    /// Makes `port` belong to it.
    pub fn admit(&mut self, port: PortIdx) {
        let word = port.index() / 64;
        if self.belongs.len() <= word {
            self.belongs.resize(word + 1, 0);
        }
        self.belongs[word] |= 1 << (port.index() % 64);
    }
}

impl PortEntry {
    /// Which connections the guest behind it may have; none: any.
    #[inline(always)]
    pub fn policy(&self) -> Option<&security::Policy> {
        self.guard.as_ref()?.policy.as_deref()
    }

    /// The router's interface that this port stands for.
    #[inline(always)]
    pub fn interface(&self) -> Option<&Interface> {
        match &self.segments {
            Segments::Router(interface) => Some(interface),
            _ => None,
        }
    }

    /// The tunnel that this port stands for.
    #[inline(always)]
    pub fn tunnel(&self) -> Option<&Tunnel> {
        match &self.segments {
            Segments::Tunnel(tunnel) => Some(tunnel),
            _ => None,
        }
    }
}

impl Segments {
    /// The VLAN ID that a frame of `network` carries on this port's wire; none: untagged.
    #[inline(always)]
    pub fn egress_tag(&self, index: NetIdx, network: &NetEntry) -> Option<VlanId> {
        match self {
            Segments::Trunk { native, .. } if *native != Some(index) => network.vlan,
            _ => None,
        }
    }
}
