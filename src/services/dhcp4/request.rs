//! A client's message, read once and checked.

use std::net::{IpAddr, Ipv4Addr};

use super::Refused;
use crate::services::packet::Packet;
use crate::services::{Ignored, SERVICE_V4, is_device, is_host};
use crate::types::Mac;
use crate::wire::checksum::{Sum, pseudo_v4};
use crate::wire::dhcp4::{self, Message, MessageType, Value, code};
use crate::wire::protocol;
use crate::wire::udp::{self, Udp};

/// Bytes of the longest client identifier: such a one fits into every answer, which must repeat it.
const MAX_CLIENT_IDENTIFIER: usize = 255;

/// What a REQUEST is about (RFC 2131, table 4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asks {
    /// SELECTING: it takes our offer of this address.
    Selecting(Ipv4Addr),
    /// INIT-REBOOT: it remembers this address.
    Reboot(Ipv4Addr),
    /// RENEWING or REBINDING: it has this address.
    Extend(Ipv4Addr),
}

impl Asks {
    pub(super) fn address(self) -> Ipv4Addr {
        match self {
            Asks::Selecting(address) | Asks::Reboot(address) | Asks::Extend(address) => address,
        }
    }
}

/// A message that a client may send to a server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) message: Message<'a>,
    pub(super) kind: MessageType,
    /// The client.
    pub(super) mac: Mac,
    /// Who sent the frame: the client, its relay, or a router.
    pub(super) source_mac: Mac,
    pub(super) source: Ipv4Addr,
    pub(super) requested: Option<Ipv4Addr>,
    pub(super) server: Option<Ipv4Addr>,
    pub(super) lease_time: Option<u32>,
    /// Bytes of the longest IP packet that it takes in.
    pub(super) max_packet: u16,
    pub(super) parameters: Option<Value<'a>>,
    pub(super) client_id: Option<Value<'a>>,
    pub(super) relay_agent: Option<Value<'a>>,
    pub(super) rapid_commit: bool,
}

impl<'a> Request<'a> {
    pub(super) fn parse(frame: &'a [u8]) -> Result<Request<'a>, Refused> {
        let packet = Packet::parse(frame).map_err(|ignored| match ignored {
            Ignored::Malformed | Ignored::Checksum => Refused::Malformed,
            _ => Refused::NotARequest,
        })?;
        let (source, message) = payload(&packet)?;
        if message.op() != dhcp4::BOOTREQUEST {
            return Err(Refused::NotARequest);
        }
        if (message.htype(), message.hlen()) != (dhcp4::ETHERNET, 6) || !message.has_cookie() {
            return Err(Refused::Unsupported);
        }
        let [a, b, c, d, e, f, ..] = message.chaddr();
        let mac = Mac([a, b, c, d, e, f]);
        let possible = |ip: Ipv4Addr| ip.is_unspecified() || is_host(ip.into());
        let sound = is_device(mac) && is_device(packet.source_mac);
        if !sound || !possible(message.ciaddr()) || !possible(message.giaddr()) {
            return Err(Refused::Malformed);
        }
        let (source_mac, kind) = (packet.source_mac, MessageType::Discover);
        let request = Request {
            message,
            kind,
            mac,
            source_mac,
            source,
            requested: None,
            server: None,
            lease_time: None,
            max_packet: dhcp4::MIN_PACKET,
            parameters: None,
            client_id: None,
            relay_agent: None,
            rapid_commit: false,
        };
        request.with_options()
    }

    /// Reads the options in one go.
    fn with_options(mut self) -> Result<Request<'a>, Refused> {
        let (mut kind, mut requested, mut server, mut lease_time) = (None, None, None, None);
        let (mut max_packet, mut rapid) = (None, None);
        for piece in self.message.pieces() {
            let (code, piece) = piece.map_err(|_| Refused::Malformed)?;
            let value = match code {
                code::MESSAGE_TYPE => &mut kind,
                code::REQUESTED_ADDRESS => &mut requested,
                code::SERVER_IDENTIFIER => &mut server,
                code::LEASE_TIME => &mut lease_time,
                code::MAX_MESSAGE_SIZE => &mut max_packet,
                code::PARAMETER_REQUEST => &mut self.parameters,
                code::CLIENT_IDENTIFIER => &mut self.client_id,
                code::RELAY_AGENT => &mut self.relay_agent,
                code::RAPID_COMMIT => &mut rapid,
                _ => continue,
            };
            Value::join(value, &self.message, code, piece);
        }
        let [kind] = array(kind)?.ok_or(Refused::Unsupported)?;
        self.kind = MessageType::from_u8(kind).ok_or(Refused::Unsupported)?;
        self.requested = array(requested)?.map(<[u8; 4]>::into);
        self.server = array(server)?.map(<[u8; 4]>::into);
        self.lease_time = array(lease_time)?.map(u32::from_be_bytes);
        self.max_packet = array(max_packet)?.map_or(0, u16::from_be_bytes).max(dhcp4::MIN_PACKET);
        self.rapid_commit = rapid.is_some_and(|rapid| rapid.is_empty());
        match self.client_id {
            // RFC 2132, 9.14: two bytes at least.
            Some(id) if !(2..=MAX_CLIENT_IDENTIFIER).contains(&id.len()) => Err(Refused::Malformed),
            _ => Ok(self),
        }
    }

    /// Refuses what another server is meant by (RFC 2131, 4.3.2): it gets no answer, not even a NAK.
    pub(super) fn for_us(&self) -> Result<(), Refused> {
        match self.server {
            Some(server) if server != SERVICE_V4 => Err(Refused::OtherServer),
            _ => Ok(()),
        }
    }

    /// What a REQUEST is about (RFC 2131, 4.3.2 and 4.3.6). Where a client mixes states, its own address counts for more than
    /// the one that it asks for, unless it answers an offer.
    pub(super) fn asks(&self) -> Result<Asks, Refused> {
        let has = Some(self.message.ciaddr()).filter(|ip| !ip.is_unspecified());
        match (self.server, self.requested, has) {
            (Some(_), Some(address), _) | (Some(_), None, Some(address)) => Ok(Asks::Selecting(address)),
            (None, _, Some(address)) => Ok(Asks::Extend(address)),
            (None, Some(address), None) => Ok(Asks::Reboot(address)),
            (_, None, None) => Err(Refused::Malformed),
        }
    }

    /// The address that an INFORM is sent from (RFC 2131, 4.3.5); a client that leaves `ciaddr` empty is known by its packet,
    /// if no relay sent it.
    pub(super) fn informs(&self) -> Option<Ipv4Addr> {
        let own = !self.is_relayed() && is_host(self.source.into());
        let ciaddr = Some(self.message.ciaddr()).filter(|ip| !ip.is_unspecified());
        ciaddr.or_else(|| own.then_some(self.source))
    }

    pub(super) fn is_relayed(&self) -> bool {
        !self.message.giaddr().is_unspecified()
    }
}

/// An option's value of a known length; another length is malformed.
fn array<const N: usize>(value: Option<Value<'_>>) -> Result<Option<[u8; N]>, Refused> {
    value.map(|value| value.array().ok_or(Refused::Malformed)).transpose()
}

/// The message of a packet to a server, whose checksum is right, left out (RFC 768), or still to be finished by a device:
/// virtio and veth leave the pseudo-header's sum in its place.
fn payload<'a>(packet: &Packet<'a>) -> Result<(Ipv4Addr, Message<'a>), Refused> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (packet.source, packet.destination) else {
        return Err(Refused::NotARequest);
    };
    if packet.protocol != protocol::UDP {
        return Err(Refused::NotARequest);
    }
    let datagram = Udp::new_checked(packet.payload).map_err(|_| Refused::Malformed)?;
    if datagram.destination_port() != dhcp4::SERVER_PORT {
        return Err(Refused::NotARequest);
    }
    let bytes = packet.payload.get(..usize::from(datagram.len())).ok_or(Refused::Malformed)?;
    let pseudo = pseudo_v4(source, destination, protocol::UDP, datagram.len());
    let checksum = datagram.checksum();
    if checksum != 0 && checksum != pseudo.fold() && (pseudo + Sum::of(bytes)).fold() != 0xffff {
        return Err(Refused::Malformed);
    }
    let message = bytes.get(udp::HEADER..).and_then(|bytes| Message::new_checked(bytes).ok());
    Ok((source, message.ok_or(Refused::Malformed)?))
}
