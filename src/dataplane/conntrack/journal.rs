//! What happened to connections, for whoever follows them: a list of bounded length that its reader empties. What finds no
//! room is counted and left out. It is there only while somebody follows.

use super::{Entry, Why};

/// Events that wait for the reader, who comes every turn of the worker's loop.
const CAPACITY: usize = 4096;

/// What happened to a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Happened {
    /// It began.
    New,
    /// It has another state.
    Changed,
    /// It is gone.
    Ended(Why),
}

/// See the module's documentation.
pub struct Journal {
    events: Vec<(Happened, Entry)>,
    lost: u64,
}

impl Default for Journal {
    fn default() -> Journal {
        Journal { events: Vec::with_capacity(CAPACITY), lost: 0 }
    }
}

impl Journal {
    pub(super) fn note(&mut self, what: Happened, entry: &Entry) {
        if self.events.len() < CAPACITY {
            self.events.push((what, *entry));
        } else {
            self.lost += 1;
        }
    }

    /// Shows all events in their order, each with the connection as it was then, and forgets them. Gives how many found no
    /// room after these.
    pub fn drain(&mut self, mut show: impl FnMut(Happened, &Entry)) -> u64 {
        for (what, entry) in self.events.drain(..) {
            show(what, &entry);
        }
        std::mem::take(&mut self.lost)
    }
}
