//! Sends UDP frames as fast as AF_XDP does: `xdp_generator IF --dst-mac … --flows N --macs M --size 64 --seconds S`.
//!
//! Flows differ in UDP source port and IPv4 source address, and use the source MACs in turn. The frames are made once,
//! each in a chunk of its own, and sent again and again. `--size` counts the FCS, as is the custom: 64 is 60 bytes in
//! memory. With `--routed` the flows are those of 1000 hosts behind a router, and may be without end. With `--vxlan` each is sent in a VXLAN packet over IPv4, which it makes 50 bytes longer, and whose UDP source port
//! is the flow's own. Prints the frames sent as JSON.
#![allow(missing_docs)]

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use clap::Parser;
use nuswitch::frame::{CHUNK, Pool, Region};
use nuswitch::sys::xdp::netdev::NetDevice;
use nuswitch::sys::xdp::program::MARKER;
use nuswitch::sys::xdp::ring::Descriptor;
use nuswitch::sys::xdp::socket::{Kick, Socket, SocketConfig};
use nuswitch::sys::xdp::umem::Umem;
use nuswitch::types::Mac;

const RING: u32 = 2048;
/// Descriptors sent at once: what one system call moves.
const BATCH: u32 = 32;
/// Hosts of `--routed`.
const HOSTS: u32 = 1000;
/// Chunks of frames that are made while they are sent: those under way, and as many to be made next.
const FRESH: u32 = 2 * RING;

#[derive(Parser)]
struct Arguments {
    interface: String,
    /// Flows, each with a UDP source port (and beyond 50 000, a source address) of its own. 0, with --routed: each frame begins
    /// a flow, and no flow has two.
    #[arg(long, default_value_t = 1)]
    flows: u32,
    /// Flows of 1000 hosts in 198.18.0.0/16 in turn, each to a destination of its own in 198.19.0.0/16. Each counts its source
    /// ports up, all from another one on.
    #[arg(long, conflicts_with = "vxlan")]
    routed: bool,
    /// The first packets of TCP connections instead of datagrams.
    #[arg(long, conflicts_with = "vxlan")]
    syn: bool,
    /// Source MACs, `--src-mac` and up.
    #[arg(long, default_value_t = 1)]
    macs: u32,
    #[arg(long, default_value_t = Mac([2, 0, 1, 0, 0, 0]))]
    src_mac: Mac,
    /// Destination MACs, `--dst-mac` and up.
    #[arg(long, default_value_t = 1)]
    dst_macs: u32,
    #[arg(long, default_value_t = Mac([2, 0, 2, 0, 0, 0]))]
    dst_mac: Mac,
    /// Length in bytes, FCS included.
    #[arg(long, default_value_t = 64)]
    size: u32,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Send one frame of each source MAC at 1000 a second, and end: for the switch to learn from.
    #[arg(long)]
    announce: bool,
    /// Most frames a second; 0: as many as go.
    #[arg(long, default_value_t = 0.0)]
    rate: f64,
    /// Send them in VXLAN packets of this network.
    #[arg(long, value_name = "VNI", value_parser = clap::value_parser!(u32).range(..1 << 24))]
    vxlan: Option<u32>,
    /// The VTEP that the packets come from.
    #[arg(long, default_value = "192.0.2.2")]
    outer_src: Ipv4Addr,
    /// The VTEP that the packets go to.
    #[arg(long, default_value = "192.0.2.1")]
    outer_dst: Ipv4Addr,
    #[arg(long, default_value_t = Mac([2, 0, 3, 0, 0, 2]))]
    outer_src_mac: Mac,
    #[arg(long, default_value_t = Mac([2, 0, 3, 0, 0, 1]))]
    outer_dst_mac: Mac,
}

fn mac_after(mac: Mac, n: u32) -> [u8; 6] {
    let [a, b, rest @ ..] = mac.0;
    let [c, d, e, f] = u32::from_be_bytes(rest).wrapping_add(n).to_be_bytes();
    [a, b, c, d, e, f]
}

fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.as_chunks::<2>().0.iter().map(|&pair| u32::from(u16::from_be_bytes(pair))).sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    !u16::try_from((sum >> 16) + (sum & 0xffff)).unwrap_or(0)
}

/// The header of an IPv4 packet with a UDP datagram of `payload` bytes (RFC 791, 3.1; RFC 768). The UDP checksum is left out,
/// as IPv4 allows.
fn udp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: usize) -> anyhow::Result<Vec<u8>> {
    let len = u16::try_from(8 + payload)?;
    let mut bytes = vec![0x45, 0];
    bytes.extend((20 + len).to_be_bytes());
    bytes.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    bytes.extend(from.0.octets());
    bytes.extend(to.0.octets());
    let sum = checksum(&bytes);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    for field in [from.1, to.1, len, 0] {
        bytes.extend(field.to_be_bytes());
    }
    Ok(bytes)
}

/// Source, source port and destination of a flow between two hosts of a network.
fn switched(flow: u32) -> anyhow::Result<(Ipv4Addr, u16, Ipv4Addr)> {
    let from = Ipv4Addr::new(198, 18, 0, u8::try_from(flow / 50_000)?);
    Ok((from, u16::try_from(10_000 + flow % 50_000)?, Ipv4Addr::new(198, 19, 0, 1)))
}

/// The same for a flow that a router sees. Flows that differ by less than 64 million differ in source or port.
fn routed(flow: u32) -> anyhow::Result<(Ipv4Addr, u16, Ipv4Addr)> {
    let host = flow % HOSTS;
    let port = 1024 + (flow / HOSTS + host * 61) % (65536 - 1024);
    let [.., high, low] = (256 + host).to_be_bytes();
    Ok((Ipv4Addr::new(198, 18, high, low), u16::try_from(port)?, Ipv4Addr::new(198, 19, high, low)))
}

/// One flow's frame.
fn frame(arguments: &Arguments, flow: u32) -> anyhow::Result<Vec<u8>> {
    let len = usize::try_from(arguments.size)?.saturating_sub(4).max(60);
    let mut bytes = Vec::with_capacity(50 + len);
    bytes.extend(mac_after(arguments.dst_mac, flow % arguments.dst_macs.max(1)));
    bytes.extend(mac_after(arguments.src_mac, flow % arguments.macs.max(1)));
    bytes.extend([8, 0]);
    let (from, port, to) = if arguments.routed { routed(flow)? } else { switched(flow)? };
    bytes.extend(udp((from, port), (to, 9), len - 42)?);
    bytes.extend(MARKER);
    bytes.resize(len, 0);
    if arguments.syn {
        be_syn(&mut bytes);
    }
    Ok(bytes)
}

/// Makes a SYN of a frame with a datagram, without a TCP checksum (RFC 9293, 3.1): who looks at connections, not who has them, is to
/// take it for one.
fn be_syn(bytes: &mut [u8]) {
    bytes[23] = 6;
    bytes[24..26].fill(0);
    let sum = checksum(&bytes[14..34]);
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    bytes[38..].fill(0);
    bytes[46..50].copy_from_slice(&[5 << 4, 2, 0xff, 0xff]);
}

/// The packet that carries a flow's frame (RFC 7348, section 5).
fn packet(arguments: &Arguments, vni: u32, flow: u32) -> anyhow::Result<Vec<u8>> {
    let inner = frame(arguments, flow)?;
    let mut bytes = [arguments.outer_dst_mac.0, arguments.outer_src_mac.0].concat();
    bytes.extend([8, 0]);
    let port = u16::try_from(49152 + flow % 16384)?;
    bytes.extend(udp((arguments.outer_src, port), (arguments.outer_dst, 4789), 8 + inner.len())?);
    bytes.extend([8, 0, 0, 0]);
    bytes.extend((vni << 8).to_be_bytes());
    bytes.extend(inner);
    Ok(bytes)
}

/// What is sent, frame by frame.
enum Frames {
    /// One frame a chunk, posted for good: each is sent again and again and never written again.
    Again { ready: Vec<Descriptor>, at: usize, _pool: Pool },
    /// The frame of the next flow each time, in a chunk that came back.
    Fresh { bytes: Vec<u8>, flow: u32, pool: Pool },
}

impl Frames {
    fn again(arguments: &Arguments, mut pool: Pool, chunks: u32) -> anyhow::Result<Frames> {
        let flows = arguments.flows.max(1);
        let mut ready = Vec::with_capacity(chunks as usize);
        for n in 0..chunks {
            let bytes = match arguments.vxlan {
                Some(vni) => packet(arguments, vni, n % flows),
                None => frame(arguments, n % flows),
            };
            let made = pool.frame_from(&bytes?);
            let made = made.ok_or_else(|| anyhow::anyhow!("no chunk for frame {n}"))?;
            pool.post(made, 0, |addr, len, _| ready.push(Descriptor { addr, len, options: 0 }));
        }
        debug_assert!(ready.iter().all(|d| usize::try_from(d.addr).is_ok_and(|a| a % CHUNK > 0)));
        Ok(Frames::Again { ready, at: 0, _pool: pool })
    }

    fn fresh(arguments: &Arguments, pool: Pool) -> anyhow::Result<Frames> {
        Ok(Frames::Fresh { bytes: frame(arguments, 0)?, flow: 0, pool })
    }

    fn came_back(&mut self, address: u64) {
        if let Frames::Fresh { pool, .. } = self {
            pool.complete(address, 0);
        }
    }

    /// None: all chunks are under way.
    fn next(&mut self) -> anyhow::Result<Option<Descriptor>> {
        match self {
            Frames::Again { ready, at, .. } => {
                let descriptor = ready[*at];
                *at = (*at + 1) % ready.len();
                Ok(Some(descriptor))
            }
            Frames::Fresh { bytes, flow, pool } => {
                let (from, port, to) = routed(*flow)?;
                bytes[26..30].copy_from_slice(&from.octets());
                bytes[30..34].copy_from_slice(&to.octets());
                bytes[34..36].copy_from_slice(&port.to_be_bytes());
                bytes[24..26].fill(0);
                let sum = checksum(&bytes[14..34]);
                bytes[24..26].copy_from_slice(&sum.to_be_bytes());
                let Some(frame) = pool.frame_from(bytes) else { return Ok(None) };
                *flow = flow.wrapping_add(1);
                let mut descriptor = None;
                pool.post(frame, 0, |addr, len, _| descriptor = Some(Descriptor { addr, len, options: 0 }));
                Ok(descriptor)
            }
        }
    }
}

fn main() -> anyhow::Result<()> {
    let mut arguments = Arguments::parse();
    if arguments.announce {
        arguments.flows = arguments.macs;
        arguments.rate = 1000.0;
        arguments.seconds = f64::from(arguments.macs) / 1000.0 + 0.01;
    }
    let fresh = arguments.flows == 0 && arguments.routed;
    let flows = arguments.flows.max(1);
    let chunks = if fresh { FRESH } else { flows.max(64) };
    anyhow::ensure!(arguments.size <= 1742 && flows <= 1_000_000, "--size is at most 1742, --flows 1000000");
    let region = Region::new(chunks, 0)?;
    let umem = Umem::new(region.clone());
    let ifindex = NetDevice::open(&arguments.interface)?.index();
    let (zero_copy, multi_buffer, busy_poll) = (true, false, false);
    let config = SocketConfig { ifindex, queue: 0, ring: RING, zero_copy, multi_buffer, busy_poll };
    let mut socket = Socket::open(&umem, &config)?;
    let mut frames = if fresh {
        Frames::fresh(&arguments, Pool::new(region))?
    } else {
        Frames::again(&arguments, Pool::new(region), chunks)?
    };

    let start = Instant::now();
    let until = start + Duration::from_secs_f64(arguments.seconds);
    let (mut sent, mut refused) = (0u64, 0u64);
    while Instant::now() < until {
        // Whole frames, rounded down; a rate is far below 2⁵³.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let due = match arguments.rate {
            rate if rate > 0.0 => ((start.elapsed().as_secs_f64() * rate) as u64).saturating_sub(sent),
            _ => u64::MAX,
        };
        if due == 0 {
            std::thread::sleep(Duration::from_micros(50));
            continue;
        }
        socket.completion.available(RING);
        while let Some(address) = socket.completion.pop() {
            frames.came_back(address);
        }
        socket.completion.release();
        let count = u64::from(socket.tx.room(BATCH)).min(u64::from(BATCH)).min(due);
        for _ in 0..count {
            let Some(descriptor) = frames.next()? else { break };
            socket.tx.push(descriptor);
            sent += 1;
        }
        socket.tx.submit();
        match socket.kick_tx() {
            Kick::Full | Kick::Refused => refused += 1,
            Kick::Gone => anyhow::bail!("{} is gone", arguments.interface),
            Kick::Done | Kick::Again => {}
        }
    }
    let sent = sent - u64::from(socket.tx.waiting());
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{}",
        serde_json::json!({ "sent": sent, "refused": refused, "seconds": seconds, "pps": sent as f64 / seconds })
    );
    Ok(())
}
