//! Compiles a valid model and what is known of its devices into [`Tables`].

mod overlay;
mod router;
pub mod security;
pub mod service;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::learned::{Learned, LearnedPeer};
use super::slots::Slots;
use super::tunnel::{TunnelCounters, TunnelState};
use super::{NetEntry, PortEntry, Segments, Serves, Tables};
use crate::frame::Caps;
use crate::model::{Attachment, AttachmentKey, Model, Network, Segment};
use crate::stats::PortCounters;
use crate::types::{Mac, NetIdx, PortIdx, VlanId, WorkerIdx};
use crate::wire::ethernet::HEADER;

/// Most addresses that the FDB makes room for, whatever the networks' limits add up to.
const MAX_FDB: usize = 1 << 20;

/// What the daemon knows of a port's device.
#[derive(Clone, Debug)]
pub struct Device {
    /// The worker that owns it.
    pub worker: WorkerIdx,
    /// Whether it is open.
    pub up: bool,
    /// What it can carry; of no meaning while it is not open.
    pub caps: Caps,
    /// Its own address, where that matters: the underlay's.
    pub mac: Option<Mac>,
    /// Its counters.
    pub counters: Arc<PortCounters>,
}

/// The slots of ports and networks.
#[derive(Clone, Default, Debug)]
pub struct Places {
    /// Of ports and physical networks.
    pub ports: Slots<AttachmentKey>,
    /// Of networks, by name.
    pub networks: Slots<String>,
    /// What lives as long as the tunnel to a peer.
    pub tunnels: HashMap<IpAddr, TunnelPlace>,
    /// What lives as long as a network in tunnels.
    pub in_tunnels: HashMap<String, Arc<TunnelCounters>>,
    /// Of routers, by name.
    pub routers: Slots<String>,
    /// Counters of routers' interfaces, by router and MAC.
    pub interfaces: HashMap<(String, Mac), Arc<PortCounters>>,
    /// Peers that were learned.
    pub learned: Learned,
    /// What was compiled of security groups.
    pub security: security::Kept,
}

impl Places {
    /// Forgets learned peers that were silent for too long ([`Learned::age`]), and gives them; tables must then be compiled
    /// anew. `stations`: the FDB, as the network, the port and the second of the last frame of each entry.
    pub fn age_peers(
        &mut self,
        stations: impl Iterator<Item = (NetIdx, PortIdx, u32)>,
        now: u32,
        aging: u32,
    ) -> Vec<LearnedPeer> {
        let Places { ports, networks, learned, .. } = self;
        let place = |(vtep, network): &LearnedPeer| {
            let port = ports.get(&AttachmentKey::Tunnel(*vtep))?;
            Some((NetIdx(networks.get(network)?), PortIdx(port)))
        };
        let mut newest: HashMap<(NetIdx, PortIdx), Option<u32>> =
            learned.iter().filter_map(place).map(|place| (place, None)).collect();
        for (network, port, seen) in stations {
            if let Some(newest) = newest.get_mut(&(network, port)) {
                *newest = Some(seen).max(*newest);
            }
        }
        learned.age(|peer| newest.get(&place(peer)?).copied().flatten(), now, aging)
    }
}

/// See [`Places::tunnels`].
#[derive(Clone, Default, Debug)]
pub struct TunnelPlace {
    /// What is known of the way.
    pub state: Arc<TunnelState>,
    /// Of the tunnel port.
    pub counters: Arc<PortCounters>,
}

/// Compiles. A port without a device (a physical network without an interface) has no entry.
pub fn compile(
    model: &Model,
    devices: &HashMap<AttachmentKey, Device>,
    places: &mut Places,
    epoch: u64,
) -> Tables {
    let networks: Vec<(NetIdx, &Network)> = model
        .networks
        .iter()
        .map(|network| (NetIdx(places.networks.assign(&network.name)), network))
        .collect();
    let mut tables = Tables {
        epoch,
        fdb_epoch: epoch,
        ports: Vec::new(),
        networks: Vec::new(),
        static_macs: Vec::new(),
        mac_aging_time: model.switch.mac_aging_time,
        idle: model.switch.idle,
        underlay: None,
        routers: Vec::new(),
        conntrack: model.conntrack.clone(),
        known_hosts: Vec::new(),
        members: Arc::default(),
        fdb_capacity: model
            .networks
            .iter()
            .map(|network| network.mac_limit as usize)
            .sum::<usize>()
            .min(MAX_FDB),
    };
    for &(index, network) in &networks {
        put(&mut tables.networks, index.index(), net_entry(network));
    }
    for physical in &model.physical_networks {
        let key = AttachmentKey::Physical(physical.name.clone());
        if let Some(device) = devices.get(&key) {
            let segments = trunk(&physical.name, None, None, &networks);
            let wanted = Wanted { name: &physical.name, up: true, segments, mac_limit: u32::MAX };
            add_port(&mut tables, PortIdx(places.ports.assign(&key)), device, wanted);
        }
    }
    let device = devices.get(&AttachmentKey::Overlay);
    if let (Some(overlay), Some(device)) = (&model.overlay, device) {
        overlay::compile(&mut tables, overlay, device, &networks, places);
    } else {
        places.tunnels.clear();
    }
    if model.overlay.is_none() {
        places.learned = Learned::default();
    }
    for port in &model.ports {
        let key = AttachmentKey::Port(port.name.clone());
        let Some(device) = devices.get(&key) else { continue };
        let index = PortIdx(places.ports.assign(&key));
        let segments = match &port.attachment {
            Attachment::Access(name) => {
                let Some((network, _)) = networks.iter().find(|(_, network)| network.name == *name) else {
                    continue;
                };
                Segments::Access(*network)
            }
            Attachment::Trunk { physical_network, native, allowed } => {
                trunk(physical_network, Some(native.as_deref()), allowed.as_ref(), &networks)
            }
        };
        let up = port.admin_state_up;
        add_port(
            &mut tables,
            index,
            device,
            Wanted { name: &port.name, up, segments, mac_limit: port.mac_limit },
        );
        for mac in port.mac_address.iter().chain(&port.static_macs) {
            let member = |network: &&(NetIdx, &Network)| tables.is_member(network.0, index);
            let of_port = networks.iter().filter(member).map(|(network, _)| (*network, *mac, index));
            let of_port: Vec<_> = of_port.collect();
            tables.static_macs.extend(of_port);
        }
    }
    router::compile(&mut tables, model, devices, &networks, places);
    service::compile(&mut tables, model, &networks, places);
    security::compile(&mut tables, model, places);
    tables
}

fn net_entry(network: &Network) -> NetEntry {
    let vlan = match &network.segment {
        Segment::Vlan(_, id) => Some(*id),
        _ => None,
    };
    NetEntry {
        name: network.name.as_str().into(),
        vlan,
        members: Vec::new(),
        belongs: Vec::new(),
        serves: Serves::default(),
        routers_advertising: Vec::new(),
        hosts: HashMap::new(),
        tunnels: None,
        mtu: network.mtu,
        plain_len: usize::from(network.mtu) + HEADER,
        mac_limit: network.mac_limit,
    }
}

/// Which networks of a physical network pass a trunk. `native`: none for the physical network's own device, where the flat
/// network is untagged; else the port's choice.
fn trunk(
    physical: &str,
    native: Option<Option<&str>>,
    allowed: Option<&std::collections::BTreeSet<VlanId>>,
    networks: &[(NetIdx, &Network)],
) -> Segments {
    let mut by_id = vec![None; 4096].into_boxed_slice();
    let mut untagged = None;
    for &(index, network) in networks {
        match &network.segment {
            Segment::Vlan(on, id) if on == physical => {
                if allowed.is_none_or(|allowed| allowed.contains(id)) {
                    by_id[usize::from(id.get())] = Some(index);
                }
                if native == Some(Some(network.name.as_str())) {
                    untagged = Some(index);
                }
            }
            Segment::Flat(on)
                if on == physical && native.is_none_or(|native| native == Some(network.name.as_str())) =>
            {
                untagged = Some(index);
            }
            _ => {}
        }
    }
    Segments::Trunk { native: untagged, by_id }
}

struct Wanted<'a> {
    name: &'a str,
    up: bool,
    segments: Segments,
    mac_limit: u32,
}

fn add_port(tables: &mut Tables, index: PortIdx, device: &Device, wanted: Wanted<'_>) {
    let mut member_of: Vec<NetIdx> = match &wanted.segments {
        Segments::Access(network) => vec![*network],
        Segments::Trunk { native, by_id } => by_id.iter().copied().flatten().chain(*native).collect(),
        _ => Vec::new(),
    };
    member_of.sort();
    member_of.dedup();
    for network in member_of {
        if let Some(Some(network)) = tables.networks.get_mut(network.index()) {
            let at = network.members.binary_search(&index).unwrap_or_else(|at| at);
            network.members.insert(at, index);
            network.admit(index);
        }
    }
    let entry = PortEntry {
        name: wanted.name.into(),
        worker: device.worker,
        up: device.up && wanted.up,
        segments: wanted.segments,
        caps: device.caps,
        plain_len: usize::from(device.caps.mtu) + HEADER,
        mac_limit: wanted.mac_limit,
        guest: None,
        guard: None,
        counters: device.counters.clone(),
    };
    put(&mut tables.ports, index.index(), entry);
}

fn put<T>(slots: &mut Vec<Option<T>>, index: usize, value: T) {
    if slots.len() <= index {
        slots.resize_with(index + 1, || None);
    }
    slots[index] = Some(value);
}
