//! An answer as a whole frame.
//!
//! First come the options of the protocol itself (53, 54, 51, 58, 59, 80, 61), then the mask, the classless routes if they are
//! asked for, and the rest in the order that the client asks (RFC 2132, 9.8), last what its relay wants back (82; RFC 3046,
//! 2.2). A client that asks for classless routes gets neither "router" nor "static route" besides them (RFC 3442, "DHCP
//! Administrator Responsibilities"). What does not fit goes to `file` and `sname` (option 52), the most important first, and
//! what fits nowhere is left out.

use std::net::Ipv4Addr;

use arrayvec::ArrayVec;

use super::options::{Codes, Compiled};
use super::request::Request;
use crate::services::packet::{V4, link, set};
use crate::services::{SERVICE_MAC, SERVICE_V4};
use crate::types::Mac;
use crate::wire::checksum::{Sum, pseudo_v4};
use crate::wire::dhcp4::{self, MessageType, Reply, code};
use crate::wire::{ethernet, ipv4, protocol, udp};

/// What the server has decided to say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer<'a> {
    pub(super) kind: MessageType,
    /// Who it is sent to, when the rules of RFC 2131, 4.1 do not say.
    pub(super) to: Option<Ipv4Addr>,
    pub(super) ciaddr: Ipv4Addr,
    pub(super) yiaddr: Ipv4Addr,
    /// What the client is told; nothing in a NAK.
    pub(super) options: Option<&'a Compiled>,
    /// Seconds; none in what grants no lease.
    pub(super) lease_time: Option<u32>,
}

/// From the most important to the least, where not all fit; others follow these.
const IMPORTANCE: [u8; 14] = [
    code::SUBNET_MASK,
    code::CLASSLESS_ROUTE,
    code::MS_CLASSLESS_ROUTE,
    code::ROUTER,
    code::DNS_SERVER,
    code::MTU,
    code::BOOTFILE_NAME,
    code::TFTP_SERVER,
    code::TFTP_SERVER_ADDRESS,
    code::HOSTNAME,
    code::DOMAIN_NAME,
    code::NTP_SERVER,
    code::DOMAIN_SEARCH,
    code::BROADCAST_ADDRESS,
];

const UDP_AT: usize = ethernet::HEADER + ipv4::HEADER;
const MESSAGE_AT: usize = UDP_AT + udp::HEADER;
const OVERLOAD: usize = 3;
/// Bytes of the options that no lease is of use without: the mask, and "overload" for where others went.
const NEEDED: usize = 6 + OVERLOAD;
/// TTL of what we send (IANA, "IP option numbers": the default TTL).
const TTL: u8 = 64;
const REFUSAL: &[u8] = b"wrong address";

/// The protocol's own options: at most 3 + 6 * 4 + 2 + 2 + 255 bytes.
type Own = ArrayVec<u8, 288>;
/// Options with code and length, at most one of each code.
type Items<'a> = ArrayVec<&'a [u8], 256>;

/// Writes the answer into `frame`, as an IP packet of at most `mtu` bytes, or 576 (RFC 2131, 2).
pub(super) fn write(request: &Request<'_>, answer: &Answer<'_>, mtu: u16, frame: &mut Vec<u8>) {
    let own = own(request, answer);
    let max = request.max_packet.min(mtu).max(dhcp4::MIN_PACKET);
    let room = usize::from(max) - ipv4::HEADER - udp::HEADER - dhcp4::HEADER - own.len() - 1;
    let relay = request.relay_agent.map_or(0, |value| value.pieces().map(|piece| piece.len() + 2).sum());
    // One that leaves no room for what the client needs is not sent back at all.
    let (relay, room) = if relay + NEEDED <= room { (relay, room - relay) } else { (0, room) };
    let mut items = Items::new();
    if let Some(options) = answer.options {
        choose(request, options, &mut items);
    }
    let plan = Plan::new(items, answer.options, room);
    let (flags, giaddr) = (request.message.flags(), request.message.giaddr());
    let broadcast = request.is_relayed() && answer.to.is_none() && answer.yiaddr.is_unspecified();
    let (mac, to, port) = destination(request, answer);

    frame.clear();
    frame.extend_from_slice(&link(mac, SERVICE_MAC, ethernet::IPV4));
    frame.resize(MESSAGE_AT, 0);
    let fixed = Reply {
        xid: request.message.xid(),
        // A relay cannot reach a client that has no address but by a broadcast (RFC 2131, 4.3.2).
        flags: if broadcast { flags | dhcp4::BROADCAST } else { flags },
        ciaddr: answer.ciaddr,
        yiaddr: answer.yiaddr,
        siaddr: answer.options.map_or(Ipv4Addr::UNSPECIFIED, |options| options.siaddr),
        giaddr,
        chaddr: request.message.chaddr(),
        sname: plan.sname(answer.options),
        file: plan.file(answer.options),
    };
    fixed.put(frame);
    frame.extend_from_slice(&own);
    plan.put(frame);
    if let Some(value) = request.relay_agent.filter(|_| relay > 0) {
        value.pieces().for_each(|piece| dhcp4::put_option(frame, code::RELAY_AGENT, piece));
    }
    frame.push(code::END);
    if frame.len() < MESSAGE_AT + dhcp4::MIN_LEN {
        frame.resize(MESSAGE_AT + dhcp4::MIN_LEN, code::PAD);
    }
    finish(frame, to, port);
}

/// Where it goes (RFC 2131, 4.1): MAC, address and UDP port.
fn destination(request: &Request<'_>, answer: &Answer<'_>) -> (Mac, Ipv4Addr, u16) {
    let broadcast = (Mac::BROADCAST, Ipv4Addr::BROADCAST, dhcp4::CLIENT_PORT);
    let ciaddr = request.message.ciaddr();
    match answer.to {
        Some(to) => (request.source_mac, to, dhcp4::CLIENT_PORT),
        None if request.is_relayed() => (request.source_mac, request.message.giaddr(), dhcp4::SERVER_PORT),
        None if answer.kind == MessageType::Nak => broadcast,
        // By way of whoever sent it, which may be a router.
        None if !ciaddr.is_unspecified() => (request.source_mac, ciaddr, dhcp4::CLIENT_PORT),
        None if request.message.flags() & dhcp4::BROADCAST != 0 => broadcast,
        None => (request.mac, answer.yiaddr, dhcp4::CLIENT_PORT),
    }
}

/// What every answer of this kind has (RFC 2131, table 3; RFC 4039, 4; RFC 6842, 3).
fn own(request: &Request<'_>, answer: &Answer<'_>) -> Own {
    let mut own = Own::new();
    let mut put = |code: u8, value: &[u8]| {
        let head = [code, u8::try_from(value.len()).unwrap_or(0)];
        // It fits: the lengths are those of the type's.
        let _ = own.try_extend_from_slice(&head).and_then(|()| own.try_extend_from_slice(value));
    };
    put(code::MESSAGE_TYPE, &[answer.kind as u8]);
    put(code::SERVER_IDENTIFIER, &SERVICE_V4.octets());
    if let Some(time) = answer.lease_time {
        put(code::LEASE_TIME, &time.to_be_bytes());
        // What lasts for ever is never renewed (RFC 2131, 3.3 and 4.4.5).
        if time != u32::MAX {
            let own = |code: u8| answer.options.is_some_and(|options| options.get(code).is_some());
            let timers = [(code::RENEWAL_TIME, time / 2), (code::REBINDING_TIME, time - time.div_ceil(8))];
            let due = timers.into_iter().filter(|(code, _)| !own(*code));
            due.for_each(|(code, time)| put(code, &time.to_be_bytes()));
        }
    }
    if answer.kind == MessageType::Nak {
        put(code::MESSAGE, REFUSAL);
    }
    if request.kind == MessageType::Discover && answer.kind == MessageType::Ack {
        put(code::RAPID_COMMIT, &[]);
    }
    if let Some(id) = request.client_id {
        let whole: ArrayVec<u8, 255> = id.pieces().flatten().copied().take(255).collect();
        put(code::CLIENT_IDENTIFIER, &whole);
    }
    own
}

/// The options that the client is to get, in order.
fn choose<'a>(request: &Request<'_>, options: &'a Compiled, items: &mut Items<'a>) {
    let mut seen = Codes::default();
    let mut take = |code: u8| {
        if seen.insert(code)
            && let Some(item) = options.get(code)
        {
            // Each code comes once, so there is room.
            let _ = items.try_push(item);
        }
    };
    take(code::SUBNET_MASK);
    if request.kind != MessageType::Inform {
        // Only a user's own are there; else they are computed.
        take(code::RENEWAL_TIME);
        take(code::REBINDING_TIME);
    }
    let Some(parameters) = request.parameters else {
        options.unasked().iter().for_each(|code| take(*code));
        return;
    };
    let asked = || parameters.pieces().flatten().copied();
    if options.get(code::CLASSLESS_ROUTE).is_some() && asked().any(|code| code == code::CLASSLESS_ROUTE) {
        take(code::CLASSLESS_ROUTE);
        asked().filter(|code| !matches!(*code, code::ROUTER | code::STATIC_ROUTE)).for_each(take);
    } else {
        asked().for_each(take);
    }
}

/// Which option goes where. Fields that hold no options have the names that clients of BOOTP look for there.
struct Plan<'a> {
    items: Items<'a>,
    file: ArrayVec<u8, { dhcp4::FILE }>,
    sname: ArrayVec<u8, { dhcp4::SNAME }>,
}

impl<'a> Plan<'a> {
    #[inline]
    fn new(items: Items<'a>, options: Option<&'a Compiled>, room: usize) -> Plan<'a> {
        let fits = items.iter().map(|item| item.len()).sum::<usize>() <= room;
        let plan = Plan { items, file: ArrayVec::new(), sname: ArrayVec::new() };
        if fits { plan } else { plan.overload(options, room) }
    }

    /// Places options one by one, the most important first, each where it fits.
    #[cold]
    fn overload(mut self, options: Option<&'a Compiled>, room: usize) -> Plan<'a> {
        let code = |item: &[u8]| item.first().copied().unwrap_or(code::PAD);
        // The names lose their fields, so they come as options.
        for name in [code::BOOTFILE_NAME, code::TFTP_SERVER] {
            if let Some(item) = options.and_then(|options| options.get(name))
                && !self.items.iter().any(|item| code(item) == name)
            {
                let _ = self.items.try_push(item);
            }
        }
        let weight = |item: &[u8]| {
            IMPORTANCE.iter().position(|found| *found == code(item)).unwrap_or(IMPORTANCE.len())
        };
        let mut order: ArrayVec<usize, 256> = (0..self.items.len()).collect();
        order.sort_by_key(|&at| self.items.get(at).map(|item| weight(item)));
        let (mut left, mut kept) = (room.saturating_sub(OVERLOAD), Codes::default());
        for item in order.iter().filter_map(|&at| self.items.get(at)) {
            if item.len() <= left {
                left -= item.len();
                kept.insert(code(item));
            } else if item.len() < self.file.remaining_capacity() {
                let _ = self.file.try_extend_from_slice(item);
            } else if item.len() < self.sname.remaining_capacity() {
                let _ = self.sname.try_extend_from_slice(item);
            }
        }
        self.items.retain(|item| kept.contains(code(item)));
        if !self.file.is_empty() {
            let _ = self.file.try_push(code::END);
        }
        if !self.sname.is_empty() {
            let _ = self.sname.try_push(code::END);
        }
        self
    }

    fn file<'b>(&'b self, options: Option<&'b Compiled>) -> &'b [u8] {
        if self.file.is_empty() { options.map_or(&[], |options| &options.file) } else { &self.file }
    }

    fn sname<'b>(&'b self, options: Option<&'b Compiled>) -> &'b [u8] {
        if self.sname.is_empty() { options.map_or(&[], |options| &options.sname) } else { &self.sname }
    }

    /// Appends what stands in the options field.
    #[inline]
    fn put(&self, frame: &mut Vec<u8>) {
        let overload = u8::from(!self.file.is_empty()) | u8::from(!self.sname.is_empty()) << 1;
        if overload != 0 {
            frame.extend_from_slice(&[code::OVERLOAD, 1, overload]);
        }
        self.items.iter().for_each(|item| frame.extend_from_slice(item));
    }
}

/// Fills in the headers of IP and UDP.
fn finish(frame: &mut [u8], to: Ipv4Addr, port: u16) {
    let Some((head, message)) = frame.split_at_mut_checked(UDP_AT) else { return };
    // Bounded by the MTU.
    let len = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let ip = V4 {
        source: SERVICE_V4,
        destination: to,
        protocol: protocol::UDP,
        ttl: TTL,
        class: 0,
        id: None,
        router_alert: false,
    };
    if let Some(place) = head.last_chunk_mut::<{ ipv4::HEADER }>() {
        place.iter_mut().zip(ip.header(message.len())).for_each(|(to, from)| *to = from);
    }
    set(message, 0, dhcp4::SERVER_PORT);
    set(message, 2, port);
    set(message, 4, len);
    let sum = pseudo_v4(SERVICE_V4, to, protocol::UDP, len) + Sum::of(message);
    set(message, usize::from(udp::CHECKSUM), udp::never_zero(sum.checksum()));
}
