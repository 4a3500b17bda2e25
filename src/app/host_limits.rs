//! The limits of the machine: CPUs, descriptors, memory; and no core file.

use rustix::process::{DumpableBehavior, Resource, Rlimit};

use crate::descriptors;
use crate::units::parse_size;

/// Takes as many descriptors as the system allows, divides them, and keeps secrets out of core files.
pub(super) fn prepare_process() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if rustix::process::setrlimit(Resource::Nofile, raised).is_err() {
        tracing::debug!("the limit on open files stays as it is");
    }
    descriptors::divide(rustix::process::getrlimit(Resource::Nofile).current);
    // Not RLIMIT_CORE: a command under `exec` would inherit that.
    if rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).is_err() {
        tracing::warn!("core files cannot be turned off: a crash may leave secrets on disk");
    }
}

/// Returns the container's CPU share, rounded up; without a share, the number of CPUs.
pub(super) fn cpus() -> usize {
    // Reads the quotas of cgroups v1 and v2 as well as the affinity mask.
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Returns how much memory we may use: `configured`, else MEMORY_LIMIT as the platform sets it for the sidecar,
/// else any amount (`None`).
pub(super) fn memory(configured: Option<u64>) -> Option<usize> {
    let platform = || {
        let text = std::env::var("MEMORY_LIMIT").ok()?;
        parse_size(&text.to_uppercase()).ok()
    };
    (configured.or_else(platform)).map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// Returns the resident memory in bytes.
pub(super) fn resident() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_configured_goes_before_the_platform() {
        assert_eq!(memory(Some(1 << 20)), Some(1 << 20));
        assert!(resident().is_some_and(|bytes| bytes > 1 << 20));
    }
}
