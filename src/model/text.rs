//! Values that are written as a text with a grammar of its own: addresses, ranges, modes, names of the system.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de};

use crate::types::{ParseError, VlanId, Vni};

/// Deserialises from a text by `FromStr`.
macro_rules! from_text {
    ($name:ident) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

/// Permission bits as text: `"0660"`.
pub(super) struct Mode(pub(super) u32);
from_text!(Mode);

impl FromStr for Mode {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Mode, ParseError> {
        let digits = (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| digits && *mode <= 0o777);
        mode.map(Mode).ok_or_else(|| ParseError(format!("`{text}` is not an octal mode like \"0660\"")))
    }
}

/// Two numbers with `separator` between them, the first not above the second.
fn pair<T: PartialOrd>(text: &str, separator: char, id: fn(&str) -> Option<T>) -> Option<(T, T)> {
    let (from, to) = text.split_once(separator)?;
    let (from, to) = (id(from)?, id(to)?);
    (from <= to).then_some((from, to))
}

/// A number in digits alone: no sign.
fn number<T: FromStr>(text: &str) -> Option<T> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

fn vlan_id(text: &str) -> Option<VlanId> {
    number(text).and_then(VlanId::new)
}

fn vni(text: &str) -> Option<Vni> {
    number(text).and_then(Vni::new)
}

/// Neutron's notation for ranges of VLAN IDs: `"100:199"`.
pub(super) struct IdRange(pub(super) (VlanId, VlanId));
from_text!(IdRange);

impl FromStr for IdRange {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<IdRange, ParseError> {
        let bad = || ParseError(format!("`{text}` is not a range of VLAN IDs (1 to 4094) like \"100:199\""));
        pair(text, ':', vlan_id).map(IdRange).ok_or_else(bad)
    }
}

/// The same for VNIs: `"1:1000"`.
pub(super) struct VniRange(pub(super) (Vni, Vni));
from_text!(VniRange);

impl FromStr for VniRange {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<VniRange, ParseError> {
        let bad =
            || ParseError(format!("`{text}` is not a range of VNIs (0 to 16777215) like \"1000:1999\""));
        pair(text, ':', vni).map(VniRange).ok_or_else(bad)
    }
}

/// VLANs of a trunk: `"120"` or `"130-139"`.
pub(super) struct Vlans(pub(super) (VlanId, VlanId));
from_text!(Vlans);

impl FromStr for Vlans {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Vlans, ParseError> {
        let bad = || {
            ParseError(format!(
                "`{text}` is not a VLAN ID (1 to 4094) like \"120\" or a range like \"130-139\""
            ))
        };
        vlan_id(text).map(|id| (id, id)).or_else(|| pair(text, '-', vlan_id)).map(Vlans).ok_or_else(bad)
    }
}

/// An address of a host and the prefix length of its subnet: `"192.168.120.5/24"`.
pub(super) struct Cidr(pub(super) IpAddr, pub(super) u8);
from_text!(Cidr);

impl FromStr for Cidr {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Cidr, ParseError> {
        let error = |what: &str| ParseError(format!("`{text}` {what}"));
        let (ip, prefix) = text.split_once('/').ok_or_else(|| error("has no prefix length like /24"))?;
        let ip: IpAddr =
            ip.parse().map_err(|_| error("is not an address like 192.0.2.5/24 or 2001:db8::5/64"))?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let digits = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
        let prefix = prefix.parse::<u8>().ok().filter(|prefix| digits && (1..=most).contains(prefix));
        let prefix = prefix.ok_or_else(|| error(&format!("has a prefix length outside of 1 to {most}")))?;
        if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
            return Err(error("is not an address that a device can have"));
        }
        match ip {
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
                Err(error("is an IPv4 address: write it as one"))
            }
            // With 31 bits both addresses are hosts (RFC 3021).
            IpAddr::V4(v4) if prefix < 31 => match v4.to_bits() << prefix >> prefix {
                0 => Err(error("is the address of the subnet, not of a host")),
                host if host == u32::MAX >> prefix => Err(error("is the broadcast address of its subnet")),
                _ => Ok(Cidr(ip, prefix)),
            },
            _ => Ok(Cidr(ip, prefix)),
        }
    }
}

/// An IP address alone: `"192.0.2.5"`.
pub(super) struct Ip(pub(super) IpAddr);
from_text!(Ip);

impl FromStr for Ip {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Ip, ParseError> {
        let error = |what: &str| ParseError(format!("`{text}` {what}"));
        match text.parse() {
            Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => {
                Err(error("is an IPv4 address: write it as one"))
            }
            Ok(ip) => Ok(Ip(ip)),
            Err(_) => Err(error("is not an address like 192.0.2.5 or 2001:db8::5")),
        }
    }
}

/// A prefix: `"10.0.0.0/24"`. Host bits may be set; who reads it judges them.
pub(super) struct Prefix(pub(super) IpNet);
from_text!(Prefix);

impl FromStr for Prefix {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Prefix, ParseError> {
        let error = |what: &str| ParseError(format!("`{text}` {what}"));
        let (ip, prefix) = text.split_once('/').ok_or_else(|| error("has no prefix length like /24"))?;
        let ip: IpAddr =
            ip.parse().map_err(|_| error("is not a prefix like 10.0.0.0/24 or 2001:db8::/64"))?;
        if matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
            return Err(error("is an IPv4 prefix: write it as one"));
        }
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let net = number(prefix).and_then(|prefix| IpNet::new(ip, prefix).ok());
        net.map(Prefix).ok_or_else(|| error(&format!("has a prefix length outside of 0 to {most}")))
    }
}

/// Addresses from one to another, both included: `"10.0.0.10-10.0.0.99"`.
pub(super) struct IpRange(pub(super) (IpAddr, IpAddr));
from_text!(IpRange);

impl FromStr for IpRange {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<IpRange, ParseError> {
        let ip = |text: &str| text.trim().parse::<Ip>().ok().map(|ip| ip.0);
        let ips = text.split_once('-').and_then(|(from, to)| Some((ip(from)?, ip(to)?)));
        let right = |(from, to): &(IpAddr, IpAddr)| from.is_ipv4() == to.is_ipv4() && from <= to;
        ips.filter(right).map(IpRange).ok_or_else(|| {
            ParseError(format!("`{text}` is not a range of addresses like \"10.0.0.10-10.0.0.99\""))
        })
    }
}

/// `gateway_ip`: an address, or `false` for none.
pub(super) struct Gateway(pub(super) Option<IpAddr>);

impl<'de> Deserialize<'de> for Gateway {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Gateway, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Gateway;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an address or false")
            }

            fn visit_str<E: de::Error>(self, ip: &str) -> Result<Gateway, E> {
                ip.parse::<Ip>().map(|ip| Gateway(Some(ip.0))).map_err(E::custom)
            }

            fn visit_bool<E: de::Error>(self, on: bool) -> Result<Gateway, E> {
                let error = || E::invalid_value(de::Unexpected::Bool(on), &self);
                if on { Err(error()) } else { Ok(Gateway(None)) }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Ports of TCP and its like from one to another, both included: `"8000-8010"`, or with Neutron's colon.
pub(super) struct PortRange(pub(super) (u16, u16));
from_text!(PortRange);

impl FromStr for PortRange {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<PortRange, ParseError> {
        let port = |text: &str| number::<u16>(text).filter(|port| *port > 0);
        let ports = pair(text, '-', port).or_else(|| pair(text, ':', port));
        ports.map(PortRange).ok_or_else(|| {
            ParseError(format!("`{text}` is not a range of ports (1 to 65535) like \"8000-8010\""))
        })
    }
}

/// A network namespace: a name under /run/netns or an absolute path. Those that `ip netns` made get their name alone,
/// so that one namespace has one spelling.
pub(super) struct Netns(pub(super) String);
from_text!(Netns);

impl FromStr for Netns {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Netns, ParseError> {
        let named = text.strip_prefix("/run/netns/").or_else(|| text.strip_prefix("/var/run/netns/"));
        let name = named.filter(|name| !name.contains('/')).unwrap_or(text);
        let bad = name.is_empty()
            || name == "."
            || name == ".."
            || name.contains('\0')
            || (name.contains('/') && !name.starts_with('/'));
        if bad {
            let want = "is neither a name under /run/netns nor an absolute path";
            return Err(ParseError(format!("`{text}` {want}")));
        }
        Ok(Netns(name.to_owned()))
    }
}

/// A user by name or number.
pub(super) struct Owner(pub(super) String);

impl<'de> Deserialize<'de> for Owner {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Owner, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Owner;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a user's name or number")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Owner, E> {
                let bad =
                    name.is_empty() || name.chars().any(|c| c.is_control() || c.is_whitespace() || c == ':');
                if bad {
                    Err(E::custom(format!("`{name}` is not a user's name")))
                } else {
                    Ok(Owner(name.to_owned()))
                }
            }

            fn visit_i64<E: de::Error>(self, id: i64) -> Result<Owner, E> {
                // The largest number means "no user" to the kernel (`INVALID_UID`).
                let id = u32::try_from(id).ok().filter(|id| *id != u32::MAX);
                id.map(|id| Owner(id.to_string())).ok_or_else(|| E::custom("no user has this number"))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
