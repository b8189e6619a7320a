//! TCP as a tracker between the hosts sees it: in which state a connection is, and which segments can be of it.
//!
//! A segment is judged by what its receiver must think of it, which follows from what passed here (van Rooij, "Real stateful
//! TCP packet filtering", 2001): nothing beyond the receiver's window, nothing older than a window, no acknowledgement of
//! what was never sent, none older than a window. Scaled windows as RFC 7323, section 2. The right edge of a window is
//! taken as the highest acknowledgement with the largest window, which is never left of the true one.
//!
//! # Transitions
//!
//! | state | segment | next |
//! |---|---|---|
//! | (none) | SYN | `SynSent` |
//! | (none) | ACK, where pick-up is allowed | `PickedUp` |
//! | `SynSent` | SYN of the originator: sent again | `SynSent` |
//! | `SynSent` | reply SYN+ACK of that SYN, or reply SYN (simultaneous open, RFC 5382 REQ-2) | `SynReceived` |
//! | `SynSent` | reply RST+ACK of that SYN; RST of the originator at its next number | `Reset` |
//! | `SynSent` | reply ACK: a challenge (RFC 5961, section 4) passes, to be answered by a RST | `SynSent` |
//! | `SynReceived` | the ACK that was missing, with or without a SYN | `Established` |
//! | `PickedUp` | any of the other side, in the window | `Established` |
//! | `PickedUp` | SYN of the originator | `SynSent`, restarted |
//! | `Established` | FIN | `HalfClosed` |
//! | `HalfClosed` | FIN of the other side | `Closing`, or `TimeWait` if both are acknowledged |
//! | `Closing` | ACK, so that both FINs are acknowledged | `TimeWait` |
//! | all but `TimeWait` | RST at exactly the number that is expected (RFC 5961, section 3.2) | `Reset` |
//! | any | RST elsewhere in the window, SYN where none belongs: pass, to be challenged by the receiver | same |
//! | `Reset` | others in the window: they may prove the RST forged, so they keep it (RFC 7857, section 2.2) | `Reset` |
//! | `TimeWait`, `Reset` | SYN of the originator (RFC 9293, section 3.6.1) | `SynSent`, restarted |
//! | `TimeWait`, `Reset` | SYN of the other side | (none): a connection of its own |

use super::Direction;
use super::entry::State;

/// FIN in [`Segment::flags`].
pub const FIN: u8 = 0x01;
/// SYN.
pub const SYN: u8 = 0x02;
/// RST.
pub const RST: u8 = 0x04;
/// ACK.
pub const ACK: u8 = 0x10;

/// The largest shift of a window (RFC 7323, section 2.3).
const MAX_SHIFT: u8 = 14;
/// An acknowledgement may always be this old: as much as one window without scaling, and a segment.
const ACK_LAG: u32 = 66_000;
/// The most that fragments of one datagram carry, in bytes.
const DATAGRAM: u32 = 65_535;

/// What the tracker needs of a TCP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// The sequence number.
    pub seq: u32,
    /// The acknowledgement number.
    pub ack: u32,
    /// Bytes of data behind the header.
    pub len: u32,
    /// The window as it stands in the header.
    pub window: u16,
    /// The flags as they stand in the 14th byte of the header.
    pub flags: u8,
    /// The shift of the window scale option, which counts on a SYN only.
    pub scale: Option<u8>,
}

impl Segment {
    /// The sequence number behind it: SYN and FIN take one each.
    #[inline(always)]
    fn end(&self) -> u32 {
        let phantom = u32::from(self.flags & SYN != 0) + u32::from(self.flags & FIN != 0);
        self.seq.wrapping_add(self.len).wrapping_add(phantom)
    }

    #[inline(always)]
    fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// Combinations that a TCP sends: one of SYN, SYN+ACK, RST, RST+ACK, ACK, FIN+ACK.
    fn is_well_formed(&self) -> bool {
        matches!(self.flags & (SYN | FIN | RST | ACK), SYN | RST | ACK)
            || matches!(self.flags & (SYN | FIN | RST), SYN | RST | FIN) && self.has(ACK)
    }
}

/// Why a segment cannot be of its connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Invalid {
    /// No TCP sends these flags together.
    Flags,
    /// No connection begins like this, or this one is not that far.
    NoHandshake,
    /// Beyond the receiver's window.
    BeyondWindow,
    /// Older than a window.
    TooOld,
    /// Acknowledges what was never sent.
    AcksUnsent,
    /// Its acknowledgement is older than a window.
    AcksTooOld,
    /// A RST that is not in the window.
    Reset,
}

impl Invalid {
    /// What it means, for a trace.
    pub fn meaning(self) -> &'static str {
        match self {
            Invalid::Flags => "flags that no TCP sends together",
            Invalid::NoHandshake => "not a part of the handshake that is due",
            Invalid::BeyondWindow => "beyond the receiver's window",
            Invalid::TooOld => "older than the receiver's window",
            Invalid::AcksUnsent => "acknowledges what was never sent",
            Invalid::AcksTooOld => "acknowledges what is older than a window",
            Invalid::Reset => "a reset outside of the window",
        }
    }
}

/// What a valid segment means for the connection's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// It lives on for as long as its state gives it.
    Refresh,
    /// Nothing changes, its end neither.
    Keep,
    /// It began anew.
    Restarted,
    /// It is over, and another begins from the other side.
    Renew,
}

/// The sender's numbers are known.
const SEEN: u8 = 1;
/// It has sent an ACK.
const ACKED: u8 = 2;
/// It has sent a FIN, at its `end`.
const FINISHED: u8 = 4;
/// It has offered to scale windows with its SYN: the originator.
const SCALED: u8 = 8;

/// What is known of both sides: by direction that they send in.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Tcp {
    /// The number behind all that was sent.
    end: [u32; 2],
    /// The highest acknowledgement sent; before there is one, the lowest that the *other* side may send.
    ack: [u32; 2],
    /// The largest window announced, as it stands in the header.
    window: [u16; 2],
    /// Four bits a side.
    flags: u8,
    /// Window shifts, four bits a side; the originator's is an offer until the other side has answered.
    shifts: u8,
}

#[inline(always)]
fn after(a: u32, b: u32) -> bool {
    b.wrapping_sub(a).cast_signed() < 0
}

#[inline(always)]
fn later(a: u32, b: u32) -> u32 {
    if after(a, b) { a } else { b }
}

impl Tcp {
    pub(super) const UNSEEN: Tcp = Tcp { end: [0; 2], ack: [0; 2], window: [0; 2], flags: 0, shifts: 0 };

    /// What is known after the first segment of a connection, and the state that it is in then.
    pub(super) fn begin(segment: &Segment, pick_up: bool) -> Result<(Tcp, State), Invalid> {
        if !segment.is_well_formed() {
            return Err(Invalid::Flags);
        }
        match segment.flags & (SYN | FIN | RST | ACK) {
            SYN => Ok((Tcp::of_syn(segment), State::SynSent)),
            ACK if pick_up => Ok((Tcp::of_ack(segment), State::PickedUp)),
            _ => Err(Invalid::NoHandshake),
        }
    }

    fn of_syn(segment: &Segment) -> Tcp {
        let mut tcp = Tcp::UNSEEN;
        tcp.end[0] = segment.end();
        tcp.ack[0] = segment.seq.wrapping_add(1);
        tcp.window[0] = segment.window;
        tcp.set(0, SEEN);
        if let Some(shift) = segment.scale {
            tcp.set(0, SCALED);
            tcp.shifts = shift.min(MAX_SHIFT);
        }
        tcp
    }

    /// The scale was agreed before; as the largest is assumed, no window is taken for smaller than it is.
    fn of_ack(segment: &Segment) -> Tcp {
        Tcp {
            end: [segment.end(), segment.ack],
            ack: [segment.ack; 2],
            window: [segment.window.max(1), u16::MAX],
            flags: SEEN | ACKED,
            shifts: MAX_SHIFT | MAX_SHIFT << 4,
        }
    }

    #[inline(always)]
    fn is(&self, side: usize, flag: u8) -> bool {
        self.flags >> (4 * side) & flag != 0
    }

    #[inline(always)]
    fn set(&mut self, side: usize, flag: u8) {
        self.flags |= flag << (4 * side);
    }

    #[inline(always)]
    fn clear(&mut self, side: usize, flag: u8) {
        self.flags &= !(flag << (4 * side));
    }

    #[inline(always)]
    fn shift(&self, side: usize) -> u8 {
        self.shifts >> (4 * side) & 15
    }

    /// The largest window of a side in bytes. One byte at least: a closed window may be probed (RFC 9293, section 3.8.6.1).
    #[inline(always)]
    fn window(&self, side: usize) -> u32 {
        (u32::from(self.window[side]) << self.shift(side)).max(1)
    }

    /// How far the other side's numbers may go: to the end of the window that this side has announced, and one further,
    /// because a FIN may be sent when the window is full.
    #[inline(always)]
    fn edge(&self, side: usize) -> u32 {
        self.ack[side].wrapping_add(self.window(side)).wrapping_add(1)
    }

    /// How far behind what was sent an acknowledgement of this side may be: a window, and a FIN behind it.
    #[inline(always)]
    fn lag(&self, side: usize) -> u32 {
        self.window(side).max(ACK_LAG) + 1
    }

    /// What a segment does to the connection and its state.
    ///
    /// # Errors
    /// It cannot be of the connection; nothing has changed.
    #[inline]
    pub(super) fn step(
        &mut self,
        state: &mut State,
        direction: Direction,
        segment: &Segment,
    ) -> Result<Step, Invalid> {
        let usual = *state == State::Established && segment.flags & (SYN | FIN | RST | ACK) == ACK;
        if usual && self.flows(direction.index(), segment) {
            return Ok(Step::Refresh);
        }
        self.step_rarely(state, direction, segment)
    }

    /// As [`Tcp::step`], for a segment that acknowledges what was not seen, in a connection that fragments are part of: it may
    /// be what they carried, a datagram's worth at most.
    ///
    /// # Errors
    /// As [`Tcp::step`]'s.
    #[cold]
    pub(super) fn step_over_parts(
        &mut self,
        state: &mut State,
        direction: Direction,
        segment: &Segment,
    ) -> Result<Step, Invalid> {
        let (before, other) = (*self, direction.opposite().index());
        if segment.ack.wrapping_sub(self.end[other]) > DATAGRAM || !self.is(other, SEEN) {
            return Err(Invalid::AcksUnsent);
        }
        self.end[other] = segment.ack;
        let step = self.step(state, direction, segment);
        if step.is_err() {
            *self = before;
        }
        step
    }

    /// [`Tcp::check`] and [`Tcp::take`] for data and acknowledgements of an established connection, without a branch for
    /// each rule. If false, nothing has changed.
    #[inline(always)]
    fn flows(&mut self, sender: usize, segment: &Segment) -> bool {
        let receiver = 1 - sender;
        let end = segment.seq.wrapping_add(segment.len);
        let window = self.window(receiver);
        let lag = self.lag(sender);
        let wrong = after(segment.seq, self.edge(receiver))
            | after(self.end[sender].wrapping_sub(window), end)
            | after(segment.ack, self.end[receiver])
            | after(self.end[receiver].wrapping_sub(lag), segment.ack);
        if !wrong {
            self.end[sender] = later(end, self.end[sender]);
            self.ack[sender] = later(segment.ack, self.ack[sender]);
            self.window[sender] = self.window[sender].max(segment.window);
        }
        !wrong
    }

    #[inline(never)]
    fn step_rarely(
        &mut self,
        state: &mut State,
        direction: Direction,
        segment: &Segment,
    ) -> Result<Step, Invalid> {
        if !segment.is_well_formed() {
            return Err(Invalid::Flags);
        }
        if segment.has(RST) {
            return self.reset(state, direction, segment);
        }
        if segment.has(SYN) {
            return self.synchronize(state, direction, segment);
        }
        if *state == State::SynSent {
            return match direction {
                Direction::Original => Err(Invalid::NoHandshake),
                Direction::Reply => Ok(Step::Keep),
            };
        }
        let sender = direction.index();
        self.check(sender, segment)?;
        self.take(sender, segment);
        self.set(sender, SEEN);
        if segment.has(FIN) && segment.end() == self.end[sender] {
            self.set(sender, FINISHED);
        }
        self.advance(state);
        Ok(Step::Refresh)
    }

    /// The state that follows from what both sides have sent.
    fn advance(&self, state: &mut State) {
        let both = |flag: u8| self.is(0, flag) && self.is(1, flag);
        if *state == State::Reset || !both(SEEN) || !both(ACKED) {
            return;
        }
        let acknowledged = !after(self.end[0], self.ack[1]) && !after(self.end[1], self.ack[0]);
        *state = match (self.is(0, FINISHED), self.is(1, FINISHED)) {
            (false, false) => State::Established,
            (true, true) if acknowledged => State::TimeWait,
            (true, true) => State::Closing,
            _ => State::HalfClosed,
        };
    }

    /// Whether a segment is one that its receiver might take.
    fn check(&self, sender: usize, segment: &Segment) -> Result<(), Invalid> {
        let receiver = 1 - sender;
        let window = self.window(receiver);
        if self.is(receiver, ACKED) && after(segment.seq, self.edge(receiver)) {
            return Err(Invalid::BeyondWindow);
        }
        if self.is(sender, SEEN) && after(self.end[sender].wrapping_sub(window), segment.end()) {
            return Err(Invalid::TooOld);
        }
        if after(segment.ack, self.end[receiver]) {
            return Err(Invalid::AcksUnsent);
        }
        let lag = self.lag(sender);
        if after(self.end[receiver].wrapping_sub(lag), segment.ack) {
            return Err(Invalid::AcksTooOld);
        }
        Ok(())
    }

    /// Takes over the numbers of a segment with an ACK.
    fn take(&mut self, sender: usize, segment: &Segment) {
        let end = segment.end();
        if after(end, self.end[sender]) {
            self.end[sender] = end;
            // There is more: what was taken for its FIN was none.
            self.clear(sender, FINISHED);
        }
        let first = !self.is(sender, ACKED);
        self.ack[sender] = if first { segment.ack } else { later(segment.ack, self.ack[sender]) };
        self.set(sender, ACKED);
        if !segment.has(SYN) {
            self.window[sender] = self.window[sender].max(segment.window);
        }
    }

    fn synchronize(
        &mut self,
        state: &mut State,
        direction: Direction,
        segment: &Segment,
    ) -> Result<Step, Invalid> {
        let (sender, acks) = (direction.index(), segment.has(ACK));
        match (*state, direction, acks) {
            (State::TimeWait | State::Reset | State::PickedUp, Direction::Original, false) => {
                (*self, *state) = (Tcp::of_syn(segment), State::SynSent);
                Ok(Step::Restarted)
            }
            (State::TimeWait | State::Reset, Direction::Reply, false) => Ok(Step::Renew),
            (State::SynSent, Direction::Original, false) => {
                *self = Tcp::of_syn(segment);
                Ok(Step::Refresh)
            }
            (State::SynSent, Direction::Original, true) => Err(Invalid::NoHandshake),
            (State::SynSent, Direction::Reply, _) => {
                if acks {
                    self.check_handshake(segment)?;
                }
                self.answer(segment);
                *state = State::SynReceived;
                Ok(Step::Refresh)
            }
            // Sent again, or the SYN+ACKs of a simultaneous open.
            (State::SynReceived, _, true) => {
                self.check(sender, segment)?;
                self.take(sender, segment);
                self.advance(state);
                Ok(Step::Refresh)
            }
            (State::SynReceived, _, false) if segment.end() == self.end[sender] => Ok(Step::Refresh),
            // Answered by a challenge where it is not of the connection (RFC 5961, section 4).
            _ => Ok(Step::Keep),
        }
    }

    /// The SYN of the originator, or some of the data with it (RFC 7413), must be what an answer acknowledges.
    fn check_handshake(&self, segment: &Segment) -> Result<(), Invalid> {
        if after(segment.ack, self.end[0]) {
            return Err(Invalid::AcksUnsent);
        }
        if after(self.ack[0], segment.ack) { Err(Invalid::AcksTooOld) } else { Ok(()) }
    }

    /// Takes over the SYN of the other side.
    fn answer(&mut self, segment: &Segment) {
        self.end[1] = segment.end();
        self.ack[1] = if segment.has(ACK) { segment.ack } else { segment.seq.wrapping_add(1) };
        self.window[1] = segment.window;
        self.set(1, SEEN | if segment.has(ACK) { ACKED } else { 0 });
        match segment.scale {
            Some(shift) if self.is(0, SCALED) => {
                self.shifts = self.shifts & 15 | shift.min(MAX_SHIFT) << 4;
                // Windows of SYNs are not scaled (RFC 7323, section 2.2).
                for side in 0..2 {
                    let window = self.window[side];
                    self.window[side] = window.div_ceil(1 << self.shift(side));
                }
            }
            // Both must have offered it (RFC 7323, section 2.2).
            _ => self.shifts = 0,
        }
    }

    /// A RST counts where its receiver would take it without a question (RFC 5961, section 3.2): at the number that it
    /// expects next, which is its last acknowledgement, or the end of what is under way to it.
    fn reset(&mut self, state: &mut State, direction: Direction, segment: &Segment) -> Result<Step, Invalid> {
        let (sender, receiver) = (direction.index(), direction.opposite().index());
        let exact = match (*state, direction) {
            (State::SynSent, Direction::Reply) => {
                if !segment.has(ACK) || self.check_handshake(segment).is_err() {
                    return Err(Invalid::Reset);
                }
                true
            }
            // It may answer a challenge.
            (State::SynSent, Direction::Original) if segment.seq != self.end[0] => return Ok(Step::Keep),
            _ => {
                let acked = self.is(receiver, ACKED) && segment.seq == self.ack[receiver];
                acked || segment.seq == self.end[sender]
            }
        };
        if exact && !matches!(*state, State::TimeWait | State::Reset) {
            *state = State::Reset;
            return Ok(Step::Refresh);
        }
        let window = self.window(receiver);
        let beyond = after(segment.seq, later(self.ack[receiver], self.end[sender]).wrapping_add(window));
        let old = after(self.end[sender].wrapping_sub(window), segment.seq);
        if beyond || old { Err(Invalid::Reset) } else { Ok(Step::Keep) }
    }
}
