//! What the router says of its decisions to a tracer.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::{At, load};
use crate::dataplane::conntrack::Tuple;
use crate::dataplane::nat::live::{ends_of, protocol_name};
use crate::tables::fib::Route;
use crate::tables::router::RouteOrigin;
use crate::tables::tunnel::{key_address, v4_key};

/// The route to a destination, its prefix and why it is there, and where it leads.
pub(super) fn route(at: &At<'_>, destination: u128, to: Option<(&At<'_>, u128)>) -> String {
    let destination = key_address(destination);
    let mut text = format!("router {}: {destination} ", at.router.name);
    let Some(entry) = at.router.explain(destination) else {
        text.push_str("is on no route");
        return text;
    };
    let because = match &entry.origin {
        RouteOrigin::Subnet(subnet) => format!("subnet {subnet}"),
        RouteOrigin::Gateway => "the external gateway".to_owned(),
        RouteOrigin::Extra => "an extra route".to_owned(),
        RouteOrigin::FloatingIp => "a floating IP".to_owned(),
        RouteOrigin::Service => "the service that the switch is".to_owned(),
    };
    match (to, &entry.route) {
        (Some((to, _)), Route::Connected(_)) => {
            let _ = write!(text, "is on the network of interface {}", to.port.name);
        }
        (Some((to, next)), _) => {
            let next = key_address(next);
            let _ = write!(text, "is behind {next} on the network of interface {}", to.port.name);
        }
        (None, Route::Translated) => text.push_str("is an address that NAT gives to others"),
        (None, Route::Broadcast) => text.push_str("is all hosts of a subnet"),
        (None, _) => text.push_str("is the router's own address"),
    }
    let _ = write!(text, " ({} by {because}", entry.prefix);
    if let Route::Via(hops) = &entry.route
        && hops.len() > 1
    {
        let _ = write!(text, ", one of {} next hops by the flow's hash", hops.len());
    }
    text.push(')');
    text
}

/// What a translated packet's ends are now.
pub(super) fn ends(packet: &[u8], transport: usize) -> String {
    let address = |at: usize| load::<4>(packet, at).map_or(0, u32::from_be_bytes);
    let port = |at: usize| load::<2>(packet, transport + at).map_or(0, u16::from_be_bytes);
    let kind = packet.get(9).copied().unwrap_or(0);
    let is_first = load::<2>(packet, 6).is_some_and(|word| u16::from_be_bytes(word) & 0x1fff == 0);
    if !is_first {
        let ip = |at| Ipv4Addr::from_bits(address(at));
        return format!("translated: a fragment of {} {} > {}", protocol_name(kind), ip(12), ip(16));
    }
    // An ICMP query's identifier stands where nothing else has its ports.
    let (source_port, destination_port) =
        if kind == crate::wire::protocol::ICMP { (port(4), port(4)) } else { (port(0), port(2)) };
    let (source, destination) = (v4_key(address(12)), v4_key(address(16)));
    let tuple = Tuple { zone: 0, protocol: kind, source, destination, source_port, destination_port };
    format!("translated: {}", ends_of(&tuple))
}
