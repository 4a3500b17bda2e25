//! Warnings about placeholders: where nothing can be replaced, and references that no destination has.

use crate::auth::placeholder;
use crate::config::{Config, Mode, PlaceholderMode, Problems};

/// Warns of destinations whose requests are not seen, and of settings for secrets that no destination uses.
pub(super) fn warn_of_placeholders(config: &Config, warnings: &mut Problems) {
    let placeholders = &config.placeholders;
    let replaced = placeholder::replaced(config);
    if placeholders.mode != PlaceholderMode::Never {
        for destination in config.destinations.iter().filter(|own| own.mode == Mode::Tunnel) {
            let used = placeholder::used(destination);
            if let Some(reference) = replaced.iter().find(|reference| used.contains(reference)) {
                warnings.add(
                    format!("destinations.{}.mode", destination.name),
                    format!(
                        "the app may have a placeholder for {reference}, and in tunnels of https:// nothing is put in its place"
                    ),
                    format!("remove mode, or add {reference} to placeholders.keep"),
                );
            }
        }
    }
    let keys = [
        ("keep", placeholders.keep.iter().collect::<Vec<_>>()),
        ("remove", placeholders.remove.iter().collect()),
        (
            "shapes",
            placeholders
                .shapes
                .iter()
                .map(|(reference, _)| reference)
                .collect(),
        ),
    ];
    let is_used = |reference| placeholder::used_anywhere(config).any(|used| used == reference);
    for (key, references) in keys {
        for reference in references.into_iter().filter(|reference| !is_used(*reference)) {
            warnings.add(
                format!("placeholders.{key}"),
                format!("no destination uses {reference}, so the app has it as it is"),
                "name it in a destination, or remove it here",
            );
        }
    }
}
