//! DHCPv6 messages and options (RFC 8415, 8, 9 and 21).
//!
//! A view of a message proves the framing of its options once: every option lies wholly in the message. What is inside of an
//! option is its own matter, and the views of those that hold options again prove it in their turn. Nothing here recurses:
//! how deep it goes is up to who looks.

use std::fmt;
use std::net::Ipv6Addr;

use super::Malformed;

mod names;

pub use names::{BadOption, Opt};

/// Where clients listen (RFC 8415, 7.2).
pub const CLIENT_PORT: u16 = 546;
/// Where servers and relay agents listen.
pub const SERVER_PORT: u16 = 547;
/// All relay agents and servers of a link (RFC 8415, 7.1).
pub const ALL_AGENTS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// All servers of a site, as relay agents address them.
pub const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3);
/// Most relay agents that a message comes by before it (RFC 8415, 7.6).
pub const HOP_COUNT_LIMIT: u8 = 8;
/// Bytes of the longest DUID: its type, and what that type makes of it (RFC 8415, 11.1).
pub const MAX_DUID: usize = 130;

/// Option codes (RFC 8415, 21, and where else it says).
pub mod option {
    /// Client identifier.
    pub const CLIENT_ID: u16 = 1;
    /// Server identifier.
    pub const SERVER_ID: u16 = 2;
    /// Identity association for addresses.
    pub const IA_NA: u16 = 3;
    /// Identity association for temporary addresses.
    pub const IA_TA: u16 = 4;
    /// Address of an identity association.
    pub const IA_ADDRESS: u16 = 5;
    /// Codes of the options that the client wants.
    pub const REQUESTED: u16 = 6;
    /// The message that a relay agent carries.
    pub const RELAY_MESSAGE: u16 = 9;
    /// Status code.
    pub const STATUS: u16 = 13;
    /// The client would do without advertisements.
    pub const RAPID_COMMIT: u16 = 14;
    /// A relay agent's own name for where the client is.
    pub const INTERFACE_ID: u16 = 18;
    /// Recursive DNS servers (RFC 3646, 3).
    pub const DNS_SERVERS: u16 = 23;
    /// Domains to search (RFC 3646, 4).
    pub const DOMAIN_LIST: u16 = 24;
    /// Identity association for prefixes.
    pub const IA_PD: u16 = 25;
    /// SNTP servers (RFC 4075, 4).
    pub const SNTP_SERVERS: u16 = 31;
    /// Seconds after which what a stateless client knows is to be asked for again.
    pub const INFORMATION_REFRESH: u16 = 32;
    /// The client's domain name (RFC 4704, 4).
    pub const FQDN: u16 = 39;
    /// NTP servers (RFC 5908, 4).
    pub const NTP_SERVERS: u16 = 56;
    /// Where a boot file is (RFC 5970, 3.1).
    pub const BOOT_FILE: u16 = 59;
    /// What it is started with (RFC 5970, 3.2).
    pub const BOOT_PARAMETERS: u16 = 60;
    /// The client's MAC, from the relay agent that is next to it (RFC 6939, 4).
    pub const CLIENT_LINK_LAYER: u16 = 79;
}

/// What a message is for (RFC 8415, 7.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)] // the RFC's own names
pub enum Kind {
    Solicit,
    Advertise,
    Request,
    Confirm,
    Renew,
    Rebind,
    Reply,
    Release,
    Decline,
    Reconfigure,
    InformationRequest,
    RelayForward,
    RelayReply,
}

/// Kinds by number, from 1 on, with the RFC's names.
const KINDS: [(Kind, &str); 13] = [
    (Kind::Solicit, "SOLICIT"),
    (Kind::Advertise, "ADVERTISE"),
    (Kind::Request, "REQUEST"),
    (Kind::Confirm, "CONFIRM"),
    (Kind::Renew, "RENEW"),
    (Kind::Rebind, "REBIND"),
    (Kind::Reply, "REPLY"),
    (Kind::Release, "RELEASE"),
    (Kind::Decline, "DECLINE"),
    (Kind::Reconfigure, "RECONFIGURE"),
    (Kind::InformationRequest, "INFORMATION-REQUEST"),
    (Kind::RelayForward, "RELAY-FORW"),
    (Kind::RelayReply, "RELAY-REPL"),
];

impl Kind {
    /// The kind with this number, if the RFC has one.
    pub fn from_number(number: u8) -> Option<Kind> {
        KINDS.get(usize::from(number).checked_sub(1)?).map(|(kind, _)| *kind)
    }

    /// Its number.
    pub fn number(self) -> u8 {
        KINDS.iter().zip(1..).find(|((kind, _), _)| *kind == self).map_or(0, |(_, number)| number)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(KINDS.iter().find(|(kind, _)| kind == self).map_or("?", |(_, name)| name))
    }
}

/// How a server did (RFC 8415, 21.13).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)] // the RFC's own names
pub enum Status {
    Success,
    NoAddrsAvail,
    NoBinding,
    NotOnLink,
    UseMulticast,
    NoPrefixAvail,
}

impl Status {
    /// Its number.
    pub const fn code(self) -> u16 {
        match self {
            Status::Success => 0,
            Status::NoAddrsAvail => 2,
            Status::NoBinding => 3,
            Status::NotOnLink => 4,
            Status::UseMulticast => 5,
            Status::NoPrefixAvail => 6,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Options whose framing is sound.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a>(&'a [u8]);

impl<'a> Options<'a> {
    /// A view of options that fill `bytes`.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] when the last one does not end where they do.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Options<'a>, Malformed> {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = split(rest).ok_or(Malformed::Truncated)?.2;
        }
        Ok(Options(bytes))
    }

    /// All of them: code and value.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (code, value, next) = split(rest)?;
            rest = next;
            Some((code, value))
        })
    }

    /// The value of the first one with this code.
    pub fn get(&self, code: u16) -> Option<&'a [u8]> {
        self.iter().find(|(found, _)| *found == code).map(|(_, value)| value)
    }
}

/// Code, value, and what follows.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (&[c0, c1, l0, l1], rest) = bytes.split_first_chunk::<4>()?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([l0, l1])))?;
    Some((u16::from_be_bytes([c0, c1]), value, rest))
}

/// A message between client and server (RFC 8415, 8).
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Number of its kind.
    pub number: u8,
    /// What ties an answer to it.
    pub transaction: [u8; 3],
    /// Its options.
    pub options: Options<'a>,
}

impl<'a> Message<'a> {
    /// A view of a message.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] when it is shorter than its header, or an option is cut off.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Message<'a>, Malformed> {
        let (&[number, a, b, c], rest) = bytes.split_first_chunk::<4>().ok_or(Malformed::Truncated)?;
        Ok(Message { number, transaction: [a, b, c], options: Options::new_checked(rest)? })
    }
}

/// A message between relay agent and server (RFC 8415, 9).
#[derive(Clone, Copy, Debug)]
pub struct Relay<'a> {
    /// Number of its kind.
    pub number: u8,
    /// Relay agents that it has come by before this one.
    pub hop_count: u8,
    /// An address of the client's link.
    pub link: [u8; 16],
    /// Who the relay agent had it from.
    pub peer: [u8; 16],
    /// Its options.
    pub options: Options<'a>,
}

impl<'a> Relay<'a> {
    /// A view of a message.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] when it is shorter than its header, or an option is cut off.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Relay<'a>, Malformed> {
        let read = || {
            let (&[number, hop_count], rest) = bytes.split_first_chunk::<2>()?;
            let (&link, rest) = rest.split_first_chunk::<16>()?;
            let (&peer, rest) = rest.split_first_chunk::<16>()?;
            Some((number, hop_count, link, peer, rest))
        };
        let (number, hop_count, link, peer, rest) = read().ok_or(Malformed::Truncated)?;
        Ok(Relay { number, hop_count, link, peer, options: Options::new_checked(rest)? })
    }
}

/// An identity association of any of the three kinds (RFC 8415, 21.4, 21.5 and 21.21).
#[derive(Clone, Copy, Debug)]
pub struct Association<'a> {
    /// The client's number for it.
    pub id: [u8; 4],
    /// What is in it.
    pub options: Options<'a>,
}

impl<'a> Association<'a> {
    /// A view of the value of option `code`: [`option::IA_NA`], [`option::IA_TA`] or [`option::IA_PD`].
    ///
    /// # Errors
    /// [`Malformed::Truncated`] when it is shorter than its fixed part, or an option is cut off.
    pub fn new_checked(code: u16, value: &'a [u8]) -> Result<Association<'a>, Malformed> {
        let (&id, rest) = value.split_first_chunk::<4>().ok_or(Malformed::Truncated)?;
        // T1 and T2, which those for temporary addresses do not have.
        let times = if code == option::IA_TA { 0 } else { 8 };
        let options = rest.get(times..).ok_or(Malformed::Truncated)?;
        Ok(Association { id, options: Options::new_checked(options)? })
    }

    /// The addresses in it.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] at one that is too short.
    pub fn addresses(&self) -> impl Iterator<Item = Result<Ipv6Addr, Malformed>> + use<'a> {
        let found = self.options.iter().filter(|(code, _)| *code == option::IA_ADDRESS);
        found.map(|(_, value)| match value.split_first_chunk::<16>() {
            Some((&address, rest)) if rest.len() >= 8 => Ok(address.into()),
            _ => Err(Malformed::Truncated),
        })
    }
}

/// Writes options behind what is in a buffer.
#[derive(Debug)]
pub struct Writer<'a>(&'a mut Vec<u8>);

impl<'a> Writer<'a> {
    /// Writes behind what is there.
    pub fn new(bytes: &'a mut Vec<u8>) -> Writer<'a> {
        Writer(bytes)
    }

    /// Bytes that are no option: a message's header.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// An option. A value is cut off after 65535 bytes, which no message has room for.
    pub fn option(&mut self, code: u16, value: &[u8]) {
        self.nested(code, |writer| writer.raw(value));
    }

    /// A status without a text: the code says it all.
    pub fn status(&mut self, status: Status) {
        self.option(option::STATUS, &status.code().to_be_bytes());
    }

    /// An option whose value `write` writes.
    pub fn nested<T>(&mut self, code: u16, write: impl FnOnce(&mut Writer<'_>) -> T) -> T {
        let at = self.open(code);
        let result = write(&mut Writer(self.0));
        self.close(at);
        result
    }

    /// Begins an option whose value is what is written up to [`Writer::close`], which wants what this gives.
    pub fn open(&mut self, code: u16) -> usize {
        self.raw(&code.to_be_bytes());
        self.raw(&[0, 0]);
        self.0.len()
    }

    /// Ends the option that [`Writer::open`] began.
    pub fn close(&mut self, at: usize) {
        let len = u16::try_from(self.0.len().saturating_sub(at)).unwrap_or(u16::MAX);
        self.0.truncate(at + usize::from(len));
        if let Some(field) = at.checked_sub(2).and_then(|at| self.0.get_mut(at..at + 2)) {
            field.copy_from_slice(&len.to_be_bytes());
        }
    }
}

/// The wire form of a domain name (RFC 1035, 3.1; uncompressed, as RFC 8415, 10 wants it), or nothing for what is none.
pub fn domain_name(name: &str) -> Option<Vec<u8>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        let is_plain = label.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'));
        let len = u8::try_from(label.len()).ok().filter(|len| (1..=63).contains(len) && is_plain)?;
        bytes.push(len);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    (bytes.len() <= 255).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_those_of_the_rfc() {
        for (number, kind, name) in
            [(1, Kind::Solicit, "SOLICIT"), (7, Kind::Reply, "REPLY"), (13, Kind::RelayReply, "RELAY-REPL")]
        {
            assert_eq!(Kind::from_number(number), Some(kind));
            assert_eq!((kind.number(), kind.to_string().as_str()), (number, name));
        }
        assert_eq!((Kind::from_number(0), Kind::from_number(14)), (None, None));
        assert_eq!(Status::NoPrefixAvail.code(), 6);
        assert_eq!(Status::NotOnLink.to_string(), "NotOnLink");
    }

    #[test]
    fn a_message_is_read_as_section_8_draws_it() {
        let bytes = [1, 0xa, 0xb, 0xc, 0, 1, 0, 2, 9, 8, 0, 14, 0, 0, 0, 1, 0, 1, 7];
        let message = Message::new_checked(&bytes).unwrap();
        assert_eq!((message.number, message.transaction), (1, [0xa, 0xb, 0xc]));
        let all: Vec<_> = message.options.iter().collect();
        assert_eq!(all, [(1, &[9, 8][..]), (14, &[]), (1, &[7])]);
        assert_eq!(message.options.get(1), Some(&[9, 8][..]), "the first one");
        for end in 0..bytes.len() {
            let whole = [4, 10, 14].contains(&end);
            assert_eq!(Message::new_checked(&bytes[..end]).is_ok(), whole, "cut at {end}");
        }
    }

    #[test]
    fn associations_have_times_or_not() {
        let address = [[0, 5, 0, 24].as_slice(), &[0x20; 16], &[0; 8]].concat();
        let ta = [&[0, 0, 0, 7][..], &address].concat();
        let na = [&[0, 0, 0, 7][..], &[0; 8], &address].concat();
        for (code, value) in [(option::IA_TA, &ta), (option::IA_NA, &na), (option::IA_PD, &na)] {
            let found = Association::new_checked(code, value).unwrap();
            assert_eq!(found.id, [0, 0, 0, 7]);
            let addresses: Vec<_> = found.addresses().collect();
            assert_eq!(addresses, [Ok(Ipv6Addr::from([0x20; 16]))]);
            assert!(Association::new_checked(code, &value[..value.len() - 1]).is_err());
        }
        let short = [&[0, 0, 0, 7][..], &[0, 5, 0, 16], &[0x20; 16]].concat();
        let found = Association::new_checked(option::IA_TA, &short).unwrap();
        assert_eq!(found.addresses().next(), Some(Err(Malformed::Truncated)));
    }

    #[test]
    fn what_is_nested_has_its_length() {
        let mut bytes = vec![7, 1, 2, 3];
        let mut writer = Writer::new(&mut bytes);
        writer.nested(option::IA_NA, |writer| {
            writer.raw(&[0; 12]);
            writer.status(Status::NoBinding);
        });
        writer.option(option::RAPID_COMMIT, &[]);
        assert_eq!(bytes[4..8], [0, 3, 0, 18]);
        assert_eq!(bytes[20..], [0, 13, 0, 2, 0, 3, 0, 14, 0, 0]);
        assert!(Message::new_checked(&bytes).is_ok());
    }

    #[test]
    fn domain_names_are_labels() {
        assert_eq!(domain_name("a.example.").unwrap(), b"\x01a\x07example\0");
        for wrong in ["", ".", "a..b", "a b", &"x".repeat(64), &"abcdefg.".repeat(32)] {
            assert_eq!(domain_name(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(options in prop::collection::vec((any::<u16>(), prop::collection::vec(any::<u8>(), 0..40)), 0..10)) {
            let mut bytes = vec![1, 0, 0, 0];
            for (code, value) in &options {
                Writer::new(&mut bytes).option(*code, value);
            }
            let read = Message::new_checked(&bytes).unwrap().options;
            let read: Vec<_> = read.iter().map(|(code, value)| (code, value.to_vec())).collect();
            prop_assert_eq!(read, options);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(message) = Message::new_checked(&bytes) {
                prop_assert!(message.options.iter().count() <= bytes.len() / 4);
            }
            let _ = Relay::new_checked(&bytes);
            for code in [3, 4, 25] {
                if let Ok(found) = Association::new_checked(code, &bytes) {
                    let _ = found.addresses().count();
                }
            }
        }
    }
}
