//! `xdp`: AF_XDP sockets on all queues of a NIC, a veth or any other device.
//!
//! A control thread opens the port (it may wait, and asks the device many things); the worker that it then moves to
//! receives and sends. All sockets of a worker share one [`Umem`] over the worker's region, so a frame received on one
//! port leaves by another as a descriptor, uncopied. Chunks that a device holds are *posted* in the worker's pool under
//! the port's slot, and all come back on [`PortIo::close`].
//!
//! Sending goes by queue 0, so that frames keep their order. Nothing less than the best happens silently: see
//! [`Details::notes`].
//!
//! Counters: the port counts what never reaches a burst (as received, and dropped with its reason) and frames that the
//! device refused after it had taken them. The worker counts the rest.
//!
//! Limits: a tag that a device has already taken out of a frame is lost to AF_XDP; the port switches that off where the
//! device allows it, but a veth's peer that sends with VLAN offload keeps its tags out of band.

use std::os::fd::RawFd;
use std::sync::Arc;

use thiserror::Error;

use super::{Caps, Details, PortIo, Remains, Rx};
use crate::frame::{BURST, Burst, CHUNK, CHUNK_DATA, Frame, Offload, Pool};
use crate::model::XdpMode;
use crate::stats::{DropReason, PortCounters};
use crate::sys::xdp::bpf::{Link, Map, Program, is_occupied};
use crate::sys::xdp::netdev::{NetDevice, Promiscuous};
use crate::sys::xdp::program::{self, Verdict};
use crate::sys::xdp::ring::Descriptor;
use crate::sys::xdp::socket::{Kick, Losses, Socket, SocketConfig, TX_METADATA, TX_METADATA_CHECKSUM};
use crate::wire::partial::partial_checksum;

pub use crate::sys::xdp::program::{Filter, HostFilter, VtepFilter};
pub use crate::sys::xdp::umem::Umem;

/// Entries of each ring.
const RING: u32 = 2048;
/// Ethernet header and one VLAN tag, which an MTU does not count.
const ETHERNET: usize = 18;
/// Chunks to refill at once, so that the ring's shared index moves once for all of them.
const REFILL: u32 = 32;
/// Most kicks for one burst in copy mode, where each moves at most 32 descriptors.
const KICKS: u32 = 4;
/// Empty receives between two looks at the device's health.
const EMPTY_LOOKS: u32 = 1 << 12;
/// Cycles after which an empty receive looks at the device's health: some 50 to 100 ms.
const LOOK_CYCLES: u64 = 1 << 28;

/// What to open.
#[derive(Clone, Debug, Default)]
pub struct XdpConfig {
    /// Name of the device, in the network namespace of the thread that opens it.
    pub device: String,
    /// Native, generic, or native where the driver has it.
    pub mode: XdpMode,
    /// On a device that the host uses too: what is whose.
    pub filter: Option<Filter>,
    /// Spend the worker's time on the device's queues instead of interrupts.
    pub busy_poll: bool,
    /// Most chunks that the device holds to receive into, over all its queues. None: an eighth of the region, at most
    /// 2048 a queue.
    pub rx_chunks: Option<u32>,
}

/// Why a device could not be opened.
#[derive(Debug, Error)]
#[allow(missing_docs)] // the messages say it
pub enum XdpError {
    #[error("`{device}`: no such device in this network namespace: {source}")]
    NoDevice { device: String, source: std::io::Error },
    #[error("`{device}`: cannot be asked about or set up: {source}")]
    Device { device: String, source: std::io::Error },
    #[error("`{device}`: cannot load the XDP program: {source} (needs CAP_BPF and CAP_NET_ADMIN)")]
    Load { device: String, source: std::io::Error },
    #[error("`{device}`: has an XDP program already; detach it first: `ip link set dev {device} xdp off`")]
    Occupied { device: String },
    #[error("`{device}`: cannot attach the XDP program {mode}: {source}; {hint}")]
    Attach { device: String, mode: &'static str, source: std::io::Error, hint: &'static str },
    #[error("`{device}`: queue {queue} is held by another AF_XDP socket; stop the process that has it")]
    QueueBusy { device: String, queue: u32 },
    #[error("`{device}`: cannot open an AF_XDP socket on queue {queue}: {source}")]
    Socket { device: String, queue: u32, source: std::io::Error },
}

/// One queue of the device.
struct Queue {
    socket: Socket,
    /// Chunks that the device holds to receive into.
    posted: u32,
    /// How many of them it should hold.
    target: u32,
    /// A frame of which pieces are still to come.
    unfinished: Option<Frame>,
    /// The rest of the unfinished frame is to be dropped too.
    skip: bool,
    seen: Losses,
}

/// A device open for AF_XDP. Fields are dropped in this order: first the program leaves the device (which makes a
/// zero-copy driver let go of the UMEM), then the sockets close.
pub struct XdpPort {
    link: Link,
    queues: Vec<Queue>,
    _sockets: Map,
    _promiscuous: Promiscuous,
    device: NetDevice,
    restore_vlan: bool,
    slot: u16,
    counters: Arc<PortCounters>,
    details: Details,
    caps: Caps,
    find_partial: bool,
    busy_poll: bool,
    zero_copy: bool,
    tx_metadata: usize,
    next: usize,
    /// Descriptors were submitted that the kernel has not looked at.
    unkicked: bool,
    gone: bool,
    empty: u32,
    looked: u64,
    unsent: Vec<Frame>,
}

impl XdpPort {
    /// Opens all queues of a device. `slot` names the port in the pool of the worker that will own it, unique among
    /// that worker's ports; the worker's pool must lie over `umem`'s region.
    ///
    /// # Errors
    /// [`XdpError`]; the device is then as it was before, but possibly up.
    pub fn open(
        config: &XdpConfig,
        umem: &Arc<Umem>,
        slot: u16,
        counters: Arc<PortCounters>,
    ) -> Result<XdpPort, XdpError> {
        let name = &config.device;
        let failed = |source| XdpError::Device { device: name.clone(), source };
        let device =
            NetDevice::open(name).map_err(|source| XdpError::NoDevice { device: name.clone(), source })?;
        let mut notes = Vec::new();
        if device.set_up().map_err(failed)? {
            notes.push("was down, set up".to_string());
        }
        let mtu = device.mtu().map_err(failed)?;
        let driver = device.driver().unwrap_or_default();
        let queues = device.queues();
        let count = queues.map_or(1, |queues| queues.rx);

        let load = |source| XdpError::Load { device: name.clone(), source };
        let map = Map::xsk(count).map_err(load)?;
        let insns = program::redirect(&map, config.filter.as_ref(), Verdict::Pass);
        let program = Program::load(&insns).map_err(load)?;
        let (link, native) = attach(config, &program, &device, &mut notes)?;
        let socket = |queue, zero_copy| {
            let (ifindex, multi_buffer) = (device.index(), program.takes_frags());
            let wanted = SocketConfig {
                ifindex,
                queue,
                ring: RING,
                zero_copy,
                multi_buffer,
                busy_poll: config.busy_poll,
            };
            let opened = Socket::open(umem, &wanted).and_then(|socket| {
                map.set_socket(queue, std::os::fd::AsFd::as_fd(&socket))?;
                Ok(socket)
            });
            opened.map_err(|source| match source.raw_os_error() {
                Some(libc::EBUSY) => XdpError::QueueBusy { device: name.clone(), queue },
                _ => XdpError::Socket { device: name.clone(), queue, source },
            })
        };
        let target = rx_target(config, umem, count);
        let mut opened = Vec::new();
        let mut zero_copy = native;
        for queue in 0..count {
            let socket = socket(queue, zero_copy)?;
            zero_copy = socket.way().zero_copy;
            opened.push(Queue {
                socket,
                posted: 0,
                target,
                unfinished: None,
                skip: false,
                seen: Losses::default(),
            });
        }
        let promiscuous = device.promiscuous().map_err(failed)?;
        let restore_vlan = keep_tags(&device, &mut notes);

        let multi_buffer = opened.iter().all(|queue| queue.socket.way().multi_buffer);
        let tx_metadata = opened.first().map_or(0, |queue| queue.socket.way().tx_metadata);
        let checksum = tx_metadata >= TX_METADATA && !zero_copy;
        let find_partial = matches!(driver.as_str(), "veth" | "tun" | "virtio_net");
        let longest = if multi_buffer { usize::from(u16::MAX) } else { CHUNK_DATA - ETHERNET };
        let short = mtu as usize > longest;
        notes.extend([
            if zero_copy { "zero-copy" } else { "copy" }.to_string(),
            match queues {
                Some(_) if count == 1 => "1 queue".to_string(),
                Some(_) => format!("{count} queues, sending by the first"),
                None => "1 queue: the device does not tell how many it has".to_string(),
            },
        ]);
        if native && !zero_copy {
            notes.push("no zero-copy: the driver or the kernel refuses it".to_string());
        }
        notes.push(match (multi_buffer, short) {
            (true, _) => "multi-buffer".to_string(),
            (false, false) => {
                "no multi-buffer: the kernel or the driver refuses it; this MTU does not need it".into()
            }
            (false, true) => format!("no multi-buffer: packets of more than {longest} bytes cannot pass"),
        });
        notes.push(match (checksum, zero_copy) {
            (true, _) => "checksums left to the device".to_string(),
            (false, true) => "checksums in software: a zero-copy driver may not do them".to_string(),
            (false, false) => "checksums in software: the kernel takes no transmit metadata".to_string(),
        });
        if config.busy_poll {
            notes.push("busy polling".to_string());
        }
        if config.filter.is_some() {
            notes.push("shared with the host: its own traffic passes to the kernel".to_string());
        }
        let mtu = u16::try_from((mtu as usize).min(longest)).unwrap_or(u16::MAX);
        Ok(XdpPort {
            link,
            queues: opened,
            _sockets: map,
            _promiscuous: promiscuous,
            device,
            restore_vlan,
            slot,
            counters,
            details: Details { device: name.clone(), driver: "xdp", notes },
            caps: Caps { checksum, tso: false, uso: false, mtu },
            find_partial,
            busy_poll: config.busy_poll,
            zero_copy,
            tx_metadata: tx_metadata as usize,
            next: 0,
            unkicked: false,
            gone: false,
            empty: 0,
            looked: crate::sys::cycles(),
            unsent: Vec::with_capacity(BURST),
        })
    }

    /// Rare looks at the device while nothing comes: is it still there, what did the kernel lose?
    #[cold]
    fn look(&mut self) {
        self.empty = 0;
        self.looked = crate::sys::cycles();
        for queue in &mut self.queues {
            self.gone |= queue.socket.pending_error();
            queue.count_losses(&self.counters);
        }
    }

    /// Sends what was submitted, if the kernel must be told.
    fn kick(&mut self) {
        let Some(queue) = self.queues.first() else { return };
        let tx = &queue.socket.tx;
        self.unkicked = false;
        for _ in 0..KICKS {
            if !tx.needs_wakeup() {
                return;
            }
            match queue.socket.kick_tx() {
                Kick::Done => {}
                Kick::Full => self.counters.count_drop(DropReason::TxFull, 1),
                Kick::Refused => self.counters.count_drop(DropReason::TxError, 1),
                Kick::Again if tx.waiting() == 0 => return,
                Kick::Again => {}
                Kick::Gone => {
                    self.gone = true;
                    return;
                }
            }
            // A zero-copy driver takes them in its own time.
            if self.zero_copy || tx.waiting() == 0 {
                return;
            }
        }
        self.unkicked = true;
    }

    /// Whether every piece of the frame can be sent from where it lies: in this UMEM, not empty, and with room for
    /// metadata before it, which the kernel demands of all pieces alike (`xp_aligned_validate_desc`).
    #[inline(always)]
    fn sendable(&self, pool: &Pool, frame: &Frame) -> bool {
        if !pool.owns_small(frame) || frame.headroom() < self.tx_metadata || frame.head().is_empty() {
            return false;
        }
        frame.is_linear() || self.sendable_chain(pool, frame)
    }

    #[cold]
    fn sendable_chain(&self, pool: &Pool, frame: &Frame) -> bool {
        let base = pool.region().umem_start().addr();
        frame
            .segments()
            .all(|part| !part.is_empty() && (part.as_ptr().addr() - base) % CHUNK >= self.tx_metadata)
    }

    /// Puts a frame into the tx ring; gives it back when it cannot be sent now, or at all.
    #[inline(always)]
    fn send(&mut self, pool: &mut Pool, mut frame: Frame) -> Result<(), Frame> {
        let mut first = 0;
        if !self.sendable(pool, &frame) {
            frame = match pool.copy_small(&frame) {
                Some(copy) if copy.len() > 0 => copy,
                _ => return Err(frame),
            };
        }
        if !frame.offload.is_done() {
            if !(self.caps.checksum && write_metadata(&mut frame)) {
                return Err(frame);
            }
            first = Descriptor::METADATA;
        }
        let Some(Queue { socket, .. }) = self.queues.first_mut() else { return Err(frame) };
        let pieces = if frame.is_linear() { 1 } else { pieces(&frame) };
        if socket.tx.room(pieces) < pieces {
            return Err(frame);
        }
        let tx = &mut socket.tx;
        pool.post(frame, self.slot, |addr, len, more| {
            let options = std::mem::take(&mut first) | if more { Descriptor::CONTINUED } else { 0 };
            tx.push(Descriptor { addr, len, options });
        });
        Ok(())
    }
}

/// Writes the request for a checksum before the frame's data (`struct xsk_tx_metadata`, linux/if_xdp.h). False when the
/// frame asks for something else, or for what lies outside of its first piece.
#[cold]
fn write_metadata(frame: &mut Frame) -> bool {
    let Offload { csum_start, csum_offset, gso_type, .. } = frame.offload;
    let end = usize::from(csum_start) + usize::from(csum_offset) + 2;
    let len = TX_METADATA as usize;
    if gso_type != Offload::GSO_NONE || end > frame.head().len() || frame.prepend(len).is_none() {
        return false;
    }
    let (flags, request) = (TX_METADATA_CHECKSUM.to_ne_bytes(), frame.head_mut());
    request[..8].copy_from_slice(&flags);
    request[8..10].copy_from_slice(&csum_start.to_ne_bytes());
    request[10..12].copy_from_slice(&csum_offset.to_ne_bytes());
    request[12..16].fill(0);
    frame.trim_front(len).is_some()
}

#[cold]
fn pieces(frame: &Frame) -> u32 {
    u32::try_from(frame.segments().count()).unwrap_or(u32::MAX)
}

fn attach(
    config: &XdpConfig,
    program: &Program,
    device: &NetDevice,
    notes: &mut Vec<String>,
) -> Result<(Link, bool), XdpError> {
    let failed = |source: std::io::Error, mode| {
        let device = config.device.clone();
        if is_occupied(&source) {
            return XdpError::Occupied { device };
        }
        let hint = match source.raw_os_error() {
            Some(libc::EOPNOTSUPP) => "its driver has no XDP; use mode \"generic\"",
            Some(libc::ERANGE) => "its MTU is too long for the driver; lower it or use mode \"generic\"",
            _ => "Linux 5.9 and CAP_NET_ADMIN are needed",
        };
        XdpError::Attach { device, mode, source, hint }
    };
    let mut why_not = None;
    if config.mode != XdpMode::Generic {
        match program.attach(device.index(), true) {
            Ok(link) => {
                notes.push("native".to_string());
                return Ok((link, true));
            }
            Err(error) if config.mode == XdpMode::Native || is_occupied(&error) => {
                return Err(failed(error, "natively"));
            }
            Err(error) => why_not = Some(error),
        }
    }
    let link = program.attach(device.index(), false).map_err(|error| failed(error, "generically"))?;
    notes.push(match why_not {
        Some(error) => format!("generic: the driver refuses native XDP: {error}"),
        None => "generic, as asked for".to_string(),
    });
    notes.push(
        "over-long frames arrive from a sender behind veth or TAP unless its TSO and GSO are off".to_string(),
    );
    Ok((link, false))
}

fn rx_target(config: &XdpConfig, umem: &Umem, queues: u32) -> u32 {
    let all = config.rx_chunks.unwrap_or(umem.region().small_chunks() / 8);
    (all / queues.max(1)).clamp(REFILL, RING)
}

/// Tells the device to leave VLAN tags in the frames; true when that is to be undone.
fn keep_tags(device: &NetDevice, notes: &mut Vec<String>) -> bool {
    if !device.strips_vlan().unwrap_or(false) {
        return false;
    }
    let done = device.set_strips_vlan(false).is_ok() && device.strips_vlan().is_ok_and(|strips| !strips);
    if !done {
        notes.push(
            "the device takes VLAN tags out of frames and cannot be told not to: they are lost".to_string(),
        );
    }
    done
}

impl Queue {
    /// Receives what there is and fits into the burst.
    #[inline]
    fn rx(&mut self, pool: &mut Pool, burst: &mut Burst, slot: u16, counters: &PortCounters) {
        let free = u32::try_from(burst.remaining_capacity()).unwrap_or(0);
        let count = self.socket.rx.available(free).min(free);
        if count == 0 {
            return;
        }
        for _ in 0..count {
            let Some(descriptor) = self.socket.rx.pop() else { break };
            let Some(frame) = pool.receive(descriptor.addr, descriptor.len, slot) else {
                counters.rx_frames.add(1);
                counters.count_drop(DropReason::RxTruncated, 1);
                continue;
            };
            self.posted = self.posted.wrapping_sub(1);
            let more = descriptor.options & Descriptor::CONTINUED != 0;
            if !more && self.unfinished.is_none() && !self.skip {
                if let Some(first) = frame.head().first() {
                    crate::sys::prefetch(first);
                }
                burst.push(frame);
            } else if let Some(frame) = self.piece(frame, more, counters) {
                burst.push(frame);
            }
        }
        self.socket.rx.release();
        if self.target.saturating_sub(self.posted) >= REFILL {
            self.refill(pool, slot);
        }
    }

    /// Adds a piece to the unfinished frame; gives the frame with its last one.
    #[cold]
    fn piece(&mut self, piece: Frame, more: bool, counters: &PortCounters) -> Option<Frame> {
        if self.skip {
            self.skip = more;
            return None;
        }
        let frame = match self.unfinished.take() {
            None => piece,
            Some(mut frame) => {
                if frame.chain(piece).is_none() {
                    counters.rx_frames.add(1);
                    counters.count_drop(DropReason::Giant, 1);
                    self.skip = more;
                    return None;
                }
                frame
            }
        };
        if !more {
            return Some(frame);
        }
        self.unfinished = Some(frame);
        None
    }

    /// Gives the device chunks to receive into, up to its target.
    #[inline]
    fn refill(&mut self, pool: &mut Pool, slot: u16) {
        let missing = self.target.saturating_sub(self.posted);
        let fill = &mut self.socket.fill;
        let count = fill.room(missing).min(missing);
        let mut done = 0;
        while done < count {
            let Some(address) = pool.post_free(slot) else { break };
            fill.push(address);
            done += 1;
        }
        if done > 0 {
            fill.submit();
            self.posted += done;
        }
    }

    /// Takes back chunks that were sent.
    #[inline(always)]
    fn reap(&mut self, pool: &mut Pool, slot: u16) {
        let completion = &mut self.socket.completion;
        if completion.available(RING) == 0 {
            return;
        }
        while let Some(address) = completion.pop() {
            pool.complete(address, slot);
        }
        completion.release();
    }

    fn count_losses(&mut self, counters: &PortCounters) {
        let (now, zero_copy) = (self.socket.losses(), self.socket.way().zero_copy);
        let long = now.too_long(zero_copy).saturating_sub(self.seen.too_long(zero_copy));
        let full = now.no_room().saturating_sub(self.seen.no_room());
        counters.rx_frames.add(long + full);
        counters.count_drop(DropReason::RxTruncated, long);
        counters.count_drop(DropReason::NoBuffer, full);
        counters.count_drop(DropReason::TxError, now.bad_tx.saturating_sub(self.seen.bad_tx));
        self.seen = now;
    }
}

impl PortIo for XdpPort {
    fn rx(&mut self, pool: &mut Pool, burst: &mut Burst) -> Rx {
        let start = burst.len();
        for _ in 0..self.queues.len() {
            let Some(queue) = self.queues.get_mut(self.next) else { break };
            queue.rx(pool, burst, self.slot, &self.counters);
            self.next = if self.next + 1 < self.queues.len() { self.next + 1 } else { 0 };
            if burst.is_full() {
                break;
            }
        }
        if burst.len() == start {
            return self.nothing_received(pool);
        }
        if self.find_partial {
            for frame in &mut burst[start..] {
                if let Some((csum_start, csum_offset)) = partial_checksum(frame.head()) {
                    let flags = Offload::NEEDS_CSUM;
                    frame.offload = Offload { flags, csum_start, csum_offset, ..Offload::NONE };
                }
            }
        }
        if burst.is_full() { Rx::More } else { Rx::Drained }
    }

    fn tx(&mut self, pool: &mut Pool, frames: &mut Vec<Frame>) {
        if let Some(queue) = self.queues.first_mut() {
            queue.reap(pool, self.slot);
        }
        let mut unsent = std::mem::take(&mut self.unsent);
        for frame in frames.drain(..) {
            if let Err(frame) = self.send(pool, frame) {
                unsent.push(frame);
            }
        }
        self.unsent = std::mem::replace(frames, unsent);
        if let Some(queue) = self.queues.first_mut() {
            queue.socket.tx.submit();
        }
        self.kick();
    }

    fn turn(&mut self, pool: &mut Pool) {
        if self.unkicked {
            self.kick();
        }
        for queue in &mut self.queues {
            queue.reap(pool, self.slot);
            if queue.target.saturating_sub(queue.posted) >= REFILL {
                queue.refill(pool, self.slot);
            }
            if queue.socket.fill.needs_wakeup() {
                queue.socket.kick_rx();
            }
        }
    }

    fn is_ring(&self) -> bool {
        true
    }

    fn fds(&self) -> Vec<RawFd> {
        self.queues.iter().map(|queue| queue.socket.raw_fd()).collect()
    }

    fn caps(&self) -> Caps {
        self.caps
    }

    fn details(&self) -> Details {
        self.details.clone()
    }

    /// The kernel writes into the pool's buffers until the socket is closed, so it is closed here.
    fn close(self: Box<Self>, pool: &mut Pool) -> Remains {
        let XdpPort { link, mut queues, device, restore_vlan, slot, counters, .. } = *self;
        for queue in &mut queues {
            queue.count_losses(&counters);
        }
        drop(link);
        drop(queues);
        pool.reclaim(slot);
        if restore_vlan {
            // The device may be gone, and its settings with it.
            let _ = device.set_strips_vlan(true);
        }
        None
    }
}

impl XdpPort {
    #[inline]
    fn nothing_received(&mut self, pool: &mut Pool) -> Rx {
        self.empty += 1;
        if self.empty >= EMPTY_LOOKS || crate::sys::cycles().wrapping_sub(self.looked) > LOOK_CYCLES {
            self.look();
        }
        for queue in &mut self.queues {
            if self.busy_poll {
                queue.socket.kick_rx();
            }
            if queue.posted < queue.target {
                queue.refill(pool, self.slot);
            }
        }
        if self.gone { Rx::Gone } else { Rx::Drained }
    }
}
