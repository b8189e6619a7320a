//! The path of a frame, pure.

pub mod segment;
