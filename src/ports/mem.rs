//! Ports on queues in memory, for tests and benches: a [`MemPort`] for the switch and a [`MemHandle`] for who plays the
//! device.
//!
//! Frames pass through as they are, in the chunks of the pool that they came from; nothing is copied. Both queues are
//! bounded: a full one refuses, as a device would. Dropping the handle is the device vanishing.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::queue::ArrayQueue;

use super::{Caps, Details, PortIo, Remains, Rx};
use crate::frame::{Burst, Frame, Pool};

struct Wire {
    to_switch: ArrayQueue<Frame>,
    from_switch: ArrayQueue<Frame>,
    gone: AtomicBool,
}

/// The switch's end.
pub struct MemPort {
    wire: Arc<Wire>,
    caps: Caps,
    name: String,
    wake: Option<UnixStream>,
}

/// The device's end.
pub struct MemHandle {
    wire: Arc<Wire>,
    wake: Option<UnixStream>,
}

/// A port and its handle, with room for `depth` frames each way. For who calls the port each turn: it has no descriptor
/// to wait for.
pub fn pair(name: &str, depth: usize, caps: Caps) -> (MemPort, MemHandle) {
    let queue = || ArrayQueue::new(depth.max(1));
    let wire = Arc::new(Wire { to_switch: queue(), from_switch: queue(), gone: AtomicBool::new(false) });
    let port = MemPort { wire: wire.clone(), caps, name: name.to_owned(), wake: None };
    (port, MemHandle { wire, wake: None })
}

/// As [`pair`], with a descriptor that becomes readable with each frame, for a worker that sleeps. It costs a system
/// call a frame.
///
/// # Errors
/// The kernel's, when there is no descriptor left.
pub fn waking_pair(name: &str, depth: usize, caps: Caps) -> io::Result<(MemPort, MemHandle)> {
    let (mut port, mut handle) = pair(name, depth, caps);
    let (reader, writer) = UnixStream::pair()?;
    reader.set_nonblocking(true)?;
    writer.set_nonblocking(true)?;
    port.wake = Some(reader);
    handle.wake = Some(writer);
    Ok((port, handle))
}

impl MemHandle {
    /// Lets the switch receive a frame; gives it back when the queue is full.
    ///
    /// # Errors
    /// With the frame, when the queue is full.
    pub fn send(&self, frame: Frame) -> Result<(), Frame> {
        self.wire.to_switch.push(frame)?;
        self.ring();
        Ok(())
    }

    /// Lets the switch receive these bytes, in a frame of `pool`. False when the queue is full or the pool empty.
    pub fn send_bytes(&self, pool: &mut Pool, bytes: &[u8]) -> bool {
        pool.frame_from(bytes).is_some_and(|frame| self.send(frame).is_ok())
    }

    /// The next frame that the switch sent.
    pub fn receive(&self) -> Option<Frame> {
        self.wire.from_switch.pop()
    }

    /// Frames that the switch has not received yet.
    pub fn waiting(&self) -> usize {
        self.wire.to_switch.len()
    }

    fn ring(&self) {
        if let Some(mut wake) = self.wake.as_ref() {
            // A full pipe is readable already.
            let _ = wake.write(&[1]);
        }
    }
}

impl Drop for MemHandle {
    fn drop(&mut self) {
        self.wire.gone.store(true, Ordering::Release);
        self.ring();
    }
}

impl PortIo for MemPort {
    fn rx(&mut self, _pool: &mut Pool, burst: &mut Burst) -> Rx {
        let gone = self.wire.gone.load(Ordering::Acquire);
        while !burst.is_full() {
            match self.wire.to_switch.pop() {
                Some(frame) => burst.push(frame),
                None if gone => return Rx::Gone,
                None => return self.drained(burst),
            }
        }
        Rx::More
    }

    fn tx(&mut self, _pool: &mut Pool, frames: &mut Vec<Frame>) {
        let room = self.wire.from_switch.capacity() - self.wire.from_switch.len();
        for frame in frames.drain(..room.min(frames.len())) {
            // There is room: this end alone fills the queue. A refusal would lose the frame, never the switch.
            let refused = self.wire.from_switch.push(frame);
            debug_assert!(refused.is_ok(), "the other end only takes out");
        }
    }

    fn is_ring(&self) -> bool {
        true
    }

    fn fds(&self) -> Vec<RawFd> {
        self.wake.iter().map(AsRawFd::as_raw_fd).collect()
    }

    fn caps(&self) -> Caps {
        self.caps
    }

    fn details(&self) -> Details {
        Details { device: self.name.clone(), driver: "mem", notes: Vec::new() }
    }

    fn close(self: Box<Self>, _pool: &mut Pool) -> Remains {
        while self.wire.to_switch.pop().is_some() {}
        None
    }
}

impl MemPort {
    /// Empties the wake-up pipe, then looks once more: a frame that came in between has its byte in the pipe no longer.
    fn drained(&mut self, burst: &mut Burst) -> Rx {
        let Some(wake) = self.wake.as_mut() else { return Rx::Drained };
        let mut bytes = [0; 256];
        while wake.read(&mut bytes).is_ok_and(|count| count == bytes.len()) {}
        match self.wire.to_switch.pop() {
            Some(frame) => {
                burst.push(frame);
                Rx::More
            }
            None => Rx::Drained,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::BURST;

    const CAPS: Caps = Caps { checksum: true, tso: true, uso: true, mtu: 1500 };

    #[test]
    fn bursts_are_cut_and_full_queues_refuse() {
        let mut pool = Pool::with_chunks(128, 0).unwrap();
        let (mut port, handle) = pair("a", BURST + 1, CAPS);
        let bytes = || (0u8..).take(BURST + 1);
        for byte in bytes() {
            assert!(handle.send_bytes(&mut pool, &[byte; 60]));
        }
        assert!(!handle.send_bytes(&mut pool, &[0; 60]), "full");
        let mut burst = Burst::new();
        assert_eq!((port.rx(&mut pool, &mut burst), burst.len()), (Rx::More, BURST));
        let mut frames: Vec<Frame> = burst.drain(..).collect();
        assert_eq!((port.rx(&mut pool, &mut burst), burst.len()), (Rx::Drained, 1));
        frames.extend(burst.drain(..));
        frames.push(pool.frame_from(&[99; 60]).unwrap());
        port.tx(&mut pool, &mut frames);
        assert_eq!(frames.len(), 1, "what does not fit stays");
        for byte in bytes() {
            assert_eq!(handle.receive().unwrap().head(), [byte; 60]);
        }
        assert!(handle.receive().is_none());
        drop((frames, handle));
        assert_eq!(port.rx(&mut pool, &mut burst), Rx::Gone);
        Box::new(port).close(&mut pool);
        assert_eq!(pool.free_chunks(), (128, 0));
    }

    #[test]
    fn a_sleeping_worker_is_woken() {
        let mut pool = Pool::with_chunks(8, 0).unwrap();
        let (mut port, handle) = waking_pair("a", 4, CAPS).unwrap();
        assert_eq!(port.fds().len(), 1);
        let mut peek = [0; 1];
        let pending = |port: &MemPort| port.wake.as_ref().unwrap().try_clone().unwrap();
        assert!(handle.send_bytes(&mut pool, &[1; 60]));
        let mut burst = Burst::new();
        assert_eq!((port.rx(&mut pool, &mut burst), burst.len()), (Rx::Drained, 1));
        assert!(pending(&port).read(&mut peek).is_err(), "the pipe is empty again");
        drop(handle);
        assert_eq!(pending(&port).read(&mut peek).unwrap(), 1, "a vanishing device wakes too");
        burst.clear();
        assert_eq!(port.rx(&mut pool, &mut burst), Rx::Gone);
    }
}
