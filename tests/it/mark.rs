//! The mark on a real server: scripted interleavings, the follower stepped by hand.

mod gaps;
mod orders;
mod policies;
mod preconditions;
mod prepared;
mod stage;
mod start;
