//! The fixed IPs of ports.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::address::{Asking, Owner, Space, Wanted};
use crate::model::diagnostic::Reported;
use crate::model::macs::generated_mac;
use crate::model::read::DraftPort;
use crate::model::schema::*;
use crate::model::validate::Names;
use crate::types::Mac;

/// A port on a network, and what it wants there.
pub(super) struct PortAsking<'d> {
    draft: &'d DraftPort,
    asking: Asking<'d>,
    wanted: Wanted,
}

/// Claims what ports have by the configuration; none for trunks and where a mistake hides the network.
pub(super) fn reserve<'d>(
    space: &mut Space<'d, '_>,
    ports: &'d [DraftPort],
    attachments: &[Result<Attachment, Reported>],
    network_names: &Names<'_>,
) -> Vec<Option<PortAsking<'d>>> {
    let mut all = Vec::new();
    for (port, attachment) in ports.iter().zip(attachments) {
        let network = match attachment {
            Ok(Attachment::Access(network)) => network_names.get(network.as_str()).copied(),
            Ok(Attachment::Trunk { .. }) => {
                no_trunk(space, port);
                None
            }
            Err(Reported) => None,
        };
        all.push(network.map(|network| {
            let asking = Asking {
                owner: Owner { kind: "port", name: &port.name, line: port.origin.line },
                network,
                at: port.at.name.clone(),
                path: format!("{}.fixed_ips", port.at.path),
            };
            let wanted = match &port.fixed_ips {
                // Who is behind such a port is not known, and may be several.
                None if !port.is_one_station() => Wanted::Listed(Vec::new(), Ok(())),
                listed => space.reserve(&asking, listed.as_ref()),
            };
            if matches!(&port.fixed_ips, Some(listed) if listed.items.is_empty() && listed.whole.is_ok()) {
                withhold_addresses(space, port, network);
            }
            PortAsking { draft: port, asking, wanted }
        }));
    }
    all
}

fn no_trunk(space: &Space<'_, '_>, port: &DraftPort) {
    let Some(listed) = port.fixed_ips.as_ref().filter(|listed| !listed.items.is_empty()) else { return };
    let hint = Some("leave it out: a trunk is in several networks".to_owned());
    let path = format!("{}.fixed_ips", port.at.path);
    space.report.add(listed.at.clone(), &path, "a trunk has no fixed IPs", hint);
}

/// What a tap without fixed IPs was given by hand is handed out to nobody else.
fn withhold_addresses(space: &mut Space<'_, '_>, port: &DraftPort, network: usize) {
    for (ip, _) in addresses(port) {
        space.withhold(network, *ip);
    }
}

fn addresses(port: &DraftPort) -> &[(IpAddr, u8)] {
    match &port.interface {
        Ok(Interface::Tap { address, .. }) => address,
        _ => &[],
    }
}

/// The MAC of each port that has one: given, or generated where one station is behind it.
pub(super) fn macs(ports: &[DraftPort], taken: &mut BTreeSet<Mac>) -> Vec<Option<Mac>> {
    let mac = |port: &DraftPort| {
        let given = port.mac_address.as_ref().ok().and_then(|mac| mac.as_ref()).map(|mac| *mac.get_ref());
        let is_tap = matches!(port.interface, Ok(Interface::Tap { .. } | Interface::Guest { .. }));
        given.or_else(|| is_tap.then(|| generated_mac(&port.name, taken)))
    };
    ports.iter().map(mac).collect()
}

/// The fixed IPs of each port, those left out filled in.
pub(super) fn hand_out<'d>(
    space: &mut Space<'d, '_>,
    ports: Vec<Option<PortAsking<'d>>>,
    macs: &[Option<Mac>],
) -> Vec<Result<Vec<FixedIp>, Reported>> {
    let mut all = Vec::new();
    for (port, mac) in ports.into_iter().zip(macs) {
        let Some(PortAsking { draft, asking, wanted }) = port else {
            all.push(Ok(Vec::new()));
            continue;
        };
        let fixed_ips = space.hand_out(&asking, wanted, *mac);
        if let Ok(fixed_ips) = &fixed_ips {
            judge_addresses(space, draft, &asking, fixed_ips);
        }
        all.push(fixed_ips);
    }
    all
}

/// What a tap has by hand on a subnet must be one of its fixed IPs, or else routers would know a wrong address; only
/// `fixed_ips = []` says that it is nobody's business.
fn judge_addresses(space: &Space<'_, '_>, port: &DraftPort, asking: &Asking<'_>, fixed_ips: &[FixedIp]) {
    let path = format!("{}.interface.address", port.at.path);
    if port.fixed_ips_are_address && fixed_ips.is_empty() && space.subnets.whole.is_ok() {
        let hint = "give the network a [[subnet]] and the port fixed_ips, or write the address".to_owned();
        space.report.add(port.at.device.clone(), &path, "the port has no fixed IPs", Some(hint));
    }
    if matches!(&port.fixed_ips, Some(listed) if listed.items.is_empty()) {
        return;
    }
    for (ip, _) in addresses(port) {
        let Some((_, subnet)) = space.subnet_at(asking.network, *ip) else { continue };
        if !fixed_ips.iter().any(|fixed| fixed.ip == *ip) {
            let message = format!("{ip} is on subnet `{}`, but none of the port's fixed IPs", subnet.name);
            let hint = Some(format!("write fixed_ips = [\"{ip}\"], and address = true for the same here"));
            space.report.add(port.at.device.clone(), &path, message, hint);
        }
    }
}
