//! Counts the generator's frames where they arrive and drops them: `xdp_sink IF --seconds S [--interval I] [--vxlan VNI | --from PREFIX]`.
//!
//! A native XDP program counts (per CPU) only frames with the generator's marker, so nothing else is taken for them; with
//! `--vxlan` only those that arrive in a tunnel of that network, with `--from` only those whose IPv4 source is in that /24.
//! Prints a line of JSON for each interval, and one for the whole.
#![allow(missing_docs)]

use std::io::Write;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use nuswitch::sys::xdp::bpf::{Map, Program};
use nuswitch::sys::xdp::netdev::NetDevice;
use nuswitch::sys::xdp::program::{Marked, count_marked};
use nuswitch::types::Vni;

#[derive(Parser)]
struct Arguments {
    interface: String,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    #[arg(long, default_value_t = 1.0)]
    interval: f64,
    /// Count frames in VXLAN packets of this network, and no others.
    #[arg(long, value_name = "VNI")]
    vxlan: Option<u32>,
    /// Count frames from this address and the other 255 of its /24, and no others.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "vxlan")]
    from: Option<Ipv4Addr>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let device = NetDevice::open(&arguments.interface)?;
    let counters = Map::counters(1)?;
    let wanted = match (arguments.vxlan, arguments.from.map(|from| from.octets())) {
        (Some(vni), _) => Marked::InTunnel(Vni::new(vni).context("a VNI has 24 bits")?),
        (_, Some([a, b, c, _])) => Marked::From([a, b, c]),
        _ => Marked::Any,
    };
    let program = Program::load(&count_marked(&counters, wanted))?;
    let native = program.attach(device.index(), true);
    let mode = if native.is_ok() { "native" } else { "generic" };
    let _link = native.or_else(|_| program.attach(device.index(), false))?;
    let promiscuous = device.promiscuous()?;

    let start = Instant::now();
    let (mut last, mut before) = (start, 0);
    let out = &mut std::io::stdout();
    while start.elapsed().as_secs_f64() < arguments.seconds {
        let next = last + Duration::from_secs_f64(arguments.interval);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let (now, count) = (Instant::now(), counters.counter(0)?);
        let seconds = (now - last).as_secs_f64();
        let received = count - before;
        writeln!(
            out,
            "{}",
            serde_json::json!({ "received": received, "seconds": seconds, "pps": received as f64 / seconds })
        )?;
        out.flush()?;
        (last, before) = (now, count);
    }
    writeln!(
        out,
        "{}",
        serde_json::json!({ "mode": mode, "total": before, "seconds": start.elapsed().as_secs_f64() })
    )?;
    drop(promiscuous);
    Ok(())
}
