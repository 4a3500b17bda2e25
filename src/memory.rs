//! The memory that may be used, how much of it is reserved, and whether there is room for more.
//!
//! Code that holds memory for as long as a peer likes (a request, half a head, a gathered body, a stored answer, an
//! answer that nobody reads) reserves it first, and is refused where there is no room. Resident memory is measured
//! from time to time, so that memory without a reservation counts as well. The whole process shares one account,
//! [`MEMORY`].
//!
//! `app` measures what is resident, and logs when memory is short.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// What a request takes beside its head and its body, on both of its connections.
pub(crate) const REQUEST: usize = 8 * 1024;

/// One in so many parts of the ceiling is not for stored answers.
const SPARED: usize = 4;
/// So many can read ahead before half of the room is gone.
const READERS: usize = 256;
const LEAST_READ: usize = 4 * 1024;
/// The kernel's buffers are this part of the ceiling each.
const CONNECTIONS: usize = 1280;
/// A smaller one holds no packet of the loopback: with half of it a healthy download was 100 times slower.
const LEAST_BUFFER: usize = 64 * 1024;
/// From such a ceiling on the kernel may do as it likes.
const AMPLE: usize = 1024 * 1024 * 1024;

/// The memory of this process.
pub(crate) static MEMORY: Memory = Memory::new();

/// An account of memory, in bytes. Without a ceiling nothing is ever refused.
#[derive(Debug)]
pub(crate) struct Memory {
    ceiling: AtomicUsize,
    /// The least that was ever resident: what the program takes for itself.
    idle: AtomicUsize,
    /// How much may be reserved: the ceiling without what is resident and reserved by nobody.
    limit: AtomicUsize,
    reserved: AtomicUsize,
    /// Since it was last asked.
    has_refused: AtomicBool,
    /// Nothing was reserved since somebody asked.
    is_at_rest: AtomicBool,
    stirred: Notify,
}

/// Memory that is reserved until the value is dropped.
#[derive(Debug, Default)]
pub(crate) struct Reservation(usize);

/// There is no memory for it: `limits.memory`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("limits.memory is reached")]
pub(crate) struct Exhausted;

impl Memory {
    const fn new() -> Self {
        Self {
            ceiling: AtomicUsize::new(usize::MAX),
            idle: AtomicUsize::new(usize::MAX),
            limit: AtomicUsize::new(usize::MAX),
            reserved: AtomicUsize::new(0),
            has_refused: AtomicBool::new(false),
            is_at_rest: AtomicBool::new(false),
            stirred: Notify::const_new(),
        }
    }

    /// Sets how much may be used (`None`: any amount); `resident` is in use now.
    pub(crate) fn set_ceiling(&self, ceiling: Option<usize>, resident: usize) {
        self.ceiling
            .store(ceiling.unwrap_or(usize::MAX), Ordering::Relaxed);
        self.measured(resident);
    }

    /// Takes note of how much is resident.
    pub(crate) fn measured(&self, resident: usize) {
        let ceiling = self.ceiling.load(Ordering::Relaxed);
        let idle = self.idle.fetch_min(resident, Ordering::Relaxed).min(resident);
        if ceiling == usize::MAX {
            return self.limit.store(usize::MAX, Ordering::Relaxed);
        }
        let unreserved = resident.saturating_sub(self.reserved.load(Ordering::Relaxed));
        let limit = ceiling.saturating_sub(unreserved.max(idle));
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// How much may be used.
    pub(crate) fn ceiling(&self) -> Option<usize> {
        let ceiling = self.ceiling.load(Ordering::Relaxed);
        (ceiling < usize::MAX).then_some(ceiling)
    }

    /// How much more can be reserved.
    pub(crate) fn room(&self) -> usize {
        let limit = self.limit.load(Ordering::Relaxed);
        limit.saturating_sub(self.reserved.load(Ordering::Relaxed))
    }

    /// Returns by how much stored answers exceed what they may take.
    pub(crate) fn overdraft(&self) -> usize {
        self.spared().saturating_sub(self.room())
    }

    /// Whether even a small request is refused.
    pub(crate) fn is_full(&self) -> bool {
        self.room() < REQUEST
    }

    /// Whether something was refused since the last call.
    pub(crate) fn take_refused(&self) -> bool {
        self.has_refused.swap(false, Ordering::Relaxed)
    }

    /// Whether nothing was reserved since the last call.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.is_at_rest.swap(true, Ordering::Relaxed)
    }

    /// Waits for the first reservation after [`is_at_rest`](Self::is_at_rest). May be over before that.
    pub(crate) async fn stirs(&self) {
        self.stirred.notified().await;
    }

    /// Returns how much to read ahead at once: less as the room shrinks, so that it suffices for many readers.
    pub(crate) fn read_ahead(&self, most: usize) -> usize {
        (self.room() / READERS).clamp(LEAST_READ, most)
    }

    /// Returns the size of a kernel buffer for one direction of a socket. `None`: as the system sets it.
    pub(crate) fn kernel_buffer(&self) -> Option<usize> {
        let ceiling = self.ceiling().filter(|ceiling| *ceiling < AMPLE)?;
        Some((ceiling / CONNECTIONS).max(LEAST_BUFFER))
    }

    /// Returns what the kernel holds, on both sides, of one direction of a tunnel whose reader is slow.
    pub(crate) fn stuck(&self) -> usize {
        self.kernel_buffer().map_or(0, |bytes| 4 * bytes)
    }

    /// Returns how much is kept for requests, and not for stored answers.
    fn spared(&self) -> usize {
        self.ceiling().map_or(0, |ceiling| ceiling / SPARED)
    }

    /// Reserves for a stored answer.
    fn take_spare(&self, bytes: usize) -> Result<(), Exhausted> {
        self.reserve(bytes, self.spared())
    }

    fn take(&self, bytes: usize) -> Result<(), Exhausted> {
        self.reserve(bytes, 0)
            .inspect_err(|_| self.has_refused.store(true, Ordering::Relaxed))
    }

    /// Reserves so many bytes where so many are left `beside` them.
    fn reserve(&self, bytes: usize, beside: usize) -> Result<(), Exhausted> {
        let reserved = self.add(bytes);
        if reserved.saturating_add(beside) > self.limit.load(Ordering::Relaxed) {
            self.give(bytes);
            return Err(Exhausted);
        }
        Ok(())
    }

    /// Counts so many bytes as reserved, and returns all that are.
    fn add(&self, bytes: usize) -> usize {
        if self.is_at_rest.load(Ordering::Relaxed) && self.is_at_rest.swap(false, Ordering::Relaxed) {
            self.stirred.notify_one();
        }
        self.reserved.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    fn give(&self, bytes: usize) {
        self.reserved.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Reservation {
    /// Reserves so many bytes.
    pub(crate) fn take(bytes: usize) -> Result<Self, Exhausted> {
        MEMORY.take(bytes)?;
        Ok(Self(bytes))
    }

    /// Reserves what is held already, whether there is room or not.
    pub(crate) fn of(bytes: usize) -> Self {
        MEMORY.add(bytes);
        Self(bytes)
    }

    /// Reserves more, up to so many bytes in all.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Exhausted> {
        if bytes > self.0 {
            MEMORY.take(bytes - self.0)?;
            self.0 = bytes;
        }
        Ok(())
    }

    /// Reserves so many bytes in all, for stored answers: not the last of the room.
    pub(crate) fn fit(&mut self, bytes: usize) -> Result<(), Exhausted> {
        if bytes > self.0 {
            MEMORY.take_spare(bytes - self.0)?;
        } else {
            MEMORY.give(self.0 - bytes);
        }
        self.0 = bytes;
        Ok(())
    }

    /// Gives everything back.
    pub(crate) fn release(&mut self) {
        if self.0 > 0 {
            MEMORY.give(std::mem::take(&mut self.0));
        }
    }

    /// Reserves so many bytes instead, whether there is room or not: they are held already.
    pub(crate) fn set(&mut self, bytes: usize) {
        *self = Self::of(bytes);
    }
}

impl Clone for Reservation {
    fn clone(&self) -> Self {
        Self::of(self.0)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release();
    }
}

/// What a connection of the app takes.
pub(crate) const CONNECTION: usize = 4 * 1024;
/// TLS with the app, ended here.
pub(crate) const INTERCEPTED: usize = 32 * 1024;
/// A buffer smaller than this is not reserved by itself.
pub(crate) const SMALL: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const MB: usize = 1024 * 1024;

    #[test]
    fn without_a_ceiling_nothing_is_refused() {
        let memory = Memory::new();
        memory.measured(100 * MB);
        assert_eq!(memory.take(usize::MAX / 2), Ok(()));
        assert!(!memory.is_full() && !memory.take_refused());
        assert_eq!(memory.kernel_buffer(), None);
        assert_eq!(memory.read_ahead(MB), MB);
    }

    #[tokio::test]
    async fn who_waits_at_rest_is_woken_by_the_next_reservation() {
        let memory = Memory::new();
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(!memory.is_at_rest() && memory.is_at_rest());
        let mut waits = std::pin::pin!(memory.stirs());
        assert!(waits.as_mut().poll(&mut cx).is_pending());
        assert_eq!(memory.take(1), Ok(()));
        waits.await;
        assert!(!memory.is_at_rest() && memory.is_at_rest());
    }

    #[test]
    fn what_is_reserved_counts_before_it_is_resident() {
        let memory = Memory::new();
        memory.set_ceiling(Some(64 * MB), 8 * MB);
        assert_eq!(memory.take(50 * MB), Ok(()));
        assert_eq!(memory.take(7 * MB), Err(Exhausted));
        assert!(memory.take_refused() && !memory.take_refused());
        // Nothing of it has been touched yet.
        memory.measured(8 * MB);
        assert_eq!(memory.take(7 * MB), Err(Exhausted));
        assert_eq!(memory.take(6 * MB), Ok(()));
        assert!(memory.is_full());
        memory.give(56 * MB);
        assert_eq!(memory.room(), 56 * MB);
    }

    #[test]
    fn what_nobody_reserved_counts_while_it_is_resident() {
        let memory = Memory::new();
        memory.set_ceiling(Some(64 * MB), 8 * MB);
        assert_eq!(memory.take(10 * MB), Ok(()));
        memory.measured(70 * MB);
        assert!(memory.is_full());
        assert_eq!(memory.take(1), Err(Exhausted));
        memory.measured(38 * MB);
        assert_eq!(memory.room(), 26 * MB);
        memory.give(10 * MB);
        memory.measured(8 * MB);
        assert_eq!(memory.room(), 56 * MB);
    }

    #[test]
    fn the_shorter_memory_is_the_less_is_read_ahead() {
        let memory = Memory::new();
        memory.set_ceiling(Some(32 * MB), 8 * MB);
        let before = memory.room();
        let mut read = 0;
        for _ in 0..READERS {
            let bytes = memory.read_ahead(64 * 1024);
            memory.take(bytes).unwrap();
            read += bytes;
        }
        assert!(read < before * 2 / 3, "{read} of {before}");
        memory.measured(40 * MB);
        assert_eq!(memory.read_ahead(64 * 1024), LEAST_READ);
    }

    #[test]
    fn the_kernel_is_bounded_where_the_ceiling_is_low() {
        let memory = Memory::new();
        for (ceiling, bytes) in [
            (16 * MB, Some(64 * 1024)),
            (40 * MB, Some(64 * 1024)),
            (320 * MB, Some(256 * 1024)),
            (1024 * MB, None),
        ] {
            memory.set_ceiling(Some(ceiling), 8 * MB);
            assert_eq!(memory.kernel_buffer(), bytes, "{ceiling}");
            assert_eq!(memory.stuck(), bytes.map_or(0, |bytes| 4 * bytes));
        }
    }

    #[test]
    fn the_last_quarter_is_not_for_what_can_be_done_without() {
        let memory = Memory::new();
        memory.set_ceiling(Some(64 * MB), 8 * MB);
        assert_eq!(memory.overdraft(), 0);
        memory.take(42 * MB).unwrap();
        assert_eq!(memory.overdraft(), 2 * MB);
    }
}
