//! Network devices over rtnetlink (rtnetlink(7)): looking them up, making, changing and removing them, and hearing of
//! their comings and goings. Blocking; for the control side only.
//!
//! A [`Links`] belongs to the namespace of the thread that opened it, wherever it is used later.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, Nla,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoTun, InfoVeth, LinkAttribute,
    LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use thiserror::Error;

use crate::types::Mac;

/// `RTMGRP_LINK` (linux/rtnetlink.h).
const LINK_GROUP: u32 = 1;
/// `IFLA_TUN_MULTI_QUEUE` (linux/if_link.h).
const TUN_MULTI_QUEUE: u16 = 7;

/// Why a request about a device failed.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The netlink socket itself.
    #[error("netlink: {0}")]
    Socket(#[from] io::Error),
    /// The kernel's answer made no sense.
    #[error("netlink: cannot read the kernel's answer: {0}")]
    Answer(String),
    /// There is no such device.
    #[error("device `{0}` does not exist")]
    Missing(String),
    /// The kernel refused.
    #[error("device `{device}`: cannot {what}: {source}")]
    Refused {
        /// Its name, or its index where only that is known.
        device: String,
        /// What was asked.
        what: String,
        /// The kernel's reason.
        source: io::Error,
    },
}

impl LinkError {
    /// The kernel's error number, where it gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            LinkError::Socket(source) | LinkError::Refused { source, .. } => source.raw_os_error(),
            LinkError::Missing(_) => Some(libc::ENODEV),
            LinkError::Answer(_) => None,
        }
    }
}

/// A device as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `veth`, `tun` (also for TAPs), `bridge`, …; none for hardware.
    pub kind: Option<String>,
    /// Longest packet without Ethernet header, in bytes.
    pub mtu: u32,
    /// Its MAC; none for devices without Ethernet addresses.
    pub mac: Option<Mac>,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Has a carrier (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// Carries Ethernet frames.
    pub ethernet: bool,
    /// Index of the bridge or bond that it belongs to.
    pub master: Option<u32>,
    /// For `veth`: index of the peer, in the peer's namespace.
    pub peer: Option<u32>,
    /// For `tun`: made for several queues.
    pub multi_queue: bool,
    /// Receive queues.
    pub rx_queues: u32,
}

impl Link {
    /// Whether this is a TAP: a TUN device that carries Ethernet frames.
    pub fn is_tap(&self) -> bool {
        self.kind.as_deref() == Some("tun") && self.ethernet
    }
}

/// What happened to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// It is new, or something about it changed.
    New {
        /// Its name now.
        name: String,
        /// Its index.
        index: u32,
        /// Administratively up.
        up: bool,
    },
    /// It is gone from this namespace.
    Gone {
        /// The name it had.
        name: String,
        /// The index it had.
        index: u32,
    },
    /// Events were lost because we read too slowly: list the devices anew.
    Overrun,
}

/// A connection to the kernel's device table of one namespace.
pub struct Links {
    socket: Socket,
    sequence: u32,
}

type Reply = NetlinkMessage<RouteNetlinkMessage>;

impl Links {
    /// Connects to the calling thread's namespace.
    ///
    /// # Errors
    /// [`LinkError::Socket`].
    pub fn open() -> Result<Links, LinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Links { socket, sequence: 0 })
    }

    /// All devices.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn list(&mut self) -> Result<Vec<Link>, LinkError> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let replies = self.ask(request, NLM_F_DUMP).map_err(|e| e.named("*", "list"))?;
        Ok(replies.iter().filter_map(new_link).collect())
    }

    /// The device of this name.
    ///
    /// # Errors
    /// [`LinkError::Missing`] when there is none.
    pub fn get(&mut self, name: &str) -> Result<Link, LinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.get_one(message, name)
    }

    /// The device of this index.
    ///
    /// # Errors
    /// [`LinkError::Missing`] when there is none.
    pub fn get_index(&mut self, index: u32) -> Result<Link, LinkError> {
        self.get_one(about(index), &index.to_string())
    }

    fn get_one(&mut self, message: LinkMessage, name: &str) -> Result<Link, LinkError> {
        // A name that is too long gives ERANGE.
        let replies = self.ask(RouteNetlinkMessage::GetLink(message), 0).map_err(|e| match e.errno() {
            Some(libc::ENODEV | libc::ERANGE) => LinkError::Missing(name.to_owned()),
            _ => e.named(name, "look it up"),
        })?;
        replies.iter().find_map(new_link).ok_or_else(|| LinkError::Missing(name.to_owned()))
    }

    /// Makes two connected devices.
    ///
    /// # Errors
    /// [`LinkError::Refused`]: `EEXIST` when a name is taken, `EPERM` without `CAP_NET_ADMIN`.
    pub fn add_veth(&mut self, name: &str, peer: &str) -> Result<(), LinkError> {
        let mut other = LinkMessage::default();
        other.attributes.push(LinkAttribute::IfName(peer.to_owned()));
        self.add(name, InfoKind::Veth, Some(InfoData::Veth(InfoVeth::Peer(other))))
    }

    /// Makes a bridge.
    ///
    /// # Errors
    /// As [`Links::add_veth`].
    pub fn add_bridge(&mut self, name: &str) -> Result<(), LinkError> {
        self.add(name, InfoKind::Bridge, None)
    }

    fn add(&mut self, name: &str, kind: InfoKind, data: Option<InfoData>) -> Result<(), LinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let mut info = vec![LinkInfo::Kind(kind)];
        info.extend(data.map(LinkInfo::Data));
        message.attributes.push(LinkAttribute::LinkInfo(info));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        let result = self.ask(RouteNetlinkMessage::NewLink(message), flags);
        result.map(drop).map_err(|e| e.named(name, "make it"))
    }

    /// Removes a device (and a veth's peer).
    ///
    /// # Errors
    /// [`LinkError::Refused`].
    pub fn delete(&mut self, index: u32) -> Result<(), LinkError> {
        let result = self.ask(RouteNetlinkMessage::DelLink(about(index)), NLM_F_ACK);
        result.map(drop).map_err(|e| e.named(&index.to_string(), "remove it"))
    }

    /// Sets a device up or down.
    ///
    /// # Errors
    /// [`LinkError::Refused`].
    pub fn set_up(&mut self, index: u32, up: bool) -> Result<(), LinkError> {
        self.set_flag(index, LinkFlags::Up, up, if up { "set it up" } else { "set it down" })
    }

    /// Turns ARP off or on: without it the kernel neither asks nor answers there (`IFF_NOARP`).
    ///
    /// # Errors
    /// [`LinkError::Refused`].
    pub fn set_arp(&mut self, index: u32, arp: bool) -> Result<(), LinkError> {
        self.set_flag(index, LinkFlags::Noarp, !arp, "set ARP")
    }

    fn set_flag(&mut self, index: u32, flag: LinkFlags, on: bool, what: &str) -> Result<(), LinkError> {
        let mut message = about(index);
        message.header.flags = if on { flag } else { LinkFlags::empty() };
        message.header.change_mask = flag;
        self.change(message, what)
    }

    /// Sets the MTU in bytes.
    ///
    /// # Errors
    /// [`LinkError::Refused`]: `EINVAL` beyond what the device carries.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), LinkError> {
        self.set(index, LinkAttribute::Mtu(mtu), &format!("set the MTU to {mtu}"))
    }

    /// Sets the MAC.
    ///
    /// # Errors
    /// [`LinkError::Refused`]: `EADDRNOTAVAIL` for a group address.
    pub fn set_mac(&mut self, index: u32, mac: Mac) -> Result<(), LinkError> {
        self.set(index, LinkAttribute::Address(mac.0.to_vec()), &format!("set the MAC to {mac}"))
    }

    /// Renames a device.
    ///
    /// # Errors
    /// [`LinkError::Refused`]: `EEXIST` when the name is taken.
    pub fn set_name(&mut self, index: u32, name: &str) -> Result<(), LinkError> {
        self.set(index, LinkAttribute::IfName(name.to_owned()), &format!("rename it to `{name}`"))
    }

    /// Moves a device to another namespace under this name; it arrives down and without addresses.
    ///
    /// # Errors
    /// [`LinkError::Refused`]: `EEXIST` when the name is taken there.
    pub fn set_netns(&mut self, index: u32, netns: BorrowedFd<'_>, name: &str) -> Result<(), LinkError> {
        let mut message = about(index);
        message.attributes.push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.change(message, "move it to another namespace")
    }

    /// Puts a device into the bridge of index `master`, or takes it out.
    ///
    /// # Errors
    /// [`LinkError::Refused`].
    pub fn set_master(&mut self, index: u32, master: Option<u32>) -> Result<(), LinkError> {
        self.set(index, LinkAttribute::Controller(master.unwrap_or(0)), "put it into a bridge")
    }

    /// Keeps the kernel from giving the device an IPv6 link-local address (`addrgenmode none`).
    ///
    /// # Errors
    /// [`LinkError::Refused`]; harmless where the kernel has no IPv6.
    pub fn set_no_link_local(&mut self, index: u32) -> Result<(), LinkError> {
        let mode = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        self.set(index, LinkAttribute::AfSpecUnspec(vec![mode]), "turn IPv6 link-local addresses off")
    }

    fn set(&mut self, index: u32, attribute: LinkAttribute, what: &str) -> Result<(), LinkError> {
        let mut message = about(index);
        message.attributes.push(attribute);
        self.change(message, what)
    }

    fn change(&mut self, message: LinkMessage, what: &str) -> Result<(), LinkError> {
        let device = message.header.index.to_string();
        let result = self.ask(RouteNetlinkMessage::SetLink(message), NLM_F_ACK);
        result.map(drop).map_err(|e| e.named(&device, what))
    }

    /// Gives a device an address with a prefix length. One that it has already is no error.
    ///
    /// # Errors
    /// [`LinkError::Refused`].
    pub fn add_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> Result<(), LinkError> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.prefix_len = prefix;
        message.header.family = family(address);
        message.attributes.push(AddressAttribute::Local(address));
        message.attributes.push(AddressAttribute::Address(address));
        if let IpAddr::V4(v4) = address
            && prefix < 31
        {
            let host = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
            message.attributes.push(AddressAttribute::Broadcast((v4.to_bits() | host).into()));
        }
        if address.is_ipv6() {
            // Nobody else on this segment has it, and a port is usable at once: no duplicate address detection.
            message.header.flags = netlink_packet_route::address::AddressHeaderFlags::Nodad;
        }
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        let result = self.ask(RouteNetlinkMessage::NewAddress(message), flags);
        result
            .map(drop)
            .map_err(|e| e.named(&index.to_string(), &format!("add the address {address}/{prefix}")))
    }

    /// Sends IPv4 packets that no other route fits to this gateway, which one of our devices must reach. A default route that
    /// there is already is replaced.
    ///
    /// # Errors
    /// [`LinkError::Refused`].
    pub fn set_default_route(&mut self, gateway: Ipv4Addr) -> Result<(), LinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        let result = self.ask(RouteNetlinkMessage::NewRoute(message), flags);
        result.map(drop).map_err(|e| e.named(&gateway.to_string(), "make it the default gateway"))
    }

    /// Addresses of a device with their prefix lengths.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn addresses(&mut self, index: u32) -> Result<Vec<(IpAddr, u8)>, LinkError> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let replies =
            self.ask(request, NLM_F_DUMP).map_err(|e| e.named(&index.to_string(), "list its addresses"))?;
        let ours = replies.iter().filter_map(|reply| match &reply.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(message)) => Some(message),
            _ => None,
        });
        let ours = ours.filter(|message| message.header.index == index);
        Ok(ours.filter_map(|message| Some((local_address(message)?, message.header.prefix_len))).collect())
    }

    fn ask(&mut self, request: RouteNetlinkMessage, flags: u16) -> Result<Vec<Reply>, LinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        self.replies(flags)
    }

    /// Reads until the acknowledgement, the end of the dump, or the one answer of a plain request.
    fn replies(&mut self, flags: u16) -> Result<Vec<Reply>, LinkError> {
        let mut replies = Vec::new();
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            for reply in split(&bytes)? {
                if reply.header.sequence_number != self.sequence {
                    continue;
                }
                match &reply.payload {
                    NetlinkPayload::Done(_) => return Ok(replies),
                    NetlinkPayload::Error(error) => match error.code {
                        None => return Ok(replies),
                        Some(code) => return Err(io::Error::from_raw_os_error(-code.get()).into()),
                    },
                    _ => replies.push(reply),
                }
            }
            if flags & (NLM_F_ACK | NLM_F_DUMP) == 0 && !replies.is_empty() {
                return Ok(replies);
            }
        }
    }
}

impl LinkError {
    fn named(self, device: &str, what: &str) -> LinkError {
        match self {
            LinkError::Socket(source) => {
                LinkError::Refused { device: device.to_owned(), what: what.to_owned(), source }
            }
            other => other,
        }
    }
}

/// Hears of every device that comes, changes or goes in the namespace of the thread that opened it.
pub struct LinkMonitor {
    socket: Socket,
    waiting: VecDeque<LinkEvent>,
}

impl LinkMonitor {
    /// Starts to listen.
    ///
    /// # Errors
    /// [`LinkError::Socket`].
    pub fn open() -> Result<LinkMonitor, LinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, LINK_GROUP))?;
        socket.set_non_blocking(true)?;
        Ok(LinkMonitor { socket, waiting: VecDeque::new() })
    }

    /// The descriptor, to poll: readable when there may be an event.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next event, or nothing when there is none now.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn next_event(&mut self) -> Result<Option<LinkEvent>, LinkError> {
        while self.waiting.is_empty() {
            match self.socket.recv_from_full() {
                Ok((bytes, _)) => self.waiting.extend(split(&bytes)?.iter().filter_map(event)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    return Ok(Some(LinkEvent::Overrun));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.waiting.pop_front())
    }
}

fn about(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// The messages of one datagram.
fn split(mut bytes: &[u8]) -> Result<Vec<Reply>, LinkError> {
    let mut messages = Vec::new();
    while bytes.len() >= 16 {
        let message = Reply::deserialize(bytes).map_err(|error| LinkError::Answer(error.to_string()))?;
        let len = (message.header.length as usize).next_multiple_of(4).max(16);
        messages.push(message);
        bytes = bytes.get(len..).unwrap_or_default();
    }
    Ok(messages)
}

fn new_link(reply: &Reply) -> Option<Link> {
    match &reply.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) => Some(link(message)),
        _ => None,
    }
}

fn event(reply: &Reply) -> Option<LinkEvent> {
    let NetlinkPayload::InnerMessage(message) = &reply.payload else { return None };
    match message {
        RouteNetlinkMessage::NewLink(message) => {
            let Link { name, index, up, .. } = link(message);
            Some(LinkEvent::New { name, index, up })
        }
        // A bridge says so when a port leaves it (family AF_BRIDGE): the device itself is still there.
        RouteNetlinkMessage::DelLink(message) if message.header.interface_family != AddressFamily::Bridge => {
            let Link { name, index, .. } = link(message);
            Some(LinkEvent::Gone { name, index })
        }
        _ => None,
    }
}

fn link(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: None,
        mtu: 0,
        mac: None,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        master: None,
        peer: None,
        multi_queue: false,
        rx_queues: 1,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().ok().map(Mac),
            LinkAttribute::Controller(master) => link.master = Some(*master).filter(|&index| index != 0),
            LinkAttribute::Link(peer) => link.peer = Some(*peer),
            LinkAttribute::NumRxQueues(queues) => link.rx_queues = *queues,
            LinkAttribute::LinkInfo(info) => info.iter().for_each(|info| match info {
                LinkInfo::Kind(kind) => link.kind = Some(kind.to_string()),
                LinkInfo::Data(InfoData::Tun(attributes)) => link.multi_queue = is_multi_queue(attributes),
                _ => {}
            }),
            _ => {}
        }
    }
    link
}

fn is_multi_queue(attributes: &[InfoTun]) -> bool {
    attributes.iter().any(|attribute| {
        let mut value = vec![0; attribute.value_len()];
        attribute.emit_value(&mut value);
        attribute.kind() == TUN_MULTI_QUEUE && value.first().is_some_and(|&on| on != 0)
    })
}

fn local_address(message: &AddressMessage) -> Option<IpAddr> {
    // IFA_LOCAL is our side of a point-to-point link; IPv6 has IFA_ADDRESS alone.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_is_found() {
        let mut links = Links::open().unwrap();
        let lo = links.get("lo").unwrap();
        assert_eq!((lo.index, lo.ethernet, lo.is_tap()), (1, false, false));
        assert_eq!(links.get_index(1).unwrap(), lo);
        assert!(links.list().unwrap().iter().any(|link| link.name == "lo"));
        assert!(matches!(links.get("nu-missing"), Err(LinkError::Missing(name)) if name == "nu-missing"));
        assert!(matches!(links.get("nu-a-name-that-is-too-long"), Err(LinkError::Missing(_))));
    }

    #[test]
    fn a_refusal_names_the_device_and_the_reason() {
        let error = Links::open().unwrap().set_up(u32::MAX >> 1, true).unwrap_err();
        assert!(error.to_string().contains("2147483647"), "{error}");
    }
}
