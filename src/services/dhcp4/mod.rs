//! A DHCPv4 server (RFC 2131), sans-IO: a frame in, a frame out.
//!
//! [`answer`] serves fixed leases: those of the port that the frame came in by. It remembers nothing, so every instance says
//! the same. [`pool`] serves others out of ranges of addresses, and remembers.
//!
//! | message | of a client with fixed leases |
//! |---|---|
//! | DISCOVER | OFFER of the address that it asks for, if it is one of its own, else of its first; an ACK at once where it says that it takes one (RFC 4039) |
//! | REQUEST, one of its addresses | ACK |
//! | REQUEST, any other address | NAK, in every state: nobody else can have given it one here |
//! | REQUEST to another server | nothing (RFC 2131, 4.3.2) |
//! | INFORM | ACK without an address and without times (4.3.5) |
//! | DECLINE, RELEASE | nothing: the address stays its own (4.3.3, 4.3.4) |
//!
//! A client is known by `chaddr`; the frame's source may be a relay's. The server is [`SERVICE_V4`](super::SERVICE_V4) on every
//! network. A shorter lease than the configured one is granted to who asks for it, but none below a minute.
//!
//! Limits: Ethernet only; no BOOTP without DHCP; no authentication (RFC 3118); no leasequery; of a relay's options nothing is
//! understood, they are only sent back.

use std::fmt;
use std::net::Ipv4Addr;

use thiserror::Error;

use crate::stats::DropReason;
use crate::wire::dhcp4::{self, MessageType};
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::ipv4::Ipv4;
use crate::wire::protocol;
use crate::wire::udp::Udp;

mod options;
pub mod pool;
mod reply;
mod request;
#[cfg(test)]
mod tests;

pub use options::{Lease, Settings};

use options::Compiled;
use reply::Answer;
use request::Request;

/// Seconds of the shortest lease that is granted to who asks for a short one.
const MIN_LEASE_TIME: u32 = 60;

/// What was done with a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answered {
    /// An address was offered.
    Offer {
        /// What the client sent.
        request: MessageType,
        /// The address offered.
        address: Ipv4Addr,
    },
    /// A lease was granted, or settings were told.
    Ack {
        /// What the client sent: REQUEST, INFORM, or DISCOVER with rapid commit.
        request: MessageType,
        /// The client's address.
        address: Ipv4Addr,
    },
    /// An address was denied.
    Nak {
        /// What the client sent.
        request: MessageType,
        /// The address that it asked for.
        address: Ipv4Addr,
    },
    /// The message was taken note of; there is no reply to it.
    Consumed {
        /// What the client sent: DECLINE or RELEASE.
        request: MessageType,
        /// The address that it is about.
        address: Ipv4Addr,
    },
}

impl Answered {
    /// Whether a reply was written.
    pub fn has_reply(&self) -> bool {
        !matches!(self, Answered::Consumed { .. })
    }
}

impl fmt::Display for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answered::Offer { request, address } => write!(f, "{request}, offered {address}"),
            Answered::Ack { request, address } => write!(f, "{request}, acknowledged {address}"),
            Answered::Nak { request, address } => write!(f, "{request}, denied {address}"),
            Answered::Consumed { request, address } => write!(f, "{request} of {address}"),
        }
    }
}

/// Why a message gets no answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
pub enum Refused {
    /// Lengths, addresses or a checksum are wrong, or an option is missing.
    #[error("malformed: a length, a checksum, or an option is wrong or missing")]
    Malformed,
    /// No message of a client to a server.
    #[error("no message of a DHCP client to a server")]
    NotARequest,
    /// Not Ethernet, BOOTP without DHCP, or a message type of extensions.
    #[error("not over Ethernet, BOOTP without DHCP, or a message type that is not served")]
    Unsupported,
    /// The client means another server.
    #[error("meant for another DHCP server")]
    OtherServer,
    /// The client's hardware address is none that is served here.
    #[error("the client's hardware address is none of this port's")]
    OtherClient,
    /// There is no lease that the message could be about.
    #[error("there is no lease for it, or no address is left")]
    NoLease,
    /// Who is behind this port has as many leases as it may have.
    #[error("the clients behind this port have as many leases as they may have")]
    Limit,
}

impl From<Refused> for DropReason {
    fn from(refused: Refused) -> DropReason {
        match refused {
            Refused::Malformed => DropReason::DhcpMalformed,
            Refused::NotARequest | Refused::Unsupported => DropReason::DhcpUnsupported,
            Refused::OtherServer => DropReason::DhcpOtherServer,
            Refused::OtherClient => DropReason::DhcpOtherClient,
            Refused::NoLease => DropReason::DhcpNoLease,
            Refused::Limit => DropReason::DhcpLimit,
        }
    }
}

/// Whether the beginning of a frame is that of a whole, untagged IPv4 packet to the UDP port of DHCP servers.
#[inline]
pub fn is_request(head: &[u8]) -> bool {
    if head.get(12..14) != Some(&ethernet::IPV4.to_be_bytes()) {
        return false;
    }
    let Ok(link) = Ethernet::new_checked(head) else { return false };
    let Ok(packet) = Ipv4::new_checked(link.payload()) else { return false };
    if packet.protocol() != protocol::UDP || packet.is_fragment() {
        return false;
    }
    let datagram = link.payload().get(packet.header_len()..).map(Udp::new_checked);
    matches!(datagram, Some(Ok(datagram)) if datagram.destination_port() == dhcp4::SERVER_PORT)
}

/// Answers the message in a whole, untagged frame out of the leases of the port that it came in by. The reply, a whole frame
/// for that port, replaces what is in `reply`; its IP packet has at most `mtu` bytes, but 576 always fit (RFC 2131, 2).
///
/// # Errors
/// [`Refused`] when it gets no answer; what is in `reply` is then of no use.
pub fn answer(frame: &[u8], leases: &[Lease], mtu: u16, reply: &mut Vec<u8>) -> Result<Answered, Refused> {
    let request = Request::parse(frame)?;
    if !leases.iter().any(|lease| lease.mac == request.mac) {
        return Err(Refused::OtherClient);
    }
    let giaddr = request.message.giaddr();
    // A relay is on the client's link, and so tells its subnet (RFC 2131, 4.3.1).
    let near = |lease: &&Lease| !request.is_relayed() || lease.is_near(giaddr);
    let own = || leases.iter().filter(|lease| lease.mac == request.mac).filter(near);
    let of = |address: Ipv4Addr| own().find(|lease| lease.address == address);
    match request.kind {
        MessageType::Discover => {
            let wanted = request.requested.and_then(of);
            let lease = wanted.or_else(|| own().next()).ok_or(Refused::NoLease)?;
            Ok(grant(&request, &lease.options, lease.address, mtu, reply))
        }
        MessageType::Request => {
            request.for_us()?;
            let address = request.asks()?.address();
            own().next().ok_or(Refused::NoLease)?;
            Ok(match of(address) {
                Some(lease) => grant(&request, &lease.options, address, mtu, reply),
                None => deny(&request, address, mtu, reply),
            })
        }
        MessageType::Inform => {
            let address = request.informs();
            let lease = match address {
                Some(address) => of(address).or_else(|| own().find(|lease| lease.is_near(address))),
                None => own().next(),
            };
            inform(&request, &lease.ok_or(Refused::NoLease)?.options, address, mtu, reply)
        }
        MessageType::Decline | MessageType::Release => {
            request.for_us()?;
            let address = given_up(&request)?;
            of(address).ok_or(Refused::NoLease)?;
            Ok(Answered::Consumed { request: request.kind, address })
        }
        MessageType::Offer | MessageType::Ack | MessageType::Nak => Err(Refused::NotARequest),
    }
}

/// The address that a DECLINE or RELEASE is about (RFC 2131, table 5).
fn given_up(request: &Request<'_>) -> Result<Ipv4Addr, Refused> {
    let ciaddr = Some(request.message.ciaddr()).filter(|ip| !ip.is_unspecified());
    let address = if request.kind == MessageType::Decline { request.requested } else { ciaddr };
    address.ok_or(Refused::Malformed)
}

/// Seconds of the lease that a client gets (RFC 2131, 4.3.1: a shorter one than ours may be asked for).
fn lease_time(request: &Request<'_>, options: &Compiled) -> u32 {
    let most = options.lease_time;
    request.lease_time.map_or(most, |asked| asked.clamp(MIN_LEASE_TIME.min(most), most))
}

/// Whether a message is answered by an ACK: a REQUEST, or a DISCOVER with rapid commit (RFC 4039, 3.1).
fn is_final(request: &Request<'_>) -> bool {
    request.kind == MessageType::Request || request.rapid_commit
}

/// Offers or acknowledges an address.
fn grant(
    request: &Request<'_>,
    options: &Compiled,
    address: Ipv4Addr,
    mtu: u16,
    reply: &mut Vec<u8>,
) -> Answered {
    let ack = is_final(request);
    let answer = Answer {
        kind: if ack { MessageType::Ack } else { MessageType::Offer },
        to: None,
        ciaddr: if ack { request.message.ciaddr() } else { Ipv4Addr::UNSPECIFIED },
        yiaddr: address,
        options: Some(options),
        lease_time: Some(lease_time(request, options)),
    };
    reply::write(request, &answer, mtu, reply);
    let request = request.kind;
    if ack { Answered::Ack { request, address } } else { Answered::Offer { request, address } }
}

fn deny(request: &Request<'_>, address: Ipv4Addr, mtu: u16, reply: &mut Vec<u8>) -> Answered {
    let none = Ipv4Addr::UNSPECIFIED;
    let answer = Answer {
        kind: MessageType::Nak,
        to: None,
        ciaddr: none,
        yiaddr: none,
        options: None,
        lease_time: None,
    };
    reply::write(request, &answer, mtu, reply);
    Answered::Nak { request: request.kind, address }
}

/// Tells settings to a client that has an address of its own; one that does not say which is reached by its relay.
fn inform(
    request: &Request<'_>,
    options: &Compiled,
    address: Option<Ipv4Addr>,
    mtu: u16,
    reply: &mut Vec<u8>,
) -> Result<Answered, Refused> {
    if address.is_none() && !request.is_relayed() {
        return Err(Refused::Malformed);
    }
    let answer = Answer {
        kind: MessageType::Ack,
        to: address,
        ciaddr: request.message.ciaddr(),
        yiaddr: Ipv4Addr::UNSPECIFIED,
        options: Some(options),
        lease_time: None,
    };
    reply::write(request, &answer, mtu, reply);
    Ok(Answered::Ack { request: request.kind, address: address.unwrap_or(Ipv4Addr::UNSPECIFIED) })
}
