//! A seed for cloud-init's NoCloud over HTTP: `ds=nocloud-net;s=http://169.254.169.254/nocloud/`.
//!
//! The YAML is written as JSON, which is YAML too (YAML 1.2.2, 1.2) and has one way to quote. A seed that is missing makes
//! cloud-init try again for ten seconds, so what a guest does not have is there and empty.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::{Content, Document, Guest, TEXT, vendor_json};
use crate::slowpath::metadata::{By, Nic};

pub(super) const DOCUMENTS: &[Document] = &[
    ("meta-data", |guest| Some(yaml(&meta_data(guest)))),
    ("user-data", |guest| Some(guest.user_data.clone().map_or_else(|| Content::text(""), Content::binary))),
    ("vendor-data", |guest| Some(Content::text(vendor_data(guest)))),
    ("network-config", |guest| Some(yaml(&network_config(&guest.nics)))),
];

fn yaml(value: &Value) -> Content {
    Content { kind: TEXT, body: format!("{value:#}\n").into() }
}

fn meta_data(guest: &Guest) -> Value {
    let mut data = json!({
        "instance-id": guest.instance_id,
        "local-hostname": guest.hostname,
        "public-keys": guest.public_keys,
    });
    if let (Some(zone), Some(fields)) = (&guest.availability_zone, data.as_object_mut()) {
        fields.insert("availability-zone".into(), json!(zone));
    }
    data
}

/// Vendor data has no JSON here: of a string that is the text, of an object what it has for cloud-init, as Nova's is read.
fn vendor_data(guest: &Guest) -> String {
    match vendor_json(guest.vendor_data.as_deref()) {
        Value::String(text) => text,
        Value::Object(fields) => match fields.get("cloud-init") {
            Some(Value::String(text)) => text.clone(),
            _ => String::new(),
        },
        _ => String::new(),
    }
}

/// Network configuration, version 2 (netplan's).
fn network_config(nics: &[Nic]) -> Value {
    let ethernet = |(number, nic): (usize, &Nic)| (format!("nic{number}"), ethernet(nic));
    let ethernets: Map<String, Value> = nics.iter().enumerate().map(ethernet).collect();
    json!({ "version": 2, "ethernets": ethernets })
}

fn ethernet(nic: &Nic) -> Value {
    let by = |wanted: &[By]| nic.addresses.iter().any(|address| wanted.contains(&address.by));
    let announced = by(&[By::Slaac, By::Dhcp6Stateful, By::Dhcp6Stateless]);
    let mut fields = Map::new();
    fields.insert("match".into(), json!({ "macaddress": nic.mac }));
    fields.insert("mtu".into(), json!(nic.mtu));
    fields.insert("dhcp4".into(), json!(by(&[By::Dhcp4])));
    fields.insert("dhcp6".into(), json!(by(&[By::Dhcp6Stateful, By::Dhcp6Stateless])));
    fields.insert("accept-ra".into(), json!(announced));
    let fixed: Vec<_> = nic.addresses.iter().filter(|address| address.by == By::Static).collect();
    if !fixed.is_empty() {
        let addresses: Vec<String> =
            fixed.iter().map(|a| format!("{}/{}", a.address, a.prefix_len)).collect();
        let mut routes: Vec<Value> = Vec::new();
        let mut servers: Vec<IpAddr> = Vec::new();
        for address in fixed {
            let default = if address.address.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
            routes.extend(address.gateway.map(|via| json!({ "to": default, "via": via })));
            routes.extend(address.routes.iter().map(|(to, via)| json!({ "to": to.to_string(), "via": via })));
            servers.extend(&address.dns);
        }
        servers.dedup();
        fields.insert("addresses".into(), json!(addresses));
        fields.insert("routes".into(), json!(routes));
        fields.insert("nameservers".into(), json!({ "addresses": servers }));
    }
    fields.into()
}
