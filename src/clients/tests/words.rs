//! The sentences of refusals, which another outrider reads.

use std::sync::Arc;

use crate::clients::ClientRefusal as No;
use crate::upstream::parent::wants_certificate;

/// An outrider that has this one as its parent knows these refusals by their words.
#[test]
fn a_child_knows_which_refusals_are_about_its_certificate() {
    let (client, title) = (|| Arc::from("app"), || Arc::from("evil"));
    for refusal in [
        No::Command,
        No::Destination {
            client: client(),
            destination: Arc::from("certificate"),
        },
        No::Ended { title: title() },
        No::HalfShown { client: client() },
        No::NoCertificate,
        No::Nothing { or_certificate: true },
        No::PasswordMissing { client: client() },
        No::WrongPassword { named: None },
        No::Removed,
        No::Unknown { title: title() },
        No::UnknownWithoutPassword { title: title() },
    ] {
        let expected = match refusal {
            No::Ended { .. }
            | No::HalfShown { .. }
            | No::NoCertificate
            | No::Unknown { .. }
            | No::UnknownWithoutPassword { .. } => true,
            No::Command
            | No::Destination { .. }
            | No::Nothing { .. }
            | No::PasswordMissing { .. }
            | No::WrongPassword { .. }
            | No::Removed => false,
        };
        let told = refusal.to_string();
        assert_eq!(wants_certificate(told.as_bytes()), expected, "{told}");
    }
}
