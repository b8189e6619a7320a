//! Opens and closes the devices behind ports, by what the configuration asks for. The only place that knows all kinds.

use std::sync::Arc;

use crate::model::{Device, Interface, Overlay, XdpMode};
use crate::ports::guest::{self, GuestConfig};
use crate::ports::link::{LinkError, Links};
use crate::ports::netns::NetnsError;
use crate::ports::packet::{PacketError, PacketPort};
use crate::ports::pcap::PcapPort;
use crate::ports::tap::{TapConfig, TapError, TapPort};
use crate::ports::xdp::{XdpConfig, XdpError, XdpPort};
use crate::ports::{Caps, Details, PortIo};
use crate::stats::PortCounters;
use crate::sys::xdp::program::{Filter, HostFilter, VtepFilter};
use crate::sys::xdp::umem::Umem;
use crate::types::{Mac, PortIdx};

/// An open device, on its way to a worker.
pub(super) struct Opened {
    pub(super) io: Box<dyn PortIo>,
    pub(super) caps: Caps,
    pub(super) details: Details,
    /// The device's own address, where that matters: the underlay's.
    pub(super) mac: Option<Mac>,
}

/// Why a device is not open.
#[derive(Debug)]
pub(super) enum Failure {
    /// It is not there. It may come; then it is opened.
    Missing(String),
    /// The kernel or the configuration is against it.
    Refused(String),
}

impl Failure {
    pub(super) fn text(&self) -> &str {
        match self {
            Failure::Missing(text) | Failure::Refused(text) => text,
        }
    }
}

/// Where a device is to be used.
pub(super) struct Site<'a> {
    pub(super) slot: PortIdx,
    pub(super) mac: Option<Mac>,
    /// For the underlay's device.
    pub(super) overlay: Option<&'a Overlay>,
    pub(super) umem: &'a Arc<Umem>,
    pub(super) counters: &'a Arc<PortCounters>,
}

/// Opens the device of an attachment.
pub(super) fn open(device: &Device<'_>, site: &Site<'_>) -> Result<Opened, Failure> {
    let mut opened = open_kind(device, site)?;
    if let (Some(overlay), Some((_, name))) = (site.overlay, device.interface.device()) {
        opened.mac = Links::open().and_then(|mut links| links.get(name)).map_err(failed(name))?.mac;
        fits(overlay, opened.caps.mtu, name).map_err(Failure::Refused)?;
    }
    Ok(opened)
}

/// Whether the underlay's device carries packets as long as the overlay's MTU; says what to change where it does not.
pub(super) fn fits(overlay: &Overlay, mtu: u16, name: &str) -> Result<(), String> {
    if mtu < overlay.mtu {
        return Err(format!(
            "the MTU of `{name}` is {mtu}, so packets of overlay.mtu = {} would vanish: set the device's to at least that, or \
             overlay.mtu to at most {mtu}",
            overlay.mtu
        ));
    }
    Ok(())
}

fn open_kind(device: &Device<'_>, site: &Site<'_>) -> Result<Opened, Failure> {
    let counters = site.counters.clone();
    match device.interface {
        Interface::Tap { name, netns, address } => {
            let config = TapConfig {
                name: name.clone(),
                netns: netns.clone(),
                address: address.clone(),
                mac: site.mac,
                mtu: device.mtu,
            };
            TapPort::open(&config, counters).map(opened).map_err(|error| match &error {
                TapError::Netns(NetnsError::Open { .. }) => Failure::Missing(error.to_string()),
                _ => Failure::Refused(error.to_string()),
            })
        }
        Interface::Guest { name, owner } => {
            let config = GuestConfig { name: name.clone(), owner: owner.clone(), mtu: device.mtu };
            guest::open(&config, counters).map(opened).map_err(|error| Failure::Refused(error.to_string()))
        }
        Interface::Xdp { name, mode, shared, busy_poll } => xdp(name, *mode, *shared, *busy_poll, site),
        Interface::Packet { name } => packet(name, site),
        Interface::Best { name, shared } => match xdp(name, XdpMode::Best, *shared, false, site) {
            Err(Failure::Refused(reason)) => packet(name, site).map(|mut opened| {
                opened.details.notes.push(format!("AF_PACKET, because AF_XDP does not work here: {reason}"));
                opened
            }),
            result => result,
        },
        Interface::Pcap { read, write } => {
            let (read, write) = (read.as_deref(), write.as_deref());
            PcapPort::open(&device.key.to_string(), read, write, device.mtu, counters)
                .map(opened)
                .map_err(|error| Failure::Refused(error.to_string()))
        }
    }
}

fn opened(io: impl PortIo + 'static) -> Opened {
    Opened { caps: io.caps(), details: io.details(), io: Box::new(io), mac: None }
}

fn packet(name: &str, site: &Site<'_>) -> Result<Opened, Failure> {
    PacketPort::open(name, site.counters.clone()).map(opened).map_err(|error| match &error {
        PacketError::Link(LinkError::Missing(_)) => Failure::Missing(error.to_string()),
        _ => Failure::Refused(error.to_string()),
    })
}

fn xdp(
    name: &str,
    mode: XdpMode,
    shared: Option<bool>,
    busy_poll: bool,
    site: &Site<'_>,
) -> Result<Opened, Failure> {
    let filter = filter(name, shared, site.overlay)?;
    let config = XdpConfig { device: name.to_owned(), mode, filter, busy_poll, rx_chunks: None };
    let port =
        XdpPort::open(&config, site.umem, site.slot.0, site.counters.clone()).map_err(
            |error| match &error {
                XdpError::NoDevice { .. } => Failure::Missing(error.to_string()),
                _ => Failure::Refused(error.to_string()),
            },
        )?;
    Ok(opened(port))
}

fn failed(name: &str) -> impl Fn(LinkError) -> Failure {
    move |error| match error {
        LinkError::Missing(_) => Failure::Missing(format!("`{name}`: no such device")),
        error => Failure::Refused(error.to_string()),
    }
}

/// What is whose on a device that the host uses too: asked for, or because the device has an address that is not only
/// link-local.
fn filter(name: &str, shared: Option<bool>, overlay: Option<&Overlay>) -> Result<Option<Filter>, Failure> {
    if shared == Some(false) {
        return Ok(None);
    }
    let mut links = Links::open().map_err(failed(name))?;
    let link = links.get(name).map_err(failed(name))?;
    let addresses = links.addresses(link.index).map_err(failed(name))?;
    let mut filter = HostFilter { mac: link.mac.unwrap_or_default(), ipv4: Vec::new(), ipv6: Vec::new() };
    let mut in_use = false;
    for (address, _) in addresses {
        if let Some(overlay) = overlay.filter(|overlay| overlay.local_ip == address) {
            return Err(Failure::Refused(format!(
                "{} is the host's own address on `{name}`: give overlay.local_ip another one of the subnet",
                overlay.local_ip
            )));
        }
        match address {
            std::net::IpAddr::V4(address) => {
                in_use = true;
                filter.ipv4.push(address);
            }
            std::net::IpAddr::V6(address) => {
                in_use |= !address.is_unicast_link_local();
                filter.ipv6.push(address);
            }
        }
    }
    let filter = match overlay {
        Some(overlay) => Filter::Vtep(VtepFilter { local: overlay.local_ip, udp_port: overlay.udp_port }),
        None => Filter::Host(filter),
    };
    Ok(Some(filter).filter(|_| shared.unwrap_or(in_use)))
}

/// The kind of an interface as the configuration names it, and its device's name.
pub(super) fn describe(interface: &Interface) -> (&'static str, String) {
    match interface {
        Interface::Tap { name, netns: Some(netns), .. } => ("tap", format!("{name}@{netns}")),
        Interface::Tap { name, .. } => ("tap", name.clone()),
        Interface::Guest { name, .. } => ("guest", name.clone()),
        Interface::Xdp { name, .. } => ("xdp", name.clone()),
        Interface::Packet { name } => ("packet", name.clone()),
        Interface::Best { name, .. } => ("best", name.clone()),
        Interface::Pcap { read, write } => {
            let files: Vec<String> =
                read.iter().chain(write).map(|path| path.display().to_string()).collect();
            ("pcap", files.join(" "))
        }
    }
}
