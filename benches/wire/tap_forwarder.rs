//! A bare forwarder between two TAPs: it reads and writes and does nothing else, so its rate is the limit that the
//! switch is compared with.
//!
//! `tap_forwarder NAME@NETNS NAME@NETNS [MTU]` makes both TAPs and runs until it is killed.

use std::error::Error;
use std::os::fd::{AsFd, BorrowedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nuswitch::frame::{BURST, Offload};
use nuswitch::ports::link::{LinkError, Links};
use nuswitch::ports::netns::Netns;
use nuswitch::sys::tap::Tap;

fn open(place: &str, mtu: u16) -> Result<Tap, Box<dyn Error>> {
    let (name, netns) = place.split_once('@').ok_or("a TAP is named NAME@NETNS")?;
    let (netns, (tap, interim)) = (Netns::open(netns)?, Tap::create_any()?);
    tap.set_offloads()?;
    let mut links = Links::open()?;
    let index = links.get(&interim)?.index;
    links.set_netns(index, netns.as_fd(), name)?;
    netns.within(|| -> Result<(), LinkError> {
        let mut links = Links::open()?;
        let index = links.get(name)?.index;
        links.set_mtu(index, u32::from(mtu))?;
        links.set_up(index, true)
    })??;
    Ok(tap)
}

/// Moves up to a burst of frames; true when there may be more.
fn pass(from: &Tap, to: &Tap, buffer: &mut [u8]) -> bool {
    for _ in 0..BURST {
        let mut offload = Offload::NONE;
        let Ok(len) = from.read(&mut offload, [buffer, &mut []]) else { return false };
        let _ = to.write(offload, std::iter::once(&buffer[..len]));
    }
    true
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [left, right, rest @ ..] = arguments.as_slice() else {
        return Err("usage: tap_forwarder NAME@NETNS NAME@NETNS [MTU]".into());
    };
    let mtu = rest.first().map_or(Ok(1500), |mtu| mtu.parse())?;
    let (left, right) = (open(left, mtu)?, open(right, mtu)?);
    let mut buffer = vec![0; 1 << 17];
    println!("ready");
    let mut idle = 0;
    loop {
        let busy = pass(&left, &right, &mut buffer) | pass(&right, &left, &mut buffer);
        idle = if busy { 0 } else { idle + 1 };
        if idle > 64 {
            wait(left.as_fd(), right.as_fd())?;
            idle = 0;
        }
    }
}

fn wait(left: BorrowedFd<'_>, right: BorrowedFd<'_>) -> nix::Result<()> {
    let mut fds = [PollFd::new(left, PollFlags::POLLIN), PollFd::new(right, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::NONE).map(drop)
}
