//! The metadata service: HTTP on port 80 of 169.254.169.254 and fe80::a9fe:a9fe, for each guest on its own.
//!
//! A guest is known by the port that its frames came in by, never by an address: guests with the same address do not meet. Each
//! has a TCP/IP stack of its own (smoltcp) with a bounded number of connections; hyper reads the requests. What is asked for
//! is answered from a [`Guest`] ([`Mode::BuiltIn`]: as EC2, as OpenStack's Nova and as a NoCloud seed) or by a Nova that is
//! somewhere else ([`Mode::Proxy`]).
//!
//! ```text
//! receive ──▶ queue of the guest ──▶ turn: stack ──▶ connection (hyper) ──▶ builtin | proxy
//!   frame      bounded                 ▲  │ send                 │
//!                              timers ─┘  └─▶ frame              └─ bytes wait in the socket: another turn
//! ```
//!
//! # Invariants
//! - One guest's frames, connections and requests cost the others nothing but their turn: every guest that has work gets a turn
//!   of a bounded number of frames, in order.
//! - All memory is bounded ([`limits`]); a guest without connections has no state at all.
//! - Nothing a guest sends panics or stays for ever: each phase of a connection has its time.
//! - An answer goes to the MAC that the newest frame of its connection came from, from the MAC that it was sent to.
//!
//! # Limits
//! No IP fragments, no IPv6 extension headers, no TLS. EC2's `dynamic/instance-identity` is not served: its signature is
//! Amazon's alone. A password that a guest posts is not kept. OpenStack's `random_seed` is left out, so that a document is the
//! same each time it is read.
//!
//! | module | what it decides |
//! |---|---|
//! | `service` | whose turn it is |
//! | `stack` | TCP of one guest: which connections there are |
//! | `stream` | one connection as hyper reads and writes it, and how long each of its phases may last |
//! | `http` | one request: limits, methods, built in or proxy |
//! | `builtin` | the documents |
//! | `token` | IMDSv2's tokens |
//! | `proxy` | a request to Nova and back |

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::IpNet;
use uuid::Uuid;

use crate::types::{Mac, PortIdx};

mod builtin;
mod counters;
mod http;
mod proxy;
mod service;
mod stack;
mod stream;
#[cfg(test)]
mod tests;
mod token;

pub use builtin::{document, tree};
pub use counters::Counters;
pub use service::Service;

/// The bounds of the service. Sizes are in bytes.
pub mod limits {
    use std::time::Duration;

    /// Connections of one guest, half-open ones included.
    pub const CONNECTIONS: usize = 16;
    /// Connections of one guest once [`SHARED_CONNECTIONS`] are open: each always gets as many.
    pub const ASSURED_CONNECTIONS: usize = 2;
    /// Open connections from which on a guest gets no more than [`ASSURED_CONNECTIONS`].
    pub const SHARED_CONNECTIONS: usize = 4096;
    /// Guests with state at one time.
    pub const GUESTS: usize = 4096;
    /// Receive buffer of a connection.
    pub const RECEIVE_BUFFER: usize = 4096;
    /// Send buffer of a connection.
    pub const SEND_BUFFER: usize = 8192;
    /// Longest frame: no guest is told of a longer segment than fits (RFC 9293, 3.7.1).
    pub const FRAME: usize = 1514;
    /// Frames of one guest that wait for its turn.
    pub const WAITING_FRAMES: usize = 64;
    /// Bytes of frames that wait, of all guests.
    pub const WAITING_BYTES: usize = 16 << 20;
    /// Frames of one guest in one turn.
    pub const FRAMES_PER_TURN: usize = 16;
    /// Longest request target.
    pub const TARGET: usize = 2048;
    /// Most header fields of a request.
    pub const HEADERS: usize = 64;
    /// Longest header of a request, and hyper's buffer for one connection.
    pub const HEADER: usize = 16 << 10;
    /// Longest request body, in both modes.
    pub const BODY: usize = 64 << 10;
    /// Longest body that is passed on from Nova.
    pub const PROXY_ANSWER: usize = 16 << 20;
    /// Requests of one guest that are at Nova at one time.
    pub const PROXY_REQUESTS: usize = 4;
    /// Requests of all guests that are at Nova at one time.
    pub const PROXY_REQUESTS_TOTAL: usize = 512;

    /// A SYN that gets no further.
    pub const HALF_OPEN: Duration = Duration::from_secs(10);
    /// From a request's first byte (or the connection's begin) to the end of its header.
    pub const READ_HEADER: Duration = Duration::from_secs(10);
    /// From the end of the header to the answer's first byte; the request's body comes in meanwhile.
    pub const REQUEST: Duration = Duration::from_secs(30);
    /// An answer of which the guest takes nothing more.
    pub const STALLED: Duration = Duration::from_secs(30);
    /// A connection between two requests.
    pub const IDLE: Duration = Duration::from_secs(60);
    /// A connection that we closed, until the guest has closed it too.
    pub const LINGER: Duration = Duration::from_secs(10);
    /// Connecting to Nova.
    pub const PROXY_CONNECT: Duration = Duration::from_secs(5);
    /// From the end of the header to that of Nova's answer, the connecting included.
    pub const PROXY_ANSWER_IN: Duration = Duration::from_secs(25);
    /// Nova's body, when nothing more of it comes.
    pub const PROXY_STALLED: Duration = Duration::from_secs(20);
}

/// Everything that the service works by; it is replaced as a whole.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The guests that are served. Frames from other ports are dropped.
    pub guests: HashMap<PortIdx, Arc<Guest>>,
    /// The Nova for guests in [`Mode::Proxy`]; without it they get 502.
    pub proxy: Option<Arc<Proxy>>,
}

/// Who answers a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// We do.
    #[default]
    BuiltIn,
    /// A Nova.
    Proxy,
}

/// A Nova's metadata API, spoken to over plain HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proxy {
    /// Its host: a name or an address.
    pub nova_metadata_host: String,
    /// Its port: Nova's default is 8775.
    pub nova_metadata_port: u16,
    /// What Nova knows us by: the key of the signature.
    pub metadata_proxy_shared_secret: String,
}

/// Everything that one guest may learn.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Guest {
    /// The instance's identifier: with Nova its UUID. OpenStack's `uuid` is a name-based UUID of it (RFC 9562, 5.5) when it is none.
    pub instance_id: String,
    /// The instance's name, for people.
    pub name: String,
    /// Its host name.
    pub hostname: String,
    /// Its project (tenant).
    pub project_id: Option<String>,
    /// Where it runs.
    pub availability_zone: Option<String>,
    /// OpenSSH public keys, one line each.
    pub public_keys: Vec<String>,
    /// What its owner gives it.
    pub user_data: Option<Arc<[u8]>>,
    /// What the cloud gives it: JSON, or any text, which is then a JSON string where JSON is asked for.
    pub vendor_data: Option<Arc<[u8]>>,
    /// OpenStack's second vendor data, in the same way.
    pub vendor_data2: Option<Arc<[u8]>>,
    /// Its flavour, where that is known.
    pub instance_type: Option<String>,
    /// Its image, where that is known.
    pub image_id: Option<String>,
    /// The request that it was made by, where that is known.
    pub reservation_id: Option<String>,
    /// The names of its security groups.
    pub security_groups: Vec<String>,
    /// Its floating IP.
    pub public_ipv4: Option<Ipv4Addr>,
    /// Its interfaces. The first is the one that it asks by.
    pub nics: Vec<Nic>,
    /// Who answers it.
    pub mode: Mode,
}

/// An interface of a guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Nic {
    /// The port.
    pub port_id: Uuid,
    /// The port's network.
    pub network_id: Uuid,
    /// The interface's MAC.
    pub mac: Mac,
    /// The network's MTU, in bytes of IP packet.
    pub mtu: u16,
    /// Its addresses, one for each fixed IP.
    pub addresses: Vec<NicAddress>,
}

/// An address of an interface, with what its subnet says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NicAddress {
    /// The address and its subnet's prefix.
    pub address: IpAddr,
    /// Bits of the prefix.
    pub prefix_len: u8,
    /// The subnet's gateway.
    pub gateway: Option<IpAddr>,
    /// Routes beside the one to the gateway: destination and next hop.
    pub routes: Vec<(IpNet, IpAddr)>,
    /// The subnet's name servers.
    pub dns: Vec<IpAddr>,
    /// How the guest comes by it.
    pub by: By,
}

/// How a guest comes by an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// From the metadata alone.
    Static,
    /// By DHCPv4.
    Dhcp4,
    /// By autoconfiguration (RFC 4862).
    Slaac,
    /// By DHCPv6 (RFC 8415, 6.2).
    Dhcp6Stateful,
    /// By autoconfiguration, and DHCPv6 for the rest (RFC 8415, 6.1).
    Dhcp6Stateless,
}
