//! What the machine allows us, and what we owe it: CPUs, descriptors, memory, no core file.

use std::path::Path;

use rustix::process::{DumpableBehavior, Resource, Rlimit};

use crate::units::parse_size;

/// Takes as many descriptors as the system allows, and keeps secrets out of core files.
pub(super) fn prepare_process() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if rustix::process::setrlimit(Resource::Nofile, raised).is_err() {
        tracing::debug!("the limit on open files stays as it is");
    }
    // Not RLIMIT_CORE: a command under `exec` would inherit that.
    if rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).is_err() {
        tracing::warn!("core files cannot be turned off: a crash may leave secrets on disk");
    }
}

/// The container's CPU share, rounded up; without one, the CPUs there are.
pub(super) fn cpus() -> usize {
    // Reads the quotas of cgroups v1 and v2 as well as the affinity mask.
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How much memory we may use, and how much we do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    ceiling: Option<u64>,
}

impl Memory {
    /// `configured`, else the sidecar's own MEMORY_LIMIT as the platform sets it, else none.
    pub(super) fn of(configured: Option<u64>) -> Self {
        let platform = || {
            std::env::var("MEMORY_LIMIT")
                .ok()
                .and_then(|text| parse_size(&text.to_uppercase()).ok())
        };
        Self {
            ceiling: configured.or_else(platform),
        }
    }

    pub(super) fn is_short(self) -> bool {
        let Some(ceiling) = self.ceiling else { return false };
        resident().is_some_and(|resident| resident > ceiling)
    }
}

/// Resident memory in bytes.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string(Path::new("/proc/self/statm")).ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_short_only_above_a_ceiling() {
        assert!(!Memory { ceiling: None }.is_short());
        assert!(
            !Memory {
                ceiling: Some(u64::MAX)
            }
            .is_short()
        );
        assert!(Memory { ceiling: Some(1) }.is_short());
    }
}
