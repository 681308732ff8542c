//! Tests with a worker that follows the protocol, or not.

mod fake;
mod page;
mod past;
mod properties;
mod successor;
