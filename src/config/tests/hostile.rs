//! Texts that mean harm: the answer is a problem, soon, and never a panic.

use std::time::{Duration, Instant};

use super::language::WHOLE;
use super::*;
