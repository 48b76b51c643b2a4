//! What operators do to a projection that may run meanwhile: they wait for a batch in flight, and its runners
//! see the change before their next one.

mod accept;
mod drop;

pub use accept::accept;
pub use drop::drop_projection;
