//! The control socket: HTTP/1.1 and JSON over a Unix socket. [`view`] is what passes over it, [`socket`] how the
//! socket file comes and goes, [`server`] the switch's side, [`client`] the side of the commands.
//!
//! The server reaches the switch through one trait, [`server::Switch`]; nothing here knows workers or devices.

pub mod client;
pub mod filter;
pub mod hex;
pub mod select;
pub mod server;
pub mod socket;
pub mod view;

#[cfg(test)]
pub(crate) mod tests;
