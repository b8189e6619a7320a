//! Port security and security groups: what a guest may claim to be, and which connections it may have.
//!
//! `rule` is a rule, `protocol` knows the names of protocols, `text` the grammar of single values; `read` takes the objects
//! apart, `validate` puts them together with ports.
//!
//! Port security is for ports of one network behind which one station is known. On a network without subnets nothing is known
//! of addresses, so that MACs alone are checked there and security groups are about nothing.

pub mod protocol;
mod read;
mod rule;
mod text;
mod validate;

use std::fmt;

use ipnet::IpNet;
use uuid::Uuid;

pub(super) use read::{DraftPortSecurity, DraftSecurity, document, port};
pub use rule::{Direction, Ethertype, RuleRemote, SecurityRule};
pub(super) use validate::{Scene, validate};

use super::schema::Origin;
use crate::types::Mac;

/// The name of the group that ports have when nothing is said, and that is always there.
pub const DEFAULT_GROUP: &str = "default";

/// `[[security_group]]`: rules for ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityGroup {
    /// Stable for the name: UUID version 5.
    pub id: Uuid,
    /// Unique among security groups.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// Whether what is let through is remembered, so that replies pass; default true. Those of a port are all alike.
    pub stateful: bool,
    /// What of its ports' connections is written down; default nothing.
    pub log: SecurityLog,
    /// What may pass, each once; nothing else may.
    pub rules: Vec<SecurityRule>,
    /// Where it was said; line 0: nowhere, it is Neutron's.
    pub origin: Origin,
}

/// What a security group writes into the security log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SecurityLog {
    /// Nothing.
    #[default]
    None,
    /// Connections that its rules let begin; each packet, where the group is stateless.
    Accepted,
    /// Packets that the groups of its ports do not let pass.
    Dropped,
    /// Both.
    All,
}

impl SecurityLog {
    /// Whether connections that its rules let begin are written down.
    pub fn has_accepted(self) -> bool {
        matches!(self, SecurityLog::Accepted | SecurityLog::All)
    }

    /// Whether dropped packets of its ports are.
    pub fn has_dropped(self) -> bool {
        matches!(self, SecurityLog::Dropped | SecurityLog::All)
    }
}

impl fmt::Display for SecurityLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SecurityLog::None => "none",
            SecurityLog::Accepted => "accepted",
            SecurityLog::Dropped => "dropped",
            SecurityLog::All => "all",
        })
    }
}

/// `[[address_group]]`: prefixes that rules can name together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressGroup {
    /// Stable for the name: UUID version 5.
    pub id: Uuid,
    /// Unique among address groups.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// Prefixes of both IP versions without host bits, each once.
    pub addresses: Vec<IpNet>,
    /// Where it was said.
    pub origin: Origin,
}

/// Port security of a port where it is on: the port has a MAC and is in one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSecurity {
    /// Names of its groups, sorted, each once; none named: nothing passes. None at all: the network has no subnets, so that
    /// groups are about nothing.
    pub security_groups: Option<Vec<String>>,
    /// What it may claim besides its own MAC and addresses.
    pub allowed_address_pairs: Vec<AddressPair>,
}

/// One of a port's `allowed_address_pairs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressPair {
    /// Addresses that it may send from: a prefix without host bits.
    pub ip_address: IpNet,
    /// With this MAC: given, or the port's own.
    pub mac_address: Mac,
}

impl SecurityGroup {
    /// The group `default` where the file has none, with Neutron's rules: all may leave, and members of the group may enter.
    pub fn built_in() -> SecurityGroup {
        let rule = |(direction, ethertype, remote)| SecurityRule {
            direction,
            ethertype,
            protocol: None,
            ports: None,
            icmp: None,
            remote,
            description: None,
        };
        let members = || RuleRemote::Group(DEFAULT_GROUP.to_owned());
        let leave = Ethertype::ALL.map(|ethertype| (Direction::Egress, ethertype, RuleRemote::Any));
        let enter = Ethertype::ALL.map(|ethertype| (Direction::Ingress, ethertype, members()));
        SecurityGroup {
            id: super::id("security_group", DEFAULT_GROUP),
            name: DEFAULT_GROUP.to_owned(),
            description: Some("Default security group".to_owned()),
            stateful: true,
            log: SecurityLog::None,
            rules: leave.into_iter().chain(enter).map(rule).collect(),
            origin: Origin::default(),
        }
    }

    /// Whether no file says it.
    pub fn is_built_in(&self) -> bool {
        self.origin.line == 0
    }
}
