//! A bare forwarder between two devices by AF_PACKET: it receives and sends and does nothing else, so its rate is the
//! limit that the switch is compared with.
//!
//! `packet_forwarder DEVICE DEVICE [SLOTS]`, with the slots of a receive ring, runs until it is killed.
//! `packet_forwarder --plain DEVICE DEVICE` does a `recv` and a `send` for each frame instead: what AF_PACKET gives without rings
//! and batches.

use std::error::Error;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use nuswitch::frame::{BURST, Offload};
use nuswitch::ports::link::Links;
use nuswitch::sys::packet::{PacketSocket, SEND_MAX};

fn open(name: &str, slots: usize) -> Result<PacketSocket, Box<dyn Error>> {
    let mut links = Links::open()?;
    let link = links.get(name)?;
    links.set_up(link.index, true)?;
    Ok(PacketSocket::open(link.index, slots, 128)?)
}

/// Moves up to a burst of frames; true when there may be more. A VLAN tag out of band is not put back: no frame of a
/// bench has one.
fn pass(from: &mut PacketSocket, to: &mut PacketSocket, buffer: &mut [u8]) -> bool {
    for _ in 0..BURST {
        let Some(slot) = from.receive() else {
            let _ = to.flush();
            return false;
        };
        if !slot.queued && slot.data.len() <= SEND_MAX {
            to.queue(slot.offload, slot.data.len(), std::iter::once(slot.data));
            continue;
        }
        drop(slot);
        let mut offload = Offload::NONE;
        if let Ok(len) = from.receive_large(&mut offload, buffer) {
            let _ = to.flush();
            let _ = to.send_large(offload, std::iter::once(&buffer[..len.min(buffer.len())]));
        }
    }
    let _ = to.flush();
    true
}

/// A socket that hands over a frame a system call.
fn open_plain(name: &str) -> Result<OwnedFd, Box<dyn Error>> {
    let mut links = Links::open()?;
    let link = links.get(name)?;
    links.set_up(link.index, true)?;
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
    // SAFETY: plain bytes, all zeroes are valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET)?;
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL)?.to_be();
    address.sll_ifindex = i32::try_from(link.index)?;
    let len = u32::try_from(size_of::<libc::sockaddr_ll>())?;
    // SAFETY: the address is as long as is said, and lives as long as the call.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
    // What it sends is not to come back to it.
    let (on, len) = (1i32, u32::try_from(size_of::<i32>())?);
    let (level, option) = (libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING);
    // SAFETY: as above.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), len) };
    if bound != 0 || set != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(socket)
}

/// As [`pass`], frame by frame.
fn pass_plain(from: &OwnedFd, to: &OwnedFd, buffer: &mut [u8]) -> bool {
    for _ in 0..BURST {
        let Ok(len) = recv(from.as_raw_fd(), buffer, MsgFlags::empty()) else { return false };
        let _ = send(to.as_raw_fd(), &buffer[..len], MsgFlags::empty());
    }
    true
}

fn plain(left: &str, right: &str) -> Result<(), Box<dyn Error>> {
    let (left, right) = (open_plain(left)?, open_plain(right)?);
    let mut buffer = vec![0; 1 << 17];
    println!("ready");
    loop {
        if !(pass_plain(&left, &right, &mut buffer) | pass_plain(&right, &left, &mut buffer)) {
            let mut fds =
                [PollFd::new(left.as_fd(), PollFlags::POLLIN), PollFd::new(right.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::NONE)?;
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, left, right] = arguments.as_slice()
        && flag == "--plain"
    {
        return plain(left, right);
    }
    let [left, right, rest @ ..] = arguments.as_slice() else {
        return Err("usage: packet_forwarder DEVICE DEVICE [SLOTS]".into());
    };
    let slots = rest.first().map_or(Ok(384), |slots| slots.parse())?;
    let (mut left, mut right) = (open(left, slots)?, open(right, slots)?);
    let mut buffer = vec![0; 1 << 17];
    println!("ready");
    let mut idle = 0;
    loop {
        let busy = pass(&mut left, &mut right, &mut buffer) | pass(&mut right, &mut left, &mut buffer);
        idle = if busy { 0 } else { idle + 1 };
        if idle > 1024 {
            let mut fds =
                [PollFd::new(left.as_fd(), PollFlags::POLLIN), PollFd::new(right.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::NONE)?;
            idle = 0;
        }
    }
}
