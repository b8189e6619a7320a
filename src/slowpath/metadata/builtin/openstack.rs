//! OpenStack's tree, in the shape that Nova gives it (Nova, "Metadata service"; nova.virt.netutils for the network).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{Content, Document, Guest, documents, vendor_json};
use crate::slowpath::metadata::{By, Nic, NicAddress};

/// Versions of the API, oldest first, as Nova lists them.
const VERSIONS: &[&str] = &[
    "2012-08-10",
    "2013-04-04",
    "2013-10-17",
    "2015-10-15",
    "2016-06-30",
    "2016-10-06",
    "2017-02-22",
    "2018-08-27",
    "2020-10-14",
    "latest",
];

pub(super) const DOCUMENTS: &[Document] = &[
    ("meta_data.json", |guest| Some(Content::json(&meta_data(guest)))),
    ("user_data", |guest| guest.user_data.clone().map(Content::binary)),
    // A guest may ask for the password that it has posted. We keep none, so there is none.
    ("password", |_| Some(Content::text(""))),
    ("vendor_data.json", |guest| Some(Content::json(&vendor_json(guest.vendor_data.as_deref())))),
    ("network_data.json", |guest| Some(Content::json(&network_data(&guest.nics)))),
    ("vendor_data2.json", |guest| Some(Content::json(&vendor_json(guest.vendor_data2.as_deref())))),
];

pub(super) fn answer(guest: &Guest, path: &[&str]) -> Option<Content> {
    match path {
        [] => Some(Content::text(VERSIONS.join("\n"))),
        [version, rest @ ..] if VERSIONS.contains(version) => documents(DOCUMENTS, guest, rest),
        _ => None,
    }
}

fn meta_data(guest: &Guest) -> Value {
    let uuid = Uuid::parse_str(&guest.instance_id).unwrap_or_else(|_| {
        Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("instance:{}", guest.instance_id).as_bytes())
    });
    let mut data = json!({
        "uuid": uuid,
        "name": guest.name,
        "hostname": guest.hostname,
        "launch_index": 0,
        "availability_zone": guest.availability_zone,
        "project_id": guest.project_id,
        "devices": [],
        "dedicated_cpus": [],
    });
    if let (false, Some(fields)) = (guest.public_keys.is_empty(), data.as_object_mut()) {
        let named = || guest.public_keys.iter().enumerate().map(|(n, key)| (format!("key-{n}"), key));
        let map: Map<String, Value> = named().map(|(name, key)| (name, json!(key))).collect();
        let list: Vec<Value> =
            named().map(|(name, key)| json!({ "name": name, "type": "ssh", "data": key })).collect();
        fields.insert("public_keys".into(), map.into());
        fields.insert("keys".into(), list.into());
    }
    data
}

fn network_data(nics: &[Nic]) -> Value {
    let (mut links, mut networks, mut services) = (Vec::new(), Vec::new(), Vec::new());
    for nic in nics {
        let id = link_id(nic);
        links.push(json!({
            "id": id,
            "vif_id": nic.port_id,
            "type": "phy",
            "mtu": nic.mtu,
            "ethernet_mac_address": nic.mac,
        }));
        for address in &nic.addresses {
            let number = networks.len();
            networks.push(network(number, &id, nic, address));
            for service in dns(address) {
                if !services.contains(&service) {
                    services.push(service);
                }
            }
        }
    }
    json!({ "links": links, "networks": networks, "services": services })
}

/// The name that Neutron gives a port's device.
fn link_id(nic: &Nic) -> String {
    format!("tap{}", nic.port_id.to_string().get(..11).unwrap_or_default())
}

fn dns(address: &NicAddress) -> Vec<Value> {
    address.dns.iter().map(|ip| json!({ "type": "dns", "address": ip })).collect()
}

/// A network of a link. With DHCPv4 the rest comes by it; in all other cases Nova gives the address as well.
fn network(number: usize, link: &str, nic: &Nic, address: &NicAddress) -> Value {
    let kind = match (address.by, address.address) {
        (By::Dhcp4, _) => "ipv4_dhcp",
        (By::Static, IpAddr::V4(_)) => "ipv4",
        (By::Static, IpAddr::V6(_)) => "ipv6",
        (By::Slaac, _) => "ipv6_slaac",
        (By::Dhcp6Stateful, _) => "ipv6_dhcpv6-stateful",
        (By::Dhcp6Stateless, _) => "ipv6_dhcpv6-stateless",
    };
    let mut network = json!({
        "id": format!("network{number}"), "type": kind, "link": link, "network_id": nic.network_id,
    });
    if let (false, Some(fields)) = (address.by == By::Dhcp4, network.as_object_mut()) {
        let netmask = IpNet::new(address.address, address.prefix_len).ok().map(|net| net.netmask());
        fields.insert("ip_address".into(), json!(address.address));
        fields.insert("netmask".into(), json!(netmask));
        fields.insert("routes".into(), routes(address).into());
        fields.insert("services".into(), dns(address).into());
    }
    network
}

fn routes(address: &NicAddress) -> Vec<Value> {
    let any: IpAddr = match address.address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let route = |network: IpAddr, netmask: IpAddr, gateway: IpAddr| json!({ "network": network, "netmask": netmask, "gateway": gateway });
    let default = address.gateway.map(|gateway| route(any, any, gateway));
    let others = address.routes.iter().map(|(to, via)| route(to.network(), to.netmask(), *via));
    default.into_iter().chain(others).collect()
}
