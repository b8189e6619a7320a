//! DHCPv6 (RFC 8415): answers to the client behind one port, out of what the configuration gives that port.
//!
//! - The client is known by the port that its frame came in by. Its MAC must be the port's: the frame's source or, behind relay
//!   agents, what the agent next to it says (RFC 6939). Nothing is remembered: what a port has is its binding, from the first
//!   SOLICIT on, so there is nothing that clients could use up.
//! - A port has one binding. The first IA_NA of a message gets all its addresses, further ones get none; there are no temporary
//!   addresses and no prefixes. The only addresses that are appropriate to its link, in the RFC's words, are its own: a client
//!   that comes with others (of another network, or from before a change) is told NotOnLink, or gets them back with lifetimes
//!   of 0, and has the right ones one exchange later.
//! - Only what a client asks for in its option request option is sent besides; to one that has none, everything is.
//! - Clients speak to all servers of the link. One that writes to this server alone is told not to, as it was never told to
//!   (RFC 8415, 18.4). Messages for other servers are met with silence.
//!
//! Limits: [`MAX_ASSOCIATIONS`] identity associations in a message, 9 relay agents, and replies of [`MAX_REPLY`] bytes.
//! Reconfigure, authentication and prefix delegation are not spoken.

use std::net::{IpAddr, Ipv6Addr};

use arrayvec::ArrayVec;
use thiserror::Error;

use super::packet::{self, Packet};
use super::{Ignored, SERVICE_MAC, SERVICE_V6, is_device, is_host_v6};
use crate::stats::DropReason;
use crate::types::Mac;
use crate::wire::checksum::{Sum, pseudo_v6};
use crate::wire::dhcp6::{
    ALL_AGENTS, ALL_SERVERS, CLIENT_PORT, HOP_COUNT_LIMIT, Kind, Message, Opt, Relay, SERVER_PORT, Status,
    Writer, domain_name, option,
};
use crate::wire::udp::{self, Udp};
use crate::wire::{ethernet, ipv6, protocol};

mod exchange;

/// Most identity associations of a message.
pub const MAX_ASSOCIATIONS: usize = 16;
/// Bytes of the longest reply, Ethernet header included: what an ordinary link carries.
pub const MAX_REPLY: usize = ethernet::HEADER + 1500;
/// Each agent counts up, and the first one begins at 0.
const MAX_RELAYS: usize = HOP_COUNT_LIMIT as usize + 1;
/// Bytes before the message of a reply.
const HEADERS: usize = ethernet::HEADER + ipv6::HEADER + udp::HEADER;
const HOP_LIMIT: u8 = 64;
/// The type of a DUID that is a UUID (RFC 6355, 4).
const DUID_UUID: u16 = 4;
/// Ethernet, in the option that tells a client's MAC (RFC 6939, 4).
const ETHERNET_TYPE: [u8; 2] = [0, 1];

/// What the clients of a subnet are told.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// Recursive DNS servers.
    pub dns_servers: Vec<Ipv6Addr>,
    /// NTP servers; older clients ask for them as SNTP servers, and get the same.
    pub ntp_servers: Vec<Ipv6Addr>,
    /// The domain to search. A text that is no domain name is not sent.
    pub domain: Option<String>,
    /// Further options; they come before the ones above where they have the same code.
    pub extra: Vec<Opt>,
    /// The valid lifetime of addresses in seconds, and the preferred one as well, as clients of Neutron have it from dnsmasq;
    /// all ones is for ever. It is also when a stateless client asks again.
    pub lease_time: u32,
    /// The network's UUID, which the server's DUID is made of.
    pub server_id: [u8; 16],
}

/// What one port's client gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    mac: Mac,
    addresses: Vec<Ipv6Addr>,
    lifetime: u32,
    /// The server's DUID.
    server_id: [u8; 18],
    /// Options that a client may ask for, no code twice.
    options: Vec<Opt>,
}

/// How a message was answered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Answered {
    /// What the client sent.
    pub request: Kind,
    /// What it got.
    pub reply: Kind,
    /// The message's status, or that of its first identity association.
    pub status: Status,
    /// Whether it came by relay agents.
    pub relayed: bool,
}

/// Why a message was not answered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
pub enum Refused {
    /// No message of DHCPv6 to a server, or one that only servers send.
    #[error("not a message that a server answers")]
    NotARequest,
    /// A length does not fit, of a header or an option.
    #[error("malformed")]
    Malformed,
    /// The UDP checksum is wrong or missing (RFC 8200, 8.1).
    #[error("bad checksum")]
    Checksum,
    /// Its source cannot be a client or relay agent of this link.
    #[error("impossible source")]
    Source,
    /// Another client's, by its MAC.
    #[error("another client")]
    OtherClient,
    /// For another server.
    #[error("another server")]
    OtherServer,
    /// It has an option that it must not have, or lacks one that it must have (RFC 8415, 16).
    #[error("invalid")]
    Invalid,
    /// To this server alone, where it must be to all of them (RFC 8415, 18.4).
    #[error("unicast")]
    Unicast,
    /// More relay agents, identity associations or octets of a reply than the limits allow.
    #[error("beyond a limit")]
    Limit,
    /// There is nothing to say: it asks about addresses, and has none or gets none here (RFC 8415, 18.3.3).
    #[error("nothing to answer")]
    Nothing,
}

impl From<Refused> for DropReason {
    fn from(refused: Refused) -> DropReason {
        match refused {
            Refused::Malformed | Refused::Checksum | Refused::Source | Refused::Invalid => {
                DropReason::DhcpMalformed
            }
            Refused::NotARequest | Refused::Unicast => DropReason::DhcpUnsupported,
            Refused::OtherServer => DropReason::DhcpOtherServer,
            Refused::OtherClient => DropReason::DhcpOtherClient,
            Refused::Nothing => DropReason::DhcpNoLease,
            Refused::Limit => DropReason::DhcpLimit,
        }
    }
}

impl From<crate::wire::Malformed> for Refused {
    fn from(_: crate::wire::Malformed) -> Refused {
        Refused::Malformed
    }
}

impl Lease {
    /// What the client with `mac` gets: `addresses` are those of stateful subnets; without any it gets options only.
    pub fn new(mac: Mac, addresses: Vec<Ipv6Addr>, settings: &Settings) -> Lease {
        let [t0, t1] = DUID_UUID.to_be_bytes();
        let mut server_id = [0; 18];
        server_id
            .iter_mut()
            .zip([t0, t1].iter().chain(&settings.server_id))
            .for_each(|(to, from)| *to = *from);
        let concat =
            |addresses: &[Ipv6Addr]| -> Vec<u8> { addresses.iter().flat_map(Ipv6Addr::octets).collect() };
        // RFC 5908, 4.1: each in a suboption of its own.
        let ntp =
            settings.ntp_servers.iter().flat_map(|ip| [&[0, 1, 0, 16][..], &ip.octets()].concat()).collect();
        let built_in = [
            (option::DNS_SERVERS, concat(&settings.dns_servers)),
            (option::DOMAIN_LIST, settings.domain.as_deref().and_then(domain_name).unwrap_or_default()),
            (option::SNTP_SERVERS, concat(&settings.ntp_servers)),
            // RFC 8415, 21.23: no less than 600.
            (option::INFORMATION_REFRESH, settings.lease_time.max(600).to_be_bytes().to_vec()),
            (option::NTP_SERVERS, ntp),
        ];
        let built_in = built_in.into_iter().filter(|(_, value)| !value.is_empty());
        let mut options: Vec<Opt> = Vec::new();
        for opt in settings.extra.iter().cloned().chain(built_in.map(|(code, value)| Opt { code, value })) {
            if options.iter().all(|known| known.code != opt.code) {
                options.push(opt);
            }
        }
        Lease { mac, addresses, lifetime: settings.lease_time, server_id, options }
    }

    /// The client's MAC.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Its addresses.
    pub fn addresses(&self) -> &[Ipv6Addr] {
        &self.addresses
    }
}

/// Whether a frame, by its first bytes, is a message for a server of this link: untagged, UDP right behind the IPv6 header, to
/// the servers' port, and to the groups of servers or this one's own address. What a relay agent sends to a server elsewhere is
/// not, nor is a fragment.
#[inline]
pub fn is_request(head: &[u8]) -> bool {
    let Some(&[_, _, _, _, _, _, _, _, _, _, _, _, 0x86, 0xdd, v, _, _, _, _, _, protocol::UDP, _]) =
        head.first_chunk()
    else {
        return false;
    };
    let destination = head.get(38..).and_then(|rest| rest.first_chunk::<16>()).map(|&ip| Ipv6Addr::from(ip));
    v >> 4 == 6
        && head.get(56..58) == Some(&SERVER_PORT.to_be_bytes())
        && destination.is_some_and(|ip| [ALL_AGENTS, ALL_SERVERS, SERVICE_V6].contains(&ip))
}

/// Writes the answer to a message from the port that `lease` belongs to into `reply`: a whole frame, back to the MAC and the
/// address that it came from. `frame` is the whole frame, untagged; an unfinished checksum is taken.
///
/// # Errors
/// [`Refused`] when there is no answer; `reply` is empty then.
pub fn answer(frame: &[u8], lease: &Lease, reply: &mut Vec<u8>) -> Result<Answered, Refused> {
    reply.clear();
    let result = answer_into(frame, lease, reply);
    if result.is_err() {
        reply.clear();
    }
    result
}

fn answer_into(frame: &[u8], lease: &Lease, reply: &mut Vec<u8>) -> Result<Answered, Refused> {
    let datagram = Datagram::parse(frame)?;
    let (bytes, relays) = unwrap(datagram.payload)?;
    let message = Message::new_checked(bytes)?;
    let is_unicast = match (datagram.destination, relays.is_empty()) {
        (ALL_AGENTS, _) | (ALL_SERVERS, false) => false,
        (SERVICE_V6, is_direct) => is_direct,
        _ => return Err(Refused::NotARequest),
    };
    // RFC 8415, 18.2: clients speak from their link-local address.
    if relays.is_empty() && !is_unicast && !datagram.source.is_unicast_link_local() {
        return Err(Refused::Source);
    }
    let is_client = match relays.last() {
        None => datagram.source_mac == lease.mac,
        Some(nearest) => {
            let told = nearest.options.get(option::CLIENT_LINK_LAYER);
            told.and_then(|value| value.strip_prefix(&ETHERNET_TYPE)) == Some(&lease.mac.0[..])
        }
    };
    if !is_client {
        return Err(Refused::OtherClient);
    }
    reply.resize(HEADERS, 0);
    let mut writer = Writer::new(reply);
    let opened = wrap(&relays, &mut writer);
    let mut answered = exchange::answer(&message, lease, is_unicast, &mut writer)?;
    for at in opened.into_iter().rev() {
        writer.close(at);
    }
    answered.relayed = !relays.is_empty();
    if reply.len() > MAX_REPLY {
        return Err(Refused::Limit);
    }
    let port = if answered.relayed { SERVER_PORT } else { CLIENT_PORT };
    headers(reply, (datagram.source_mac, datagram.source), port);
    Ok(answered)
}

/// What comes in a UDP datagram to the servers' port, and from whom.
struct Datagram<'a> {
    source_mac: Mac,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    fn parse(frame: &'a [u8]) -> Result<Datagram<'a>, Refused> {
        let packet = Packet::parse(frame).map_err(|ignored| match ignored {
            Ignored::Malformed => Refused::Malformed,
            _ => Refused::NotARequest,
        })?;
        let (IpAddr::V6(source), IpAddr::V6(destination)) = (packet.source, packet.destination) else {
            return Err(Refused::NotARequest);
        };
        if packet.protocol != protocol::UDP {
            return Err(Refused::NotARequest);
        }
        let header = Udp::new_checked(packet.payload)?;
        if header.destination_port() != SERVER_PORT {
            return Err(Refused::NotARequest);
        }
        let bytes = packet.payload.get(..usize::from(header.len())).ok_or(Refused::Malformed)?;
        let pseudo = pseudo_v6(source, destination, protocol::UDP, u32::from(header.len()));
        let is_right = (pseudo + Sum::of(bytes)).fold() == 0xffff || header.checksum() == pseudo.fold();
        if header.checksum() == 0 || !is_right {
            return Err(Refused::Checksum);
        }
        if !is_host_v6(source) || !is_device(packet.source_mac) {
            return Err(Refused::Source);
        }
        let payload = bytes.get(udp::HEADER..).ok_or(Refused::Malformed)?;
        Ok(Datagram { source_mac: packet.source_mac, source, destination, payload })
    }
}

type Relays<'a> = ArrayVec<Relay<'a>, MAX_RELAYS>;

/// The client's message, and the relay agents that it came by, the last one first (RFC 8415, 19.3).
fn unwrap(mut bytes: &[u8]) -> Result<(&[u8], Relays<'_>), Refused> {
    let mut relays = Relays::new();
    while bytes.first() == Some(&Kind::RelayForward.number()) {
        let relay = Relay::new_checked(bytes)?;
        if relay.hop_count > HOP_COUNT_LIMIT {
            return Err(Refused::Limit);
        }
        bytes = relay.options.get(option::RELAY_MESSAGE).ok_or(Refused::Invalid)?;
        relays.try_push(relay).map_err(|_| Refused::Limit)?;
    }
    Ok((bytes, relays))
}

/// Begins the messages to the relay agents (RFC 8415, 19.3), each within the one before; gives what is to be closed.
fn wrap(relays: &Relays<'_>, writer: &mut Writer<'_>) -> ArrayVec<usize, MAX_RELAYS> {
    let begin = |relay: &Relay<'_>| {
        writer.raw(&[Kind::RelayReply.number(), relay.hop_count]);
        writer.raw(&relay.link);
        writer.raw(&relay.peer);
        if let Some(id) = relay.options.get(option::INTERFACE_ID) {
            writer.option(option::INTERFACE_ID, id);
        }
        writer.open(option::RELAY_MESSAGE)
    };
    relays.iter().map(begin).collect()
}

/// Writes the headers before a message that is behind their room.
fn headers(reply: &mut [u8], (mac, destination): (Mac, Ipv6Addr), port: u16) {
    let Some((head, message)) = reply.split_first_chunk_mut::<HEADERS>() else { return };
    // At most MAX_REPLY.
    let len = u16::try_from(udp::HEADER + message.len()).unwrap_or(u16::MAX);
    let mut bytes: ArrayVec<u8, HEADERS> = ArrayVec::new();
    packet::put(&mut bytes, &packet::link(mac, SERVICE_MAC, ethernet::IPV6));
    packet::put(&mut bytes, &[0x60, 0, 0, 0]);
    packet::put(&mut bytes, &len.to_be_bytes());
    packet::put(&mut bytes, &[protocol::UDP, HOP_LIMIT]);
    packet::put(&mut bytes, &SERVICE_V6.octets());
    packet::put(&mut bytes, &destination.octets());
    let ports = [SERVER_PORT.to_be_bytes(), port.to_be_bytes(), len.to_be_bytes()];
    let sum =
        pseudo_v6(SERVICE_V6, destination, protocol::UDP, u32::from(len)) + Sum::of(ports.as_flattened());
    packet::put(&mut bytes, ports.as_flattened());
    packet::put(&mut bytes, &udp::never_zero((sum + Sum::of(message)).checksum()).to_be_bytes());
    if let Ok(bytes) = bytes.into_inner() {
        *head = bytes;
    }
}

#[cfg(test)]
mod tests;
