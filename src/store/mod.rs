//! The store that counts one quota for all instances: a Redis server, and the task that asks it.

mod resp;
#[cfg(test)]
mod tests;
