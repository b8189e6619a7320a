//! Options that a configuration names: by dnsmasq's name or Kea's, or by number.

use std::net::Ipv6Addr;

use thiserror::Error;

use super::{domain_name, option};

/// An option as it goes on the wire.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Opt {
    /// Its code.
    pub code: u16,
    /// Its value.
    pub value: Vec<u8>,
}

/// Why a configured option is none.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum BadOption {
    /// No such name, and no number from 1 to 65535.
    #[error("no DHCPv6 option is named `{0}`: give a known name or a number from 1 to 65535")]
    Unknown(String),
    /// The protocol itself has it.
    #[error("DHCPv6 option `{0}` is written by the server itself and cannot be set")]
    Reserved(String),
    /// Its value is of another form.
    #[error("DHCPv6 option `{name}` takes {takes}")]
    Value {
        /// The option.
        name: String,
        /// What its values are.
        takes: &'static str,
    },
}

/// How a value is written in a configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Addresses,
    Names,
    Text,
    /// Texts, each behind its length (RFC 5970, 3.2).
    Texts,
    Seconds,
    /// Suboptions, one for each server (RFC 5908, 4).
    Ntp,
    /// Octets, or else text.
    Any,
}

/// Names, codes and forms. Those of [`RESERVED`] are not among them.
const NAMES: &[(&str, u16, Form)] = &[
    ("sip-server-domain", 21, Form::Names),
    ("sip-server-dns", 21, Form::Names),
    ("sip-server", 22, Form::Addresses),
    ("sip-server-addr", 22, Form::Addresses),
    ("dns-server", option::DNS_SERVERS, Form::Addresses),
    ("dns-servers", option::DNS_SERVERS, Form::Addresses),
    ("domain-search", option::DOMAIN_LIST, Form::Names),
    ("nis-server", 27, Form::Addresses),
    ("nis-servers", 27, Form::Addresses),
    ("nis+-server", 28, Form::Addresses),
    ("nisp-servers", 28, Form::Addresses),
    ("nis-domain", 29, Form::Names),
    ("nis-domain-name", 29, Form::Names),
    ("nis+-domain", 30, Form::Names),
    ("nisp-domain-name", 30, Form::Names),
    ("sntp-server", option::SNTP_SERVERS, Form::Addresses),
    ("sntp-servers", option::SNTP_SERVERS, Form::Addresses),
    ("information-refresh-time", option::INFORMATION_REFRESH, Form::Seconds),
    ("new-posix-timezone", 41, Form::Text),
    ("new-tzdb-timezone", 42, Form::Text),
    ("ntp-server", option::NTP_SERVERS, Form::Ntp),
    ("bootfile-url", option::BOOT_FILE, Form::Text),
    ("bootfile-param", option::BOOT_PARAMETERS, Form::Texts),
];

/// What the server says by itself, or only clients and relay agents do: the whole of the protocol's own course.
const RESERVED: &[(&str, u16)] = &[
    ("client-id", option::CLIENT_ID),
    ("clientid", option::CLIENT_ID),
    ("server-id", option::SERVER_ID),
    ("serverid", option::SERVER_ID),
    ("ia-na", option::IA_NA),
    ("ia-ta", option::IA_TA),
    ("iaaddr", option::IA_ADDRESS),
    ("oro", option::REQUESTED),
    ("preference", 7),
    ("elapsed-time", 8),
    ("relay-msg", option::RELAY_MESSAGE),
    ("auth", 11),
    ("unicast", 12),
    ("status", option::STATUS),
    ("status-code", option::STATUS),
    ("rapid-commit", option::RAPID_COMMIT),
    ("interface-id", option::INTERFACE_ID),
    ("reconf-msg", 19),
    ("reconf-accept", 20),
    ("ia-pd", option::IA_PD),
    ("ia-prefix", 26),
    ("fqdn", option::FQDN),
    ("client-fqdn", option::FQDN),
    ("client-linklayer-addr", option::CLIENT_LINK_LAYER),
];

impl Opt {
    /// Reads an option: its name or number, and its value as text. Lists are separated by commas, and addresses may stand in
    /// brackets. The value of a number without a known form is octets when it is pairs of hexadecimal digits with colons
    /// between them; else it is the text itself.
    ///
    /// # Errors
    /// [`BadOption`].
    pub fn parse(name: &str, value: &str) -> Result<Opt, BadOption> {
        let wanted = name.trim().to_ascii_lowercase();
        let is = |known: &str, code: u16| known == wanted || wanted.parse() == Ok(code);
        if RESERVED.iter().any(|(known, code)| is(known, *code)) {
            return Err(BadOption::Reserved(name.to_owned()));
        }
        let known =
            NAMES.iter().find(|(known, code, _)| is(known, *code)).map(|(_, code, form)| (*code, *form));
        let numbered = || wanted.parse().ok().filter(|code| *code != 0).map(|code| (code, Form::Any));
        let (code, form) = known.or_else(numbered).ok_or_else(|| BadOption::Unknown(name.to_owned()))?;
        let value = form.read(value.trim()).filter(|value| u16::try_from(value.len()).is_ok());
        let value = value.ok_or_else(|| BadOption::Value { name: name.to_owned(), takes: form.takes() })?;
        Ok(Opt { code, value })
    }
}

impl Form {
    fn takes(self) -> &'static str {
        match self {
            Form::Addresses => "IPv6 addresses, separated by commas",
            Form::Names => "domain names, separated by commas",
            Form::Text => "text",
            Form::Texts => "texts, separated by commas",
            Form::Seconds => "a number of seconds",
            Form::Ntp => "IPv6 addresses and domain names, separated by commas",
            Form::Any => "octets as pairs of hexadecimal digits with colons between them, or text",
        }
    }

    fn read(self, value: &str) -> Option<Vec<u8>> {
        let items = || value.split(',').map(str::trim);
        match self {
            Form::Addresses => items()
                .map(|item| Some(address(item)?.octets()))
                .collect::<Option<Vec<_>>>()
                .map(|all| all.concat()),
            Form::Names => items().map(domain_name).collect::<Option<Vec<_>>>().map(|all| all.concat()),
            Form::Text => (!value.is_empty()).then(|| value.as_bytes().to_vec()),
            Form::Texts => items().map(counted).collect::<Option<Vec<_>>>().map(|all| all.concat()),
            Form::Seconds => value.parse().ok().map(|seconds: u32| seconds.to_be_bytes().to_vec()),
            Form::Ntp => items().map(ntp).collect::<Option<Vec<_>>>().map(|all| all.concat()),
            Form::Any => octets(value).or_else(|| Some(value.as_bytes().to_vec())),
        }
    }
}

fn address(item: &str) -> Option<Ipv6Addr> {
    let inner = item.strip_prefix('[').and_then(|item| item.strip_suffix(']'));
    inner.unwrap_or(item).parse().ok()
}

fn counted(item: &str) -> Option<Vec<u8>> {
    let len = u16::try_from(item.len()).ok().filter(|len| *len > 0)?;
    Some([&len.to_be_bytes(), item.as_bytes()].concat())
}

/// Suboption 1 is an address, 3 a name (RFC 5908, 4.1 and 4.3).
fn ntp(item: &str) -> Option<Vec<u8>> {
    let (code, value) = match address(item) {
        Some(address) => (1u16, address.octets().to_vec()),
        None => (3, domain_name(item)?),
    };
    Some([&code.to_be_bytes()[..], &counted_bytes(&value)?].concat())
}

fn counted_bytes(value: &[u8]) -> Option<Vec<u8>> {
    let len = u16::try_from(value.len()).ok()?;
    Some([&len.to_be_bytes(), value].concat())
}

fn octets(value: &str) -> Option<Vec<u8>> {
    let pair = |pair: &str| {
        let is_pair = pair.len() == 2 && pair.bytes().all(|c| c.is_ascii_hexdigit());
        is_pair.then(|| u8::from_str_radix(pair, 16).ok()).flatten()
    };
    value.split(':').map(pair).collect::<Option<Vec<_>>>().filter(|octets| octets.len() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn value(name: &str, text: &str) -> (u16, Vec<u8>) {
        let opt = Opt::parse(name, text).unwrap();
        (opt.code, opt.value)
    }

    #[test]
    fn values_have_the_form_of_their_option() {
        let two = [[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], [0; 16]].concat();
        assert_eq!(value("dns-server", "2001:db8::1, [::]"), (23, two.clone()));
        assert_eq!(value("23", "2001:db8::1,::"), (23, two), "a number has its option's form too");
        assert_eq!(value("domain-search", "a.b,c"), (24, b"\x01a\x01b\0\x01c\0".to_vec()));
        assert_eq!(value("bootfile-url", "tftp://[::1]/x"), (59, b"tftp://[::1]/x".to_vec()));
        assert_eq!(value("bootfile-param", "ab,c"), (60, b"\0\x02ab\0\x01c".to_vec()));
        assert_eq!(value("information-refresh-time", "3600"), (32, vec![0, 0, 14, 16]));
        let server = [&[0, 1, 0, 16][..], &[0; 15], &[1, 0, 3, 0, 3, 1, b'n', 0]].concat();
        assert_eq!(value("ntp-server", "::1,n"), (56, server));
        assert_eq!(value("200", "01:ff"), (200, vec![1, 255]));
        assert_eq!(value("200", "zz:ff"), (200, b"zz:ff".to_vec()));
        assert_eq!(value("200", ""), (200, vec![]));
    }

    #[test]
    fn what_is_none_is_refused_with_what_to_do() {
        let wrong = |name: &str, value: &str| Opt::parse(name, value).unwrap_err().to_string();
        assert_eq!(
            wrong("dns-server", "10.0.0.1"),
            "DHCPv6 option `dns-server` takes IPv6 addresses, separated by commas"
        );
        assert!(wrong("dns-server", "").contains("takes IPv6"));
        assert!(wrong("domain-search", "a..b").contains("takes domain names"));
        assert!(wrong("bootfile-param", "a,,b").contains("takes texts"));
        assert!(wrong("200", &"x".repeat(65_536)).contains("takes octets"));
        for name in ["server-id", "2", "ia-na", "13", "Preference", "39"] {
            assert!(wrong(name, "1").contains("cannot be set"), "{name}");
        }
        for name in ["router", "0", "65536", "-1", ""] {
            assert!(wrong(name, "1").contains("no DHCPv6 option is named"), "{name}");
        }
    }

    #[test]
    fn every_name_leads_to_its_code() {
        for (name, code, form) in NAMES {
            let text = match form {
                Form::Addresses | Form::Ntp => "::1",
                Form::Seconds => "1",
                _ => "x",
            };
            assert_eq!(Opt::parse(name, text).unwrap().code, *code, "{name}");
        }
    }
}
