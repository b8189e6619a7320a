//! Routing: subnets, routers, floating IPs, and who has which address.
//!
//! `read` takes the objects apart, `subnet` judges prefixes and pools, `told` what guests are told, `address` knows who has which address (`ipam`:
//! which ones are free), `port`, `router` and `floating_ip` put together the objects that have some.
//!
//! Addresses that are given are claimed before any is handed out. Then they are handed out to gateways of routers, to
//! floating IPs and to ports, each in the order of the file: a new guest moves nobody's address outside.

mod address;
mod floating_ip;
mod ipam;
mod port;
mod read;
mod router;
mod subnet;
mod told;

use std::collections::BTreeSet;

pub(super) use read::{DraftFixedIps, DraftL3, document, fixed_ips};
pub(super) use router::GivenMacs;

use super::diagnostic::{Report, Reported};
use super::read::{DraftNetwork, DraftPort};
use super::schema::*;
use super::validate::{Names, limit};
use crate::types::Mac;
use address::Space;
use subnet::Subnets;

/// What routing is judged against.
pub(super) struct Scene<'d, 'r> {
    pub(super) report: &'r Report<'r>,
    pub(super) networks: &'d [DraftNetwork],
    pub(super) network_names: &'d Names<'d>,
    pub(super) ports: &'d [DraftPort],
    pub(super) port_names: &'d Names<'d>,
    pub(super) attachments: &'d [Result<Attachment, Reported>],
    /// MACs that ports were given.
    pub(super) macs: GivenMacs,
}

/// The objects of routing, and the MAC and fixed IPs of each port.
pub(super) struct L3 {
    pub(super) subnets: Vec<Subnet>,
    /// Whether those are all that were meant.
    pub(super) subnets_whole: Result<(), Reported>,
    pub(super) routers: Vec<Router>,
    pub(super) floating_ips: Vec<FloatingIp>,
    pub(super) conntrack: Conntrack,
    pub(super) macs: Vec<Option<Mac>>,
    pub(super) fixed_ips: Vec<Vec<FixedIp>>,
}

/// Puts the objects of routing together.
pub(super) fn validate(draft: DraftL3, mut scene: Scene<'_, '_>) -> L3 {
    let report = scene.report;
    limit(report, "subnets", draft.subnets.iter().map(|s| &s.at));
    limit(report, "routers", draft.routers.iter().map(|r| &r.at));
    limit(report, "floating IPs", draft.floating_ips.iter().map(|f| &f.at));
    let routers = draft.routers.iter();
    super::validate::unique(report, routers.map(|r| (r.object.name.as_str(), &r.at, r.object.origin.line)));
    let subnets = Subnets::new(report, &draft.subnets, scene.networks, scene.network_names);
    let mut space = Space::new(report, scene.networks, &subnets);

    let routers = router::reserve(&mut space, &draft.routers, scene.network_names);
    router::macs(&space, &routers, &mut scene.macs);
    let ports = port::reserve(&mut space, scene.ports, scene.attachments, scene.network_names);
    let floating_ips = floating_ip::reserve(&mut space, &draft.floating_ips, scene.network_names);

    let (mut routers, whole) = router::finish(&mut space, routers);
    let floating_ips = floating_ip::hand_out(&mut space, floating_ips);
    let mut taken = given_macs(scene.ports, &routers);
    let macs = port::macs(scene.ports, &mut taken);
    // After those of ports: a new router moves no guest's.
    router::generate_macs(&mut routers, &mut taken);
    let fixed_ips = port::hand_out(&mut space, ports, &macs);
    let targets = floating_ip::Targets {
        ports: scene.ports,
        port_names: scene.port_names,
        fixed_ips: &fixed_ips,
        routers: &routers,
        whole: whole && subnets.whole.is_ok(),
    };
    let floating_ips = floating_ip::finish(&space, floating_ips, &targets);
    L3 {
        floating_ips,
        routers,
        conntrack: draft.conntrack,
        macs,
        fixed_ips: fixed_ips.into_iter().map(Result::unwrap_or_default).collect(),
        subnets_whole: subnets.whole,
        subnets: subnets.finished(),
    }
}

/// The MACs that ports and routers were given.
fn given_macs(ports: &[DraftPort], routers: &[Router]) -> BTreeSet<Mac> {
    let of_ports = ports.iter().flat_map(|port| port.mac_address.iter().flatten().chain(&port.static_macs));
    let gateways = routers.iter().filter_map(|router| Some(router.external_gateway.as_ref()?.mac_address));
    let interfaces = routers.iter().flat_map(|router| &router.interfaces).map(|i| i.mac_address);
    let of_routers = gateways.chain(interfaces).filter(|mac| *mac != Mac::default());
    of_ports.map(|mac| *mac.get_ref()).chain(of_routers).collect()
}
