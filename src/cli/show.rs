//! `nuswitch show`.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::table::Align::{Left, Right};
use super::table::{Table, count, duration, or_dash};
use super::{Control, print};
use crate::control::client::{Client, encode};
use crate::control::view::{self, Drop, FdbEntry, FdbKind, Network, Port, Role, State, Status, WorkerState};

const EXAMPLES: &str = "\
Examples:
  nuswitch show status                what runs, and how busy its workers are
  nuswitch show ports                 every port with its state and traffic
  nuswitch show ports web1 -o wide    one port, with its device and driver
  nuswitch show fdb blue              which MACs of network blue are where
  nuswitch show drops web1            what port web1 threw away, and why
  nuswitch show ports -o json | jq '.[].counters.rx_frames'

Tables round numbers (1.2k is about 1200); JSON has them exactly.";

/// Show what the running switch is and does.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Show {
    /// What to show
    #[arg(value_enum)]
    what: What,
    /// Only this network (networks, fdb) or port (ports, drops), by name
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

impl Show {
    pub(super) fn execute(self, control: &Control) -> anyhow::Result<ExitCode> {
        let client = control.client()?;
        let wide = self.output == Output::Wide;
        let text = match self.what {
            _ if self.output == Output::Json => format!("{:#}\n", self.json(&client)?),
            What::Status => status(&client.get::<Status>("/v1/status")?),
            What::Networks => networks(&self.list(&client)?, wide),
            What::Ports => ports(&self.list(&client)?, wide),
            What::Fdb => fdb(&self.list(&client)?),
            What::Drops => drops(&self.list(&client)?),
        };
        print(text)?;
        Ok(ExitCode::SUCCESS)
    }

    fn json(&self, client: &Client) -> anyhow::Result<Value> {
        match self.what {
            What::Status => Ok(client.get("/v1/status")?),
            _ => Ok(Value::Array(self.list(client)?)),
        }
    }

    /// The objects asked for. A network or port that is named and not there is an error, not an empty table.
    fn list<T: DeserializeOwned>(&self, client: &Client) -> anyhow::Result<Vec<T>> {
        let name = self.name.as_deref().map(encode);
        let one = |kind: &str| name.as_ref().map(|name| format!("/v2.0/{kind}/{name}"));
        match (self.what, &name) {
            (What::Networks, Some(_)) => {
                Ok(vec![client.get_key(&one("networks").unwrap_or_default(), "network")?])
            }
            (What::Ports, Some(_)) => Ok(vec![client.get_key(&one("ports").unwrap_or_default(), "port")?]),
            (What::Networks, None) => Ok(client.get_key("/v2.0/networks", "networks")?),
            (What::Ports, None) => Ok(client.get_key("/v2.0/ports", "ports")?),
            (What::Fdb, Some(name)) => {
                let network: Network = client.get_key(&format!("/v2.0/networks/{name}"), "network")?;
                Ok(client.get_key(&format!("/v1/fdb?network={}", encode(&network.name)), "fdb")?)
            }
            (What::Drops, Some(name)) => {
                let port: Port = client.get_key(&format!("/v2.0/ports/{name}"), "port")?;
                Ok(client.get_key(&format!("/v1/drops?port={}", encode(&port.name)), "drops")?)
            }
            (What::Fdb | What::Status, None) => Ok(client.get_key("/v1/fdb", "fdb")?),
            (What::Drops, None) => Ok(client.get_key("/v1/drops", "drops")?),
            (What::Status, Some(_)) => anyhow::bail!("`show status` takes no name"),
        }
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
    if port.role == Role::PhysicalNetwork {
        return "(physical network)".to_owned();
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
