//! How much work each test is.

use std::time::Duration;

/// The sizes of one form.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// A multiple of the number of clients, for each loads as many.
    pub catch_up_streams: usize,
    /// The longest that a peer is watched while it catches up.
    pub catch_up_limit: Duration,
    pub latency: Duration,
    pub exactness: Duration,
    /// Of one measurement: each is taken `append_rounds` times.
    pub append: Duration,
    pub append_rounds: usize,
}

/// How many write at once where many do.
pub const CLIENTS: usize = 16;
/// Events of a stream: an order is placed, filled and shipped.
pub const STREAM_EVENTS: usize = 20;
/// Of the one writer whose events' latency is taken.
pub const LATENCY_RATE: usize = 100;

impl Size {
    pub const FULL: Size = Size {
        catch_up_streams: 10_000,
        catch_up_limit: Duration::from_secs(30),
        latency: Duration::from_secs(20),
        exactness: Duration::from_secs(20),
        append: Duration::from_secs(5),
        append_rounds: 3,
    };

    pub const QUICK: Size = Size {
        catch_up_streams: 800,
        catch_up_limit: Duration::from_secs(5),
        latency: Duration::from_secs(3),
        exactness: Duration::from_secs(6),
        append: Duration::from_secs(1),
        append_rounds: 1,
    };
}
