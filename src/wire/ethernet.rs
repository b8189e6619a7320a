//! stub until merged
#![allow(missing_docs)]
pub const HEADER_LEN: usize = 14;
pub const TAG_LEN: usize = 4;
pub const CTAG: u16 = 0x8100;
pub const STAG: u16 = 0x88a8;
