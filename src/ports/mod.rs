//! The devices behind ports: [`PortIo`] and its kinds. A kind knows how to receive and send frames in bursts and says
//! by [`Caps`] what it can carry; what it cannot carry is done in software before it gets there
//! ([`crate::dataplane`]'s egress).

mod at_once;
pub mod guest;
pub mod link;
pub mod mem;
pub mod netns;
pub mod packet;
pub mod pcap;
pub mod tap;
pub mod xdp;

use std::any::Any;
use std::os::fd::RawFd;

use serde::Serialize;

pub use at_once::at_once;

pub use crate::frame::Caps;
use crate::frame::{Burst, Frame, Pool};

/// How a receive ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rx {
    /// The burst is full; there may be more.
    More,
    /// There is nothing more now.
    Drained,
    /// The device is gone; the port is down until it is opened anew.
    Gone,
}

/// A device as people see it in `show ports`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Details {
    /// The device's name, with its namespace where it has one: `eth0@lab`.
    pub device: String,
    /// `tap`, `guest`, `xdp`, `packet`, `pcap`, `mem`.
    pub driver: &'static str,
    /// What is worth knowing: `native`, `generic`, `zero-copy`, `copy`, `multi-buffer`, queues; and why not, where less than
    /// the best was to be had.
    pub notes: Vec<String>,
}

/// A device that frames come from and go to. Owned by one worker and called by it alone.
///
/// Frames pass in the form of the wire: VLAN tags in the frame (a tag that the kernel gave out of band is put back in
/// by `rx`), lengths without FCS.
pub trait PortIo: Send {
    /// Receives until the burst is full or the device has nothing more. Frames that cannot be taken are counted at the
    /// port with their reason.
    fn rx(&mut self, pool: &mut Pool, burst: &mut Burst) -> Rx;

    /// Sends the frames in order, with as few system calls as the device allows, and takes out of `frames` those that
    /// the device accepted. What stays could not be sent now: the worker drops and counts it.
    fn tx(&mut self, pool: &mut Pool, frames: &mut Vec<Frame>);

    /// Work that falls due between bursts: completions, refilling. Called once a turn.
    fn turn(&mut self, _pool: &mut Pool) {}

    /// True when `rx` reads memory only, so that it can be called every turn; false when it costs a system call and
    /// should wait for its descriptor to become readable.
    fn is_ring(&self) -> bool;

    /// Descriptors that become readable (edge-triggered) when there is something to receive.
    fn fds(&self) -> Vec<RawFd>;

    /// What the device can carry.
    fn caps(&self) -> Caps;

    /// For people.
    fn details(&self) -> Details;

    /// Lets go of every buffer. What is left closes the device when it is dropped, which takes the kernel its time: whoever
    /// has frames to move lets somebody else do that.
    fn close(self: Box<Self>, pool: &mut Pool) -> Remains;
}

/// What is left of a device that lets go of its buffers. None: nothing, it is closed.
pub type Remains = Option<Box<dyn Any + Send>>;
