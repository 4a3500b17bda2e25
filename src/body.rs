//! Bodies of the answers that this proxy makes itself.
