//! stub until merged
#![allow(missing_docs, unused_variables)]
use crate::{frame::{Frame,Pool}, ports::Caps, stats::DropReason};
pub fn check(frame: &Frame) -> Result<(), DropReason> { Ok(()) }
pub fn segment_len(frame: &Frame) -> usize { frame.len() }
pub fn finish(frame: Frame, pool: &mut Pool, caps: &Caps, mut out: impl FnMut(Frame)) -> Result<usize, DropReason> { out(frame); Ok(1) }
