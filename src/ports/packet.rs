//! The `packet` port: AF_PACKET on an existing device, for those without XDP, and what a `guest` port stands on.
//! Frames pass with their virtio-net header, so checksums stay unfinished and GSO frames whole.
//!
//! Small frames go by the rings of [`crate::sys::packet`], long ones by a system call each. What the kernel counts as
//! dropped because our ring was full never reaches us; it stands in the device's own statistics.
//!
//! The device's state is changed as little as possible: it is set up if it was down, and promiscuous while we are there.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use thiserror::Error;

use super::link::{LinkError, Links};
use super::{Caps, Details, PortIo, Remains, Rx};
use crate::frame::{Burst, Frame, Offload, Pool};
use crate::stats::{DropReason, PortCounters};
use crate::sys::packet::{PacketSocket, SEND_MAX};

/// Slots of the receive ring: 768 KiB, so that with the send ring a port holds 1 MiB.
const RECEIVE_SLOTS: usize = 384;
/// Slots of the send ring: 256 KiB.
const SEND_SLOTS: usize = 128;
/// Every so many fruitless receives the device is checked to be there still.
const CHECK_EVERY: u32 = 64;

/// Why a device could not be opened.
#[derive(Debug, Error)]
pub enum PacketError {
    /// Looking it up or setting it up.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// It does not carry Ethernet frames.
    #[error("device `{0}` is not an Ethernet device")]
    NotEthernet(String),
    /// The kernel refused.
    #[error("device `{name}`: cannot open a packet socket on it: {source} (needs CAP_NET_RAW)")]
    Refused {
        /// The device.
        name: String,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// AF_PACKET on a device.
pub struct PacketPort {
    socket: PacketSocket,
    counters: Arc<PortCounters>,
    caps: Caps,
    details: Details,
    idle: u32,
    /// Scratch of `tx`.
    refused: Vec<usize>,
}

impl PacketPort {
    /// Opens the device `name` in the calling thread's namespace.
    ///
    /// # Errors
    /// [`PacketError`].
    pub fn open(name: &str, counters: Arc<PortCounters>) -> Result<PacketPort, PacketError> {
        let mut links = Links::open()?;
        let link = links.get(name)?;
        if !link.ethernet {
            return Err(PacketError::NotEthernet(name.to_owned()));
        }
        let mut notes = Vec::new();
        if !link.up {
            links.set_up(link.index, true)?;
            notes.push("was down: set up".to_owned());
        }
        if let Some(master) = link.master {
            notes.push(format!(
                "belongs to the bridge or bond with index {master}, which takes its frames too"
            ));
        }
        let socket = PacketSocket::open(link.index, RECEIVE_SLOTS, SEND_SLOTS)
            .map_err(|source| PacketError::Refused { name: name.to_owned(), source })?;
        let mtu = u16::try_from(link.mtu).unwrap_or(u16::MAX);
        Ok(PacketPort {
            socket,
            counters,
            caps: Caps { checksum: true, tso: true, uso: true, mtu },
            details: Details { device: name.to_owned(), driver: "packet", notes },
            idle: 0,
            refused: Vec::new(),
        })
    }

    pub(super) fn describe(&mut self, driver: &'static str, notes: Vec<String>) {
        self.details.driver = driver;
        self.details.notes.splice(0..0, notes);
    }

    /// Takes the next frame out of the ring. `None`: there is none; `Some(Err)`: one was lost, and why.
    #[inline]
    fn receive(&mut self, pool: &mut Pool) -> Option<Result<Frame, DropReason>> {
        let slot = self.socket.receive()?;
        let tag = slot.tag;
        let result = if slot.queued {
            drop(slot);
            self.receive_large(pool)
        } else if slot.len > slot.data.len() {
            Err(DropReason::RxTruncated)
        } else {
            let frame = pool.alloc_for(slot.data.len()).and_then(|mut frame| {
                frame.append(slot.data)?;
                frame.offload = slot.offload;
                Some(frame)
            });
            frame.ok_or(DropReason::NoBuffer)
        };
        Some(result.and_then(|mut frame| {
            frame.offload.flags &= Offload::NEEDS_CSUM | Offload::DATA_VALID;
            match tag {
                Some(tag) => put_tag(frame, tag),
                None => Ok(frame),
            }
        }))
    }

    fn receive_large(&mut self, pool: &mut Pool) -> Result<Frame, DropReason> {
        let mut offload = Offload::NONE;
        let Some(mut frame) = pool.alloc_large() else {
            let _ = self.socket.receive_large(&mut offload, &mut []);
            return Err(DropReason::NoBuffer);
        };
        frame.extend(frame.tailroom());
        let room = frame.len();
        // The first call after the device went down tells of that, and the frame is still there behind it.
        let len = self
            .socket
            .receive_large(&mut offload, frame.head_mut())
            .or_else(|_| self.socket.receive_large(&mut offload, frame.head_mut()))
            .map_err(|_| DropReason::RxTruncated)?;
        if len > room {
            return Err(DropReason::RxTruncated);
        }
        frame.truncate(len);
        frame.offload = offload;
        Ok(frame)
    }

    /// Sends frames in order until the device takes no more. Gives how many are dealt with; those of them that the kernel
    /// refuses for what they are stand in `refused`.
    fn send(&mut self, frames: &[Frame]) -> usize {
        for (at, frame) in frames.iter().enumerate() {
            let by_ring = frame.len() <= SEND_MAX && frame.offload.gso() == Offload::GSO_NONE;
            if by_ring && self.socket.queue(frame.offload, frame.len(), frame.segments()) {
                continue;
            }
            // What stands in the ring was there before.
            let unsent = self.socket.flush();
            if unsent > 0 {
                return at - unsent;
            }
            if by_ring {
                if !self.socket.queue(frame.offload, frame.len(), frame.segments()) {
                    return at;
                }
            } else if let Err(error) = self.socket.send_large(frame.offload, frame.segments()) {
                if !matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EMSGSIZE)) {
                    return at;
                }
                self.refused.push(at);
            }
        }
        frames.len() - self.socket.flush()
    }
}

/// Puts a tag that the kernel took out back behind the addresses (IEEE 802.1Q-2018, 9.3).
fn put_tag(mut frame: Frame, tag: [u8; 4]) -> Result<Frame, DropReason> {
    if frame.len() < 12 || frame.prepend(4).is_none() {
        return Err(DropReason::Runt);
    }
    let head = frame.head_mut();
    head.copy_within(4..16, 0);
    head[12..16].copy_from_slice(&tag);
    Ok(frame)
}

impl PortIo for PacketPort {
    fn rx(&mut self, pool: &mut Pool, burst: &mut Burst) -> Rx {
        for _ in 0..burst.remaining_capacity() {
            match self.receive(pool) {
                Some(Ok(frame)) => burst.push(frame),
                Some(Err(reason)) => {
                    self.counters.rx_frames.add(1);
                    self.counters.count_drop(reason, 1);
                }
                None => {
                    self.idle = self.idle.wrapping_add(1);
                    let gone = self.idle.is_multiple_of(CHECK_EVERY) && !self.socket.is_bound();
                    return if gone { Rx::Gone } else { Rx::Drained };
                }
            }
        }
        Rx::More
    }

    fn tx(&mut self, _pool: &mut Pool, frames: &mut Vec<Frame>) {
        let done = self.send(frames);
        if self.refused.is_empty() {
            frames.drain(..done);
            return;
        }
        let mut at = 0..;
        frames.retain(|_| at.next().is_some_and(|at| at >= done || self.refused.contains(&at)));
        self.refused.clear();
    }

    fn is_ring(&self) -> bool {
        true
    }

    fn fds(&self) -> Vec<RawFd> {
        vec![self.socket.fd()]
    }

    fn caps(&self) -> Caps {
        self.caps
    }

    fn details(&self) -> Details {
        self.details.clone()
    }

    /// Received frames were copied out of the ring, so there is nothing to give back.
    fn close(self: Box<Self>, _pool: &mut Pool) -> Remains {
        Some(self)
    }
}
