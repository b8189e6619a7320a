//! `nuswitch show`.

use std::net::IpAddr;
use std::process::ExitCode;

use clap::{Args, CommandFactory, ValueEnum};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::table::Align::{Left, Right};
use super::table::{Table, count, duration, or_dash};
use super::{Control, print};
use crate::control::client::{self, Client, encode};
use crate::control::view::{
    self, Drop, FdbEntry, FdbKind, Flooding, Network, PeerKind, Port, Role, State, Status, Tunnels,
    WorkerState,
};

const EXAMPLES: &str = "\
Examples:
  nuswitch show status                what runs, and how busy its workers are
  nuswitch show ports                 every port with its state and traffic
  nuswitch show ports web1 -o wide    one port, with its device and driver
  nuswitch show fdb blue              which MACs of network blue are where
  nuswitch show drops web1            what port web1 threw away, and why
  nuswitch show tunnels               the local VTEP, its peers, and what passes
  nuswitch show ports -o json | jq '.[].counters.rx_frames'

Tables round numbers (1.2k is about 1200); JSON has them exactly.";

/// Show what the running switch is and does.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Show {
    /// What to show
    #[arg(value_enum)]
    what: What,
    /// Only this network (networks, fdb) or port (ports, drops; a peer's address too), by name
    name: Option<String>,
    /// How
    #[arg(long, short, value_enum, default_value = "table", value_name = "FORMAT")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// The process and its workers
    Status,
    /// L2 domains
    Networks,
    /// Attachments and physical networks, with counters
    Ports,
    /// The MAC table
    Fdb,
    /// Dropped frames by reason
    Drops,
    /// The local VTEP, its peers, and the networks in tunnels
    Tunnels,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Aligned columns
    Table,
    /// More columns
    Wide,
    /// All of it, for programs
    Json,
}

/// Where the tunnels are asked for.
const TUNNELS: &str = "/v1/tunnels";

impl Show {
    pub(super) fn execute(self, control: &Control) -> anyhow::Result<ExitCode> {
        if self.is_one_thing() && self.name.is_some() {
            let what = if self.what == What::Status { "status" } else { "tunnels" };
            let usage = format!("`show {what}` takes no name");
            super::Cli::command().error(clap::error::ErrorKind::TooManyValues, usage).exit();
        }
        let client = control.client()?;
        let wide = self.output == Output::Wide;
        let text = match self.what {
            _ if self.output == Output::Json => format!("{:#}\n", self.json(&client)?),
            What::Status => status(&client.get::<Status>("/v1/status")?),
            What::Networks => networks(&self.list(&client)?, wide),
            What::Ports => ports(&self.list(&client)?, wide),
            What::Fdb => fdb(&self.list(&client)?),
            What::Drops => drops(&self.list(&client)?),
            What::Tunnels => tunnels(&client.get(TUNNELS)?, wide),
        };
        print(text)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Not a list.
    fn is_one_thing(&self) -> bool {
        matches!(self.what, What::Status | What::Tunnels)
    }

    fn json(&self, client: &Client) -> anyhow::Result<Value> {
        let mut objects: Vec<Value> = self.list(client)?;
        Ok(if self.is_one_thing() { objects.remove(0) } else { Value::Array(objects) })
    }

    /// The objects asked for. A network or port that is named and not there is an error, not an empty table.
    fn list<T: DeserializeOwned>(&self, client: &Client) -> anyhow::Result<Vec<T>> {
        let name = self.name.as_deref();
        Ok(match self.what {
            What::Status => vec![client.get("/v1/status")?],
            What::Networks => named(client, "network", name)?,
            What::Ports => named(client, "port", name)?,
            What::Fdb => of(client, "fdb", "network", name)?,
            What::Drops => of(client, "drops", "port", name)?,
            What::Tunnels => vec![client.get(TUNNELS)?],
        })
    }
}

/// All networks or ports, or the one of this name.
fn named<T: DeserializeOwned>(
    client: &Client,
    kind: &str,
    name: Option<&str>,
) -> Result<Vec<T>, client::Error> {
    match name {
        None => client.get_key(&format!("/v2.0/{kind}s"), &format!("{kind}s")),
        Some(name) => Ok(vec![client.get_key(&format!("/v2.0/{kind}s/{}", encode(name)), kind)?]),
    }
}

/// All of a list, or what belongs to the network or port of this name.
fn of<T: DeserializeOwned>(
    client: &Client,
    list: &str,
    kind: &str,
    name: Option<&str>,
) -> Result<Vec<T>, client::Error> {
    let Some(name) = name else { return client.get_key(&format!("/v1/{list}"), list) };
    let name = match (kind, peer(client, name)?) {
        ("port", Some(peer)) => peer,
        _ => {
            let owner: Value =
                client.get_key(&format!("/v2.0/{kind}s/{}?fields=name", encode(name)), kind)?;
            owner.get("name").and_then(Value::as_str).unwrap_or(name).to_owned()
        }
    };
    client.get_key(&format!("/v1/{list}?{kind}={}", encode(&name)), list)
}

/// The name of the peer with this address, however it is written: drops count at peers too.
fn peer(client: &Client, address: &str) -> Result<Option<String>, client::Error> {
    let Ok(address) = address.parse::<IpAddr>() else { return Ok(None) };
    let tunnels: Tunnels = client.get(TUNNELS)?;
    Ok(tunnels.peers.into_iter().find(|peer| peer.address == Some(address)).map(|peer| peer.name))
}

fn status(status: &Status) -> String {
    let mut text = format!(
        "nuswitch {}, pid {}, up {}\nconfiguration {}, epoch {}\n\n",
        status.version,
        status.pid,
        duration(status.uptime_seconds),
        status.config,
        status.epoch
    );
    let mut table = Table::new(&[
        ("worker", Right),
        ("cpu", Right),
        ("state", Left),
        ("busy", Right),
        ("cycles/frame", Right),
        ("ports", Right),
        ("rx", Right),
        ("turns", Right),
        ("handoff drops", Right),
        ("free buffers", Right),
    ]);
    for worker in &status.workers {
        let state = match worker.state {
            WorkerState::Polling => "polling",
            WorkerState::Sleeping => "sleeping",
        };
        table.row([
            worker.index.to_string(),
            or_dash(worker.cpu),
            state.to_owned(),
            or_dash(worker.busy_fraction.map(|share| format!("{:.0}%", share * 100.0))),
            or_dash(worker.cycles_per_frame.map(|cycles| format!("{cycles:.0}"))),
            worker.ports.len().to_string(),
            count(worker.rx_frames),
            count(worker.turns),
            count(worker.handoff_drops),
            format!("{}/{}", worker.free_buffers, worker.total_buffers),
        ]);
    }
    text.push_str(&table.to_string());
    text
}

fn state(state: State) -> String {
    match state {
        State::Active => "ACTIVE".to_owned(),
        State::Down => "DOWN".to_owned(),
    }
}

fn networks(networks: &[Network], wide: bool) -> String {
    let mut columns = vec![
        ("name", Left),
        ("type", Left),
        ("physical network", Left),
        ("segment", Right),
        ("mtu", Right),
        ("macs", Right),
        ("limit", Right),
        ("status", Left),
    ];
    columns.extend(wide.then_some(("id", Left)));
    let mut table = Table::new(&columns);
    for network in networks {
        table.row([
            network.name.clone(),
            network.network_type.clone(),
            or_dash(network.physical_network.as_ref()),
            or_dash(network.segmentation_id),
            network.mtu.to_string(),
            network.macs.to_string(),
            network.mac_limit.to_string(),
            state(network.status),
            network.id.to_string(),
        ]);
    }
    table.to_string()
}

/// What a port is connected to: its network, `storage+120,130` for a trunk, or the physical network itself.
fn attachment(port: &Port) -> String {
    match port.role {
        Role::PhysicalNetwork => return "(physical network)".to_owned(),
        Role::Overlay => return "(tunnels)".to_owned(),
        Role::Port => {}
    }
    let Some(view::Trunk { physical_network, native, allowed }) = &port.trunk else {
        return or_dash(port.network.as_ref());
    };
    let allowed = match allowed {
        None => "all".to_owned(),
        Some(allowed) => ranges(allowed),
    };
    let native = native.as_ref().map(|native| format!(", native {native}")).unwrap_or_default();
    format!("trunk of {physical_network}: {allowed}{native}")
}

/// Ascending numbers as `120,130-139`.
fn ranges(numbers: &[u16]) -> String {
    let mut parts: Vec<(u16, u16)> = Vec::new();
    for &number in numbers {
        match parts.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            _ => parts.push((number, number)),
        }
    }
    let part = |&(first, last): &(u16, u16)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    parts.iter().map(part).collect::<Vec<_>>().join(",")
}

fn ports(ports: &[Port], wide: bool) -> String {
    let mut columns = vec![
        ("name", Left),
        ("network", Left),
        ("device", Left),
        ("driver", Left),
        ("rx", Right),
        ("rx bytes", Right),
        ("tx", Right),
        ("tx bytes", Right),
        ("dropped", Right),
        ("status", Left),
    ];
    if wide {
        columns.extend([("worker", Right), ("mtu", Right), ("mac", Left), ("notes", Left), ("id", Left)]);
    }
    let mut table = Table::new(&columns);
    for port in ports {
        let counters = &port.counters;
        let mut status = state(port.status);
        if let Some(reason) = &port.status_reason {
            status.push_str(&format!(": {reason}"));
        }
        table.row([
            port.name.clone(),
            attachment(port),
            port.interface.device.clone(),
            or_dash(port.interface.driver.as_ref()),
            count(counters.rx_frames),
            count(counters.rx_bytes),
            count(counters.tx_frames),
            count(counters.tx_bytes),
            count(counters.dropped()),
            status,
            or_dash(port.worker),
            port.mtu.to_string(),
            or_dash(port.mac_address),
            port.interface.notes.join(", "),
            port.id.to_string(),
        ]);
    }
    table.to_string()
}

fn fdb(entries: &[FdbEntry]) -> String {
    let mut table = Table::new(&[
        ("network", Left),
        ("vlan", Right),
        ("mac", Left),
        ("port", Left),
        ("kind", Left),
        ("age", Right),
    ]);
    for entry in entries {
        let kind = match entry.kind {
            FdbKind::Learned => "learned",
            FdbKind::Static => "static",
        };
        table.row([
            entry.network.clone(),
            or_dash(entry.vlan),
            entry.mac.to_string(),
            entry.port.clone(),
            kind.to_owned(),
            or_dash(entry.age_seconds.map(duration)),
        ]);
    }
    table.to_string()
}

fn drops(drops: &[Drop]) -> String {
    let mut table = Table::new(&[("port", Left), ("frames", Right), ("reason", Left), ("meaning", Left)]);
    for drop in drops {
        table.row([drop.port.clone(), count(drop.count), drop.reason.clone(), drop.meaning.clone()]);
    }
    table.to_string()
}

fn tunnels(tunnels: &Tunnels, wide: bool) -> String {
    let Some(vtep) = &tunnels.vtep else {
        return "no tunnels: the configuration has no [overlay]\n".to_owned();
    };
    let mut local = Table::new(&[
        ("local vtep", Left),
        ("device", Left),
        ("driver", Left),
        ("mac", Left),
        ("mtu", Right),
        ("udp port", Right),
        ("rx", Right),
        ("tx", Right),
        ("dropped", Right),
        ("status", Left),
    ]);
    let reason = vtep.status_reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    local.row([
        format!("{}/{}", vtep.address, vtep.prefix_len),
        vtep.interface.device.clone(),
        or_dash(vtep.interface.driver.as_ref()),
        or_dash(vtep.mac_address),
        vtep.mtu.to_string(),
        vtep.udp_port.to_string(),
        count(vtep.counters.rx_frames),
        count(vtep.counters.tx_frames),
        count(vtep.counters.dropped()),
        format!("{}{reason}", state(vtep.status)),
    ]);
    let mut text = local.to_string();
    if wide && let Some(gateway) = vtep.gateway_ip {
        text.push_str(&format!("gateway {gateway}\n"));
    }
    if wide && vtep.learn_peers {
        text.push_str("VTEPs that nobody named become peers by sending\n");
    }
    format!("{text}\n{}\n{}", peers(&tunnels.peers, wide), tunnelled(&tunnels.networks))
}

fn peers(peers: &[view::Peer], wide: bool) -> String {
    let mut columns = vec![
        ("peer", Left),
        ("kind", Left),
        ("next hop", Left),
        ("path mtu", Right),
        ("rx", Right),
        ("rx bytes", Right),
        ("tx", Right),
        ("tx bytes", Right),
        ("dropped", Right),
    ];
    // Networks last, as they may be many.
    columns.push(if wide { ("drops", Left) } else { ("networks", Left) });
    columns.extend(wide.then_some(("networks", Left)));
    let mut table = Table::new(&columns);
    for peer in peers {
        let (kind, is_known) = match peer.kind {
            PeerKind::Configured => ("configured", true),
            PeerKind::Learned => ("learned", true),
            PeerKind::Group => ("group", true),
            PeerKind::Unknown => ("-", false),
        };
        let next_hop = match peer.next_hop {
            None if is_known => "unresolved".to_owned(),
            next_hop => or_dash(next_hop),
        };
        let counters = &peer.counters;
        let reasons = counters.drops.iter().map(|(reason, frames)| format!("{reason} {}", count(*frames)));
        let reasons = reasons.collect::<Vec<_>>().join(", ");
        let mut cells = vec![
            peer.name.clone(),
            kind.to_owned(),
            next_hop,
            or_dash(peer.path_mtu),
            count(counters.rx_frames),
            count(counters.rx_bytes),
            count(counters.tx_frames),
            count(counters.tx_bytes),
            count(counters.dropped()),
        ];
        cells.extend(wide.then_some(if reasons.is_empty() { "-".to_owned() } else { reasons }));
        cells.push(peer.networks.join(" "));
        table.row(cells);
    }
    table.to_string()
}

fn tunnelled(networks: &[view::TunnelledNetwork]) -> String {
    let mut table = Table::new(&[
        ("network", Left),
        ("vni", Right),
        ("mtu", Right),
        ("peers", Right),
        ("floods to", Left),
        ("rx", Right),
        ("rx bytes", Right),
        ("tx", Right),
        ("tx bytes", Right),
    ]);
    for network in networks {
        let flooding = match network.flooding {
            Flooding::Peers => "peers",
            Flooding::Group => "group",
            Flooding::None => "-",
        };
        table.row([
            network.name.clone(),
            network.segmentation_id.to_string(),
            network.mtu.to_string(),
            network.peers.to_string(),
            flooding.to_owned(),
            count(network.rx_frames),
            count(network.rx_bytes),
            count(network.tx_frames),
            count(network.tx_bytes),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::view::{Interface, Trunk};
    use crate::stats::{DropReason, PortCounters};

    #[test]
    fn vlans_as_ranges() {
        assert_eq!(ranges(&[120, 130, 131, 132, 4094]), "120,130-132,4094");
        assert_eq!(ranges(&[]), "");
    }

    fn port(name: &str) -> Port {
        let counters = PortCounters::default();
        counters.rx_frames.add(1_234);
        counters.rx_bytes.add(2_345_678);
        counters.count_drop(DropReason::Runt, 2);
        let kind = "tap".to_owned();
        Port {
            id: uuid::Uuid::from_u128(1),
            name: name.to_owned(),
            role: Role::Port,
            network: Some("blue".to_owned()),
            trunk: None,
            interface: Interface {
                kind,
                device: "eth0@lab".into(),
                driver: Some("tap".into()),
                notes: Vec::new(),
            },
            mac_address: None,
            mtu: 1500,
            worker: Some(0),
            status: State::Active,
            status_reason: None,
            admin_state_up: true,
            counters: counters.snapshot(),
        }
    }

    #[test]
    fn the_table_of_ports() {
        let physical_network = "provider".to_owned();
        let trunk =
            Trunk { physical_network, native: Some("storage".into()), allowed: Some(vec![120, 130, 131]) };
        let mut core = Port { network: None, trunk: Some(trunk), ..port("core") };
        core.status = State::Down;
        core.status_reason = Some("no device veth7".to_owned());
        core.interface.driver = None;
        let expected = "\
NAME  NETWORK                                      DEVICE    DRIVER    RX  RX BYTES  TX  TX BYTES  DROPPED  STATUS
web1  blue                                         eth0@lab  tap     1.2k      2.3M   0         0        2  ACTIVE
core  trunk of provider: 120,130-131, native storage  eth0@lab  -       1.2k      2.3M   0         0        2  DOWN: no device veth7
";
        let squeeze = |text: &str| -> Vec<String> {
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
        };
        let table = ports(&[port("web1"), core], false);
        assert_eq!(squeeze(&table), squeeze(expected));
        let columns: Vec<_> =
            table.lines().map(|line| line.find("eth0@lab").or(line.find("DEVICE"))).collect();
        assert!(columns.iter().all(|column| *column == columns[0]), "aligned: {table}");
    }

    #[test]
    fn the_table_of_workers() {
        let worker = view::Worker {
            index: 0,
            cpu: Some(2),
            state: WorkerState::Polling,
            turns: 5_000_000,
            busy_fraction: Some(0.421),
            cycles_per_frame: Some(812.3),
            ports: vec!["web1".into(), "core".into()],
            rx_frames: 1_000,
            handoff_drops: 0,
            free_buffers: 16_000,
            total_buffers: 16_384,
        };
        let (version, config) = ("0.1.0".to_owned(), "lab.toml".to_owned());
        let status =
            Status { version, pid: 7, uptime_seconds: 3_700, config, epoch: 3, workers: vec![worker] };
        let expected = "\
nuswitch 0.1.0, pid 7, up 1h01m
configuration lab.toml, epoch 3

WORKER  CPU  STATE    BUSY  CYCLES/FRAME  PORTS    RX  TURNS  HANDOFF DROPS  FREE BUFFERS
     0    2  polling   42%           812      2  1.0k   5.0M              0   16000/16384
";
        assert_eq!(super::status(&status), expected);
    }

    #[test]
    fn the_tables_of_tunnels() {
        let mut tunnels = crate::control::tests::fake_tunnels();
        tunnels.peers[0].networks.push("red".to_owned());
        let mut down = tunnels.vtep.take().unwrap();
        assert_eq!(super::tunnels(&tunnels, true), "no tunnels: the configuration has no [overlay]\n");
        down.status = State::Down;
        down.status_reason = Some("no device under0".to_owned());
        tunnels.vtep = Some(down);
        let expected = "\
LOCAL VTEP       DEVICE  DRIVER  MAC                 MTU  UDP PORT  RX  TX  DROPPED  STATUS
2001:db8::10/64  under0  -       02:00:00:00:00:01  1500      4789   0   0        0  DOWN: no device under0

PEER          KIND     NEXT HOP    PATH MTU  RX  RX BYTES  TX  TX BYTES  DROPPED  NETWORKS
2001:db8::11  learned  unresolved      1400   5         0   0         0        5  blue red

NETWORK   VNI   MTU  PEERS  FLOODS TO  RX  RX BYTES  TX  TX BYTES
blue     1001  1430      1  peers       5       300   0         0
";
        assert_eq!(super::tunnels(&tunnels, false), expected);
        let wide = super::tunnels(&tunnels, true);
        assert!(wide.contains("  split_horizon 5  blue red\n"), "{wide}");
    }

    #[test]
    fn a_station_behind_a_peer_stands_in_the_table_of_macs() {
        let entry = FdbEntry {
            network: "blue".into(),
            vlan: None,
            mac: "52:54:00:00:00:0b".parse().unwrap(),
            port: "2001:db8:0:1:2:3:4:5".into(),
            kind: FdbKind::Learned,
            age_seconds: Some(4),
        };
        let expected = "\
NETWORK  VLAN  MAC                PORT                  KIND     AGE
blue        -  52:54:00:00:00:0b  2001:db8:0:1:2:3:4:5  learned   4s
";
        assert_eq!(fdb(&[entry]), expected);
    }
}
