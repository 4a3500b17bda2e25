//! A connection of the app: what comes on it, and what is written on it around the answers.

use std::io;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{Response, StatusCode};
use http_body::Frame;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::http1::deadline::Deadline;
use crate::http1::decoder::Decoder;
use crate::http1::inbound::Source;
use crate::http1::outflow::Encoding;
use crate::http1::wire::{Outgoing, Wire};
use crate::http1::{Error, Interim, SILENCE, head};
use crate::memory::{Reservation, SMALL};
use crate::stream::{Hangup, Reset};
use crate::sync::lock;

/// What the app still sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Open,
    /// It has closed its side before it had the answer: it may wait for that, or be gone.
    Closed,
    /// It has closed its side in the middle of the answer, as those do that leave.
    Leaving,
}

/// How far the answer to the request at hand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Waiting,
    /// Its first bytes have just been written.
    Begun,
    Answering,
}

/// Whether the app waits for leave to send the body (`Expect: 100-continue`, RFC 9110 section 10.1.1).
#[derive(Debug, Default)]
pub(super) enum Expectation {
    #[default]
    None,
    /// It waits for the upstream's word, or until the time is over that begins when the body is first asked for.
    Waits(Box<Deadline>),
    /// It gets leave when the body is next asked for.
    Due,
}

/// It is behind a lock for the type system only: all its users run on one thread, one at a time.
#[derive(Debug)]
pub(super) struct Connection<T> {
    pub(super) wire: Wire<T>,
    pub(super) decoder: Decoder,
    pub(super) expectation: Expectation,
    /// What is left to write ahead of the answer: nothing may come between its bytes.
    interim: Outgoing,
    /// How many bytes of [`STATUS_LINE`] have been sent ahead of the answer.
    pub(super) begun: usize,
    side: Side,
    pub(super) stage: Stage,
    /// For the head as far as it has come, then for what the app does not read.
    pub(super) held: Reservation,
    /// Whoever reads the body, and whoever waits for it to be read: over HTTP/2 they are two tasks.
    reader: Option<Waker>,
    watcher: Option<Waker>,
}

impl<T: AsyncRead + AsyncWrite + Reset + Unpin> Connection<T> {
    pub(super) fn new(stream: T) -> Self {
        Self {
            wire: Wire::new(stream),
            decoder: Decoder::Done,
            expectation: Expectation::None,
            interim: Outgoing::default(),
            begun: 0,
            side: Side::Open,
            stage: Stage::Waiting,
            held: Reservation::default(),
            reader: None,
            watcher: None,
        }
    }

    /// The head of the next request; `None` where there is none.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        header_size: usize,
        deadline: &mut Deadline,
    ) -> Poll<Result<Option<Bytes>, Error>> {
        let was_begun = !self.wire.ahead.is_empty();
        match self.wire.poll_head(cx, header_size, head::probe_request) {
            Poll::Ready(Ok(Some(head))) => {
                self.stage = Stage::Waiting;
                // It stays as long as the request does, with all of the buffer that it came in.
                if head.len() > SMALL {
                    self.held.grow(head.len() + self.wire.ahead.capacity())?;
                } else {
                    self.held.release();
                }
                Poll::Ready(Ok(Some(head)))
            }
            Poll::Ready(end) => {
                self.stage = Stage::Waiting;
                Poll::Ready(end)
            }
            Poll::Pending => {
                self.wire.rest();
                let is_begun = !self.wire.ahead.is_empty();
                if is_begun {
                    self.held.grow(self.wire.ahead.capacity())?;
                }
                if is_begun != was_begun || !deadline.is_set() {
                    deadline.set(Instant::now() + if is_begun { HEAD_TIMEOUT } else { IDLE_TIMEOUT });
                }
                ready!(deadline.poll(cx));
                Poll::Ready(if is_begun { Err(Error::Slow) } else { Ok(None) })
            }
        }
    }

    /// Whether bytes lie unread, so that the end of the stream does not show by reading.
    pub(super) fn is_veiled(&self) -> bool {
        !self.decoder.is_done() || !self.wire.ahead.is_empty()
    }

    pub(super) fn is_reset(&self) -> bool {
        self.wire.stream.hangup() == Some(Hangup::Reset)
    }

    /// Ready once the app has left, or can be taken to have.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>, deadline: &mut Deadline) -> Poll<()> {
        if !self.decoder.is_done() {
            note(&mut self.watcher, cx);
            // Who waits for more of the body sees its end.
            if self.reader.is_some() {
                return Poll::Pending;
            }
        } else if self.wire.ahead.is_empty() && self.side == Side::Open {
            match ready!(self.wire.poll_fill(cx)) {
                Ok(0) => self.closes(deadline),
                Ok(_) => {}
                Err(_) => return Poll::Ready(()),
            }
        }
        loop {
            match self.wire.stream.hangup() {
                Some(Hangup::Reset) => return Poll::Ready(()),
                Some(Hangup::Closed) if self.side == Side::Open => self.closes(deadline),
                Some(Hangup::Closed) | None => {}
            }
            if !deadline.is_set() {
                deadline.set(Instant::now() + LOOK);
            }
            ready!(deadline.poll(cx));
            if self.side == Side::Leaving || self.probe(cx).is_err() {
                return Poll::Ready(());
            }
            let pause = self.begun.checked_sub(1).and_then(|last| PROBES.get(last));
            deadline.set(Instant::now() + *pause.unwrap_or(&LOOK));
        }
    }

    /// The app sends no more.
    fn closes(&mut self, deadline: &mut Deadline) {
        // Nor the body that it asked leave for.
        self.expectation = Expectation::None;
        self.side = match self.stage {
            Stage::Waiting | Stage::Begun => Side::Closed,
            Stage::Answering => Side::Leaving,
        };
        let wait = match self.stage {
            Stage::Waiting => Duration::ZERO,
            Stage::Begun | Stage::Answering => GRACE,
        };
        deadline.set(Instant::now() + wait);
    }

    /// Sends one more byte ahead of the answer to an app that may have left.
    fn probe(&mut self, cx: &mut Context<'_>) -> Result<(), io::Error> {
        let is_due = self.side == Side::Closed && self.stage == Stage::Waiting && self.interim.is_empty();
        if is_due && self.begun < PROBES.len() {
            (self.interim.head).extend_from_slice(&STATUS_LINE[self.begun..=self.begun]);
            self.begun += 1;
        }
        match self.poll_interim(cx) {
            Poll::Ready(sent) => sent,
            Poll::Pending => Ok(()),
        }
    }

    /// Drops what has come of a body that nobody reads. Whether that was all of it; never waits for more.
    pub(super) fn skip(&mut self, cx: &mut Context<'_>) -> bool {
        self.reader = None;
        let mut skipped = 0;
        while self.expectation.is_none() && skipped < MOST_SKIPPED {
            match self.decoder.poll_frame(&mut self.wire, cx) {
                Poll::Ready(Some(Ok(frame))) => skipped += frame.data_ref().map_or(0, Bytes::len),
                Poll::Ready(None | Some(Err(_))) | Poll::Pending => break,
            }
        }
        self.decoder.is_done()
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        // Who sends it without leave has not waited.
        if !self.wire.ahead.is_empty() {
            self.expectation = Expectation::None;
        }
        if self.expectation.is_over(cx) {
            self.expectation = Expectation::None;
            self.interim.head.extend_from_slice(CONTINUE);
        }
        // Where there is no room for all of it, whoever writes next begins with the rest.
        if let Poll::Ready(Err(error)) = self.poll_interim(cx) {
            return Poll::Ready(Some(Err(error.into())));
        }
        let frame = self.decoder.poll_frame(&mut self.wire, cx);
        if frame.is_pending() {
            note(&mut self.reader, cx);
            return frame;
        }
        self.reader = None;
        self.expectation = Expectation::None;
        if self.decoder.is_done()
            && let Some(watcher) = self.watcher.take()
        {
            watcher.wake();
        }
        frame
    }

    /// Whoever still reads a body is told that it ended early: nothing of it is left to them from here on.
    pub(super) fn give_up(&mut self) {
        if !self.decoder.is_done() {
            self.decoder = Decoder::Broken;
        }
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    pub(super) fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.interim.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let written = ready!(self.wire.poll_write(&mut self.interim, cx));
        // Its buffer is not kept.
        self.interim = Outgoing::default();
        Poll::Ready(written)
    }

    /// Writes and flushes all of `out`.
    pub(super) fn poll_write(&mut self, out: &mut Outgoing, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_interim(cx))?;
        self.wire.poll_write(out, cx)
    }

    /// Takes an interim answer, to be written when there is room.
    fn put_interim(&mut self, response: Response<()>) {
        if self.stage != Stage::Waiting {
            return;
        }
        if response.status() == StatusCode::CONTINUE {
            // Who does not wait for one needs none, and some clients would take it for their answer.
            if matches!(self.expectation, Expectation::Waits(_)) {
                self.ask();
            }
            return;
        }
        let mut head = BytesMut::new();
        let (parts, ()) = response.into_parts();
        head::write_response(&mut head, &parts, &Encoding::None, None);
        // An app that does not read does not miss it either.
        if self.interim.len() + head.len() <= MOST_INTERIM {
            head.advance(std::mem::take(&mut self.begun));
            self.interim.head.extend_from_slice(&head);
        }
    }

    /// The body is wanted: an app that waits for leave to send it gets that.
    fn ask(&mut self) {
        if matches!(self.expectation, Expectation::Waits(_)) {
            self.expectation = Expectation::Due;
            if let Some(reader) = self.reader.take() {
                reader.wake();
            }
        }
    }
}

impl Expectation {
    pub(super) fn of(is_waiting: bool) -> Self {
        if is_waiting {
            Self::Waits(Box::default())
        } else {
            Self::None
        }
    }

    pub(super) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Whether the app gets leave now that the body is asked for.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        match self {
            Self::None => false,
            Self::Waits(deadline) => {
                if !deadline.is_set() {
                    deadline.set(Instant::now() + SILENCE);
                }
                deadline.poll(cx).is_ready()
            }
            Self::Due => true,
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Reset + Unpin + Send> Interim for Mutex<Connection<T>> {
    fn interim(&self, response: Response<()>) {
        lock(self).put_interim(response);
    }
}

impl<T: AsyncRead + AsyncWrite + Reset + Unpin + Send> Source for Mutex<Connection<T>> {
    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        lock(self).poll_body(cx)
    }

    fn ask(&self) {
        lock(self).ask();
    }

    fn is_done(&self) -> bool {
        lock(self).decoder.is_done()
    }
}

fn note(slot: &mut Option<Waker>, cx: &Context<'_>) {
    if !slot.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *slot = Some(cx.waker().clone());
    }
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// After an app has closed its side in the middle of its answer: how long nothing of it may come before the app is taken
/// to have left.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// From the first byte of a head to its last.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two requests: longer than the clients that keep connections longest do.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two looks at whether an app has left behind bytes that nobody has read.
const LOOK: Duration = Duration::from_millis(100);
/// Of interim answers that the app has not read, in bytes.
const MOST_INTERIM: usize = 64 * 1024;
/// Of a body that nobody reads, in bytes, for the sake of the next request.
const MOST_SKIPPED: usize = 256 * 1024;
/// After each byte that is sent ahead: a reset comes back within the time that the way takes, and an app that closed its
/// side may leave later.
const PROBES: [Duration; STATUS_LINE.len()] = [
    Duration::from_millis(10),
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(5),
    Duration::from_secs(5),
    Duration::from_secs(5),
    Duration::from_secs(5),
    Duration::from_secs(5),
];
/// What every answer begins with.
const STATUS_LINE: &[u8] = b"HTTP/1.1 ";
