//! One connection, as hyper reads and writes it, and the time that each of its phases may take.
//!
//! What is read or written leaves work for the guest's stack (a window to open, bytes to send), so each asks for a turn.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::RecvError;
use tokio::time::Instant;

use super::limits;
use super::service::Slot;

/// What a connection is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// A request's header comes in; so it is from the start.
    Header,
    /// The request is worked on.
    Request,
    /// The answer goes out; it was last taken of then.
    Answer,
    /// Between requests.
    Idle,
}

/// The phase of a connection, and since when.
pub(super) struct Watch(Cell<(Phase, Instant)>);

impl Watch {
    pub(super) fn new() -> Watch {
        Watch(Cell::new((Phase::Header, Instant::now())))
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.0.set((phase, Instant::now()));
    }

    pub(super) fn phase(&self) -> Phase {
        self.0.get().0
    }

    /// When its time is over.
    pub(super) fn deadline(&self) -> Instant {
        let (phase, since) = self.0.get();
        since
            + match phase {
                Phase::Header => limits::READ_HEADER,
                // The request answers for its own time; this is for what hangs in spite of that.
                Phase::Request => limits::REQUEST * 2,
                Phase::Answer => limits::STALLED,
                Phase::Idle => limits::IDLE,
            }
    }
}

/// A connection's bytes. The socket is its own until it is dropped.
pub(super) struct Stream {
    slot: Rc<Slot>,
    handle: SocketHandle,
    watch: Rc<Watch>,
    /// Reset the connection rather than close it.
    reset: Rc<Cell<bool>>,
}

impl Stream {
    pub(super) fn new(
        slot: Rc<Slot>,
        handle: SocketHandle,
        watch: Rc<Watch>,
        reset: Rc<Cell<bool>>,
    ) -> Stream {
        Stream { slot, handle, watch, reset }
    }
}

impl Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut stack = self.slot.stack.borrow_mut();
        let socket = stack.socket(self.handle);
        if socket.may_recv() && !socket.can_recv() {
            socket.register_recv_waker(cx.waker());
            return Poll::Pending;
        }
        let read = socket.recv(|bytes| {
            let fits = bytes.get(..into.remaining()).unwrap_or(bytes);
            into.put_slice(fits);
            (fits.len(), ())
        });
        drop(stack);
        match read {
            Ok(()) => {
                if self.watch.phase() == Phase::Idle {
                    self.watch.enter(Phase::Header);
                }
                self.slot.wake();
                Poll::Ready(Ok(()))
            }
            Err(RecvError::Finished) => Poll::Ready(Ok(())),
            Err(RecvError::InvalidState) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl Write for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut stack = self.slot.stack.borrow_mut();
        let socket = stack.socket(self.handle);
        if socket.may_send() && !socket.can_send() {
            socket.register_send_waker(cx.waker());
            return Poll::Pending;
        }
        let written = socket.send_slice(bytes);
        drop(stack);
        let Ok(written) = written else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        if self.watch.phase() == Phase::Answer {
            self.watch.enter(Phase::Answer);
        }
        self.slot.wake();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What is in the socket is on its way.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.slot.stack.borrow_mut().socket(self.handle).close();
        self.slot.wake();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let now = self.slot.clock.now();
        self.slot.stack.borrow_mut().release(self.handle, self.reset.get(), now);
        self.slot.wake();
    }
}
