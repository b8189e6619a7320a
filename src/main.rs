//! The command `nuswitch`.
fn main() {}
