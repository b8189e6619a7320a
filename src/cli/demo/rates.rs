//! How fast a pair of hosts can talk: bytes over TCP by their kernels, and frames of 60 bytes by packet sockets that keep
//! only so many under way, so that what is lost was lost by the path and not by a sender that ran ahead.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{sleep, yield_now};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::lab::{DEVICE, Host};
use super::stop::Stop;
use crate::cli::frame_spec;
use crate::frame::Offload;
use crate::ports::link::Links;
use crate::sys::packet::PacketSocket;
use crate::types::Mac;

/// Bytes of one write and one read.
const PIECE: usize = 256 << 10;
/// How often the rate is told.
const TELL: Duration = Duration::from_millis(250);
/// How long a connection may stand still before it counts as broken.
const PATIENCE: Duration = Duration::from_secs(10);
/// Frames under way at most, and in one burst.
const WINDOW: u64 = 256;
const BURST: u64 = 64;
/// After so long without one coming, those under way are lost.
const LOST_AFTER: Duration = Duration::from_secs(1);
/// A frame of the least length (IEEE 802.3: 64 bytes with its FCS): the rest after its Ethernet header.
const LEAST: usize = 46;
/// IEEE 802, local experimental EtherType 1: no kernel answers it.
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];

/// What a measurement moved: bytes or frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moved {
    pub(super) sent: u64,
    pub(super) received: u64,
    time: Duration,
}

impl Moved {
    /// Received a second.
    #[allow(clippy::cast_precision_loss)] // a rate for people
    pub(super) fn rate(&self) -> f64 {
        self.received as f64 / self.time.as_secs_f64().max(1e-9)
    }
}

/// Sends over one TCP connection for so long, then closes it and waits for the last byte. `tell` hears of bytes a second.
pub(super) fn tcp(
    from: &Host,
    to: &Host,
    time: Duration,
    stop: &Stop,
    tell: &mut dyn FnMut(f64),
) -> anyhow::Result<Moved> {
    let listener = to.netns.within(|| TcpListener::bind((to.address, 0)))??;
    let goal = listener.local_addr()?;
    let mut sender =
        from.netns.within(|| TcpStream::connect_timeout(&goal, PATIENCE))?.context("cannot connect")?;
    let (mut receiver, _) = listener.accept()?;
    sender.set_write_timeout(Some(PATIENCE))?;
    receiver.set_read_timeout(Some(PATIENCE))?;
    let (sent, received, enough) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| -> anyhow::Result<()> {
            let piece = vec![0x6e; PIECE];
            while !enough.load(Ordering::Relaxed) {
                sent.fetch_add(sender.write(&piece).context("cannot send")? as u64, Ordering::Relaxed);
            }
            Ok(sender.shutdown(std::net::Shutdown::Write)?)
        });
        let reading = scope.spawn(|| -> anyhow::Result<Duration> {
            let mut piece = vec![0; PIECE];
            loop {
                match receiver.read(&mut piece).context("nothing comes")? {
                    0 => return Ok(begin.elapsed()),
                    len => received.fetch_add(len as u64, Ordering::Relaxed),
                };
            }
        });
        let mut meter = Meter::new(begin);
        while begin.elapsed() < time && !stop.is_wanted() && !writing.is_finished() {
            sleep(TELL.min(time.saturating_sub(begin.elapsed())));
            meter.tell(received.load(Ordering::Relaxed), tell);
        }
        enough.store(true, Ordering::Relaxed);
        let broken = |_| anyhow::anyhow!("a client panicked");
        writing.join().map_err(broken)??;
        let time = reading.join().map_err(broken)??;
        let (sent, received) = (sent.load(Ordering::Relaxed), received.load(Ordering::Relaxed));
        Ok(Moved { sent, received, time })
    })
}

/// Sends the shortest frames for so long. `tell` hears of frames a second.
pub(super) fn frames(
    from: &Host,
    to: &Host,
    time: Duration,
    stop: &Stop,
    tell: &mut dyn FnMut(f64),
) -> anyhow::Result<Moved> {
    let (mut out, mut back) = (open(from, 2, 512)?, open(to, 2048, 2)?);
    let (source, target) = (from.mac()?, to.mac()?);
    // The switch knows where the target is, as in any conversation.
    let hello = frame_spec::parse(&format!("eth src={target} dst={source} len={LEAST}"))?;
    back.send_large(Offload::NONE, std::iter::once(&hello[..]))?;
    sleep(Duration::from_millis(50));
    let frame = frame_spec::parse(&format!("eth src={source} dst={target} len={LEAST}"))?;
    let (begin, mut progress) = (Instant::now(), Instant::now());
    let (mut sent, mut received, mut lost) = (0, 0, 0);
    let mut meter = Meter::new(begin);
    let mut end = begin;
    loop {
        // What was given up as lost may come after all.
        let under_way = u64::saturating_sub(sent, received + lost);
        let over = begin.elapsed() >= time || stop.is_wanted();
        if over && under_way == 0 {
            break;
        }
        if !over && under_way + BURST <= WINDOW {
            sent += send(&mut out, &frame);
        }
        let came = drain(&mut back, source);
        received += came;
        if came > 0 {
            progress = Instant::now();
            end = progress;
            meter.tell(received, tell);
        } else if progress.elapsed() > LOST_AFTER {
            lost = u64::saturating_sub(sent, received);
            progress = Instant::now();
        } else {
            yield_now();
        }
    }
    Ok(Moved { sent, received, time: end - begin })
}

fn open(host: &Host, receive: usize, send: usize) -> anyhow::Result<PacketSocket> {
    let open = || -> anyhow::Result<PacketSocket> {
        Ok(PacketSocket::open(Links::open()?.get(DEVICE)?.index, receive, send)?)
    };
    host.netns.within(open)?.with_context(|| format!("cannot open a packet socket at {}", host.name))
}

/// Sends a burst and gives how many frames the kernel took.
fn send(socket: &mut PacketSocket, frame: &[u8]) -> u64 {
    let queued =
        (0..BURST).take_while(|_| socket.queue(Offload::NONE, frame.len(), std::iter::once(frame))).count();
    queued.saturating_sub(socket.flush()) as u64
}

/// Receives all that is there and counts the frames of this source.
fn drain(socket: &mut PacketSocket, source: Mac) -> u64 {
    let mut count = 0;
    while let Some(frame) = socket.receive() {
        let ours = frame.data.get(6..12) == Some(&source.0) && frame.data.get(12..14) == Some(&EXPERIMENTAL);
        count += u64::from(ours);
    }
    count
}

/// Hears everything that reaches a host's device.
pub(super) struct Sniffer(PacketSocket);

impl Sniffer {
    /// Listens from now on.
    pub(super) fn open(host: &Host) -> anyhow::Result<Sniffer> {
        open(host, 512, 2).map(Sniffer)
    }

    /// How many frames from this MAC have come since the last time.
    pub(super) fn heard(&mut self, source: Mac) -> u64 {
        let mut count = 0;
        while let Some(frame) = self.0.receive() {
            count += u64::from(frame.data.get(6..12) == Some(&source.0));
        }
        count
    }
}

/// Turns counts into rates, not too often.
struct Meter {
    at: Instant,
    count: u64,
}

impl Meter {
    fn new(at: Instant) -> Meter {
        Meter { at, count: 0 }
    }

    #[allow(clippy::cast_precision_loss)] // a rate for people
    fn tell(&mut self, count: u64, tell: &mut dyn FnMut(f64)) {
        let time = self.at.elapsed();
        if time >= TELL / 2 {
            tell((count - self.count) as f64 / time.as_secs_f64());
            *self = Meter { at: Instant::now(), count };
        }
    }
}
