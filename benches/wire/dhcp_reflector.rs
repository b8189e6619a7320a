//! The fastest DHCP server that there can be, because it is none: it makes each relayed request into a reply where it stands,
//! without looking for a client or an address. What perfdhcp does with it is perfdhcp's own limit.
//!
//! `dhcp_reflector DEVICE ADDRESS` answers requests that are sent to the device's MAC until it is killed. ADDRESS, which
//! the kernel there has too (it answers ARP), is the server's; each client is offered the next one but one.

use std::error::Error;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nuswitch::frame::Offload;
use nuswitch::ports::link::Links;
use nuswitch::sys::packet::PacketSocket;

/// Ethernet, IPv4 without options, UDP.
const BOOTP: usize = 14 + 20 + 8;
/// Fields of the message (RFC 2131, 2).
const YIADDR: usize = BOOTP + 16;
const OPTIONS: usize = BOOTP + 240;

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
    reply.extend([51, 4, 0, 0, 0x0e, 0x10, 1, 4, 255, 255, 0, 0, 255]);
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

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [device, address] = arguments.as_slice() else {
        return Err("usage: dhcp_reflector DEVICE ADDRESS".into());
    };
    let (server, index) = (address.parse()?, Links::open()?.get(device)?.index);
    let mut socket = PacketSocket::open(index, 4096, 4096)?;
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
