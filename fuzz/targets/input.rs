//! Takes bytes apart into choices. When they run out, every choice is the first.

use nuswitch::frame::Offload;

pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Input<'a> {
        Input(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    pub fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.byte()) % choices.len()]
    }

    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// Any note, likely ones more often.
pub fn note(input: &mut Input<'_>) -> Offload {
    let flags = input.one_of(&[1u8, 0, 2, 3, 0xff]);
    let gso_type = input.one_of(&[0u8, 1, 4, 5, 0x81, 0x84, 3, 0x80, 0xff]);
    let csum_start = match input.byte() {
        0 => 34,
        1 => 54,
        2 => 38,
        3 => 58,
        _ => input.word(),
    };
    let csum_offset = match input.byte() {
        0 => 16,
        1 => 6,
        _ => input.word(),
    };
    let gso_size = input.one_of(&[1000u16, 1, 100, 1400, 0, 65_535]);
    Offload { flags, gso_type, hdr_len: 0, gso_size, csum_start, csum_offset }
}
