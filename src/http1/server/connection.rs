//! A connection of the app: reads requests and their bodies, and writes interim answers and the answer.

use std::io;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::StatusCode;
use http_body::Frame;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::http1::deadline::Deadline;
use crate::http1::decoder::Decoder;
use crate::http1::framing::BodyEncoding;
use crate::http1::inbound::BodySource;
use crate::http1::wire::{Outgoing, Wire};
use crate::http1::{Error, Interim, MOST_SKIPPED, SILENCE, head};
use crate::memory::{Reservation, SMALL};
use crate::message::Response;
use crate::stream::{Hangup, Reset};
use crate::sync::lock;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// How long an app that has closed its side during its answer may read nothing before it is taken to have left.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// The time from the first byte of a head to its last.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The time between two requests: longer than any common client keeps a connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// How often we look whether the app has left while there are unread bytes.
const LOOK: Duration = Duration::from_millis(100);
/// The most bytes of interim answers that the app has not read.
const MOST_INTERIM: usize = 64 * 1024;
/// The pause after each byte that is sent ahead. A reset comes back within a round trip; but the app may also leave later.
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

/// Whether the app still sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AppSide {
    Open,
    /// It has closed its side before the answer: it may wait for the answer, or have left.
    Closed,
    /// It has closed its side during the answer, as an app that leaves does.
    Leaving,
}

/// How much of the answer to the current request has been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerStage {
    Waiting,
    /// The first bytes have just been written.
    Begun,
    Answering,
}

/// Whether the app waits for `100 Continue` before it sends the body (RFC 9110 section 10.1.1).
#[derive(Debug, Default)]
pub(super) enum Expectation {
    #[default]
    None,
    /// It waits for the upstream's answer, at most [`SILENCE`] from when the body is first asked for.
    Waits(Box<Deadline>),
    /// It gets the 100 when the body is next asked for.
    Due,
}

/// It is behind a lock for the type system only: all its users run on one thread, one at a time.
#[derive(Debug)]
pub(super) struct ServerConnection<T> {
    pub(super) wire: Wire<T>,
    pub(super) decoder: Decoder,
    pub(super) expectation: Expectation,
    /// What is to be written before the answer: nothing may come between the bytes of the answer.
    interim: Outgoing,
    /// How many bytes of [`STATUS_LINE`] have been sent ahead.
    pub(super) begun: usize,
    side: AppSide,
    pub(super) stage: AnswerStage,
    /// Memory for a head that has come in part, then for an answer that the app does not read.
    pub(super) held: Reservation,
    /// Wakes the reader of the body.
    reader: Option<Waker>,
    /// Wakes the task that waits for the body to be read. If the upstream speaks HTTP/2 it is not the reader's.
    watcher: Option<Waker>,
}

impl<T: AsyncRead + AsyncWrite + Reset + Unpin> ServerConnection<T> {
    pub(super) fn new(stream: T) -> Self {
        Self {
            wire: Wire::new(stream),
            decoder: Decoder::Done,
            expectation: Expectation::None,
            interim: Outgoing::default(),
            begun: 0,
            side: AppSide::Open,
            stage: AnswerStage::Waiting,
            held: Reservation::default(),
            reader: None,
            watcher: None,
        }
    }

    /// Reads the head of the next request; `None` if the connection ends before it.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        header_size: usize,
        deadline: &mut Deadline,
    ) -> Poll<Result<Option<Bytes>, Error>> {
        let was_begun = !self.wire.ahead.is_empty();
        match self.wire.poll_head(cx, header_size, head::probe_request) {
            Poll::Ready(Ok(Some(head))) => {
                self.stage = AnswerStage::Waiting;
                // The request keeps the whole buffer that its head came in.
                if head.len() > SMALL {
                    self.held.grow(head.len() + self.wire.ahead.capacity())?;
                } else {
                    self.held.release();
                }
                Poll::Ready(Ok(Some(head)))
            }
            Poll::Ready(end) => {
                self.stage = AnswerStage::Waiting;
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

    /// Whether there are unread bytes, so that reading does not show the end of the stream.
    pub(super) fn is_veiled(&self) -> bool {
        !self.decoder.is_done() || !self.wire.ahead.is_empty()
    }

    pub(super) fn is_reset(&self) -> bool {
        self.wire.stream.hangup() == Some(Hangup::Reset)
    }

    /// Ready when the app has left, or must be taken to have left.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>, deadline: &mut Deadline) -> Poll<()> {
        if !self.decoder.is_done() {
            note(&mut self.watcher, cx);
            // The reader of the body will see the end.
            if self.reader.is_some() {
                return Poll::Pending;
            }
        } else if self.wire.ahead.is_empty() && self.side == AppSide::Open {
            match ready!(self.wire.poll_fill(cx)) {
                Ok(0) => self.closes(deadline),
                Ok(_) => {}
                Err(_) => return Poll::Ready(()),
            }
        }
        loop {
            match self.wire.stream.hangup() {
                Some(Hangup::Reset) => return Poll::Ready(()),
                Some(Hangup::Closed) if self.side == AppSide::Open => self.closes(deadline),
                Some(Hangup::Closed) | None => {}
            }
            if !deadline.is_set() {
                deadline.set(Instant::now() + LOOK);
            }
            ready!(deadline.poll(cx));
            if self.side == AppSide::Leaving || self.probe(cx).is_err() {
                return Poll::Ready(());
            }
            let pause = self.begun.checked_sub(1).and_then(|last| PROBES.get(last));
            deadline.set(Instant::now() + *pause.unwrap_or(&LOOK));
        }
    }

    /// The app sends no more.
    fn closes(&mut self, deadline: &mut Deadline) {
        // So it does not send the body either.
        self.expectation = Expectation::None;
        self.side = match self.stage {
            AnswerStage::Waiting | AnswerStage::Begun => AppSide::Closed,
            AnswerStage::Answering => AppSide::Leaving,
        };
        let wait = match self.stage {
            AnswerStage::Waiting => Duration::ZERO,
            AnswerStage::Begun | AnswerStage::Answering => GRACE,
        };
        deadline.set(Instant::now() + wait);
    }

    /// Sends one more byte of the answer ahead, to an app that may have left.
    fn probe(&mut self, cx: &mut Context<'_>) -> Result<(), io::Error> {
        let is_due =
            self.side == AppSide::Closed && self.stage == AnswerStage::Waiting && self.interim.is_empty();
        if is_due && self.begun < PROBES.len() {
            (self.interim.head).extend_from_slice(&STATUS_LINE[self.begun..=self.begun]);
            self.begun += 1;
        }
        match self.poll_interim(cx) {
            Poll::Ready(sent) => sent,
            Poll::Pending => Ok(()),
        }
    }

    /// Drops what has come of a body that the handler has dropped. Returns whether that was all of it; never waits.
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
        // An app that sends the body has not waited for the 100.
        if !self.wire.ahead.is_empty() {
            self.expectation = Expectation::None;
        }
        if self.expectation.is_over(cx) {
            self.expectation = Expectation::None;
            self.interim.head.extend_from_slice(CONTINUE);
        }
        // What the socket does not take is written before the next bytes.
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

    /// Ends the body of the request with an error for its reader.
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
        // Frees the buffer.
        self.interim = Outgoing::default();
        Poll::Ready(written)
    }

    /// Writes and flushes all of `out`.
    pub(super) fn poll_write(&mut self, out: &mut Outgoing, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_interim(cx))?;
        self.wire.poll_write(out, cx)
    }

    /// Takes an interim answer, to be written when the socket has room.
    fn put_interim(&mut self, response: Response<()>) {
        if self.stage != AnswerStage::Waiting {
            return;
        }
        if response.status() == StatusCode::CONTINUE {
            // Only for an app that waits for it: some others would take it for their answer.
            if matches!(self.expectation, Expectation::Waits(_)) {
                self.ask();
            }
            return;
        }
        let (parts, ()) = response.into_parts();
        let mut head = head::write_response(&parts, &BodyEncoding::None, None);
        // An app that does not read does not miss it.
        if self.interim.len() + head.len() <= MOST_INTERIM {
            head.advance(std::mem::take(&mut self.begun));
            self.interim.head.extend_from_slice(&head);
        }
    }

    /// Lets an app that waits for `100 Continue` have it when the body is next read.
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

    /// Whether the app gets the 100 now that the body is asked for.
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

impl<T: AsyncRead + AsyncWrite + Reset + Unpin + Send> Interim for Mutex<ServerConnection<T>> {
    fn interim(&self, response: Response<()>) {
        lock(self).put_interim(response);
    }
}

impl<T: AsyncRead + AsyncWrite + Reset + Unpin + Send> BodySource for Mutex<ServerConnection<T>> {
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
