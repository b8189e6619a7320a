//! How the path explains itself. The same code runs with [`Silent`] in a worker, where every call compiles to nothing,
//! and with [`Explain`] under `nuswitch trace`.

use super::conntrack::Tuple;
use crate::types::PortIdx;

/// Hears each decision.
pub trait Tracer {
    /// Whether it hears anything: then a packet goes the way on which most is said.
    const HEARS: bool = true;

    /// `stage` decided what `text` says, in the configuration's words.
    fn say(&mut self, stage: &'static str, text: impl FnOnce() -> String);

    /// Something was looked for that a copy of the switch's state may not have.
    #[inline(always)]
    fn look(&mut self, _wanted: impl FnOnce() -> Option<Look>) {}
}

/// What was looked for, and can be asked of the worker that would have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The connection of a tuple, at the worker that translates for the router that is its zone.
    Connection(Tuple),
    /// The connection of a tuple whose zone is a network, at the worker of this guest's port.
    Tracked(PortIdx, Tuple),
    /// A neighbour of an interface, at its home. The address is one of [`crate::tables::tunnel::address_key`].
    Neighbour(PortIdx, u128),
}

/// Hears nothing and costs nothing.
pub struct Silent;

impl Tracer for Silent {
    const HEARS: bool = false;

    #[inline(always)]
    fn say(&mut self, _stage: &'static str, _text: impl FnOnce() -> String) {}
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The stage of the path: `ingress`, `bridge`, `egress`.
    pub stage: String,
    /// What it decided.
    pub text: String,
}

/// Writes every decision down.
#[derive(Default)]
pub struct Explain {
    /// In order.
    pub steps: Vec<Step>,
    /// What was looked for, in order.
    pub looks: Vec<Look>,
}

impl Tracer for Explain {
    fn say(&mut self, stage: &'static str, text: impl FnOnce() -> String) {
        self.steps.push(Step { stage: stage.to_owned(), text: text() });
    }

    fn look(&mut self, wanted: impl FnOnce() -> Option<Look>) {
        self.looks.extend(wanted());
    }
}
