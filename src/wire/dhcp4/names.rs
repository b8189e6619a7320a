//! Options by name, and how their values are written: what stands in `extra_dhcp_opts`.
//!
//! Names are those that users of Neutron know, which are dnsmasq's, and IANA's or ISC's where those differ; a code may be
//! written as a number. A code without a name takes what its value looks like: IPv4 addresses, `0x…` or `01:02:…`, a
//! number, else text; text in double quotes is always text.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use thiserror::Error;

use super::code;

/// Bytes of the longest value: what is longer fits into no message of an ordinary MTU.
pub const MAX_VALUE: usize = 1024;

/// An option with its value as it goes out, before it is split into pieces.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Opt {
    /// The code; [`code::SERVER_IP_ADDRESS`] stands for the field `siaddr`.
    pub code: u8,
    /// The bytes, at most [`MAX_VALUE`].
    pub value: Vec<u8>,
}

/// Why a name and a text are no option.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum OptError {
    /// Neither a name nor a number from 1 to 254.
    #[error("`{0}` is no DHCPv4 option: give its name (`bootfile-name`) or its number (1 to 254)")]
    Name(String),
    /// A name with conditions, as dnsmasq has them.
    #[error("`{0}`: options under a condition (`tag:`) are not supported")]
    Condition(String),
    /// An option that the protocol itself sets.
    #[error("option {1} (`{0}`) is set by the DHCP server itself")]
    Reserved(String, u8),
    /// A value that is not written as the option's values are.
    #[error("`{value}` is no value of option `{name}`, which takes {expected}")]
    Value {
        /// The option as it was named.
        name: String,
        /// The value.
        value: String,
        /// What is expected.
        expected: &'static str,
    },
    /// A value of too many bytes.
    #[error("the value of option `{0}` is longer than {MAX_VALUE} bytes")]
    TooLong(String),
}

/// How the value of an option is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Address,
    Addresses,
    /// Addresses, an even number of them.
    Pairs,
    U8,
    U16,
    U16s,
    U32,
    I32,
    Bool,
    Text,
    /// Domain names (RFC 1035, 3.1), uncompressed.
    Names,
    /// SIP servers: names or addresses, behind a byte that says which (RFC 3361, 3).
    Sip,
    /// Destinations and next hops (RFC 3442).
    Routes,
    Hex,
    /// By its looks.
    Any,
}

impl Kind {
    const fn expected(self) -> &'static str {
        match self {
            Kind::Address => "one IPv4 address",
            Kind::Addresses => "IPv4 addresses with commas between",
            Kind::Pairs => "pairs of IPv4 addresses, with commas between all of them",
            Kind::U8 => "a number from 0 to 255",
            Kind::U16 => "a number from 0 to 65535",
            Kind::U16s => "numbers from 0 to 65535 with commas between",
            Kind::U32 => "a number from 0 to 4294967295",
            Kind::I32 => "a number from -2147483648 to 2147483647",
            Kind::Bool => "true or false",
            Kind::Text => "a text that is not empty",
            Kind::Names => "domain names with commas between",
            Kind::Sip => "domain names, or IPv4 addresses, with commas between",
            Kind::Routes => "destination,next-hop,… (`10.0.0.0/8,192.0.2.1`)",
            Kind::Hex => "bytes in hexadecimal (`0x0102` or `01:02`)",
            Kind::Any => "a value that is not empty",
        }
    }
}

/// Names by code; the first of a code is the one that is shown. (IANA, "BOOTP Vendor Extensions and DHCP Options".)
#[rustfmt::skip]
const NAMES: &[(u8, &str, Kind)] = &[
    (1, "netmask", Kind::Address), (1, "subnet-mask", Kind::Address),
    (2, "time-offset", Kind::I32),
    (3, "router", Kind::Addresses), (3, "routers", Kind::Addresses),
    (4, "time-server", Kind::Addresses), (4, "time-servers", Kind::Addresses),
    (6, "dns-server", Kind::Addresses), (6, "domain-name-servers", Kind::Addresses),
    (7, "log-server", Kind::Addresses), (7, "log-servers", Kind::Addresses),
    (9, "lpr-server", Kind::Addresses), (9, "lpr-servers", Kind::Addresses),
    (12, "hostname", Kind::Text), (12, "host-name", Kind::Text),
    (13, "boot-file-size", Kind::U16), (13, "boot-size", Kind::U16),
    (15, "domain-name", Kind::Text),
    (16, "swap-server", Kind::Address),
    (17, "root-path", Kind::Text),
    (18, "extension-path", Kind::Text), (18, "extensions-path", Kind::Text),
    (19, "ip-forward-enable", Kind::Bool), (19, "ip-forwarding", Kind::Bool),
    (20, "non-local-source-routing", Kind::Bool),
    (21, "policy-filter", Kind::Pairs),
    (22, "max-datagram-reassembly", Kind::U16), (22, "max-dgram-reassembly", Kind::U16),
    (23, "default-ttl", Kind::U8), (23, "default-ip-ttl", Kind::U8),
    (25, "path-mtu-plateau-table", Kind::U16s),
    (26, "mtu", Kind::U16), (26, "interface-mtu", Kind::U16),
    (27, "all-subnets-local", Kind::Bool),
    (28, "broadcast", Kind::Address), (28, "broadcast-address", Kind::Address),
    (31, "router-discovery", Kind::Bool),
    (32, "router-solicitation", Kind::Address), (32, "router-solicitation-address", Kind::Address),
    (33, "static-route", Kind::Pairs), (33, "static-routes", Kind::Pairs),
    (34, "trailer-encapsulation", Kind::Bool),
    (35, "arp-timeout", Kind::U32), (35, "arp-cache-timeout", Kind::U32),
    (36, "ethernet-encap", Kind::Bool), (36, "ieee802-3-encapsulation", Kind::Bool),
    (37, "tcp-ttl", Kind::U8), (37, "default-tcp-ttl", Kind::U8),
    (38, "tcp-keepalive", Kind::U32), (38, "tcp-keepalive-interval", Kind::U32),
    (40, "nis-domain", Kind::Text),
    (41, "nis-server", Kind::Addresses), (41, "nis-servers", Kind::Addresses),
    (42, "ntp-server", Kind::Addresses), (42, "ntp-servers", Kind::Addresses),
    (43, "vendor-encap", Kind::Hex), (43, "vendor-encapsulated-options", Kind::Hex),
    (44, "netbios-ns", Kind::Addresses), (44, "netbios-name-servers", Kind::Addresses),
    (45, "netbios-dd", Kind::Addresses), (45, "netbios-dd-server", Kind::Addresses),
    (46, "netbios-nodetype", Kind::U8), (46, "netbios-node-type", Kind::U8),
    (47, "netbios-scope", Kind::Text),
    (48, "x-windows-fs", Kind::Addresses), (48, "font-servers", Kind::Addresses),
    (49, "x-windows-dm", Kind::Addresses), (49, "x-display-manager", Kind::Addresses),
    (50, "requested-address", Kind::Address), (50, "dhcp-requested-address", Kind::Address),
    (51, "lease-time", Kind::U32), (51, "dhcp-lease-time", Kind::U32),
    (52, "option-overload", Kind::U8), (52, "dhcp-option-overload", Kind::U8),
    (53, "message-type", Kind::U8), (53, "dhcp-message-type", Kind::U8),
    (54, "server-identifier", Kind::Address), (54, "dhcp-server-identifier", Kind::Address),
    (55, "parameter-request", Kind::Hex), (55, "dhcp-parameter-request-list", Kind::Hex),
    (56, "message", Kind::Text), (56, "dhcp-message", Kind::Text),
    (57, "max-message-size", Kind::U16), (57, "dhcp-max-message-size", Kind::U16),
    (58, "T1", Kind::U32), (58, "dhcp-renewal-time", Kind::U32),
    (59, "T2", Kind::U32), (59, "dhcp-rebinding-time", Kind::U32),
    (60, "vendor-class", Kind::Text), (60, "vendor-class-identifier", Kind::Text),
    (61, "client-id", Kind::Hex), (61, "dhcp-client-identifier", Kind::Hex),
    (64, "nis+-domain", Kind::Text), (64, "nisplus-domain", Kind::Text),
    (65, "nis+-server", Kind::Addresses), (65, "nisplus-servers", Kind::Addresses),
    (66, "tftp-server", Kind::Text), (66, "tftp-server-name", Kind::Text),
    (67, "bootfile-name", Kind::Text),
    (68, "mobile-ip-home", Kind::Addresses), (68, "mobile-ip-home-agent", Kind::Addresses),
    (69, "smtp-server", Kind::Addresses),
    (70, "pop3-server", Kind::Addresses), (70, "pop-server", Kind::Addresses),
    (71, "nntp-server", Kind::Addresses),
    (72, "www-server", Kind::Addresses),
    (73, "finger-server", Kind::Addresses),
    (74, "irc-server", Kind::Addresses),
    (77, "user-class", Kind::Text),
    (80, "rapid-commit", Kind::Hex),
    (82, "agent-id", Kind::Hex), (82, "relay-agent-information", Kind::Hex),
    (93, "client-arch", Kind::U16s),
    (100, "posix-timezone", Kind::Text), (100, "pcode", Kind::Text),
    (101, "tzdb-timezone", Kind::Text), (101, "tcode", Kind::Text),
    (108, "ipv6-only", Kind::U32), (108, "v6-only-preferred", Kind::U32),
    (114, "captive-portal", Kind::Text), (114, "default-url", Kind::Text),
    (116, "auto-config", Kind::U8),
    (118, "subnet-select", Kind::Address), (118, "subnet-selection", Kind::Address),
    (119, "domain-search", Kind::Names),
    (120, "sip-server", Kind::Sip), (120, "sip-servers", Kind::Sip),
    (121, "classless-static-route", Kind::Routes), (121, "classless-static-routes", Kind::Routes),
    (125, "vendor-id-encap", Kind::Hex), (125, "vivso", Kind::Hex),
    (150, "tftp-server-address", Kind::Addresses),
    (175, "ipxe-encap-opts", Kind::Hex),
    (208, "pxelinux-magic", Kind::Hex),
    (209, "config-file", Kind::Text), (209, "pxelinux-configfile", Kind::Text),
    (210, "path-prefix", Kind::Text), (210, "pxelinux-pathprefix", Kind::Text),
    (211, "reboot-time", Kind::U32), (211, "pxelinux-reboottime", Kind::U32),
    (249, "ms-classless-static-route", Kind::Routes), (249, "ms-classless-static-routes", Kind::Routes),
    (252, "wpad", Kind::Text), (252, "wpad-url", Kind::Text),
    (code::SERVER_IP_ADDRESS, "server-ip-address", Kind::Address),
];

/// What the protocol itself says: a value of the user's would break it.
const RESERVED: [u8; 12] = [
    code::PAD,
    code::REQUESTED_ADDRESS,
    code::LEASE_TIME,
    code::OVERLOAD,
    code::MESSAGE_TYPE,
    code::SERVER_IDENTIFIER,
    code::PARAMETER_REQUEST,
    code::MESSAGE,
    code::MAX_MESSAGE_SIZE,
    code::CLIENT_IDENTIFIER,
    code::RAPID_COMMIT,
    code::RELAY_AGENT,
];

/// Whether an option is the protocol's own, which no user may set.
pub fn is_reserved(code: u8) -> bool {
    RESERVED.contains(&code)
}

/// The name of an option, if it has one.
pub fn name(code: u8) -> Option<&'static str> {
    NAMES.iter().find(|(found, ..)| *found == code).map(|(_, name, _)| *name)
}

fn kind(code: u8) -> Kind {
    NAMES.iter().find(|(found, ..)| *found == code).map_or(Kind::Any, |(.., kind)| *kind)
}

impl Opt {
    /// Reads an option by its name or number and its value as text.
    ///
    /// # Errors
    /// [`OptError`]: no such option, one that is the server's own, or a value that it does not take.
    pub fn parse(name: &str, value: &str) -> Result<Opt, OptError> {
        if name.starts_with("tag:") || value.starts_with("tag:") {
            return Err(OptError::Condition(if name.starts_with("tag:") { name } else { value }.to_owned()));
        }
        let named = NAMES.iter().find(|(_, found, _)| found.eq_ignore_ascii_case(name));
        let code = match named {
            Some((code, ..)) => *code,
            None if name.starts_with(|c: char| c.is_ascii_digit()) => {
                name.parse().map_err(|_| OptError::Name(name.to_owned()))?
            }
            None => return Err(OptError::Name(name.to_owned())),
        };
        if is_reserved(code) {
            return Err(OptError::Reserved(name.to_owned(), code));
        }
        let kind = kind(code);
        let bytes = read(kind, value.trim()).ok_or_else(|| OptError::Value {
            name: name.to_owned(),
            value: value.to_owned(),
            expected: kind.expected(),
        })?;
        if bytes.len() > MAX_VALUE {
            return Err(OptError::TooLong(name.to_owned()));
        }
        Ok(Opt { code, value: bytes })
    }
}

impl fmt::Display for Opt {
    /// Name and value; a value that is not what its option takes is shown in hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match name(self.code) {
            Some(name) => f.write_str(name)?,
            None => write!(f, "{}", self.code)?,
        }
        let text = write(kind(self.code), &self.value).unwrap_or_else(|| hex(&self.value));
        write!(f, " {text}")
    }
}

fn read(kind: Kind, text: &str) -> Option<Vec<u8>> {
    let parts = || text.split(',').map(str::trim);
    let addresses = || {
        let all: Option<Vec<Ipv4Addr>> = parts().map(|part| part.parse().ok()).collect();
        all.map(|all| all.iter().flat_map(Ipv4Addr::octets).collect::<Vec<u8>>())
    };
    Some(match kind {
        Kind::Address => text.parse::<Ipv4Addr>().ok()?.octets().to_vec(),
        Kind::Addresses => addresses()?,
        Kind::Pairs => addresses().filter(|bytes| bytes.len().is_multiple_of(8))?,
        Kind::U8 => vec![text.parse().ok()?],
        Kind::U16 => text.parse::<u16>().ok()?.to_be_bytes().to_vec(),
        Kind::U16s => {
            let all: Option<Vec<u16>> = parts().map(|part| part.parse().ok()).collect();
            all?.iter().flat_map(|number| number.to_be_bytes()).collect()
        }
        Kind::U32 => text.parse::<u32>().ok()?.to_be_bytes().to_vec(),
        Kind::I32 => text.parse::<i32>().ok()?.to_be_bytes().to_vec(),
        Kind::Bool => match text {
            "true" | "1" => vec![1],
            "false" | "0" => vec![0],
            _ => return None,
        },
        Kind::Text => read_text(text)?,
        Kind::Names => read_names(text)?,
        Kind::Sip => match addresses() {
            Some(bytes) => [vec![1], bytes].concat(),
            None => [vec![0], read_names(text)?].concat(),
        },
        Kind::Routes => read_routes(text)?,
        Kind::Hex => read_hex(text)?,
        Kind::Any => addresses()
            .or_else(|| read_hex(text))
            .or_else(|| read_number(text))
            .or_else(|| read_text(text))?,
    })
}

fn read_text(text: &str) -> Option<Vec<u8>> {
    let quoted = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    Some(quoted.unwrap_or(text).as_bytes().to_vec()).filter(|bytes| !bytes.is_empty())
}

fn read_number(text: &str) -> Option<Vec<u8>> {
    let number: u32 = text.parse().ok().filter(|_| !text.starts_with('+'))?;
    Some(match (u8::try_from(number), u16::try_from(number)) {
        (Ok(number), _) => vec![number],
        (_, Ok(number)) => number.to_be_bytes().to_vec(),
        _ => number.to_be_bytes().to_vec(),
    })
}

/// `0x0102…`, or `01:02:…` of at least two.
fn read_hex(text: &str) -> Option<Vec<u8>> {
    let byte = |digits: &str| {
        let fits = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        u8::from_str_radix(digits, 16).ok().filter(|_| fits)
    };
    let bytes: Option<Vec<u8>> = match text.strip_prefix("0x") {
        Some(digits) => {
            let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
            let pairs = pairs.iter().map(|pair| std::str::from_utf8(pair).ok().and_then(byte));
            pairs.chain((!rest.is_empty()).then_some(None)).collect()
        }
        None if text.contains(':') => text.split(':').map(byte).collect(),
        None => None,
    };
    bytes.filter(|bytes| !bytes.is_empty())
}

fn read_names(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    text.split(',').all(|name| put_name(&mut bytes, name.trim())).then_some(bytes)
}

fn read_routes(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut parts) = (Vec::new(), text.split(',').map(str::trim));
    while let Some(destination) = parts.next() {
        let next_hop: Ipv4Addr = parts.next()?.parse().ok()?;
        let destination = match destination.parse() {
            Ok(destination) => destination,
            Err(_) => Ipv4Net::from(destination.parse::<Ipv4Addr>().ok()?),
        };
        put_route(&mut bytes, destination, next_hop);
    }
    Some(bytes)
}

/// Appends a domain name, uncompressed (RFC 1035, 3.1; RFC 3397, 2 lets a name be compressed, but need not). False, and
/// nothing is appended, when it is none: labels have 1 to 63 bytes, the whole has at most 255.
pub fn put_name(to: &mut Vec<u8>, name: &str) -> bool {
    let before = to.len();
    let name = name.strip_suffix('.').unwrap_or(name);
    for label in name.split('.') {
        match u8::try_from(label.len()) {
            Ok(len @ 1..=63) if label.bytes().all(|byte| byte.is_ascii_graphic()) => {
                to.push(len);
                to.extend_from_slice(label.as_bytes());
            }
            _ => {
                to.truncate(before);
                return false;
            }
        }
    }
    to.push(0);
    let fits = to.len() - before <= 255;
    if !fits {
        to.truncate(before);
    }
    fits
}

/// Appends a route: the destination's width, its significant octets, the next hop (RFC 3442, "Classless Route Option
/// Format").
pub fn put_route(to: &mut Vec<u8>, destination: Ipv4Net, next_hop: Ipv4Addr) {
    let significant = usize::from(destination.prefix_len().div_ceil(8));
    to.push(destination.prefix_len());
    to.extend(destination.network().octets().iter().take(significant));
    to.extend_from_slice(&next_hop.octets());
}

fn write(kind: Kind, bytes: &[u8]) -> Option<String> {
    let join = |parts: Vec<String>| Some(parts.join(",")).filter(|text| !text.is_empty());
    let addresses = |bytes: &[u8]| {
        let (words, rest) = bytes.as_chunks::<4>();
        join(words.iter().map(|&word| Ipv4Addr::from(word).to_string()).collect()).filter(|_| rest.is_empty())
    };
    match (kind, bytes) {
        (Kind::Address, _) => addresses(bytes).filter(|_| bytes.len() == 4),
        (Kind::Addresses, _) => addresses(bytes),
        (Kind::Pairs, _) => addresses(bytes).filter(|_| bytes.len().is_multiple_of(8)),
        (Kind::U8, [number]) => Some(number.to_string()),
        (Kind::U16, &[a, b]) => Some(u16::from_be_bytes([a, b]).to_string()),
        (Kind::U16s, _) => {
            let (numbers, rest) = bytes.as_chunks::<2>();
            let numbers = numbers.iter().map(|&number| u16::from_be_bytes(number).to_string());
            join(numbers.collect()).filter(|_| rest.is_empty())
        }
        (Kind::U32, &[a, b, c, d]) => Some(u32::from_be_bytes([a, b, c, d]).to_string()),
        (Kind::I32, &[a, b, c, d]) => Some(i32::from_be_bytes([a, b, c, d]).to_string()),
        (Kind::Bool, [0]) => Some("false".to_owned()),
        (Kind::Bool, [1]) => Some("true".to_owned()),
        (Kind::Text | Kind::Any, _) => {
            let text =
                std::str::from_utf8(bytes).ok().filter(|text| !text.contains(|c: char| c.is_control()))?;
            // In quotes where it would be read otherwise.
            let bare = kind == Kind::Text
                || read(Kind::Any, text).as_deref() == Some(bytes) && looks_like_text(text);
            let bare = bare
                && text.trim() == text
                && !text.starts_with('"')
                && !text.is_empty()
                && !text.starts_with("tag:");
            Some(if bare { text.to_owned() } else { format!("\"{text}\"") })
        }
        (Kind::Names, _) => write_names(bytes),
        (Kind::Sip, [0, names @ ..]) => write_names(names),
        (Kind::Sip, [1, bytes @ ..]) => addresses(bytes),
        (Kind::Routes, _) => write_routes(bytes),
        _ => None,
    }
}

fn looks_like_text(text: &str) -> bool {
    text.chars().any(|c| !c.is_ascii_hexdigit() && !matches!(c, '.' | ',' | ':' | 'x' | ' '))
}

fn write_names(mut bytes: &[u8]) -> Option<String> {
    let (mut text, mut label) = (String::new(), false);
    while let [len, rest @ ..] = bytes {
        let (name, rest) = rest.split_at_checked(usize::from(*len)).filter(|_| *len < 64)?;
        let name =
            std::str::from_utf8(name).ok().filter(|name| name.bytes().all(|byte| byte.is_ascii_graphic()))?;
        // A dot or comma within a label would read as another name.
        if name.contains(['.', ',']) || *len == 0 && !label {
            return None;
        }
        if *len > 0 && !text.is_empty() {
            text.push(if label { '.' } else { ',' });
        }
        text.push_str(name);
        label = *len > 0;
        bytes = rest;
    }
    (!label && !text.is_empty()).then_some(text)
}

fn write_routes(mut bytes: &[u8]) -> Option<String> {
    let mut parts = Vec::new();
    while let [width, rest @ ..] = bytes {
        let (significant, rest) = rest.split_at_checked(usize::from(width.div_ceil(8)))?;
        let (next_hop, rest) = rest.split_first_chunk::<4>()?;
        let mut octets = [0; 4];
        octets.iter_mut().zip(significant).for_each(|(to, from)| *to = *from);
        let destination = Ipv4Net::new(octets.into(), *width).ok()?;
        parts.push(format!("{destination},{}", Ipv4Addr::from(*next_hop)));
        bytes = rest;
    }
    Some(parts.join(",")).filter(|text| !text.is_empty())
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold("0x".to_owned(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(name: &str, value: &str) -> Vec<u8> {
        Opt::parse(name, value).unwrap_or_else(|error| panic!("{error}")).value
    }

    #[test]
    fn values_are_written_as_their_options_take_them() {
        assert_eq!(value("ntp-server", "192.0.2.1, 192.0.2.2"), [192, 0, 2, 1, 192, 0, 2, 2]);
        assert_eq!(value("MTU", "1450"), [5, 170]);
        assert_eq!(value("time-offset", "-3600"), (-3600i32).to_be_bytes());
        assert_eq!(value("bootfile-name", "pxelinux.0"), b"pxelinux.0");
        assert_eq!(value("67", "\"http://192.0.2.1/a b\""), b"http://192.0.2.1/a b");
        assert_eq!(value("ip-forward-enable", "true"), [1]);
        assert_eq!(value("domain-search", "a.example,b.example."), b"\x01a\x07example\0\x01b\x07example\0");
        // RFC 3361, 3.1 and 3.2.
        assert_eq!(value("sip-server", "192.0.2.1"), [1, 192, 0, 2, 1]);
        assert_eq!(value("sip-server", "sip.example"), b"\0\x03sip\x07example\0");
        assert_eq!(value("vendor-encap", "0x060108"), [6, 1, 8]);
        assert_eq!(
            Opt::parse("255", "192.0.2.9").unwrap(),
            Opt { code: code::SERVER_IP_ADDRESS, value: vec![192, 0, 2, 9] }
        );
        assert_eq!(Opt::parse("server-ip-address", "192.0.2.9").unwrap().code, code::SERVER_IP_ADDRESS);
    }

    /// The table in RFC 3442, "Classless Route Option Format".
    #[test]
    fn routes_are_those_of_rfc_3442() {
        let hop = [192, 0, 2, 1];
        for (text, expected) in [
            ("0.0.0.0/0", &[0][..]),
            ("10.0.0.0/8", &[8, 10]),
            ("10.0.0.0/24", &[24, 10, 0, 0]),
            ("10.17.0.0/16", &[16, 10, 17]),
            ("10.27.129.0/24", &[24, 10, 27, 129]),
            ("10.229.0.128/25", &[25, 10, 229, 0, 128]),
            ("10.198.122.47/32", &[32, 10, 198, 122, 47]),
            ("10.198.122.47", &[32, 10, 198, 122, 47]),
        ] {
            assert_eq!(
                value("classless-static-route", &format!("{text},192.0.2.1")),
                [expected, &hop].concat()
            );
        }
        assert_eq!(
            value("249", "10.1.2.3/8, 192.0.2.1"),
            [8, 10, 192, 0, 2, 1],
            "bits of the host are no part of it"
        );
    }

    #[test]
    fn a_code_without_a_name_takes_what_its_value_looks_like() {
        assert_eq!(value("224", "192.0.2.1,192.0.2.2"), [192, 0, 2, 1, 192, 0, 2, 2]);
        assert_eq!(value("224", "0x0102ff"), [1, 2, 255]);
        assert_eq!(value("224", "01:aB"), [1, 0xab]);
        assert_eq!(
            (value("224", "7"), value("224", "700"), value("224", "70000")),
            (vec![7], vec![2, 188], vec![0, 1, 0x11, 0x70])
        );
        assert_eq!(value("224", "\"7\""), b"7");
        assert_eq!(value("224", "a:b"), b"a:b");
        assert_eq!(value("224", "0x1"), b"0x1");
    }

    #[test]
    fn what_is_no_option_is_refused_with_a_reason() {
        let error = |name: &str, value: &str| Opt::parse(name, value).unwrap_err().to_string();
        assert!(error("nonsense", "1").contains("give its name"));
        assert!(error("256", "1").contains("`256`"));
        assert!(error("+67", "1").contains("`+67`"));
        assert!(error("lease-time", "1").contains("option 51"));
        for code in RESERVED {
            assert!(matches!(Opt::parse(&code.to_string(), "1"), Err(OptError::Reserved(..))), "{code}");
        }
        assert!(error("tag:ipxe,67", "x").contains("tag:"));
        assert!(error("67", "tag:ipxe,x").contains("tag:"));
        for (name, value) in [
            ("router", ""),
            ("router", "192.0.2.1,"),
            ("mtu", "65536"),
            ("ttl", "1"),
            ("bootfile-name", ""),
            ("policy-filter", "192.0.2.1"),
            ("domain-search", "a..b"),
            ("domain-search", ""),
            ("121", "10.0.0.0/8"),
            ("121", "10.0.0.0/33,192.0.2.1"),
            ("43", "12"),
            ("43", "0x"),
            ("43", "+1:+2"),
            ("224", ""),
        ] {
            assert!(Opt::parse(name, value).is_err(), "{name} {value}");
        }
        assert!(error("mtu", "many").contains("0 to 65535"));
        assert_eq!(Opt::parse("67", &"a".repeat(1025)), Err(OptError::TooLong("67".to_owned())));
        assert!(Opt::parse("119", &"a".repeat(64)).is_err());
        assert!(Opt::parse("119", &vec!["a".repeat(63); 4].join(".")).is_err(), "257 bytes");
    }

    #[test]
    fn names_are_unique_and_of_one_kind() {
        for (at, (code, name, kind)) in NAMES.iter().enumerate() {
            let same =
                |(other, found, _): &&(u8, &str, Kind)| found.eq_ignore_ascii_case(name) && *other != *code;
            assert_eq!(NAMES[at + 1..].iter().find(same), None);
            assert_eq!(super::kind(*code), *kind);
        }
        assert!(NAMES.is_sorted_by_key(|(code, ..)| *code));
        assert_eq!((name(67), name(224)), (Some("bootfile-name"), None));
    }

    proptest! {
        /// What is shown reads back as the same bytes, and any bytes can be shown.
        #[test]
        fn what_is_shown_reads_back(code in 1u8..=255, value in prop::collection::vec(prop_oneof![any::<u8>(), 0u8..9, b' '..b'~'], 0..40)) {
            let shown = Opt { code, value: value.clone() }.to_string();
            let (_, text) = shown.split_once(' ').unwrap();
            prop_assume!(!RESERVED.contains(&code) && !text.starts_with("tag:"));
            if write(kind(code), &value).is_some() && !value.is_empty() {
                let again = Opt::parse(&code.to_string(), text);
                prop_assert_eq!(again.map(|opt| opt.value), Ok(value), "{}", shown);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(name in "[a-z0-9:+-]{1,12}", value in "\\PC{0,60}") {
            let _ = Opt::parse(&name, &value);
            for (code, ..) in NAMES {
                let _ = Opt::parse(&code.to_string(), &value);
            }
        }
    }
}
