//! `nuswitch show ports`.

use super::super::table::Align::{Left, Right};
use super::super::table::{Table, count, or_dash};
use super::state;
use crate::control::view::{self, Port, Role};

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

/// Ports with their counters.
pub(super) fn table(ports: &[Port], wide: bool) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::view::{Interface, State, Trunk};
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
            extra_dhcp_opts: Vec::new(),
            port_security_enabled: false,
            security_groups: Vec::new(),
            allowed_address_pairs: Vec::new(),
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
        let table = super::table(&[port("web1"), core], false);
        assert_eq!(squeeze(&table), squeeze(expected));
        let columns: Vec<_> =
            table.lines().map(|line| line.find("eth0@lab").or(line.find("DEVICE"))).collect();
        assert!(columns.iter().all(|column| *column == columns[0]), "aligned: {table}");
    }
}
