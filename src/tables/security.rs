//! What a guest may claim to be, and which connections it may have: port security and security groups, compiled for look-up.
//!
//! A port with port security has a [`Guard`]. Its [`Claims`] say from which MACs and addresses the guest may send; its
//! [`Policy`], which packets may begin a connection. Ports with the same security groups share one policy.
//!
//! Directions are the guest's: *ingress* enters it, *egress* leaves it.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv6Net};

use super::policy::RuleSet;
use crate::types::Mac;

/// Port security of a port.
#[derive(Clone, Debug)]
pub struct Guard {
    /// What the guest may claim.
    pub claims: Claims,
    /// Which connections it may have; none: it has no addresses that rules could be about, on a network without subnets.
    pub policy: Option<Arc<Policy>>,
}

/// The MACs and addresses that a guest may send from and speak for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// The port's own MAC first, then its `static_macs`, which go with the same addresses, then those of
    /// `allowed_address_pairs`; each once.
    pub stations: Vec<Station>,
    /// Its network has no subnets, so nothing is known of addresses: whatever comes from its MACs may pass but for what only
    /// servers and routers say.
    pub any_address: bool,
}

/// A MAC and the addresses that go with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Station {
    /// The MAC.
    pub mac: Mac,
    /// IPv4 addresses and prefixes.
    pub v4: Vec<Ipv4Net>,
    /// IPv6 addresses and prefixes; the link-local address that follows from the MAC (RFC 4291, 2.5.1) among them.
    pub v6: Vec<Ipv6Net>,
}

/// The security groups of a port, or of several that have the same ones.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Names of the groups, sorted.
    pub groups: Arc<[Arc<str>]>,
    /// Whether what is let through is remembered, so that replies pass; false: every packet is judged by itself.
    pub is_stateful: bool,
    /// Whether packets that it does not let pass are logged.
    pub logs_dropped: bool,
    /// Changes whenever what the policy says may have changed, its remote groups' members included; never 0, and spread over all
    /// 32 bits, as sums of two of them are told apart.
    pub epoch: u32,
    /// What may enter the guest.
    pub ingress: Arc<RuleSet>,
    /// What may leave it.
    pub egress: Arc<RuleSet>,
    /// By the numbers that [`RuleSet::admits`] gives: ingress, then egress. See [`Policy::ingress_rule`].
    pub rules: Arc<[RuleEntry]>,
    /// How many of `rules` are of ingress: where those of egress begin.
    pub ingress_rules: usize,
}

/// A rule, for people.
#[derive(Clone, Debug)]
pub struct RuleEntry {
    /// The group that it is of.
    pub group: Arc<str>,
    /// As a person reads it: `ingress IPv4 tcp 80-443 from 192.0.2.0/24`.
    pub text: Arc<str>,
    /// Whom its hits are counted for: the same as long as its group has the rule, over all epochs, and no other rule's ever.
    pub id: u64,
    /// Whether what it lets through is logged.
    pub is_logged: bool,
}

impl Policy {
    /// The rule with the number that `ingress` gave.
    pub fn ingress_rule(&self, number: u32) -> Option<&RuleEntry> {
        self.rules.get(..self.ingress_rules)?.get(usize::try_from(number).ok()?)
    }

    /// The rule with the number that `egress` gave.
    pub fn egress_rule(&self, number: u32) -> Option<&RuleEntry> {
        self.rules.get(self.ingress_rules..)?.get(usize::try_from(number).ok()?)
    }
}

impl Claims {
    /// Whether the guest may send from this address with this MAC.
    pub fn allows(&self, mac: Mac, address: IpAddr) -> bool {
        self.stations.iter().filter(|station| station.mac == mac).any(|station| match address {
            IpAddr::V4(address) => station.v4.iter().any(|net| net.contains(&address)),
            IpAddr::V6(address) => station.v6.iter().any(|net| net.contains(&address)),
        })
    }
}
