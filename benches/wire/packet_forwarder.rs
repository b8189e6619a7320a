//! A bare forwarder between two devices by AF_PACKET: it receives and sends and does nothing else, so its rate is the
//! limit that the switch is compared with.
//!
//! `packet_forwarder DEVICE DEVICE [SLOTS]`, with the slots of a receive ring, runs until it is killed.

use std::error::Error;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
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

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
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
