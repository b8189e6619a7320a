//! The pools of one network, of which each message is for one.
//!
//! A relay's message is for the pool of its subnet (RFC 2131, 4.3.1). Another one is for the pool that, in this order, has the
//! client at the address that the message names; has it bound, so that it keeps its lease; had it before, for a DISCOVER; has
//! the named address; has a free one, for a DISCOVER; comes first.

use std::net::Ipv4Addr;

use super::{Change, Entry, Pool, State, client};
use crate::services::dhcp4::options::Settings;
use crate::services::dhcp4::request::Request;
use crate::services::dhcp4::{Answered, Refused, given_up};
use crate::types::PortIdx;
use crate::wire::dhcp4::MessageType;

/// A subnet with a pool, and what its clients are told.
#[derive(Debug)]
pub struct Subnet {
    /// Its addresses.
    pub pool: Pool,
    /// What clients are told.
    pub settings: Settings,
}

/// Answers as [`answer`](super::answer) does, out of the pools of a network.
///
/// # Errors
/// [`Refused`] when it gets no answer; what is in `reply` is then of no use.
pub fn answer_in(
    subnets: &mut [Subnet],
    frame: &[u8],
    ingress: PortIdx,
    now: u64,
    reply: &mut Vec<u8>,
) -> Result<(Answered, Option<Change>), Refused> {
    let at = choose(subnets, &Request::parse(frame)?, now)?;
    let Subnet { pool, settings } = subnets.get_mut(at).ok_or(Refused::NoLease)?;
    super::answer(frame, pool, settings, ingress, now, reply)
}

fn choose(subnets: &mut [Subnet], request: &Request<'_>, now: u64) -> Result<usize, Refused> {
    let giaddr = request.message.giaddr();
    if request.is_relayed() {
        let near = |subnet: &Subnet| subnet.pool.config.subnet.contains(&giaddr);
        return subnets.iter().position(near).ok_or(Refused::NoLease);
    }
    let (client, named) = (client(request), named(request));
    let find = |subnets: &[Subnet], is: &dyn Fn(&Entry) -> bool| {
        let own = |pool: &Pool| {
            pool.clients.get(&client).and_then(|address| pool.entries.get(address)).is_some_and(is)
        };
        subnets.iter().position(|subnet| own(&subnet.pool))
    };
    let is_discover = request.kind == MessageType::Discover;
    let mut found = find(subnets, &|entry| Some(entry.address) == named);
    if request.kind != MessageType::Inform {
        found = found.or_else(|| find(subnets, &|entry| entry.state == State::Bound && entry.holds(now)));
    }
    if is_discover {
        found = found.or_else(|| find(subnets, &|_| true));
    }
    let has_named = |subnet: &Subnet| {
        named.is_some_and(|named| {
            subnet.pool.config.subnet.contains(&named) && (!is_discover || subnet.pool.is_free(named, now))
        })
    };
    found = found.or_else(|| subnets.iter().position(has_named));
    if is_discover {
        found =
            found.or_else(|| subnets.iter_mut().position(|subnet| subnet.pool.choose(None, now).is_some()));
    }
    Ok(found.unwrap_or(0))
}

/// The address that a message is about.
fn named(request: &Request<'_>) -> Option<Ipv4Addr> {
    match request.kind {
        MessageType::Discover => request.requested,
        MessageType::Request => request.asks().ok().map(|asks| asks.address()),
        MessageType::Inform => request.informs(),
        _ => given_up(request).ok(),
    }
}
