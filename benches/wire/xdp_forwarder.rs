//! The bare AF_XDP forwarder: moves descriptors between two interfaces, and does nothing else. It is the limit that the
//! switch is measured against, so it is as lean as the rings allow: no pool, no frame, no look at the data.
//!
//! `xdp_forwarder IF_A IF_B [--port] [--seconds S]`: with `--port` the same loop goes through `XdpPort` and `Pool`, to
//! see what those cost. Ends on SIGTERM or after S seconds and prints what it moved as JSON.
#![allow(missing_docs)]

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use nuswitch::frame::{BURST, Burst, CHUNK, Frame, Pool, Region};
use nuswitch::ports::PortIo;
use nuswitch::ports::xdp::{Umem, XdpConfig, XdpPort};
use nuswitch::stats::PortCounters;
use nuswitch::sys::xdp::bpf::{Link, Map, Program};
use nuswitch::sys::xdp::netdev::{NetDevice, Promiscuous};
use nuswitch::sys::xdp::program::{Verdict, redirect};
use nuswitch::sys::xdp::ring::Descriptor;
use nuswitch::sys::xdp::socket::{Socket, SocketConfig};

const RING: u32 = 2048;
const CHUNKS: u32 = 16384;
/// Descriptors moved at once: what one system call sends.
const BATCH: u32 = 32;

#[derive(Parser)]
struct Arguments {
    a: String,
    b: String,
    /// Go through `XdpPort` instead of the bare rings.
    #[arg(long)]
    port: bool,
    /// Chunks that each device holds to receive into.
    #[arg(long, default_value_t = RING)]
    rx_chunks: u32,
    #[arg(long, default_value_t = 3600.0)]
    seconds: f64,
}

struct Device {
    _link: Link,
    sockets: Vec<Socket>,
    _map: Map,
    _promiscuous: Promiscuous,
    moved: u64,
}

fn open(name: &str, umem: &Arc<Umem>) -> anyhow::Result<Device> {
    let device = NetDevice::open(name)?;
    let queues = device.queues().map_or(1, |queues| queues.rx);
    let map = Map::xsk(queues)?;
    let program = Program::load(&redirect(&map, None, Verdict::Pass))?;
    let link = program.attach(device.index(), true).or_else(|_| program.attach(device.index(), false))?;
    let mut sockets = Vec::new();
    for queue in 0..queues {
        let ifindex = device.index();
        let (zero_copy, multi_buffer, busy_poll) = (true, false, false);
        let config = SocketConfig { ifindex, queue, ring: RING, zero_copy, multi_buffer, busy_poll };
        let socket = Socket::open(umem, &config)?;
        map.set_socket(queue, socket.as_fd())?;
        sockets.push(socket);
    }
    Ok(Device { _link: link, sockets, _map: map, _promiscuous: device.promiscuous()?, moved: 0 })
}

/// Cycles that full bursts took, as a histogram: its median is hardly disturbed by whatever else the machine does.
struct Cycles(Vec<u64>);

impl Cycles {
    fn new() -> Cycles {
        Cycles(vec![0; 1 << 16])
    }

    fn add(&mut self, start: u64) {
        let cycles = nuswitch::sys::cycles().wrapping_sub(start) / u64::from(BATCH);
        let last = self.0.len() - 1;
        self.0[usize::try_from(cycles).map_or(last, |n| n.min(last))] += 1;
    }

    /// Cycles a frame that half of the full bursts stay below; 0 when there was none.
    fn median(&self) -> usize {
        let half = self.0.iter().sum::<u64>() / 2;
        let mut seen = 0;
        self.0
            .iter()
            .position(|n| {
                seen += n;
                seen > half
            })
            .unwrap_or(0)
    }
}

/// What arrived at `from` leaves by `to`; what `to` has sent is there for `from` to receive into.
fn forward(from: &mut Device, to: &mut Device, free: &mut Vec<u64>, cycles: &mut Cycles) {
    let start = nuswitch::sys::cycles();
    let Some(out) = to.sockets.first_mut() else { return };
    for socket in &mut from.sockets {
        let count = socket.rx.available(BATCH).min(BATCH);
        if count == 0 {
            continue;
        }
        out.completion.available(RING);
        while let Some(address) = out.completion.pop() {
            free.push(address & !(CHUNK as u64 - 1));
        }
        out.completion.release();
        let sent = out.tx.room(count).min(count);
        for n in 0..count {
            let Some(Descriptor { addr, len, .. }) = socket.rx.pop() else { break };
            if n < sent {
                out.tx.push(Descriptor { addr, len, options: 0 });
            } else {
                free.push(addr & !(CHUNK as u64 - 1));
            }
        }
        out.tx.submit();
        socket.rx.release();
        if out.tx.needs_wakeup() {
            out.kick_tx();
        }
        from.moved += u64::from(sent);
        for _ in 0..socket.fill.room(count).min(count) {
            let Some(address) = free.pop() else { break };
            socket.fill.push(address);
        }
        socket.fill.submit();
        if count == BATCH {
            cycles.add(start);
        }
    }
}

fn bare(arguments: &Arguments, until: Instant) -> anyhow::Result<([u64; 2], Cycles)> {
    let umem = Umem::new(Region::new(CHUNKS, 0)?);
    let mut a = open(&arguments.a, &umem).with_context(|| arguments.a.clone())?;
    let mut b = open(&arguments.b, &umem).with_context(|| arguments.b.clone())?;
    let mut cycles = Cycles::new();
    let mut free: Vec<u64> = (0..u64::from(CHUNKS)).rev().map(|n| n * CHUNK as u64).collect();
    for socket in a.sockets.iter_mut().chain(&mut b.sockets) {
        for _ in 0..socket.fill.room(RING).min(arguments.rx_chunks) {
            let Some(address) = free.pop() else { break };
            socket.fill.push(address);
        }
        socket.fill.submit();
    }
    while !is_over(until) {
        for _ in 0..256 {
            forward(&mut a, &mut b, &mut free, &mut cycles);
            forward(&mut b, &mut a, &mut free, &mut cycles);
        }
    }
    Ok(([a.moved, b.moved], cycles))
}

fn through_ports(arguments: &Arguments, until: Instant) -> anyhow::Result<([u64; 2], Cycles)> {
    let region = Region::new(CHUNKS, 0)?;
    let umem = Umem::new(region.clone());
    let open = |name: &String, slot| {
        let config =
            XdpConfig { device: name.clone(), rx_chunks: Some(arguments.rx_chunks), ..XdpConfig::default() };
        XdpPort::open(&config, &umem, slot, Arc::new(PortCounters::default())).map(Box::new)
    };
    let mut ports = [open(&arguments.a, 0)?, open(&arguments.b, 1)?];
    for port in &ports {
        eprintln!("{:?}", port.details());
    }
    let mut pool = Pool::new(region);
    let (mut burst, mut out) = (Burst::new(), Vec::<Frame>::with_capacity(BURST));
    let (mut moved, mut cycles) = ([0; 2], Cycles::new());
    while !is_over(until) {
        for _ in 0..256 {
            for from in 0..2 {
                let start = nuswitch::sys::cycles();
                ports[from].turn(&mut pool);
                ports[from].rx(&mut pool, &mut burst);
                if burst.is_empty() {
                    continue;
                }
                let full = burst.is_full();
                moved[from] += burst.len() as u64;
                out.extend(burst.drain(..));
                ports[1 - from].tx(&mut pool, &mut out);
                out.clear();
                if full {
                    cycles.add(start);
                }
            }
        }
    }
    for port in ports {
        port.close(&mut pool);
    }
    Ok((moved, cycles))
}

static OVER: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

fn is_over(until: Instant) -> bool {
    OVER.load(std::sync::atomic::Ordering::Relaxed) || Instant::now() >= until
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let until = Instant::now() + Duration::from_secs_f64(arguments.seconds);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            if let Ok(mut terminate) = signal(SignalKind::terminate()) {
                terminate.recv().await;
                OVER.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        });
    });
    let ([a, b], cycles) =
        if arguments.port { through_ports(&arguments, until)? } else { bare(&arguments, until)? };
    println!("{}", serde_json::json!({ "a_to_b": a, "b_to_a": b, "cycles_per_frame": cycles.median() }));
    Ok(())
}
