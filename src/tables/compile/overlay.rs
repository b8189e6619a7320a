//! Compiles the underlay: its device's port, the resolver, a tunnel port for each peer and group, and what each network
//! does with them.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use super::{Device, Places, put};
use crate::frame::Caps;
use crate::model::{AttachmentKey, Network, Overlay, Segment, Tunnels};
use crate::tables::exact::Exact;
use crate::tables::tunnel::{NetTunnels, Outer, Tunnel, Underlay, address_key};
use crate::tables::{Host, PortEntry, Segments, Tables};
use crate::types::{Mac, NetIdx, PortIdx, Vni};
use crate::wire::ethernet::{HEADER, multicast_mac};

/// Who stands for VTEPs that are not yet peers.
const STRANGERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// A network in tunnels.
struct Tunnelled<'m> {
    index: NetIdx,
    network: &'m Network,
    vni: Vni,
    tunnels: &'m Tunnels,
}

pub(super) fn compile(
    tables: &mut Tables,
    overlay: &Overlay,
    device: &Device,
    networks: &[(NetIdx, &Network)],
    places: &mut Places,
) {
    let tunnelled: Vec<Tunnelled<'_>> = networks
        .iter()
        .filter_map(|&(index, network)| match &network.segment {
            Segment::Vxlan(vni, tunnels) => Some(Tunnelled { index, network, vni: *vni, tunnels }),
            _ => None,
        })
        .collect();
    let names: HashSet<&str> = tunnelled.iter().map(|of| of.network.name.as_str()).collect();
    places.learned.retain(|(vtep, network)| {
        overlay.learn_peers
            && names.contains(network.as_str())
            && *vtep != overlay.local_ip
            && vtep.is_ipv4() == overlay.local_ip.is_ipv4()
    });
    let mac = device.mac.unwrap_or_default();
    let port = PortIdx(places.ports.assign(&AttachmentKey::Overlay));
    let resolver = PortIdx(places.ports.assign(&AttachmentKey::Resolver));
    for (index, segments) in [(port, Segments::Underlay), (resolver, Segments::Resolver)] {
        let entry = PortEntry {
            name: "overlay".into(),
            worker: device.worker,
            up: device.up,
            segments,
            caps: device.caps,
            plain_len: usize::from(device.caps.mtu) + HEADER,
            mac_limit: 0,
            guest: None,
            guard: None,
            counters: device.counters.clone(),
        };
        put(&mut tables.ports, index.index(), entry);
    }

    let ports = tunnel_ports(tables, overlay, device, &tunnelled, places);
    let mut groups: Vec<IpAddr> = tunnelled.iter().filter_map(|of| of.tunnels.multicast_group).collect();
    groups.sort();
    groups.dedup();
    for of in &tunnelled {
        join(tables, of, &ports, places);
    }
    tables.underlay = Some(Underlay {
        port,
        resolver,
        local: overlay.local_ip,
        local_key: address_key(overlay.local_ip),
        prefix_len: overlay.prefix_len,
        gateway: overlay.gateway_ip,
        mac,
        mtu: overlay.mtu,
        udp_port: overlay.udp_port,
        networks: Exact::new(tunnelled.iter().map(|of| (of.vni, of.index))),
        peers: {
            let peers: Vec<_> = ports
                .iter()
                .filter(|(remote, _)| !remote.is_multicast() && !remote.is_unspecified())
                .map(|(remote, port)| (address_key(*remote), *port))
                .collect();
            Exact::new(peers.into_iter())
        },
        groups,
        strangers: ports.get(&STRANGERS).copied(),
    });
    places.in_tunnels.retain(|name, _| tunnelled.iter().any(|of| of.network.name == *name));
    places.tunnels.retain(|remote, _| ports.contains_key(remote));
}

/// A port for each peer and group that some network has.
fn tunnel_ports(
    tables: &mut Tables,
    overlay: &Overlay,
    device: &Device,
    tunnelled: &[Tunnelled<'_>],
    places: &mut Places,
) -> BTreeMap<IpAddr, PortIdx> {
    let named = tunnelled.iter().flat_map(|of| of.tunnels.peers.iter().chain(&of.tunnels.multicast_group));
    let learned = places.learned.iter().map(|(remote, _)| remote);
    let strangers = overlay.learn_peers.then_some(&STRANGERS);
    let remotes: Vec<IpAddr> = named.chain(learned).chain(strangers).copied().collect();
    let mut ports = BTreeMap::new();
    for remote in remotes {
        let index = PortIdx(places.ports.assign(&AttachmentKey::Tunnel(remote)));
        if ports.insert(remote, index).is_some() {
            continue;
        }
        let place = places.tunnels.entry(remote).or_default();
        let group_mac = multicast_mac(remote);
        if group_mac.is_some() {
            place.state.set_next_hop(group_mac);
        }
        let (from, to) = ((overlay.local_ip, device.mac.unwrap_or_default()), (remote, Mac::default()));
        let outer = Outer::new(from, to, overlay.ttl, overlay.dscp, overlay.udp_port);
        let mtu = overlay.mtu.min(device.caps.mtu).saturating_sub(overhead(&outer));
        let is_stranger = remote == STRANGERS;
        let entry = PortEntry {
            name: if is_stranger { "unknown peers".into() } else { remote.to_string().into() },
            worker: device.worker,
            up: device.up,
            caps: Caps { checksum: device.caps.checksum, tso: false, uso: false, mtu },
            plain_len: usize::from(mtu) + HEADER,
            segments: Segments::Tunnel(Box::new(Tunnel { remote, outer, state: place.state.clone() })),
            mac_limit: if is_stranger || remote.is_multicast() { 0 } else { u32::MAX },
            guest: None,
            guard: None,
            counters: place.counters.clone(),
        };
        put(&mut tables.ports, index.index(), entry);
    }
    ports
}

/// Bytes that a tunnel adds to an inner packet.
fn overhead(outer: &Outer) -> u16 {
    u16::try_from(outer.len).unwrap_or(u16::MAX)
}

/// Lets a network use its tunnel ports.
fn join(tables: &mut Tables, of: &Tunnelled<'_>, ports: &BTreeMap<IpAddr, PortIdx>, places: &mut Places) {
    let port = |remote: &IpAddr| ports.get(remote).copied();
    let learned = places.learned.iter().filter(|(_, network)| *network == of.network.name);
    let peers: Vec<PortIdx> =
        of.tunnels.peers.iter().chain(learned.map(|(remote, _)| remote)).filter_map(port).collect();
    let group = of.tunnels.multicast_group.as_ref().and_then(port);
    let mut flood = match group {
        _ if of.tunnels.l2population => Vec::new(),
        Some(group) => vec![group],
        None => peers.clone(),
    };
    flood.sort();
    flood.dedup();
    let counters = places.in_tunnels.entry(of.network.name.clone()).or_default().clone();
    let Some(Some(entry)) = tables.networks.get_mut(of.index.index()) else { return };
    for port in peers.into_iter().chain(group).chain(port(&STRANGERS)) {
        entry.admit(port);
    }
    for remote in &of.tunnels.remote_ports {
        let host = Host { mac: remote.mac_address, is_here: false };
        entry.hosts.extend(remote.fixed_ips.iter().map(|address| (*address, host)));
        if let Some(port) = port(&remote.vtep) {
            tables.static_macs.push((of.index, remote.mac_address, port));
        }
    }
    entry.tunnels = Some(NetTunnels { vni: of.vni, flood, counters });
}
