//! What the control API says of tunnels: the local VTEP, its peers, and the networks in tunnels, from the tables in force.

use std::net::IpAddr;

use crate::control::view::{Flooding, Peer, PeerKind, Port, TunnelledNetwork, Tunnels, Vtep};
use crate::model::{self, Model, Segment};
use crate::tables::tunnel::{NetTunnels, Tunnel, Underlay};
use crate::tables::{NetEntry, PortEntry, Tables};
use crate::types::PortIdx;

/// All of it. `device` is the view of the overlay's device; nothing where there is no overlay.
pub(super) fn tunnels(tables: &Tables, model: &Model, device: Option<&Port>) -> Tunnels {
    let (Some(overlay), Some(device), Some(underlay)) = (&model.overlay, device, &tables.underlay) else {
        return Tunnels::default();
    };
    let mut peers: Vec<(IpAddr, Peer)> = tunnel_ports(tables)
        .map(|(index, port, tunnel)| (tunnel.remote, peer(index, port, tunnel, underlay, tables, model)))
        .collect();
    peers.sort_by_key(|(remote, _)| (remote.is_unspecified(), *remote));
    Tunnels {
        vtep: Some(vtep(overlay, device)),
        peers: peers.into_iter().map(|(_, peer)| peer).collect(),
        networks: model.networks.iter().filter_map(|network| in_tunnels(network, tables)).collect(),
    }
}

fn tunnel_ports(tables: &Tables) -> impl Iterator<Item = (PortIdx, &PortEntry, &Tunnel)> {
    (0..).zip(&tables.ports).filter_map(|(slot, port)| {
        let port = port.as_ref()?;
        Some((PortIdx(slot), port, port.tunnel()?))
    })
}

fn vtep(overlay: &model::Overlay, device: &Port) -> Vtep {
    Vtep {
        address: overlay.local_ip,
        prefix_len: overlay.prefix_len,
        gateway_ip: overlay.gateway_ip,
        mac_address: device.mac_address,
        interface: device.interface.clone(),
        mtu: overlay.mtu.min(device.mtu),
        udp_port: overlay.udp_port,
        learn_peers: overlay.learn_peers,
        status: device.status,
        status_reason: device.status_reason.clone(),
        counters: device.counters.clone(),
    }
}

fn peer(
    index: PortIdx,
    port: &PortEntry,
    tunnel: &Tunnel,
    underlay: &Underlay,
    tables: &Tables,
    model: &Model,
) -> Peer {
    let kind = kind(tunnel.remote, model);
    let has_it = |network: &&NetEntry| network.has(index);
    let mut networks: Vec<String> =
        tables.networks.iter().flatten().filter(has_it).map(|network| network.name.to_string()).collect();
    networks.sort();
    let is_known = kind != PeerKind::Unknown;
    let device = tables.port(underlay.port).map_or(underlay.mtu, |device| device.caps.mtu);
    let path = || tunnel.state.path_mtu().unwrap_or(u16::MAX).min(underlay.mtu).min(device);
    Peer {
        name: port.name.to_string(),
        address: is_known.then_some(tunnel.remote),
        kind,
        // What was found out before the device went away counts no longer.
        next_hop: tunnel.state.next_hop().filter(|_| port.up),
        path_mtu: (is_known && port.up).then(path),
        networks,
        counters: port.counters.snapshot(),
    }
}

fn kind(remote: IpAddr, model: &Model) -> PeerKind {
    let names = |network: &model::Network| match &network.segment {
        Segment::Vxlan(_, tunnels) => tunnels.peers.contains(&remote),
        _ => false,
    };
    match () {
        () if remote.is_unspecified() => PeerKind::Unknown,
        () if remote.is_multicast() => PeerKind::Group,
        () if model.networks.iter().any(names) => PeerKind::Configured,
        () => PeerKind::Learned,
    }
}

fn in_tunnels(network: &model::Network, tables: &Tables) -> Option<TunnelledNetwork> {
    let entry = tables.networks.iter().flatten().find(|entry| *entry.name == *network.name)?;
    let tunnels = entry.tunnels.as_ref()?;
    let is_peer = |tunnel: &Tunnel| !tunnel.remote.is_multicast() && !tunnel.remote.is_unspecified();
    let peers =
        tunnel_ports(tables).filter(|(index, _, tunnel)| entry.has(*index) && is_peer(tunnel)).count();
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    let counters = &tunnels.counters;
    Some(TunnelledNetwork {
        name: network.name.clone(),
        segmentation_id: tunnels.vni.get(),
        mtu: network.mtu,
        peers: u32::try_from(peers).unwrap_or(u32::MAX),
        flooding: flooding(tunnels, tables),
        rx_frames: count(&counters.rx_frames),
        rx_bytes: count(&counters.rx_bytes),
        tx_frames: count(&counters.tx_frames),
        tx_bytes: count(&counters.tx_bytes),
    })
}

fn flooding(tunnels: &NetTunnels, tables: &Tables) -> Flooding {
    let is_group = |port: &PortIdx| {
        let tunnel = tables.port(*port).and_then(PortEntry::tunnel);
        tunnel.is_some_and(|tunnel| tunnel.remote.is_multicast())
    };
    match tunnels.flood.as_slice() {
        [] => Flooding::None,
        flood if flood.iter().any(is_group) => Flooding::Group,
        _ => Flooding::Peers,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::control::view::{Interface, Role, State};
    use crate::frame::Caps;
    use crate::model::AttachmentKey;
    use crate::stats::{DropReason, PortCounters};
    use crate::tables::compile::{Device, Places, compile};
    use crate::types::{Mac, WorkerIdx};

    const TEXT: &str = r#"
[overlay]
interface = "under0"
local_ip = "192.0.2.10/24"
peers = ["192.0.2.11", "192.0.2.12"]
learn_peers = true
[[network]]
name = "blue"
network_type = "vxlan"
segmentation_id = 1001
[[network]]
name = "all"
network_type = "vxlan"
segmentation_id = 1002
peers = []
multicast_group = "239.1.1.1"
[[network]]
name = "known"
network_type = "vxlan"
segmentation_id = 1003
l2population = true
peers = []
remote_ports = [{ mac_address = "52:54:00:00:00:0b", vtep = "192.0.2.12" }]
[[network]]
name = "here"
"#;

    fn device(up: bool) -> Device {
        Device {
            worker: WorkerIdx(0),
            up,
            caps: Caps { checksum: false, tso: false, uso: false, mtu: 1500 },
            mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            counters: Default::default(),
        }
    }

    fn view(up: bool) -> Port {
        Port {
            id: model::id("overlay", "overlay"),
            name: "overlay".to_owned(),
            role: Role::Overlay,
            network: None,
            trunk: None,
            interface: Interface { kind: "best".into(), device: "under0".into(), ..Interface::default() },
            mac_address: Some(Mac([2, 0, 0, 0, 0, 1])),
            mtu: 1500,
            worker: Some(0),
            status: if up { State::Active } else { State::Down },
            status_reason: (!up).then(|| "no device under0".to_owned()),
            admin_state_up: true,
            extra_dhcp_opts: Vec::new(),
            port_security_enabled: false,
            security_groups: Vec::new(),
            allowed_address_pairs: Vec::new(),
            counters: PortCounters::default().snapshot(),
        }
    }

    fn compiled(places: &mut Places, up: bool) -> (Model, Tables) {
        let model = model::load(TEXT, "test.toml").unwrap();
        let devices = HashMap::from([(AttachmentKey::Overlay, device(up))]);
        let tables = compile(&model, &devices, places, 1);
        (model, tables)
    }

    #[test]
    fn peers_say_how_they_are_known_and_what_is_known_of_the_way() {
        let mut places = Places::default();
        let learned: IpAddr = "192.0.2.9".parse().unwrap();
        places.learned.insert((learned, "blue".to_owned()));
        compiled(&mut places, true);
        let place = &places.tunnels[&"192.0.2.11".parse::<IpAddr>().unwrap()];
        place.state.set_next_hop(Some(Mac([2, 0, 0, 0, 0, 9])));
        place.state.set_path_mtu(Some(1400));
        place.counters.rx_frames.add(7);
        place.counters.count_drop(DropReason::SplitHorizon, 2);
        let (model, tables) = compiled(&mut places, true);
        let shown = tunnels(&tables, &model, Some(&view(true)));
        let rows: Vec<_> = shown
            .peers
            .iter()
            .map(|peer| (peer.name.as_str(), peer.kind, peer.path_mtu, peer.networks.join(" ")))
            .collect();
        assert_eq!(
            rows,
            [
                ("192.0.2.9", PeerKind::Learned, Some(1500), "blue".to_owned()),
                ("192.0.2.11", PeerKind::Configured, Some(1400), "blue".to_owned()),
                ("192.0.2.12", PeerKind::Configured, Some(1500), "blue known".to_owned()),
                ("239.1.1.1", PeerKind::Group, Some(1500), "all".to_owned()),
                ("unknown peers", PeerKind::Unknown, None, "all blue known".to_owned()),
            ]
        );
        let hops: Vec<_> = shown.peers.iter().map(|peer| peer.next_hop).collect();
        let group = Mac([1, 0, 0x5e, 1, 1, 1]);
        assert_eq!(hops, [None, Some(Mac([2, 0, 0, 0, 0, 9])), None, Some(group), None]);
        assert_eq!(shown.peers[1].counters.rx_frames, 7);
        assert_eq!(shown.peers[1].counters.drops["split_horizon"], 2);
    }

    #[test]
    fn networks_say_whom_they_reach_and_how_they_flood() {
        let mut places = Places::default();
        compiled(&mut places, true);
        places.in_tunnels["blue"].tx_frames.fetch_add(3, std::sync::atomic::Ordering::Relaxed);
        let (model, tables) = compiled(&mut places, true);
        let shown = tunnels(&tables, &model, Some(&view(true)));
        let rows: Vec<_> = shown
            .networks
            .iter()
            .map(|net| (net.name.as_str(), net.segmentation_id, net.peers, net.flooding, net.tx_frames))
            .collect();
        assert_eq!(
            rows,
            [
                ("blue", 1001, 2, Flooding::Peers, 3),
                ("all", 1002, 0, Flooding::Group, 0),
                ("known", 1003, 1, Flooding::None, 0),
            ]
        );
        assert_eq!(shown.networks[0].mtu, 1450);
    }

    #[test]
    fn a_vtep_that_is_down_says_why_and_forgets_the_way() {
        let mut places = Places::default();
        compiled(&mut places, true);
        let place = &places.tunnels[&"192.0.2.11".parse::<IpAddr>().unwrap()];
        place.state.set_next_hop(Some(Mac([2, 0, 0, 0, 0, 9])));
        let (model, tables) = compiled(&mut places, false);
        let shown = tunnels(&tables, &model, Some(&view(false)));
        let vtep = shown.vtep.unwrap();
        assert_eq!((vtep.status, vtep.status_reason.as_deref()), (State::Down, Some("no device under0")));
        assert_eq!(
            (vtep.address.to_string().as_str(), vtep.prefix_len, vtep.udp_port),
            ("192.0.2.10", 24, 4789)
        );
        assert!(shown.peers.iter().all(|peer| peer.next_hop.is_none() && peer.path_mtu.is_none()));
        assert_eq!(tunnels(&Tables::default(), &Model::default(), None), Tunnels::default());
    }
}
