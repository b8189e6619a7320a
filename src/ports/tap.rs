//! The `tap` port: a TAP whose descriptor the switch holds, and whose kernel side is the end point, in the host or in
//! another namespace. Frames pass with their virtio-net header, so checksums stay unfinished and GSO frames whole.
//!
//! One system call per frame in either direction; the kernel offers no batches here. A small frame is read straight
//! into a small chunk, and what does not fit goes on in a large one that stands by, so a GSO frame is copied once by
//! the kernel, and only its first bytes once more by us.
//!
//! The device goes with the descriptor, so nothing is left behind however the process ends.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, RawFd};
use std::sync::Arc;

use thiserror::Error;

use super::link::{LinkError, Links};
use super::netns::{Netns, NetnsError, within};
use super::{Caps, Details, PortIo, Remains, Rx};
use crate::frame::{Burst, CHUNK_DATA, Frame, Offload, Pool};
use crate::stats::{DropReason, PortCounters};
use crate::sys::tap::Tap;
use crate::types::Mac;

/// What a `tap` port's device should be.
#[derive(Clone, Debug)]
pub struct TapConfig {
    /// Device name, at most 15 bytes.
    pub name: String,
    /// Namespace to make it in: a name under `/run/netns`, or an absolute path. None: ours.
    pub netns: Option<String>,
    /// Addresses with prefix lengths.
    pub address: Vec<(IpAddr, u8)>,
    /// MAC of the device; none: the kernel makes one up.
    pub mac: Option<Mac>,
    /// Longest packet without Ethernet header, in bytes.
    pub mtu: u16,
}

/// Why a TAP could not be opened.
#[derive(Debug, Error)]
pub enum TapError {
    /// The namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The name is taken.
    #[error("TAP `{0}`: a device of this name exists already; remove it or choose another name")]
    Exists(String),
    /// Another process is attached to it.
    #[error("TAP `{0}`: in use by another process")]
    Busy(String),
    /// What stands there under that name is not a TAP that a hypervisor can open.
    #[error("device `{0}` exists and is {1}; remove it or choose another name")]
    NotATap(String, &'static str),
    /// The owner is unknown.
    #[error("TAP `{name}`: there is no user `{owner}`")]
    Owner {
        /// The device.
        name: String,
        /// The user that was named.
        owner: String,
    },
    /// The kernel refused.
    #[error("TAP `{name}`: cannot {what}: {source}")]
    Refused {
        /// The device.
        name: String,
        /// What was asked.
        what: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Setting it up.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// A TAP that the switch holds.
pub struct TapPort {
    tap: Tap,
    counters: Arc<PortCounters>,
    caps: Caps,
    details: Details,
    /// A frame of [`CHUNK_DATA`] bytes, and the virtio-net header before them, that the next read begins in.
    small: Option<Frame>,
    /// A frame that the next read goes on in, [`CHUNK_DATA`] bytes from its start.
    large: Option<Frame>,
}

impl TapPort {
    /// Makes the device and sets it up.
    ///
    /// # Errors
    /// [`TapError`]; nothing is left behind then.
    pub fn open(config: &TapConfig, counters: Arc<PortCounters>) -> Result<TapPort, TapError> {
        let (tap, uso) = create(config)?;
        let device = match &config.netns {
            Some(netns) => format!("{}@{netns}", config.name),
            None => config.name.clone(),
        };
        let mut notes = Vec::new();
        if !uso {
            notes.push("no UDP segmentation: the kernel is older than 6.2".to_owned());
        }
        Ok(TapPort {
            tap,
            counters,
            caps: Caps { checksum: true, tso: true, uso, mtu: config.mtu },
            details: Details { device, driver: "tap", notes },
            small: None,
            large: None,
        })
    }

    /// Reads one frame, or says why not.
    #[inline]
    fn read(&mut self, pool: &mut Pool) -> io::Result<Frame> {
        let (Some(small), large) = (&mut self.small, &mut self.large) else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        let more = match large {
            Some(large) => &mut large.head_mut()[CHUNK_DATA..],
            None => &mut [],
        };
        let has_large = !more.is_empty();
        let whole = self.tap.read_whole([small.head_mut(), more])?;
        let (Some(len), Some(header)) = (whole.checked_sub(Offload::LEN), small.head().first_chunk()) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let mut offload = Offload::from_bytes(*header);
        // Other flags exist for the receiving side alone (VIRTIO_NET_HDR_F_RSC_INFO) and mean nothing here.
        offload.flags &= Offload::NEEDS_CSUM | Offload::DATA_VALID;
        if len == CHUNK_DATA && !has_large {
            // It may have been longer, which the kernel does not say.
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let (full, next) = if len <= CHUNK_DATA {
            small.trim_front(Offload::LEN);
            (&mut self.small, spare_small(pool))
        } else {
            if let (Some(large), Some(small)) = (large, small_head(&self.small)) {
                large.head_mut()[..CHUNK_DATA].copy_from_slice(&small[Offload::LEN..]);
            }
            (&mut self.large, spare_large(pool))
        };
        let mut frame = std::mem::replace(full, next).ok_or(io::ErrorKind::OutOfMemory)?;
        frame.truncate(len);
        frame.offload = offload;
        Ok(frame)
    }

    /// Without a buffer to read into, frames are taken and counted, so that those behind them are not older than need
    /// be when there is one again.
    #[cold]
    fn discard(&mut self) -> io::Result<()> {
        self.tap.read(&mut Offload::NONE.clone(), [&mut [0; 64], &mut []]).map(drop)
    }

    /// Writes one frame, with its header in the headroom where there is some, so that the kernel copies one piece.
    #[inline]
    fn write(&self, frame: &mut Frame) -> io::Result<()> {
        if !frame.is_linear() || frame.headroom() < Offload::LEN {
            return self.tap.write(frame.offload, frame.segments());
        }
        let offload = std::mem::replace(&mut frame.offload, Offload::NONE);
        frame.prepend(Offload::LEN);
        frame.head_mut()[..Offload::LEN].copy_from_slice(&offload.to_bytes());
        let result = self.tap.write_whole(frame.head());
        frame.trim_front(Offload::LEN);
        frame.offload = offload;
        result
    }

    fn refuse(&self) {
        self.counters.rx_frames.add(1);
        self.counters.count_drop(DropReason::NoBuffer, 1);
    }
}

#[inline(always)]
fn small_head(frame: &Option<Frame>) -> Option<&[u8]> {
    frame.as_ref().map(Frame::head)
}

#[inline]
fn spare_small(pool: &mut Pool) -> Option<Frame> {
    let mut frame = pool.alloc()?;
    frame.extend(CHUNK_DATA)?;
    frame.prepend(Offload::LEN)?;
    Some(frame)
}

fn spare_large(pool: &mut Pool) -> Option<Frame> {
    let mut frame = pool.alloc_large()?;
    frame.extend(frame.tailroom())?;
    Some(frame)
}

impl PortIo for TapPort {
    fn rx(&mut self, pool: &mut Pool, burst: &mut Burst) -> Rx {
        for _ in 0..burst.remaining_capacity() {
            if self.small.is_none() {
                self.small = spare_small(pool);
            }
            if self.large.is_none() {
                self.large = spare_large(pool);
            }
            let result = if self.small.is_some() {
                self.read(pool).map(|frame| burst.push(frame))
            } else {
                self.discard().and(Err(io::ErrorKind::OutOfMemory.into()))
            };
            match result {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::OutOfMemory => self.refuse(),
                Err(error) => return ended(&error),
            }
        }
        Rx::More
    }

    fn tx(&mut self, _pool: &mut Pool, frames: &mut Vec<Frame>) {
        let mut full = false;
        frames.retain_mut(|frame| {
            full || match self.write(frame) {
                Ok(()) => false,
                Err(error) => {
                    full = error.kind() == io::ErrorKind::WouldBlock;
                    true
                }
            }
        });
    }

    fn is_ring(&self) -> bool {
        false
    }

    fn fds(&self) -> Vec<RawFd> {
        vec![self.tap.fd()]
    }

    fn caps(&self) -> Caps {
        self.caps
    }

    fn details(&self) -> Details {
        self.details.clone()
    }

    /// The device goes with its descriptor.
    fn close(mut self: Box<Self>, _pool: &mut Pool) -> Remains {
        (self.small, self.large) = (None, None);
        Some(self)
    }
}

/// What a failed read means: nothing there, or no device any more.
fn ended(error: &io::Error) -> Rx {
    match error.raw_os_error() {
        Some(libc::EBADFD | libc::EIO | libc::ENODEV) => Rx::Gone,
        _ => Rx::Drained,
    }
}

fn create(config: &TapConfig) -> Result<(Tap, bool), TapError> {
    let name = &config.name;
    let tap = match &config.netns {
        None => create_here(name)?,
        Some(netns) => create_in(name, &Netns::open(netns)?)?,
    };
    let uso = tap.set_offloads().map_err(|source| TapError::Refused {
        name: name.clone(),
        what: "turn its offloads on",
        source,
    })?;
    within(config.netns.as_deref(), || set_up(config))??;
    Ok((tap, uso))
}

fn create_here(name: &str) -> Result<Tap, TapError> {
    Tap::create(name).map_err(|source| {
        let exists = Links::open().and_then(|mut links| links.get(name)).is_ok();
        if exists { TapError::Exists(name.to_owned()) } else { refused(name)(source) }
    })
}

/// Makes it here and moves it: a TAP's descriptor keeps the namespace alive that it was opened in, and a user who deletes
/// a namespace means it.
fn create_in(name: &str, netns: &Netns) -> Result<Tap, TapError> {
    let (tap, interim) = Tap::create_any().map_err(refused(name))?;
    let mut links = Links::open()?;
    let index = links.get(&interim)?.index;
    links.set_netns(index, netns.as_fd(), name).map_err(|error| match error.errno() {
        Some(libc::EEXIST) => TapError::Exists(format!("{name}@{}", netns.name())),
        _ => error.into(),
    })?;
    Ok(tap)
}

fn refused(name: &str) -> impl Fn(io::Error) -> TapError {
    move |source| TapError::Refused { name: name.to_owned(), what: "make it", source }
}

fn set_up(config: &TapConfig) -> Result<(), LinkError> {
    let mut links = Links::open()?;
    let index = links.get(&config.name)?.index;
    if let Some(mac) = config.mac {
        links.set_mac(index, mac)?;
    }
    links.set_mtu(index, u32::from(config.mtu))?;
    links.set_up(index, true)?;
    config.address.iter().try_for_each(|&(address, prefix)| links.add_address(index, address, prefix))
}
