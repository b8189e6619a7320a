//! What no worker may do: services that keep state for each client, wait, or do I/O. They run on one thread of their own; workers
//! hand it copies of frames, and what it answers goes back to the worker of the port as whole frames.
//!
//! | module | what it knows |
//! |---|---|
//! | [`metadata`] | a guest's identity, keys and user data, over HTTP at 169.254.169.254 and fe80::a9fe:a9fe |
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::panic, clippy::expect_used))]

pub mod metadata;
