//! DHCPv4 messages (RFC 2131, 2) and their options (RFC 2132).
//!
//! A [`Message`] is a view of the fixed part; [`Message::pieces`] goes once over the options field and then, when "option
//! overload" says so, over `file` and `sname` (RFC 2131, 4.1). Only the options field is asked for an overload, so there
//! are no loops. A value may come in several pieces, which belong together (RFC 3396, 7): [`Value`] joins them without a
//! copy. What is written is split the same way.
//!
//! Limits: a missing "end" is forgiven, as everyone does it; an option that ends behind its field is not.

use std::net::Ipv4Addr;

use super::Malformed;

mod names;

pub use names::{MAX_VALUE, Opt, OptError, is_reserved, name, put_name, put_route};

/// UDP port of servers and relays (RFC 2131, 4.1).
pub const SERVER_PORT: u16 = 67;
/// UDP port of clients (RFC 2131, 4.1).
pub const CLIENT_PORT: u16 = 68;
/// Bytes before the options: the fixed part and the magic cookie.
pub const HEADER: usize = 240;
/// Bytes of the shortest message: BOOTP's (RFC 1542, 2.1), which relays may insist on.
pub const MIN_LEN: usize = 300;
/// Bytes of an IP packet that every client takes in (RFC 2131, 2).
pub const MIN_PACKET: u16 = 576;
/// Bytes of the fields `sname` and `file`.
pub const SNAME: usize = 64;
/// As [`SNAME`].
pub const FILE: usize = 128;
/// What options begin with (RFC 2132, 2).
pub const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// `op` of what clients send.
pub const BOOTREQUEST: u8 = 1;
/// `op` of what servers send.
pub const BOOTREPLY: u8 = 2;
/// `htype` of Ethernet (RFC 1700, "Hardware Type").
pub const ETHERNET: u8 = 1;
/// The bit of `flags` by which a client asks for broadcasts (RFC 2131, 2).
pub const BROADCAST: u16 = 0x8000;

/// Codes of options (IANA, "BOOTP Vendor Extensions and DHCP Options").
pub mod code {
    #![allow(missing_docs)] // their names say it
    pub const PAD: u8 = 0;
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DNS_SERVER: u8 = 6;
    pub const HOSTNAME: u8 = 12;
    pub const DOMAIN_NAME: u8 = 15;
    pub const MTU: u8 = 26;
    pub const BROADCAST_ADDRESS: u8 = 28;
    pub const STATIC_ROUTE: u8 = 33;
    pub const NTP_SERVER: u8 = 42;
    pub const REQUESTED_ADDRESS: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER_IDENTIFIER: u8 = 54;
    pub const PARAMETER_REQUEST: u8 = 55;
    pub const MESSAGE: u8 = 56;
    pub const MAX_MESSAGE_SIZE: u8 = 57;
    pub const RENEWAL_TIME: u8 = 58;
    pub const REBINDING_TIME: u8 = 59;
    pub const CLIENT_IDENTIFIER: u8 = 61;
    pub const TFTP_SERVER: u8 = 66;
    pub const BOOTFILE_NAME: u8 = 67;
    pub const RAPID_COMMIT: u8 = 80;
    pub const RELAY_AGENT: u8 = 82;
    pub const DOMAIN_SEARCH: u8 = 119;
    pub const CLASSLESS_ROUTE: u8 = 121;
    pub const TFTP_SERVER_ADDRESS: u8 = 150;
    pub const MS_CLASSLESS_ROUTE: u8 = 249;
    pub const END: u8 = 255;
    /// No option: an [`Opt`](super::Opt) of this code sets the field `siaddr`. "End" never has a value, and others use the
    /// number for the same.
    pub const SERVER_IP_ADDRESS: u8 = END;
}

/// What a message is for (RFC 2132, 9.6).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
#[allow(missing_docs)] // the names of the RFC
pub enum MessageType {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Decline = 4,
    Ack = 5,
    Nak = 6,
    Release = 7,
    Inform = 8,
}

impl MessageType {
    /// The type that the option's one byte says.
    pub const fn from_u8(value: u8) -> Option<MessageType> {
        Some(match value {
            1 => MessageType::Discover,
            2 => MessageType::Offer,
            3 => MessageType::Request,
            4 => MessageType::Decline,
            5 => MessageType::Ack,
            6 => MessageType::Nak,
            7 => MessageType::Release,
            8 => MessageType::Inform,
            _ => return None,
        })
    }

    /// Its name as the RFC writes it.
    pub const fn name(self) -> &'static str {
        match self {
            MessageType::Discover => "DHCPDISCOVER",
            MessageType::Offer => "DHCPOFFER",
            MessageType::Request => "DHCPREQUEST",
            MessageType::Decline => "DHCPDECLINE",
            MessageType::Ack => "DHCPACK",
            MessageType::Nak => "DHCPNAK",
            MessageType::Release => "DHCPRELEASE",
            MessageType::Inform => "DHCPINFORM",
        }
    }
}

impl std::fmt::Display for MessageType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A message whose fixed part and cookie's place are there.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    head: &'a [u8; HEADER],
    options: &'a [u8],
}

impl<'a> Message<'a> {
    /// A view of a UDP payload. The options are not looked at.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] when it ends before its options begin.
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Message<'a>, Malformed> {
        let (head, options) = bytes.split_first_chunk().ok_or(Malformed::Truncated)?;
        Ok(Message { head, options })
    }

    /// Whether the magic cookie is there, so that options follow. Without it it is BOOTP of old.
    #[inline(always)]
    pub fn has_cookie(&self) -> bool {
        self.bytes(236) == COOKIE
    }

    /// [`BOOTREQUEST`] or [`BOOTREPLY`].
    #[inline(always)]
    pub fn op(&self) -> u8 {
        self.head[0]
    }

    /// Type of the client's hardware address.
    #[inline(always)]
    pub fn htype(&self) -> u8 {
        self.head[1]
    }

    /// Bytes of the client's hardware address, as told.
    #[inline(always)]
    pub fn hlen(&self) -> u8 {
        self.head[2]
    }

    /// Relays that it passed.
    #[inline(always)]
    pub fn hops(&self) -> u8 {
        self.head[3]
    }

    /// The transaction, by the client's choice.
    #[inline(always)]
    pub fn xid(&self) -> [u8; 4] {
        self.bytes(4)
    }

    /// Seconds since the client began.
    #[inline(always)]
    pub fn secs(&self) -> u16 {
        u16::from_be_bytes(self.bytes(8))
    }

    /// Flags; see [`BROADCAST`].
    #[inline(always)]
    pub fn flags(&self) -> u16 {
        u16::from_be_bytes(self.bytes(10))
    }

    /// The client's address, when it has one that it can be reached by.
    #[inline(always)]
    pub fn ciaddr(&self) -> Ipv4Addr {
        self.bytes::<4>(12).into()
    }

    /// "Your" address: what the client is given.
    #[inline(always)]
    pub fn yiaddr(&self) -> Ipv4Addr {
        self.bytes::<4>(16).into()
    }

    /// The server of the next step of booting.
    #[inline(always)]
    pub fn siaddr(&self) -> Ipv4Addr {
        self.bytes::<4>(20).into()
    }

    /// The relay's address on the client's link.
    #[inline(always)]
    pub fn giaddr(&self) -> Ipv4Addr {
        self.bytes::<4>(24).into()
    }

    /// The client's hardware address with what fills the field up.
    #[inline(always)]
    pub fn chaddr(&self) -> [u8; 16] {
        self.bytes(28)
    }

    /// The server's name, or options.
    #[inline(always)]
    pub fn sname(&self) -> &'a [u8] {
        self.head.get(44..108).unwrap_or_default()
    }

    /// The boot file's name, or options.
    #[inline(always)]
    pub fn file(&self) -> &'a [u8] {
        self.head.get(108..236).unwrap_or_default()
    }

    /// All options piece by piece, in the order in which pieces are joined (RFC 3396, 5): the options field, `file`, `sname`.
    /// Nothing without a [cookie](Message::has_cookie).
    #[inline]
    pub fn pieces(&self) -> Pieces<'a> {
        let rest = if self.has_cookie() { self.options } else { &[] };
        Pieces { rest, file: self.file(), sname: self.sname(), overload: 0, area: Area::Options }
    }

    /// The value of one option. For several, go over the [pieces](Message::pieces) once.
    pub fn option(&self, code: u8) -> Option<Value<'a>> {
        let mut value = None;
        for (_, piece) in self.pieces().flatten().filter(|(found, _)| *found == code) {
            Value::join(&mut value, self, code, piece);
        }
        value
    }

    // `N` bytes at a constant place within the fixed part.
    #[inline(always)]
    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        self.head.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Area {
    Options,
    Boot,
    Server,
}

/// Goes over a message's options; see [`Message::pieces`]. After an error it is at its end.
#[derive(Clone, Copy, Debug)]
pub struct Pieces<'a> {
    rest: &'a [u8],
    file: &'a [u8],
    sname: &'a [u8],
    overload: u8,
    area: Area,
}

impl Pieces<'_> {
    /// Goes on to the next field that holds options, if there is one.
    fn next_area(&mut self) -> bool {
        loop {
            let (area, bit, bytes) = match self.area {
                Area::Options => (Area::Boot, 1, self.file),
                Area::Boot => (Area::Server, 2, self.sname),
                Area::Server => return false,
            };
            self.area = area;
            if self.overload & bit != 0 {
                self.rest = bytes;
                return true;
            }
        }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Result<(u8, &'a [u8]), Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.rest {
                [code::PAD, rest @ ..] => self.rest = rest,
                [] | [code::END, ..] => {
                    self.rest = &[];
                    if !self.next_area() {
                        return None;
                    }
                }
                [code, len, rest @ ..] if usize::from(*len) <= rest.len() => {
                    let (value, rest) = rest.split_at(usize::from(*len));
                    self.rest = rest;
                    if let (code::OVERLOAD, [which], Area::Options) = (*code, value, self.area) {
                        self.overload |= which;
                    }
                    return Some(Ok((*code, value)));
                }
                _ => {
                    (self.rest, self.area) = (&[], Area::Server);
                    return Some(Err(Malformed::Truncated));
                }
            }
        }
    }
}

/// The value of an option, of all its pieces.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    message: Message<'a>,
    first: &'a [u8],
    len: usize,
    code: u8,
}

impl<'a> Value<'a> {
    /// Adds a piece of option `code` of `message` to what was found of it.
    #[inline]
    pub fn join(value: &mut Option<Value<'a>>, message: &Message<'a>, code: u8, piece: &'a [u8]) {
        match value {
            None => *value = Some(Value { message: *message, first: piece, len: piece.len(), code }),
            Some(value) => {
                value.len += piece.len();
                // So that a first piece that is empty is not taken for the whole.
                if value.first.is_empty() {
                    value.first = piece;
                }
            }
        }
    }

    /// Bytes of the whole value.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is an option, but nothing in it.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value, when it has just `N` bytes.
    #[inline]
    pub fn array<const N: usize>(&self) -> Option<[u8; N]> {
        if self.len != N {
            return None;
        }
        if let Ok(whole) = self.first.try_into() {
            return Some(whole);
        }
        let mut all = [0; N];
        let bytes = self.pieces().flatten();
        all.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        Some(all)
    }

    /// Its pieces in order. What is in one piece is not looked for again.
    #[inline]
    pub fn pieces(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (code, whole) = (self.code, self.first.len() == self.len);
        let (one, many) = if whole { (Some(self.first), None) } else { (None, Some(self.message.pieces())) };
        let many = many.into_iter().flatten().flatten();
        one.into_iter().chain(many.filter(move |(found, _)| *found == code).map(|(_, piece)| piece))
    }
}

/// The fixed part of a reply, by value.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// The transaction, of the request.
    pub xid: [u8; 4],
    /// Flags, of the request.
    pub flags: u16,
    /// The client's own address.
    pub ciaddr: Ipv4Addr,
    /// The address that it is given.
    pub yiaddr: Ipv4Addr,
    /// The server of the next step of booting.
    pub siaddr: Ipv4Addr,
    /// The relay, of the request.
    pub giaddr: Ipv4Addr,
    /// The client's hardware address, of Ethernet.
    pub chaddr: [u8; 16],
    /// What stands in `sname`; what is too long is cut off.
    pub sname: &'a [u8],
    /// What stands in `file`; what is too long is cut off.
    pub file: &'a [u8],
}

impl Reply<'_> {
    /// Appends the bytes, cookie included (RFC 2131, table 3).
    #[inline]
    pub fn put(&self, to: &mut Vec<u8>) {
        let mut head = [0; 44];
        head[..3].copy_from_slice(&[BOOTREPLY, ETHERNET, 6]);
        head[4..8].copy_from_slice(&self.xid);
        head[10..12].copy_from_slice(&self.flags.to_be_bytes());
        head[12..16].copy_from_slice(&self.ciaddr.octets());
        head[16..20].copy_from_slice(&self.yiaddr.octets());
        head[20..24].copy_from_slice(&self.siaddr.octets());
        head[24..28].copy_from_slice(&self.giaddr.octets());
        head[28..].copy_from_slice(&self.chaddr);
        to.extend_from_slice(&head);
        put_field::<SNAME>(to, self.sname);
        put_field::<FILE>(to, self.file);
        to.extend_from_slice(&COOKIE);
    }
}

fn put_field<const N: usize>(to: &mut Vec<u8>, bytes: &[u8]) {
    let mut field = [0; N];
    field.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    to.extend_from_slice(&field);
}

/// Appends an option, in as many pieces as its value needs (RFC 3396, 6). An empty value is one empty piece.
pub fn put_option(to: &mut Vec<u8>, code: u8, value: &[u8]) {
    let (whole, last) = value.as_chunks::<255>();
    for piece in whole {
        to.extend_from_slice(&[code, 255]);
        to.extend_from_slice(piece);
    }
    if !last.is_empty() || whole.is_empty() {
        // A rest of 255 is shorter than that.
        to.extend_from_slice(&[code, u8::try_from(last.len()).unwrap_or(0)]);
        to.extend_from_slice(last);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(options: &[u8], file: &[u8], sname: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let none = Ipv4Addr::UNSPECIFIED;
        let chaddr = [0x11; 16];
        let (ciaddr, yiaddr, siaddr, giaddr) = ([1, 0, 0, 1].into(), [1, 0, 0, 2].into(), none, none);
        let reply =
            Reply { xid: [1, 2, 3, 4], flags: 7, ciaddr, yiaddr, siaddr, giaddr, chaddr, sname, file };
        reply.put(&mut bytes);
        bytes.extend(options);
        bytes
    }

    fn all(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let message = Message::new_checked(bytes).unwrap();
        message.pieces().map(|piece| piece.map(|(code, value)| (code, value.to_vec())).unwrap()).collect()
    }

    /// RFC 2131, figure 1: the places of all fields.
    #[test]
    fn fields_stand_where_figure_1_of_rfc_2131_has_them() {
        let bytes: Vec<u8> = (0..=239).collect();
        let view = Message::new_checked(&bytes).unwrap();
        assert_eq!((view.op(), view.htype(), view.hlen(), view.hops()), (0, 1, 2, 3));
        assert_eq!((view.xid(), view.secs(), view.flags()), ([4, 5, 6, 7], 0x0809, 0x0a0b));
        assert_eq!((view.ciaddr(), view.yiaddr()), ([12, 13, 14, 15].into(), [16, 17, 18, 19].into()));
        assert_eq!((view.siaddr(), view.giaddr()), ([20, 21, 22, 23].into(), [24, 25, 26, 27].into()));
        assert_eq!((view.chaddr()[0], view.chaddr()[15]), (28, 43));
        assert_eq!((view.sname()[0], view.sname().len()), (44, SNAME));
        assert_eq!((view.file()[0], view.file().len()), (108, FILE));
        assert!(!view.has_cookie() && view.pieces().next().is_none());
        for len in 0..HEADER {
            assert_eq!(Message::new_checked(&bytes[..len]).err(), Some(Malformed::Truncated));
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let bytes = message(&[53, 1, 5, 255], b"boot", b"server");
        assert_eq!(bytes.len(), HEADER + 4);
        let view = Message::new_checked(&bytes).unwrap();
        assert!(view.has_cookie());
        assert_eq!((view.op(), view.htype(), view.hlen(), view.flags()), (2, 1, 6, 7));
        assert_eq!((view.ciaddr(), view.yiaddr()), ([1, 0, 0, 1].into(), [1, 0, 0, 2].into()));
        assert!(view.file().starts_with(b"boot\0") && view.sname().starts_with(b"server\0"));
        assert_eq!(view.option(53).and_then(|value| value.array()), Some([5]));
        assert!(view.option(54).is_none());
    }

    /// RFC 2131, 4.1: `file` first, then `sname`; RFC 3396, 5: in this order values are joined.
    #[test]
    fn overloaded_fields_are_read_in_their_order() {
        let options = [12, 1, b'a', 52, 1, 3, 255, 99, 99];
        let bytes = message(&options, &[12, 1, b'b', 255], &[0, 0, 12, 2, b'c', b'd']);
        let view = Message::new_checked(&bytes).unwrap();
        let value = view.option(12).unwrap();
        assert_eq!((value.len(), value.array()), (4, Some(*b"abcd")));
        assert_eq!(value.pieces().collect::<Vec<_>>(), [&b"a"[..], b"b", b"cd"]);
        let only = |overload: u8| {
            let bytes = message(&[52, 1, overload], &[12, 1, b'b', 255], &[12, 1, b'c', 255]);
            Message::new_checked(&bytes).unwrap().option(12).and_then(|value| value.array::<1>())
        };
        assert_eq!((only(0), only(1), only(2)), (None, Some(*b"b"), Some(*b"c")));
    }

    #[test]
    fn an_overload_in_an_overloaded_field_is_not_followed() {
        let bytes = message(&[52, 1, 1], &[52, 1, 3, 12, 1, b'b'], &[52, 1, 3, 12, 1, b'c']);
        assert_eq!(all(&bytes), [(52, vec![1]), (52, vec![3]), (12, vec![b'b'])]);
        let bytes = message(&[52, 2, 3, 3], &[12, 1, b'b'], &[]);
        assert_eq!(all(&bytes).len(), 1, "an overload has one byte");
    }

    #[test]
    fn an_option_that_ends_behind_its_field_is_an_error_and_the_end() {
        for (options, file) in [(&[12, 2, b'a'][..], &[][..]), (&[12], &[]), (&[52, 1, 1, 255], &[12; 128])] {
            let bytes = message(options, file, &[12, 1, b'z']);
            let view = Message::new_checked(&bytes).unwrap();
            let mut pieces = view.pieces().skip_while(Result::is_ok);
            assert_eq!(pieces.next(), Some(Err(Malformed::Truncated)), "{options:?}");
            assert_eq!(pieces.next(), None);
        }
    }

    #[test]
    fn an_empty_first_piece_is_not_the_whole() {
        let bytes = message(&[12, 0, 12, 1, b'a', 12, 0, 80, 0], &[], &[]);
        let view = Message::new_checked(&bytes).unwrap();
        assert_eq!(view.option(12).unwrap().array(), Some(*b"a"));
        assert!(view.option(80).unwrap().is_empty());
    }

    proptest! {
        /// RFC 3396, 6 and 7.
        #[test]
        fn values_of_any_length_are_split_and_joined(values in prop::collection::vec((1u8..=254, prop::collection::vec(any::<u8>(), 0..700)), 0..5)) {
            prop_assume!(values.iter().all(|(code, _)| *code != code::OVERLOAD));
            let mut options = Vec::new();
            for (code, value) in &values {
                put_option(&mut options, *code, value);
            }
            options.push(code::END);
            let bytes = message(&options, &[], &[]);
            let view = Message::new_checked(&bytes).unwrap();
            for (code, _) in &values {
                let expected: Vec<u8> = values.iter().filter(|(other, _)| other == code).flat_map(|(_, value)| value.clone()).collect();
                let value = view.option(*code).unwrap();
                prop_assert_eq!(value.len(), expected.len());
                prop_assert_eq!(value.pieces().collect::<Vec<_>>().concat(), expected);
                prop_assert!(view.pieces().flatten().all(|(_, piece)| piece.len() <= 255));
            }
        }

        #[test]
        fn any_bytes_come_to_an_end(bytes in prop::collection::vec(any::<u8>(), 236..800)) {
            let bytes = [&bytes[..236], &COOKIE, &bytes[236..]].concat();
            let view = Message::new_checked(&bytes).unwrap();
            prop_assert!(view.pieces().count() <= bytes.len());
            for code in 0..=255 {
                let _ = view.option(code).map(|value| (value.array::<4>(), value.pieces().count()));
            }
        }
    }
}
