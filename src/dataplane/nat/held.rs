//! What connections hold beside their entries: bindings, and whom those have sent to, which is what filtering asks for.
//!
//! A connection between two endpoints that this router gives away (hairpin) has left by the sender's binding and come in by the
//! other guest's. It holds both; the second stands here, because an entry has room for one, and such connections are rare.

use std::collections::HashMap;

use super::low;
use crate::dataplane::conntrack::binding::BindingRef;
use crate::dataplane::conntrack::{Bindings, Direction, Entry, Tracker, Tuple};

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Held {
    /// How many connections say that a binding has sent to an address, where a router's filtering asks for that.
    sent_to: HashMap<(BindingRef, u32), u32>,
    /// Some router's does.
    remembers: bool,
    /// The other guest's binding of hairpin connections, by the tuple that they began with.
    others: HashMap<Tuple, BindingRef>,
}

impl Held {
    /// Whether filtering by address asks for what is remembered here.
    pub(super) fn remembers(&self) -> bool {
        self.remembers
    }

    /// Whether a binding has sent to an address. False where no filtering asks for that.
    pub(super) fn has_sent_to(&self, binding: BindingRef, address: u32) -> bool {
        self.sent_to.contains_key(&(binding, address))
    }

    /// The other guest's binding that a connection holds.
    pub(super) fn other(&self, entry: &Entry) -> Option<BindingRef> {
        if entry.is_hairpin() { self.others.get(&entry.tuple(Direction::Original)).copied() } else { None }
    }

    /// A connection began, which holds `other` besides its entry's binding.
    pub(super) fn note(&mut self, entry: &Entry, other: Option<BindingRef>) {
        if let Some(other) = other {
            self.others.insert(entry.tuple(Direction::Original), other);
        }
        self.remember(entry, other);
    }

    /// Notes for once that a binding has sent to an address: for copies that are looked at.
    pub(super) fn note_sent(&mut self, binding: BindingRef, address: u32) {
        if self.remembers {
            self.sent_to.entry((binding, address)).or_insert(1);
        }
    }

    fn remember(&mut self, entry: &Entry, other: Option<BindingRef>) {
        if self.remembers {
            for pair in pairs(entry, other) {
                *self.sent_to.entry(pair).or_default() += 1;
            }
        }
    }

    /// Begins to remember whom the bindings of all connections send to, or ceases to.
    pub(super) fn set_remembers(&mut self, wanted: bool, tracker: &Tracker) {
        self.remembers = wanted;
        self.sent_to.clear();
        let mut next = Some(0).filter(|_| wanted);
        while let Some(from) = next {
            next = tracker.walk(from, 4096, |_, entry| self.remember(entry, self.other(entry)));
        }
    }

    /// A connection is gone: so is what it held.
    pub(super) fn let_go(&mut self, entry: &Entry, bindings: &mut Bindings) {
        let other =
            if entry.is_hairpin() { self.others.remove(&entry.tuple(Direction::Original)) } else { None };
        if self.remembers {
            for pair in pairs(entry, other) {
                if let Some(count) = self.sent_to.get_mut(&pair) {
                    *count -= 1;
                    if *count == 0 {
                        self.sent_to.remove(&pair);
                    }
                }
            }
        }
        for binding in [entry.binding(), other].into_iter().flatten() {
            bindings.release(binding);
        }
    }
}

/// The bindings of a connection, each with whom it sends to: the other end as the world sees it.
fn pairs(entry: &Entry, other: Option<BindingRef>) -> impl Iterator<Item = (BindingRef, u32)> {
    let sent = entry.tuple(Direction::Original);
    let from = low(entry.translated(Direction::Original).source);
    let own = entry
        .binding()
        .map(|binding| (binding, low(if entry.is_inbound() { sent.source } else { sent.destination })));
    own.into_iter().chain(other.map(|binding| (binding, from)))
}
