//! What every peer written in Rust shares, so that only its own API differs.
//!
//! - [`workload`]: the format of the files that say who appends what;
//! - [`order`]: the one rule by which an event changes the read model;
//! - [`writers`]: clients that append such a file and tell when each append was committed;
//! - [`program`]: the verbs that the driver calls.

pub mod order;
pub mod program;
pub mod workload;
pub mod writers;

pub use program::{Peer, run};
pub use workload::{Append, Event};
pub use writers::Writer;
