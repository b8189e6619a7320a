//! What guests are told by metadata, made of the model and of the files that it names.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::control::view::{Document, Problem};
use crate::model::{
    Attachment, AttachmentKey, FixedIp, Ipv6Mode, MetadataMode, Model, Network, Port, Subnet,
};
use crate::slowpath::metadata::{self, By, Guest, Mode, Nic, NicAddress, Proxy, Settings};
use crate::tables::compile::Places;
use crate::types::PortIdx;

/// Longest user data in bytes: as EC2's and Nova's, rounded up.
const LONGEST: u64 = 1 << 20;
/// Nova's default.
const AVAILABILITY_ZONE: &str = "nova";

/// What the guests of a model are told, by port.
pub(super) type Guests = HashMap<String, Arc<Guest>>;

/// Makes them.
///
/// # Errors
/// A file that cannot be read, with the port that names it.
pub(super) fn guests(model: &Model) -> Result<Guests, Problem> {
    let mut guests = Guests::new();
    for port in &model.ports {
        let Attachment::Access(name) = &port.attachment else { continue };
        let Some(network) = model.networks.iter().find(|network| network.name == *name) else { continue };
        if let Some(guest) = guest(port, network, model)? {
            guests.insert(port.name.clone(), Arc::new(guest));
        }
    }
    Ok(guests)
}

/// The same, as the slow path wants it.
pub(super) fn settings(guests: &Guests, model: &Model, places: &Places) -> Settings {
    let slot = |name: &String| Some(PortIdx(places.ports.get(&AttachmentKey::Port(name.clone()))?));
    let proxy = model.metadata.nova.as_ref().map(|nova| {
        Arc::new(Proxy {
            nova_metadata_host: nova.host.clone(),
            nova_metadata_port: nova.port,
            metadata_proxy_shared_secret: nova.shared_secret.clone(),
        })
    });
    Settings {
        guests: guests.iter().filter_map(|(name, guest)| Some((slot(name)?, guest.clone()))).collect(),
        proxy,
    }
}

/// Every document that a guest gets.
pub(super) fn documents(guest: &Guest) -> Vec<Document> {
    let document = |(path, _): (String, String)| {
        let (kind, body) = metadata::document(guest, &path)?;
        Some(Document::of(&path, kind, &body))
    };
    metadata::tree(guest).into_iter().filter_map(document).collect()
}

/// The guest of a port, if it is us who answer it.
///
/// # Errors
/// 409, with who does, or why nobody.
pub(super) fn built_in(
    guest: Option<&Arc<Guest>>,
    port: &Port,
    model: &Model,
) -> Result<Arc<Guest>, Problem> {
    let name = &port.name;
    let refused =
        |message: String, detail: &str| Problem::new(409, "NoMetadata", message).with_detail(detail);
    match (guest, &port.attachment) {
        (Some(guest), _) if guest.mode == Mode::BuiltIn => Ok(guest.clone()),
        (Some(_), _) => {
            let nova = model.metadata.nova.as_ref();
            let nova = nova.map_or_else(String::new, |nova| format!(" at {}:{}", nova.host, nova.port));
            let message = format!("Metadata of port {name} comes from the Nova{nova}: only that knows it.");
            Err(refused(message, "`metadata = \"builtin\"` of its network makes the switch answer."))
        }
        (None, Attachment::Trunk { .. }) => {
            let message = format!("Port {name} is a trunk: there is no one guest behind it.");
            Err(refused(message, "Metadata is for ports with a `network`."))
        }
        (None, Attachment::Access(_)) if port.mac_address.is_none() => {
            let message = format!("Port {name} has no MAC: nobody knows what is behind it.");
            Err(refused(message, "Give the port a `mac_address`, and its guest gets metadata."))
        }
        (None, Attachment::Access(network)) => {
            let message = format!("Network {network} of port {name} has no metadata.");
            Err(refused(message, "It says `metadata = \"off\"`, or [metadata] `mode = \"off\"`."))
        }
    }
}

fn guest(port: &Port, network: &Network, model: &Model) -> Result<Option<Guest>, Problem> {
    let mode = match network.metadata {
        MetadataMode::Off => return Ok(None),
        MetadataMode::Builtin => Mode::BuiltIn,
        MetadataMode::Proxy => Mode::Proxy,
    };
    let Some(mac) = port.mac_address else { return Ok(None) };
    let metadata = &port.metadata;
    let addresses = port.fixed_ips.iter().filter_map(|fixed| address(fixed, model)).collect();
    let nic = Nic { port_id: port.id, network_id: network.id, mac, mtu: network.mtu, addresses };
    let floating = model
        .floating_ips
        .iter()
        .find(|floating| floating.target.as_ref().is_some_and(|target| target.port == port.name));
    Ok(Some(Guest {
        instance_id: metadata.instance_id.clone().unwrap_or_else(|| port.id.to_string()),
        name: port.name.clone(),
        hostname: match &network.dns_domain {
            Some(domain) if !port.hostname().contains('.') => format!("{}.{domain}", port.hostname()),
            _ => port.hostname(),
        },
        project_id: metadata.project_id.clone(),
        availability_zone: Some(
            metadata.availability_zone.clone().unwrap_or_else(|| AVAILABILITY_ZONE.to_owned()),
        ),
        public_keys: metadata.public_keys.clone(),
        user_data: read(port, "user_data", metadata.user_data.as_deref())?,
        vendor_data: read(port, "vendor_data", metadata.vendor_data.as_deref())?,
        vendor_data2: None,
        instance_type: None,
        image_id: None,
        reservation_id: None,
        security_groups: security_groups(port),
        public_ipv4: floating.map(|floating| floating.floating_ip_address),
        nics: vec![nic],
        mode,
    }))
}

/// The names of its groups; none where none apply.
fn security_groups(port: &Port) -> Vec<String> {
    port.port_security.as_ref().and_then(|security| security.security_groups.clone()).unwrap_or_default()
}

fn address(fixed: &FixedIp, model: &Model) -> Option<NicAddress> {
    let subnet = model.subnets.iter().find(|subnet| subnet.name == fixed.subnet)?;
    Some(NicAddress {
        address: fixed.ip,
        prefix_len: fixed.prefix_len,
        gateway: subnet.gateway_ip,
        routes: subnet.host_routes.iter().map(|route| (route.destination, route.nexthop)).collect(),
        dns: subnet.dns_nameservers.clone(),
        by: by(subnet),
    })
}

fn by(subnet: &Subnet) -> By {
    match subnet.ipv6_address_mode {
        Some(Ipv6Mode::Slaac) => By::Slaac,
        Some(Ipv6Mode::Dhcpv6Stateful) => By::Dhcp6Stateful,
        Some(Ipv6Mode::Dhcpv6Stateless) => By::Dhcp6Stateless,
        None if subnet.enable_dhcp && subnet.cidr.addr().is_ipv4() => By::Dhcp4,
        None => By::Static,
    }
}

/// What a port's file holds.
fn read(port: &Port, key: &str, path: Option<&Path>) -> Result<Option<Arc<[u8]>>, Problem> {
    let Some(path) = path else { return Ok(None) };
    let place = format!("{}:{}: port[{}].metadata.{key}", port.origin.file, port.origin.line, port.name);
    let refused =
        |why: String| Problem::new(409, "FileRefused", format!("{place}: {}: {why}", path.display()));
    let length = std::fs::metadata(path).map_err(|error| refused(error.to_string()))?.len();
    if length > LONGEST {
        return Err(refused(format!("{length} bytes are more than {LONGEST}")));
    }
    let bytes = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
    Ok(Some(bytes.into()))
}
