//! AF_XDP from the system calls up, in layers that can each be tested alone:
//!
//! - [`ring`]: the single-producer, single-consumer rings shared with the kernel;
//! - [`umem`], [`socket`]: a region registered as UMEM, sockets bound to queues over it;
//! - [`bpf`], [`program`]: `bpf(2)`, and the few XDP programs that we load;
//! - [`netdev`]: what is asked of and told to the device itself.
//!
//! Nothing stays behind a process that is killed: programs hang on links, promiscuity on a socket, queues on sockets,
//! and all of those are descriptors. (But for the device's VLAN stripping, which is the device's own setting; a clean
//! close restores it.)

pub mod bpf;
pub mod netdev;
pub mod program;
pub mod ring;
pub mod socket;
pub mod umem;
