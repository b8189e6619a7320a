//! Guests, as the control API tells of them: how a hypervisor attaches one, what it is told by metadata, its addresses by DHCP.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Problem;
use crate::model::{self, Attachment, AttachmentKey, MetadataMode, Model};
use crate::types::Mac;

/// One of a port's `extra_dhcp_opts`, as Neutron writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraDhcpOpt {
    /// Its name, or its number.
    pub opt_name: String,
    /// Its value.
    pub opt_value: String,
    /// 4 or 6.
    pub ip_version: u8,
}

impl From<&model::ExtraDhcpOpt> for ExtraDhcpOpt {
    fn from(opt: &model::ExtraDhcpOpt) -> ExtraDhcpOpt {
        let ip_version = if opt.is_v6 { 6 } else { 4 };
        ExtraDhcpOpt { opt_name: opt.opt_name.clone(), opt_value: opt.opt_value.clone(), ip_version }
    }
}

/// What a hypervisor must know of a `guest` port: `GET /v1/guests/{port}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestPort {
    /// The port's ID.
    pub id: Uuid,
    /// The port's name.
    pub name: String,
    /// The TAP to open.
    pub device: String,
    /// Who may open it beside root, by name or number.
    pub owner: Option<String>,
    /// The MAC that the guest is to have.
    pub mac_address: Option<Mac>,
    /// Longest packet in bytes.
    pub mtu: u16,
    /// Who answers its metadata requests: `builtin`, `proxy` or `off`.
    pub metadata: String,
}

impl GuestPort {
    /// Of a model.
    ///
    /// # Errors
    /// 409 when the port is of another kind, with what to use instead.
    pub fn of(model: &Model, port: &model::Port) -> Result<GuestPort, Problem> {
        let (device, owner) = match &port.interface {
            model::Interface::Guest { name, owner } => (name.clone(), owner.clone()),
            other => return Err(no_guest(&port.name, other)),
        };
        let key = AttachmentKey::Port(port.name.clone());
        let network = match &port.attachment {
            Attachment::Access(name) => model.networks.iter().find(|network| network.name == *name),
            Attachment::Trunk { .. } => None,
        };
        let metadata = match network.map_or(MetadataMode::Off, |network| network.metadata) {
            MetadataMode::Builtin => "builtin",
            MetadataMode::Proxy => "proxy",
            MetadataMode::Off => "off",
        };
        Ok(GuestPort {
            id: port.id,
            name: port.name.clone(),
            device,
            owner,
            mac_address: port.mac_address,
            mtu: model.attachments().find(|device| device.key == key).map_or(1500, |device| device.mtu),
            metadata: metadata.to_owned(),
        })
    }
}

/// A hypervisor cannot attach to a port of this kind.
fn no_guest(port: &str, interface: &model::Interface) -> Problem {
    let device = interface.device().map_or("-", |(_, name)| name);
    let (kind, instead) = match interface {
        model::Interface::Tap { .. } => ("tap", format!("`{device}` is itself the end point, in the kernel")),
        model::Interface::Xdp { .. } => ("xdp", other_end(device)),
        model::Interface::Packet { .. } => ("packet", other_end(device)),
        model::Interface::Best { .. } => ("best", other_end(device)),
        model::Interface::Pcap { .. } => ("pcap", "it plays and writes files".to_owned()),
        model::Interface::Guest { .. } => ("guest", String::new()),
    };
    let hint = "A hypervisor opens ports with `interface = { kind = \"guest\", name = \"…\" }`";
    Problem::new(409, "NoGuestPort", format!("Port {port} is of kind \"{kind}\": no hypervisor can open it."))
        .with_detail(format!("{hint}; {instead}."))
}

fn other_end(device: &str) -> String {
    format!("what is on the other side of the existing device `{device}` is this port's already")
}

/// A document of the metadata service: `GET /v1/metadata?port=…`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Its path.
    pub path: String,
    /// Its MIME type.
    pub content_type: String,
    /// Its bytes.
    pub length: usize,
    /// What it says; none where it is no UTF-8.
    pub text: Option<String>,
}

impl Document {
    /// One with these bytes.
    pub fn of(path: &str, content_type: &str, body: &[u8]) -> Document {
        Document {
            path: path.to_owned(),
            content_type: content_type.to_owned(),
            length: body.len(),
            text: std::str::from_utf8(body).ok().map(str::to_owned),
        }
    }
}

/// Where a lease comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseKind {
    /// From the configuration: the address is the port's for ever, whether its guest asks or not.
    Fixed,
    /// Out of a pool.
    Dynamic,
}

/// An address that DHCP gives: `GET /v1/leases`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Name of the network.
    pub network: String,
    /// Name of the subnet.
    pub subnet: String,
    /// Name of the port whose it is, or that its client was last heard at.
    pub port: Option<String>,
    /// The client's MAC.
    pub mac_address: Mac,
    /// The address.
    pub ip_address: IpAddr,
    /// The name that the client is told.
    pub hostname: Option<String>,
    /// Seconds that it is given for.
    pub lease_time: u32,
    /// Fixed or out of a pool.
    pub kind: LeaseKind,
    /// Out of a pool: `offered`, `bound`, `released` `declined`, or `expired`: remembered for its client.
    pub state: Option<String>,
    /// Out of a pool: seconds until it ends.
    pub expires_in: Option<u64>,
}
