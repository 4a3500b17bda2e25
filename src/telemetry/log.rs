//! Log lines: JSON or text on standard error, never blocking traffic.

use crate::config::Log;
