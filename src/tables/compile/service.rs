//! Compiles the service that the switch itself is: its port, where it is found, and whom it knows.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Places, put};
use crate::frame::Caps;
use crate::model::{Attachment, AttachmentKey, MetadataMode, Model, Network, Port};
use crate::services::{SERVICE_MAC, SERVICE_V4, SERVICE_V6};
use crate::stats::PortCounters;
use crate::tables::{Guest, Host, PortEntry, Segments, Tables};
use crate::types::{NetIdx, PortIdx, WorkerIdx};

pub(super) fn compile(
    tables: &mut Tables,
    model: &Model,
    networks: &[(NetIdx, &Network)],
    places: &mut Places,
) {
    let index = PortIdx(places.ports.assign(&AttachmentKey::Service));
    let entry = PortEntry {
        name: "service".into(),
        // It has no home: whoever takes a frame in answers it.
        worker: WorkerIdx(0),
        up: true,
        segments: Segments::Service,
        caps: Caps { checksum: true, tso: true, uso: true, mtu: u16::MAX },
        plain_len: usize::MAX,
        mac_limit: 0,
        guest: None,
        counters: Arc::new(PortCounters::default()),
    };
    put(&mut tables.ports, index.index(), entry);
    for &(network, wanted) in networks.iter().filter(|(_, network)| is_served(network, model)) {
        tables.static_macs.push((network, SERVICE_MAC, index));
        if let Some(Some(entry)) = tables.networks.get_mut(network.index()) {
            entry.admit(index);
            let host = Host { mac: SERVICE_MAC, is_here: true };
            entry.hosts.extend([(IpAddr::V4(SERVICE_V4), host), (IpAddr::V6(SERVICE_V6), host)]);
        }
        let on_network =
            |port: &&Port| matches!(&port.attachment, Attachment::Access(name) if *name == wanted.name);
        for port in model.ports.iter().filter(on_network) {
            let Some(slot) = places.ports.get(&AttachmentKey::Port(port.name.clone())) else { continue };
            if let Some(Some(entry)) = tables.ports.get_mut(usize::from(slot)) {
                entry.guest = guest(port, wanted).map(Arc::new);
            }
        }
    }
}

/// Whether there is anything to tell guests of a network.
fn is_served(network: &Network, model: &Model) -> bool {
    network.metadata != MetadataMode::Off
        || network.dynamic_leases
        || model.subnets.iter().any(|subnet| subnet.network == network.name && subnet.enable_dhcp)
}

/// The station behind a port, if it is one.
fn guest(port: &Port, network: &Network) -> Option<Guest> {
    Some(Guest { mac: port.mac_address?, metadata: network.metadata != MetadataMode::Off })
}
