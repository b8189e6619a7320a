//! Learned peers.
