//! What a client is told, compiled once: options as bytes, found by their code in constant time.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::types::Mac;
use crate::wire::dhcp4::{self, Opt, code};

/// What the clients of a subnet are told.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Settings {
    /// Length of the subnet's prefix.
    pub prefix_len: u8,
    /// The default router (option 3).
    pub router: Option<Ipv4Addr>,
    /// Name servers (6).
    pub dns_servers: Vec<Ipv4Addr>,
    /// Time servers (42).
    pub ntp_servers: Vec<Ipv4Addr>,
    /// The domain (15), which is also the search list (119).
    pub domain: Option<String>,
    /// The client's name (12).
    pub hostname: Option<String>,
    /// MTU of the network (26); 0: none is told.
    pub mtu: u16,
    /// All classless routes (121, 249), the default route included; a next hop of 0.0.0.0 is "on the link" (RFC 3442).
    pub routes: Vec<(Ipv4Net, Ipv4Addr)>,
    /// Seconds that a lease holds at most; `u32::MAX` is for ever (RFC 2131, 3.3).
    pub lease_time: u32,
    /// Options of the user's, which replace those above of the same code.
    pub extra: Vec<Opt>,
}

/// A fixed lease: an address of a port, and what goes with it.
#[derive(Clone, Debug)]
pub struct Lease {
    pub(super) mac: Mac,
    pub(super) address: Ipv4Addr,
    pub(super) options: Compiled,
}

impl Lease {
    /// Compiles the lease of `address` for the client with this MAC.
    pub fn new(mac: Mac, address: Ipv4Addr, settings: &Settings) -> Lease {
        Lease { mac, address, options: Compiled::new(settings, address) }
    }

    /// The client's MAC.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Whether an address is in the subnet of this lease.
    pub(super) fn is_near(&self, other: Ipv4Addr) -> bool {
        self.options.same_subnet(self.address, other)
    }
}

/// A set of option codes.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Codes([u64; 4]);

impl Codes {
    #[inline(always)]
    fn place(code: u8) -> (usize, u64) {
        (usize::from(code >> 6), 1 << (code & 63))
    }

    /// Adds a code; false when it was there.
    #[inline(always)]
    pub(super) fn insert(&mut self, code: u8) -> bool {
        let (word, bit) = Codes::place(code);
        let Some(word) = self.0.get_mut(word) else { return false };
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    #[inline(always)]
    pub(super) fn contains(&self, code: u8) -> bool {
        let (word, bit) = Codes::place(code);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    /// How many lower codes there are.
    #[inline(always)]
    fn rank(&self, code: u8) -> usize {
        let (at, bit) = Codes::place(code);
        let whole: u32 = self.0.iter().take(at).map(|word| word.count_ones()).sum();
        let part = self.0.get(at).map_or(0, |word| (word & (bit - 1)).count_ones());
        (whole + part) as usize
    }
}

/// The options of a subnet's clients as they go out.
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    /// Options in order of their codes, in pieces where they are long, each with its code and length.
    bytes: Box<[u8]>,
    /// Where each one ends.
    ends: Box<[u32]>,
    present: Codes,
    /// Options that go to a client which asks for nothing by name, in order.
    unasked: Box<[u8]>,
    /// The fields of that name; what does not fit in one is left to the option.
    pub(super) file: Box<[u8]>,
    pub(super) sname: Box<[u8]>,
    pub(super) siaddr: Ipv4Addr,
    pub(super) lease_time: u32,
    mask: u32,
}

/// In this order options go to a client that does not say what it wants; others follow by code.
const ORDER: [u8; 9] = [
    code::CLASSLESS_ROUTE,
    code::ROUTER,
    code::DNS_SERVER,
    code::DOMAIN_NAME,
    code::DOMAIN_SEARCH,
    code::HOSTNAME,
    code::MTU,
    code::BROADCAST_ADDRESS,
    code::NTP_SERVER,
];

impl Compiled {
    /// `near` is any address of the subnet.
    pub(super) fn new(settings: &Settings, near: Ipv4Addr) -> Compiled {
        let mut all = standard(settings, near);
        for opt in settings
            .extra
            .iter()
            .filter(|opt| opt.code != code::SERVER_IP_ADDRESS && !dhcp4::is_reserved(opt.code))
        {
            all.retain(|(code, _)| *code != opt.code);
            all.push((opt.code, opt.value.clone()));
        }
        all.sort_by_key(|(code, _)| *code);
        let (mut bytes, mut ends, mut present) = (Vec::new(), Vec::new(), Codes::default());
        for (code, value) in &all {
            dhcp4::put_option(&mut bytes, *code, value);
            present.insert(*code);
            ends.push(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        }
        let rest = all.iter().map(|(code, _)| *code).filter(|code| !ORDER.contains(code));
        let rest = rest.filter(|code| !matches!(*code, code::SUBNET_MASK | code::MS_CLASSLESS_ROUTE));
        let unasked = ORDER.into_iter().filter(|code| present.contains(*code)).chain(rest).collect();
        let value =
            |code: u8| all.iter().find(|(found, _)| *found == code).map_or(&[][..], |(_, value)| value);
        // A field ends with a zero (RFC 2131, 2).
        let field = |code: u8, room: usize| {
            Some(value(code)).filter(|value| value.len() < room).unwrap_or_default().into()
        };
        Compiled {
            bytes: bytes.into(),
            ends: ends.into(),
            present,
            unasked,
            file: field(code::BOOTFILE_NAME, dhcp4::FILE),
            sname: field(code::TFTP_SERVER, dhcp4::SNAME),
            siaddr: next_server(settings, value(code::TFTP_SERVER_ADDRESS), value(code::TFTP_SERVER)),
            lease_time: settings.lease_time,
            mask: mask(settings.prefix_len),
        }
    }

    /// An option as it goes out.
    #[inline]
    pub(super) fn get(&self, code: u8) -> Option<&[u8]> {
        if !self.present.contains(code) {
            return None;
        }
        let at = self.present.rank(code);
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.bytes.get(start as usize..*self.ends.get(at)? as usize)
    }

    pub(super) fn unasked(&self) -> &[u8] {
        &self.unasked
    }

    pub(super) fn same_subnet(&self, a: Ipv4Addr, b: Ipv4Addr) -> bool {
        (a.to_bits() ^ b.to_bits()) & self.mask == 0
    }
}

fn mask(prefix_len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix_len.min(32))).unwrap_or(0)
}

/// The options that follow from a subnet and a port.
fn standard(settings: &Settings, near: Ipv4Addr) -> Vec<(u8, Vec<u8>)> {
    let addresses = |list: &[Ipv4Addr]| list.iter().flat_map(Ipv4Addr::octets).collect::<Vec<u8>>();
    let text = |text: &Option<String>| text.as_deref().unwrap_or_default().as_bytes().to_vec();
    let mask = mask(settings.prefix_len);
    // A subnet of one or two addresses has no broadcast address (RFC 3021, 2.2).
    let broadcast = (settings.prefix_len < 31).then(|| Ipv4Addr::from_bits(near.to_bits() | !mask));
    let mut search = Vec::new();
    if let Some(domain) = &settings.domain {
        dhcp4::put_name(&mut search, domain);
    }
    let mut routes = Vec::new();
    for (destination, next_hop) in &settings.routes {
        dhcp4::put_route(&mut routes, *destination, *next_hop);
    }
    let mtu = if settings.mtu == 0 { Vec::new() } else { settings.mtu.to_be_bytes().to_vec() };
    let all = [
        (code::SUBNET_MASK, mask.to_be_bytes().to_vec()),
        (code::ROUTER, addresses(settings.router.as_slice())),
        (code::DNS_SERVER, addresses(&settings.dns_servers)),
        (code::HOSTNAME, text(&settings.hostname)),
        (code::DOMAIN_NAME, text(&settings.domain)),
        (code::MTU, mtu),
        (code::BROADCAST_ADDRESS, addresses(broadcast.as_slice())),
        (code::NTP_SERVER, addresses(&settings.ntp_servers)),
        (code::DOMAIN_SEARCH, search),
        (code::CLASSLESS_ROUTE, routes.clone()),
        (code::MS_CLASSLESS_ROUTE, routes),
    ];
    all.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

/// `siaddr`: as told, else the first TFTP server by address, else a TFTP server whose name is an address.
fn next_server(settings: &Settings, addresses: &[u8], name: &[u8]) -> Ipv4Addr {
    let told = settings.extra.iter().rev().find(|opt| opt.code == code::SERVER_IP_ADDRESS);
    let first = |bytes: &[u8]| bytes.first_chunk::<4>().copied().map(Ipv4Addr::from);
    let named = || std::str::from_utf8(name).ok().and_then(|name| name.parse().ok());
    told.and_then(|opt| first(&opt.value))
        .or_else(|| first(addresses))
        .or_else(named)
        .unwrap_or(Ipv4Addr::UNSPECIFIED)
}
