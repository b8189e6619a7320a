//! IPv4 packets that are too long for the network that they go to and that their senders let routers cut (RFC 791, sections 2.3 and
//! 3.2; RFC 1812, 4.2.2.7). Whoever does not let them is told the MTU instead.
//!
//! Parts are of one packet, with its identification, and as long as goes, in multiples of eight bytes. A part may be cut again. Of
//! the options those go with later parts that say so.

use arrayvec::ArrayVec;

use crate::dataplane::segment;
use crate::frame::{CHUNK_DATA, Frame, Pool};
use crate::stats::DropReason;
use crate::wire::ethernet::{HEADER, IPV4};
use crate::wire::ipv4::{self, DONT_FRAGMENT, FRAGMENT_OFFSET, Ipv4, Ipv4Mut, MORE_FRAGMENTS};

/// The longest IPv4 header.
const MOST: usize = 60;
/// An option that is nothing, and the one that ends them (RFC 791, 3.1).
const NOP: u8 = 1;
const END: u8 = 0;
/// The bit of an option's type that has it copied into all parts.
const COPIED: u8 = 0x80;

/// Whether a frame is one that may be cut; of segments that are still one (GSO) each may be.
pub(super) fn may_be(frame: &Frame) -> bool {
    let head = frame.head();
    let is_v4 = head.get(HEADER - 2..HEADER) == Some(&IPV4.to_be_bytes());
    let packet = Ipv4::new_checked(head.get(HEADER..).unwrap_or_default());
    is_v4 && packet.is_ok_and(|packet| packet.fragment() & DONT_FRAGMENT == 0)
}

/// The parts of a packet that are still to come.
pub(super) struct Parts {
    frame: Frame,
    /// Of the next part, from the Ethernet header on.
    header: ArrayVec<u8, { HEADER + MOST }>,
    /// What of the frame comes next, and where the packet ends.
    at: usize,
    end: usize,
    /// Bytes that a part carries.
    room: usize,
    /// Of the next part, in units of 8 bytes, and whether others follow the packet itself.
    offset: u16,
    more: bool,
}

impl Parts {
    /// Those of a packet that [`may_be`] cut, for frames of `len` bytes at most.
    ///
    /// # Errors
    /// [`DropReason::BadOffload`] when its checksum cannot be finished, which is to be done before, or when it is several segments; [`DropReason::IpLength`] when
    /// the packet is not whole.
    pub(super) fn new(mut frame: Frame, len: usize) -> Result<Parts, DropReason> {
        segment::finish_checksum(&mut frame)?;
        let bad = DropReason::IpLength;
        let packet = Ipv4::new_checked(frame.head().get(HEADER..).ok_or(bad)?).map_err(|_| bad)?;
        let at = HEADER + packet.header_len();
        let end = HEADER + usize::from(packet.total_len());
        let room = len.saturating_sub(at) & !7;
        let (offset, more) = (packet.fragment() & FRAGMENT_OFFSET, packet.fragment() & MORE_FRAGMENTS != 0);
        let header = frame.head().get(..at).and_then(|header| ArrayVec::try_from(header).ok()).ok_or(bad)?;
        if end > frame.len() || room == 0 {
            return Err(bad);
        }
        Ok(Parts { frame, header, at, end, room, offset, more })
    }

    /// The next part, in small chunks of its own; nothing behind the last one.
    ///
    /// # Errors
    /// [`DropReason::NoBuffer`]; then there are no more.
    pub(super) fn next(&mut self, pool: &mut Pool) -> Result<Option<Frame>, DropReason> {
        if self.at >= self.end {
            return Ok(None);
        }
        let stop = self.end.min(self.at + self.room);
        let made = self.write_header(stop).and_then(|()| self.make(stop, pool));
        keep_copied(self.header.get_mut(HEADER + ipv4::HEADER..).unwrap_or_default());
        let sent = u16::try_from((stop - self.at) / 8).unwrap_or(0);
        (self.at, self.offset) = (stop, self.offset + sent);
        if made.is_none() {
            self.at = self.end;
        }
        made.map(Some).ok_or(DropReason::NoBuffer)
    }

    fn write_header(&mut self, stop: usize) -> Option<()> {
        let more = if self.more || stop < self.end { MORE_FRAGMENTS } else { 0 };
        let field = self.offset & FRAGMENT_OFFSET | more;
        let len = u16::try_from(self.header.len() - HEADER + stop - self.at).ok()?;
        let packet = self.header.get_mut(HEADER..)?;
        packet.get_mut(6..8)?.copy_from_slice(&field.to_be_bytes());
        let mut packet = Ipv4Mut::new_checked(packet).ok()?;
        packet.set_total_len(len);
        packet.fill_checksum();
        Some(())
    }

    fn make(&self, stop: usize, pool: &mut Pool) -> Option<Frame> {
        let mut part = pool.alloc()?;
        part.append(&self.header)?;
        let room = CHUNK_DATA - self.header.len();
        let mut at = segment::fill(&mut part, &self.frame, self.at..stop, room)?;
        while at < stop {
            let mut link = pool.alloc()?;
            at = segment::fill(&mut link, &self.frame, at..stop, CHUNK_DATA)?;
            part.chain(link)?;
        }
        Some(part)
    }
}

/// Makes nothing of the options that only the first part has.
fn keep_copied(options: &mut [u8]) {
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        let len = match kind {
            END => return,
            NOP => 1,
            _ => options.get(at + 1).map_or(0, |len| usize::from(*len)),
        };
        // Whoever checked the packet has checked these.
        let Some(option) = options.get_mut(at..at + len).filter(|option| !option.is_empty()) else { return };
        if kind & COPIED == 0 {
            option.fill(NOP);
        }
        at += len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet of `len` bytes of payload, with these options and this fragment field.
    fn packet(options: &[u8], field: u16, len: usize) -> Vec<u8> {
        let header = 20 + options.len();
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        bytes.extend([0x40 | u8::try_from(header / 4).unwrap(), 0]);
        bytes.extend(u16::try_from(header + len).unwrap().to_be_bytes());
        bytes.extend([0xab, 0xcd]);
        bytes.extend(field.to_be_bytes());
        bytes.extend([64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        bytes.extend(options);
        Ipv4Mut::new_checked(&mut bytes[14..]).unwrap().fill_checksum();
        bytes.extend((0..len).map(|n| u8::try_from(n % 251).unwrap()));
        bytes
    }

    fn cut(bytes: &[u8], mtu: usize) -> Vec<Vec<u8>> {
        let mut pool = Pool::with_chunks(64, 16).unwrap();
        let frame = if bytes.len() <= CHUNK_DATA {
            pool.frame_from(bytes).unwrap()
        } else {
            let mut frame = pool.alloc_large().unwrap();
            frame.append(bytes).unwrap();
            frame
        };
        assert!(may_be(&frame));
        let mut parts = Parts::new(frame, HEADER + mtu).unwrap();
        let mut made = Vec::new();
        while let Some(part) = parts.next(&mut pool).unwrap() {
            made.push(part.segments().collect::<Vec<_>>().concat());
        }
        made
    }

    #[test]
    fn parts_fit_and_make_up_the_packet() {
        // Also one that is a part itself, from the middle and the last.
        for (field, mtu, len) in [
            (0, 1400, 1480),
            (0, 68, 1480),
            (0, 1400, 1381),
            (185 | MORE_FRAGMENTS, 600, 1480),
            (185, 601, 1001),
            (0, 4000, 8980),
        ] {
            let whole = packet(&[], field, len);
            let parts = cut(&whole, mtu);
            let mut payload: Vec<u8> = Vec::new();
            for (n, part) in parts.iter().enumerate() {
                assert!(part.len() <= HEADER + mtu, "{}", part.len());
                let header = Ipv4::new_checked(&part[14..]).unwrap();
                let last = n == parts.len() - 1;
                let more = !last || field & MORE_FRAGMENTS != 0;
                assert_eq!(header.fragment() & MORE_FRAGMENTS != 0, more);
                assert_eq!(
                    usize::from(header.fragment() & FRAGMENT_OFFSET),
                    usize::from(field & FRAGMENT_OFFSET) + payload.len() / 8
                );
                assert_eq!((header.id(), usize::from(header.total_len())), (0xabcd, part.len() - 14));
                assert_eq!(crate::wire::checksum::Sum::of(&part[14..34]).fold(), 0xffff, "its checksum");
                assert!(last || part.len() - 34 > mtu - 20 - 8, "as long as goes");
                payload.extend(&part[34..]);
            }
            assert!(payload == whole[34..]);
        }
    }

    #[test]
    fn later_parts_have_the_options_that_are_to_be_copied() {
        // Record route, which is not, nothing, and a security option (RFC 1108), which is.
        let options = [7, 7, 4, 0, 0, 0, 0, 1, 0x82, 4, 0xaa, 0xbb];
        let parts = cut(&packet(&options, 0, 1400), 600);
        assert_eq!(parts[0][34..46], options);
        for part in &parts[1..] {
            assert_eq!(part[34..46], [1, 1, 1, 1, 1, 1, 1, 1, 0x82, 4, 0xaa, 0xbb]);
        }
        assert!(parts.len() == 3 && parts.iter().all(|part| part[14] == 0x48));
    }

    #[test]
    fn who_says_so_is_not_cut() {
        let mut pool = Pool::with_chunks(8, 8).unwrap();
        let mut may = |bytes: &[u8]| may_be(&pool.frame_from(bytes).unwrap());
        assert!(!may(&packet(&[], DONT_FRAGMENT, 1400)));
        assert!(may(&packet(&[], 0, 1400)));
        let mut six = packet(&[], 0, 1400);
        six[12..14].copy_from_slice(&[0x86, 0xdd]);
        assert!(!may(&six));
    }
}
