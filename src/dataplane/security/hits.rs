//! How often each rule let something begin at each port: connections, or packets where nothing is remembered of those.
//!
//! A worker counts for the ports that it is the home of, and for nobody else, so a count is a plain number. Only what the
//! rules are asked about is counted: a packet of a known connection never gets here. Counts go by a rule's own number, not by
//! its place, so that they go on over all changes that leave the rule in force at the port.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use crate::tables::security::RuleEntry;
use crate::tables::{PortEntry, Tables};
use crate::types::{PortIdx, WorkerIdx};

/// Rules of a port for whose counts there is room from the beginning.
const ROOM: usize = 64;

/// See the module's documentation.
#[derive(Default)]
pub struct Hits {
    ports: Vec<Option<OfPort>>,
}

struct OfPort {
    /// Who has the slot.
    name: Arc<str>,
    /// Those in force.
    rules: Arc<[RuleEntry]>,
    counts: Counts,
}

/// By [`RuleEntry::id`].
type Counts = HashMap<u64, u64, BuildHasherDefault<IdHasher>>;

/// Spreads numbers that were given out one after the other. Nobody else chooses them.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hits {
    /// Counts one.
    #[inline]
    pub(super) fn count(&mut self, port: PortIdx, rule: &RuleEntry) {
        if let Some(Some(of)) = self.ports.get_mut(port.index()) {
            *of.counts.entry(rule.id).or_insert(0) += 1;
        }
    }

    /// The rules that let something begin at a port, by [`RuleEntry::id`], and how often, in no order.
    pub fn of(&self, port: PortIdx) -> impl Iterator<Item = (u64, u64)> {
        let of = self.ports.get(port.index()).and_then(Option::as_ref);
        of.into_iter().flat_map(|of| of.counts.iter().map(|(id, count)| (*id, *count)))
    }

    /// Takes over newly published tables: forgets rules that are no longer in force where they were.
    pub(super) fn configure(&mut self, tables: &Tables, home: WorkerIdx) {
        // Ports share rules, and what is in force is found out once for all that do.
        let mut in_force: HashMap<*const RuleEntry, HashSet<u64>> = HashMap::new();
        self.ports.resize_with(tables.ports.len(), || None);
        for (slot, entry) in self.ports.iter_mut().zip(&tables.ports) {
            let entry = entry.as_ref().filter(|entry| entry.worker == home);
            let rules = entry.and_then(PortEntry::policy).map(|policy| &policy.rules);
            let (Some(entry), Some(rules)) = (entry, rules) else {
                *slot = None;
                continue;
            };
            let Some(of) = slot.as_mut().filter(|known| known.name == entry.name) else {
                let counts = Counts::with_capacity_and_hasher(rules.len().min(ROOM), Default::default());
                *slot = Some(OfPort { name: entry.name.clone(), rules: rules.clone(), counts });
                continue;
            };
            if Arc::ptr_eq(&of.rules, rules) {
                continue;
            }
            if !of.counts.is_empty() {
                let ids = in_force
                    .entry(rules.as_ptr())
                    .or_insert_with(|| rules.iter().map(|rule| rule.id).collect());
                of.counts.retain(|id, _| ids.contains(id));
            }
            of.rules = rules.clone();
        }
    }
}
