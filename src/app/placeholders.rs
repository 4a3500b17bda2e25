//! Which placeholders the app has in the place of secrets.

use std::path::Path;
use std::sync::Arc;

use crate::auth::placeholder::{PlaceholderSet, are_shared, shared};
use crate::config::Config;
use crate::error::ErrorChain;
use crate::secret::Snapshot;

/// Where the placeholders of the app come from.
#[derive(Clone, Debug)]
pub(crate) enum PlaceholderSource {
    /// The app was started with these, or without any.
    Given(Option<Arc<PlaceholderSet>>),
    /// The app is started by others, and its variables are made by `outrider env`.
    Shared,
}

impl PlaceholderSource {
    /// Returns the placeholders for `config`. Those of `before` stay: the app has them.
    pub(super) fn placeholders(
        &self,
        config: &Config,
        bundle: &Path,
        secrets: &Snapshot,
        before: Option<Arc<PlaceholderSet>>,
    ) -> Option<Arc<PlaceholderSet>> {
        match self {
            Self::Given(given) => given.clone(),
            Self::Shared if !are_shared(&config.placeholders, is_on_platform()) => before,
            Self::Shared => match shared::agree(config, bundle, secrets) {
                Ok(set) => {
                    let set = match &before {
                        Some(before) => set.joined_with(before),
                        None => set,
                    };
                    (!set.is_empty()).then(|| Arc::new(set)).or(before)
                }
                Err(error) => {
                    tracing::error!(
                        error = %ErrorChain(&error),
                        "no placeholders: the app gets no secret through `outrider env` until this is corrected",
                    );
                    before
                }
            },
        }
    }

    /// Warns of secrets that the app has as they are, because it was started before a reload named them.
    pub(super) fn warn_of_late_ones(&self, config: &Config, secrets: &Snapshot) {
        let Self::Given(Some(given)) = self else { return };
        for reference in given.missing(config, secrets) {
            tracing::warn!(
                %reference,
                "the command was started before a destination used this secret, and has it as it is; restart it",
            );
        }
    }
}

/// Whether an app of Cloud Foundry runs beside us.
pub(crate) fn is_on_platform() -> bool {
    std::env::var_os("VCAP_APPLICATION").is_some_and(|application| !application.is_empty())
}
