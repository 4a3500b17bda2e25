//! The codec against itself, and against bytes that are no HTTP. Streams are in memory; time stands still but for timers.

mod client;
mod decoder;
mod exchange;
mod framing;
mod head;
mod hostile;
mod interim;
mod mutation;
mod outflow;
mod script;
mod server;
mod waiting;
