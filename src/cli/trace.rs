//! `nuswitch trace`.

use std::process::ExitCode;

use clap::Args;

use super::{Control, frame_spec, print};
use crate::control::hex;
use crate::control::view::{self, TraceRequest};
use crate::types::Mac;

const EXAMPLES: &str = "\
FRAME is one of:
  layers with fields, from the outside in:
      eth [src=MAC] [dst=MAC] [vlan=ID [pcp=N]]... [type=0xNNNN]
      arp who-has IP tell IP   |  arp reply IP is-at MAC [to=IP]
      ip src=IP dst=IP [ttl=N] [proto=N]      (IPv4 or IPv6)
      udp [sport=N] [dport=N]  |  tcp [sport=N] [dport=N] [flags=SAFRPU] [seq=N] [ack=N]
      icmp [echo|reply] [id=N] [seq=N]
      vxlan vni=N                             (behind udp; then the inner frame's layers)
      and len=N on the last layer: bytes of payload
      src= of the first eth is the port's MAC if it is left out
  hexadecimal, from destination address to payload, without FCS
  FILE#N: the N-th frame of a pcap or pcapng file

Examples:
  nuswitch trace --port web1 arp who-has 10.0.0.2 tell 10.0.0.1
  nuswitch trace --port core eth src=52:54:00:00:00:01 dst=52:54:00:00:00:02 vlan=120 \\
      ip src=10.0.0.1 dst=10.0.0.2 udp sport=1 dport=53 len=100
  nuswitch trace --port overlay eth dst=52:54:00:00:00:10 ip src=192.0.2.11 dst=192.0.2.10 \\
      udp vxlan vni=1000 eth src=52:54:00:00:00:01 dst=52:54:00:00:00:02
      (the MAC and address of the local VTEP are in `nuswitch show tunnels`)
  nuswitch trace --port uplink eth dst=02:00:00:00:00:ee ip src=203.0.113.1 dst=203.0.113.100 \\
      udp sport=53 dport=40000
      (an answer to a SNAT address; the router's MAC is in `nuswitch show routers`)
  nuswitch trace --port web1 'dump.pcap#7'";

/// Tell what the running switch would do with a frame.
///
/// Runs the very code that switches frames, on a copy of what the switch knows now, connections that the frame may be of and
/// neighbours that it may go to among them: nothing is sent, nothing is learned, no counter moves.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Trace {
    /// Port that the frame comes in on
    #[arg(long, short, value_name = "PORT")]
    port: String,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    /// The frame, see below
    #[arg(required = true, value_name = "FRAME", trailing_var_arg = true)]
    frame: Vec<String>,
}

impl Trace {
    pub(super) fn execute(self, control: &Control) -> anyhow::Result<ExitCode> {
        let (client, mut text) = (control.client()?, self.frame.join(" "));
        // Another source would be the first thing that a port with port security refuses.
        let ports: Vec<view::Port> = client.get_key("/v2.0/ports", "ports")?;
        let port = ports.iter().find(|port| port.name == self.port || port.id.to_string() == self.port);
        if let Some(mac) = port.and_then(|port| port.mac_address) {
            text = frame_spec::with_source(&text, mac);
        }
        let frame = frame_spec::parse(&text)?;
        let request = TraceRequest { port: self.port, frame: hex::encode(&frame) };
        if self.json {
            let answer: serde_json::Value = client.post("/v1/trace", &request)?;
            print(format_args!("{answer:#}\n"))?;
        } else {
            let trace: view::Trace = client.post("/v1/trace", &request)?;
            print(render(&trace, &frame))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

pub(super) fn render(trace: &view::Trace, frame: &[u8]) -> String {
    let mut text = format!("received on {}: {}\n", trace.port, describe(frame));
    let width = trace.steps.iter().map(|step| step.stage.len()).max().unwrap_or(0);
    for step in &trace.steps {
        text.push_str(&format!("  {:<width$}  {}\n", step.stage, step.text));
    }
    text.push_str(&format!("{}\n", trace.verdict));
    for output in &trace.outputs {
        let frame = hex::decode(&output.frame).unwrap_or_default();
        text.push_str(&format!("  sent to {}: {}\n", output.port, describe(&frame)));
    }
    text
}

/// Addresses, tags, EtherType and length of a frame.
fn describe(frame: &[u8]) -> String {
    let (Some(&destination), Some(&source)) =
        (frame.first_chunk(), frame.get(6..).and_then(|rest| rest.first_chunk()))
    else {
        return format!("{} bytes, no Ethernet header", frame.len());
    };
    let mut text = format!("{} > {}", Mac(source), Mac(destination));
    let word =
        |at: usize| frame.get(at..).and_then(|rest| rest.first_chunk()).map(|word| u16::from_be_bytes(*word));
    let mut at = 12;
    while let (Some(0x8100 | 0x88a8), Some(tag)) = (word(at), word(at + 2)) {
        text.push_str(&format!(", VLAN {}", tag & 0x0fff));
        if tag >> 13 != 0 {
            text.push_str(&format!(" priority {}", tag >> 13));
        }
        at += 4;
    }
    let kind = match word(at) {
        Some(0x0800) => "IPv4".to_owned(),
        Some(0x0806) => "ARP".to_owned(),
        Some(0x86dd) => "IPv6".to_owned(),
        Some(length @ 0..0x600) => format!("802.3 length {length}"),
        Some(ethertype) => format!("EtherType {ethertype:#06x}"),
        None => "cut off".to_owned(),
    };
    format!("{text}, {kind}, {} bytes", frame.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::view::{TraceOutput, TraceStep};

    #[test]
    fn a_trace_reads_from_top_to_bottom() {
        let frame = frame_spec::parse("eth vlan=120 pcp=3 arp who-has 10.0.0.2 tell 10.0.0.1").unwrap();
        let untagged = frame_spec::parse("arp who-has 10.0.0.2 tell 10.0.0.1").unwrap();
        let step = |stage: &str, text: &str| TraceStep { stage: stage.into(), text: text.into() };
        let trace = view::Trace {
            port: "core".into(),
            verdict: "flooded".into(),
            steps: vec![step("ingress", "VLAN 120 is network storage"), step("bridge", "broadcast")],
            outputs: vec![TraceOutput { port: "web1".into(), frame: hex::encode(&untagged) }],
        };
        let expected = "\
received on core: 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff, VLAN 120 priority 3, ARP, 46 bytes
  ingress  VLAN 120 is network storage
  bridge   broadcast
flooded
  sent to web1: 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff, ARP, 42 bytes
";
        assert_eq!(render(&trace, &frame), expected);
        assert_eq!(describe(&[0; 13]), "00:00:00:00:00:00 > 00:00:00:00:00:00, cut off, 13 bytes");
        assert_eq!(describe(&[0; 5]), "5 bytes, no Ethernet header");
    }
}
