//! The fastest DHCP server that there can be, because it is none: it makes each relayed request into a reply where it stands,
//! without looking for a client or an address. What perfdhcp does with it is perfdhcp's own limit.
//!
//! `dhcp_reflector DEVICE ADDRESS [--xdp]` answers requests that are sent to the device's MAC until it is killed. ADDRESS,
//! which the kernel there has too, is the server's; each client is offered the next one but one. It sleeps until there are
//! frames, on AF_PACKET; with `--xdp` it polls an AF_XDP socket.

use std::error::Error;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nuswitch::frame::{BURST, Burst, Frame, Offload, Pool, Region};
use nuswitch::ports::PortIo;
use nuswitch::ports::link::Links;
use nuswitch::ports::xdp::{Umem, XdpConfig, XdpPort};
use nuswitch::services::arp;
use nuswitch::stats::PortCounters;
use nuswitch::sys::packet::PacketSocket;
use nuswitch::types::Mac;

/// Ethernet, IPv4 without options, UDP.
const BOOTP: usize = 14 + 20 + 8;
/// Fields of the message (RFC 2131, 2).
const YIADDR: usize = BOOTP + 16;
const OPTIONS: usize = BOOTP + 240;

/// What the switch tells a client of a port of its own: perfdhcp reads every option of a reply, so its limit depends on how many
/// there are. Lease time and timers, mask, router, MTU, a name, the client's identifier, and classless routes (RFC 3442) twice.
const TOLD: &[&[u8]] = &[
    &[51, 4, 0, 0, 0x0e, 0x10, 58, 4, 0, 0, 7, 8, 59, 4, 0, 0, 12, 78],
    &[1, 4, 255, 255, 0, 0, 3, 4, 10, 64, 0, 1, 26, 2, 5, 220],
    &[12, 4, b'l', b'e', b'f', b't', 61, 7, 1, 0, 12, 1, 2, 3, 4],
    &[121, 14, 32, 169, 254, 169, 254, 0, 0, 0, 0, 0, 10, 64, 0, 1],
    &[249, 14, 32, 169, 254, 169, 254, 0, 0, 0, 0, 0, 10, 64, 0, 1],
    &[255],
];

/// The reply to a frame, in its place; none if it is no request.
fn reply(frame: &[u8], server: Ipv4Addr) -> Option<Vec<u8>> {
    let is_request =
        frame.len() > OPTIONS + 4 && frame[23] == 17 && frame[36..38] == [0, 67] && frame[BOOTP] == 1;
    if !is_request || frame[OPTIONS..OPTIONS + 2] != [53, 1] {
        return None;
    }
    let kind = match frame[OPTIONS + 2] {
        1 => 2, // DISCOVER: OFFER
        3 => 5, // REQUEST: ACK
        _ => return None,
    };
    let mut reply = frame[..OPTIONS].to_vec();
    reply[0..6].copy_from_slice(&frame[6..12]);
    reply[6..12].copy_from_slice(&frame[0..6]);
    // To the relay (RFC 2131, 4.1), whose port is the server's.
    reply[30..34].copy_from_slice(&frame[BOOTP + 24..BOOTP + 28]);
    reply[26..30].copy_from_slice(&server.octets());
    reply[34..38].copy_from_slice(&[0, 67, 0, 67]);
    reply[40..42].copy_from_slice(&[0, 0]);
    reply[BOOTP] = 2;
    let next = u32::from(server).wrapping_add(2 + u32::from(frame[BOOTP + 33])).to_be_bytes();
    reply[YIADDR..YIADDR + 4].copy_from_slice(&next);
    reply.extend([53, 1, kind, 54, 4]);
    reply.extend(server.octets());
    reply.extend(TOLD.concat());
    reply.resize(BOOTP + 300, 0);
    let len = u16::try_from(reply.len()).ok()?;
    reply[16..18].copy_from_slice(&(len - 14).to_be_bytes());
    reply[38..40].copy_from_slice(&(len - 34).to_be_bytes());
    reply[24..26].copy_from_slice(&[0, 0]);
    let sum: u32 =
        reply[14..34].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).ok()?;
    reply[24..26].copy_from_slice(&sum.to_be_bytes());
    Some(reply)
}

/// What arrives on an AF_XDP socket is answered from it, ARP requests too, as nobody else sees them there.
fn by_xdp(device: &str, server: Ipv4Addr, mac: Mac) -> Result<(), Box<dyn Error>> {
    let region = Region::new(16384, 0)?;
    let config = XdpConfig { device: device.to_owned(), ..XdpConfig::default() };
    let mut port = XdpPort::open(&config, &Umem::new(region.clone()), 0, Arc::new(PortCounters::default()))?;
    let mut pool = Pool::new(region);
    let (mut burst, mut replies) = (Burst::new(), Vec::<Frame>::with_capacity(BURST));
    println!("ready");
    loop {
        port.turn(&mut pool);
        port.rx(&mut pool, &mut burst);
        for frame in burst.drain(..) {
            let arp = arp::answer(frame.head(), |address| (address == server).then_some(mac));
            let answer = arp.map(|answer| answer.to_vec()).or_else(|| reply(frame.head(), server));
            replies.extend(answer.and_then(|answer| pool.frame_from(&answer)));
        }
        if !replies.is_empty() {
            port.tx(&mut pool, &mut replies);
            replies.clear();
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (device, address, xdp) = match arguments.as_slice() {
        [device, address] => (device, address, false),
        [device, address, xdp] if xdp == "--xdp" => (device, address, true),
        _ => return Err("usage: dhcp_reflector DEVICE ADDRESS [--xdp]".into()),
    };
    let (server, link) = (address.parse()?, Links::open()?.get(device)?);
    if xdp {
        return by_xdp(device, server, link.mac.ok_or("it has no MAC")?);
    }
    let mut socket = PacketSocket::open(link.index, 4096, 4096)?;
    println!("ready");
    loop {
        let mut replies = Vec::new();
        while let Some(received) = socket.receive() {
            replies.extend(reply(received.data, server));
        }
        for reply in &replies {
            let _ = socket.send_large(Offload::NONE, std::iter::once(&reply[..]));
        }
        if replies.is_empty() {
            poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
        }
    }
}
