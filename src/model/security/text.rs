//! Values of rules that are a number or a text with a grammar of its own.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de};

use super::protocol;
use crate::model::diagnostic::nearest;
use crate::model::text::{Ip, PortRange, Prefix};

/// `protocol`: a name, a number from 0 to 255, or a number as a text; none: any.
pub(super) struct Protocol(pub(super) Option<u8>);

impl Protocol {
    fn of(text: &str) -> Result<Protocol, String> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let number = if digits { text.parse().ok() } else { protocol::number(text) };
        let number = number.ok_or_else(|| {
            let near = nearest(&text.to_lowercase(), protocol::names())
                .map(|near| format!("; did you mean `{near}`?"));
            let near = near.unwrap_or_else(|| ": give its number, 0 to 255".to_owned());
            format!("`{text}` is no protocol that is known by name{near}")
        })?;
        Ok(Protocol(Some(number).filter(|number| *number != 0)))
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Protocol, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Protocol;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a protocol's name or number")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Protocol, E> {
                Protocol::of(text).map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Protocol, E> {
                let number = u8::try_from(number).map_err(|_| {
                    E::custom(format!("{number} is outside of 0 to 255, a protocol's numbers"))
                })?;
                Ok(Protocol(Some(number).filter(|number| *number != 0)))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// `ports`: one, or a text with several and ranges of them: `"8000-8010,9000"`. Sorted, and none in two ranges.
pub(super) struct Ports(pub(super) Vec<(u16, u16)>);

impl Ports {
    fn of(text: &str) -> Result<Ports, String> {
        let mut ranges = text.split(',').map(|part| range(part.trim())).collect::<Result<Vec<_>, _>>()?;
        ranges.sort_unstable();
        for pair in ranges.windows(2) {
            if let [(_, last), (first, _)] = pair
                && first <= last
            {
                return Err(format!("port {first} is listed twice in \"{text}\""));
            }
        }
        Ok(Ports(ranges))
    }
}

/// Neutron's bounds: 0 is no port.
fn range(text: &str) -> Result<(u16, u16), String> {
    let one = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u16>().ok())?;
    if let Some(port) = one(text).filter(|port| *port > 0) {
        return Ok((port, port));
    }
    if let Some((first, last)) = text.split_once('-')
        && let (Some(first), Some(last)) = (one(first), one(last))
        && last < first
    {
        return Err(format!("the range {first}-{last} is upside down: write {last}-{first}"));
    }
    text.parse::<PortRange>().map(|range| range.0).map_err(|_| {
        format!("`{text}` is neither a port (1 to 65535) nor a range of ports like \"8000-8010\"")
    })
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Ports, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Ports;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port or a text like \"80,8000-8010\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Ports, E> {
                Ports::of(text).map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, port: i64) -> Result<Ports, E> {
                let port = u16::try_from(port).ok().filter(|port| *port > 0);
                let port = port.ok_or_else(|| E::custom("a port is a number from 1 to 65535"))?;
                Ok(Ports(vec![(port, port)]))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A prefix, or an address alone, which is one of its own. Host bits may be set; who reads it judges them.
pub(super) struct Net(pub(super) IpNet);

impl<'de> Deserialize<'de> for Net {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Net, D::Error> {
        let text = String::deserialize(deserializer)?;
        let net = match text.contains('/') {
            true => text.parse::<Prefix>().map(|prefix| prefix.0),
            false => text.parse::<Ip>().map(|ip| IpNet::from(ip.0)),
        };
        net.map(Net).map_err(de::Error::custom)
    }
}

/// Why nobody can send from these addresses, if so.
pub(super) fn no_source(net: &IpNet) -> Option<&'static str> {
    let is_multicast = match net {
        IpNet::V4(net) => net.addr().is_multicast() && net.prefix_len() >= 4,
        IpNet::V6(net) => net.addr().is_multicast() && net.prefix_len() >= 8,
    };
    let alone = net.prefix_len() == net.max_prefix_len();
    match net.addr() {
        _ if is_multicast => Some("is multicast: nobody sends from there"),
        address if alone && address.is_unspecified() => Some("is no host's address"),
        IpAddr::V4(address) if alone && address.is_broadcast() => Some("is no host's address"),
        address if address.is_loopback() => Some("is loopback, which is on no network"),
        _ => None,
    }
}
