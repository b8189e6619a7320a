//! `nuswitch show`: one file for each kind of thing that there is much to say about.

mod conntrack;
mod leases;
mod metadata;
mod nat;
mod ports;
mod router;
mod security;
mod tunnels;

use std::net::IpAddr;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde::de::DeserializeOwned;
use serde_json::Value;

pub(super) use conntrack::Filter;

use super::table::Align::{Left, Right};
use super::table::{Table, count, duration, or_dash};
use super::{Control, print};
use crate::control::client::{self, Client, encode};
use crate::control::view::{self, Drop, FdbEntry, FdbKind, Network, State, Status, Tunnels, WorkerState};

const EXAMPLES: &str = "\
Examples:
  nuswitch show status                what runs, and how busy its workers are
  nuswitch show ports                 every port with its state and traffic
  nuswitch show ports web1 -o wide    one port, with its device and driver
  nuswitch show fdb blue              which MACs of network blue are where
  nuswitch show drops web1            what port web1 threw away, and why
  nuswitch show routers               virtual routers, and what passes them
  nuswitch show routes --router edge  where that one sends packets, and why
  nuswitch show conntrack --guest web1 --protocol tcp
  nuswitch show conntrack --network blue -o wide    which rules let guests of blue have which connections
  nuswitch show conntrack --follow    connections as they begin, change and end
  nuswitch show rules --port web1     what security groups let pass there, and how often they did
  nuswitch show security-groups web   one group's rules, ports and members
  nuswitch show security-log --follow    what groups with `log` accept and drop, as it happens
  nuswitch show nat                   who is translated to what, and how much room is left
  nuswitch show metadata -p web1      what the guest of web1 is told of itself
  nuswitch show leases                which addresses DHCP gives, and to whom
  nuswitch show tunnels               the local VTEP, its peers, and what passes
  nuswitch show ports -o json | jq '.[].counters.rx_frames'

Tables round numbers (1.2k is about 1200); JSON has them exactly.";

/// Show what the running switch is and does.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Show {
    #[command(subcommand)]
    what: What,
    /// How
    #[arg(long, short, value_enum, default_value = "table", value_name = "FORMAT", global = true)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The process and its workers
    Status,
    /// L2 domains
    Networks(Named),
    /// Attachments and physical networks, with counters
    Ports(Named),
    /// The MAC table
    Fdb {
        /// Only this network
        network: Option<String>,
    },
    /// Dropped frames by reason
    Drops {
        /// Only this port, peer (its address) or router's interface
        port: Option<String>,
    },
    /// The local VTEP, its peers, and the networks in tunnels
    Tunnels,
    /// Virtual routers with their interfaces, connections and traffic
    Routers(Named),
    /// The routes of virtual routers, each with what it comes from
    Routes(router::OfRouter),
    /// Whom routers know on their networks, and how they came to know
    #[command(alias = "neighbors")]
    Neighbours(router::Neighbours),
    /// Tracked connections: those that routers translate, and those that security groups let guests have
    Conntrack(conntrack::Show),
    /// What a guest is told by the metadata service, document by document
    Metadata(metadata::Show),
    /// Addresses that DHCP gives: those of ports, and those out of pools
    Leases(leases::Show),
    /// Security groups with who has them; one of them with its rules
    SecurityGroups(security::Groups),
    /// The rules in force at a port, and how many connections each let begin
    Rules(security::Rules),
    /// What security groups log: connections that begin, and packets that are dropped
    SecurityLog(security::Log),
    /// What routers translate: SNAT addresses, floating IPs, forwarded ports, bindings
    Nat(nat::Show),
}

/// One of a kind, or all.
#[derive(Debug, Args)]
struct Named {
    /// Only the one of this name or ID
    name: Option<String>,
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
        let client = control.client()?;
        let output = self.output;
        let wide = output == Output::Wide;
        let text = match &self.what {
            What::Status => one(output, client.get("/v1/status")?, status)?,
            What::Networks(named) => {
                list(output, named.all(&client, "network", "networks")?, |all| networks(all, wide))?
            }
            What::Ports(named) => {
                list(output, named.all(&client, "port", "ports")?, |all| ports::table(all, wide))?
            }
            What::Fdb { network } => list(output, of(&client, "fdb", "network", network)?, fdb)?,
            What::Drops { port } => list(output, of(&client, "drops", "port", port)?, drops)?,
            What::Tunnels => one(output, client.get(TUNNELS)?, |all| tunnels::tables(all, wide))?,
            What::Routers(named) => {
                list(output, named.all(&client, "router", "routers")?, |all| router::routers(all, wide))?
            }
            What::Routes(of) => list(output, of.routes(&client)?, router::routes)?,
            What::Neighbours(of) => list(output, of.neighbours(&client)?, router::neighbours)?,
            What::Conntrack(show) => return show.execute(&client, output),
            What::Metadata(show) => return show.execute(&client, output),
            What::Leases(show) => list(output, show.leases(&client)?, leases::table)?,
            What::SecurityGroups(show) => show.text(&client, output)?,
            What::Rules(show) => show.text(&client, output)?,
            What::SecurityLog(show) => return show.execute(&client, output),
            What::Nat(show) => return show.execute(&client, output),
        };
        print(text)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A list as JSON, all of it, or as a table.
fn list<T: DeserializeOwned>(
    output: Output,
    objects: Vec<Value>,
    table: impl FnOnce(&[T]) -> String,
) -> anyhow::Result<String> {
    one(output, Value::Array(objects), |all: &Vec<T>| table(all))
}

/// As [`list`], one object.
fn one<T: DeserializeOwned>(
    output: Output,
    object: Value,
    table: impl FnOnce(&T) -> String,
) -> anyhow::Result<String> {
    if output == Output::Json {
        return Ok(format!("{object:#}\n"));
    }
    Ok(table(&serde_json::from_value(object).map_err(client::Error::from)?))
}

impl Named {
    /// All, or the one of this name. One that is named and not there is an error, not an empty table.
    fn all(&self, client: &Client, kind: &str, kinds: &str) -> Result<Vec<Value>, client::Error> {
        match &self.name {
            None => client.get_key(&format!("/v2.0/{kinds}"), kinds),
            Some(name) => Ok(vec![client.get_key(&format!("/v2.0/{kinds}/{}", encode(name)), kind)?]),
        }
    }
}

/// All of a list, or what belongs to the network, port or router of this name.
fn of(client: &Client, list: &str, kind: &str, name: &Option<String>) -> Result<Vec<Value>, client::Error> {
    let Some(name) = name else { return client.get_key(&format!("/v1/{list}"), list) };
    let name = owner(client, kind, name)?;
    client.get_key(&format!("/v1/{list}?{kind}={}", encode(&name)), list)
}

/// The name of a network, port or router by its name or ID; where drops are counted by port, of a peer by its address, and of a
/// router's interface.
fn owner(client: &Client, kind: &str, name: &str) -> Result<String, client::Error> {
    if kind == "port" {
        if let Some(peer) = peer(client, name)? {
            return Ok(peer);
        }
        let routers: Vec<view::Router> = client.get_key("/v2.0/routers", "routers")?;
        if routers.iter().flat_map(|router| &router.interfaces).any(|interface| interface.name == name) {
            return Ok(name.to_owned());
        }
    }
    let found: Value = client.get_key(&format!("/v2.0/{kind}s/{}?fields=name", encode(name)), kind)?;
    Ok(found.get("name").and_then(Value::as_str).unwrap_or(name).to_owned())
}

/// The name of the peer with this address, however it is written: drops count at peers too.
fn peer(client: &Client, address: &str) -> Result<Option<String>, client::Error> {
    let Ok(address) = address.parse::<IpAddr>() else { return Ok(None) };
    let tunnels: Tunnels = client.get(TUNNELS)?;
    Ok(tunnels.peers.into_iter().find(|peer| peer.address == Some(address)).map(|peer| peer.name))
}

/// An address with a port, where it has one.
fn endpoint(address: IpAddr, port: Option<u16>) -> String {
    match (address, port) {
        (address, None) => address.to_string(),
        (IpAddr::V4(address), Some(port)) => format!("{address}:{port}"),
        (IpAddr::V6(address), Some(port)) => format!("[{address}]:{port}"),
    }
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
    if !status.metadata.is_empty() {
        let mut table = Table::new(&[("metadata", Left), ("count", Right)]);
        for (name, &number) in &status.metadata {
            table.row([name.clone(), count(number)]);
        }
        text.push_str(&format!("\n{table}"));
    }
    if !status.security.is_empty() {
        text.push_str(&format!("\n{}", security::trackers(&status.security)));
    }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

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
        let (workers, metadata) = (vec![worker], BTreeMap::new());
        let security = Vec::new();
        let status =
            Status { version, pid: 7, uptime_seconds: 3_700, config, epoch: 3, workers, metadata, security };
        let expected = "\
nuswitch 0.1.0, pid 7, up 1h01m
configuration lab.toml, epoch 3

WORKER  CPU  STATE    BUSY  CYCLES/FRAME  PORTS    RX  TURNS  HANDOFF DROPS  FREE BUFFERS
     0    2  polling   42%           812      2  1.0k   5.0M              0   16000/16384
";
        assert_eq!(super::status(&status), expected);
        let counters = [("requests_4xx".to_owned(), 2), ("connections".to_owned(), 12_345)];
        let served = Status { metadata: counters.into(), ..status };
        let more = "
METADATA      COUNT
connections   12.3k
requests_4xx      2
";
        assert_eq!(super::status(&served), format!("{expected}{more}"));
        let guests = Status { security: crate::control::tests::fake_nat().trackers, ..served };
        let tracked = "
GUESTS AT WORKER  CONNECTIONS      OF  CREATED  EXPIRED  GUEST LIMIT  FULL  REMOVED  REFUSED  INVALID
               1           12  262144     1.0k        9            0     0        0        0        0
";
        assert_eq!(super::status(&guests), format!("{expected}{more}{tracked}"));
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
