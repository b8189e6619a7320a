//! Cutting IPv4 packets that are longer than the next link carries, and that their sender lets be cut (RFC 791, 3.2;
//! RFC 1812, 4.2.2.7 and 5.2.6).
//!
//! A packet is cut when all else is done: it is translated, its hop is counted, and its transport checksum, if it was
//! unfinished, is finished here. Each part has the identification of the whole and as much data as fits, the last one less;
//! one that was a part itself is cut into parts of the whole. The first part has all options, the others those that are to be
//! copied. Each part is a frame of its own from here on.
//!
//! A GSO frame is to be segmented before, as each of its segments is a packet. Headers lie in the frame's head.

use crate::dataplane::segment;
use crate::frame::{Frame, Pool};
use crate::stats::DropReason;
use crate::wire::checksum::Sum;
use crate::wire::ethernet::HEADER;
use crate::wire::ipv4::{self, FRAGMENT_OFFSET, MORE_FRAGMENTS};

/// The longest IPv4 header.
const LONGEST: usize = 60;
/// Options (RFC 791, 3.1): the end, a filler, and the flag of those that all parts have.
const END: u8 = 0;
const FILLER: u8 = 1;
const COPIED: u8 = 0x80;

/// A packet that is being cut.
pub(super) struct Cut {
    frame: Frame,
    /// The Ethernet and IP headers of the next part, and their length.
    headers: [u8; HEADER + LONGEST],
    len: usize,
    /// Where the data of the next part begin, and where those of the last one end, in bytes from the start of the frame.
    at: usize,
    end: usize,
    /// Where those belong in the whole, in units of 8 bytes, and whether others come behind this packet.
    offset: usize,
    more: bool,
    mtu: usize,
}

impl Cut {
    /// Cuts a sound packet without "don't fragment" for a link that carries `mtu` bytes from the IP header on.
    ///
    /// # Errors
    /// [`DropReason::BadOffload`], where its checksum cannot be finished; [`DropReason::MtuExceeded`], where not even 8 bytes of
    /// data fit; [`DropReason::IpLength`], where it is not sound.
    #[cold]
    pub(super) fn new(mut frame: Frame, mtu: usize) -> Result<Cut, DropReason> {
        segment::finish_checksum(&mut frame)?;
        let head = frame.head();
        let packet = head.get(HEADER..).unwrap_or_default();
        let view = ipv4::Ipv4::new_checked(packet).map_err(|_| DropReason::IpLength)?;
        let (field, total) = (view.fragment(), usize::from(view.total_len()));
        let len = HEADER + view.header_len();
        let (at, end) = (len, HEADER + total);
        let whole = head.get(..len).filter(|_| end <= frame.len()).ok_or(DropReason::IpLength)?;
        if mtu < view.header_len() + 8 {
            return Err(DropReason::MtuExceeded);
        }
        let mut headers = [0; HEADER + LONGEST];
        headers.get_mut(..len).ok_or(DropReason::IpLength)?.copy_from_slice(whole);
        let (offset, more) = (usize::from(field & FRAGMENT_OFFSET), field & MORE_FRAGMENTS != 0);
        Ok(Cut { frame, headers, len, at, end, offset, more, mtu })
    }

    /// The next part; nothing: that was all.
    ///
    /// # Errors
    /// [`DropReason::NoBuffer`]; [`DropReason::FragmentLength`], where it would be beyond what a packet may be. The rest is lost.
    #[cold]
    pub(super) fn next(&mut self, pool: &mut Pool) -> Option<Result<Frame, DropReason>> {
        (self.at < self.end).then(|| self.part(pool).inspect_err(|_| self.at = self.end))
    }

    fn part(&mut self, pool: &mut Pool) -> Result<Frame, DropReason> {
        let room = self.mtu + HEADER - self.len;
        let rest = self.end - self.at;
        let data = if rest <= room { rest } else { room & !7 };
        let more = self.more || data < rest;
        let offset = u16::try_from(self.offset).ok().filter(|offset| *offset <= FRAGMENT_OFFSET);
        let field = offset.ok_or(DropReason::FragmentLength)? | if more { MORE_FRAGMENTS } else { 0 };
        let total = u16::try_from(self.len - HEADER + data).map_err(|_| DropReason::IpLength)?;
        let headers = self.headers.get_mut(..self.len).ok_or(DropReason::IpLength)?;
        seal(headers.get_mut(HEADER..).unwrap_or_default(), total, field);

        let mut part = pool.alloc_for(self.len + data).ok_or(DropReason::NoBuffer)?;
        part.append(headers).ok_or(DropReason::NoBuffer)?;
        part.extend(data).ok_or(DropReason::NoBuffer)?;
        self.frame.copy_to(self.at, part.head_mut().get_mut(self.len..).unwrap_or_default());
        self.at += data;
        self.offset += data / 8;
        self.keep_copied();
        Ok(part)
    }

    /// Leaves out the options that are the first part's alone.
    fn keep_copied(&mut self) {
        let (before, mut kept) = (self.headers, HEADER + ipv4::HEADER);
        let mut at = kept;
        while let Some(&[kind, ref rest @ ..]) = before.get(at..self.len).filter(|rest| !rest.is_empty()) {
            let len = match (kind, rest) {
                (END, _) => break,
                (FILLER, _) => 1,
                (_, &[len, ..]) if len >= 2 => usize::from(len),
                _ => break,
            };
            if kind & COPIED != 0
                && let Some(option) = before.get(at..at + len)
                && let Some(place) = self.headers.get_mut(kept..kept + len)
            {
                place.copy_from_slice(option);
                kept += len;
            }
            at += len;
        }
        let len = HEADER + (kept - HEADER).next_multiple_of(4);
        self.headers.get_mut(kept..).unwrap_or_default().fill(END);
        self.len = len;
        if let (Some(first), Ok(words)) = (self.headers.get_mut(HEADER), u8::try_from((len - HEADER) / 4)) {
            *first = 0x40 | words;
        }
    }
}

/// Fills in what is a part's own in its IP header.
fn seal(header: &mut [u8], total: u16, field: u16) {
    let mut put = |at: usize, value: u16| {
        if let Some(place) = header.get_mut(at..at + 2) {
            place.copy_from_slice(&value.to_be_bytes());
        }
    };
    put(2, total);
    put(6, field);
    put(10, 0);
    let checksum = Sum::of(header).checksum();
    if let Some(place) = header.get_mut(10..12) {
        place.copy_from_slice(&checksum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests;
