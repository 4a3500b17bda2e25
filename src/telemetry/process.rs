//! Memory, CPU, threads and file descriptors of this process, under the names that every Prometheus dashboard
//! knows.
//!
//! Read from `/proc` when the page is rendered. On a system without it the metrics are absent.

use std::sync::Mutex;

use procfs::process::{LimitValue, Process as Proc};
use prometheus::{Counter, IntGauge, Registry};

use super::families::register;
use crate::sync::lock;

/// The `process_*` metrics.
pub(super) struct Process {
    /// Held while sampling, so that two scrapes at once do not add the same time twice.
    cpu: Mutex<Counter>,
    max_fds: IntGauge,
    open_fds: IntGauge,
    resident: IntGauge,
    threads: IntGauge,
    virtual_memory: IntGauge,
}

impl Process {
    /// Registers the metrics. Returns `None` if `/proc` cannot be read.
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Option<Self>> {
        let (Ok(stat), Ok(boot)) = (Proc::myself().and_then(|me| me.stat()), procfs::boot_time_secs()) else {
            return Ok(None);
        };
        let gauge = |name, help| register(registry, IntGauge::new(name, help)?);
        let start = gauge("process_start_time_seconds", "When this process started.")?;
        start.set(whole(boot + stat.starttime / procfs::ticks_per_second()));
        let process = Self {
            cpu: Mutex::new(register(
                registry,
                Counter::new("process_cpu_seconds_total", "User and system CPU time used.")?,
            )?),
            max_fds: gauge("process_max_fds", "How many file descriptors may be open.")?,
            open_fds: gauge("process_open_fds", "How many file descriptors are open.")?,
            resident: gauge("process_resident_memory_bytes", "Memory that is resident.")?,
            threads: gauge("process_threads", "How many threads there are.")?,
            virtual_memory: gauge("process_virtual_memory_bytes", "Address space in use.")?,
        };
        process.sample();
        Ok(Some(process))
    }

    /// Reads the figures; one that cannot be read keeps its value.
    pub(super) fn sample(&self) {
        let Ok(me) = Proc::myself() else { return };
        if let Ok(stat) = me.stat() {
            let used = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
            let cpu = lock(&self.cpu);
            cpu.inc_by((used - cpu.get()).max(0.0));
            self.resident
                .set(whole(stat.rss.saturating_mul(procfs::page_size())));
            self.threads.set(stat.num_threads);
            self.virtual_memory.set(whole(stat.vsize));
        }
        if let Ok(open) = me.fd_count() {
            self.open_fds.set(whole(open as u64));
        }
        if let Ok(limits) = me.limits()
            && let LimitValue::Value(most) = limits.max_open_files.soft_limit
        {
            self.max_fds.set(whole(most));
        }
    }
}

fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
