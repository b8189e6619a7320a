//! `nuswitch show tunnels`.

use super::super::table::Align::{Left, Right};
use super::super::table::{Table, count, or_dash};
use super::state;
use crate::control::view::{self, Flooding, PeerKind, Tunnels};

/// The local VTEP, its peers and the networks in tunnels.
pub(super) fn tables(tunnels: &Tunnels, wide: bool) -> String {
    let Some(vtep) = &tunnels.vtep else {
        return "no tunnels: the configuration has no [overlay]\n".to_owned();
    };
    let mut local = Table::new(&[
        ("local vtep", Left),
        ("device", Left),
        ("driver", Left),
        ("mac", Left),
        ("mtu", Right),
        ("udp port", Right),
        ("rx", Right),
        ("tx", Right),
        ("dropped", Right),
        ("status", Left),
    ]);
    let reason = vtep.status_reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    local.row([
        format!("{}/{}", vtep.address, vtep.prefix_len),
        vtep.interface.device.clone(),
        or_dash(vtep.interface.driver.as_ref()),
        or_dash(vtep.mac_address),
        vtep.mtu.to_string(),
        vtep.udp_port.to_string(),
        count(vtep.counters.rx_frames),
        count(vtep.counters.tx_frames),
        count(vtep.counters.dropped()),
        format!("{}{reason}", state(vtep.status)),
    ]);
    let mut text = local.to_string();
    if wide && let Some(gateway) = vtep.gateway_ip {
        text.push_str(&format!("gateway {gateway}\n"));
    }
    if wide && vtep.learn_peers {
        text.push_str("VTEPs that nobody named become peers by sending\n");
    }
    format!("{text}\n{}\n{}", peers(&tunnels.peers, wide), tunnelled(&tunnels.networks))
}

fn peers(peers: &[view::Peer], wide: bool) -> String {
    let mut columns = vec![
        ("peer", Left),
        ("kind", Left),
        ("next hop", Left),
        ("path mtu", Right),
        ("rx", Right),
        ("rx bytes", Right),
        ("tx", Right),
        ("tx bytes", Right),
        ("dropped", Right),
    ];
    // Networks last, as they may be many.
    columns.push(if wide { ("drops", Left) } else { ("networks", Left) });
    columns.extend(wide.then_some(("networks", Left)));
    let mut table = Table::new(&columns);
    for peer in peers {
        let (kind, is_known) = match peer.kind {
            PeerKind::Configured => ("configured", true),
            PeerKind::Learned => ("learned", true),
            PeerKind::Group => ("group", true),
            PeerKind::Unknown => ("-", false),
        };
        let next_hop = match peer.next_hop {
            None if is_known => "unresolved".to_owned(),
            next_hop => or_dash(next_hop),
        };
        let counters = &peer.counters;
        let reasons = counters.drops.iter().map(|(reason, frames)| format!("{reason} {}", count(*frames)));
        let reasons = reasons.collect::<Vec<_>>().join(", ");
        let mut cells = vec![
            peer.name.clone(),
            kind.to_owned(),
            next_hop,
            or_dash(peer.path_mtu),
            count(counters.rx_frames),
            count(counters.rx_bytes),
            count(counters.tx_frames),
            count(counters.tx_bytes),
            count(counters.dropped()),
        ];
        cells.extend(wide.then_some(if reasons.is_empty() { "-".to_owned() } else { reasons }));
        cells.push(peer.networks.join(" "));
        table.row(cells);
    }
    table.to_string()
}

fn tunnelled(networks: &[view::TunnelledNetwork]) -> String {
    let mut table = Table::new(&[
        ("network", Left),
        ("vni", Right),
        ("mtu", Right),
        ("peers", Right),
        ("floods to", Left),
        ("rx", Right),
        ("rx bytes", Right),
        ("tx", Right),
        ("tx bytes", Right),
    ]);
    for network in networks {
        let flooding = match network.flooding {
            Flooding::Peers => "peers",
            Flooding::Group => "group",
            Flooding::None => "-",
        };
        table.row([
            network.name.clone(),
            network.segmentation_id.to_string(),
            network.mtu.to_string(),
            network.peers.to_string(),
            flooding.to_owned(),
            count(network.rx_frames),
            count(network.rx_bytes),
            count(network.tx_frames),
            count(network.tx_bytes),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use crate::control::view::State;

    #[test]
    fn the_tables_of_tunnels() {
        let mut tunnels = crate::control::tests::fake_tunnels();
        tunnels.peers[0].networks.push("red".to_owned());
        let mut down = tunnels.vtep.take().unwrap();
        assert_eq!(super::tables(&tunnels, true), "no tunnels: the configuration has no [overlay]\n");
        down.status = State::Down;
        down.status_reason = Some("no device under0".to_owned());
        tunnels.vtep = Some(down);
        let expected = "\
LOCAL VTEP       DEVICE  DRIVER  MAC                 MTU  UDP PORT  RX  TX  DROPPED  STATUS
2001:db8::10/64  under0  -       02:00:00:00:00:01  1500      4789   0   0        0  DOWN: no device under0

PEER          KIND     NEXT HOP    PATH MTU  RX  RX BYTES  TX  TX BYTES  DROPPED  NETWORKS
2001:db8::11  learned  unresolved      1400   5         0   0         0        5  blue red

NETWORK   VNI   MTU  PEERS  FLOODS TO  RX  RX BYTES  TX  TX BYTES
blue     1001  1430      1  peers       5       300   0         0
";
        assert_eq!(super::tables(&tunnels, false), expected);
        let wide = super::tables(&tunnels, true);
        assert!(wide.contains("  split_horizon 5  blue red\n"), "{wide}");
    }
}
