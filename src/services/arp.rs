//! ARP for IPv4 over Ethernet (RFC 826), with probes and announcements (RFC 5227).
//!
//! A message is believed only when all of it fits: the types and lengths of Ethernet and IPv4, and a sender's MAC that is
//! one device's and is the one that the frame came from. So a table that learns of ARP learns nothing that the link does
//! not show as well. Routers that speak for a shared MAC from another one of their own are not heard.

use std::net::Ipv4Addr;

use super::packet::{Message, link, put};
use super::{is_device, is_host_v4};
use crate::types::Mac;
use crate::wire::ethernet::{self, Ethernet};

/// Bytes of a message (RFC 826, "Packet format").
const LEN: usize = 28;
/// Hardware type Ethernet, protocol type IPv4, and the lengths of their addresses (RFC 826, "Definitions").
const FIXED: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];

/// What a message wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Who has the target's address?
    Request,
    /// The sender has its address.
    Reply,
}

/// A message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arp {
    /// What it wants.
    pub operation: Operation,
    /// Who sends it.
    pub sender_mac: Mac,
    /// The sender's address; unspecified in a probe.
    pub sender: Ipv4Addr,
    /// Whom a reply is for; without a meaning in a request.
    pub target_mac: Mac,
    /// The address asked for, or the one that the reply goes to.
    pub target: Ipv4Addr,
}

impl Arp {
    /// The message of an untagged frame, or nothing when it is none or does not fit in all its fields.
    pub fn parse(frame: &[u8]) -> Option<Arp> {
        let link = Ethernet::new_checked(frame).ok()?;
        if link.ethertype() != ethernet::ARP || link.header_len() != ethernet::HEADER {
            return None;
        }
        let bytes: &[u8; LEN] = link.payload().first_chunk()?;
        let (fixed, bytes) = bytes.split_first_chunk::<6>()?;
        let (&[o0, o1], bytes) = bytes.split_first_chunk()?;
        let (&sender_mac, bytes) = bytes.split_first_chunk()?;
        let (&sender, bytes) = bytes.split_first_chunk::<4>()?;
        let (&target_mac, bytes) = bytes.split_first_chunk()?;
        let &target = bytes.first_chunk::<4>()?;
        let operation = match u16::from_be_bytes([o0, o1]) {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return None,
        };
        let arp = Arp {
            operation,
            sender_mac: Mac(sender_mac),
            sender: sender.into(),
            target_mac: Mac(target_mac),
            target: target.into(),
        };
        let sound = *fixed == FIXED
            && is_device(arp.sender_mac)
            && arp.sender_mac == link.source()
            && (is_host_v4(arp.sender) || arp.is_probe());
        sound.then_some(arp)
    }

    /// Someone asks whether an address is free, to take it (RFC 5227, 1.1).
    pub fn is_probe(&self) -> bool {
        self.operation == Operation::Request && self.sender.is_unspecified()
    }

    /// Someone tells its own address (RFC 5227, 1.1), in either operation.
    pub fn is_announcement(&self) -> bool {
        self.sender == self.target
    }

    /// The message in a frame to `to`.
    pub fn message(&self, to: Mac) -> Message {
        let mut bytes = Message::new();
        put(&mut bytes, &link(to, self.sender_mac, ethernet::ARP));
        put(&mut bytes, &FIXED);
        put(&mut bytes, &[0, if self.operation == Operation::Request { 1 } else { 2 }]);
        put(&mut bytes, &self.sender_mac.0);
        put(&mut bytes, &self.sender.octets());
        put(&mut bytes, &self.target_mac.0);
        put(&mut bytes, &self.target.octets());
        bytes
    }

    /// The reply to a request: `mac` has the target's address.
    pub fn reply(&self, mac: Mac) -> Message {
        let reply = Arp {
            operation: Operation::Reply,
            sender_mac: mac,
            sender: self.target,
            target_mac: self.sender_mac,
            target: self.sender,
        };
        reply.message(self.sender_mac)
    }
}

/// A request for `target`: to all, or to one MAC to see whether it still has the address (RFC 1122, 2.3.2.1). With an
/// unspecified `sender` it is a probe.
pub fn request(mac: Mac, sender: Ipv4Addr, target: Ipv4Addr, to: Option<Mac>) -> Message {
    let operation = Operation::Request;
    Arp { operation, sender_mac: mac, sender, target_mac: Mac::default(), target }
        .message(to.unwrap_or(Mac::BROADCAST))
}

/// An announcement of our own address, to all (RFC 5227, 2.3).
pub fn announcement(mac: Mac, ip: Ipv4Addr) -> Message {
    request(mac, ip, ip, None)
}

/// Answers a guest's request in the place of the one who has the address, whom `lookup` knows.
///
/// Probes are answered too: the address is in use (RFC 5227, 2.1.1). Not answered are announcements; questions that the
/// asker itself is the answer to, or it would see a conflict with itself; and requests to one MAC, which want to know
/// whether that very device is still there.
pub fn answer(frame: &[u8], lookup: impl Fn(Ipv4Addr) -> Option<Mac>) -> Option<Message> {
    let to = Ethernet::new_checked(frame).ok()?.destination();
    let arp = Arp::parse(frame)?;
    if arp.operation != Operation::Request || arp.is_announcement() || !to.is_group() {
        return None;
    }
    let mac = lookup(arp.target).filter(|&mac| mac != arp.sender_mac)?;
    Some(arp.reply(mac))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr};

    use super::*;

    const GUEST: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const PEER: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const GUEST_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const PEER_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

    fn knows(ip: Ipv4Addr) -> Option<Mac> {
        (ip == PEER_IP).then_some(PEER)
    }

    /// RFC 826, "Packet format": who has 192.0.2.2, tell 192.0.2.1.
    const REQUEST: [u8; 42] = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x08, 0x06, // Ethernet
        0, 1, 8, 0, 6, 4, 0, 1, // Ethernet, IPv4, a request
        2, 0, 0, 0, 0, 1, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 192, 0, 2, 2,
    ];
    /// Its reply.
    const REPLY: [u8; 42] = [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x06, // Ethernet
        0, 1, 8, 0, 6, 4, 0, 2, // Ethernet, IPv4, a reply
        2, 0, 0, 0, 0, 2, 192, 0, 2, 2, 2, 0, 0, 0, 0, 1, 192, 0, 2, 1,
    ];

    #[test]
    fn messages_are_those_of_rfc_826() {
        assert_eq!(request(GUEST, GUEST_IP, PEER_IP, None)[..], REQUEST);
        assert_eq!(answer(&REQUEST, knows).unwrap()[..], REPLY);
        let mut padded = REQUEST.to_vec();
        padded.resize(60, 0);
        assert_eq!(answer(&padded, knows).unwrap()[..], REPLY);
        let announced = announcement(GUEST, GUEST_IP);
        assert_eq!(announced[38..], [192, 0, 2, 1]);
        assert!(Arp::parse(&announced).unwrap().is_announcement());
        let probe = request(GUEST, Ipv4Addr::UNSPECIFIED, PEER_IP, None);
        assert!(Arp::parse(&probe).unwrap().is_probe());
        assert_eq!(request(GUEST, GUEST_IP, PEER_IP, Some(PEER))[..6], PEER.0);
    }

    #[test]
    fn another_implementation_reads_the_reply() {
        let reply = answer(&REQUEST, knows).unwrap();
        let ArpRepr::EthernetIpv4 { operation, source_protocol_addr, target_protocol_addr, .. } =
            ArpRepr::parse(&ArpPacket::new_checked(&reply[14..]).unwrap()).unwrap()
        else {
            panic!("another kind");
        };
        assert_eq!(operation, ArpOperation::Reply);
        assert_eq!((source_protocol_addr, target_protocol_addr), (PEER_IP, GUEST_IP));
    }

    #[test]
    fn proxies_answer_probes_but_nobody_about_itself() {
        let probe = request(GUEST, Ipv4Addr::UNSPECIFIED, PEER_IP, None);
        let reply = Arp::parse(&answer(&probe, knows).unwrap()).unwrap();
        assert_eq!((reply.sender, reply.sender_mac, reply.target), (PEER_IP, PEER, Ipv4Addr::UNSPECIFIED));
        let own = request(PEER, Ipv4Addr::UNSPECIFIED, PEER_IP, None);
        assert_eq!(answer(&own, knows), None, "the owner looks for duplicates of itself");
        assert_eq!(answer(&announcement(GUEST, PEER_IP), knows), None);
        assert_eq!(answer(&request(GUEST, GUEST_IP, PEER_IP, Some(PEER)), knows), None);
        assert_eq!(answer(&request(GUEST, GUEST_IP, GUEST_IP, None), knows), None);
        assert_eq!(answer(&REPLY, |_| Some(GUEST)), None);
    }

    #[test]
    fn every_field_is_checked() {
        // Each byte of the Ethernet source and type, and of the fixed part; the sender's MAC; its address.
        for at in (6..22).chain(22..28) {
            let mut bytes = REQUEST;
            bytes[at] ^= 0x10;
            assert_eq!(Arp::parse(&bytes), None, "byte {at}");
        }
        for sender in [[0x7f, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255]] {
            let mut bytes = REQUEST;
            bytes[28..32].copy_from_slice(&sender);
            assert_eq!(Arp::parse(&bytes), None, "{sender:?}");
        }
        let mut bytes = REPLY;
        bytes[28..32].fill(0);
        assert_eq!(Arp::parse(&bytes), None, "a reply from nowhere");
        assert_eq!(Arp::parse(&REQUEST[..41]), None);
        let tagged = [&REQUEST[..12], &[0x81, 0, 0, 5], &REQUEST[12..]].concat();
        assert_eq!(Arp::parse(&tagged), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..64), patch: bool) {
            if patch && bytes.len() > 22 {
                bytes[12..20].copy_from_slice(&REQUEST[12..20]);
            }
            let _ = answer(&bytes, |_| Some(PEER));
        }

        #[test]
        fn what_is_written_reads_back(reply: bool, a: [u8; 5], ip: [u8; 3], target_mac: [u8; 6], target: [u8; 4]) {
            let arp = Arp {
                operation: if reply { Operation::Reply } else { Operation::Request },
                sender_mac: Mac([2, a[0], a[1], a[2], a[3], a[4]]),
                sender: [10, ip[0], ip[1], ip[2]].into(),
                target_mac: Mac(target_mac),
                target: target.into(),
            };
            prop_assert_eq!(Arp::parse(&arp.message(PEER)), Some(arp));
        }
    }
}
